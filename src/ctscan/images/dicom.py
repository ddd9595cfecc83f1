"""Read CT slices from a DICOM file: stored values to Hounsfield units, and those to the greys of a lung window."""

import warnings
import zlib
from collections.abc import Iterator
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any

from ctscan.core.errors import UserError
from ctscan.images.greys import MAX_PIXELS, Greys, hounsfield_greys
from ctscan.images.kinds import MAX_UNPACKED, oversized

import numpy as np
import pydicom
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_dataset, read_preamble
from pydicom.pixels.utils import pixel_array
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    EncapsulatedPDFStorage,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

# Files in use break rules on values that nothing here reads.
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE

SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"  # and .1 to .4 below it, of several frames
HOUNSFIELD_TYPES = ("", "HU", "HU_MOD", "US")  # US: unspecified, as some scanners write of their Hounsfield units
MAX_FRAMES = 20_000  # of a file; a whole-body CT has some 2,000 slices
# What pydicom decodes with a package that is not among the requirements, as most files don't need it.
_BY_GDCM = (JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1, JPEGLSLossless, JPEGLSNearLossless)
_HIGH_THROUGHPUT = tuple(f"1.2.840.10008.1.2.4.{number}" for number in (201, 202, 203))  # JPEG 2000


def read_frames(path: Path, content: bytes) -> Iterator[Greys | UserError]:
    """The slices of a DICOM file, uint8 (H, W) each, one at a time: of a multi-frame file, its frames in order.

    Each is turned as radiologists see it, by the orientation that the file declares.

    Stored values become Hounsfield units by rescale slope and intercept (of the frame, where frames have their own),
    and greys by the lung window. Padding (0028,0120 and its range 0028,0121) becomes black.

    MONOCHROME1 does not invert Hounsfield units. DICOM defines it as a way to display: the lowest value is white
    after rescaling and windowing (PS3.3 C.7.6.3.1.2), and leaves the values. So viewers invert in their last step
    alone (cornerstone3D, pull request 2215), and what reads values for computing leaves them (ITK: SimpleITK-Notebooks,
    pull request 257; 3D Slicer, SCIFIO issue 311). Air is -1000 HU and dark in the images that the network has seen. A
    file whose stored values were inverted along with the tag has no air by its Hounsfield units, and is refused.

    Args:
        path: of the file, for messages.
        content: its bytes, not packed by gzip.

    Yields:
        The greys of a frame, or the fault of a frame that has none: the others are still read.

    Raises:
        UserError: the file is not DICOM or damaged, not of modality CT, a secondary capture, a localizer, not axial,
            without pixels, not grey, without rescale slope and intercept, not in Hounsfield units, of more than 16.8
            million pixels a frame, without transfer syntax, compressed in a way that no installed decoder reads, or of
            over 1 GiB once its deflated data set is unpacked.
    """
    # Not `catch_warnings`, which would exchange the filters of threads that decode beside this one.
    warnings.filterwarnings("ignore", module="pydicom")
    try:
        _check_unpacked_size(content, path)
        dataset = pydicom.dcmread(BytesIO(content))
        _check(dataset, path)
        count = int(dataset.get("NumberOfFrames") or 1)
        whole = _whole_frames(dataset, count, path)
    except InvalidDicomError:
        raise UserError(f"{path}: not a DICOM file; export it again, or remove the file") from None
    except UserError:
        raise
    except Exception as error:  # damaged content gives errors of any type
        raise UserError(f"{path}: damaged DICOM ({_one_line(error)}); export it again, or remove the file") from None
    if whole < count:
        dataset.NumberOfFrames = whole  # or pydicom refuses them all
    for index in range(whole):
        name = f"{path}#{index + 1}" if count > 1 else str(path)
        try:
            found: Greys | UserError = _frame(dataset, index, name)
        except UserError as error:
            found = error
        except Exception as error:  # the frames may have damaged elements of their own
            found = UserError(f"{name}: damaged DICOM ({_one_line(error)}); export it again, or remove the file")
        yield found
    if whole < count:
        yield UserError(
            f"{path}#{whole + 1}: its pixels end here, before the last of {count} frames; export it again, or remove it"
        )


