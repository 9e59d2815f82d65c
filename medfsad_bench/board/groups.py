"""Which rows may be ranked against each other, and their order. Pure.

Rows are ranked only against rows of the same benchmark, image size, hold-out, K, knowledge and number of contaminated
supports, and rows whose settings were chosen on other sets only against each other. A target is its members, not its
name: where rows of one name are of several memberships (two folders called `images`), those of the membership that most
rows have stand in the main group, and each other in a group of its own.
Each of a user's own sets is a group of its own: it has nothing to do with the next one. Rows of the `published`
protocol, of a method that has seen the target, or of an older version of the target are shown and never ranked, and
their targets are asked of nobody else. The mean over targets takes those that have the metric and whose test has at
least 15 effective groups of each class; where there is no such target, all of them. A method that lacks one of them has
no mean and no rank, and takes none from the others.
"""

import json
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from medfsad_bench.board.significance import Evidence, letters_of, mean_interval
from medfsad_bench.estimates.estimate import Estimate
from medfsad_bench.manifest import OWN, is_current
from medfsad_bench.metrics.metric import RANKING, Metric
from medfsad_bench.results.row import Row

_Key = tuple[str, int, int, str, str, int, bool]  # benchmark, K, px, hold-out, knowledge, contaminated supports, tuned
_SORTED = json.JSONEncoder(sort_keys=True)  # made once: every row is keyed for every metric


@dataclass(frozen=True, slots=True)
class Line:
    """One method (with its preset) in one group.

    Attributes:
        method: Its name.
        preset: Of its config.
        rows: By target.
        mean: Of the group's metric over its targets in the mean; None unless all of these are there.
        interval: 95 % interval of the mean, for these targets; None where there is no mean, or no interval of a target.
        lacks: Targets of the mean for which it has no figure.
        rank: From 1; None for what isn't ranked.
        note: Why it isn't, or what else has to be said.
        letters: Ranked lines that share one can't be told apart.
        seeds_sd: Standard deviation of the mean over lines that differ in the training seed alone.
        reproduced: Whether a maintainer has re-run all of its rows.
    """

    method: str
    preset: str
    rows: Mapping[str, Row]
    mean: float | None
    rank: int | None
    note: str
    letters: str = ""
    interval: tuple[float, float] | None = None
    lacks: tuple[str, ...] = ()
    seeds_sd: float | None = None
    reproduced: bool = False

    @property
    def estimate(self) -> Estimate | None:
        """The mean with its interval; None where there is no mean."""
        low, high = self.interval or (None, None)
        return None if self.mean is None else Estimate(value=self.mean, low=low, high=high)

    def cost(self, name: str) -> float | None:
        """Median over its rows of what they say of their cost, as `score_ms_per_image`; None where none tells."""
        told = [value for row in self.rows.values() if (value := getattr(row, name)) is not None]
        return statistics.median(told) if told else None


@dataclass(frozen=True, slots=True)
class Group:
    """Lines that may be compared with each other, by one metric.

    Attributes:
        benchmark: With faults of the targets that were let through.
        shots: K.
        size_px: Edge of the prepared images.
        hold_out: By what sources are held out.
        knowledge: What the methods know beyond normal supports.
        contaminated_supports: Of the K.
        tuned: Whether settings were chosen on other sets, target by target; else they are everywhere the same.
        edition: 0 for the memberships that most rows are of, 1 for those of the next, …
        metric: What ranks.
        targets: All for which some line has the metric.
        small: Those of them with too few groups.
        in_mean: Those of them that the mean is over.
        lines: Ranked ones first.
    """

    benchmark: str
    shots: int
    size_px: int
    hold_out: str
    knowledge: str
    contaminated_supports: int
    tuned: bool
    edition: int
    metric: Metric
    targets: tuple[str, ...]
    small: tuple[str, ...]
    in_mean: tuple[str, ...]
    lines: tuple[Line, ...]

    @property
    def title(self) -> str:
        """Heading; it names the track."""
        own = f": {self.targets[0]}" if self.benchmark.partition(" ")[0] == OWN else ""
        contaminated = f", of them {self.contaminated_supports} contaminated" if self.contaminated_supports else ""
        held_out = "" if self.hold_out == "dataset" else f", held out by {self.hold_out}"
        knows = "" if self.knowledge == "normals" else f", knows {self.knowledge}"
        tuned = ", settings chosen on other sets" if self.tuned else ""
        other = f", other images of the same names ({self.edition})" if self.edition else ""
        return (
            f"{self.benchmark}{own}, {self.shots} shots{contaminated}, {self.size_px} px{held_out}{knows}{tuned}{other}"
        )


