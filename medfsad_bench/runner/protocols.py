"""What each habit of the published protocol does to a method's AUROC: same weights, same maps, one habit at a time.

    across      maps smoothed over batches of 16 in class order; else each by itself
    best epoch  the epoch with the best AUROC on the test set; else the last one
    drop last   the last incomplete batch isn't scored; else every test image is
    one draw    the first support draw; else the mean over all

Scores are the maxima of smoothed maps in every line, also for a method that has image scores of its own.
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from jaxtyping import Bool, Float64, Int64

from medfsad_bench.errors import MethodError
from medfsad_bench.estimates.estimate import REPLICATES, Estimate, mean_estimate
from medfsad_bench.method import Method
from medfsad_bench.metrics.image import auroc_score
from medfsad_bench.metrics.interval import bootstrap_interval
from medfsad_bench.runner.context import LocalContext, denormals_flushed
from medfsad_bench.runner.evaluate import Target
from medfsad_bench.runner.features import FeatureCache
from medfsad_bench.runner.maps import smooth_maps
from medfsad_bench.runner.plan import Cell
from medfsad_bench.runner.published import BATCH, class_order, raw_maps, reference_size, smoothed_across, without_last
from medfsad_bench.runner.runner import Progress
from medfsad_bench.runner.training import train


@dataclass(frozen=True, slots=True)
class Habits:
    """Which habits of the published protocol are kept."""

    across: bool = False
    best_epoch: bool = False
    drop_last: bool = False
    one_draw: bool = False


PUBLISHED, STRICT = Habits(True, True, True, True), Habits()
CORRECTIONS = {
    "each map smoothed by itself": "across",
    "the last epoch": "best_epoch",
    "every image scored": "drop_last",
    "all draws": "one_draw",
}
LINES: dict[str, Habits] = {
    "published": PUBLISHED,
    **{f"published, but {text}": dataclasses.replace(PUBLISHED, **{name: False}) for text, name in CORRECTIONS.items()},
    "strict, but maps smoothed across": Habits(across=True),
    "strict, but the best test epoch": Habits(best_epoch=True),
    "strict, but the last batch dropped": Habits(drop_last=True),
    "strict, but one draw": Habits(one_draw=True),
    "strict": STRICT,
}


@dataclass(frozen=True, slots=True)
class Epoch:
    """Scores of one epoch's weights, in class order.

    Attributes:
        each: From maps smoothed by themselves.
        across: From maps smoothed in stacks of 16.
    """

    each: Float64[np.ndarray, "draws n"]
    across: Float64[np.ndarray, "draws n"]


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
    """Train the cell's method once, and look at every epoch under every line.

    Raises:
        MethodError: If the method gives no maps, or there are fewer test images than a batch.
    """
    folder = cell.options.runs / "protocols" / cell.run_id
    folder.mkdir(parents=True, exist_ok=True)
    target = Target(cell.target, device, seed=cell.options.seed, pool=cell.pool)
    if len(target.rows) < BATCH:
        raise MethodError(
            f"{cell.target.name} has {len(target.rows)} test images, fewer than a batch of {BATCH}: under protocol "
            "published none of them is scored. Choose another target."
        )
    context = LocalContext(device, cell.options.seed, cache)
    context.on_progress = lambda done, total, figures: progress("training", done, total, figures)
    method = cell.info.build(cell.config)

    def evaluate(number: int) -> None:
        found = _epoch(method, target, context, cell, lambda done, total: progress("scoring", done, total, {}))
        temporary = folder / f".epoch{number:04d}.tmp.npz"
        np.savez(temporary, each=found.each, across=found.across)
        temporary.replace(folder / f"epoch{number:04d}.npz")

    with FileLock(folder / ".lock"), denormals_flushed():
        train(method, cell, context, folder=folder / "training", on_epoch=evaluate)
        if not any(folder.glob("epoch*.npz")):
            evaluate(0)
        epochs = [_read(path) for path in sorted(folder.glob("epoch*.npz"))]
    order = class_order(target)
    anomalous = cell.target.table["label"].to_numpy(bool)[target.rows[order]]
    groups = cell.target.group_numbers[target.rows[order]]
    figures = {name: _figure(epochs, habits, anomalous, groups) for name, habits in LINES.items()}
    curve = [float(_aurocs(epoch, STRICT, anomalous).mean()) for epoch in epochs]
    return Compared(cell.target.name, figures, curve, _chosen(epochs, PUBLISHED, anomalous) + 1)


def _epoch(
    method: Method, target: Target, context: LocalContext, cell: Cell, on_done: Callable[[int, int], None]
) -> Epoch:
    each, across = [], []
    done, total = itertools.count(), cell.options.draws
    for draw in range(total):
        maps, _ = raw_maps(method, target, context, draw=draw, shots=cell.shots)
        own = [smooth_maps(part, target.size_px).flatten(1).max(1).values for part in maps.split(64)]
        each.append(torch.cat(own).double().numpy())
        stacks = smoothed_across(reference_size(maps))
        across.append(stacks.reshape(len(stacks), -1).max(1).astype(np.float64))
        on_done(next(done) + 1, total)
    return Epoch(np.stack(each), np.stack(across))


def _read(path: Path) -> Epoch:
    with np.load(path, allow_pickle=False) as file:
        return Epoch(file["each"], file["across"])


def _scores(epoch: Epoch, habits: Habits) -> Float64[np.ndarray, "draws m"]:
    scores = epoch.across if habits.across else epoch.each
    scores = scores[:1] if habits.one_draw else scores
    return scores[:, : without_last(scores.shape[1])] if habits.drop_last else scores


def _aurocs(epoch: Epoch, habits: Habits, anomalous: Bool[np.ndarray, " n"]) -> Float64[np.ndarray, " draws"]:
    scores = _scores(epoch, habits)
    return np.array([auroc_score(draw, anomalous[: scores.shape[1]]) for draw in scores])


def _chosen(epochs: Sequence[Epoch], habits: Habits, anomalous: Bool[np.ndarray, " n"]) -> int:
    """Position of the epoch that counts."""
    if not habits.best_epoch:
        return len(epochs) - 1
    return int(np.argmax([_aurocs(epoch, habits, anomalous).mean() for epoch in epochs]))


def _figure(
    epochs: Sequence[Epoch], habits: Habits, anomalous: Bool[np.ndarray, " n"], groups: Int64[np.ndarray, " n"]
) -> Estimate:
    epoch = epochs[_chosen(epochs, habits, anomalous)]
    scores = _scores(epoch, habits)
    count = scores.shape[1]
    interval = bootstrap_interval(scores, anomalous[:count], groups[:count], replicates=REPLICATES)
    return mean_estimate(_aurocs(epoch, habits, anomalous), (interval.low, interval.high))
