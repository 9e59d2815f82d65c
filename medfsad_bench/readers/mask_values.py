"""What the values of a mask mean. The background is 0; what else is anomalous depends on the kind of mask.

| kind | told by | anomalous |
|---|---|---|
| binary | 0 and one other value | the other value |
| labels | few values, in patches of one value each, or none above 63 | any but 0, all listed |
| soft | most values near 0 or the full scale (smooth edges, resampling), or fractions | half of it and more |

Anything else is refused: a picture, a mask without background, labels that were interpolated or coded lossily.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from medfsad_bench.errors import DownloadError

_SMALL = 63  # labels are numbered from 1; a soft mask reaches its full scale
_FEW = 16  # distinct values beyond which a mask isn't one of labels far apart
_LISTED = 8  # labels that a note lists
_BYTE = 255.0
_OVERSHOOT = 0.25  # of the full scale, by which cubic interpolation leaves the range
_MID = 1 / 8, 7 / 8  # of the full scale: below it is nearly background, above it nearly lesion
_MOST_MID = 0.8  # share of what isn't background that may lie between; a picture has more
_ONE_COLOUR = 1 / 4  # of the full scale, by which a channel may differ within a lesion of one colour
_PATCHES = 0.5  # share of pixels in 2 × 2 blocks of one value from which values are labels


@dataclass(frozen=True, slots=True)
class StoredMask:
    """The values of a mask, the way round that the file's tags say."""

    values: np.ndarray  # (h, w) or (x, y, z); with a last axis of 3 where `colours`
    colours: bool = False
    lossy: bool = False  # coded by JPEG or the like, in 8 bits
    full_scale: float | None = None  # the value of a certain lesion, where the file states it
    notes: tuple[str, ...] = ()


def anomalous(name: str, stored: StoredMask) -> tuple[Bool[np.ndarray, "*shape"], tuple[str, ...]]:
    """Which pixels or voxels are anomalous, and notes of what was decided.

    Args:
        name: The file's, for messages.
        stored: What it holds.

    Raises:
        DownloadError: If the values are of no kind that is known.
    """
    values, colours = _numbers(stored)
    present = _present(values)
    if stored.full_scale is not None:
        return values >= stored.full_scale / 2, (_soft_note(stored.full_scale),)
    if len(present) == 1 or (len(present) == 2 and 0 in present):
        return values != 0, ()
    shades = stored.values.max(axis=-1) if colours else values
    if stored.lossy:
        return _lossy(name, shades)
    if values.dtype.kind != "f" and _are_labels(values, present, numbered=not colours):
        if 0 not in present:
            raise _refused(name, present, "none of them 0, so that the background can't be told")
        return values != 0, (_labels_note(present, colours),)
    pixels, scale = _soft(name, shades)
    if colours and np.ptp(stored.values[pixels].astype(float), axis=0).max(initial=0) > scale * _ONE_COLOUR:
        raise _refused(name, _present(shades), "colours as a picture has them")
    return pixels, (_soft_note(scale),)


def _numbers(stored: StoredMask) -> tuple[np.ndarray, dict[int, str]]:
    """One number per pixel, integer where all are, and the name of each colour."""
    values = stored.values
    if stored.colours:
        if np.array_equal(values[..., 0], values[..., 1]) and np.array_equal(values[..., 0], values[..., 2]):
            return values[..., 0], {}
        codes = values.astype(np.int64) @ np.array([2**32, 2**16, 1])
        return codes, {int(code): _colour(int(code)) for code in np.unique(codes)[: _FEW + 1]}
    if values.dtype.kind == "f":
        whole = np.rint(values)
        if np.abs(values - whole).max(initial=0) <= 1e-3 and np.abs(whole).max(initial=0) < 2**31:
            return whole.astype(np.int64), {}
    return values.astype(np.uint8) if values.dtype.kind == "b" else values, {}


def _present(values: np.ndarray) -> np.ndarray:
    """Distinct values, sorted."""
    if values.dtype.kind != "f" and values.size:
        lowest, highest = int(values.min()), int(values.max())
        if highest - lowest < 2**17:  # sorting a volume takes twenty times as long
            shifted = values if lowest == 0 and values.dtype.kind == "u" else values.astype(np.int64) - lowest
            return np.flatnonzero(np.bincount(shifted.ravel())) + lowest
    return np.unique(values)


