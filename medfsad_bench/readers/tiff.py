"""TIFF where Pillow is wrong or silent: more than 8 bits, signed and floating-point values, planes apart, stacks.

Through tifffile. What Pillow reads rightly, 8 bits of one page, is left to it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medfsad_bench.errors import DownloadError
from medfsad_bench.readers.picture import check_size, decoding, full_range

_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the latter two are BigTIFF
_PILLOW_BITS = (1, 2, 4, 8)
_LOSSY = (6, 7, 33003, 33005, 34712, 34892, 50001)  # JPEG, JPEG 2000, WebP
_ORIENTATION = 274
_SWAPPED = 5  # from here on rows are columns, which Pillow mixes up where it maps the file into memory
_ALPHA = (1, 2)  # of ExtraSamples: premultiplied or not


@dataclass(frozen=True, slots=True)
class TiffLook:
    """What the directories of a TIFF file say, without its pixels."""

    frames: int  # pages of the first one's size and type
    pages: tuple[int, ...]  # where Pillow finds them
    plain: bool  # whether Pillow reads them rightly
    lossy: bool  # coded by JPEG or the like
    orientation: int  # of EXIF: 1 is upright
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DeepPage:
    """One page as numbers: larger is brighter."""

    values: np.ndarray  # (h, w), or (h, w, 3) of colours
    range_: tuple[float, float] | None  # that its bits allow; None for floating point


def is_tiff(path: Path) -> bool:
    """Whether a file begins as TIFF does."""
    with path.open("rb") as file:
        return file.read(4) in _MAGIC


def look_at(path: Path) -> TiffLook:
    """Read the directories.

    Raises:
        DownloadError: If they are damaged.
    """
    import tifffile

    with decoding(path.name, "the TIFF directory is damaged"), tifffile.TiffFile(path) as tif:
        series = tif.series[0]
        page = series.keyframe
        orientation = int(page.tags.valueof(_ORIENTATION, 1))
        plain = (
            page.bitspersample in _PILLOW_BITS
            and page.sampleformat == tifffile.SAMPLEFORMAT.UINT
            and page.planarconfig == tifffile.PLANARCONFIG.CONTIG
            and (orientation < _SWAPPED or page.compression != tifffile.COMPRESSION.NONE)
        )
        others = sum(len(other.pages) for other in tif.series[1:] if not _is_preview(other))
        notes: tuple[str, ...] = (f"pages of another size or type left out ({others})",) if others else ()
        if (hidden := series.size // page.size - len(series.pages)) > 0:  # a writer that saved directories
            notes += (f"pages of a stack without directories of their own left out ({hidden})",)
        lossy = page.compression in _LOSSY
        pages = tuple(int(frame.index) for frame in series.pages if frame is not None)
        return TiffLook(len(series.pages), pages, plain, lossy, orientation, notes)


def read_deep_page(path: Path, frame: int) -> DeepPage:
    """Read one page of a stack, from 0.

    WhiteIsZero is turned round, palettes of 16 bits become colours, alpha is flattened onto black.

    Raises:
        DownloadError: If it's damaged, above the largest size, or of channels that are neither grey nor colours.
    """
    import tifffile

    with decoding(path.name, "the image is damaged or cut short"), tifffile.TiffFile(path) as tif:
        page: Any = tif.series[0].pages[frame]
        key = tif.series[0].keyframe
        check_size(path.name, key.imagewidth, key.imagelength)
        if key.imagedepth > 1 or set(key.axes) - set("YXS"):
            raise DownloadError(
                f"{path.name}: one page of the axes {key.axes} and the shape {key.shape}. Expected rows, columns and "
                "colours; write a stack as pages."
            )
        values = np.asarray(page.asarray())
        values = np.moveaxis(values, 0, -1) if key.axes.startswith("S") else values
        return _shown(path.name, key, values)


def _is_preview(series: Any) -> bool:
    return bool(series.keyframe.is_reduced or series.keyframe.is_mask)


def _shown(name: str, page: Any, values: np.ndarray) -> DeepPage:
    """Pixels by the photometric interpretation (TIFF 6.0, section 8)."""
    colours, samples = values.ndim == 3, 1 if values.ndim == 2 else values.shape[2]
    kind, bits = page.photometric.name, int(page.bitspersample)
    range_ = None if values.dtype.kind == "f" else full_range(bits, signed=values.dtype.kind == "i")
    alpha = samples in (2, 4) and tuple(page.extrasamples)[:1] and int(page.extrasamples[0]) in _ALPHA
    expected = {"MINISBLACK": 1, "MINISWHITE": 1, "RGB": 3, "PALETTE": 1}.get(kind)
    if samples - bool(alpha) != expected or (kind == "MINISWHITE" and range_ is None):
        raise DownloadError(
            f"{name}: {samples} channel(s) of {bits} bits that are {kind}. Expected grey values or RGB; convert it."
        )
    if alpha and range_ is not None:
        opacity = values[..., -1:] / range_[1]
        values = values[..., :-1] if int(page.extrasamples[0]) == 1 else values[..., :-1] * opacity
        values = np.rint(values).astype(np.float64)
    elif alpha:
        values = values[..., :-1]
    if colours and values.shape[-1] == 1:
        values = values[..., 0]
    if kind == "MINISWHITE" and range_ is not None:
        values = (sum(range_) - values).astype(values.dtype)  # exact: float64 holds 53 bits
    if kind == "PALETTE":
        return DeepPage(np.moveaxis(page.colormap[:, values], 0, -1), full_range(16, signed=False))
    return DeepPage(values, range_)
