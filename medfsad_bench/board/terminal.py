"""The board in a terminal: one line per method, in the richest layout that fits the width.

As the terminal gets narrower, a target's cell loses its interval, then the heading its name, which moves below the
table; what still doesn't fit goes on in a second table. Nothing is cut: notes, names and what is missing stand below.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.cells import cell_len
from rich.markup import escape
from rich.table import Table

from medfsad_bench.board.groups import Group, Line
from medfsad_bench.board.labels import labels_of, listed, shared_preset, verdict
from medfsad_bench.board.pages import LETTERS, REPRODUCED, SMALL_SETS
from medfsad_bench.display import visible
from medfsad_bench.estimates.estimate import Estimate
from medfsad_bench.metrics.metric import Metric

LEAST = 60  # columns of the caption, whatever the table needs


@dataclass(frozen=True, slots=True)
class _Layout:
    names: bool  # whether targets head their columns, or letters do
    cell: str  # format of a figure, see `_cell`


_LAYOUTS = (_Layout(True, "whole"), _Layout(True, "short"), _Layout(True, "bare"), _Layout(False, "bare"))


def as_tables(groups: Sequence[Group], *, width: int = 80) -> list[Table]:
    """Groups as tables that fit a terminal: rank, method, mean with its interval and letters, a figure per target.

    Args:
        groups: See `board.groups`.
        width: Of the terminal, in characters.
    """
    return [table for group in groups for table in _tables(group, width)]


def _tables(group: Group, width: int) -> list[Table]:
    left = _left_columns(group)
    for layout in _LAYOUTS:
        right = _target_columns(group, layout)
        if _width(left) + _width(right) <= width:
            return [_table(group, [*left, *right], layout, width)]
    fits = max((width - _width(left)) // max(map(_column_width, right)), 1)
    parts = [right[start : start + fits] for start in range(0, len(right), fits)]
    tables = [_table(group, [*left, *part], _LAYOUTS[-1], width) for part in parts]
    for table in tables[:-1]:
        table.caption = None
    for table in tables[1:]:
        table.title = None
    return tables


def _table(group: Group, columns: Sequence[Sequence[str]], layout: _Layout, width: int) -> Table:
    preset = shared_preset(group)
    title = f"{group.title} — {group.metric.title}, mean over draws, 95 % interval"
    title += f"; preset {preset}" if preset not in ("", "paper") else ""
    table = Table(
        title=escape(title),
        caption=escape("\n".join(_captions(group, layout))),
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=0,
        show_edge=False,
        min_width=min(width, LEAST),
    )
    for heading, *_ in columns:
        table.add_column(escape(heading), overflow="fold")
    for cells in zip(*(column[1:] for column in columns), strict=True):
        table.add_row(*map(escape, cells))
    return table


def _left_columns(group: Group) -> list[list[str]]:
    """Rank, method, mean and letters: what every table starts with, each column with its heading."""
    names = (name + (" ✓" if line.reproduced else "") for name, line in zip(labels_of(group), group.lines, strict=True))
    columns = [
        ["#", *(str(line.rank or "–") for line in group.lines)],
        ["method", *names],
        ["mean", *(_mean(line) for line in group.lines)],
    ]
    letters = [line.letters for line in group.lines]
    return [*columns, ["", *letters]] if any(letters) else columns


def _target_columns(group: Group, layout: _Layout) -> list[list[str]]:
    return [
        [
            _heading(group, number, layout),
            *(_cell(line, target, group.metric, layout.cell) for line in group.lines),
        ]
        for number, target in enumerate(group.targets)
    ]


def _heading(group: Group, number: int, layout: _Layout) -> str:
    target = group.targets[number]
    return (target if layout.names else _sign(number)) + (" ‡" if target in group.small else "")


def _sign(number: int) -> str:
    """A for the first target, Z for the 26th, then AA."""
    letter = chr(ord("A") + number % 26)
    return letter if number < 26 else _sign(number // 26 - 1) + letter


def _mean(line: Line) -> str:
    if line.estimate is None:
        return "–"
    spread = "" if line.seeds_sd is None else f" sd {_short(line.seeds_sd)}"
    return _figure(line.estimate, "short") + spread


def _cell(line: Line, target: str, metric: Metric, form: str) -> str:
    return _figure(line.rows[target].metrics[metric.name], form) if target in line.rows else "–"


def _figure(estimate: Estimate, form: str) -> str:
    if form == "bare":
        return _short(estimate.value, 3)
    if estimate.low is None or estimate.high is None:
        return _short(estimate.value, 3) + " ?"
    if form == "short":
        return f"{_short(estimate.value, 3)} {_short(estimate.low)}–{_short(estimate.high)}"
    return estimate.text


def _short(value: float, digits: int = 2) -> str:
    return f"{value:.{digits}f}".removeprefix("0") if value >= 0 else f"{value:.{digits}f}"


def _captions(group: Group, layout: _Layout) -> list[str]:
    names = labels_of(group)
    shown = [line.rows[target].metrics[group.metric.name] for line in group.lines for target in line.rows]
    captions = [
        "; ".join(f"{_heading(group, number, layout)}: {target}" for number, target in enumerate(group.targets)),
        "A wider terminal, --target NAME or --format md show the targets' intervals.",
    ]
    captions = captions if not layout.names else captions[1:] if layout.cell == "bare" else []
    reasons: dict[str, list[str]] = {}
    for name, line in zip(names, group.lines, strict=True):
        if reason := line.note or ("lacks " + ", ".join(line.lacks) if line.lacks else ""):
            reasons.setdefault(reason, []).append(name)
    notes = [f"Not ranked: {listed([*dict.fromkeys(of_reason)])} ({reason})." for reason, of_reason in reasons.items()]
    if any(line.lacks and not line.note for line in group.lines):
        notes.append("--target ranks over the sets that it names.")
    applying = {
        LETTERS: any(line.letters for line in group.lines),
        "sd: of the mean over training seeds.": any(line.seeds_sd is not None for line in group.lines),
        "?: too few groups for an interval.": any(estimate.low is None for estimate in shown),
        REPRODUCED: any(line.reproduced for line in group.lines),
        SMALL_SETS: bool(group.small),
    }
    summary = [said] if (said := verdict(group)) else []
    return [*summary, *captions, *notes, *(caption for caption, applies in applying.items() if applies)]


def _width(columns: Sequence[Sequence[str]]) -> int:
    return sum(map(_column_width, columns))


def _column_width(cells: Sequence[str]) -> int:
    return max(cell_len(visible(cell)) for cell in cells) + 1
