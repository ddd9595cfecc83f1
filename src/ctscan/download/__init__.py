"""The study's dataset and published weights: getting them and comparing them with their pins."""
