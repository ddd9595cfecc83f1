"""Slices from files to 8-bit greys, in batches, and the table that lists them."""
