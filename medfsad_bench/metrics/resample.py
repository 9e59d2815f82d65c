"""Bootstrap weights: how much each image counts in each replicate, when groups are weighted and images come along.

A group's weight is drawn from the exponential distribution (the Bayesian bootstrap), so no replicate lacks a class and
there are no strata: a group that is the only one with images of both classes is weighted like any other. Within a
class the weights are then brought to the sum of 1 per image, since a test set's numbers of normal and anomalous images
are fixed by its manifest and so aren't random.

A group's weights follow from its key and the seed alone. So two methods see equal weights, and so do two targets that
share patients.

Source: Rubin, Annals of Statistics 9 (1981); Præstgaard and Wellner, Annals of Probability 21 (1993).
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from medfsad_bench.errors import MetricError
from medfsad_bench.metrics.group_sizes import GroupSizes, freedom_of


@dataclass(frozen=True, slots=True)
class Precision:
    """What the groups behind a figure can tell.

    Attributes:
        scarcer: Groups of the class that has fewer of them.
        freedom: Degrees of freedom of the figure's variance.
        stretch: What a replicate's distance from the figure has to be multiplied by: weights of few or unequal groups
            vary a mean by less than new groups would, by a factor that follows from the weights and the sizes.
        left_out: What the sum of squares of a figure's moves, as each group is left out, has to be multiplied by to be
            its variance, if it is a mean: the jackknife's (m - 1) / m for m groups of one size.
    """

    scarcer: int
    freedom: float
    stretch: float
    left_out: float


_UNKNOWN = Precision(scarcer=0, freedom=np.nan, stretch=np.nan, left_out=np.nan)


@dataclass(frozen=True)
class Resampling:
    """Weighted groups, and what they can tell.

    Attributes:
        weights: Weight of every image in every replicate.
        group: Number of every image's group, from 0.
        anomalous: Whether the image holds something anomalous.
        precision: Of a figure that both classes move.
        of_anomalous: Of a figure of the anomalous images alone.
        of_normal: Of a figure of the normal images alone.
        seed: Of the weights.
        lacking: Why these groups allow no interval: then there is no replicate, and no precision. Empty if they do.
    """

    weights: Float32[np.ndarray, "n replicates"]
    group: Int64[np.ndarray, " n"]
    anomalous: Bool[np.ndarray, " n"]
    precision: Precision
    of_anomalous: Precision
    of_normal: Precision
    seed: int
    lacking: str = ""

    @cached_property
    def left_out(self) -> Float32[np.ndarray, "n groups"]:
        """Weight of every image with one group left out, one column per group; none where `weights` holds none."""
        count = 0 if self.lacking else int(self.group.max()) + 1
        return _balanced((self.group[:, None] != np.arange(count)).astype(np.float32), self.anomalous)


def resampling(
    groups: Int64[np.ndarray, " n"],
    anomalous: Bool[np.ndarray, " n"],
    *,
    normal: Bool[np.ndarray, " n"] | None = None,
    replicates: int,
    seed: int,
) -> Resampling:
    """Draw a weight for every group.

    All methods, shots and draws of a target are weighed alike: a few results are kept for the next that asks.

    Args:
        groups: Key of an image's group; equal keys have equal weights, in whatever set of images.
        anomalous: Whether the image holds something anomalous.
        normal: Whether it holds something normal; by default if it isn't anomalous. Pixels have images with both.
        replicates: Number of weightings.
        seed: Of the weights.

    Raises:
        MetricError: If the lengths differ.

    >>> resampling(np.arange(3), np.arange(3) == 2, replicates=9, seed=0).lacking[:31]
    'Of 3 groups 2 hold normal and 1'
    """
    if len(groups) != len(anomalous):
        raise MetricError(f"{len(groups)} group numbers came with {len(anomalous)} labels; expected one per image.")
    normal = ~anomalous if normal is None else normal
    return _resampling(groups.tobytes(), anomalous.tobytes(), normal.tobytes(), replicates, seed)


@lru_cache(maxsize=8)  # some MB each
def _resampling(
    groups_bytes: bytes, anomalous_bytes: bytes, normal_bytes: bytes, replicates: int, seed: int
) -> Resampling:
    groups, anomalous = np.frombuffer(groups_bytes, np.int64), np.frombuffer(anomalous_bytes, bool)
    keys, group = np.unique(groups, return_inverse=True)
    classes = (anomalous, np.frombuffer(normal_bytes, bool))
    images = [np.bincount(group, weights=of_class, minlength=len(keys)) for of_class in classes]
    with_anomalous, with_normal = (int((of_class > 0).sum()) for of_class in images)
    if min(with_anomalous, with_normal) < 2 or len(keys) < 4:
        lacking = (
            f"Of {len(keys)} groups {with_normal} hold normal and {with_anomalous} anomalous images; an "
            "interval over groups needs two of each and four in all."
        )
        none = np.zeros((len(groups), 0), np.float32)
        return Resampling(none, group, anomalous, _UNKNOWN, _UNKNOWN, _UNKNOWN, seed, lacking)
    by_group = np.stack([_weights_of(int(key), replicates=replicates, seed=seed) for key in keys])
    sizes = [GroupSizes.of(of_class) for of_class in images]
    shown = [_variance_shown(by_group, of_class) for of_class in sizes]
    return Resampling(
        _balanced(by_group[group], anomalous),
        group,
        anomalous,
        precision=_precision(sizes, shown),
        of_anomalous=_precision(sizes[:1], shown[:1]),
        of_normal=_precision(sizes[1:], shown[1:]),
        seed=seed,
    )


def group_keys(names: Iterable[str]) -> Int64[np.ndarray, " n"]:
    """Keys of groups by their names: 63 bits of a digest, so that equal names have equal weights in all sets."""
    key_of = cache(lambda name: int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest()) >> 1)
    return np.array([key_of(str(name)) for name in names], dtype=np.int64)


def draw_weights(draws: int, *, replicates: int, seed: int) -> Float64[np.ndarray, "replicates draws"]:
    """Share of every support draw in every replicate; one draw alone always counts fully."""
    if draws == 1:
        return np.ones((replicates, 1))
    rng = np.random.default_rng([seed, 1])
    return np.asarray(rng.multinomial(draws - 1, np.full(draws, 1 / draws), size=replicates) / (draws - 1))


def _weights_of(key: int, *, replicates: int, seed: int) -> Float32[np.ndarray, " replicates"]:
    return np.random.default_rng([seed, 0, key]).standard_exponential(replicates, dtype=np.float32)


def _balanced(
    weights: Float32[np.ndarray, "n replicates"], anomalous: Bool[np.ndarray, " n"]
) -> Float32[np.ndarray, "n replicates"]:
    """Brought to a mean of 1 per image within each class, and kept from being written to."""
    for kind in (anomalous, ~anomalous):
        if kind.any():
            weights[kind] *= kind.sum() / weights[kind].sum(axis=0)
    weights.setflags(write=False)
    return weights


def _variance_shown(by_group: Float32[np.ndarray, "groups replicates"], sizes: GroupSizes) -> float:
    """Variance that the weights give to a mean over images, in units of a group's own, as `GroupSizes.variance`."""
    shares = by_group * sizes.shares[:, None].astype(np.float32)
    shares /= shares.sum(axis=0)
    return float(shares.var(axis=1, dtype=np.float64).sum())


def _precision(sizes: Sequence[GroupSizes], shown: Sequence[float]) -> Precision:
    """Of a figure that some classes move, from their groups and the variance that the weights show of each."""
    variance = sum(of_class.variance for of_class in sizes)
    return Precision(
        scarcer=min(of_class.count for of_class in sizes),
        freedom=freedom_of(sizes),
        stretch=float(np.sqrt(variance / sum(shown))),
        left_out=variance / sum(of_class.left_out for of_class in sizes),
    )
