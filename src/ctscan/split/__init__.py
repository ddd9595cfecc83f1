"""The check of a dataset, its split into train, validation and test, and signs of leaks."""
