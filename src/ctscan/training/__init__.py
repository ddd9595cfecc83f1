"""Train the head and then the last layers, fast and so that a killed run can continue."""
