"""Anomaly maps of DICOM images as DICOM: a secondary capture per image, in a new series of the source's study.

It bears the source's patient and study, new UIDs, and refers to its source image, so that a viewer shows it beside the
series. Colours, not measures: the plain values are in the 16-bit maps.

Source: DICOM PS3.3 A.8.1 (secondary capture), C.7.6.1.1.4 (source image sequence), C.12.4 (derivation).
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32
from pydicom import Dataset, dcmread
from pydicom.uid import generate_uid

from medfsad_bench import __version__
from medfsad_bench.errors import DownloadError
from medfsad_bench.files import whole
from medfsad_bench.layouts import RawImage
from medfsad_bench.own_images.pictures import MapScale, overlay, resized_map
from medfsad_bench.own_images.reading import Reader
from medfsad_bench.readers import is_dicom, read_picture
from medfsad_bench.readers.picture import decoding

NEEDED = "anomaly maps as DICOM take the extra [dicom]: pip install 'medfsad[dicom]'; nothing else depends on it"
_SERIES = 9900  # beyond what scanners number theirs with


def can_write() -> bool:
    """Whether the library that writes DICOM is installed."""
    return find_spec("highdicom") is not None


class DicomMaps:
    """Writes the map of a DICOM image as DICOM."""

    def __init__(self, reader: Reader, scale: MapScale, key: str) -> None:
        """Get ready.

        Args:
            reader: Knows how an image's values become 8 bits.
            scale: Colours.
            key: Of all that determines the maps: UIDs are made of it, so that a run that is resumed goes on with them.
        """
        self._reader, self._scale, self._key = reader, scale, key
        self._written = 0

    def __call__(self, image: RawImage, anomaly_map: Float32[np.ndarray, "s s"], folder: Path) -> str:
        """Write it below `folder`; returns its path there, empty for an image that isn't DICOM.

        Raises:
            DownloadError: If the source doesn't say of which study it is.
        """
        if image.slice_index is not None or not is_dicom(image.path):
            return ""
        self._written += 1
        path = f"dicom/{image.id.replace('#', '_')}.anomaly.dcm"
        with decoding(image.path.name, "its map can't be written as DICOM"):
            capture = self._capture(image, anomaly_map)
            with whole(folder / path) as temporary:
                capture.save_as(temporary, enforce_file_format=True)
        return path

    def _capture(self, image: RawImage, anomaly_map: Float32[np.ndarray, "s s"]) -> Dataset:
        import highdicom

        source = dcmread(image.path, stop_before_pixels=True, force=True)
        if missing := [name for name in ("StudyInstanceUID", "SOPInstanceUID", "SOPClassUID") if not source.get(name)]:
            raise DownloadError(
                f"{image.path.name}: its header lacks {', '.join(missing)}, so no map as DICOM was written, but as PNG."
            )
        frame = image.frame if image.frames > 1 else None
        picture = read_picture(image.path, intensity=self._reader.intensity(image), frame=frame).pixels
        colour = np.repeat(picture[:, :, None], 3, axis=2) if picture.ndim == 2 else picture
        covered = overlay(colour, resized_map(anomaly_map, *colour.shape[:2]), self._scale)
        orientation = _orientation(source)
        capture: Any = highdicom.sc.SCImage.from_ref_dataset(
            ref_dataset=source,
            pixel_array=covered,
            photometric_interpretation="RGB",
            bits_allocated=8,
            coordinate_system="PATIENT",
            series_instance_uid=generate_uid(entropy_srcs=[self._key, str(source.StudyInstanceUID)]),
            series_number=_SERIES,
            sop_instance_uid=generate_uid(entropy_srcs=[self._key, str(source.SOPInstanceUID), str(image.frame)]),
            instance_number=self._written,
            manufacturer="MedFSAD",
            patient_orientation=orientation or ("L", "P"),
            transfer_syntax_uid="1.2.840.10008.1.2.1",
        )
        if orientation is None:
            capture.PatientOrientation = None  # empty: not known
        _describe(capture, source, image)
        return capture


def _describe(capture: Any, source: Dataset, image: RawImage) -> None:
    """Say what it is derived from, and for what it may be used."""
    capture.ImageType = ["DERIVED", "SECONDARY"]
    capture.Modality = "OT"
    capture.ConversionType = "WSD"
    capture.SeriesDescription = "Anomaly map, derived, research use"
    capture.DerivationDescription = "Few-shot anomaly map over the image. Derived; research use, not a medical device."
    capture.ManufacturerModelName = "medfsad"
    capture.DeviceSerialNumber = "none"
    capture.SoftwareVersions = __version__
    capture.BurnedInAnnotation = "NO"
    capture.Laterality = source.get("Laterality") or source.get("ImageLaterality")  # empty where it isn't known
    reference = Dataset()
    reference.ReferencedSOPClassUID = source.SOPClassUID
    reference.ReferencedSOPInstanceUID = source.SOPInstanceUID
    if image.frames > 1:
        reference.ReferencedFrameNumber = image.frame + 1
    purpose = Dataset()
    purpose.CodeValue, purpose.CodingSchemeDesignator = "121322", "DCM"
    purpose.CodeMeaning = "Source image for image processing operation"
    reference.PurposeOfReferenceCodeSequence = [purpose]
    capture.SourceImageSequence = [reference]


def _orientation(source: Dataset) -> tuple[str, str] | None:
    """The patient's side to which rows and columns run, as letters; None where the header doesn't say."""
    stated = source.get("PatientOrientation")
    if stated and len(stated) == 2 and all(stated):
        return str(stated[0]), str(stated[1])
    directions = source.get("ImageOrientationPatient")
    if not directions or len(directions) != 6:
        return None
    rows, columns = np.asarray(directions, float).reshape(2, 3)
    return _letter(rows), _letter(columns)


def _letter(direction: np.ndarray) -> str:
    axis = int(np.abs(direction).argmax())
    return ("LR", "PA", "HF")[axis][int(direction[axis] < 0)]
