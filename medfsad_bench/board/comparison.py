"""Two methods compared on the same targets, draws and images: differences with interval, p value and effect size."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from medfsad_bench.board.pairing import paired_with
from medfsad_bench.board.significance import family_of
from medfsad_bench.errors import MetricError, ResultsError
from medfsad_bench.estimates.estimate import REPLICATES
from medfsad_bench.estimates.image import ScoreMatrix, score_matrix
from medfsad_bench.estimates.pixel import replicates_of_draws
from medfsad_bench.metrics.delong import delong, placements
from medfsad_bench.metrics.interval import Replicates, replicate_all
from medfsad_bench.metrics.metric import IMAGE_AUROC, METRICS
from medfsad_bench.metrics.paired import (
    Difference,
    MeanDifference,
    difference_of,
    mean_over_targets,
    paired_difference,
    without_interval,
)
from medfsad_bench.results.row import Row
from medfsad_bench.results.run_folder import RunFolder, finished_runs

_SHARED = ("membership_digest", "size_px", "shots", "draws", "seed", "contaminated_supports")


@dataclass(frozen=True, slots=True)
class TargetComparison:
    """First run minus second on one target.

    Attributes:
        target: Its name.
        differences: By metric.
        delong: Of image AUROC once more, in closed form: a cross-check of the bootstrap.
    """

    target: str
    differences: Mapping[str, Difference]
    delong: Difference


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two methods over one or several targets.

    Attributes:
        first: Name of the first, with its preset.
        second: Name of the second.
        shots: K.
        targets: One by one.
        means: Over the targets, by metric that all of them have.
    """

    first: str
    second: str
    shots: int
    targets: tuple[TargetComparison, ...]
    means: Mapping[str, MeanDifference]


def compare(first: Sequence[Path], second: Sequence[Path]) -> Comparison:
    """Compare runs of one method with runs of another, target by target.

    Args:
        first: Folders of runs, one per target.
        second: Folders of runs of the same targets.

    Raises:
        ResultsError: If targets, K, draws, membership or queries differ, or a run is damaged.
    """
    firsts, seconds = _by_target(first), _by_target(second)
    if set(firsts) != set(seconds):
        raise ResultsError(
            f"The runs are of {', '.join(sorted(firsts))} and of {', '.join(sorted(seconds))}; a paired comparison "
            "needs the same targets on both sides. Run the missing ones."
        )
    targets = []
    for target in sorted(firsts):
        (folder, row), (other_folder, other_row) = firsts[target], seconds[target]
        _check(row, other_row)
        targets.append(_compare(folder, other_folder, row, other_row))
    row, other_row = next(iter(firsts.values()))[1], next(iter(seconds.values()))[1]
    shared = [name for name in targets[0].differences if all(name in target.differences for target in targets)]
    families = [family_of(firsts[target.target][1]) for target in targets]
    means = {
        name: mean_over_targets(
            [target.differences[name] for target in targets], families=families, metric=METRICS[name]
        )
        for name in shared
    }
    return Comparison(_name(row), _name(other_row), row.shots, tuple(targets), means)


def find_runs(
    runs: Path, method: str, *, shots: int, preset: str | None = None, seed: int = 0, tuned: bool = False
) -> list[Path]:
    """Folders of a method's runs at K clean shots; of a target there may be several, see `pairing_runs`.

    Args:
        runs: Where they lie.
        method: Its name.
        shots: K.
        preset: Of its config; None if there is but one.
        seed: Of training.
        tuned: Whether those whose settings were chosen on other sets, or those of settings by hand.

    Raises:
        ResultsError: If there is none.
    """
    rows = [(folder.path, folder.row()) for folder in finished_runs(runs)]
    paths = []
    for path, row in rows:
        wanted = row.method == method and row.shots == shots and row.seed == seed and row.protocol == "strict"
        same_choice = bool(row.settings_chosen_on) == tuned
        if wanted and same_choice and preset in (None, row.preset) and not row.contaminated_supports:
            paths.append(path)
    if not paths:
        cells = sorted({(row.method, row.shots, bool(row.settings_chosen_on)) for _, row in rows})
        present = ", ".join(f"{name} at {k} shots{', tuned' * chosen}" for name, k, chosen in cells) or "none"
        kind = "no tuned run" if tuned else "no run"
        raise ResultsError(f"{runs} holds {kind} of {method!r} at {shots} shots; there are {present}.")
    return paths


def pairing_runs(first: Sequence[Path], second: Sequence[Path]) -> tuple[list[Path], list[Path], list[str]]:
    """Of several runs of one target on a side, the two that pair: on the same images, with the most draws.

    Args:
        first: Folders of runs of one method.
        second: Folders of runs of another.

    Returns:
        One run per target of each, and what was chosen, in words. A target of one side alone stays.

    Raises:
        ResultsError: If several runs of a target pair, or none does.
    """
    sides = [_all_by_target(paths) for paths in (first, second)]
    chosen: tuple[list[Path], list[Path]] = ([], [])
    notes = []
    for target in sorted({*sides[0], *sides[1]}):
        runs = [side[target] for side in sides]
        if all(len(of_side) == 1 for of_side in runs) or not all(runs):
            for of_side, kept in zip(runs, chosen, strict=True):
                kept.extend(path for path, _ in of_side[:1])
            continue
        (path, row), (other_path, _) = _the_pair(target, *runs)
        chosen[0].append(path)
        chosen[1].append(other_path)
        notes.append(
            f"{target}: of {len(runs[0])} and {len(runs[1])} runs, {path.name} and {other_path.name} were compared, "
            f"which pair on {row.draws} draws."
        )
    return *chosen, notes