def _check_unpacked_size(content: bytes, path: Path) -> None:
    """Refuse a deflated data set (PS3.5 A.5) of over `MAX_UNPACKED` bytes, which pydicom would unpack whole."""
    stream = BytesIO(content)
    read_preamble(stream, force=False)
    meta = read_dataset(stream, False, True, stop_when=lambda tag, vr, length: tag.group != 2)
    if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        return
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    size, packed = 0, content[stream.tell() :]
    while packed and size <= MAX_UNPACKED:
        size += len(unpacker.decompress(packed, 2**20))
        packed = unpacker.unconsumed_tail
    if size > MAX_UNPACKED:
        raise UserError(oversized(path, MAX_UNPACKED))


def _check(dataset: pydicom.Dataset, path: Path) -> None:
    sop_class = str(dataset.get("SOPClassUID") or "")
    if sop_class == "1.2.840.10008.1.3.10" or "DirectoryRecordSequence" in dataset:
        raise UserError(f"{path}: a DICOM directory (DICOMDIR), not a slice; give the files that it lists")
    if sop_class == EncapsulatedPDFStorage:
        raise UserError(f"{path}: a PDF in DICOM, not a slice; remove it")
    modality = dataset.get("Modality") or "none"
    if modality != "CT":
        raise UserError(f"{path}: DICOM of modality {modality}, not CT; give CT slices alone")
    if sop_class == SECONDARY_CAPTURE or sop_class.startswith(f"{SECONDARY_CAPTURE}."):
        raise UserError(
            f"{path}: a secondary capture (a picture of a screen, in unknown greys), not a slice in Hounsfield units; "
            "export the original slice"
        )
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
    if not dataset.file_meta.get("TransferSyntaxUID"):
        raise UserError(
            f"{path}: DICOM without transfer syntax (0002,0010), so nothing says how its pixels are stored; "
            "export it again, or remove the file"
        )
    if dataset.get("HighBit", dataset.BitsStored - 1) != dataset.BitsStored - 1:
        raise UserError(
            f"{path}: DICOM whose {dataset.BitsStored} bits end at bit {dataset.HighBit}, not at the lowest; "
            "export the original slice"
        )
    if "ModalityLUTSequence" in dataset:
        raise UserError(f"{path}: DICOM with a modality LUT, which CT slices don't have; export the original slice")
    _rescale(dataset, 0, path)


