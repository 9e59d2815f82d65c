"""The board as tables for the terminal, as a Markdown page and as JSON."""

import json
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from medfsad_bench.board.groups import Group, Line
from medfsad_bench.display import markdown_table, markdown_text, visible
from medfsad_bench.metrics.metric import RANKING, Metric
from medfsad_bench.results.row import Row
from medfsad_bench.store.composition import SMALL

LETTERS = "Methods that share a letter behind the mean can't be told apart (5 %, Holm)."
ACCEPTED = (
    "Every row's figures and intervals were recomputed from its scores, which anyone can do again. ✓: a maintainer has "
    "also run all of the line's cells again, and the scores agreed (`medfsad reproduce`)."
)
REPRODUCED = "✓ re-run by a maintainer; every other row is figures recomputed from scores."
SMALL_SETS = f"‡ {SMALL}. The mean leaves such sets out, unless there are no others."
_GROUP_KEYS = ("benchmark", "shots", "size_px", "hold_out", "knowledge", "contaminated_supports", "tuned", "edition")


def as_tables(groups: Sequence[Group]) -> list[Table]:
    """Groups as tables for the terminal: two lines per method, so that six targets fit into 80 columns."""
    tables = []
    for group in groups:
        table = Table(
            title=escape(f"{group.title} — {group.metric.title}, mean over draws, 95 % interval"),
            box=box.SIMPLE_HEAD,
            padding=(0, 1, 0, 0),
        )
        for column in ("#", "method", *_headings(group), "mean"):
            table.add_column(column, overflow="fold")
        for line in group.lines:
            rank, method, *_, mean = _cells(line, group)
            shown = [_two_lines(line.rows.get(target), group.metric) for target in group.targets]
            table.add_row(rank, escape(method.replace(" ", "\n", 1)), *shown, escape(mean.replace(" ", "\n", 1)))
        captions = {
            LETTERS: any(line.letters for line in group.lines),
            REPRODUCED: any(line.reproduced for line in group.lines),
            SMALL_SETS: bool(group.small),
        }
        table.caption = "\n".join(caption for caption, applies in captions.items() if applies)
        tables.append(table)
    return tables


def as_markdown(groups: Sequence[Group], *, metric: Metric = RANKING) -> str:
    """Groups, all of one metric, as a Markdown page."""
    title = metric.title[:1].upper() + metric.title[1:]
    parts = [
        "# Leaderboard",
        "",
        f"{title}, mean over support draws with its 95 % bootstrap interval.",
        LETTERS,
        ACCEPTED,
    ]
    parts += ["[What acceptance shows and what it can't](THREATS.md).", ""]
    for group in groups:
        header = ("rank", "method", *_headings(group), "mean")
        lines = markdown_table(header, (_cells(line, group) for line in group.lines))
        parts += [f"## {markdown_text(group.title)}", "", lines]
        parts += [SMALL_SETS, ""] if group.small else []
    return "\n".join(parts)


def auroc_tables(rows: Sequence[Row]) -> str:
    """Rows as Markdown, in no order of rank: a table of image AUROCs per K, methods by targets."""
    parts = []
    for shots in sorted({row.shots for row in rows}):
        of_shots = [row for row in rows if row.shots == shots]
        targets = sorted({row.target for row in of_shots})
        cells = {(_name(row), row.target): _cell(row, RANKING) for row in of_shots}
        names = dict.fromkeys(name for name, _ in cells)
        lines = ((name, *(cells.get((name, target), "–") for target in targets)) for name in names)
        parts += [f"K = {shots}", "", markdown_table(["method", *targets], lines)]
    return "\n".join(parts) or "No such row is accepted yet.\n"


def as_json(rows: Sequence[Row], groups: Sequence[Group], reported: Sequence[dict[str, Any]] = ()) -> str:
    """All rows whole, the groups by run id, and what others report."""
    content: dict[str, Any] = {
        "rows": [row.dump() for row in rows],
        "groups": [
            {
                **{name: getattr(group, name) for name in _GROUP_KEYS},
                "targets": list(group.targets),
                "small": list(group.small),
                "lines": [
                    {
                        "rank": line.rank,
                        "method": line.method,
                        "preset": line.preset,
                        f"mean_{group.metric.name}": line.mean,
                        "note": line.note,
                        "letters": line.letters,
                        "seeds_sd": line.seeds_sd,
                        "reproduced": line.reproduced,
                        "runs": {target: row.run_id for target, row in line.rows.items()},
                    }
                    for line in group.lines
                ],
            }
            for group in groups
        ],
        **({"reported": list(reported)} if reported else {}),
    }
    return visible(json.dumps(content, indent=1, ensure_ascii=False)) + "\n"


def _name(row: Row) -> str:
    """What tells a row from the others of its target: all that isn't the method's default."""
    marks = [] if row.preset == "paper" else [row.preset]
    marks += ["trained on the support"] if row.config.get("trained_on") == "support" else []
    marks += ["settings chosen on other sets"] if row.settings_chosen_on else []
    marks += [f"{row.contaminated_supports} contaminated"] if row.contaminated_supports else []
    marks += [f"seed {row.seed}"] if row.seed else []
    return row.method + (f" ({', '.join(marks)})" if marks else "")


def _headings(group: Group) -> list[str]:
    return [target + (" ‡" if target in group.small else "") for target in group.targets]


def _cells(line: Line, group: Group) -> list[str]:
    preset = "" if line.preset == "paper" else f" ({line.preset})"
    note = f" [{line.note}]" if line.note else ""
    shown = [_cell(line.rows.get(target), group.metric) for target in group.targets]
    mean = "–" if line.mean is None else f"{line.mean:.3f} {line.letters}".strip()
    mean += "" if line.seeds_sd is None else f" (sd over seeds {line.seeds_sd:.3f})"
    mark = " ✓" if line.reproduced else ""
    return [str(line.rank or "–"), line.method + preset + mark + note, *shown, mean]


def _cell(row: Row | None, metric: Metric) -> str:
    if row is None or metric.name not in row.metrics:
        return "–"
    estimate = row.metrics[metric.name]
    ends = "" if estimate.low is None else f" [{estimate.low:.3f}, {estimate.high:.3f}]"
    return f"{estimate.value:.3f}{ends}"


def _two_lines(row: Row | None, metric: Metric) -> str:
    if row is None or metric.name not in row.metrics:
        return "–"
    estimate = row.metrics[metric.name]
    if estimate.low is None:
        return f"{estimate.value:.3f}\nno interval"
    low, high = (f"{end:.2f}".removeprefix("0") for end in (estimate.low, estimate.high or 0.0))
    return f"{estimate.value:.3f}\n{low}–{high}"
