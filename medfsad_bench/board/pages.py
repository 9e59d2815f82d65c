"""The board as tables for the terminal, as a Markdown page and as JSON."""

import json
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from medfsad_bench.board.groups import Group, Line
from medfsad_bench.results.row import Row

LETTERS = "Methods that share a letter behind the mean can't be told apart (5 %, Holm)."


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
