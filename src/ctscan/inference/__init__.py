"""The trained model on new slices: predictions, maps and exports."""
