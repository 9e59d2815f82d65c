"""Anomaly maps as pictures: one colour scale for all images, set by the supports."""

import base64
import io
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32, UInt8, UInt16
from PIL import Image

from medfsad_bench.files import whole

Rgb = UInt8[np.ndarray, "h w 3"]

_COLOURS = "inferno"  # of matplotlib; brightness rises with the value, so that it survives a grey printer
_FIRST_COLOUR = 0.25  # of the map's: what is darker hides in dark pictures
_OPACITY = 0.75
_TRANSPARENT = 95.0  # per cent of a normal image's pixels that stay uncovered
_SPANS = 4.0  # beyond the highest of normals that a 16-bit map reaches, in the scale's spans


@dataclass(frozen=True, slots=True)
class MapScale:
    """From a map's values to colours; the same for all images of a folder.

    Attributes:
        low: Nothing is shown up to here: 95 % of the pixels of left-out supports lie below.
        high: The highest value in any left-out support; the middle of the colours. Their end is as far beyond.
        source: Whose maps set it.
    """

    low: float
    high: float
    source: str

    @property
    def words(self) -> str:
        """What the colours mean."""
        return (
            f"transparent up to {self.low:.4g} (95 % of the pixels of {self.source}), half way at {self.high:.4g} "
            f"(their highest), full colour from {2 * self.high - self.low:.4g}; the same for all images"
        )

    @property
    def png_range(self) -> tuple[float, float]:
        """Values of 0 and of 65,535 in a 16-bit map; what lies beyond is clipped."""
        span = self.high - self.low
        return self.low - span, self.high + _SPANS * span

    def shares(self, values: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h w"]:
        """Where on the scale values lie, from 0 to 1."""
        return np.clip((values - self.low) / (2 * (self.high - self.low)), 0, 1)


def map_scale(normal: Float32[np.ndarray, "n s s"], source: str) -> MapScale:
    """The scale of normal images' maps.

    Args:
        normal: Maps of normal images that their detector hadn't seen.
        source: What they are, for people.
    """
    low, high = float(np.percentile(normal, _TRANSPARENT)), float(normal.max())
    return MapScale(low, max(high, low + 1e-6 * max(1.0, abs(low))), source)


def overlay(picture: Rgb, anomaly_map: Float[np.ndarray, "h w"], scale: MapScale) -> Rgb:
    """The map over the picture, which shows through where the map is low."""
    shares = scale.shares(anomaly_map)
    colours = _colours()[(shares * 255).astype(np.uint8)]
    opacity = (_OPACITY * np.minimum(1, 2 * shares))[:, :, None]
    return ((1 - opacity) * picture + opacity * colours + 0.5).astype(np.uint8)


def in_proportion(pixels: UInt8[np.ndarray, "s s 3"], height: int, width: int, edge: int) -> Rgb:
    """A squashed square brought back to the proportions of its original, the longer side `edge` px."""
    longer = max(height, width)
    size = max(1, round(edge * width / longer)), max(1, round(edge * height / longer))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))


def resized_map(anomaly_map: Float32[np.ndarray, "s s"], height: int, width: int) -> Float32[np.ndarray, "h w"]:
    """A map at another size (bilinear)."""
    return np.asarray(Image.fromarray(anomaly_map).resize((width, height), Image.Resampling.BILINEAR))


def save_png(path: Path, pixels: Rgb | UInt16[np.ndarray, "h w"]) -> None:
    """Write a PNG whole or not at all."""
    with whole(path) as temporary:
        Image.fromarray(pixels).save(temporary)


def plain_map(anomaly_map: Float32[np.ndarray, "h w"], scale: MapScale) -> UInt16[np.ndarray, "h w"]:
    """A map as 16-bit values, linear over `scale.png_range`."""
    low, high = scale.png_range
    return (np.clip((anomaly_map - low) / (high - low), 0, 1) * 65535 + 0.5).astype(np.uint16)


def thumbnail(pixels: Rgb, edge: int) -> str:
    """A small WebP as the address of a picture in HTML."""
    image = Image.fromarray(pixels)
    image.thumbnail((edge, edge))
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=70)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


@cache
def _colours() -> UInt8[np.ndarray, "256 3"]:
    import matplotlib as mpl

    return (mpl.colormaps[_COLOURS](np.linspace(_FIRST_COLOUR, 1, 256))[:, :3] * 255 + 0.5).astype(np.uint8)
