"""Comparing, repeating, recording and verifying runs."""
