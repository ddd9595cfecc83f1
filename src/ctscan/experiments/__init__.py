"""Compare, repeat, record and verify runs."""
