"""Draw the embedded sample, a folder of synthetic CT slices: `python src/draw_sample.py` writes `sample/`.

The sample is fixed data: its seed is a constant of `ctscan.phantoms`, not a parameter of the experiment.
"""

from pathlib import Path

from ctscan.core.files import publish
from ctscan.phantoms import SAMPLE_SEED, draw_sample

if __name__ == "__main__":
    with publish(Path("sample")) as folder:
        draw_sample(folder, SAMPLE_SEED)
