"""What an unnoticed anomaly among the supports does: contaminated minus clean, on the same queries and draws.

A contaminated run has fewer queries than a clean one, see `medfsad_bench.episodes.contamination`. The clean run is
taken at the contaminated one's queries, so its value here isn't the one on its row.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medfsad_bench.board.significance import family_of
from medfsad_bench.errors import ResultsError
from medfsad_bench.estimates.estimate import REPLICATES, Estimate, metric_estimate
from medfsad_bench.estimates.image import score_matrix
from medfsad_bench.files import whole
from medfsad_bench.metrics.interval import replicate
from medfsad_bench.metrics.metric import IMAGE_AUROC
from medfsad_bench.metrics.paired import Difference, mean_over_targets, paired_difference
from medfsad_bench.results.row import Row
from medfsad_bench.results.run_folder import RunFolder

_SAME = (
    *("method", "method_version", "preset", "config", "weights_digest", "sources"),
    *("target", "membership_digest", "content_digest", "hold_out", "shots", "draws", "seed"),
)


@dataclass(frozen=True, slots=True)
class Point:
    """One method on one target with M of K supports contaminated.

    Attributes:
        method: Its name.
        target: The target's name; empty for the mean over targets.
        shots: K.
        contaminated: M.
        queries: How many test images both runs are taken at.
        clean: AUROC of clean supports on these queries.
        spoilt: AUROC of contaminated supports.
        difference: Contaminated minus clean: below 0 where the anomaly does harm.
        family: Of the target, see `board.significance.family_of`.
    """

    method: str
    target: str
    shots: int
    contaminated: int
    queries: int
    clean: Estimate
    spoilt: Estimate
    difference: Difference
    family: str = ""

    @property
    def case(self) -> str:
        """How much is contaminated, as `1 of 4`."""
        return f"{self.contaminated} of {self.shots}"


def measure(clean: Path, contaminated: Path) -> Point:
    """The harm that contaminated supports do, from two finished runs.

    Args:
        clean: Folder of the run with clean supports.
        contaminated: Folder of the same cell's run with contaminated ones.

    Raises:
        ResultsError: If they aren't two such runs, or the clean one lacks a query.
    """
    row, other_row = RunFolder(clean).row(), RunFolder(contaminated).row()
    _check(row, other_row)
    other_scores, scores = RunFolder(contaminated).scores(), RunFolder(clean).scores()
    matrix = score_matrix(scores[scores["index"].isin(other_scores["index"].unique())])
    other = score_matrix(other_scores)
    if list(matrix.queries["id"]) != list(other.queries["id"]) or (matrix.anomalous != other.anomalous).any():
        raise ResultsError(f"{clean} doesn't hold scores of all queries of {contaminated}. Run both cells again.")
    before, after = (
        replicate(part.scores, part.anomalous, part.groups, replicates=REPLICATES)  # one seed, as families need it
        for part in (matrix, other)
    )
    return Point(
        row.method,
        row.target,
        row.shots,
        other_row.contaminated_supports,
        len(other.anomalous),
        metric_estimate(IMAGE_AUROC, before),
        metric_estimate(IMAGE_AUROC, after),
        paired_difference(after, before),
        family_of(row),
    )


def means(points: Sequence[Point]) -> list[Point]:
    """The mean over targets of every method and case that has all targets; none for a single target.

    Its interval is for these targets: what other images and draws of them would do.
    """
    parts: dict[tuple[str, int, int], list[Point]] = defaultdict(list)
    for point in points:
        parts[point.method, point.shots, point.contaminated].append(point)
    targets = {point.target for point in points}
    return [
        Point(
            method,
            "",
            shots,
            contaminated,
            sum(point.queries for point in part),
            Estimate(value=_mean([point.clean.value for point in part])),
            Estimate(value=_mean([point.spoilt.value for point in part])),
            mean_over_targets(
                [point.difference for point in part], families=[point.family for point in part]
            ).these_targets,
        )
        for (method, shots, contaminated), part in parts.items()
        if len(targets) > 1 and {point.target for point in part} == targets
    ]


def as_json(points: Sequence[Point]) -> list[dict[str, Any]]:
    """All points as JSON."""
    return [
        {name: getattr(point, name) for name in ("method", "target", "shots", "contaminated", "queries")}
        | {"clean": point.clean.model_dump(), "spoilt": point.spoilt.model_dump()}
        | {"difference": point.difference.figures()}
        for point in points
    ]


def write_curves(points: Sequence[Point], path: Path) -> None:
    """Draw the differences over the share of contaminated supports: a panel per target, a line per method.

    Args:
        points: Of any methods, targets and cases, and `means` of them.
        path: PNG to write.
    """
    from matplotlib.figure import Figure

    cases = [case for _, _, case in sorted({(p.contaminated / p.shots, p.shots, p.case) for p in points})]
    methods = list(dict.fromkeys(point.method for point in points))
    targets = sorted({point.target for point in points if point.target})
    targets += [""] if any(not point.target for point in points) else []
    columns = int(np.ceil(np.sqrt(len(targets))))
    lines = -(-len(targets) // columns)
    figure = Figure(figsize=(3.4 * columns + 0.6, 2.6 * lines + 0.9), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False, sharey=True).ravel()
    for panel, target in zip(panels, targets, strict=False):
        panel.set_title(target or f"mean of {len(targets) - 1} targets", fontsize=9)
        _draw_panel(panel, [point for point in points if point.target == target], cases, methods)
    for panel in panels[len(targets) :]:
        panel.set_axis_off()
    figure.supxlabel("supports that are anomalies nobody noticed", fontsize=9)
    figure.supylabel("AUROC, contaminated − clean", fontsize=9)
    drawn = {name: line for panel in panels for line, name in zip(*panel.get_legend_handles_labels(), strict=True)}
    figure.legend(
        drawn.values(), drawn.keys(), loc="outside upper center", ncols=min(len(methods), 2 * columns + 1), fontsize=8
    )
    with whole(path) as temporary:
        figure.savefig(temporary, dpi=100)


def _check(clean: Row, contaminated: Row) -> None:
    if clean.contaminated_supports or not contaminated.contaminated_supports:
        raise ResultsError(
            f"{clean.run_id} has {clean.contaminated_supports} contaminated supports and {contaminated.run_id} "
            f"{contaminated.contaminated_supports}; expected none in the first and some in the second."
        )
    for field in _SAME:
        if getattr(clean, field) != getattr(contaminated, field):
            raise ResultsError(
                f"{clean.run_id} and {contaminated.run_id} differ in {field.replace('_', ' ')}; what an anomaly "
                "among the supports does is seen between runs that differ in it alone."
            )


def _draw_panel(panel: Any, points: Sequence[Point], cases: Sequence[str], methods: Sequence[str]) -> None:
    panel.axhline(0, color="0.6", linewidth=0.8)
    panel.set_xticks(range(len(cases)), cases, fontsize=8)
    panel.set_xlim(-0.5, len(cases) - 0.5)
    panel.tick_params(axis="y", labelsize=8)
    panel.grid(axis="y", linewidth=0.3)
    for number, method in enumerate(methods):
        line = sorted((p for p in points if p.method == method), key=lambda p: cases.index(p.case))
        shift = 0.6 * ((number + 0.5) / len(methods) - 0.5)  # beside each other, so that intervals are seen
        x = [cases.index(p.case) + shift for p in line]
        colour, marker = f"C{number % 10}", "osD^v<>pPX"[number % 10]
        lows, highs = [p.difference.low for p in line], [p.difference.high for p in line]
        panel.vlines(x, lows, highs, color=colour, linewidth=0.8)
        values = [p.difference.value for p in line]
        panel.plot(x, values, color=colour, marker=marker, markersize=4, linewidth=1, label=method)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
