"""Get the study's dataset and the backbone's weights, and compare the dataset with its pin."""
