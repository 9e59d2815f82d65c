"""Which reader a file is for, by its content and not by its name."""

from pathlib import Path

from medfsad_bench.errors import DownloadError
from medfsad_bench.readers.picture import Intensity, Picture

_DICOM_MAGIC_AT = 128


def read_picture(path: Path, *, intensity: Intensity = Intensity(), frame: int | None = None) -> Picture:  # noqa: B008 - frozen
    """Read a DICOM file or a raster.

    Args:
        path: The file.
        intensity: How values become 8 bits.
        frame: Of a multi-frame DICOM file, or page of a TIFF stack, from 0; without it the first, which is noted where
            there are several.

    Raises:
        DownloadError: If the file is missing, damaged, too large, or neither of the two.
    """
    if is_dicom(path):
        from medfsad_bench.readers.dicom import read_dicom

        return read_dicom(path, intensity=intensity, frame=frame)
    from medfsad_bench.readers.raster import read_raster

    return read_raster(path, intensity=intensity, frame=frame)


def frame_count(path: Path) -> int:
    """How many frames a DICOM file holds, or pages of one size a TIFF stack; 1 for anything else.

    Raises:
        DownloadError: If the file is missing or damaged.
    """
    if is_dicom(path):
        from medfsad_bench.readers.dicom import header_frames, read_header

        return header_frames(read_header(path))
    from medfsad_bench.readers.tiff import is_tiff, look_at

    return look_at(path).frames if is_tiff(path) else 1


def extremes(path: Path) -> tuple[float, float] | None:
    """The least and the greatest physical value of a file whose bits don't tell the range that is in use.

    These are files of 16 bits or more for each grey value: PNG, TIFF, and DICOM that stores as many bits as it
    allocates and has no window. None of any other.

    Raises:
        DownloadError: If the file is missing or damaged.
    """
    if is_dicom(path):
        from medfsad_bench.readers.dicom import dicom_extremes

        return dicom_extremes(path)
    from medfsad_bench.readers.raster import raster_extremes

    return raster_extremes(path)


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM by its magic number or, as old files lack that, by its suffix.

    Raises:
        DownloadError: If it's missing, empty or can't be read.
    """
    head = _head(path)
    return head[_DICOM_MAGIC_AT : _DICOM_MAGIC_AT + 4] == b"DICM" or path.suffix.lower() in (".dcm", ".dicom")


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            head = file.read(_DICOM_MAGIC_AT + 4)
    except FileNotFoundError as error:
        raise DownloadError(f"{path.name}: the file is missing from {path.parent.name}/. Put it there.") from error
    except OSError as error:
        raise DownloadError(
            f"{path.name}: can't be read ({error}). Check the disk and the file's permissions."
        ) from error
    if not head:
        raise DownloadError(f"{path.name}: the file is empty. Get it again, or remove it.")
    return head
