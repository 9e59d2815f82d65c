"""What each habit of the published protocol does to a method's AUROC: same weights, same maps, one habit at a time.

    at 128 px   maps brought to 128 px and smoothed with σ = 4 px there; else at the images' size, σ in proportion
    across      maps smoothed over batches of 16 in class order; else each by itself
    best epoch  the epoch with the best AUROC on the test set; else the last one
    drop last   the last incomplete batch isn't scored; else every test image is
    one draw    the first support draw; else the mean over all

Scores are the maxima of smoothed maps in every line, also for a method that has image scores of its own.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64, Int64

from medfsad_bench.estimates.estimate import REPLICATES, Estimate, metric_estimate
from medfsad_bench.metrics.image import auroc_score
from medfsad_bench.metrics.interval import replicate
from medfsad_bench.metrics.metric import IMAGE_AUROC
from medfsad_bench.results.habits import FOLDER, HabitStudy, write_study
from medfsad_bench.results.run_folder import RunFolder
from medfsad_bench.runner.features import FeatureCache
from medfsad_bench.runner.maps import smooth_maps
from medfsad_bench.runner.opened import OpenCell, Progress, opened
from medfsad_bench.runner.plan import Cell
from medfsad_bench.runner.published import (
    BATCH,
    SIGMA_PX,
    SIZE_PX,
    class_order,
    raw_maps,
    whole_batches,
    without_last,
)
from medfsad_bench.runner.training import train


@dataclass(frozen=True, slots=True)
class Habits:
    """Which habits of the published protocol are kept."""

    at_128_px: bool = False
    across: bool = False
    best_epoch: bool = False
    drop_last: bool = False
    one_draw: bool = False


PUBLISHED, STRICT = Habits(True, True, True, True, True), Habits()
CORRECTIONS = {
    "maps at the images' size": "at_128_px",
    "each map smoothed by itself": "across",
    "the last epoch": "best_epoch",
    "every image scored": "drop_last",
    "all draws": "one_draw",
}
_SCORES = "2"  # rises with what is kept of each epoch
LINES: dict[str, Habits] = {
    "published": PUBLISHED,
    **{f"published, but {text}": dataclasses.replace(PUBLISHED, **{name: False}) for text, name in CORRECTIONS.items()},
    "strict, but maps at 128 px": Habits(at_128_px=True),
    "strict, but maps smoothed across": Habits(across=True),
    "strict, but the best test epoch": Habits(best_epoch=True),
    "strict, but the last batch dropped": Habits(drop_last=True),
    "strict, but one draw": Habits(one_draw=True),
    "strict": STRICT,
}


Epoch = Mapping[str, Float64[np.ndarray, "draws n"]]  # scores in class order, by `_smoothing` of their maps


@dataclass(frozen=True, slots=True)
class Compared:
    """One target under all lines.

    Attributes:
        target: Its name.
        figures: AUROC by line.
        epochs: AUROC of every epoch, each map smoothed by itself and mean over draws.
        selected: The epoch that `published` picks.
    """

    target: str
    figures: dict[str, Estimate]
    epochs: list[float]
    selected: int


def compare_protocols(cell: Cell, device: torch.device, cache: FeatureCache, *, progress: Progress) -> Compared:
    """Train the cell's method once, look at every epoch under every line, and keep the figures for the board's pages.

    Raises:
        MethodError: If the method gives no maps, or there are fewer test images than a batch.
    """
    whole_batches(cell.episodes)
    folder = RunFolder(cell.options.runs / FOLDER / f"{cell.run_id}-{_SCORES}")
    with folder.lock(), opened(cell, device, cache, progress) as run:

        def evaluate(number: int) -> None:
            folder.keep("epochs", number, _epoch(run))

        folder.restart_if_torn("epochs", folder.path / "training")
        train(run, folder=folder.path / "training", on_epoch=evaluate)
        if not folder.kept("epochs"):
            evaluate(0)
    epochs = list(folder.kept("epochs").values())
    rows = cell.episodes.queries[class_order(cell.episodes)]
    anomalous, groups = cell.target.table["label"].to_numpy(bool)[rows], cell.target.group_numbers[rows]
    estimates = {name: _estimate(epochs, habits, anomalous, groups) for name, habits in LINES.items()}
    write_study(folder.path, _study(cell, estimates))
    curve = [float(_aurocs(epoch, STRICT, anomalous).mean()) for epoch in epochs]
    return Compared(cell.target.name, estimates, curve, _chosen(epochs, PUBLISHED, anomalous) + 1)


def _study(cell: Cell, figures: dict[str, Estimate]) -> HabitStudy:
    facts = cell.target.attributes
    return HabitStudy(
        method=cell.info.name,
        method_version=cell.info.version,
        preset=cell.options.preset,
        config=dataclasses.asdict(cell.config),
        target=cell.target.name,
        target_version=str(facts["version"]),
        benchmark=str(facts["benchmark"]),
        shots=cell.shots,
        draws=cell.options.draws,
        seed=cell.options.seed,
        figures=figures,
    )


def _epoch(run: OpenCell) -> Epoch:
    by_draw: list[dict[str, Float64[np.ndarray, " n"]]] = []
    for draw in range(run.cell.options.draws):
        maps, _ = raw_maps(run, draw)
        sizes = {True: SIZE_PX, False: run.queries.shape[-1]}
        by_draw.append(
            {
                _smoothing(habits): _highest(maps, sizes[habits.at_128_px], across=habits.across)
                for habits in itertools.starmap(
                    Habits, itertools.product((False, True), repeat=2)
                )  # of size and smoothing
            }
        )
        run.progress("scoring", draw + 1, run.cell.options.draws, {})
    return {smoothing: np.stack([scores[smoothing] for scores in by_draw]) for smoothing in by_draw[0]}


def _highest(maps: Float32[torch.Tensor, "n mh mw"], size_px: int, *, across: bool) -> Float64[np.ndarray, " n"]:
    """The maximum of each map at a size, smoothed in proportion to it, by itself or over the 16 of its batch too.

    A Gaussian over a stack is one over each map and then one over the images, so the second alone is the habit.
    """
    from scipy.ndimage import gaussian_filter1d

    highest = []
    for batch in maps.split(BATCH):
        stack = smooth_maps(batch, size_px).numpy()
        if across:
            stack = gaussian_filter1d(stack, SIGMA_PX, axis=0)
        highest.append(stack.max((1, 2)).astype(np.float64))
    return np.concatenate(highest)


def _smoothing(habits: Habits) -> str:
    return f"{'128 px' if habits.at_128_px else 'own size'}, {'across' if habits.across else 'each'}"


def _scores(epoch: Epoch, habits: Habits) -> Float64[np.ndarray, "kept_draws m"]:
    scores = epoch[_smoothing(habits)]
    scores = scores[:1] if habits.one_draw else scores
    return scores[:, : without_last(scores.shape[1])] if habits.drop_last else scores


def _aurocs(epoch: Epoch, habits: Habits, anomalous: Bool[np.ndarray, " n"]) -> Float64[np.ndarray, " kept_draws"]:
    scores = _scores(epoch, habits)
    return np.array([auroc_score(draw, anomalous[: scores.shape[1]]) for draw in scores])


def _chosen(epochs: Sequence[Epoch], habits: Habits, anomalous: Bool[np.ndarray, " n"]) -> int:
    """Position of the epoch that counts."""
    if not habits.best_epoch:
        return len(epochs) - 1
    return int(np.argmax([_aurocs(epoch, habits, anomalous).mean() for epoch in epochs]))


def _estimate(
    epochs: Sequence[Epoch], habits: Habits, anomalous: Bool[np.ndarray, " n"], groups: Int64[np.ndarray, " n"]
) -> Estimate:
    epoch = epochs[_chosen(epochs, habits, anomalous)]
    scores = _scores(epoch, habits)
    count = scores.shape[1]
    return metric_estimate(IMAGE_AUROC, replicate(scores, anomalous[:count], groups[:count], replicates=REPLICATES))
