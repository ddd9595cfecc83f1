"""Measure the models on the test images, and compare them with baselines and controls."""
