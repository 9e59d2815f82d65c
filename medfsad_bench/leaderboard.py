"""From rows to a board. Pure but for reading and appending the files of results.

Rows are ranked only against rows of the same benchmark, hold-out, K, knowledge and number of contaminated supports.
Rows of the `published` protocol or of a method that has seen the target are shown and never ranked.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError
from rich import box
from rich.markup import escape
from rich.table import Table

from medfsad_bench.bands import Evidence, evidence_in, letters_of
from medfsad_bench.errors import MedfsadError, ResultsError
from medfsad_bench.image_figures import scored
from medfsad_bench.metrics.image import auroc_score
from medfsad_bench.rescore import differences, rescored
from medfsad_bench.results import Row, read_row, read_scores

LETTERS = "Methods that share a letter behind the mean can't be told apart (5 %, Holm)."


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


def rows_in_runs(runs: Path) -> list[Row]:
    """Rows of all finished runs in a folder.

    Raises:
        ResultsError: If the folder is missing or a row is damaged.
    """
    if not runs.is_dir():
        raise ResultsError(f"{runs} is no folder. Expected a folder of runs; `medfsad run` writes them.")
    return [read_row(path) for path in sorted(runs.glob("*/row.json"))]


def rows_in_results(results: Path) -> list[Row]:
    """Accepted rows, of all methods.

    Raises:
        ResultsError: If a line is damaged.
    """
    rows = []
    for path in sorted(results.glob("*.jsonl")):
        for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1):
            try:
                rows.append(Row.model_validate_json(line))
            except ValidationError as error:
                raise ResultsError(
                    f"{path.name}, line {number}: not a result row ({error.errors()[0]['msg']}). Mend or remove it."
                ) from error
    return rows


def accept(run: Path, results: Path) -> Row:
    """Validate a run by recomputing its figures and append its row to `<results>/<method>.jsonl`.

    Raises:
        ResultsError: If the figures differ from the scores, or the row is there already.
    """
    row = read_row(run / "row.json")
    differ = differences(row, rescored(run, row))
    if differ:
        raise ResultsError(
            f"{run}: {', '.join(differ)} of row.json can't be recomputed from scores.parquet. Run the cell again."
        )
    for check_name, fault in row.lint_failures.items():
        raise ResultsError(f"{run}: kept off the board, as the protocol lint fails at {check_name!r}: {fault}.")
    if any(known.run_id == row.run_id for known in rows_in_results(results)):
        raise ResultsError(f"{run}: the row {row.run_id} is among the results already. Nothing was added.")
    kept = results / "scores"  # so that anyone can recompute the row, and pair it with another
    kept.mkdir(parents=True, exist_ok=True)
    (kept / f".{row.run_id}.tmp").write_bytes((run / "scores.parquet").read_bytes())
    (kept / f".{row.run_id}.tmp").replace(kept / f"{row.run_id}.parquet")
    path = results / f"{row.method.replace(':', '-')}.jsonl"
    before = path.read_text("utf-8") if path.is_file() else ""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(before + json.dumps(row.dump(), ensure_ascii=False) + "\n", "utf-8")
    temporary.replace(path)
    return row


def check(results: Path) -> list[str]:
    """What's wrong with the accepted rows: damaged, twice, or the committed page is stale."""
    rows = rows_in_results(results)
    seen: set[str] = set()
    faults = []
    for row in rows:
        if row.run_id in seen:
            faults.append(f"{row.run_id} stands twice")
        seen.add(row.run_id)
        faults += _score_faults(row, results / "scores" / f"{row.run_id}.parquet")
    page = results.parent / "LEADERBOARD.md"
    shown = as_markdown(groups(rows, evidence_in(results)))
    if rows and (not page.is_file() or page.read_text("utf-8") != shown):
        faults.append("LEADERBOARD.md is stale; write it anew with `medfsad leaderboard --format md`")
    return faults


def groups(rows: Iterable[Row], evidence: Evidence | None = None) -> list[Group]:
    """Rows in groups that may be compared, each with its lines ranked by mean AUROC over the targets.

    Args:
        rows: Rows of any methods, targets and K.
        evidence: Scores by run id, see `medfsad_bench.bands`: with them methods are told apart in pairs.
    """
    parts: dict[tuple[str, int, str, str, int], list[Row]] = defaultdict(list)
    for row in rows:
        parts[_benchmark(row), row.shots, row.hold_out, row.knowledge, row.contaminated_supports].append(row)
    return [_group(key, parts[key], evidence or {}) for key in sorted(parts)]


