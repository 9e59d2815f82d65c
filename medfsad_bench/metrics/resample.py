"""Bootstrap weights: how often each image counts in each replicate, when groups are resampled and images come along.

Groups are drawn within strata: those with normal images only, with anomalous images only, with both. A test set's
numbers of normal and anomalous images are fixed by its manifest, so they aren't random, and no replicate can lack a
class.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from medfsad_bench.errors import MetricError
from medfsad_bench.metrics.inputs import LabelArray, as_labels

_MIXED = 3  # kind of a group with images of both classes


@dataclass(frozen=True, slots=True)
class Resampling:
    """Resampled groups, and what they can tell.

    Attributes:
        weights: Weight of every image in every replicate: the multiplicity of its group.
        scarcer: Groups with an image of the class that has fewer of them.
        freedom: Degrees of freedom that the groups leave.
        seed: Of the resampling.
    """

    weights: Float32[np.ndarray, "n replicates"]
    scarcer: int
    freedom: int
    seed: int


def resampling(
    groups: Int64[np.ndarray, " n"],
    anomalous: LabelArray,
    *,
    normal: Bool[np.ndarray, " n"] | None = None,
    replicates: int,
    seed: int,
) -> Resampling:
    """Draw groups by the classes of their images. A group alone in its stratum joins another, as it can't be resampled.

    Of the m groups of a stratum m - 1 are drawn with replacement and weighted by m / (m - 1): with m draws the variance
    would come out short by (m - 1) / m, which matters at the sizes of medical test sets (Rao and Wu, JASA 83, 1988).

    Args:
        groups: Group of an image.
        anomalous: Whether the image holds something anomalous.
        normal: Whether it holds something normal; by default if it isn't anomalous. Pixels have images with both.
        replicates: Number of resamplings.
        seed: Of the resampling.

    Raises:
        MetricError: If the lengths differ or there are too few groups of a class.
    """
    anomalous = as_labels(anomalous)
    if len(groups) != len(anomalous):
        raise MetricError(f"{len(groups)} group numbers came with {len(anomalous)} labels; expected one per image.")
    distinct, group = np.unique(groups, return_inverse=True)
    has_anomalous = np.bincount(group, weights=anomalous, minlength=len(distinct)) > 0
    has_normal = np.bincount(group, weights=~anomalous if normal is None else normal, minlength=len(distinct)) > 0
    scarcer = int(min(has_anomalous.sum(), has_normal.sum()))
    if scarcer < 2 or len(distinct) < 4:
        raise MetricError(
            f"Of {len(distinct)} groups {has_normal.sum()} hold normal and {has_anomalous.sum()} anomalous images; an "
            "interval over groups needs two of each and four in all. Leave it out of the row."
        )
    kind = has_anomalous.astype(np.int64) + 2 * has_normal
    kinds, sizes = np.unique(kind, return_counts=True)
    lone = kinds[sizes == 1]  # these join each other, a single one joins the mixed or else the largest stratum
    home = _MIXED if len(lone) == 1 and _MIXED in kinds[sizes > 1] else kinds[np.argmax(sizes)]
    stratum = np.where(np.isin(kind, lone), lone[0] if len(lone) > 1 else home, kind)
    strata = [np.flatnonzero(stratum == present) for present in np.unique(stratum)]
    weights = np.empty((len(distinct), replicates), dtype=np.float32)
    rng = np.random.default_rng([seed, 0])
    for members in strata:
        size = len(members)
        drawn = rng.multinomial(size - 1, np.full(size, 1 / size), size=replicates)
        weights[members] = drawn.T * (size / (size - 1))
    return Resampling(np.asarray(weights[group]), scarcer, len(distinct) - len(strata), seed)


def why_no_interval(groups: Int64[np.ndarray, " n"], anomalous: LabelArray) -> str:
    """Why figures of these images have no interval; empty if they have.

    >>> why_no_interval(np.arange(8), np.arange(8) % 2)
    ''
    """
    try:
        resampling(groups, anomalous, replicates=1, seed=0)
    except MetricError as error:
        return str(error)
    return ""


def draw_weights(draws: int, *, replicates: int, seed: int) -> Float64[np.ndarray, "replicates draws"]:
    """Share of every support draw in every replicate; one draw alone always counts fully."""
    if draws == 1:
        return np.ones((replicates, 1))
    rng = np.random.default_rng([seed, 1])
    return np.asarray(rng.multinomial(draws - 1, np.full(draws, 1 / draws), size=replicates) / (draws - 1))
