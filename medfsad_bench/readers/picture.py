"""What every reader returns, and the two steps that all share: mapping to 8 bits and resizing."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from medfsad_bench.errors import DownloadError, MedfsadError

MAX_PIXELS = 100_000_000  # a whole-slide image isn't a picture; anything larger is a decompression bomb

Pixels = UInt8[np.ndarray, "h w"] | UInt8[np.ndarray, "h w 3"]


@dataclass(frozen=True, slots=True)
class Intensity:
    """How physical values become 8 bits; fixed per set in its manifest.

    Attributes:
        mapping: `display`: 8-bit rasters as they are, DICOM through its own VOI LUT or window; pixels of more bits and
            without a window from `low` to `high` or, where these aren't stated, by the full range of their bits.
            `window`: physical values from `low` to `high`. `percentiles`: of the non-zero finite values.
        low: Physical value, or percentile, shown black.
        high: Physical value, or percentile, shown white.
    """

    mapping: Literal["display", "window", "percentiles"] = "display"
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture as a person sees it, at its original size."""

    pixels: Pixels  # 8 bits; grey where all channels are equal
    spacing_mm: tuple[float, float] | None = None  # between rows and between columns, where the file tells
    window: str = ""  # what mapped stored values to 8 bits; empty for 8-bit rasters
    transfer_syntax: str = ""  # DICOM's name of it; empty otherwise
    patient: str = ""  # DICOM PatientID; empty otherwise
    warnings: tuple[str, ...] = ()  # traps that were noticed; what differs between images stands in brackets at the end
    frames: int = 1  # frames or pages of the file that are pictures of this kind
    orientation: int = 1  # of EXIF, where the picture was turned upright by it
    privacy: tuple[str, ...] = ()  # names of header fields that may say who the patient is


@contextmanager
def decoding(name: str, fault: str, *, advice: str = "Get it again.") -> Iterator[None]:
    """Hush a decoder's warnings; decoders and parsers raise whatever they like, and all of it is the file's fault.

    Raises:
        DownloadError: `name`: `fault` (what the decoder says). `advice`
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except MedfsadError:
        raise
    except Exception as error:
        raise DownloadError(f"{name}: {fault} ({one_line(error)}). {advice}") from error


def one_line(error: BaseException) -> str:
    """What an exception says, in one line of bearable length; its name where it says nothing."""
    return "; ".join(line.strip() for line in str(error).splitlines() if line.strip())[:300] or type(error).__name__


def check_size(name: str, width: int, height: int) -> None:
    """Refuse what is no picture.

    Raises:
        DownloadError: If it's above `MAX_PIXELS`.
    """
    if width * height > MAX_PIXELS:
        raise DownloadError(
            f"{name}: {width} × {height} px is more than {MAX_PIXELS:,} pixels. Expected an ordinary image; cut a "
            "whole-slide image into patches first."
        )


def to_8_bits(values: Float[np.ndarray, "*shape"], low: float, high: float) -> UInt8[np.ndarray, "*shape"]:
    """Map `low`…`high` linearly to 0…255; values beyond are clipped, those that aren't numbers are black.

    >>> to_8_bits(np.array([0.0, 5.0, 10.0, 20.0]), 0.0, 10.0).tolist()
    [0, 128, 255, 255]
    """
    span = max(high - low, 1e-30)
    scaled = np.nan_to_num((values - low) / span, nan=0.0, posinf=1.0, neginf=0.0)
    return (np.clip(scaled, 0, 1) * 255 + 0.5).astype(np.uint8)


def stated_range(
    name: str, values: Float[np.ndarray, "*shape"], intensity: Intensity
) -> tuple[float, float, tuple[str, ...]]:
    """Physical values shown black and white where the manifest states a window or percentiles, and what to note.

    Args:
        name: The file's, for messages.
        values: Percentiles are taken over the non-zero finite ones, without the padding around a CT's field of view.
        intensity: Any mapping but `display`.

    Raises:
        DownloadError: If a window lacks an end.
    """
    if intensity.mapping == "window":
        if intensity.low is None or intensity.high is None:
            raise DownloadError(f"{name}: mapping = 'window' needs low and high. Set both in the manifest.")
        return intensity.low, intensity.high, ()
    kept, notes = _without_padding(values[np.isfinite(values) & (values != 0)])
    if kept.size == 0:
        return 0.0, 1.0, notes
    low, high = np.percentile(kept, [intensity.low or 0.0, 100.0 if intensity.high is None else intensity.high])
    return float(low), float(high), notes


def full_range(bits: int, *, signed: bool) -> tuple[float, float]:
    """The least and the greatest integer of so many bits.

    >>> full_range(12, signed=False), full_range(8, signed=True)
    ((0.0, 4095.0), (-128.0, 127.0))
    """
    return (-(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1) if signed else (0.0, 2.0**bits - 1)


def range_in_use(lowest: float, highest: float) -> tuple[float, float]:
    """The range of the fewest bits, eight at least, that hold both values; signed where one is negative.

    >>> range_in_use(12, 3000), range_in_use(-1024, 2000), range_in_use(0, 7)
    ((0.0, 4095.0), (-2048.0, 2047.0), (0.0, 255.0))
    """
    ranges = (full_range(bits, signed=lowest < 0) for bits in range(8, 65))
    return next((low, high) for low, high in ranges if low <= lowest and highest <= high)


def says_little(range_: tuple[float, float]) -> bool:
    """Whether a range is that of a whole word of 16 bits or more, of which a camera may have used any part."""
    return range_[1] - range_[0] + 1 in (2.0**16, 2.0**32, 2.0**64)


def unused_bits_note(values: np.ndarray, shown: tuple[float, float]) -> tuple[str, ...]:
    """A note where the values of an image leave two bits or more of the range unused that it's shown by."""
    if not values.size:
        return ()
    low, high = range_in_use(float(values.min()), float(values.max()))
    if (high - low) * 4 > shown[1] - shown[0]:
        return ()
    levels = round(255 * (high - low) / (shown[1] - shown[0])) + 1
    return (
        f"few of its bits are in use and it has no window: shown in few grey levels, unless --intensity chooses "
        f"({low:g}/{high:g} of {shown[0]:g}/{shown[1]:g}, at most {levels} levels)",
    )


