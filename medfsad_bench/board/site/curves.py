"""Curves of the site: means over shots of all methods of a track, and what contaminated supports do to each."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from medfsad_bench.board.groups import Group
from medfsad_bench.board.labels import labels_of
from medfsad_bench.board.robustness import Point, points_of
from medfsad_bench.board.significance import Evidence, mean_interval
from medfsad_bench.results.row import Row

_NAMED = 9  # curves that bear a colour, a mark and a name: more can't be told apart


@dataclass(frozen=True, slots=True)
class Curve:
    """One method over shots.

    Attributes:
        label: Its name.
        points: Mean, lower and upper end by K; the ends None where there is no interval.
        named: Whether it is drawn with a colour, a mark and its name, or in grey behind the others.
        label_y: Where its name stands, as a share of the height from the top, so that no two names overlap.
    """

    label: str
    points: dict[int, tuple[float, float | None, float | None]]
    named: bool
    label_y: float


@dataclass(frozen=True, slots=True)
class Overlay:
    """All ranked methods of a track over shots, on the targets that are in the mean at every K.

    Attributes:
        title: The track without its K.
        shots: The Ks, ascending.
        targets: That every point is the mean over.
        curves: The best at the largest K first.
        low: Where the axis begins.
        high: Where it ends.
    """

    title: str
    shots: tuple[int, ...]
    targets: tuple[str, ...]
    curves: tuple[Curve, ...]
    low: float
    high: float


def overlays(board: Sequence[Group]) -> list[Overlay]:
    """One per track of which there are several Ks and some target is in the mean at each."""
    tracks: dict[str, list[Group]] = defaultdict(list)
    for group in board:
        tracks[_over_shots(group)].append(group)
    made = (_overlay(title, sorted(part, key=lambda group: group.shots)) for title, part in tracks.items())
    return [overlay for overlay in made if overlay is not None]


def ranked_lines(board: Sequence[Group]) -> dict[str, dict[str, dict[str, list[Row]]]]:
    """Rows of ranked lines with clean supports, by method, by track without its K, and by label."""
    lines: dict[str, dict[str, dict[str, list[Row]]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for group in board:
        for label, line in zip(labels_of(group), group.lines, strict=True):
            if line.rank is not None and not group.contaminated_supports:
                lines[line.method][_over_shots(group)][label] += line.rows.values()
    return lines


def contamination_of(rows: Sequence[Row], evidence: Evidence) -> dict[str, list[Point]]:
    """What an anomaly among the supports does, by method: where the scores of both runs are at hand."""
    by_method: dict[str, list[Point]] = defaultdict(list)
    for point in points_of(rows, evidence):
        by_method[point.method].append(point)
    return by_method


def _over_shots(group: Group) -> str:
    return group.title.replace(f", {group.shots} shots", "", 1)


def _overlay(title: str, part: Sequence[Group]) -> Overlay | None:
    shots = tuple(group.shots for group in part)
    targets = tuple(sorted(set.intersection(*(set(group.in_mean) for group in part))))
    if len(shots) < 2 or not targets:
        return None
    points: dict[str, dict[int, tuple[float, float | None, float | None]]] = defaultdict(dict)
    for group in part:
        for label, line in zip(labels_of(group), group.lines, strict=True):
            if not line.note and all(target in line.rows for target in targets):
                rows = [line.rows[target] for target in targets]
                mean = sum(row.metrics[group.metric.name].value for row in rows) / len(rows)
                points[label][group.shots] = (mean, *(mean_interval(rows, group.metric) or (None, None)))
    several = {label: by_shots for label, by_shots in points.items() if len(by_shots) > 1}
    if not several:
        return None
    best_first = sorted(several, key=lambda label: (-several[label].get(shots[-1], (-1.0,))[0], label))
    values = [end for by_shots in several.values() for point in by_shots.values() for end in point if end is not None]
    low, high = max(min(values) - 0.02, 0.0), min(max(values) + 0.02, 1.0)
    heights = [(high - several[label][max(several[label])][0]) / (high - low) for label in best_first[:_NAMED]]
    spread = _apart(heights, 0.055)
    curves = tuple(
        Curve(label, several[label], number < _NAMED, spread[number] if number < _NAMED else 0.0)
        for number, label in enumerate(best_first)
    )
    return Overlay(title, shots, targets, curves, low, high)


def _apart(heights: Sequence[float], gap: float) -> list[float]:
    """The same from 0 to 1, each at least `gap` from the next, moved as little as a pass down and one up need.

    >>> [round(height, 2) for height in _apart([0.5, 0.5, 1.0], 0.1)]
    [0.5, 0.6, 1.0]
    """
    order = sorted(range(len(heights)), key=heights.__getitem__)
    placed, lowest = list(heights), -gap
    for index in order:
        lowest = placed[index] = max(heights[index], lowest + gap)
    highest = 1.0 + gap
    for index in reversed(order):
        highest = placed[index] = min(placed[index], highest - gap)
    return placed
