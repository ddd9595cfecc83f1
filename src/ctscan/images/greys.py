"""Turn Hounsfield units into the 8-bit greys of a lung window, and refuse values that cannot be Hounsfield units."""

from pathlib import Path

from ctscan.core.errors import UserError

import numpy as np
import numpy.typing as npt

Greys = npt.NDArray[np.uint8]

MAX_PIXELS = 4096 * 4096  # 32 times the area of a 512x512 CT slice

# The window of the study's images isn't published; this is the usual one for lungs.
CENTRE, WIDTH = -600.0, 1500.0  # Hounsfield units: -1350 and below is black, 150 and above is white
# A chest slice shows lungs (about -850) and most often the air around the body (-1000); water is 0, fat about -100.
AIR = -500.0
LEAST = 0.01  # share of the pixels that are air, and that are not


def lung_window(hounsfield: np.ndarray) -> Greys:
    """Hounsfield units of any shape to uint8: 0 up to -1350, 255 from 150 on, linear between, rounded.

    It is DICOM's LINEAR_EXACT (PS3.3 C.11.2.1.3.2) with centre -600 and width 1500.
    """
    shares = np.clip((hounsfield - (CENTRE - WIDTH / 2)) / WIDTH, 0, 1)
    greys: Greys = np.rint(shares * 255).astype(np.uint8)
    return greys


def hounsfield_greys(hounsfield: np.ndarray, padding: np.ndarray | None, name: str | Path) -> Greys:
    """The greys of one slice in Hounsfield units (H, W): `lung_window`, and black where `padding` (H, W) is True.

    Padding is what the scanner fills in around its field of view. It has no Hounsfield units, whatever its number is.

    Raises:
        UserError: the values are not finite, or hold no air or air alone, as they would if they were greys or another
            quantity: less than 1 % of the pixels lie below -500, or above.
    """
    seen = hounsfield if padding is None else hounsfield[~padding]
    if not np.isfinite(seen).all():
        raise UserError(f"{name}: holds values that are not finite numbers; export it again, or remove it")
    if not len(seen):
        raise UserError(f"{name}: holds padding alone; export it again, or remove it")
    if np.ptp(seen) == 0:
        raise UserError(f"{name}: constant, every pixel is {seen.flat[0]:g}; export it again, or remove it")
    if (seen > AIR).mean() < LEAST:
        raise UserError(
            f"{name}: holds air alone (highest value {seen.max():g}), so its values are not Hounsfield units, or "
            "nobody is in it; export the original slice, or remove it"
        )
    if (seen < AIR).mean() < LEAST:
        raise UserError(
            f"{name}: holds no air (lowest value {seen.min():g}, but a chest slice in Hounsfield units has "
            f"{LEAST:.0%} of its pixels below {AIR:g}), so its values are not Hounsfield units, or it is not of "
            "the chest; export the original slice, or remove it"
        )
    greys = lung_window(hounsfield)
    if padding is not None:
        greys[padding] = 0
    return greys
