"""CT slices from a DICOM file: stored values to Hounsfield units, and those to the greys of a lung window."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ctscan.core.errors import UserError
from ctscan.images.decode import MAX_PIXELS, Greys

import numpy as np
import pydicom
from pydicom.errors import InvalidDicomError
from pydicom.pixels.utils import iter_pixels
from pydicom.uid import UID

# The window of the study's images isn't published; this is the usual one for lungs.
CENTRE, WIDTH = -600.0, 1500.0  # Hounsfield units: -1350 and below is black, 150 and above is white

# Files in use break rules on values that nothing here reads.
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE


def read_frames(path: Path) -> Iterator[Greys]:
    """The slices of a DICOM file, uint8 (H, W) each, one at a time: of a multi-frame file, its frames in order.

    Stored values become Hounsfield units by rescale slope and intercept (of the frame, where frames have their own),
    and greys by the lung window of centre -600 and width 1500, linearly (LINEAR_EXACT, DICOM PS3.3 C.11.2.1.3.2).
    MONOCHROME1, which is to be shown with the lowest value white, is inverted.

    Raises:
        UserError: the file is no DICOM file or damaged, not of modality CT, a localizer, without pixels, not grey,
            without rescale slope and intercept, of more than 16.8 million pixels a frame, or compressed in a way that
            no installed decoder reads.
    """
    # Not `catch_warnings`, which would exchange the filters of threads that decode beside this one.
    warnings.filterwarnings("ignore", module="pydicom")
    try:
        dataset = pydicom.dcmread(path)
        _check(dataset, path)
    except InvalidDicomError:
        raise UserError(f"{path}: not a DICOM file; export it again, or remove the file") from None
    except UserError:
        raise
    except Exception as error:  # damaged content gives errors of any type
        raise UserError(f"{path}: damaged DICOM ({_one_line(error)}); export it again, or remove the file") from None

    inverted = dataset.PhotometricInterpretation == "MONOCHROME1"
    frames = iter_pixels(dataset)
    for index in range(int(dataset.get("NumberOfFrames") or 1)):
        slope, intercept = _rescale(dataset, index, path)
        try:
            stored = next(frames)
        except (StopIteration, Exception) as error:
            syntax = UID(dataset.file_meta.TransferSyntaxUID)
            remedy = "decompress it (`gdcmconv --raw`)" if syntax.is_compressed else "export it again"
            raise UserError(
                f"{path}: its pixels, {syntax.name}, can't be decoded here ({_one_line(error)}); {remedy}, or remove it"
            ) from None
        greys = lung_window(stored * slope + intercept)
        yield 255 - greys if inverted else greys


def lung_window(hounsfield: np.ndarray) -> Greys:
    """Hounsfield units of any shape to uint8: 0 up to -1350, 255 from 150 on, linear between, rounded."""
    shares = np.clip((hounsfield - (CENTRE - WIDTH / 2)) / WIDTH, 0, 1)
    greys: Greys = np.rint(shares * 255).astype(np.uint8)
    return greys


def _check(dataset: pydicom.Dataset, path: Path) -> None:
    modality = dataset.get("Modality") or "none"
    if modality != "CT":
        raise UserError(f"{path}: DICOM of modality {modality}, not CT; give CT slices alone")
    if "LOCALIZER" in (dataset.get("ImageType") or ()):
        raise UserError(f"{path}: a localizer (scout view), not a slice; remove it")
    if "PixelData" not in dataset:
        raise UserError(f"{path}: DICOM without pixels; export the image itself, or remove the file")
    if dataset.PhotometricInterpretation not in ("MONOCHROME1", "MONOCHROME2"):
        raise UserError(
            f"{path}: DICOM in {dataset.PhotometricInterpretation}, not in greys; export the original slice"
        )
    if dataset.Rows * dataset.Columns > MAX_PIXELS:
        raise UserError(
            f"{path}: {dataset.Columns}x{dataset.Rows} pixels, absurdly large for a CT slice; export it smaller"
        )
    _rescale(dataset, 0, path)


def _rescale(dataset: pydicom.Dataset, frame: int, path: Path) -> tuple[float, float]:
    """Slope and intercept: of the file, or as enhanced CT has them, of all frames or of each."""
    places = [dataset]
    for groups, index in (("SharedFunctionalGroupsSequence", 0), ("PerFrameFunctionalGroupsSequence", frame)):
        for group in list(dataset.get(groups) or ())[index : index + 1]:
            places += group.get("PixelValueTransformationSequence") or ()
    for place in reversed(places):
        if place.get("RescaleSlope") is not None and place.get("RescaleIntercept") is not None:
            return float(place.RescaleSlope), float(place.RescaleIntercept)
    raise UserError(
        f"{path}: DICOM without rescale slope and intercept, so without Hounsfield units; export the original slice"
    )


def _one_line(error: Any) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
