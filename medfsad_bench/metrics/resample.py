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
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from medfsad_bench.errors import MetricError
from medfsad_bench.metrics.group_sizes import GroupSizes, freedom_of
from medfsad_bench.metrics.inputs import LabelArray, as_labels


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


@dataclass(frozen=True, slots=True)
class Resampling:
    """Weighted groups, and what they can tell.

    Attributes:
        weights: Weight of every image in every replicate.
        left_out: The same with one group left out, one column per group.
        precision: Of a figure that both classes move.
        of_anomalous: Of a figure of the anomalous images alone.
        of_normal: Of a figure of the normal images alone.
        seed: Of the weights.
    """

    weights: Float32[np.ndarray, "n replicates"]
    left_out: Float32[np.ndarray, "n groups"]
    precision: Precision
    of_anomalous: Precision
    of_normal: Precision
    seed: int


def resampling(
    groups: Int64[np.ndarray, " n"],
    anomalous: LabelArray,
    *,
    normal: Bool[np.ndarray, " n"] | None = None,
    replicates: int,
    seed: int,
) -> Resampling:
    """Draw a weight for every group.

    Args:
        groups: Key of an image's group; equal keys have equal weights, in whatever set of images.
        anomalous: Whether the image holds something anomalous.
        normal: Whether it holds something normal; by default if it isn't anomalous. Pixels have images with both.
        replicates: Number of weightings.
        seed: Of the weights.

    Raises:
        MetricError: If the lengths differ or there are too few groups of a class.
    """
    anomalous = as_labels(anomalous)
    keys, group, images = _images_by_group(groups, anomalous, ~anomalous if normal is None else normal)
    by_group = np.stack([_weights_of(int(key), replicates=replicates, seed=seed) for key in keys])
    weights, left_out = by_group[group], (1 - np.eye(len(keys), dtype=np.float32))[group]
    for kind in (anomalous, ~anomalous):
        if kind.any():
            for columns in (weights, left_out):
                columns[kind] *= kind.sum() / columns[kind].sum(axis=0)
    sizes = [GroupSizes.of(of_class) for of_class in images]
    shown = [_variance_shown(by_group, of_class) for of_class in sizes]
    both, of_anomalous, of_normal = (
        Precision(
            scarcer=min(sizes[number].count for number in classes),
            freedom=freedom_of([sizes[number] for number in classes]),
            stretch=float(np.sqrt(sum(sizes[n].variance for n in classes) / sum(shown[n] for n in classes))),
            left_out=sum(sizes[n].variance for n in classes) / sum(sizes[n].left_out for n in classes),
        )
        for classes in ((0, 1), (0,), (1,))
    )
    return Resampling(weights, left_out, both, of_anomalous, of_normal, seed)


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


def _images_by_group(
    groups: Int64[np.ndarray, " n"], anomalous: Bool[np.ndarray, " n"], normal: Bool[np.ndarray, " n"]
) -> tuple[Int64[np.ndarray, " groups"], Int64[np.ndarray, " n"], tuple[np.ndarray, np.ndarray]]:
    """Keys of the groups, the place of each image's among them, and the images of each class that a group holds.

    Raises:
        MetricError: If the lengths differ or there are too few groups of a class.
    """
    if len(groups) != len(anomalous):
        raise MetricError(f"{len(groups)} group numbers came with {len(anomalous)} labels; expected one per image.")
    keys, group = np.unique(groups, return_inverse=True)
    of_anomalous, of_normal = (np.bincount(group, weights=kind, minlength=len(keys)) for kind in (anomalous, normal))
    with_anomalous, with_normal = int((of_anomalous > 0).sum()), int((of_normal > 0).sum())
    if min(with_anomalous, with_normal) < 2 or len(keys) < 4:
        raise MetricError(
            f"Of {len(keys)} groups {with_normal} hold normal and {with_anomalous} anomalous images; an "
            "interval over groups needs two of each and four in all."
        )
    return keys, group, (of_anomalous, of_normal)


def _weights_of(key: int, *, replicates: int, seed: int) -> Float32[np.ndarray, " replicates"]:
    return np.random.default_rng([seed, 0, key]).standard_exponential(replicates, dtype=np.float32)


def _variance_shown(by_group: Float32[np.ndarray, "groups replicates"], sizes: GroupSizes) -> float:
    """Variance that the weights give to a mean over images, in units of a group's own, as `GroupSizes.variance`."""
    shares = by_group * sizes.shares[:, None].astype(np.float32)
    shares /= shares.sum(axis=0)
    return float(shares.var(axis=1, dtype=np.float64).sum())
