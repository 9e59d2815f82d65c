"""Which reader a file is for, by its content and not by its name."""

from pathlib import Path

from medfsad_bench.errors import DownloadError
from medfsad_bench.readers.picture import Intensity, Picture

_DICOM_MAGIC_AT = 128


def read_picture(path: Path, *, intensity: Intensity = Intensity(), frame: int = 0) -> Picture:  # noqa: B008 - frozen
    """Read a DICOM file or a raster.

    Args:
        path: The file.
        intensity: How values become 8 bits.
        frame: Of a multi-frame DICOM file.

    Raises:
        DownloadError: If the file is missing, damaged, too large, or neither of the two.
    """
    if is_dicom(path):
        from medfsad_bench.readers.dicom import read_dicom

        return read_dicom(path, intensity=intensity, frame=frame)
    from medfsad_bench.readers.raster import read_raster

    return read_raster(path, intensity=intensity)


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
        raise DownloadError(
            f"{path.name}: the file is missing from {path.parent.name}/. Complete the download."
        ) from error
    except OSError as error:
        raise DownloadError(
            f"{path.name}: can't be read ({error}). Check the disk and the file's permissions."
        ) from error
    if not head:
        raise DownloadError(f"{path.name}: the file is empty. Download it again.")
    return head
