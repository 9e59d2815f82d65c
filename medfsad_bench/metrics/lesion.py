"""Lesions one by one: which were found, and how that hangs on their size.

A lesion is a connected region of a mask (8-neighbourhood). It is found at a threshold if one of its pixels reaches it:
the most lenient rule there is, so say beside it what the threshold costs (`froc`, or the share of normal images
flagged).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int64

from medfsad_bench.errors import MetricError
from medfsad_bench.metrics.ranks import Maps, Masks, check_maps, label_regions


@dataclass(frozen=True, slots=True)
class Lesions:
    """All lesions of a test set.

    Attributes:
        image: Index of the image a lesion is in.
        size_px: Its pixels at the mask's resolution.
        peak: Highest score in it.
    """

    image: Int64[np.ndarray, " lesions"]
    size_px: Int64[np.ndarray, " lesions"]
    peak: Float[np.ndarray, " lesions"]


@dataclass(frozen=True, slots=True)
class SizeGroup:
    """Recall of the lesions of one size group.

    Attributes:
        low_px: Smallest size, included.
        high_px: Largest size, excluded; None for the last group.
        lesions: How many there are.
        recall: Share of them that was found, or None where there is none.
    """

    low_px: int
    high_px: int | None
    lesions: int
    recall: float | None


def find_lesions(maps: Maps, masks: Masks) -> Lesions:
    """Every lesion with its image, size and highest score.

    Raises:
        MetricError: If there is no lesion, a pixel isn't finite or shapes differ.
    """
    check_maps(maps, masks)
    regions, images = label_regions(masks)
    if not len(images):
        raise MetricError(f"None of the {len(masks)} masks holds a lesion; leave lesion figures out of the row.")
    scores = np.concatenate([image[mask] for image, mask in zip(maps, masks, strict=True)])
    order = np.argsort(regions, kind="stable")
    sizes = np.bincount(regions)
    return Lesions(images, sizes, np.maximum.reduceat(scores[order], np.cumsum(sizes) - sizes))


def lesion_sensitivity_score(maps: Maps, masks: Masks, *, threshold: float) -> float:
    """Share of lesions with a pixel that reaches `threshold`; in [0, 1], every lesion counts the same.

    Raises:
        MetricError: If there is no lesion, a pixel isn't finite or shapes differ.

    >>> lesion_sensitivity_score(np.array([[[0.9, 0.2, 0.4]]]), np.array([[[True, False, True]]]), threshold=0.5)
    0.5
    """
    return float(np.mean(find_lesions(maps, masks).peak >= threshold))


def recall_by_size(lesions: Lesions, *, threshold: float, edges_px: Sequence[int]) -> tuple[SizeGroup, ...]:
    """Share of lesions found at `threshold`, by size: below the first edge, between edges, from the last edge on.

    Raises:
        MetricError: If the edges don't rise or aren't positive.
    """
    bounds = [0, *edges_px]
    if any(low >= high for low, high in zip(bounds, bounds[1:], strict=False)):  # noqa: RUF007 - as in the next line
        raise MetricError(f"Size edges {list(edges_px)} px; expected positive numbers that rise.")
    found = lesions.peak >= threshold
    tops: list[int | None] = [*edges_px, None]
    return tuple(
        _size_group(found, lesions.size_px, low=low, high=high) for low, high in zip(bounds, tops, strict=True)
    )


def _size_group(
    found: Bool[np.ndarray, " lesions"], size_px: Int64[np.ndarray, " lesions"], *, low: int, high: int | None
) -> SizeGroup:
    inside = (size_px >= low) & (size_px < (np.inf if high is None else high))
    count = int(inside.sum())
    return SizeGroup(low, high, count, float(found[inside].mean()) if count else None)
