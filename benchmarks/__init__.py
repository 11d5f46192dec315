"""The benchmark: how fast the saga is, beside a floor without guarantees, and beside peers."""