def groups(
    rows: Iterable[Row],
    evidence: Evidence | None = None,
    *,
    metric: Metric = RANKING,
    reproduced: Collection[str] = (),
    versions: Mapping[str, str] | None = None,
) -> list[Group]:
    """Rows in groups that may be compared, each with its lines ranked by the mean of a metric over the targets.

    Args:
        rows: Rows of any methods, targets and K.
        evidence: Scores by run id, see `medfsad_bench.board.significance`: with them methods are told apart in pairs.
        metric: What ranks.
        reproduced: Run ids of rows that a maintainer has re-run.
        versions: Of the sets, that rank; by default those of this release. A board of the past names its own.
    """
    current = partial(_is_current, versions=versions or {})
    parts: dict[tuple[_Key, str], list[Row]] = defaultdict(list)
    for row in rows:
        marks = "".join(f" ({fault})" for fault in row.allowed if row.benchmark != "demo")
        key = (
            *(row.benchmark + marks, row.shots, row.size_px, row.hold_out),
            *(row.knowledge, row.contaminated_supports, bool(row.settings_chosen_on)),
        )
        if metric.name in row.metrics:
            parts[key, row.target if row.benchmark == OWN else ""].append(row)
    return [
        _marked(_group((*key, number), edition, evidence or {}, metric, current), reproduced)
        for key, target in sorted(parts)
        for number, edition in enumerate(_editions(parts[key, target], current))
    ]


def _marked(group: Group, reproduced: Collection[str]) -> Group:
    lines = (
        replace(line, reproduced=all(row.run_id in reproduced for row in line.rows.values())) for line in group.lines
    )
    return replace(group, lines=tuple(lines))


def _editions(rows: Sequence[Row], current: Callable[[Row], bool]) -> list[list[Row]]:
    """Rows by membership: no list holds two of one target. The release's version comes first, then the commonest."""
    memberships: dict[str, Counter[tuple[bool, str]]] = defaultdict(Counter)
    for row in rows:
        memberships[row.target][not current(row), row.membership_digest] += 1
    ranks: dict[tuple[str, str], int] = {}
    for target, counts in memberships.items():
        for _, digest in sorted(counts, key=lambda membership: (membership[0], -counts[membership], membership)):
            ranks.setdefault((target, digest), len([key for key in ranks if key[0] == target]))
    editions: dict[int, list[Row]] = defaultdict(list)
    for row in rows:
        editions[ranks[row.target, row.membership_digest]].append(row)
    return [editions[rank] for rank in sorted(editions)]


def _group(
    key: tuple[*_Key, int],
    rows: Sequence[Row],
    evidence: Evidence,
    metric: Metric,
    current: Callable[[Row], bool],
) -> Group:
    targets = tuple(sorted({row.target for row in rows}))
    small = tuple(sorted({row.target for row in rows if row.is_small and current(row)}))
    by_line: dict[tuple[Any, ...], dict[str, Row]] = defaultdict(dict)
    for row in rows:
        by_line[_line_key(row, current)][row.target] = row
    notes = [
        ", ".join(sorted({_note(row, current) for row in of_line.values()} - {""})) for of_line in by_line.values()
    ]
    may_rank = [of_line for of_line, note in zip(by_line.values(), notes, strict=True) if not note]
    asked_for = tuple(sorted({target for line_rows in may_rank for target in line_rows})) or targets
    in_mean = tuple(target for target in asked_for if target not in small) or asked_for
    noted = zip(by_line.values(), notes, strict=True)
    lines = _ranked([_line(of_line, in_mean, metric, note) for of_line, note in noted], metric)
    lines = _with_letters(_with_seeds(lines, current), in_mean, evidence, metric)
    return Group(*key, metric, targets, small, in_mean, tuple(lines))


