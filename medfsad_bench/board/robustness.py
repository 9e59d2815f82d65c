"""What an unnoticed anomaly among the supports does: contaminated minus clean, on the same queries and draws.

A contaminated run has fewer queries than a clean one, see `medfsad_bench.episodes.contamination`. The clean run is
taken at the contaminated one's queries, so its figure here isn't the one on its row.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medfsad_bench.errors import ResultsError
from medfsad_bench.estimates.estimate import REPLICATES, Estimate, mean_estimate
from medfsad_bench.estimates.image import scored
from medfsad_bench.metrics.interval import Replicates, interval_of, replicate
from medfsad_bench.metrics.paired import Difference, paired_difference, pool
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
        difference: Spoilt minus clean: below 0 where the anomaly does harm.
    """

    method: str
    target: str
    shots: int
    contaminated: int
    queries: int
    clean: Estimate
    spoilt: Estimate
    difference: Difference

    @property
    def case(self) -> str:
        """How much is contaminated, as `1 of 4`."""
        return f"{self.contaminated} of {self.shots}"


def measure(clean: Path, spoilt: Path) -> Point:
    """The harm that contaminated supports do, from two finished runs.

    Args:
        clean: Folder of the run with clean supports.
        spoilt: Folder of the same cell's run with contaminated ones.

    Raises:
        ResultsError: If they aren't two such runs, or the clean one lacks a query.
    """
    first, second = RunFolder(clean).row(), RunFolder(spoilt).row()
    _check(first, second)
    theirs, ours = RunFolder(spoilt).scores(), RunFolder(clean).scores()
    ours = ours[ours["index"].isin(theirs["index"].unique())]
    one, other = scored(ours), scored(theirs)
    if list(one.queries["id"]) != list(other.queries["id"]) or (one.anomalous != other.anomalous).any():
        raise ResultsError(f"{clean} doesn't hold scores of all queries of {spoilt}. Run both cells again.")
    tables = [
        replicate(found.matrix, found.anomalous, found.groups, replicates=REPLICATES, seed=first.seed)
        for found in (one, other)
    ]
    return Point(
        first.method,
        first.target,
        first.shots,
        second.contaminated_supports,
        len(other.anomalous),
        _figure(tables[0]),
        _figure(tables[1]),
        paired_difference(tables[1], tables[0]),
    )


def means(points: Sequence[Point]) -> list[Point]:
    """Per method and case the mean over targets, where all targets of the case are there; none for a single target.

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
            pool([point.difference for point in part]).here,
        )
        for (method, shots, contaminated), part in parts.items()
        if len(targets) > 1 and {point.target for point in part} == targets
    ]


def as_json(points: Sequence[Point]) -> list[dict[str, Any]]:
    """All points as JSON."""
    return [
        asdict(point) | {"clean": point.clean.model_dump(), "spoilt": point.spoilt.model_dump()} for point in points
    ]


def write_curves(points: Sequence[Point], path: Path) -> None:
    """Draw the differences over the share of contaminated supports: a panel a target, a line a method.

    Args:
        points: Of any methods, targets and cases, and `means` of them.
        path: PNG to write.
    """
    from matplotlib.figure import Figure as Canvas

    cases = sorted({(p.contaminated / p.shots, p.shots, p.case) for p in points})
    place = {case: number for number, (_, _, case) in enumerate(cases)}
    methods = list(dict.fromkeys(point.method for point in points))
    targets = sorted({point.target for point in points if point.target})
    targets += [""] if any(not point.target for point in points) else []
    columns = int(np.ceil(np.sqrt(len(targets))))
    lines = -(-len(targets) // columns)
    canvas = Canvas(figsize=(3.4 * columns + 0.6, 2.6 * lines + 0.9), layout="constrained")
    panels = canvas.subplots(lines, columns, squeeze=False, sharey=True).ravel()
    for panel, target in zip(panels, targets, strict=False):
        panel.set_title(target or f"mean of {len(targets) - 1} targets", fontsize=9)
        panel.axhline(0, color="0.6", linewidth=0.8)
        panel.set_xticks(range(len(cases)), [case for _, _, case in cases], fontsize=8)
        panel.set_xlim(-0.5, len(cases) - 0.5)
        panel.tick_params(axis="y", labelsize=8)
        panel.grid(axis="y", linewidth=0.3)
        for number, method in enumerate(methods):
            mine = sorted((p for p in points if (p.method, p.target) == (method, target)), key=lambda p: place[p.case])
            shift = 0.6 * ((number + 0.5) / len(methods) - 0.5)  # beside each other, so that intervals are seen
            places = [place[p.case] + shift for p in mine]
            colour, marker = f"C{number % 10}", "osD^v<>pPX"[number % 10]
            lows, highs = [p.difference.low for p in mine], [p.difference.high for p in mine]
            panel.vlines(places, lows, highs, color=colour, linewidth=0.8)
            values = [p.difference.value for p in mine]
            panel.plot(places, values, color=colour, marker=marker, markersize=4, linewidth=1, label=method)
    for panel in panels[len(targets) :]:
        panel.set_axis_off()
    canvas.supxlabel("supports that are anomalies nobody noticed", fontsize=9)
    canvas.supylabel("AUROC, contaminated − clean", fontsize=9)
    drawn = {name: line for panel in panels for line, name in zip(*panel.get_legend_handles_labels(), strict=True)}
    canvas.legend(
        drawn.values(), drawn.keys(), loc="outside upper center", ncols=min(len(methods), 2 * columns + 1), fontsize=8
    )
    temporary = path.with_name(f".{path.name}.tmp.png")
    path.parent.mkdir(parents=True, exist_ok=True)
    canvas.savefig(temporary, dpi=100)
    temporary.replace(path)


def _check(clean: Row, spoilt: Row) -> None:
    if clean.contaminated_supports or not spoilt.contaminated_supports:
        raise ResultsError(
            f"{clean.run_id} has {clean.contaminated_supports} contaminated supports and {spoilt.run_id} "
            f"{spoilt.contaminated_supports}; expected none in the first and some in the second."
        )
    for field in _SAME:
        if getattr(clean, field) != getattr(spoilt, field):
            raise ResultsError(
                f"{clean.run_id} and {spoilt.run_id} differ in {field.replace('_', ' ')}; what an anomaly among the "
                "supports does is seen between runs that differ in it alone."
            )


def _figure(table: Replicates) -> Estimate:
    interval = interval_of(table, area=True)
    return mean_estimate(table.measured, (interval.low, interval.high))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
