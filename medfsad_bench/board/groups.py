"""Which rows may be ranked against each other, and their order. Pure.

Rows are ranked only against rows of the same benchmark, hold-out, K, knowledge and number of contaminated supports.
Rows of the `published` protocol or of a method that has seen the target are shown and never ranked.
"""

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from medfsad_bench.board.significance import Evidence, letters_of
from medfsad_bench.results.row import Row


@dataclass(frozen=True, slots=True)
class Line:
    """One method (with its preset) in one group."""

    method: str
    preset: str
    rows: dict[str, Row]  # by target
    mean_auroc: float | None  # over the group's targets; None unless all are there
    rank: int | None
    note: str
    letters: str = ""  # ranked lines that share one can't be told apart
    seeds_sd: float | None = None  # of the mean, over lines that differ in the training seed alone


@dataclass(frozen=True, slots=True)
class Group:
    """Lines that may be compared with each other."""

    benchmark: str
    shots: int
    hold_out: str
    knowledge: str
    targets: tuple[str, ...]
    lines: tuple[Line, ...]
    contaminated_supports: int = 0

    @property
    def title(self) -> str:
        """Heading."""
        extra = "" if self.hold_out == "dataset" else f", held out by {self.hold_out}"
        known = "" if self.knowledge == "normals" else f", knows {self.knowledge}"
        spoilt = f", of them {self.contaminated_supports} contaminated" if self.contaminated_supports else ""
        return f"{self.benchmark}, {self.shots} shots{spoilt}{extra}{known}"


def groups(rows: Iterable[Row], evidence: Evidence | None = None) -> list[Group]:
    """Rows in groups that may be compared, each with its lines ranked by mean AUROC over the targets.

    Args:
        rows: Rows of any methods, targets and K.
        evidence: Scores by run id, see `medfsad_bench.board.significance`: with them methods are told apart in pairs.
    """
    parts: dict[tuple[str, int, str, str, int], list[Row]] = defaultdict(list)
    for row in rows:
        parts[_benchmark(row), row.shots, row.hold_out, row.knowledge, row.contaminated_supports].append(row)
    return [_group(key, parts[key], evidence or {}) for key in sorted(parts)]


def _benchmark(row: Row) -> str:
    marks = "".join(f" ({fault})" for fault in row.allowed if row.benchmark != "demo")
    return row.benchmark + marks


def _group(key: tuple[str, int, str, str, int], rows: list[Row], evidence: Evidence) -> Group:
    benchmark, shots, hold_out, knowledge, contaminated = key
    targets = tuple(sorted({row.target for row in rows}))
    by_line: dict[tuple[Any, ...], dict[str, Row]] = defaultdict(dict)
    for row in rows:
        by_line[_line_key(row)][row.target] = row
    complete = [_line(mine, targets) for mine in by_line.values()]
    ordered = sorted(complete, key=lambda line: (line.mean_auroc is None, -(line.mean_auroc or 0), line.method))
    ranked, place = [], 0
    for line in ordered:
        if line.mean_auroc is not None and not line.note:
            place += 1
            line = replace(line, rank=place)
        ranked.append(line)
    ranked = _with_letters(_with_seeds(ranked), evidence)
    return Group(benchmark, shots, hold_out, knowledge, targets, tuple(ranked), contaminated)


def _with_letters(lines: list[Line], evidence: Evidence) -> list[Line]:
    placed = [line for line in lines if line.rank is not None]
    found = iter(letters_of([line.rows for line in placed], evidence) if len(placed) > 1 else [""] * len(placed))
    return [line if line.rank is None else replace(line, letters=next(found)) for line in lines]


def _with_seeds(lines: list[Line]) -> list[Line]:
    """Spread over training seeds, beside the intervals, which are conditional on one training."""
    means: dict[tuple[Any, ...], dict[int, float]] = defaultdict(dict)
    keys = []
    for line in lines:
        first = next(iter(line.rows.values()))
        keys.append(_line_key(first.model_copy(update={"seed": 0})))
        if line.mean_auroc is not None:
            means[keys[-1]][first.seed] = line.mean_auroc
    return [
        replace(line, seeds_sd=float(np.std(list(means[key].values()), ddof=1))) if len(means[key]) > 1 else line
        for line, key in zip(lines, keys, strict=True)
    ]


def _line_key(row: Row) -> tuple[Any, ...]:
    """What makes two rows the same entry: everything the user chose but the target."""
    config = {name: value for name, value in row.config.items() if name != "shots"}
    return (
        row.method,
        row.method_version,
        row.preset,
        json.dumps(config, sort_keys=True),
        row.protocol,
        row.seed,
        row.draws,
    )


def _line(mine: dict[str, Row], targets: tuple[str, ...]) -> Line:
    first = next(iter(mine.values()))
    whole = set(mine) == set(targets)
    mean = sum(row.metrics["image_auroc"].value for row in mine.values()) / len(mine) if whole else None
    notes = sorted({_note(row) for row in mine.values()} - {""})
    return Line(first.method, first.preset, mine, mean, None, ", ".join(notes))


def _note(row: Row) -> str:
    if row.protocol != "strict":
        return f"protocol: {row.protocol}"
    if row.failed_checks:
        return "; ".join(f"check: {check}: {fault}" for check, fault in row.failed_checks.items())
    if row.submitted:
        return "submitted scores"
    return "has seen the target" if row.has_seen_target else "; ".join(row.warnings)
