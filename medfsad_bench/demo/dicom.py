"""One DICOM file as RSNA's challenge distributes it: a secondary capture of a chest film, stripped of its patient."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pydicom
from jaxtyping import Float
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit, SecondaryCaptureImageStorage, generate_uid

Coding = Literal["jpeg", "raw", "inverted"]

_WINDOW = (2048, 3600)  # centre and width in output units, for the 12-bit files
_RESCALE = (1.0, -24.0)  # slope and intercept: output units are stored values less 24


@dataclass(frozen=True, slots=True)
class Exam:
    """What RSNA leaves in the header."""

    patient_id: str
    view: Literal["PA", "AP"]
    sex: Literal["F", "M"]
    age_years: int
    spacing_mm: float


def write_radiograph(path: Path, image: Float[np.ndarray, "h w"], exam: Exam, *, coding: Coding) -> None:
    """Write an image in [0, 1], bone bright, as a DICOM file.

    Args:
        path: Of the new file.
        image: What a viewer shall show.
        exam: For the header.
        coding: `jpeg` is RSNA's own form (8 bits, JPEG baseline, MONOCHROME2), `raw` the same without compression,
            `inverted` a 12-bit MONOCHROME1 file with rescale and window, as other archives hold them.
    """
    dataset = _header(path, image, exam, coding)
    if coding == "inverted":
        _put_inverted(dataset, image)
    else:
        _put_plain(dataset, image, coding)
    dataset.save_as(path, enforce_file_format=True)


def _header(path: Path, image: Float[np.ndarray, "h w"], exam: Exam, coding: Coding) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = _uid(exam, "instance")
    meta.TransferSyntaxUID = JPEGBaseline8Bit if coding == "jpeg" else ExplicitVRLittleEndian
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.SOPClassUID = SecondaryCaptureImageStorage
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    dataset.StudyDate, dataset.StudyTime = "19010101", "000000.00"
    dataset.AccessionNumber, dataset.Modality, dataset.ConversionType = "", "CR", "WSD"
    dataset.ReferringPhysicianName = ""
    dataset.SeriesDescription = f"view: {exam.view}"
    dataset.PatientName = dataset.PatientID = exam.patient_id
    dataset.PatientBirthDate, dataset.PatientSex = "", exam.sex
    dataset.PatientAge = f"{exam.age_years:03d}Y"
    dataset.BodyPartExamined, dataset.ViewPosition = "CHEST", exam.view
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = _uid(exam, "study"), _uid(exam, "series")
    dataset.StudyID, dataset.SeriesNumber, dataset.InstanceNumber, dataset.PatientOrientation = "", "1", "1", ""
    dataset.SamplesPerPixel = 1
    dataset.Rows, dataset.Columns = image.shape
    dataset.PixelSpacing = [exam.spacing_mm, exam.spacing_mm]
    dataset.PixelRepresentation = 0
    return dataset


def _put_plain(dataset: FileDataset, image: Float[np.ndarray, "h w"], coding: Coding) -> None:
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    stored = np.round(image * 255).astype(np.uint8)
    if coding == "raw":
        dataset.PixelData = stored.tobytes()
        return
    buffer = io.BytesIO()
    Image.fromarray(stored).save(buffer, "JPEG", quality=90)
    dataset.LossyImageCompression, dataset.LossyImageCompressionMethod = "01", "ISO_10918_1"
    dataset.PixelData = encapsulate([buffer.getvalue()])
    dataset["PixelData"].VR = "OB"


def _put_inverted(dataset: FileDataset, image: Float[np.ndarray, "h w"]) -> None:
    """Stored so that rescale, window and inversion, in this order, give the image back."""
    (centre, width), (slope, intercept) = _WINDOW, _RESCALE
    dataset.PhotometricInterpretation = "MONOCHROME1"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.WindowCenter, dataset.WindowWidth = str(centre), str(width)
    dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = str(slope), str(intercept), "US"
    shown = centre - 0.5 + (0.5 - image) * (width - 1)  # DICOM PS3.3 C.11.2.1.2.1, solved for the input
    stored = np.clip(np.round((shown - intercept) / slope), 0, 4095).astype("<u2")
    dataset.PixelData = stored.tobytes()
    dataset["PixelData"].VR = "OW"


def _uid(exam: Exam, what: str) -> pydicom.uid.UID:
    return generate_uid(entropy_srcs=[exam.patient_id, what])
