"""Write DICOM files for the tests, as a CT scanner writes them."""

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, RLELossless, generate_uid


def write_dicom(path: Path, pixels: np.ndarray | None = None, **changes: Any) -> pydicom.Dataset:
    """A CT slice of int16 `pixels` (H, W) or frames (n, H, W) with an intercept of -1024; None takes a tag away.

    A tuple is the value representation of a tag and its value.
    """
    stored = np.arange(40 * 40, dtype=np.int16).reshape(40, 40) if pixels is None else pixels
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, generate_uid(entropy_srcs=["slice"])
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.Modality, dataset.PhotometricInterpretation, dataset.SamplesPerPixel = "CT", "MONOCHROME2", 1
    dataset.Rows, dataset.Columns = stored.shape[-2:]
    if stored.ndim == 3:
        dataset.NumberOfFrames = len(stored)
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 1
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024
    dataset.PixelData = stored.tobytes()
    dataset["PixelData"].VR = "OW"
    syntax = changes.pop("syntax", None)
    for tag, value in changes.items():
        if value is None:
            del dataset[tag]
        elif isinstance(value, tuple):  # a value representation of its own
            dataset.add_new(tag, *value)
        else:
            setattr(dataset, tag, value)
    if syntax == RLELossless:
        dataset.compress(RLELossless)
    elif syntax:
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8\xff\xd9"])
        dataset["PixelData"].is_undefined_length = True
    dataset.save_as(path, enforce_file_format=True)
    return dataset
