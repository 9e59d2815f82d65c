"""What the board's page filters, sorts and draws: every track by every metric, ranked here and not in the browser.

Ranks, means and letters of a choice of targets are those that `medfsad leaderboard --target …` computes of it.
"""

import itertools
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

from medfsad_bench.board.groups import Group, Line, groups
from medfsad_bench.board.labels import labels_of, verdict
from medfsad_bench.board.significance import Evidence
from medfsad_bench.display import visible
from medfsad_bench.metrics.metric import METRICS, Metric
from medfsad_bench.results.row import Row

SHORTCUT = "shortcut"
SOLVED = 0.75  # half-way from chance to perfect
CONFOUNDED = (
    f"confounded: the 95 % interval of {SHORTCUT}, which sees brightness, contrast, sharpness and colour alone, lies "
    f"above an AUROC of {SOLVED}"
)
_KINDS = ("small", "confounded")


def boards_of(rows: Sequence[Row], evidence: Evidence, reproduced: Collection[str]) -> dict[Metric, list[Group]]:
    """The tracks, ranked by each metric that some row has.

    Args:
        rows: Of the board.
        evidence: Scores by run id.
        reproduced: Run ids of rows that a maintainer has re-run.
    """
    metrics = [metric for metric in METRICS.values() if any(metric.name in row.metrics for row in rows)]
    return {metric: groups(rows, evidence, metric=metric, reproduced=reproduced) for metric in metrics}


def payload(
    rows: Sequence[Row],
    boards: Mapping[Metric, Sequence[Group]],
    evidence: Evidence,
    reproduced: Collection[str],
    *,
    command: str = "medfsad leaderboard",
) -> dict[str, Any]:
    """Everything that the board's page shows, as JSON has it.

    Args:
        rows: Of the board.
        boards: Of these rows, see `boards_of`.
        evidence: Scores by run id.
        reproduced: Run ids of rows that a maintainer has re-run.
        command: That shows these rows in a terminal, without what chooses among them.

    Returns:
        `command`; `rows`, each with its figures; `metrics`; `tracks`, each with its targets and, by metric and by
        what is left out of the targets, its lines.
    """
    number = {row.run_id: position for position, row in enumerate(rows)}
    solved = solved_by_shortcut(rows)
    tracks: dict[str, dict[str, Any]] = {}
    for metric, board in boards.items():
        for group in board:
            track = tracks.setdefault(group.title, _track(group))
            confounded = confounded_of(group, solved)
            target_names = {target["name"] for target in track["targets"]}
            track["targets"] += [
                {"name": name, "small": name in group.small, "confounded": name in confounded}
                for name in group.targets
                if name not in target_names
            ]
            track["boards"][metric.name] = {
                " ".join(left_out): _board(variant, number)
                for left_out, variant in _variants(group, confounded, evidence, reproduced)
            }
    content = {
        "command": command,
        "rows": [{"run": row.run_id, "m": {name: _figures(row, name) for name in row.metrics}} for row in rows],
        "metrics": [_facts(metric) for metric in boards],
        "tracks": list(tracks.values()),
    }
    printed = json.dumps(content, ensure_ascii=False).isprintable()
    return content if printed else dict(_shown(content))


def address_of(track: Mapping[str, Any]) -> str:
    """What stands behind the # of the board's address when this track is shown."""
    return urlencode({name: track[name] for name in ("benchmark", "shots", "holdout", "track")})


def solved_by_shortcut(rows: Sequence[Row]) -> set[tuple[str, int, int]]:
    """Membership, image size and K of the targets that need no look at the anatomy, see `CONFOUNDED`."""
    return {
        (row.membership_digest, row.size_px, row.shots)
        for row in rows
        if row.method == SHORTCUT
        and (row.metrics["image_auroc"].low or 0.0 if "image_auroc" in row.metrics else 0.0) > SOLVED
    }


def confounded_of(group: Group, solved: Collection[tuple[str, int, int]]) -> set[str]:
    """The group's targets that are among those."""
    return {
        target
        for line in group.lines
        for target, row in line.rows.items()
        if (row.membership_digest, row.size_px, row.shots) in solved
    }


def _track(group: Group) -> dict[str, Any]:
    """A track without its boards: what the page's filters choose it by."""
    benchmark, _, rest = group.title.partition(f", {group.shots} shots")
    rest = rest.replace(f", held out by {group.hold_out}", "").strip(", ")
    return {
        "title": group.title,
        "benchmark": benchmark,
        "shots": group.shots,
        "holdout": group.hold_out,
        "track": rest.removeprefix("of them "),
        "targets": [],
        "boards": {},
    }


def _variants(
    group: Group, confounded: Collection[str], evidence: Evidence, reproduced: Collection[str]
) -> Iterator[tuple[tuple[str, ...], Group]]:
    """The group, and what it is without its small or confounded targets, by what was left out."""
    yield (), group
    marked: Mapping[str, Collection[str]] = {"small": group.small, "confounded": confounded}
    kinds = [kind for kind in _KINDS if set(marked[kind]) & set(group.targets)]
    for count in range(1, len(kinds) + 1):
        for left_out in itertools.combinations(kinds, count):
            without = {target for kind in left_out for target in marked[kind]}
            kept = [row for line in group.lines for target, row in line.rows.items() if target not in without]
            for part in groups(kept, evidence, metric=group.metric, reproduced=reproduced):
                yield left_out, replace(part, edition=group.edition)


def _board(group: Group, number: Mapping[str, int]) -> dict[str, Any]:
    return {
        "in_mean": group.in_mean,
        "verdict": verdict(group),
        "lines": [_line(name, line, number) for name, line in zip(labels_of(group), group.lines, strict=True)],
    }


def _line(name: str, line: Line, number: Mapping[str, int]) -> dict[str, Any]:
    facts = {
        "label": name,
        "method": line.method,
        "rank": line.rank,
        "mean": line.mean,
        "interval": line.interval,
        "letters": line.letters,
        "note": line.note or ("lacks " + ", ".join(line.lacks) if line.lacks else ""),
        "sd": line.seeds_sd,
        "ms": line.cost("score_ms_per_image"),
        "reproduced": line.reproduced,
        "rows": {target: number[row.run_id] for target, row in line.rows.items()},
    }
    return {key: value for key, value in facts.items() if value not in (None, "", False)}


def _facts(metric: Metric) -> dict[str, Any]:
    names = ("name", "title", "low", "high", "higher_is_better", "has_effect_size")
    return {name: getattr(metric, name) for name in names}


def _figures(row: Row, name: str) -> list[float | None]:
    estimate = row.metrics[name]
    return [estimate.value, estimate.low, estimate.high]


def _shown(content: Any) -> Any:
    """The same with every text made visible: the browser would obey marks of direction inside of JSON."""
    if isinstance(content, str):
        return visible(content)
    if isinstance(content, Mapping):
        return {visible(str(key)): _shown(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_shown(value) for value in content]
    return content
