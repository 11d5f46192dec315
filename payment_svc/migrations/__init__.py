"""Migrations, written by the ORM (`make migrations`) and applied at start."""
