"""Which methods of a board can't be told apart: letters from all paired differences of their mean metric.

Two methods' AUROCs are compared on the same draws and images where both runs' scores are at hand (DeLong over groups,
fast enough for a board). Otherwise, and for every other metric, their intervals are compared as if they were
independent, which tells fewer apart. Differences are averaged over the targets, for these targets; targets that share
patients aren't independent, and their covariance counts. P values are adjusted by Holm's steps.
"""

import hashlib
import itertools
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64, Int64

from medfsad_bench.errors import MetricError, ResultsError
from medfsad_bench.estimates.image import score_matrix
from medfsad_bench.manifest import OWN
from medfsad_bench.metrics.delong import Measurement, placements
from medfsad_bench.metrics.metric import IMAGE_AUROC, RANKING, Metric
from medfsad_bench.metrics.paired import Difference, difference_of, holm, letters
from medfsad_bench.metrics.pairs import (
    PairTable,
    independent_pairs,
    mean_of_pairs,
    p_values,
    pairs_by_delong,
)
from medfsad_bench.results.protocol_checks import partners_of
from medfsad_bench.results.row import Row
from medfsad_bench.results.run_folder import read_scores

ALPHA = 0.05
Evidence = Mapping[str, Path]  # run id → file of scores, see `results.run_folder.scores_by_run`
_NORMAL_95 = 3.92  # width of a 95 % interval in standard errors


@dataclass(frozen=True, slots=True)
class Pairs:
    """All pairs of a track's methods, in the order of `itertools.combinations`: first minus second.

    Attributes:
        mean: Of the differences over the targets, for these targets.
        mean_p: Its p value, adjusted for all pairs by Holm's steps.
        by_target: Those on each target.
        metric: What they are differences of.
    """

    mean: PairTable
    mean_p: Float64[np.ndarray, " pairs"]
    by_target: tuple[PairTable, ...]
    metric: Metric

    def mean_of(self, pair: int) -> Difference:
        """The mean difference of one pair, with its interval."""
        figures = (self.mean.value, self.mean.error, self.mean.freedom, self.mean.size_limit)
        value, error, freedom, limit = (float(of_pairs[pair]) for of_pairs in figures)
        return difference_of(Measurement(value, error, freedom, limit), metric=self.metric)

    def wins(self) -> tuple[Int64[np.ndarray, " pairs"], Int64[np.ndarray, " pairs"]]:
        """On how many targets the first is surely better (5 %, each target by itself), and on how many surely worse."""
        sure = [np.sign(of.value) * (p_values(of, self.metric) < ALPHA) for of in self.by_target]
        signs = np.stack(sure) if self.metric.higher_is_better else -np.stack(sure)
        return (signs > 0).sum(axis=0), (signs < 0).sum(axis=0)


def pairs_of(lines: Sequence[Mapping[str, Row]], evidence: Evidence, metric: Metric = RANKING) -> Pairs:
    """Every two methods compared.

    Args:
        lines: Rows of each method by target; all methods have the same targets.
        evidence: Scores of as many of the rows as there are.
        metric: What the methods are compared by.
    """
    targets = list(lines[0])
    tables = [_pairs_on([line[target] for line in lines], evidence, metric) for target in targets]
    mean = mean_of_pairs(tables, [family_of(lines[0][target]) for target in targets])
    return Pairs(mean, np.array(holm(p_values(mean, metric).tolist())), tuple(tables), metric)


def letters_of(lines: Sequence[Mapping[str, Row]], evidence: Evidence, metric: Metric = RANKING) -> list[str]:
    """Letters of methods, best first; two that share one can't be told apart at 5 %.

    Args:
        lines: Rows of each method by target; all methods have the same targets.
        evidence: Scores of as many of the rows as there are.
        metric: What the methods are compared by.
    """
    names = [str(number) for number in range(len(lines))]
    apart = pairs_of(lines, evidence, metric).mean_p < ALPHA
    by_name = letters(names, dict(zip(itertools.combinations(names, 2), apart.tolist(), strict=True)))
    return [by_name[name] for name in names]