def as_json(comparison: Comparison) -> dict[str, Any]:
    """All of a comparison as JSON."""
    return {
        "first": comparison.first,
        "second": comparison.second,
        "shots": comparison.shots,
        "targets": {
            target.target: {
                "differences": {name: each.figures() for name, each in target.differences.items()},
                "delong": target.delong.figures(),
            }
            for target in comparison.targets
        },
        "pooled": {
            name: {
                "these_targets": mean.these_targets.figures(),
                "other_targets": mean.other_targets and mean.other_targets.figures(),
            }
            for name, mean in comparison.means.items()
        },
    }


def _compare(folder: Path, other: Path, row: Row, other_row: Row) -> TargetComparison:
    first, second = (score_matrix(RunFolder(path).scores()) for path in (folder, other))
    try:
        paired = paired_with(first, second)
    except ResultsError as error:
        raise ResultsError(
            f"{folder} and {other} can't be paired: {error}. Expected scores of the same images in as many draws; of a "
            "run that was changed, remove the folder and run its cell again."
        ) from error
    try:
        # pixel records stay in the order of their run
        tables = _replicates(first, first.groups, folder), _replicates(paired, second.groups, other)
        differences, by_delong = _paired(first, paired, tables)
    except MetricError as error:  # too few groups
        why = f"{row.target}: {error}"
        values = ((name, row.metrics[name].value - of.value) for name, of in other_row.metrics.items())
        differences = {name: without_interval(value, reason=why) for name, value in values if name in row.metrics}
        by_delong = differences[IMAGE_AUROC.name]
    return TargetComparison(row.target, differences, by_delong)


def _paired(
    first: ScoreMatrix, second: ScoreMatrix, tables: tuple[Mapping[str, Replicates], Mapping[str, Replicates]]
) -> tuple[dict[str, Difference], Difference]:
    """Differences by metric, and that of image AUROC in closed form."""
    pairs = int(first.anomalous.sum()) * int((~first.anomalous).sum())
    differences = {
        name: paired_difference(
            tables[0][name],
            tables[1][name],
            metric=METRICS[name],
            pairs=pairs if name == IMAGE_AUROC.name else None,
        )
        for name in tables[0]
        if name in tables[1]
    }
    placed = placements(first.scores, first.anomalous) - placements(second.scores, second.anomalous)
    measured = delong(placed, first.anomalous, first.groups)
    return differences, difference_of(measured, effect=differences[IMAGE_AUROC.name].effect)


def _replicates(matrix: ScoreMatrix, stored_groups: Int64[np.ndarray, " n"], folder: Path) -> dict[str, Replicates]:
    """With one seed for all targets, as those of a family have to see equal weights."""
    tables = replicate_all(matrix.scores, matrix.anomalous, matrix.groups, replicates=REPLICATES)
    pixels = RunFolder(folder).pixels()
    return tables | (replicates_of_draws(pixels, stored_groups) if pixels else {})


def _all_by_target(folders: Sequence[Path]) -> dict[str, list[tuple[Path, Row]]]:
    by_target: dict[str, list[tuple[Path, Row]]] = defaultdict(list)
    for folder in folders:
        row = RunFolder(folder).row()
        by_target[row.target].append((folder, row))
    return by_target


def _by_target(folders: Sequence[Path]) -> dict[str, tuple[Path, Row]]:
    by_target: dict[str, tuple[Path, Row]] = {}
    for folder in folders:
        row = RunFolder(folder).row()
        if row.target in by_target:
            raise ResultsError(
                f"{folder} and {by_target[row.target][0]} are both of {row.target}; give one run per target on each "
                "side."
            )
        by_target[row.target] = (folder, row)
    return by_target


def _the_pair(
    target: str, firsts: Sequence[tuple[Path, Row]], seconds: Sequence[tuple[Path, Row]]
) -> tuple[tuple[Path, Row], tuple[Path, Row]]:
    pairs = [
        (first, second)
        for first in firsts
        for second in seconds
        if all(getattr(first[1], field) == getattr(second[1], field) for field in _SHARED)
    ]
    most = max((first[1].draws for first, _ in pairs), default=0)
    best = [pair for pair in pairs if pair[0][1].draws == most]
    if len(best) != 1:
        names = "; ".join(", ".join(path.name for path, _ in side) for side in (firsts, seconds))
        which = "Several of them pair" if best else "No two are of the same images, draws and seed"
        raise ResultsError(f"There are several runs on {target}: {names}. {which}; name the folders instead.")
    return best[0]


def _check(row: Row, other: Row) -> None:
    for field in _SHARED:
        if getattr(row, field) != getattr(other, field):
            raise ResultsError(
                f"{row.run_id} and {other.run_id} differ in {field.replace('_', ' ')} ({getattr(row, field)} and "
                f"{getattr(other, field)}); a paired comparison needs the same images, supports and draws."
            )


def _name(row: Row) -> str:
    marks = ([] if row.preset == "paper" else [row.preset]) + (["tuned"] if row.settings_chosen_on else [])
    return row.method + (f" ({', '.join(marks)})" if marks else "")
