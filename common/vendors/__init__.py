"""What one vendor of databases does differently from another; only `common.db` and `common.rows` look here."""
