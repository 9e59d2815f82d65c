"""Near-duplicates: altered copies of one picture, whatever their size, contrast, flip or quarter turn.

A picture is cropped to what isn't background (rows and columns of which a twentieth is brighter than a quarter of the
99th percentile, so that a brightened copy is cropped as its dark original is), squashed to 32 × 32, rank-transformed
(so that brightness and contrast drop out) and reduced to its detail: what is left after taking away a smooth version of
itself, inside the foreground only, as outlines of a head or of a camera's field of view are alike in everybody. Two
pictures are near-duplicates if their details correlate in any of the eight flips and quarter turns. How the threshold
was found: decision record 0030.
"""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64, UInt8
from PIL import Image

MIN_CORRELATION = 0.82
_EDGE = 32
_SIGMA = 2.0  # of the smooth version, in pixels of the small picture
_MARGIN = 2  # pixels of the foreground's rim that are left out
_DARK = 12  # of 255: background of MRI, X-ray collimation, the black around a fundus
_BRIGHT, _DIM, _SHARE = 0.99, 0.25, 0.05  # quantile, fraction of it, and share of a row or column, for the crop
_BLOCK = 1024  # pictures; pairs of blocks are compared one by one, on whatever machine, so sums are always the same
_PIXELS = np.arange(_EDGE * _EDGE).reshape(_EDGE, _EDGE)
_TURNS = [np.rot90(flipped, turn).ravel() for flipped in (_PIXELS, _PIXELS[:, ::-1]) for turn in range(4)]


Fingerprint = Float32[np.ndarray, "32 32"]  # a picture's detail, of norm 1; all zero where it has none
Details = Float32[np.ndarray, "_ 1024"]  # fingerprints, one per row
Pairs = Int64[np.ndarray, "_ 2"]
Block = tuple[int, int]  # where a part of the rows begins, and one of the columns
Compare = Callable[[Details, Details, Sequence[Block], float], Iterable[Pairs]]  # `correlated` for each block


def fingerprint(pixels: UInt8[np.ndarray, "h w"] | UInt8[np.ndarray, "h w 3"]) -> Fingerprint:
    """Fingerprint of one picture at any size."""
    from scipy.ndimage import binary_erosion, binary_fill_holes, gaussian_filter

    small = _cropped(pixels)
    foreground = binary_erosion(binary_fill_holes(small > _DARK), iterations=_MARGIN, border_value=1)
    inside = foreground.astype(np.float32)
    ranks = _ranks(small)
    smooth = gaussian_filter(ranks * inside, _SIGMA) / np.maximum(gaussian_filter(inside, _SIGMA), 1e-3)
    detail = (ranks - smooth) * inside
    norm = float(np.linalg.norm(detail))
    return (detail / norm).astype(np.float32) if norm > 1e-3 else np.zeros_like(ranks)


def compared_here(details: Details, others: Details, blocks: Sequence[Block], min_correlation: float) -> list[Pairs]:
    """A `Compare` in this process."""
    return [correlated(block, details, others, min_correlation) for block in blocks]


def near_duplicates(
    prints: Sequence[Fingerprint], *, min_correlation: float = MIN_CORRELATION, compare: Compare = compared_here
) -> Pairs:
    """Pairs (i < j) of near-duplicates, sorted.

    Memory is bounded by blocks; time grows with n², a minute for 20,000 pictures on two cores.

    Args:
        prints: Fingerprints of n pictures.
        min_correlation: Of the details, in the best of the eight positions.
        compare: Who does it.
    """
    details = _details_of(prints)
    starts = range(0, len(details), _BLOCK)
    blocks = [(start, other) for start in starts for other in starts if other <= start]
    rows, columns = _joined(compare(details, details, blocks, min_correlation)).T
    earlier = columns < rows
    return np.unique(np.stack([columns[earlier], rows[earlier]], axis=1), axis=0)


