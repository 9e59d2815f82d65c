"""What a file is, by its content before its name, and what its header says of patient and frames."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from medfsad_bench.errors import DownloadError
from medfsad_bench.layouts.raw import DICOM_SUFFIXES, RASTER_SUFFIXES, is_volume

Kind = Literal["volume", "dicom", "raster", ""]
_MAGIC_AT = 128
_FIRST_GROUPS = (b"\x02\0", b"\x08\0", b"\0\x02", b"\0\x08")  # in either byte order


@dataclass(frozen=True, slots=True)
class Header:
    """What the header of a DICOM file says; empty where it says nothing or can't be read, which shows later."""

    patient: str = ""
    study: str = ""
    series: str = ""
    frames: int = 1


def kind_of(path: Path) -> Kind:
    """NIfTI by its name, DICOM by its content whatever its name, rasters by either; empty for anything else."""
    if is_volume(path):
        return "volume"
    suffix = path.suffix.lower()
    if suffix in DICOM_SUFFIXES or _has_magic(path):
        return "dicom"
    if suffix in RASTER_SUFFIXES or _is_picture(path):
        return "raster"
    return "dicom" if _is_old_dicom(path) else ""


def read_ids(path: Path) -> Header:
    """Patient, study, series and number of frames of a DICOM file."""
    from medfsad_bench.readers.dicom import read_header

    try:
        header = read_header(path)
        frames = int(header.get("NumberOfFrames", 1) or 1)
        names = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID")
        patient, study, series = (str(header.get(name, "") or "").strip() for name in names)
        return Header(patient, study, series, max(1, frames))
    except (DownloadError, OSError, ValueError, TypeError):
        return Header()


def page_count(path: Path) -> int:
    """Frames of a DICOM file, axial slices of a volume, pages of a raster; 1 where the file can't be read."""
    kind = kind_of(path)
    if kind == "dicom":
        return read_ids(path).frames
    try:
        if kind == "volume":
            import nibabel as nib

            shape = nib.load(path).shape  # type: ignore[attr-defined]
            return int(shape[2]) if len(shape) > 2 else 1
        from medfsad_bench.readers import frame_count

        return frame_count(path)
    except Exception:  # noqa: BLE001 - decoders raise whatever they like; the reader says what is wrong
        return 1


def _has_magic(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(_MAGIC_AT + 4)[_MAGIC_AT:] == b"DICM"
    except OSError:
        return False


def _is_picture(path: Path) -> bool:
    from PIL import Image

    try:
        with Image.open(path):  # reads the header alone
            return True
    except Exception:  # noqa: BLE001 - as above
        return False


def _is_old_dicom(path: Path) -> bool:
    """DICOM of before 1995 or so, without preamble and magic: it begins with a tag of group 2 or 8."""
    from medfsad_bench.readers.dicom import read_header

    try:
        with path.open("rb") as file:
            group = file.read(2)
        return group in _FIRST_GROUPS and "Rows" in read_header(path)
    except (DownloadError, OSError):
        return False
