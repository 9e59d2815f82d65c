"""The board as a Markdown page and as JSON."""

import json
from collections.abc import Sequence
from typing import Any

from medfsad_bench.board.groups import Group, Line
from medfsad_bench.board.labels import labels_of, shared_preset, verdict
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
        preset = shared_preset(group)
        heading = group.title + (f", preset {preset}" if preset not in ("", "paper") else "")
        rows = (_cells(name, line, group) for name, line in zip(labels_of(group), group.lines, strict=True))
        parts += [f"## {markdown_text(heading)}", "", markdown_table(header, rows)]
        parts += [SMALL_SETS, ""] if group.small else []
        parts += [markdown_text(summary), ""] if (summary := verdict(group)) else []
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


def _cells(name: str, line: Line, group: Group) -> list[str]:
    note = f" [{line.note}]" if line.note else f" [lacks {', '.join(line.lacks)}]" if line.lacks else ""
    shown = [_cell(line.rows.get(target), group.metric) for target in group.targets]
    ends = "" if line.interval is None else " [{:.3f}, {:.3f}]".format(*line.interval)
    mean = "–" if line.mean is None else f"{line.mean:.3f}{ends} {line.letters}".strip()
    mean += "" if line.seeds_sd is None else f" (sd over seeds {line.seeds_sd:.3f})"
    mark = " ✓" if line.reproduced else ""
    return [str(line.rank or "–"), name + mark + note, *shown, mean]


def _cell(row: Row | None, metric: Metric) -> str:
    if row is None or metric.name not in row.metrics:
        return "–"
    estimate = row.metrics[metric.name]
    ends = "" if estimate.low is None else f" [{estimate.low:.3f}, {estimate.high:.3f}]"
    return f"{estimate.value:.3f}{ends}"