def near_duplicates_across(
    prints: Sequence[Fingerprint],
    others: Sequence[Fingerprint],
    *,
    min_correlation: float = MIN_CORRELATION,
    compare: Compare = compared_here,
) -> Pairs:
    """Pairs (i, j) of a picture and another set's near-duplicate of it, sorted; pairs within a set aren't looked for.

    Args:
        prints: Fingerprints of the pictures.
        others: Those of the other set.
        min_correlation: Of the details, in the best of the eight positions.
        compare: Who does it.
    """
    starts, other_starts = range(0, len(prints), _BLOCK), range(0, len(others), _BLOCK)
    blocks = [(start, other) for start in starts for other in other_starts]
    return np.unique(_joined(compare(_details_of(prints), _details_of(others), blocks, min_correlation)), axis=0)


def correlated(block: Block, details: Details, others: Details, min_correlation: float) -> Pairs:
    """Rows and columns of one pair of blocks that are near-duplicates in any of the eight positions."""
    start, other_start = block
    rows, columns = details[start : start + _BLOCK], others[other_start : other_start + _BLOCK].T
    pairs = [np.argwhere(rows[:, turn] @ columns >= min_correlation) for turn in _TURNS]
    return np.unique(np.concatenate(pairs), axis=0).astype(np.int64) + np.array(block)


def joined_groups(groups: Sequence[str], pairs: Int64[np.ndarray, "m 2"]) -> list[str]:
    """Transitive closure of groups and near-duplicates.

    Args:
        groups: Of each image (a patient, or the image itself).
        pairs: Indices of images that belong together.

    Returns:
        A group per image: the smallest name among the groups that were joined, so that order doesn't matter.

    >>> joined_groups(["p2", "p1", "p3", "p3"], np.array([[0, 2]]))
    ['p2', 'p1', 'p2', 'p2']
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    names, number = np.unique(np.asarray(groups, str), return_inverse=True)
    a, b = number[pairs[:, 0]], number[pairs[:, 1]]
    graph = coo_array((np.ones(len(a)), (a, b)), shape=(len(names), len(names)))
    component = connected_components(graph, directed=False)[1]
    first: dict[int, str] = {}
    for name, part in zip(names, component, strict=True):  # names are sorted, so the first is the smallest
        first.setdefault(int(part), str(name))
    return [first[int(component[index])] for index in number]


def _details_of(prints: Sequence[Fingerprint]) -> Details:
    return np.array(prints, np.float32).reshape(len(prints), _EDGE * _EDGE)


def _joined(parts: Iterable[Pairs]) -> Pairs:
    return np.concatenate([np.empty((0, 2), np.int64), *parts])


def _cropped(pixels: UInt8[np.ndarray, "h w"] | UInt8[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "32 32"]:
    grey = Image.fromarray(pixels) if pixels.ndim == 2 else Image.fromarray(pixels).convert("L")
    values = pixels if pixels.ndim == 2 else np.asarray(grey)
    bright = values > max(_DARK, int(_DIM * _level(grey, _BRIGHT)))
    rows, columns = (np.flatnonzero(_true_shares(bright, axis) >= _SHARE) for axis in (1, 0))
    if len(rows) > _EDGE // 2 and len(columns) > _EDGE // 2:
        grey = grey.crop((int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1))
    return np.asarray(grey.resize((_EDGE, _EDGE), Image.Resampling.BOX), np.float32)


def _true_shares(marked: Bool[np.ndarray, "h w"], axis: int) -> Float64[np.ndarray, " n"]:
    """`marked.mean(axis)`, in a third of its time: counted in the smallest integers that can hold the counts."""
    counts = marked.sum(axis, dtype=np.min_scalar_type(marked.shape[axis]))
    return np.divide(counts, marked.shape[axis], dtype=np.float64)


def _level(grey: Image.Image, quantile: float) -> int:
    """Smallest grey level that at least this share of the pixels doesn't exceed."""
    below = np.cumsum(grey.histogram())
    return int(np.searchsorted(below, quantile * below[-1]))


def _ranks(small: Float32[np.ndarray, "32 32"]) -> Float32[np.ndarray, "32 32"]:
    """Mid-ranks in [0, 1]: the same for any monotone change of contrast; ties (background) stay ties."""
    _, index, counts = np.unique(small, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - counts / 2
    return np.asarray(middle[index].reshape(small.shape) / small.size, np.float32)
