"""Settings chosen without the target: each of a grid is evaluated on other sets, and the best is taken to the target.

The other sets are those that a method may be trained on for that target, so none shares images with it. As in the mean
of the board, sets with too few groups don't count beside others. What is evaluated is kept:

<runs>/tuning/<run id>/tuning/0000.npz     AUROC of every draw, of one setting on one set

The target's labels take no part: of the target itself nothing is asked but its name and which sets it shares files
with. All settings of a set are evaluated one after the other on the same cache, so that a network's passes, and
distances that don't depend on what differs, are computed once.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Int64

from medfsad_bench.errors import MethodError
from medfsad_bench.info import MethodInfo
from medfsad_bench.method import Images
from medfsad_bench.metrics.image import auroc_score
from medfsad_bench.registry import configure
from medfsad_bench.results.run_folder import RunFolder
from medfsad_bench.runner.held_out import sources_for
from medfsad_bench.runner.images import Batches
from medfsad_bench.runner.opened import OpenCell, Progress, opened
from medfsad_bench.runner.plan import Cell, cells
from medfsad_bench.runner.runner import Runner
from medfsad_bench.runner.scoring import pooled_scores, score_batches
from medfsad_bench.runner.training import train
from medfsad_bench.store import Dataset
from medfsad_bench.store.composition import SMALL, is_small, table_compositions

_STAGE = "tuning"
_SHOWN_BYTES = 1 << 30  # some 1,300 images of 256 px
Settings = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Choice:
    """Settings chosen for a target at K shots.

    Attributes:
        target: Its name.
        shots: K.
        grid: Settings in their order.
        aurocs: By set, the AUROC of each setting, mean over draws; the target is none of them.
        digests: Membership digests of these sets.
        left_out: Sets that may serve and don't, with the reason.
    """

    target: str
    shots: int
    grid: Sequence[Settings]
    aurocs: Mapping[str, Float64[np.ndarray, " settings"]]
    digests: Mapping[str, str]
    left_out: Mapping[str, str]

    @property
    def means(self) -> Float64[np.ndarray, " settings"]:
        """Mean AUROC over the sets, of each setting."""
        return np.mean(list(self.aurocs.values()), axis=0)

    @property
    def best(self) -> int:
        """Position of the setting with the highest mean; of equals the first."""
        return int(np.argmax(self.means))

    @property
    def record(self) -> dict[str, Any]:
        """On what and among what the settings were chosen: part of the run's identity."""
        values = {name: list(dict.fromkeys(point[name] for point in self.grid)) for name in self.grid[0]}
        return {"on": dict(self.digests), "grid": values}


def settings_grid(
    info: MethodInfo, *, preset: str, settings: Settings, grid: Mapping[str, Sequence[Any]]
) -> list[dict[str, Any]]:
    """Every combination of a grid's values, each of its field's type.

    Args:
        info: The method.
        preset: Of its config.
        settings: Those that stay as they are.
        grid: Values by field; if empty, the method's own grid.

    Raises:
        MethodError: If there is no grid, a value isn't of its field's type, stands twice or contradicts others, or a
            field is set beside.
    """
    grid = grid or info.grid
    if not grid:
        names = ", ".join(field.name for field in dataclasses.fields(info.config)) or "none"
        raise MethodError(
            f"Method {info.name!r} has no grid of its own, so nothing says among what to choose. Give one, such as "
            f"--grid name=value|value; its settings are {names}."
        )
    if both := sorted(set(grid) & set(settings)):
        raise MethodError(f"{both[0]!r} is set by --set, --backbone or --weights, and in the grid too. Leave out one.")
    points = []
    for values in itertools.product(*grid.values()):
        point = dict(zip(grid, values, strict=True))
        config = configure(info, preset=preset, settings={**settings, **point})
        points.append({name: getattr(config, name) for name in grid})
    for number, point in enumerate(points):
        if point in points[:number]:
            raise MethodError(f"Of the grid, {settings_text(point)} stands twice. Give each value of a setting once.")
    return points


def settings_text(settings: Settings) -> str:
    """Settings as `--set` takes them.

    >>> settings_text({"stages": (2, 3), "top_fraction": 0.05})
    'stages=2,3 top_fraction=0.05'
    """
    texts = {
        name: ",".join(map(str, value)) if isinstance(value, tuple) else str(value) for name, value in settings.items()
    }
    return " ".join(f"{name}={text}" for name, text in texts.items())


