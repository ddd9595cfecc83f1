"""Write metrics/environment.json, which explains a difference of the last digits. It is no out: it may change."""

from pathlib import Path

from ctscan.environment import environment
from ctscan.records import write_json

if __name__ == "__main__":
    write_json(Path("metrics/environment.json"), environment())
