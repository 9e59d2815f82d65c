"""Two methods compared on the same targets, draws and images: differences with interval, p value and effect size."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medfsad_bench.errors import ResultsError
from medfsad_bench.estimates.estimate import REPLICATES
from medfsad_bench.estimates.image import IMAGE_METRICS, Scored, scored
from medfsad_bench.estimates.pixel import replicates_of_draws
from medfsad_bench.metrics.delong import delong, placements
from medfsad_bench.metrics.interval import Replicates, replicate_all
from medfsad_bench.metrics.paired import Difference, Pooled, difference_of, paired_difference, pool
from medfsad_bench.results.row import Row
from medfsad_bench.results.run_folder import RunFolder, finished_runs

PRIMARY = "image_auroc"
_WITH_EFFECT = ("image_auroc", "pixel_auroc")


@dataclass(frozen=True, slots=True)
class TargetComparison:
    """First run minus second on one target.

    Attributes:
        target: Its name.
        differences: By figure.
        delong: Of image AUROC once more, in closed form: a cross-check of the bootstrap.
    """

    target: str
    differences: Mapping[str, Difference]
    delong: Difference


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two methods over one or several targets.

    Attributes:
        first: Name of the one, with its preset.
        second: Name of the other.
        shots: K.
        targets: One by one.
        pooled: Over the targets, by figure that all of them have.
    """

    first: str
    second: str
    shots: int
    targets: tuple[TargetComparison, ...]
    pooled: Mapping[str, Pooled]


def compare(first: Sequence[Path], second: Sequence[Path]) -> Comparison:
    """Compare runs of one method with runs of another, target by target.

    Args:
        first: Folders of runs, one a target.
        second: Folders of runs of the same targets.

    Raises:
        ResultsError: If targets, K, draws, membership or queries differ, or a run is damaged.
    """
    ours, theirs = _by_target(first), _by_target(second)
    if set(ours) != set(theirs):
        raise ResultsError(
            f"The runs are of {', '.join(sorted(ours))} and of {', '.join(sorted(theirs))}; a paired comparison needs "
            "the same targets on both sides. Run the missing ones."
        )
    found = []
    for target in sorted(ours):
        (one, row), (other, its) = ours[target], theirs[target]
        _check(row, its)
        found.append(_compare(one, other, row))
    row, its = next(iter(ours.values()))[1], next(iter(theirs.values()))[1]
    shared = [name for name in found[0].differences if all(name in one.differences for one in found)]
    pooled = {name: pool([one.differences[name] for one in found]) for name in shared}
    return Comparison(_name(row), _name(its), row.shots, tuple(found), pooled)


def find_runs(runs: Path, method: str, *, shots: int, preset: str | None = None, seed: int = 0) -> list[Path]:
    """Folders of a method's runs at K clean shots, one a target.

    Raises:
        ResultsError: If there is none, or two of one target (another preset, config or version).
    """
    by_target: dict[str, list[Path]] = defaultdict(list)
    rows = [(folder.path, folder.row()) for folder in finished_runs(runs)]
    for path, row in rows:
        asked = row.method == method and row.shots == shots and row.seed == seed and row.protocol == "strict"
        if asked and preset in (None, row.preset) and not row.contaminated_supports:
            by_target[row.target].append(path)
    if not by_target:
        known = sorted({(row.method, row.shots) for _, row in rows})
        there = ", ".join(f"{name} at {k} shots" for name, k in known) or "none"
        raise ResultsError(f"{runs} holds no run of {method!r} at {shots} shots; there are {there}.")
    for target, folders in by_target.items():
        if len(folders) > 1:
            names = ", ".join(folder.name for folder in folders)
            raise ResultsError(
                f"{runs} holds several runs of {method!r} on {target}: {names}. Name the folders instead."
            )
    return [folders[0] for folders in by_target.values()]


def as_json(found: Comparison) -> dict[str, Any]:
    """All of a comparison as JSON."""

    def plain(difference: Difference | None) -> Any:
        return None if difference is None else {name: getattr(difference, name) for name in _FIELDS}

    return {
        "first": found.first,
        "second": found.second,
        "shots": found.shots,
        "targets": {
            one.target: {
                "differences": {name: plain(difference) for name, difference in one.differences.items()},
                "delong": plain(one.delong),
            }
            for one in found.targets
        },
        "pooled": {
            name: {"these_targets": plain(pooled.here), "other_targets": plain(pooled.elsewhere)}
            for name, pooled in found.pooled.items()
        },
    }


_FIELDS = ("value", "low", "high", "p", "effect")


def _compare(one: Path, other: Path, row: Row) -> TargetComparison:
    first, second = scored(RunFolder(one).scores()), scored(RunFolder(other).scores())
    same = list(first.queries["id"]) == list(second.queries["id"]) and (first.anomalous == second.anomalous).all()
    if not same:
        raise ResultsError(f"{one} and {other} don't hold scores of the same queries. Run both cells again.")
    pairs = int(first.anomalous.sum()) * int((~first.anomalous).sum())
    tables = [_replicates(found, folder, row) for found, folder in ((first, one), (second, other))]
    differences = {
        name: paired_difference(
            tables[0][name], tables[1][name], area=name in _WITH_EFFECT, pairs=pairs if name == PRIMARY else None
        )
        for name in tables[0]
        if name in tables[1]
    }
    placed = placements(first.matrix, first.anomalous) - placements(second.matrix, second.anomalous)
    check = difference_of(delong(placed, first.anomalous, first.groups), effect=differences[PRIMARY].effect)
    return TargetComparison(row.target, differences, check)


def _replicates(found: Scored, folder: Path, row: Row) -> dict[str, Replicates]:
    tables = replicate_all(found.matrix, found.anomalous, found.groups, replicates=REPLICATES, seed=row.seed)
    named = {name: tables[metric] for name, (metric, _) in IMAGE_METRICS.items()}
    pixels = RunFolder(folder).pixels()
    return named | (replicates_of_draws(pixels, found.groups, seed=row.seed) if pixels else {})


def _by_target(folders: Sequence[Path]) -> dict[str, tuple[Path, Row]]:
    found: dict[str, tuple[Path, Row]] = {}
    for folder in folders:
        row = RunFolder(folder).row()
        if row.target in found:
            raise ResultsError(
                f"{folder} and {found[row.target][0]} are both of {row.target}; give one run a target on each side."
            )
        found[row.target] = (folder, row)
    return found


def _check(row: Row, other: Row) -> None:
    for field in ("membership_digest", "shots", "draws", "seed", "contaminated_supports"):
        if getattr(row, field) != getattr(other, field):
            raise ResultsError(
                f"{row.run_id} and {other.run_id} differ in {field.replace('_', ' ')} ({getattr(row, field)} and "
                f"{getattr(other, field)}); a paired comparison needs the same images, supports and draws."
            )


def _name(row: Row) -> str:
    return row.method + ("" if row.preset == "paper" else f" ({row.preset})")