def choose(cell: Cell, grid: Sequence[Settings], sets: Sequence[Dataset], runner: Runner, progress: Progress) -> Choice:
    """Choose settings for a cell's target, by what they reach on other sets.

    Args:
        cell: Method, target, K and options.
        grid: From `settings_grid`.
        sets: All prepared sets.
        runner: Whose device and cache are used.
        progress: Told of each set and of training.

    Raises:
        MethodError: If no other set can serve.
    """
    others = sources_for(cell.target, sets, cell.options.hold_out)
    by_set = {other.name: [_candidate(cell, other, point, sets, others) for point in grid] for other in others}
    left_out = {name: reason for name, candidates in by_set.items() if (reason := _first_reason(candidates))}
    usable = [other for other in others if other.name not in left_out]
    small = [other.name for other in usable if is_small(table_compositions(other.table))]
    if len(small) < len(usable):
        left_out |= dict.fromkeys(small, SMALL)
    if not usable:
        reasons = "".join(f"; {name}: {reason}" for name, reason in left_out.items())
        raise MethodError(
            f"No set is left to choose settings for {cell.target.name} on{reasons}. Prepare another set of the "
            "benchmark, or set them by hand: `medfsad run --set name=value`."
        )
    runner.announce(candidate for candidates in by_set.values() for candidate in candidates)
    chosen_on = [other for other in usable if other.name not in left_out]
    return Choice(
        cell.target.name,
        cell.shots,
        grid,
        {other.name: _aurocs(by_set[other.name], runner, progress) for other in chosen_on},
        {other.name: str(other.attributes["membership_digest"]) for other in chosen_on},
        left_out,
    )


def chosen_cell(cell: Cell, choice: Choice, sets: Sequence[Dataset]) -> Cell:
    """The cell with the settings that were chosen, which says how."""
    settings = {**cell.options.settings, **choice.grid[choice.best]}
    options = dataclasses.replace(cell.options, settings=settings, chosen=choice.record)
    (chosen,) = cells(cell.info, [cell.target], sets, [cell.shots], options)
    return chosen


def _candidate(
    cell: Cell, other: Dataset, point: Settings, sets: Sequence[Dataset], allowed: Sequence[Dataset]
) -> Cell:
    """A setting on another set, trained on nothing that the target must not be trained on; thresholds aren't asked."""
    options = dataclasses.replace(cell.options, settings={**cell.options.settings, **point})
    (candidate,) = cells(cell.info, [other], sets, [cell.shots], options)
    paths = {dataset.path for dataset in allowed}
    sources = tuple(source for source in candidate.sources if source.path in paths)
    return dataclasses.replace(candidate, sources=sources, references=())


def _first_reason(candidates: Sequence[Cell]) -> str:
    return next((candidate.absent for candidate in candidates if candidate.absent), "")


def _aurocs(candidates: Sequence[Cell], runner: Runner, progress: Progress) -> Float64[np.ndarray, " settings"]:
    """Mean AUROC over draws of each setting on one set."""
    folders = [RunFolder(candidate.options.runs / _STAGE / candidate.run_id) for candidate in candidates]
    pairs = zip(candidates, folders, strict=True)
    missing = [(candidate, folder) for candidate, folder in pairs if 0 not in folder.kept(_STAGE)]
    if missing:
        stage = f"settings on {candidates[0].target.name}"
        with opened(missing[0][0], runner.device, runner.cache, progress) as first:
            order, batches = _shuffled(first)
            shown = batches.kept(_SHOWN_BYTES)
            for number, (candidate, folder) in enumerate(missing, start=1):
                run = dataclasses.replace(first, cell=candidate, method=candidate.info.build(candidate.config))
                with folder.lock():
                    train(run)
                    aurocs = _aurocs_of_draws(run, order, shown)
                    if not batches.are(shown):
                        raise MethodError(
                            f"{candidate.info.name} changes the images that it is given, which other settings are "
                            "given, too. Work on a copy of them (images.clone())."
                        )
                    folder.keep(_STAGE, 0, {"auroc": aurocs})
                progress(stage, number, len(missing), {})
    return np.array([folder.kept(_STAGE)[0]["auroc"].mean() for folder in folders])


def _shuffled(run: OpenCell) -> tuple[Int64[np.ndarray, " n"], Batches]:
    """The order in which all settings and draws of a set go through its queries, and these in batches."""
    order = np.random.default_rng([run.cell.options.seed, 20]).permutation(len(run.queries))
    return order, Batches(run.queries, torch.from_numpy(order).split(run.cell.options.batch_size))


def _aurocs_of_draws(
    run: OpenCell, order: Int64[np.ndarray, " n"], batches: Iterable[Images]
) -> Float64[np.ndarray, " draws"]:
    anomalous = run.cell.target.table["label"].to_numpy(bool)[run.cell.episodes.queries[order]]
    aurocs = []
    for draw in range(run.cell.options.draws):
        _, parts = score_batches(run, draw, batches)
        scores = np.concatenate([pooled_scores(part, run.queries.shape[-1]) for part in parts])
        aurocs.append(auroc_score(scores, anomalous))
    return np.array(aurocs)
