"""Draw small images for the tests: random smooth textures, no two of which have perceptual hashes that are alike."""

from pathlib import Path

from ctscan.images.greys import Greys

import numpy as np
from PIL import Image


def texture(seed: int, height: int = 40, width: int = 44) -> Greys:
    """uint8 (height, width) that depends on `seed` alone, with detail at the scale that a perceptual hash looks at."""
    cells = np.random.default_rng(seed).integers(0, 256, (16, 16), dtype=np.uint8)
    return np.asarray(Image.fromarray(cells).resize((width, height), Image.Resampling.BICUBIC))


def draw_dataset(folder: Path, images: int) -> Path:
    """`images` numbered PNGs for each of the classes COVID and non-COVID, named as in the study's dataset."""
    for offset, (place, name) in enumerate((("COVID", "Covid"), ("non-COVID", "Non-Covid"))):
        (folder / place).mkdir(parents=True)
        for number in range(1, images + 1):
            Image.fromarray(texture(1000 * offset + number)).save(folder / place / f"{name} ({number}).png")
    return folder
