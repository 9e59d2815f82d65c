"""Anomaly maps of DICOM images as DICOM: an object per image, in a new series of the source's study.

- `capture`, a secondary capture: colours over the image, which every viewer shows; no measures.
- `parametric`, a parametric map: the map's own values as floating-point pixels of the source's size, for viewers that
  lay one series over another, and for programs.

Both bear the source's patient and study, new UIDs, and refer to their source image.

Source: DICOM PS3.3 A.8.1 (secondary capture), C.7.6.1.1.4 (source image sequence), C.12.4 (derivation).
"""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Float32
from pydicom import Dataset, dcmread
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from medfsad_bench import __version__
from medfsad_bench.curation.field_of_view import field_of_view, put_back
from medfsad_bench.errors import DownloadError
from medfsad_bench.files import whole
from medfsad_bench.layouts import RawImage
from medfsad_bench.own_images.parametric_map import parametric_map
from medfsad_bench.own_images.pictures import MapScale, overlay, resized_map
from medfsad_bench.own_images.reading import Reader
from medfsad_bench.readers import is_dicom, read_picture
from medfsad_bench.readers.picture import Pixels, decoding

DicomForm = Literal["capture", "parametric"]
_NEEDED = "anomaly maps as DICOM take the extra [dicom]: pip install 'medfsad[dicom]'; nothing else depends on it"
_SERIES = {"capture": 9900, "parametric": 9901}  # beyond what scanners number theirs with
_HEADER = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
# Type 2 in every image: they may be empty, and de-identified files lack them
_MAY_BE_EMPTY = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "ReferringPhysicianName"),
    *("StudyID", "StudyDate", "StudyTime", "AccessionNumber"),
)


def check_form(form: DicomForm | None) -> None:
    """See whether a form that was asked for can be written.

    Raises:
        DownloadError: If it can't.
    """
    if form is not None and not _can_write():
        raise DownloadError(f"--dicom-map {form}: {_NEEDED}. Install it, or leave --dicom-map out.")


def dicom_maps(
    form: DicomForm | None, images: Sequence[RawImage], reader: Reader, scale: MapScale | None, key: str
) -> tuple["DicomMaps | None", list[str]]:
    """What writes the maps of images that are DICOM.

    Args:
        form: That was asked for; None takes the first one where it can be written.
        images: All that are scored.
        reader: Knows how an image's values become 8 bits.
        scale: Colours; None where the method gives no maps.
        key: Of all that determines the maps.

    Returns:
        The writer, or None where there is nothing to write; and what has to be said of it.
    """
    if not any(map(_is_dicom, images)):
        return None, [f"--dicom-map {form}: no image is DICOM, so nothing was written."] if form else []
    if scale is None:
        return None, [f"--dicom-map {form}: the method gives no maps, so nothing was written."] if form else []
    if not _can_write():
        return None, [f"{_NEEDED}."]
    return DicomMaps(form or get_args(DicomForm)[0], images, reader, scale, key), []


