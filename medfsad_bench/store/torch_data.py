"""Prepared sets for PyTorch: images with labels, and episodes, both at home in a `DataLoader` with workers.

An open HDF5 file must not be shared between processes, so none is kept open: a batch opens the file and closes it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.utils import data

from medfsad_bench.store.dataset import Dataset

Transform = Callable[[Tensor], Any]


class TorchImages(data.Dataset[tuple[Any, int]]):
    """Images of a prepared set with their labels: float32 (3, h, w) in [0, 1], and 1 for anomalous, 0 for normal.

    Args:
        dataset: The prepared set.
        rows: Which of its images, in this order.
        transform: Applied to each image; None leaves it.
    """

    def __init__(self, dataset: Dataset, rows: Int64[np.ndarray, " n"], transform: Transform | None = None) -> None:
        self.dataset, self.rows, self.transform = dataset, rows, transform
        self._labels = dataset.labels[rows]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        """The image at a position, and its label.

        Raises:
            StoreError: If it can't be read.
        """
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Any, int]]:
        """Several images with their labels: what a `DataLoader` asks for, a batch at a time."""
        stored = torch.from_numpy(self.dataset.images(self.rows[list(indices)]))
        images = stored.permute(0, 3, 1, 2).float() / 255
        shown = images if self.transform is None else map(self.transform, images)
        return list(zip(shown, self._labels[list(indices)].astype(int).tolist(), strict=True))


@dataclass(frozen=True, slots=True)
class TorchEpisode:
    """One draw of supports with all queries.

    Attributes:
        draw: Which draw.
        support: The K normal images, float32 in [0, 1].
        queries: The test images with their labels, read as they are asked for; a `DataLoader` takes them.
    """

    draw: int
    support: Float[Tensor, "shots 3 h w"]
    queries: TorchImages


class TorchEpisodes(data.Dataset[TorchEpisode]):
    """The episodes of a prepared set at K shots, one per stored draw; give a `DataLoader` `batch_size=None`.

    Args:
        dataset: The target.
        shots: K.
        transform: Applied to each image; it returns tensors of one shape, and is no lambda, as workers send episodes
            from process to process.

    Raises:
        StoreError: If the set has fewer training groups than K.
    """

    def __init__(self, dataset: Dataset, shots: int, transform: Transform | None = None) -> None:
        self.dataset, self.shots, self.transform = dataset, shots, transform
        dataset.episode(0, shots)  # says at once where there is none

    def __len__(self) -> int:
        return len(self.dataset.episodes)

    def __getitem__(self, draw: int) -> TorchEpisode:
        """The episode of a draw."""
        if not 0 <= draw < len(self):
            raise IndexError(draw)  # by which a loop over a sequence ends
        episode = self.dataset.episode(draw, self.shots)
        images = TorchImages(self.dataset, episode.support, self.transform)
        support = torch.stack([images[position][0] for position in range(len(images))])
        return TorchEpisode(draw, support, TorchImages(self.dataset, episode.queries, self.transform))