def mean_interval(rows: Sequence[Row], metric: Metric = RANKING) -> tuple[float, float] | None:
    """95 % interval of a method's mean over targets: what other images and draws of these targets would give.

    Each side of the targets' intervals is joined as independent errors are. Those of targets that share patients are
    added up as if they always went the same way, which makes the interval wider rather than too narrow.

    Source: Zou and Donner, Statistics in Medicine 27 (2008), the method of variance estimates recovery.

    Args:
        rows: Of one method, one per target.
        metric: What is averaged.

    Returns:
        Lower and upper end, within the metric's bounds; None where a target has no interval.
    """
    below: dict[str, float] = defaultdict(float)
    above: dict[str, float] = defaultdict(float)
    for row in rows:
        estimate = row.metrics[metric.name]
        if estimate.low is None or estimate.high is None:
            return None
        below[family_of(row)] += estimate.value - estimate.low
        above[family_of(row)] += estimate.high - estimate.value
    mean = sum(row.metrics[metric.name].value for row in rows) / len(rows)
    return mean - math.hypot(*below.values()) / len(rows), mean + math.hypot(*above.values()) / len(rows)


def family_of(row: Row) -> str:
    """The first by name of the row's target and the sets that share images or patients with it, by the manifests."""
    return _family(row.benchmark, row.target)


@cache
def _family(benchmark: str, target: str) -> str:
    partners = () if benchmark == OWN else partners_of(target)
    return f"{benchmark}: {min(target, *partners)}" if partners else f"{benchmark}: {target}"


def _pairs_on(rows: Sequence[Row], evidence: Evidence, metric: Metric) -> PairTable:
    """Every two methods on one target: paired where their scores are of the same draws and images."""
    table = _by_intervals(rows, metric)
    placed = {
        number: _placed(evidence[row.run_id])
        for number, row in enumerate(rows)
        if metric is IMAGE_AUROC and row.run_id in evidence
    }
    alike: dict[str, dict[int, _Placed]] = defaultdict(dict)
    for number, of_run in placed.items():
        if of_run is not None:
            alike[of_run.images][number] = of_run
    for numbered in alike.values():
        some = next(iter(numbered.values()))
        with suppress(MetricError):  # too few groups to pair them leave the intervals, which tell less
            part = pairs_by_delong(np.stack([each.scores for each in numbered.values()]), some.anomalous, some.groups)
            table = table.with_part(part, list(numbered))
    return table


def _by_intervals(rows: Sequence[Row], metric: Metric) -> PairTable:
    estimates = [row.metrics[metric.name] for row in rows]
    errors = [(e.high - e.low) / _NORMAL_95 if e.low is not None and e.high is not None else 1.0 for e in estimates]
    effective = [min(row.effective_groups.values(), default=0.0) or np.inf for row in rows]
    values = [estimate.value for estimate in estimates]
    columns = (np.array(column, np.float64) for column in (values, errors, effective, [row.n_groups for row in rows]))
    return independent_pairs(*columns)


@dataclass(frozen=True, slots=True)
class _Placed:
    """Placements of a run's images, by the images' ids.

    Attributes:
        images: Digest of all that two runs must share to be paired: ids, labels, groups and the number of draws.
        scores: Placements.
        anomalous: Label of an image.
        groups: Key of its group.
    """

    images: str
    scores: Float64[np.ndarray, "draws n"]
    anomalous: Bool[np.ndarray, " n"]
    groups: Int64[np.ndarray, " n"]


@cache
def _placed(path: Path) -> _Placed | None:
    """None where the scores can't be paired with anything: damaged, or an id stands twice."""
    try:
        matrix = score_matrix(read_scores(path))
        scores = placements(matrix.scores, matrix.anomalous)
    except (MetricError, ResultsError):
        return None
    ids = matrix.queries["id"].astype(str).to_numpy()
    order = np.argsort(ids, kind="stable")
    if len(set(ids)) != len(ids):
        return None
    anomalous, groups = matrix.anomalous[order], matrix.groups[order]
    digest = hashlib.sha256("\0".join(ids[order]).encode("utf-8", "surrogateescape"))
    for part in (anomalous, groups, np.array(scores.shape)):
        digest.update(part.tobytes())
    return _Placed(digest.hexdigest(), scores[:, order], anomalous, groups)