class DicomMaps:
    """Writes the map of a DICOM image as DICOM."""

    def __init__(self, form: DicomForm, images: Sequence[RawImage], reader: Reader, scale: MapScale, key: str) -> None:
        """Get ready.

        Args:
            form: Of the objects.
            images: All that are scored, which fixes their numbers in a series.
            reader: Knows how an image's values become 8 bits.
            scale: Colours, and the window that viewers begin with.
            key: Of all that determines the maps: UIDs are made of it, so that a run that is resumed goes on with them.
        """
        self._form, self._reader, self._scale, self._key = form, reader, scale, key
        self._numbers = {image.id: number for number, image in enumerate(images, start=1)}

    def __call__(self, image: RawImage, anomaly_map: Float32[np.ndarray, "s s"], folder: Path) -> str:
        """Write it below `folder`; returns its path there, empty for an image that isn't DICOM.

        Raises:
            DownloadError: If the source's header doesn't allow it.
            OSError: If it can't be written there.
        """
        if not _is_dicom(image):
            return ""
        form = "a secondary capture" if self._form == "capture" else "a parametric map"
        other = "" if self._form == "capture" else " --dicom-map capture asks less of the header."
        with decoding(image.path.name, f"its map can't be {form}", advice=f"The map is there as PNG.{other}"):
            source = _header(image)
            reference, laterality = _reference(source, image), source.get("Laterality") or source.get("ImageLaterality")
            made = (self._capture if self._form == "capture" else self._parametric_map)(source, image, anomaly_map)
            _describe(made, reference, laterality)
        path = f"dicom/{image.id.replace('#', '_')}.anomaly.dcm"
        with whole(folder / path) as temporary:
            made.save_as(temporary, enforce_file_format=True)
        return path

    def _capture(self, source: Dataset, image: RawImage, anomaly_map: Float32[np.ndarray, "s s"]) -> Dataset:
        import highdicom

        picture = self._picture(image)
        colour = np.repeat(picture[:, :, None], 3, axis=2) if picture.ndim == 2 else picture
        values = self._over(anomaly_map, picture)
        covered = overlay(colour, np.where(np.isnan(values), self._scale.low, values), self._scale)
        orientation = _orientation(source)
        capture: Any = highdicom.sc.SCImage.from_ref_dataset(
            ref_dataset=source,
            pixel_array=covered,
            photometric_interpretation="RGB",
            bits_allocated=8,
            coordinate_system="PATIENT",
            patient_orientation=orientation or ("L", "P"),
            manufacturer="MedFSAD",
            **self._identity(source, image),
        )
        if orientation is None:
            capture.PatientOrientation = None  # empty: not known
        capture.ImageType = ["DERIVED", "SECONDARY"]
        capture.Modality = "OT"
        capture.ConversionType = "WSD"
        return capture

    def _parametric_map(self, source: Dataset, image: RawImage, anomaly_map: Float32[np.ndarray, "s s"]) -> Dataset:
        cropped = self._reader.options.crop != "none"
        size = int(source.Rows), int(source.Columns)
        values = self._over(anomaly_map, self._picture(image)) if cropped else resized_map(anomaly_map, *size)
        frame = image.frame if image.frames > 1 else None
        return parametric_map(source, values, self._scale, self._identity(source, image), frame=frame)

    def _identity(self, source: Dataset, image: RawImage) -> dict[str, Any]:
        """New UIDs and numbers."""
        return {
            "series_instance_uid": generate_uid(entropy_srcs=[self._key, self._form, str(source.StudyInstanceUID)]),
            "series_number": _SERIES[self._form],
            "sop_instance_uid": generate_uid(
                entropy_srcs=[self._key, self._form, str(source.SOPInstanceUID), str(image.frame)]
            ),
            "instance_number": self._numbers[image.id],
            "transfer_syntax_uid": ExplicitVRLittleEndian,
        }

    def _picture(self, image: RawImage) -> Pixels:
        frame = image.frame if image.frames > 1 else None
        return read_picture(image.path, intensity=self._reader.intensity(image), frame=frame).pixels

    def _over(self, anomaly_map: Float32[np.ndarray, "s s"], picture: Pixels) -> Float32[np.ndarray, "h w"]:
        """The map at the picture's size, NaN where the method wasn't shown the picture."""
        square = field_of_view(picture) if self._reader.options.crop == "fundus" else None
        if square is None:
            return resized_map(anomaly_map, *picture.shape[:2])
        return put_back(resized_map(anomaly_map, square[2], square[2]), square, picture.shape[:2])


def _can_write() -> bool:
    """Whether the library that writes DICOM is installed."""
    return find_spec("highdicom") is not None


def _is_dicom(image: RawImage) -> bool:
    return image.slice_index is None and is_dicom(image.path)


def _header(image: RawImage) -> Dataset:
    """The source's header, with what may be empty in it.

    Raises:
        DownloadError: If it doesn't say which image it is, or of which study.
    """
    source = dcmread(image.path, stop_before_pixels=True, force=True)
    if missing := [name for name in _HEADER if not source.get(name)]:
        raise DownloadError(
            f"{image.path.name}: its header lacks {', '.join(missing)}, so no map as DICOM was written, but as PNG."
        )
    for name in _MAY_BE_EMPTY:
        if name not in source:
            setattr(source, name, None)
    return source


def _reference(source: Dataset, image: RawImage) -> Dataset:
    """To the image that the map is derived from."""
    reference = Dataset()
    reference.ReferencedSOPClassUID = source.SOPClassUID
    reference.ReferencedSOPInstanceUID = source.SOPInstanceUID
    if image.frames > 1:
        reference.ReferencedFrameNumber = image.frame + 1
    purpose = Dataset()
    purpose.CodeValue, purpose.CodingSchemeDesignator = "121322", "DCM"
    purpose.CodeMeaning = "Source image for image processing operation"
    reference.PurposeOfReferenceCodeSequence = [purpose]
    return reference


def _describe(made: Any, reference: Dataset, laterality: str | None) -> None:
    """Say what it is derived from, and for what it may be used."""
    made.SeriesDescription = "Anomaly map, derived, research use"
    made.DerivationDescription = "Few-shot anomaly map over the image. Derived; research use, not a medical device."
    made.ManufacturerModelName = "medfsad"
    made.DeviceSerialNumber = "none"
    made.SoftwareVersions = __version__
    made.BurnedInAnnotation = "NO"
    made.Laterality = laterality  # empty where it isn't known
    made.SourceImageSequence = [reference]


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
