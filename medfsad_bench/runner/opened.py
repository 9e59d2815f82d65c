"""A cell that is ready to compute: what every stage needs that trains a method or scores with it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from medfsad_bench.method import Method
from medfsad_bench.runner.context import LocalContext, denormals_flushed
from medfsad_bench.runner.features import FeatureCache
from medfsad_bench.runner.images import EpisodeImages
from medfsad_bench.runner.memory import memory_told
from medfsad_bench.runner.plan import Cell

Progress = Callable[[str, int, int, dict[str, float]], None]  # stage, steps done, steps in all, numbers to show


@dataclass(frozen=True, slots=True)
class OpenCell:
    """A cell with its method built and its target's images at hand.

    Attributes:
        cell: What is run.
        method: As it was built, untrained.
        context: Lent to the method.
        images: Of the target's episodes.
        progress: Told of training and scoring.
    """

    cell: Cell
    method: Method
    context: LocalContext
    images: EpisodeImages
    progress: Progress


@contextmanager
def opened(cell: Cell, device: torch.device, cache: FeatureCache, progress: Progress) -> Iterator[OpenCell]:
    """Open a cell; meanwhile tiny numbers count as 0, and running out of memory is told in one paragraph.

    Args:
        cell: What is run.
        device: Where to compute.
        cache: Of features.
        progress: Told of training and scoring.

    Raises:
        MethodError: If memory runs out in the block.
    """
    context = LocalContext(device, cell.options.seed, cache)
    context.on_progress = lambda done, total, numbers: progress("training", done, total, numbers)
    with memory_told(device, cell.config), denormals_flushed():
        images = EpisodeImages(cell.episodes, device, seed=cell.options.seed)
        yield OpenCell(cell, cell.info.build(cell.config), context, images, progress)
