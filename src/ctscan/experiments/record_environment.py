"""Write metrics/environment.json, which explains a difference of the last digits. It is no out: it may change."""

from pathlib import Path

from ctscan.core.files import write_json
from ctscan.experiments.environment import environment

if __name__ == "__main__":
    write_json(Path("metrics/environment.json"), environment())
