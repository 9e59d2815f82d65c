"""Which methods of a board can't be told apart: letters from all paired differences of their mean metric.

Two methods' AUROCs are compared on the same draws and images where both runs' scores are at hand (DeLong over groups,
fast enough for a board). Otherwise, and for every other metric, their intervals are compared as if they were
independent, which tells fewer apart. Differences are averaged over the targets, for these targets; targets that share
patients aren't independent, and their covariance counts. P values are adjusted by Holm's steps.
"""

import dataclasses
import itertools
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np

from medfsad_bench.board.pairing import paired_with
from medfsad_bench.errors import MetricError, ResultsError
from medfsad_bench.estimates.image import ScoreMatrix, score_matrix
from medfsad_bench.manifest import OWN
from medfsad_bench.metrics.delong import Measurement, delong, placements
from medfsad_bench.metrics.metric import IMAGE_AUROC, RANKING, Metric
from medfsad_bench.metrics.paired import Difference, difference_of, holm, letters, mean_over_targets
from medfsad_bench.results.protocol_checks import partners_of
from medfsad_bench.results.row import Row
from medfsad_bench.results.run_folder import read_scores

ALPHA = 0.05
Evidence = Mapping[str, Path]  # run id → file of scores, see `results.run_folder.scores_by_run`
_NORMAL_95 = 3.92  # width of a 95 % interval in standard errors


def letters_of(lines: Sequence[Mapping[str, Row]], evidence: Evidence, metric: Metric = RANKING) -> list[str]:
    """Letters of methods, best first; two that share one can't be told apart at 5 %.

    Args:
        lines: Rows of each method by target; all methods have the same targets.
        evidence: Scores of as many of the rows as there are.
        metric: What the methods are compared by.
    """
    names = [str(number) for number in range(len(lines))]
    pairs = list(itertools.combinations(range(len(lines)), 2))
    p_values = holm([_p_value(lines[first], lines[second], evidence, metric) for first, second in pairs])
    apart = {(names[first], names[second]): p < ALPHA for (first, second), p in zip(pairs, p_values, strict=True)}
    by_name = letters(names, apart)
    return [by_name[name] for name in names]


def differences_of(
    first: Mapping[str, Row], second: Mapping[str, Row], evidence: Evidence, metric: Metric = RANKING
) -> tuple[Difference, list[Difference]]:
    """Difference of two methods' means over the same targets, for these targets, and that on each target.

    Args:
        first: Rows of one method by target.
        second: Rows of the other.
        evidence: Scores of as many of the rows as there are.
        metric: What the methods are compared by.
    """
    differences = [
        difference_of(_difference(first[target], second[target], evidence, metric), metric=metric) for target in first
    ]
    return _mean(differences, first, metric), differences


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
    partners = () if row.benchmark == OWN else partners_of(row.target)
    return f"{row.benchmark}: {min(row.target, *partners)}" if partners else f"{row.benchmark}: {row.target}"


def _p_value(first: Mapping[str, Row], second: Mapping[str, Row], evidence: Evidence, metric: Metric) -> float:
    """As `differences_of` has it, without the intervals of the targets: a board has thousands of them."""
    measured = [_difference(first[target], second[target], evidence, metric) for target in first]
    if len(measured) == 1:
        mean = difference_of(measured[0], metric=metric)
    else:
        parts = [Difference(part.value, None, None, None, part.error, part.freedom, measured=part) for part in measured]
        mean = _mean(parts, first, metric)
    return 1.0 if mean.p is None else mean.p


def _mean(differences: Sequence[Difference], rows: Mapping[str, Row], metric: Metric) -> Difference:
    families = [family_of(row) for row in rows.values()]
    return mean_over_targets(differences, families=families, metric=metric).these_targets


def _difference(first: Row, second: Row, evidence: Evidence, metric: Metric) -> Measurement:
    if metric is IMAGE_AUROC and first.run_id in evidence and second.run_id in evidence:
        try:
            placed = _placements(evidence[first.run_id])
            other = paired_with(placed, _placements(evidence[second.run_id]))
            return delong(placed.scores - other.scores, placed.anomalous, placed.groups)
        except (MetricError, ResultsError):
            pass  # scores that can't be paired leave the intervals, which tell less
    return _independent_difference(first, second, metric)


def _independent_difference(first: Row, second: Row, metric: Metric) -> Measurement:
    estimates = [row.metrics[metric.name] for row in (first, second)]
    errors = [(e.high - e.low) / _NORMAL_95 if e.low is not None and e.high is not None else 1.0 for e in estimates]
    effective = min((*first.effective_groups.values(), *second.effective_groups.values()), default=0.0)
    freedom = max((effective or min(first.n_groups, second.n_groups)) - 1, 1.0)
    return Measurement(estimates[0].value - estimates[1].value, float(np.hypot(errors[0], errors[1])), freedom)


@cache
def _placements(path: Path) -> ScoreMatrix:
    """Placements of a run's images in place of their scores."""
    matrix = score_matrix(read_scores(path))
    return dataclasses.replace(matrix, scores=placements(matrix.scores, matrix.anomalous))
