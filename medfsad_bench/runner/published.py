"""The protocol `published`: what the public reference implementation of D²4FAD does at test time, to the letter.

    order      anomalous images first, each class sorted by id, as in the reference's folders
    smoothing  Gaussian over batches of 16 maps as one stack, so that maps of neighbours in that order mix
    drop       the last, incomplete batch is never scored
    scores     min-max over all maps of the test set, then the maximum of each map
    epoch      the one with the best AUROC on the test set
    draw       one

It exists to show what these habits do to an estimate. Its rows are marked and never rank. A method has to give maps.
"""

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64

from medfsad_bench.episodes import Episodes
from medfsad_bench.errors import MethodError, UnfitMethodError
from medfsad_bench.metrics.image import auroc_score
from medfsad_bench.results.run_folder import RunFolder
from medfsad_bench.results.tables import DrawScores
from medfsad_bench.runner.images import Batches
from medfsad_bench.runner.opened import OpenCell
from medfsad_bench.runner.scoring import Scored, score_batches
from medfsad_bench.runner.training import train

SIZE_PX, BATCH, SIGMA_PX = 128, 16, 4.0  # the reference's image size, test batch and smoothing
DRAW = 0
_STRICT = "Score it by `medfsad run --protocol strict`"


def score_published(run: OpenCell, folder: RunFolder) -> Scored:
    """Train, look at the test set after every epoch, and take the best one: what the reference does.

    Scores of every epoch are kept on disk as they come, so that a broken run goes on.

    Raises:
        MethodError: If the method gives no maps, or trains and never tells the end of an epoch, or there are fewer
            queries than a batch.
    """
    cell = run.cell
    rows = whole_batches(cell.episodes)
    anomalous = cell.target.table["label"].to_numpy(bool)[rows]

    def evaluate(epoch: int) -> None:  # epoch 0 stands for weights that aren't trained here
        maps, draw = raw_maps(run, DRAW)
        scores = draw.columns["score"] = published_scores(reference_size(maps))
        folder.keep("epochs", epoch, draw.arrays())
        folder.log("epoch", number=epoch, test_auroc=auroc_score(scores, anomalous))

    folder.restart_if_torn("epochs", folder.path / "training")
    trained = train(run, folder=folder.path / "training", on_epoch=evaluate)
    has_epochs = cell.trains and cell.options.checkpoint is None and getattr(cell.config, "epochs", None) != 0
    if not has_epochs and not folder.kept("epochs"):
        evaluate(0)
    epochs = {number: DrawScores.of_arrays(arrays) for number, arrays in folder.kept("epochs").items()}
    if not epochs:
        raise UnfitMethodError(
            f"Protocol published picks an epoch, and {cell.info.name} never told the end of one (context.epoch_end). "
            f"{_STRICT}."
        )
    best = max(epochs, key=lambda number: (auroc_score(epochs[number].columns["score"], anomalous), -number))
    run.callback.on_draw(cell, DRAW, auroc_score(epochs[best].columns["score"], anomalous))
    absent = "protocol published states image estimates alone"
    return Scored(trained, [epochs[best]], rows, absent=absent, selected_epoch=best)


def class_order(episodes: Episodes) -> Int64[np.ndarray, " n"]:
    """Positions among the queries: anomalous images first, each class sorted by id."""
    queries = episodes.dataset.table.iloc[episodes.queries].reset_index(drop=True)
    return queries.sort_values(["label", "id"], ascending=[False, True]).index.to_numpy(np.int64, copy=True)


def whole_batches(episodes: Episodes) -> Int64[np.ndarray, " m"]:
    """Rows of the queries in class order, the last incomplete batch left out.

    Raises:
        MethodError: If nothing is left.
    """
    order = class_order(episodes)
    if len(order) < BATCH:
        raise MethodError(
            f"Protocol published scores whole batches of {BATCH} images, and {episodes.dataset.name} has {len(order)} "
            f"queries. {_STRICT}, or choose another target."
        )
    return episodes.queries[order[: without_last(len(order))]]


def raw_maps(run: OpenCell, draw: int) -> tuple[Float32[torch.Tensor, "n mh mw"], DrawScores]:
    """The method's maps of all queries in class order, as it gave them, and how long they took.

    Raises:
        UnfitMethodError: If it gives no maps.
    """
    batches = Batches(run.queries, torch.from_numpy(class_order(run.cell.episodes)).split(BATCH))
    timing, parts = score_batches(run, draw, batches)
    maps = [part.pixel.float().cpu() for part in parts if part.pixel is not None]
    if len(maps) < len(parts):
        raise UnfitMethodError(
            f"Protocol published smooths and pools anomaly maps, and this method gives none. {_STRICT}."
        )
    return torch.cat(maps), timing


def published_scores(maps: Float32[np.ndarray, "n h w"]) -> Float64[np.ndarray, " m"]:
    """Scores of the first m images in class order, from maps at the reference's size."""
    smooth = smoothed_across(maps[: without_last(len(maps))])
    low, high = float(smooth.min()), float(smooth.max())
    return (smooth.reshape(len(smooth), -1).max(1).astype(np.float64) - low) / max(high - low, 1e-30)


def reference_size(maps: torch.Tensor) -> Float32[np.ndarray, "n h w"]:
    """Maps at the reference's image size (bilinear)."""
    if maps.shape[1:] != (SIZE_PX, SIZE_PX):
        maps = torch.nn.functional.interpolate(maps[:, None], (SIZE_PX, SIZE_PX), mode="bilinear")[:, 0]
    return maps.numpy()


def smoothed_across(maps: Float32[np.ndarray, "n h w"]) -> Float32[np.ndarray, "n h w"]:
    """Every 16 maps smoothed as one stack, over the images too: the fault that this protocol shows."""
    from scipy.ndimage import gaussian_filter

    stacks = (maps[start : start + BATCH] for start in range(0, len(maps), BATCH))
    return np.concatenate([gaussian_filter(stack, sigma=SIGMA_PX) for stack in stacks])


def without_last(count: int) -> int:
    """How many of `count` images are scored: whole batches alone."""
    return count // BATCH * BATCH
