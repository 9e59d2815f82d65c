"""All pairs of many methods at once: what `delong` and `paired` say of one pair, as arrays over pairs.

A board of 200 methods has 19,900 pairs on every target. Pairs stand in the order of `itertools.combinations`, and of
each the first method is compared with the second. The sums of squares that `delong` makes of a difference are squared
distances between the methods' own sums, so that one table of distances holds all of them.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from medfsad_bench.errors import MetricError
from medfsad_bench.metrics.delong import deviations_of
from medfsad_bench.metrics.group_sizes import GroupSizes, freedom_of
from medfsad_bench.metrics.interval import size_limit
from medfsad_bench.metrics.metric import Metric
from medfsad_bench.metrics.paired import effective_size


@dataclass(frozen=True, slots=True)
class PairTable:
    """Differences of all pairs of methods, first minus second; see `delong.Measurement`.

    Attributes:
        value: What was measured.
        error: Its standard error.
        freedom: Degrees of freedom of the standard error.
        size_limit: Largest effective sample size; infinite where nothing limits it.
        deviations: What each group adds to a method's own value; 0 for groups that it has no images of.
        groups: Their keys, each once.
        measured: Whether the two methods have scores of the same images and draws, so that deviations count.
    """

    value: Float64[np.ndarray, " pairs"]
    error: Float64[np.ndarray, " pairs"]
    freedom: Float64[np.ndarray, " pairs"]
    size_limit: Float64[np.ndarray, " pairs"]
    deviations: Float64[np.ndarray, "methods groups"]
    groups: Int64[np.ndarray, " groups"]
    measured: Bool[np.ndarray, " pairs"]

    def with_part(self, part: "PairTable", methods: Sequence[int]) -> "PairTable":
        """The same, but for the pairs of some methods.

        Args:
            part: Of those methods; no other part has one of them.
            methods: Their numbers here, ascending.
        """
        count = len(self.deviations)
        chosen = np.array(methods, np.int64)
        first, second = (chosen[numbers] for numbers in np.triu_indices(len(methods), 1))
        position = first * count - first * (first + 1) // 2 + second - first - 1
        values = {}
        for name in ("value", "error", "freedom", "size_limit", "measured"):
            values[name] = getattr(self, name).copy()
            values[name][position] = getattr(part, name)
        groups = np.union1d(self.groups, part.groups)
        deviations = np.zeros((count, len(groups)))
        deviations[:, np.searchsorted(groups, self.groups)] = self.deviations
        deviations[np.ix_(chosen, np.searchsorted(groups, part.groups))] = part.deviations
        return PairTable(**values, deviations=deviations, groups=groups)


def pairs_by_delong(
    placed: Float64[np.ndarray, "methods draws n"], anomalous: Bool[np.ndarray, " n"], groups: Int64[np.ndarray, " n"]
) -> PairTable:
    """What `delong` says of the difference of every two methods.

    Args:
        placed: `delong.placements` of each method, on the same draws and images.
        anomalous: Label of an image.
        groups: Key of an image's group.

    Raises:
        MetricError: If a class has fewer than two groups.
    """
    methods, draws, images = placed.shape
    keys, group = np.unique(groups, return_inverse=True)
    sizes = [GroupSizes.of(np.bincount(group[kind], minlength=len(keys))) for kind in (anomalous, ~anomalous)]
    several, many = (of_class.count for of_class in sizes)
    if min(several, many) < 2:
        raise MetricError(f"{several} groups hold anomalous and {many} normal images; a variance needs two of each.")
    deviations = deviations_of(placed.reshape(-1, images), anomalous, group, sizes).reshape(methods, draws, -1)
    by_draw = placed[:, :, anomalous].mean(axis=2)
    of_groups = _distances(deviations.mean(axis=1))
    total, freedom = of_groups, np.full(len(of_groups), float(freedom_of(sizes)))
    if draws > 1:
        alone = _distances(deviations.reshape(methods, -1)) / draws
        of_cells = np.maximum(alone - of_groups, 0.0) / (draws - 1)
        spread = _distances(by_draw - by_draw.mean(axis=1, keepdims=True)) / (draws - 1)
        of_draws = np.maximum(spread / draws - of_cells, 0.0)
        total = of_groups + of_draws
        parts = of_groups**2 / freedom + of_draws**2 / (draws - 1)
        np.divide(total**2, parts, out=freedom, where=of_draws > 0)
    limit = np.full(len(total), size_limit(min(several, many), smooth=True))
    of_pairs = np.ones(len(total), bool)
    return PairTable(
        _differences(by_draw.mean(axis=1)), np.sqrt(total), freedom, limit, deviations.mean(axis=1), keys, of_pairs
    )


def independent_pairs(
    values: Float64[np.ndarray, " methods"],
    errors: Float64[np.ndarray, " methods"],
    effective: Float64[np.ndarray, " methods"],
    counted: Float64[np.ndarray, " methods"],
) -> PairTable:
    """Every two methods as if their errors were independent, which tells fewer apart.

    Args:
        values: Of each method.
        errors: Standard errors.
        effective: Effective number of groups of the scarcer class; infinite where it isn't known.
        counted: Number of groups, for where it isn't known of either.
    """
    first, second = np.triu_indices(len(values), 1)
    scarcer = np.minimum(effective[first], effective[second])
    number = np.where(np.isinf(scarcer), np.minimum(counted[first], counted[second]), scarcer)
    pairs = len(first)
    return PairTable(
        _differences(values),
        np.hypot(errors[first], errors[second]),
        np.maximum(number - 1, 1.0),
        np.full(pairs, np.inf),
        np.zeros((len(values), 0)),
        np.zeros(0, np.int64),
        np.zeros(pairs, bool),
    )


def mean_of_pairs(tables: Sequence[PairTable], families: Sequence[str]) -> PairTable:
    """Mean of the targets' differences, for these targets; see `paired.mean_over_targets`.

    Args:
        tables: One per target, of the same methods.
        families: What a target has in common with those that it shares images or patients with.
    """
    if len(tables) == 1:
        return tables[0]
    total = np.zeros(len(tables[0].value))
    parts = np.zeros_like(total)
    for family in dict.fromkeys(families):
        members = [table for table, of in zip(tables, families, strict=True) if of == family]
        variance = np.sum([table.error**2 for table in members], axis=0)
        for first, second in itertools.combinations(members, 2):
            variance = variance + 2 * _covariances(first, second)
        variance = np.maximum(variance, 0.0)
        total += variance
        parts += variance**2 / np.min([table.freedom for table in members], axis=0)
    freedom = np.divide(total**2, parts, out=np.ones_like(total), where=parts > 0)
    return PairTable(
        np.mean([table.value for table in tables], axis=0),
        np.sqrt(total) / len(tables),
        freedom,
        np.sum([table.size_limit for table in tables], axis=0),
        np.zeros((len(tables[0].deviations), 0)),
        np.zeros(0, np.int64),
        np.zeros(len(total), bool),
    )


def p_values(table: PairTable, metric: Metric) -> Float64[np.ndarray, " pairs"]:
    """Two-sided p value of no difference, of each pair by itself; see `paired.difference_of`."""
    from scipy.special import stdtr

    reach = metric.high - metric.low
    share, error = table.value / reach, table.error / reach
    size = effective_size(share, error, table.size_limit)
    score = np.abs(share) * np.sqrt(np.where(share == 0, 0.0, size))  # no difference of no error is 0, and not ∞ · 0
    return np.asarray(2 * stdtr(table.freedom, -score), np.float64)


def _distances(vectors: Float64[np.ndarray, "methods dims"]) -> Float64[np.ndarray, " pairs"]:
    """Sum of squares of the difference of every two."""
    from scipy.spatial.distance import pdist

    return np.asarray(pdist(vectors, "sqeuclidean"), np.float64)


def _differences(values: Float64[np.ndarray, " methods"]) -> Float64[np.ndarray, " pairs"]:
    first, second = np.triu_indices(len(values), 1)
    return values[first] - values[second]


def _covariances(table: PairTable, other: PairTable) -> Float64[np.ndarray, " pairs"]:
    """Of the differences on two targets, by the groups that both have; 0 for pairs that aren't measured on both."""
    _, here, there = np.intersect1d(table.groups, other.groups, assume_unique=True, return_indices=True)
    products = table.deviations[:, here] @ other.deviations[:, there].T
    first, second = np.triu_indices(len(products), 1)
    own = products.diagonal()
    between = own[first] + own[second] - products[first, second] - products[second, first]
    return np.where(table.measured & other.measured, between, 0.0)
