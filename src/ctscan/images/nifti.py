"""Read the axial slices of a CT volume in NIfTI, in the orientation and the greys of the DICOM slices."""

import logging
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

from ctscan.core.errors import UserError
from ctscan.images.greys import MAX_PIXELS, Greys, hounsfield_greys
from ctscan.images.kinds import MAX_UNPACKED, oversized

import nibabel
import numpy as np

# It logs what it puts right in headers; what can't be read comes as an error.
nibabel.imageglobals.logger.setLevel(logging.CRITICAL)  # type: ignore[attr-defined]


def read_volume(path: Path, content: bytes) -> Iterator[Greys | UserError]:
    """The axial slices of a NIfTI volume, uint8 (H, W) each, from the feet to the head.

    Each is turned as radiologists see it, and as DICOM has it: the front of the body above, its right side on the
    left. Values are taken for Hounsfield units, as converters from DICOM write them; NIfTI can't say so, but a slice
    without air is refused. Greys are those of the lung window.

    Args:
        path: of the file, for messages.
        content: its bytes, not compressed.

    Yields:
        The greys of a slice, or the fault of a slice that has none.

    Raises:
        UserError: the file is damaged, not a volume of numbers, or without an orientation; too large.
    """
    try:
        image = (nibabel.Nifti2Image if content[4:8] == b"n+2\0" else nibabel.Nifti1Image).from_stream(BytesIO(content))
        shape = tuple(int(length) for length in image.shape)
        kind = image.get_data_dtype()
        oriented = bool(image.header["qform_code"] > 0 or image.header["sform_code"] > 0)
        scale, offset = float(image.dataobj.slope), float(image.dataobj.inter)
    except Exception as error:  # damaged content gives errors of any type
        raise UserError(f"{path}: damaged NIfTI ({_one_line(error)}); export it again, or remove the file") from None
    shape = (*shape, *(1,) * (3 - len(shape)))
    if any(length != 1 for length in shape[3:]) or min(shape) < 1:
        raise UserError(f"{path}: NIfTI of shape {shape}, not one volume; export one series")
    if kind.names or kind.kind not in "iuf":
        raise UserError(f"{path}: NIfTI of {kind}, not of grey values; export the original series")
    if not oriented:
        raise UserError(f"{path}: NIfTI without orientation (qform and sform are 0); convert the series again")
    if np.prod(shape, dtype=float) * kind.itemsize > MAX_UNPACKED:
        raise UserError(oversized(path, MAX_UNPACKED))
    try:
        codes = nibabel.io_orientation(image.affine)
        stored = np.asarray(image.dataobj.get_unscaled()).reshape(shape[:3])
    except Exception as error:
        raise UserError(f"{path}: damaged NIfTI ({_one_line(error)}); export it again, or remove the file") from None
    # Axes become right to left, front to back, feet to head: nibabel counts from left to right and back to front.
    volume = nibabel.apply_orientation(stored, codes)[::-1, ::-1].transpose(2, 1, 0)
    if volume.shape[1] * volume.shape[2] > MAX_PIXELS:
        raise UserError(
            f"{path}: slices of {volume.shape[2]}x{volume.shape[1]} pixels, absurdly large for CT; export it smaller"
        )
    for number, plane in enumerate(volume, 1):
        try:
            yield hounsfield_greys(
                plane.astype(np.float64) * scale + offset, None, f"{path}#{number}" if len(volume) > 1 else path
            )
        except UserError as error:
            yield error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
