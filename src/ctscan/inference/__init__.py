"""Use the trained model on new slices: predict, explain, export."""
