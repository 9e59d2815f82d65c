"""What an unnoticed anomaly among the supports does: contaminated minus clean, on the same queries and draws.

A contaminated run has fewer queries than a clean one, see `medfsad_bench.episodes.contamination`. The clean run is
taken at the contaminated one's queries, so its value here isn't the one on its row.
"""

from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from medfsad_bench.board.significance import Evidence, family_of
from medfsad_bench.errors import MetricError, ResultsError
from medfsad_bench.estimates.estimate import REPLICATES, Estimate, metric_estimate
from medfsad_bench.estimates.image import score_matrix
from medfsad_bench.files import whole
from medfsad_bench.metrics.interval import replicate
from medfsad_bench.metrics.metric import IMAGE_AUROC
from medfsad_bench.metrics.paired import Difference, mean_over_targets, paired_difference
from medfsad_bench.results.row import Row
from medfsad_bench.results.run_folder import RunFolder, read_scores

_TRAINING = "pretrain_s"  # no two trainings take the same time to the last bit, and who shares weights shares it
_SAME = (
    *("method", "method_version", "preset", "config", "weights_digest", "sources", _TRAINING),
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
    folders = RunFolder(clean), RunFolder(contaminated)
    row, other_row = (folder.row() for folder in folders)
    _check(row, other_row)
    return point_of(row, other_row, *(folder.scores() for folder in folders))


def point_of(row: Row, other_row: Row, scores: pd.DataFrame, other_scores: pd.DataFrame) -> Point:
    """The same from rows and scores, clean ones first.

    Raises:
        ResultsError: If the clean scores lack a query of the other ones.
    """
    matrix = score_matrix(scores[scores["index"].isin(other_scores["index"].unique())])
    other = score_matrix(other_scores)
    if list(matrix.queries["id"]) != list(other.queries["id"]) or (matrix.anomalous != other.anomalous).any():
        raise ResultsError(
            f"{row.run_id} doesn't hold scores of all queries of {other_row.run_id}. Expected both as `medfsad run` "
            "writes them; of a run that was changed, remove the folder and run its cell again."
        )
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


def clean_and_contaminated(rows: Sequence[Row]) -> list[tuple[Row, Row]]:
    """Each row of contaminated supports with the row that differs from it in these alone, where there is one."""
    clean = {_cell(row): row for row in rows if not row.contaminated_supports and row.protocol == "strict"}
    return [(clean[_cell(row)], row) for row in rows if row.contaminated_supports and _cell(row) in clean]


def points_of(rows: Sequence[Row], evidence: Evidence) -> list[Point]:
    """What an anomaly among the supports does, of every row whose scores are at hand and those of its clean one."""
    points = []
    for pair in clean_and_contaminated(rows):
        if any(row.run_id not in evidence for row in pair):
            continue
        with suppress(MetricError, ResultsError):  # too few groups, or scores of other queries: rows by themselves
            points.append(point_of(*pair, *(read_scores(evidence[row.run_id]) for row in pair)))
    return sorted(points, key=lambda point: (point.method, point.target, point.shots, point.contaminated))


def table_of_points(points: Sequence[Point]) -> tuple[Sequence[str], list[Sequence[str]]]:
    """Headings and cells of a table, a line per point."""
    cells: list[Sequence[str]] = [
        (
            *(point.method, point.target or "mean", point.case),
            *(f"{point.clean.value:.3f}", f"{point.spoilt.value:.3f}", point.difference.text),
        )
        for point in points
    ]
    return ("method", "target", "M of K", "clean", "with M", "difference [95 %]"), cells


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


def write_picture(points: Sequence[Point], path: Path) -> None:
    """Draw the differences with their intervals: a panel per target, a line per method, a mark per case.

    Methods are named on the axis and in the same order in every panel, from the least to the most harmed, so that any
    number of them can be told apart without colours.

    Args:
        points: Of any methods, targets and cases, and `means` of them.
        path: PNG to write.
    """
    from matplotlib.figure import Figure

    cases = [case for _, _, case in sorted({(p.contaminated / p.shots, p.shots, p.case) for p in points})]
    methods = _by_harm(points)
    targets = [""] if any(not point.target for point in points) else []
    targets += sorted({point.target for point in points if point.target})
    lines = -(-len(targets) // 4)
    columns = -(-len(targets) // lines)
    height = 0.16 * len(methods) * (1 + len(cases)) + 0.6
    figure = Figure(figsize=(2.4 * columns + 1.6, height * lines + 1.0), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True).ravel()
    for panel, target in zip(panels, targets, strict=False):
        panel.set_title(target or f"mean of {len(targets) - 1} targets", fontsize=9)
        _draw_panel(panel, [point for point in points if point.target == target], cases, methods)
    for panel in panels[len(targets) :]:
        panel.set_axis_off()
    figure.supxlabel("AUROC, contaminated − clean, 95 % interval;\nleft of 0 the anomaly does harm", fontsize=9)
    marks: dict[str, Any] = {}
    for panel in panels:
        panel.tick_params(labelbottom=True)
        handles, labels = panel.get_legend_handles_labels()
        marks |= dict(zip(labels, handles, strict=True))
    shown = [case for case in cases if case in marks]
    title = "supports that are anomalies nobody noticed"
    figure.legend(
        handles=[marks[case] for case in shown],
        labels=shown,
        title=title,
        loc="outside upper center",
        ncols=8,
        fontsize=8,
        title_fontsize=8,
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
            named = "their training" if field == _TRAINING else field.replace("_", " ")
            raise ResultsError(
                f"{clean.run_id} and {contaminated.run_id} differ in {named}; what an anomaly "
                "among the supports does is seen between runs that differ in it alone."
            )


def _cell(row: Row) -> str:
    return repr([getattr(row, field) for field in _SAME])


def _by_harm(points: Sequence[Point]) -> list[str]:
    """Methods from the least to the most harmed, on average over what is known of each."""
    by_method: dict[str, list[float]] = defaultdict(list)
    for point in points:
        by_method[point.method].append(point.difference.value)
    return sorted(by_method, key=lambda method: (-_mean(by_method[method]), method))


def _draw_panel(panel: Any, points: Sequence[Point], cases: Sequence[str], methods: Sequence[str]) -> None:
    panel.axvline(0, color="0.5", linewidth=0.8)
    panel.set_yticks(range(len(methods)), methods, fontsize=8)
    panel.set_ylim(len(methods) - 0.5, -0.5)
    panel.tick_params(axis="x", labelsize=8)
    panel.tick_params(axis="y", length=0)
    for number in range(0, len(methods), 2):
        panel.axhspan(number - 0.5, number + 0.5, color="0.95", zorder=0)
    for number, case in enumerate(cases):
        of_case = [point for point in points if point.case == case]
        shift = 0.7 * ((number + 0.5) / len(cases) - 0.5)
        y = [methods.index(point.method) + shift for point in of_case]
        colour, marker = f"C{number % 10}", "osD^v<>pPX"[number % 10]
        with_interval = [(height, point.difference) for height, point in zip(y, of_case, strict=True)]
        ends = [(height, d.low, d.high) for height, d in with_interval if d.low is not None]
        if ends:
            panel.hlines(*zip(*ends, strict=True), color=colour, linewidth=1.2)
        if of_case:
            values = [point.difference.value for point in of_case]
            panel.plot(values, y, marker, color=colour, markersize=4, label=case)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
