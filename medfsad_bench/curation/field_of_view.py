"""The camera's field of view in a fundus photograph: the square around its circle, so that every eye is as large.

The rule: a pixel belongs to the field if its brightest channel is above 15 of 255; a row or column, if a hundredth of
its pixels do. The circle's diameter is the larger side of the box around these. Many cameras cut the circle at the top
or the bottom: where the box touches just one of the two edges, the centre is a radius away from the other end, else it
is the box's. What the square holds beyond the picture is black.
"""

import numpy as np
from jaxtyping import Float32, UInt8

_DARK = 15  # of 255
_SHARE = 0.01
_SMALLEST_PX = 32
_SMALLEST_SHARE = 0.25  # of the picture's shorter side; a smaller field is a speck on a dark picture

Square = tuple[int, int, int]  # top, left, edge; may lie partly outside


def field_of_view(pixels: UInt8[np.ndarray, "h w"] | UInt8[np.ndarray, "h w 3"]) -> Square | None:
    """The square around the circle, or None where there's no field of sensible size.

    >>> disc = (np.hypot(*np.ogrid[-50:50, -80:80]) < 45).astype(np.uint8) * 200
    >>> field_of_view(disc)
    (6, 36, 89)
    """
    brightest = pixels if pixels.ndim == 2 else pixels.max(axis=2)
    inside = brightest > _DARK
    rows, columns = (np.flatnonzero(inside.mean(axis=axis) >= _SHARE) for axis in (1, 0))
    if len(rows) == 0 or len(columns) == 0:
        return None
    top, bottom, left, right = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    edge = max(bottom - top, right - left)
    if edge < max(_SMALLEST_PX, _SMALLEST_SHARE * min(inside.shape)):
        return None
    return _start(top, bottom, edge, inside.shape[0]), _start(left, right, edge, inside.shape[1]), edge


def cut_square(pixels: np.ndarray, square: Square) -> np.ndarray:
    """The square of a picture or mask; black beyond it."""
    top, left, edge = square
    out = np.zeros((edge, edge, *pixels.shape[2:]), pixels.dtype)
    y0, x0 = max(0, top), max(0, left)
    part = pixels[y0 : top + edge, x0 : left + edge]
    out[y0 - top : y0 - top + part.shape[0], x0 - left : x0 - left + part.shape[1]] = part
    return out


def put_back(
    part: Float32[np.ndarray, "edge edge"], square: Square, shape: tuple[int, int]
) -> Float32[np.ndarray, "h w"]:
    """Values of the square where they lie in a picture of that shape, NaN around it.

    >>> put_back(np.full((2, 2), 7, np.float32), (1, -1, 2), (3, 2))
    array([[nan, nan],
           [ 7., nan],
           [ 7., nan]], dtype=float32)
    """
    top, left, edge = square
    out = np.full(shape, np.nan, np.float32)
    y0, x0 = max(0, top), max(0, left)
    y1, x1 = min(shape[0], top + edge), min(shape[1], left + edge)
    out[y0:y1, x0:x1] = part[y0 - top : y1 - top, x0 - left : x1 - left]
    return out


def _start(low: int, high: int, edge: int, length: int) -> int:
    if low <= 0 and high < length:
        return high - edge
    if high >= length and low > 0:
        return low
    return (low + high - edge) // 2
