"""Read slices from files as 8-bit greys, in batches, and the table that lists them."""
