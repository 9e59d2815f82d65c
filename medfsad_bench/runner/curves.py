"""What training is worth, epoch by epoch: AUROC under the strict protocol, and the losses, of one cell.

    untrained    the method before its first step
    epoch n      every few epochs and at the end, each with the mean of every loss over the epoch's steps
    controls     what the method's record names, such as the teacher alone
    published    which of these epochs the published protocol would take, by the test set

<runs>/curves/<run id>-every<n>/training/    the checkpoint, as that of any training
                                epochs/      scores of every draw
                                losses/      of every epoch

A curve that was broken off goes on with the next epoch. Its weights are those that `medfsad run` would make, and serve
it.
"""

import dataclasses
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from medfsad_bench.errors import UnfitMethodError
from medfsad_bench.estimates.estimate import REPLICATES, Estimate
from medfsad_bench.estimates.image import estimates_of_scores
from medfsad_bench.metrics.image import auroc_score
from medfsad_bench.metrics.metric import IMAGE_AUROC
from medfsad_bench.metrics.resample import group_keys, resampling
from medfsad_bench.registry import configure
from medfsad_bench.results.run_folder import RunFolder
from medfsad_bench.runner.opened import OpenCell, Progress, opened
from medfsad_bench.runner.plan import Cell
from medfsad_bench.runner.published import BATCH, DRAW, published_scores, raw_maps, reference_size, whole_batches
from medfsad_bench.runner.runner import Runner
from medfsad_bench.runner.scoring import score_draw
from medfsad_bench.runner.training import share_weights, train

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class Curve:
    """One training, seen from time to time.

    Attributes:
        target: Its name.
        shots: K.
        seed: Of the training.
        auroc: Strict, by epoch; epoch 0 is before the first step.
        published: AUROC of the published protocol by epoch; empty where the method gives no maps.
        losses: Means over the steps of an epoch, by epoch and name.
        controls: Strict AUROC by name.
    """

    target: str
    shots: int
    seed: int
    auroc: dict[int, Estimate]
    published: dict[int, float]
    losses: dict[int, dict[str, float]]
    controls: dict[str, Estimate]

    @property
    def picked(self) -> int | None:
        """The trained epoch that the published protocol would take, of those looked at; of equals the first."""
        trained = {epoch: auroc for epoch, auroc in self.published.items() if epoch}
        return max(trained, key=lambda epoch: (trained[epoch], -epoch)) if trained else None


def training_curve(cell: Cell, runner: Runner, *, every: int, progress: Progress) -> Curve:
    """Train the cell's method and look at it after every few epochs.

    Args:
        cell: Of a method that trains on sources.
        runner: Whose device and cache are used.
        every: Epochs between two looks.
        progress: Told of training and scoring.

    Raises:
        UnfitMethodError: If the method trains nothing here, or never tells the end of an epoch.
    """
    if not cell.trains or cell.options.checkpoint is not None:
        raise UnfitMethodError(
            f"{cell.info.name} trains nothing on other sets here, so its curve has no epochs. Name a method that does; "
            "`medfsad methods` says which."
        )
    folder = RunFolder(cell.options.runs / "curves" / f"{cell.run_id}-every{every}")
    weights = folder.path / "training"
    with folder.lock(), opened(cell, runner.device, runner.cache, progress) as run:
        folder.restart_if_torn("epochs", weights)
        if 0 not in folder.kept("epochs"):
            folder.keep("epochs", 0, _look(run))
        losses = _Losses(run)

        def look(epoch: int) -> None:
            folder.keep("losses", epoch, losses.means())
            if epoch % every == 0:
                folder.keep("epochs", epoch, _look(run))

        train(run, folder=weights, on_epoch=look)
        if not (of_epochs := folder.kept("losses")):
            raise UnfitMethodError(
                f"{cell.info.name} never told the end of an epoch (context.epoch_end), so it has no curve."
            )
        if max(of_epochs) not in folder.kept("epochs"):
            folder.keep("epochs", max(of_epochs), _look(run))
        for name, settings in cell.info.controls.items():
            if not folder.kept(f"control {name}"):
                folder.keep(f"control {name}", 0, _look(_control(run, settings)))
        share_weights(cell, weights)
    epochs = folder.kept("epochs")
    controls = {name: folder.kept(f"control {name}")[0] for name in cell.info.controls}
    return Curve(
        cell.target.name,
        cell.shots,
        cell.options.seed,
        {epoch: _estimate(cell, arrays) for epoch, arrays in epochs.items()},
        {epoch: float(arrays["published"]) for epoch, arrays in epochs.items() if "published" in arrays},
        {epoch: {name: float(value) for name, value in arrays.items()} for epoch, arrays in of_epochs.items()},
        {name: _estimate(cell, arrays) for name, arrays in controls.items()},
    )


class _Losses:
    """Listens to what training tells of its steps."""

    def __init__(self, run: OpenCell) -> None:
        self._figures: dict[str, list[float]] = defaultdict(list)
        self._shown = run.context.on_progress
        run.context.on_progress = self._listen

    def means(self) -> dict[str, np.ndarray]:
        """Of each figure since the last call."""
        means = {name: np.array(np.mean(values)) for name, values in self._figures.items()}
        self._figures.clear()
        return means

    def _listen(self, done: int, total: int, numbers: dict[str, float]) -> None:
        for name, value in numbers.items():
            self._figures[name].append(value)
        if self._shown is not None:
            self._shown(done, total, numbers)


def _look(run: OpenCell) -> dict[str, np.ndarray]:
    """Scores of every draw as the method is now, [draws, n], and its AUROC under the published protocol."""
    draws = run.cell.options.draws
    scores, with_maps = [], False
    for number in range(draws):
        draw = score_draw(run, number)
        scores.append(draw.columns["score"])
        with_maps = draw.of_maps
        run.progress("scoring", number + 1, draws, {})
    arrays = {"scores": np.stack(scores)}
    if with_maps and len(run.cell.episodes.queries) >= BATCH:
        maps, _ = raw_maps(run, DRAW)
        rows = whole_batches(run.cell.episodes)
        labels = run.cell.target.table["label"].to_numpy(bool)[rows]
        if labels.any() and not labels.all():
            arrays["published"] = np.array(auroc_score(published_scores(reference_size(maps)), labels))
    return arrays


def _control(run: OpenCell, settings: Mapping[str, object]) -> OpenCell:
    """The same cell with a method that isn't trained."""
    cell = run.cell
    wanted = {**cell.options.settings, **settings}
    config = configure(cell.info, preset=cell.options.preset, settings=wanted)
    if hasattr(config, "shots"):
        config = dataclasses.replace(config, shots=cell.shots)
    return dataclasses.replace(run, cell=dataclasses.replace(cell, config=config), method=cell.info.build(config))


def _estimate(cell: Cell, arrays: Arrays) -> Estimate:
    queries = cell.target.table.iloc[cell.episodes.queries]
    groups = group_keys(queries["group"].astype(str))
    anomalous = queries["label"].to_numpy(bool)
    resampled = resampling(groups, anomalous, replicates=REPLICATES, seed=cell.options.seed)
    return estimates_of_scores(arrays["scores"], anomalous, (IMAGE_AUROC,), resampled)[IMAGE_AUROC.name]
