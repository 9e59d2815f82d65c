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
        mapping: `display`: rasters as they are (16 bits scaled by their full range), DICOM through its own VOI LUT or
            window. `window`: physical values from `low` to `high`. `percentiles`: of the non-zero finite values.
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
    warnings: tuple[str, ...] = ()  # traps that were noticed
    privacy: tuple[str, ...] = ()  # names of header fields that may say who the patient is


@contextmanager
def decoding(name: str, fault: str) -> Iterator[None]:
    """Hush a decoder's warnings; decoders and parsers raise whatever they like, and all of it is the file's fault.

    Raises:
        DownloadError: `name`: `fault` (what the decoder says).
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except MedfsadError:
        raise
    except Exception as error:
        raise DownloadError(f"{name}: {fault} ({one_line(error)}). Download it again.") from error


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


def stated_range(name: str, values: Float[np.ndarray, "*shape"], intensity: Intensity) -> tuple[float, float]:
    """Physical values shown black and white where the manifest states a window or percentiles.

    Args:
        name: The file's, for messages.
        values: Percentiles are taken over the non-zero finite ones.
        intensity: Any mapping but `display`.

    Raises:
        DownloadError: If a window lacks an end.
    """
    if intensity.mapping == "window":
        if intensity.low is None or intensity.high is None:
            raise DownloadError(f"{name}: mapping = 'window' needs low and high. Set both in the manifest.")
        return intensity.low, intensity.high
    kept = values[np.isfinite(values) & (values != 0)]
    if kept.size == 0:
        return 0.0, 1.0
    low, high = np.percentile(kept, [intensity.low or 0.0, 100.0 if intensity.high is None else intensity.high])
    return float(low), float(high)


def grey_if_equal(pixels: UInt8[np.ndarray, "h w 3"]) -> Pixels:
    """One channel where the three say the same."""
    same = np.array_equal(pixels[..., 0], pixels[..., 1]) and np.array_equal(pixels[..., 0], pixels[..., 2])
    return np.ascontiguousarray(pixels[..., 0]) if same else pixels


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
