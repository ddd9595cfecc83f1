"""Check a dataset, split it into train, validation and test, and look for leaks."""
