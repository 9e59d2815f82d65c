"""The board as a Markdown page and as JSON."""

import json
from collections.abc import Sequence
from typing import Any

from medfsad_bench.board import answers
from medfsad_bench.board.groups import Group, Line, groups
from medfsad_bench.board.labels import labels_of, shared_preset, verdict
from medfsad_bench.board.significance import Evidence
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
NO_SUCH_ROW = "No such row is accepted yet.\n"
_GROUP_KEYS = ("benchmark", "shots", "size_px", "hold_out", "knowledge", "contaminated_supports", "tuned", "edition")


def as_markdown(board: Sequence[Group], *, metric: Metric = RANKING, evidence: Evidence | None = None) -> str:
    """Groups, all of one metric, as a Markdown page that opens with what they answer.

    Args:
        board: The groups.
        metric: What they are ranked by.
        evidence: Scores of as many of their rows as there are, see `board.significance`.
    """
    title = metric.title[:1].upper() + metric.title[1:]
    parts = [
        "# Leaderboard",
        "",
        f"{title}, mean over support draws with its 95 % bootstrap interval.",
        LETTERS,
        ACCEPTED,
    ]
    parts += ["[What acceptance shows and what it can't](THREATS.md).", ""]
    parts += [answers.as_markdown(shown)] if (shown := answers.answers(board, evidence or {})) else []
    for group in board:
        header = ("rank", "method", *_headings(group), "mean")
        rows = (_cells(name, line, group) for name, line in zip(labels_of(group), group.lines, strict=True))
        parts += [f"## {_heading(group)}", "", markdown_table(header, rows)]
        parts += [SMALL_SETS, ""] if group.small else []
        parts += [markdown_text(summary), ""] if (summary := verdict(group)) else []
    return "\n".join(parts)


def auroc_tables(rows: Sequence[Row]) -> str:
    """Rows as Markdown: a table of image AUROCs per track, methods by targets, the best mean first."""
    parts = []
    for group in groups(rows):
        lines = (
            (name, *(_cell(line.rows.get(target), RANKING) for target in group.targets))
            for name, line in zip(labels_of(group), group.lines, strict=True)
        )
        parts += [_heading(group), "", markdown_table(["method", *group.targets], lines)]
    return "\n".join(parts) or NO_SUCH_ROW


def as_json(rows: Sequence[Row], board: Sequence[Group], reported: Sequence[dict[str, Any]] = ()) -> str:
    """All rows whole, the groups by run id, and what others report."""
    content: dict[str, Any] = {
        "rows": [row.dump() for row in rows],
        "groups": [
            {
                **{name: getattr(group, name) for name in _GROUP_KEYS},
                "track": group.title,
                "metric": group.metric.name,
                "targets": list(group.targets),
                "small": list(group.small),
                "in_mean": list(group.in_mean),
                "lines": [
                    {
                        "rank": line.rank,
                        "method": line.method,
                        "preset": line.preset,
                        "label": name,
                        f"mean_{group.metric.name}": line.mean,
                        "interval": line.interval,
                        "lacks": list(line.lacks),
                        "note": line.note,
                        "letters": line.letters,
                        "seeds_sd": line.seeds_sd,
                        "reproduced": line.reproduced,
                        "runs": {target: row.run_id for target, row in line.rows.items()},
                    }
                    for name, line in zip(labels_of(group), group.lines, strict=True)
                ],
            }
            for group in board
        ],
        **({"reported": list(reported)} if reported else {}),
    }
    return visible(json.dumps(content, indent=1, ensure_ascii=False)) + "\n"


def _heading(group: Group) -> str:
    preset = shared_preset(group)
    return markdown_text(group.title + (f", preset {preset}" if preset not in ("", "paper") else ""))


def _headings(group: Group) -> list[str]:
    return [target + (" ‡" if target in group.small else "") for target in group.targets]


def _cells(name: str, line: Line, group: Group) -> list[str]:
    note = f" [{line.note}]" if line.note else f" [lacks {', '.join(line.lacks)}]" if line.lacks else ""
    shown = [_cell(line.rows.get(target), group.metric) for target in group.targets]
    mean = "–" if line.estimate is None else f"{line.estimate.text} {line.letters}".strip()
    mean += "" if line.seeds_sd is None else f" (sd over seeds {line.seeds_sd:.3f})"
    mark = " ✓" if line.reproduced else ""
    return [str(line.rank or "–"), name + mark + note, *shown, mean]


def _cell(row: Row | None, metric: Metric) -> str:
    if row is None or metric.name not in row.metrics:
        return "–"
    return row.metrics[metric.name].text