def _line_key(row: Row, current: Callable[[Row], bool], *, seed: int | None = None) -> tuple[Any, ...]:
    """What makes two rows the same entry: everything the user chose but the target; `seed` stands for the row's own."""
    free = {"shots", *row.settings_grid}  # a tuned method is one entry, whatever was chosen for which target
    settings = {name: value for name, value in row.config.items() if name not in free}
    config = _SORTED.encode([settings, row.settings_grid])
    older = "" if current(row) else row.target_version
    seed = row.seed if seed is None else seed
    return row.method, row.method_version, row.preset, config, row.protocol, seed, row.draws, older


def _is_current(row: Row, versions: Mapping[str, str]) -> bool:
    if row.target in versions:
        return row.target_version == versions[row.target]
    return row.benchmark == OWN or is_current(row.target, row.target_version)


def _line(rows: Mapping[str, Row], in_mean: Sequence[str], metric: Metric, note: str) -> Line:
    first = next(iter(rows.values()))
    lacks = tuple(target for target in in_mean if target not in rows)
    if lacks:
        return Line(first.method, first.preset, rows, None, None, note, lacks=lacks)
    averaged = [rows[target] for target in in_mean]
    mean = sum(row.metrics[metric.name].value for row in averaged) / len(averaged)
    return Line(first.method, first.preset, rows, mean, None, note, interval=mean_interval(averaged, metric))


def _note(row: Row, current: Callable[[Row], bool]) -> str:
    if row.protocol != "strict":
        return f"protocol: {row.protocol}"
    if not current(row):
        return f"{row.target} {row.target_version} is an older version"
    if row.failed_checks:
        return "; ".join(f"fails the check {check}: {fault}" for check, fault in row.failed_checks.items())
    if row.submitted:
        return "submitted scores"
    if row.has_seen_target == "unknown":
        return "; ".join(row.warnings) or "may have seen the target"
    return "has seen the target" if row.has_seen_target else "; ".join(row.warnings)


def _ranked(lines: Sequence[Line], metric: Metric) -> list[Line]:
    """Those with a mean and without a note have a rank and come first, then the others, each from the best."""
    sign = -1 if metric.higher_is_better else 1
    in_order = sorted(lines, key=lambda line: (line.mean is None, sign * (line.mean or 0), line.method))
    may_rank = [line for line in in_order if line.mean is not None and not line.note]
    others = [line for line in in_order if line.mean is None or line.note]
    return [*(replace(line, rank=rank) for rank, line in enumerate(may_rank, start=1)), *others]


def _with_seeds(lines: Sequence[Line], current: Callable[[Row], bool]) -> list[Line]:
    """Spread over training seeds, beside the intervals, which are conditional on one training."""
    means: dict[tuple[Any, ...], dict[int, float]] = defaultdict(dict)
    firsts = [next(iter(line.rows.values())) for line in lines]
    if len({row.seed for row in firsts}) < 2:
        return list(lines)
    keys = [_line_key(row, current, seed=0) for row in firsts]
    for line, row, key in zip(lines, firsts, keys, strict=True):
        if line.mean is not None:
            means[key][row.seed] = line.mean
    return [
        replace(line, seeds_sd=float(np.std(list(means[key].values()), ddof=1))) if len(means[key]) > 1 else line
        for line, key in zip(lines, keys, strict=True)
    ]


def _with_letters(lines: Sequence[Line], in_mean: Sequence[str], evidence: Evidence, metric: Metric) -> list[Line]:
    ranked = [{target: line.rows[target] for target in in_mean} for line in lines if line.rank is not None]
    marks = iter(letters_of(ranked, evidence, metric) if len(ranked) > 1 else [""] * len(ranked))
    return [line if line.rank is None else replace(line, letters=next(marks)) for line in lines]