def grey_if_equal(pixels: UInt8[np.ndarray, "h w 3"]) -> Pixels:
    """One channel where the three say the same."""
    same = np.array_equal(pixels[..., 0], pixels[..., 1]) and np.array_equal(pixels[..., 0], pixels[..., 2])
    return np.ascontiguousarray(pixels[..., 0]) if same else pixels


def turned(pixels: Any, orientation: int) -> Any:
    """Turn and mirror upright as EXIF's orientation (tag 274, 1 to 8) says; other numbers change nothing.

    Args:
        pixels: (h, w) or (h, w, 3), of any type.
        orientation: Of the file.

    >>> turned(np.array([[1, 2], [3, 4]]), 6).tolist()
    [[3, 1], [4, 2]]
    """
    if orientation in (5, 6, 7, 8):
        pixels = np.swapaxes(pixels, 0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def resize_square(pixels: Any, size_px: int) -> Any:
    """Squash to a square in one anti-aliased step (Lanczos) from the original.

    Args:
        pixels: UInt8 (h, w) or (h, w, 3).
        size_px: Edge of the result.

    Returns:
        UInt8 (size_px, size_px) or (size_px, size_px, 3); the input itself if it has that size.
    """
    if pixels.shape[:2] == (size_px, size_px):
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((size_px, size_px), Image.Resampling.LANCZOS))


_NO_TISSUE_HU = -1100.0  # air has -1000
_RIM = 1.0  # of the padding, that may lie around it with values between padding and tissue


def _without_padding(values: Float[np.ndarray, " n"]) -> tuple[Float[np.ndarray, " kept"], tuple[str, ...]]:
    """The values without those that scanners write outside of the field of view: -2000, -3024, -32768 and the like.

    Values below what any tissue has are padding, or dead, where most of them are the lowest value; the rest may be the
    rim that interpolation blurs. Elsewhere (phase maps) they are values like others.
    """
    if values.size == 0 or (lowest := float(values.min())) >= _NO_TISSUE_HU:
        return values, ()
    padding = np.count_nonzero(values == lowest)
    kept = values[values >= _NO_TISSUE_HU]
    if values.size - kept.size - padding > _RIM * padding:
        return values, ()
    return kept, (f"padding outside of the field of view left out of the percentiles ({lowest:g})",)