def _are_labels(values: np.ndarray, present: np.ndarray, *, numbered: bool) -> bool:
    """Whether integers name classes, other than shades between 0 and a full scale."""
    if numbered and present[0] >= 0 and present[-1] <= _SMALL:
        return len(present) <= _FEW or _in_patches(values, values != 0) >= _PATCHES
    near_white = present >= present[-1] * 15 / 16
    shades_of_edges = ((present <= present[-1] / 8) | near_white).all() and near_white.sum() > 1
    if len(present) > _FEW or (numbered and shades_of_edges):
        return False
    counts = [np.count_nonzero(values == value) for value in present]
    commonest = max((count, value) for count, value in zip(counts, present, strict=True) if value != 0)[1]
    return _in_patches(values, (values != 0) & (values != commonest)) >= _PATCHES


def _in_patches(values: np.ndarray, of: np.ndarray) -> float:
    """The share of the pixels `of` that lie in a 2 × 2 block of one value (of the first two axes)."""
    corner = values[:-1, :-1]
    block = (corner == values[1:, 1:]) & (corner == values[1:, :-1]) & (corner == values[:-1, 1:])
    inside = np.zeros(values.shape, bool)
    for rows in (slice(None, -1), slice(1, None)):
        for columns in (slice(None, -1), slice(1, None)):
            inside[rows, columns] |= block
    return float((inside & of).sum() / max(1, of.sum()))


def _lossy(name: str, values: np.ndarray) -> tuple[Bool[np.ndarray, "*shape"], tuple[str, ...]]:
    """Artefacts surround the lesion's outline; between its inside and the background is no patch of another value."""
    lesion = values >= _BYTE / 2
    low, high = (_BYTE * share for share in _MID)
    between = (values > low) & (values < high)
    if not lesion.any() or (between.sum() > lesion.sum() / 4 and _in_patches(values // 8, between) >= _PATCHES):
        raise _refused(name, _present(values), "coded lossily, so that labels can't be told from artefacts")
    if _is_picture(values, _BYTE):
        raise _refused(name, _present(values), "shades as a picture has them")
    return lesion, ("lossily coded mask cut at half of its range",)


def _soft(name: str, values: np.ndarray) -> tuple[Bool[np.ndarray, "*shape"], float]:
    """Which values are at least half of the full scale, and that scale."""
    lowest, highest = float(values.min()), float(values.max())
    scale = _full_scale(highest, fractions=values.dtype.kind == "f")
    if scale is None or lowest < -_OVERSHOOT * scale:
        raise _refused(name, _present(values), "neither labels nor shades up to a full scale")
    if scale > 1 and _is_picture(values, scale):
        raise _refused(name, _present(values), "shades as a picture has them")
    return values >= scale / 2, scale


def _is_picture(values: np.ndarray, scale: float) -> bool:
    low, high = (scale * share for share in _MID)
    between = np.count_nonzero((values > low) & (values < high))
    return bool(between > _MOST_MID * np.count_nonzero(values > low))


def _soft_note(scale: float) -> str:
    return f"soft mask cut at one half ({scale / 2:g} of {scale:g})"


def _full_scale(highest: float, *, fractions: bool) -> float | None:
    scales = (1.0, 255.0, 65535.0) if fractions else (255.0, 65535.0)
    return next((scale for scale in scales if scale / 2 <= highest <= (1 + _OVERSHOOT) * scale), None)


def _labels_note(present: np.ndarray, colours: dict[int, str]) -> str:
    names = [colours.get(int(value), str(int(value))) for value in present if value != 0]
    return f"several labels of a mask count as one anomaly ({_enumerated(names)})"


def _refused(name: str, present: np.ndarray, reason: str) -> DownloadError:
    values = _enumerated([f"{value:.6g}" for value in present])
    return DownloadError(
        f"{name}: the mask holds {len(present)} different values ({values}), {reason}. Expected 0 for the background "
        "and another value, or labels, for what is anomalous; write it as PNG with 0 and 255."
    )


def _enumerated(names: Sequence[str]) -> str:
    shown = names if len(names) <= _LISTED else [*names[: _LISTED - 1], "…", names[-1]]
    return ", ".join(shown)


def _colour(code: int) -> str:
    return f"#{code >> 32:02x}{code >> 16 & 0xFFFF:02x}{code & 0xFFFF:02x}"
