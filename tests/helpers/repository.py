"""Say where this repository lies, for tests that run its commands or read its files."""

from pathlib import Path

REPO = Path(__file__).parents[2]
