"""The protocol `published`: what the public reference implementation of D²4FAD does at test time, to the letter.

    order      anomalous images first, each class sorted by id, as in the reference's folders
    smoothing  Gaussian over batches of 16 maps as one stack, so that maps of neighbours in that order mix
    drop       the last, incomplete batch is never scored
    scores     min-max over all maps of the test set, then the maximum of each map
    epoch      the one with the best AUROC on the test set
    draw       one

It exists to show what these habits do to a figure. Its rows are marked and never rank. A method has to give maps.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64

from medfsad_bench.errors import MethodError
from medfsad_bench.method import Method
from medfsad_bench.metrics.image import auroc_score
from medfsad_bench.runner.context import LocalContext
from medfsad_bench.runner.evaluate import DrawScores, Target, now

SIZE_PX, BATCH, SIGMA_PX = 128, 16, 4.0  # the reference's image size, test batch and smoothing
DRAW = 0


def class_order(target: Target) -> Int64[np.ndarray, " n"]:
    """Positions among the target's test rows: anomalous images first, each class sorted by id."""
    test = target.dataset.table.iloc[target.rows].reset_index(drop=True)
    return test.sort_values(["label", "id"], ascending=[False, True]).index.to_numpy(np.int64, copy=True)


def raw_maps(
    method: Method,
    target: Target,
    context: LocalContext,
    *,
    draw: int,
    shots: int,
    on_batch: Callable[[int], None] = lambda _: None,
) -> tuple[torch.Tensor, DrawScores]:
    """The method's maps of all test images in class order, as it gave them, and how long they took.

    Raises:
        MethodError: If it gives no maps.
    """
    timing = DrawScores()
    started = now(context.device)
    scorer = target.bound(method, draw=draw, shots=shots).adapt(target.support(draw, shots), context)
    timing.adapt_s = now(context.device) - started
    parts = []
    for positions in torch.from_numpy(class_order(target)).split(BATCH):
        images = target.queries(positions)
        started = now(context.device)
        maps = scorer(images).pixel
        timing.score_s += now(context.device) - started
        if maps is None:
            raise MethodError(
                "Protocol published smooths and pools anomaly maps, and this method gives none. Run it under "
                "--protocol strict."
            )
        parts.append(maps.float().cpu())
        on_batch(len(positions))
    return torch.cat(parts), timing


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


def published_scores(maps: Float32[np.ndarray, "n h w"]) -> Float64[np.ndarray, " m"]:
    """Scores of the first m images in class order, from maps at the reference's size."""
    smooth = smoothed_across(maps[: without_last(len(maps))])
    low, high = float(smooth.min()), float(smooth.max())
    return (smooth.reshape(len(smooth), -1).max(1).astype(np.float64) - low) / max(high - low, 1e-30)


class PublishedRun:
    """Scores of every epoch, kept on disk as they come, so that a broken run goes on.

    Args:
        target: The target's test images.
        context: Of the run.
        folder: Of the run.
        shots: K.
    """

    def __init__(self, target: Target, context: LocalContext, folder: Path, *, shots: int) -> None:
        if len(target.rows) < BATCH:
            raise MethodError(
                f"Protocol published scores whole batches of {BATCH} images, and {target.dataset.name} has "
                f"{len(target.rows)} test images. Run it under --protocol strict."
            )
        self._target, self._context, self._folder, self._shots = target, context, folder, shots
        order = class_order(target)
        self.scored = order[: without_last(len(order))]
        self._anomalous = target.dataset.table["label"].to_numpy(bool)[target.rows[self.scored]]

    def evaluate(self, method: Method, epoch: int) -> float:
        """AUROC of the present weights on the test set; epoch 0 stands for weights that aren't trained here."""
        maps, timing = raw_maps(method, self._target, self._context, draw=DRAW, shots=self._shots)
        scores = published_scores(reference_size(maps))
        temporary = self._folder / f".epoch{epoch:04d}.tmp.npz"
        np.savez(temporary, score=scores, times=np.array([timing.adapt_s, timing.score_s]))
        temporary.replace(self._folder / f"epoch{epoch:04d}.npz")
        return auroc_score(scores, self._anomalous)

    def best(self) -> tuple[int, DrawScores]:
        """The epoch with the best AUROC on the test set, the earliest of equals, and its scores."""
        found: dict[int, DrawScores] = {}
        for path in sorted(self._folder.glob("epoch*.npz")):
            with np.load(path, allow_pickle=False) as file:
                adapt_s, score_s = (float(value) for value in file["times"])
                found[int(path.stem.removeprefix("epoch"))] = DrawScores(
                    {"score": file["score"]}, adapt_s=adapt_s, score_s=score_s
                )
        epoch = max(found, key=lambda number: (auroc_score(found[number].columns["score"], self._anomalous), -number))
        return epoch, found[epoch]

    @property
    def evaluated(self) -> bool:
        """Whether any epoch was."""
        return any(self._folder.glob("epoch*.npz"))
