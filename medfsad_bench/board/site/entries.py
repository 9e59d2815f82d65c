"""What stands on the pages of methods, data sets, comparisons and protocols, and in the feed of changes."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from typing import Any

from medfsad_bench.board.groups import Group
from medfsad_bench.board.labels import labels_of
from medfsad_bench.board.significance import Evidence, pairs_of
from medfsad_bench.errors import MedfsadError
from medfsad_bench.info import MethodInfo
from medfsad_bench.manifest import Manifest, all_manifests
from medfsad_bench.metrics.metric import RANKING
from medfsad_bench.metrics.paired import Difference
from medfsad_bench.registry import method_info
from medfsad_bench.results.protocol_checks import partners_of
from medfsad_bench.results.row import Row
from medfsad_bench.store.composition import Composition, listed_compositions

CONTROLS = ("chance", "shortcut")
MATRIX_LIMIT = 30  # methods beside each other: a wider matrix is read by nobody


@dataclass(frozen=True, slots=True)
class Pair:
    """Two ranked methods of a track, the better one first.

    Attributes:
        difference: Of the means over targets, first minus second.
        p: Adjusted for all pairs of the track, by Holm.
        wins: Targets on which the first is surely better.
        losses: Targets on which it is surely worse.
        ties: The other ones.
    """

    difference: Difference
    p: float
    wins: int
    losses: int
    ties: int


@dataclass(frozen=True, slots=True)
class Matrix:
    """All pairs of a track.

    Attributes:
        group: The track.
        names: Labels of its ranked lines, best first.
        pairs: By the numbers of their lines.
    """

    group: Group
    names: tuple[str, ...]
    pairs: dict[tuple[int, int], Pair]


def matrix_of(group: Group, evidence: Evidence) -> Matrix:
    """Every pair of a track's ranked methods, up to `MATRIX_LIMIT` of them."""
    ranked = [(name, line) for name, line in zip(labels_of(group), group.lines, strict=True) if line.rank is not None][
        :MATRIX_LIMIT
    ]
    averaged = [{target: line.rows[target] for target in group.in_mean} for _, line in ranked]
    compared = pairs_of(averaged, evidence, group.metric)
    wins, losses = compared.wins()
    pairs = {
        pair: Pair(
            compared.mean_of(number),
            float(compared.mean_p[number]),
            int(wins[number]),
            int(losses[number]),
            len(group.in_mean) - int(wins[number]) - int(losses[number]),
        )
        for number, pair in enumerate(combinations(range(len(ranked)), 2))
    }
    return Matrix(group, tuple(name for name, _ in ranked), pairs)


@dataclass(frozen=True, slots=True)
class Cost:
    """What a line with a mean costs: medians over those of its rows that tell it.

    Attributes:
        label: The line's name.
        mean: Of the metric over targets.
        adapt_s: Seconds to adapt to the supports.
        ms: Milliseconds per image.
        mb: Peak memory in MB.
        fastest: Whether no other line is better and at least as fast.
        smallest: Whether no other line is better and takes no more memory.
    """

    label: str
    mean: float
    adapt_s: float | None
    ms: float | None
    mb: float | None
    fastest: bool = False
    smallest: bool = False


def costs_of(group: Group) -> list[Cost]:
    """The lines of a track that have a mean, best first."""
    costs = [
        Cost(
            label,
            line.mean,
            line.cost("adapt_s"),
            line.cost("score_ms_per_image"),
            line.cost("peak_memory_mb"),
        )
        for label, line in zip(labels_of(group), group.lines, strict=True)
        if line.mean is not None
    ]
    costs = [replace(cost, fastest=_is_undominated(cost, costs, "ms")) for cost in costs]
    costs = [replace(cost, smallest=_is_undominated(cost, costs, "mb")) for cost in costs]
    return sorted(costs, key=lambda cost: -cost.mean)


def _is_undominated(cost: Cost, costs: Sequence[Cost], name: str) -> bool:
    price = getattr(cost, name)
    rivals = [(other.mean, getattr(other, name)) for other in costs]
    return price is not None and not any(mean > cost.mean and other and other <= price for mean, other in rivals)


def published_beside_strict(rows: Iterable[Row]) -> list[tuple[Row, Row]]:
    """Published rows, each with the strict row of the same cell."""
    by_cell: dict[tuple[Any, ...], dict[str, Row]] = defaultdict(dict)
    for row in rows:
        config = tuple(sorted((name, str(value)) for name, value in row.config.items()))
        key = (row.method, row.method_version, config, row.membership_digest, row.size_px, row.shots, row.seed)
        by_cell[key, row.hold_out].setdefault(row.protocol, row)
    return [(cell["published"], cell["strict"]) for cell in by_cell.values() if len(cell) == 2]


def method_record(name: str) -> MethodInfo | None:
    """The record of a method, where it is installed."""
    try:
        return method_info(name)
    except MedfsadError:
        return None


def set_record(rows: Sequence[Row]) -> tuple[Manifest | None, dict[str, dict[str, Composition]], tuple[str, ...]]:
    """Manifest of the set that the rows are of, what its benchmarks are made up of, and sets that share images."""
    row = rows[0]
    manifest = None if row.benchmark == "own" else all_manifests().get(row.target)
    if manifest is None:
        return None, {}, ()
    made_of = {name: listed_compositions(manifest, split) for name, split in manifest.benchmarks.items()}
    return manifest, made_of, partners_of(row.target)


def config_of(info: MethodInfo) -> dict[str, Any]:
    """A method's settings as its paper has them."""
    try:
        return asdict(info.config())
    except TypeError:
        return {}


def reached(rows: Sequence[Row]) -> list[tuple[int, list[tuple[str, Row]]]]:
    """By K, of a set's ranked rows: those of `chance` and `shortcut`, and the best of the others."""
    by_shots: dict[int, list[Row]] = defaultdict(list)
    for row in rows:
        if row.ranks and not row.contaminated_supports and RANKING.name in row.metrics:
            by_shots[row.shots].append(row)
    told = []
    for shots, part in sorted(by_shots.items()):
        best_first = sorted(part, key=lambda row: -row.metrics[RANKING.name].value)
        best = {row.method: row for row in reversed(best_first)}
        controls = [(name, best[name]) for name in CONTROLS if name in best]
        leader = [(f"{row.method} leads", row) for row in best_first if row.method not in CONTROLS]
        told.append((shots, [*controls, *leader[:1]]))
    return told
