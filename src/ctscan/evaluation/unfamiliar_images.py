"""Make the images that the novelty detector is tried on: drawn from a seed, or photographs inside scikit-image."""

from ctscan.core.seeds import generator
from ctscan.images.decode import resize

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter
from skimage import data

Images = npt.NDArray[np.uint8]

# Photographs inside the installed package, so that nothing is downloaded.
PHOTOGRAPHS = ("astronaut", "brick", "camera", "chelsea", "coffee", "coins", "grass", "gravel", "rocket")
RIBS = 9


def non_ct_images(slices: Images, number: int, seed: int) -> dict[str, Images]:
    """Images that are not chest CT slices, by kind: uint8 (number, s, s) each, and `slices` (n, s, s) `inverted`."""
    side = slices.shape[1]
    return {
        "noise": generator(seed, "noise").integers(0, 256, (number, side, side), dtype=np.uint8),
        "inverted": 255 - slices,
        "photograph": np.stack([photograph(seed, index, side) for index in range(number)]),
        "x_ray": np.stack([x_ray(seed, index, side) for index in range(number)]),
    }


def altered_slices(slices: Images) -> dict[str, Images]:
    """Chest CT slices (n, s, s) altered as no training image is, by kind; a radiologist would still recognise them."""
    return {
        "mirrored": slices[:, :, ::-1],
        "quarter_turn": np.rot90(slices, axes=(1, 2)),
        "double_contrast": np.clip(2 * slices.astype(np.int64) - 128, 0, 255).astype(np.uint8),
    }


def photograph(seed: int, index: int, side: int) -> Images:
    """A random square of one of `PHOTOGRAPHS` in grey, uint8 (side, side)."""
    random = generator(seed, "photograph", index)
    picture = getattr(data, PHOTOGRAPHS[index % len(PHOTOGRAPHS)])()
    if picture.ndim == 3:
        picture = np.rint(picture @ (0.299, 0.587, 0.114)).astype(np.uint8)
    height, width = picture.shape
    edge = int(min(height, width) * random.uniform(0.5, 1))
    top, left = random.integers(0, height - edge + 1), random.integers(0, width - edge + 1)
    return resize(picture[top : top + edge, left : left + edge], side)


def x_ray(seed: int, index: int, side: int) -> Images:
    """A rough frontal chest radiograph with bright mediastinum and heart, dark lungs and ribs, uint8 (side, side)."""
    random = generator(seed, "x-ray", index)
    y, x = np.meshgrid(*2 * [np.linspace(-1, 1, side)], indexing="ij")
    exposure = random.uniform(150, 190) * np.exp(-((np.abs(x) / random.uniform(0.85, 1)) ** 6)) + 20 * y
    for flank in (-1, 1):
        across = (x - flank * random.uniform(0.38, 0.46)) / random.uniform(0.26, 0.33)
        along = (y - random.uniform(-0.1, 0.05)) / random.uniform(0.6, 0.72)
        exposure -= random.uniform(80, 105) / (1 + np.exp(8 * (across**2 + along**2 - 1)))
    for rib in range(RIBS):
        arc = -0.75 + 0.17 * rib + 0.35 * np.abs(x) ** 1.6
        exposure += random.uniform(10, 18) * np.exp(-(((y - arc) / 0.03) ** 2)) * (np.abs(x) > 0.08)
    exposure += random.uniform(45, 60) * np.exp(-((x / random.uniform(0.1, 0.14)) ** 2))
    exposure += random.uniform(40, 60) * np.exp(-((((x - 0.15) / 0.25) ** 2 + ((y - 0.35) / 0.25) ** 2) ** 2))
    exposure = gaussian_filter(exposure + random.normal(0, 4, exposure.shape), side / 224)
    picture: Images = np.clip(exposure, 0, 255).astype(np.uint8)
    return picture