def _whole_frames(dataset: pydicom.Dataset, count: int, path: Path) -> int:
    """How many of the `count` frames that the header promises are there: a damaged number would never end."""
    if not 1 <= count <= MAX_FRAMES:
        raise UserError(f"{path}: {count} frames, absurdly many for CT slices; export it again, or remove the file")
    size = int(dataset.Rows) * int(dataset.Columns) * int(dataset.BitsAllocated) // 8
    if dataset.file_meta.TransferSyntaxUID.is_compressed:
        # RLE may unpack to 64 times its length, whatever rows and columns say.
        if len(dataset.PixelData) > count * (2 * size + 2**16):
            raise UserError(
                f"{path}: {len(dataset.PixelData)} compressed bytes, more than {count} frames of {dataset.Columns}x"
                f"{dataset.Rows} pixels can need; export it again, or remove the file"
            )
        return count
    if count == 1:
        return count
    return min(count, len(dataset.PixelData) // max(1, size))


def _frame(dataset: pydicom.Dataset, index: int, name: str) -> Greys:
    slope, intercept = _rescale(dataset, index, name)
    syntax = UID(dataset.file_meta.TransferSyntaxUID)
    try:
        # pydicom takes other packages first where they are installed, and the one for RLE panics at damaged content.
        stored = pixel_array(dataset, index=index, decoding_plugin="pydicom" if syntax == RLELossless else "")
    except Exception as error:  # damaged content gives errors of any type
        raise UserError(
            f"{name}: its pixels, {syntax.name}, can't be decoded here ({_one_line(error)}); {_remedy(syntax)}, "
            "or remove it"
        ) from None
    if stored.ndim != 2:
        raise UserError(f"{name}: its pixels are not one grey each; export the original slice")
    return _turn(hounsfield_greys(stored * slope + intercept, _padding(dataset, stored), name), dataset, index, name)


def _turn(greys: Greys, dataset: pydicom.Dataset, frame: int, name: str) -> Greys:
    """`greys` as radiologists see them: the front of the body above, its right side on the left.

    Files have them so but for patients who lie on their belly and what some converters write. The directions of rows
    and columns say so (0020,0037: x runs to the patient's left, y to the back); without them, `greys` are as they lie.
    """
    places = _places(dataset, "PlaneOrientationSequence", frame)
    directions = next((found for place in places if (found := place.get("ImageOrientationPatient"))), None)
    if directions is None:
        return greys
    row, column = np.asarray(directions, float).reshape(2, 3)
    if not abs(np.cross(row, column)[2]) >= np.sqrt(0.5):  # a gantry tilts by up to 30 degrees
        raise UserError(f"{name}: a plane along the body (coronal or sagittal), not an axial slice; remove it")
    if abs(row[0]) < abs(row[1]):
        greys, row, column = greys.T, column, row
    return np.ascontiguousarray(greys[:: 1 if column[1] > 0 else -1, :: 1 if row[0] > 0 else -1])


def _places(dataset: pydicom.Dataset, sequence: str, frame: int) -> list[pydicom.Dataset]:
    """Where a file may say a thing, the most special place first: of the frame, of all frames, or of the file."""
    places = [dataset]
    for groups, index in (("SharedFunctionalGroupsSequence", 0), ("PerFrameFunctionalGroupsSequence", frame)):
        for group in list(dataset.get(groups) or ())[index : index + 1]:
            places += group.get(sequence) or ()
    return places[::-1]


def _remedy(syntax: UID) -> str:
    if syntax in _BY_GDCM and find_spec("gdcm") is None:
        return "`pip install python-gdcm`, which reads it, or decompress it (`gdcmconv --raw`)"
    if syntax in _HIGH_THROUGHPUT and find_spec("openjpeg") is None:
        return "`pip install pylibjpeg pylibjpeg-openjpeg`, which read it, or decompress it"
    return "decompress it (`gdcmconv --raw`)" if syntax.is_compressed else "export it again"


def _padding(dataset: pydicom.Dataset, stored: np.ndarray) -> np.ndarray | None:
    """Where `stored` values are padding, (H, W) bool, or None where the file names no padding."""
    value = dataset.get("PixelPaddingValue")
    if not isinstance(value, int):
        return None
    limit = dataset.get("PixelPaddingRangeLimit")
    # Writers confuse signed with unsigned numbers here: -2000 and 63536 are the same 16 bits.
    ends = [_as_stored(end, dataset) for end in (value, limit) if isinstance(end, int)]
    padding: np.ndarray = (stored >= min(ends)) & (stored <= max(ends))
    return padding


def _as_stored(value: int, dataset: pydicom.Dataset) -> int:
    """`value` as a number of the kind that the pixels are: signed or unsigned, of as many bits."""
    bits = int(dataset.BitsAllocated)
    value %= 1 << bits
    return value - (1 << bits) if dataset.PixelRepresentation == 1 and value >= 1 << (bits - 1) else value


def _rescale(dataset: pydicom.Dataset, frame: int, name: str | Path) -> tuple[float, float]:
    """Slope and intercept: of the file, or as enhanced CT has them, of all frames or of each."""
    for place in _places(dataset, "PixelValueTransformationSequence", frame):
        if place.get("RescaleSlope") is not None and place.get("RescaleIntercept") is not None:
            units = str(place.get("RescaleType") or "")
            if units not in HOUNSFIELD_TYPES:
                raise UserError(f"{name}: DICOM in units {units}, not in Hounsfield units; export the original slice")
            return float(place.RescaleSlope), float(place.RescaleIntercept)
    raise UserError(
        f"{name}: DICOM without rescale slope and intercept, so without Hounsfield units; export the original slice"
    )


def _one_line(error: Any) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
