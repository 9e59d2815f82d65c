"""A cell that is ready to compute: what every stage needs that trains a method or scores with it."""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from medfsad_bench.errors import MethodError
from medfsad_bench.info import ABNORMAL_SUPPORTS
from medfsad_bench.method import AbnormalShotMethod, Backbone, Method
from medfsad_bench.runner.callbacks import SILENT, RunCallback
from medfsad_bench.runner.context import LocalContext, denormals_flushed
from medfsad_bench.runner.features import FeatureCache
from medfsad_bench.runner.images import shown_images, stored_images
from medfsad_bench.runner.plan import Cell
from medfsad_bench.runner.sources import reference_rows
from medfsad_bench.runner.stored_features import FileImages
from medfsad_bench.store import Dataset

Progress = Callable[[str, int, int, dict[str, float]], None]  # stage, steps done, steps in all, numbers to show
_COSTLY = ("batch_size", "size_px", "train_shots", "shots")  # settings that memory grows with, by convention of name


@dataclass(frozen=True, slots=True)
class OpenCell:
    """A cell with its method built and its queries at hand.

    Attributes:
        cell: What is run.
        method: As it was built, untrained.
        context: Lent to the method.
        queries: Images of the queries as they are stored, on the device.
        progress: Told of training and scoring.
        callback: Told of epochs and draws.
    """

    cell: Cell
    method: Method
    context: LocalContext
    queries: UInt8[Tensor, "n 3 h w"]
    progress: Progress
    callback: RunCallback = SILENT

    def bound(self, draw: int) -> Method:
        """The method with the draw's abnormal supports, or as it is where it declares that it knows none.

        Raises:
            MethodError: If it declares them and takes none.
        """
        episodes = self.cell.episodes
        if not episodes.abnormal:
            return self.method
        if not isinstance(self.method, AbnormalShotMethod):
            raise MethodError(
                f"{type(self.method).__name__} declares that it knows {ABNORMAL_SUPPORTS}, and takes none. Derive it "
                "from AbnormalShotMethod, or leave them out of its MethodInfo.knowledge."
            )
        return self.method.bound(shown_images(episodes.dataset, episodes.abnormal_support(draw), self.context.device))


@contextmanager
def opened(
    cell: Cell,
    device: torch.device,
    cache: FeatureCache,
    progress: Progress,
    callback: RunCallback = SILENT,
) -> Iterator[OpenCell]:
    """Open a cell; meanwhile tiny numbers count as 0, and running out of memory is told in one paragraph.

    Args:
        cell: What is run.
        device: Where to compute.
        cache: Of features.
        progress: Told of training and scoring.
        callback: Told of stages, epochs and draws.

    Raises:
        MethodError: If memory runs out in the block.
    """
    context = LocalContext(device, cell.options.seed, cache)
    stages: set[str] = set()

    def told(stage: str, done: int, total: int, numbers: dict[str, float]) -> None:
        if stage not in stages:
            stages.add(stage)
            callback.on_stage(cell, stage, total)
        progress(stage, done, total, numbers)

    context.on_progress = lambda done, total, numbers: told("training", done, total, numbers)
    with memory_told(device, cell.config), denormals_flushed():
        queries = stored_images(cell.target, cell.episodes.queries, device)
        set_names = {_digest(dataset): dataset.name for dataset in (cell.target, *cell.references, *cell.sources)}

        def images() -> list[FileImages]:
            return list(_images_asked_for(cell, queries))

        def on_features(done: int, total: int) -> None:
            told("features", done, total, {})

        with cache.expecting(set_names, images, on_features):
            if isinstance(announced := getattr(cell.config, "features", None), Backbone):
                cache.bring(announced, _digest(cell.target))
            yield OpenCell(cell, cell.info.build(cell.config), context, queries, told, callback)


def _images_asked_for(cell: Cell, queries: UInt8[Tensor, "n 3 h w"]) -> Iterator[FileImages]:
    """Images of prepared files that a run shows its method: of the target, and those that thresholds are set from."""
    episodes, draws = cell.episodes, range(cell.options.draws)
    supports = [episodes.support(draw) for draw in draws]
    supports += [episodes.abnormal_support(draw) for draw in draws if episodes.abnormal]
    yield FileImages(_digest(cell.target), queries)
    rows = {cell.target: np.unique(np.concatenate(supports))}
    rows |= {reference: np.concatenate(reference_rows(reference, cell.shots)) for reference in cell.references}
    for dataset, of_dataset in rows.items():
        yield FileImages(_digest(dataset), stored_images(dataset, of_dataset, queries.device))


def _digest(dataset: Dataset) -> str:
    return str(dataset.attributes["content_digest"])


@contextmanager
def memory_told(device: torch.device, config: Any) -> Iterator[None]:
    """Turn running out of memory into one paragraph that names the settings to lower."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        text = str(error)
        on_device = isinstance(error, torch.OutOfMemoryError)
        if not on_device and not isinstance(error, MemoryError) and "can't allocate memory" not in text:
            raise
        values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
        levers = [f"--set {name}=… (now {values[name]})" for name in _COSTLY if values.get(name) is not None]
        detail = text.splitlines()[0] if text else type(error).__name__
        raise MethodError(
            f"Out of memory on {device} ({detail}). Lower "
            f"{', '.join(levers) or 'the size of the prepared images (prepare --size)'}, or choose a smaller "
            "--backbone: either makes another run. Or take a device with more memory, for which finished epochs and "
            "draws are kept."
        ) from error