def as_tables(found: Sequence[Group]) -> list[Table]:
    """Groups as tables for the terminal: two lines a method, so that six targets fit into 80 columns."""
    tables = []
    for group in found:
        table = Table(
            title=f"{group.title} — image AUROC, mean over draws, 95 % interval",
            box=box.SIMPLE_HEAD,
            padding=(0, 1, 0, 0),
        )
        for column in ("#", "method", *group.targets, "mean"):
            table.add_column(column, overflow="fold")
        for line in group.lines:
            rank, method, *_, mean = _cells(line, group.targets)
            shown = [_two_lines(line.rows.get(target)) for target in group.targets]
            table.add_row(rank, escape(method.replace(" ", "\n", 1)), *shown, escape(mean.replace(" ", "\n", 1)))
        if any(line.letters for line in group.lines):
            table.caption = LETTERS
        tables.append(table)
    return tables


def as_markdown(found: Sequence[Group]) -> str:
    """Groups as a Markdown page."""
    parts = ["# Leaderboard", "", "Image AUROC, mean over support draws with its 95 % bootstrap interval.", LETTERS, ""]
    for group in found:
        header = ("rank", "method", *group.targets, "mean")
        parts += [f"## {group.title}", "", f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
        parts += [f"| {' | '.join(_cells(line, group.targets))} |" for line in group.lines]
        parts.append("")
    return "\n".join(parts)


def as_json(rows: Sequence[Row], found: Sequence[Group]) -> str:
    """All rows whole, and the groups by run id."""
    content: dict[str, Any] = {
        "rows": [row.dump() for row in rows],
        "groups": [
            {
                "benchmark": group.benchmark,
                "shots": group.shots,
                "hold_out": group.hold_out,
                "knowledge": group.knowledge,
                "contaminated_supports": group.contaminated_supports,
                "targets": list(group.targets),
                "lines": [
                    {
                        "rank": line.rank,
                        "method": line.method,
                        "preset": line.preset,
                        "mean_image_auroc": line.mean_auroc,
                        "note": line.note,
                        "letters": line.letters,
                        "seeds_sd": line.seeds_sd,
                        "runs": {target: row.run_id for target, row in line.rows.items()},
                    }
                    for line in group.lines
                ],
            }
            for group in found
        ],
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


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


def _score_faults(row: Row, path: Path) -> list[str]:
    """Whether the accepted scores are there and give the row's AUROC."""
    try:
        found = scored(read_scores(path))
        again = float(np.mean([auroc_score(draw, found.anomalous) for draw in found.matrix]))
    except MedfsadError as error:
        return [f"{row.run_id}: {error}"]
    stated = row.metrics["image_auroc"].value
    return [] if again == stated else [f"{row.run_id}: its scores give an AUROC of {again:.6f}, the row {stated:.6f}"]


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
    if row.lint_failures:
        return "; ".join(f"lint: {check}: {fault}" for check, fault in row.lint_failures.items())
    if row.submitted:
        return "submitted scores"
    return "has seen the target" if row.contaminated else "; ".join(row.warnings)


def _cells(line: Line, targets: Sequence[str]) -> list[str]:
    shown = [_cell(line.rows.get(target)) for target in targets]
    name = (
        line.method + ("" if line.preset == "paper" else f" ({line.preset})") + (f" [{line.note}]" if line.note else "")
    )
    mean = "–" if line.mean_auroc is None else f"{line.mean_auroc:.3f} {line.letters}".strip()
    mean += "" if line.seeds_sd is None else f" (sd over seeds {line.seeds_sd:.3f})"
    return [str(line.rank or "–"), name, *shown, mean]


def _cell(row: Row | None) -> str:
    if row is None:
        return "–"
    figure = row.metrics["image_auroc"]
    return f"{figure.value:.3f} [{figure.low:.3f}, {figure.high:.3f}]"


def _two_lines(row: Row | None) -> str:
    if row is None:
        return "–"
    figure = row.metrics["image_auroc"]
    low, high = (f"{end:.2f}".removeprefix("0") for end in (figure.low or 0.0, figure.high or 0.0))
    return f"{figure.value:.3f}\n{low}–{high}"
