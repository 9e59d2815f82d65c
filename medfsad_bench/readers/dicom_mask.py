"""Masks in DICOM files: secondary captures (CBIS-DDSM), segmentation objects, any grey or palette image."""

from pathlib import Path

from medfsad_bench.errors import DownloadError
from medfsad_bench.readers.dicom import read_stored
from medfsad_bench.readers.mask_values import StoredMask
from medfsad_bench.readers.picture import full_range


def stored_dicom_mask(path: Path, *, frame: int) -> StoredMask:
    """The stored values of one frame, MONOCHROME1 turned round; windows and rescale don't concern a mask.

    Raises:
        DownloadError: If it's damaged, or a segmentation object of several segments.
    """
    dataset, values, lossy = read_stored(path, frame=frame)
    if len(dataset.get("SegmentSequence") or ()) > 1:
        raise DownloadError(
            f"{path.name}: a segmentation of {len(dataset.SegmentSequence)} segments, which may lie on the same image. "
            "Expected one segment for each file; export them one by one, and they are united."
        )
    if dataset.get("PhotometricInterpretation") == "MONOCHROME1":
        bits = int(dataset.get("BitsStored", 0) or values.dtype.itemsize * 8)
        values = (sum(full_range(bits, signed=values.dtype.kind == "i")) - values).astype(values.dtype)
    fractional = dataset.get("SegmentationType") == "FRACTIONAL"
    full_scale = float(dataset.get("MaximumFractionalValue", 255) or 255) if fractional else None
    return StoredMask(values, values.ndim == 3, lossy, full_scale)
