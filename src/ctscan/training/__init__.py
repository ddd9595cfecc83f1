"""The two phases of training, their loop and what makes them fast and resumable."""
