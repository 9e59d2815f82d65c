"""Bootstrap weights: how often each image counts in each replicate, when groups are resampled and images come along.

Groups are drawn within strata: those with normal images only, with anomalous images only, with both. A test set's
numbers of normal and anomalous images are fixed by its manifest, so they aren't random, and no replicate can lack a
class.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from medfsad_bench.errors import MetricError


def group_weights(
    groups: Int64[np.ndarray, " n"], anomalous: Bool[np.ndarray, " n"], *, replicates: int, seed: int
) -> Float32[np.ndarray, "n replicates"]:
    """Weight of every image in every replicate: the multiplicity of its group.

    Of the m groups of a stratum m - 1 are drawn with replacement and weighted by m / (m - 1): with m draws the variance
    would come out short by (m - 1) / m, which matters at the sizes of medical test sets (Rao and Wu, JASA 83, 1988).
    A stratum of one group can't be resampled and joins the largest other one.

    Raises:
        MetricError: If the lengths differ or there are fewer than two groups.
    """
    if len(groups) != len(anomalous):
        raise MetricError(f"{len(groups)} group numbers came with {len(anomalous)} labels; expected one an image.")
    _, number = np.unique(groups, return_inverse=True)
    count = int(number.max(initial=-1)) + 1
    if count < 2:
        raise MetricError(f"The images form {count} group(s); an interval over groups needs at least two.")
    weights = np.empty((count, replicates), dtype=np.float32)
    rng = np.random.default_rng([seed, 0])
    for members in _strata(number, anomalous, count):
        size = len(members)
        drawn = rng.multinomial(size - 1, np.full(size, 1 / size), size=replicates)
        weights[members] = drawn.T * (size / (size - 1))
    return weights[number]


def draw_weights(draws: int, *, replicates: int, seed: int) -> Float64[np.ndarray, "replicates draws"]:
    """Share of every support draw in every replicate; one draw alone always counts fully."""
    if draws == 1:
        return np.ones((replicates, 1))
    rng = np.random.default_rng([seed, 1])
    return np.asarray(rng.multinomial(draws - 1, np.full(draws, 1 / draws), size=replicates) / (draws - 1))


def stratum_count(groups: Int64[np.ndarray, " n"], anomalous: Bool[np.ndarray, " n"]) -> tuple[int, int]:
    """Number of groups and of the strata they are drawn in."""
    _, number = np.unique(groups, return_inverse=True)
    count = int(number.max()) + 1
    return count, sum(1 for _ in _strata(number, anomalous, count))


def _strata(
    number: Int64[np.ndarray, " n"], anomalous: Bool[np.ndarray, " n"], count: int
) -> Iterator[Int64[np.ndarray, " m"]]:
    has_anomalous = np.bincount(number, weights=anomalous, minlength=count) > 0
    has_normal = np.bincount(number, weights=~anomalous, minlength=count) > 0
    kind = has_anomalous + 2 * has_normal
    kinds, sizes = np.unique(kind, return_counts=True)
    largest = kinds[np.argmax(sizes)]
    for lonely in kinds[sizes == 1]:
        kind[kind == lonely] = largest
    for present in np.unique(kind):
        yield np.flatnonzero(kind == present)
