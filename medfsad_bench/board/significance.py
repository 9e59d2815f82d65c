"""Which methods of a board can't be told apart: letters from all paired differences of their mean AUROC.

Two methods' AUROCs are compared on the same draws and images where both runs' scores are at hand (DeLong over groups,
fast enough for a board), else by their intervals, as if they were independent, which tells fewer apart. Differences
are meant over the targets, for these targets; p values are adjusted by Holm's steps.
"""

import itertools
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64, Int64

from medfsad_bench.errors import MetricError, ResultsError
from medfsad_bench.estimates.image import scored
from medfsad_bench.metrics.delong import ValueWithError, delong, placements
from medfsad_bench.metrics.paired import difference_of, holm, letters, pool
from medfsad_bench.results.row import Row
from medfsad_bench.results.run_folder import read_scores

ALPHA = 0.05
Evidence = Mapping[str, Path]  # run id → scores, see `results.run_folder.scores_by_run`


def letters_of(lines: Sequence[Mapping[str, Row]], evidence: Evidence) -> list[str]:
    """Letters of methods, best first; two that share one can't be told apart at 5 %.

    Args:
        lines: Per method its rows by target; all methods have the same targets.
        evidence: Scores of as many of the rows as there are.
    """
    names = [str(number) for number in range(len(lines))]
    pairs = list(itertools.combinations(range(len(lines)), 2))
    p_values = holm([_p_value(lines[one], lines[other], evidence) for one, other in pairs])
    apart = {(names[one], names[other]): p < ALPHA for (one, other), p in zip(pairs, p_values, strict=True)}
    found = letters(names, apart)
    return [found[name] for name in names]


def _p_value(first: Mapping[str, Row], second: Mapping[str, Row], evidence: Evidence) -> float:
    return pool([difference_of(_difference(first[target], second[target], evidence)) for target in first]).here.p


def _difference(one: Row, other: Row, evidence: Evidence) -> ValueWithError:
    if one.run_id in evidence and other.run_id in evidence:
        try:
            (placed, anomalous, groups), (its, labels, _) = (_placed(evidence[row.run_id]) for row in (one, other))
            if placed.shape == its.shape and (anomalous == labels).all():
                return delong(placed - its, anomalous, groups)
        except (MetricError, ResultsError):
            pass  # scores that can't be paired leave the intervals, which tell less
    figures = [row.metrics["image_auroc"] for row in (one, other)]
    errors = [(f.high - f.low) / 3.92 if f.low is not None and f.high is not None else 1.0 for f in figures]
    freedom = float(min(one.n_groups, other.n_groups) - 1) or 1.0
    return ValueWithError(figures[0].value - figures[1].value, float(np.hypot(errors[0], errors[1])), freedom)


@cache
def _placed(path: Path) -> tuple[Float64[np.ndarray, "draws n"], Bool[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
    found = scored(read_scores(path))
    return placements(found.matrix, found.anomalous), found.anomalous, found.groups
