"""From stored pixels to what a method sees: the one place where images become tensors on the run's device."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from medfsad_bench.method import Images
from medfsad_bench.runner.digests import inherit
from medfsad_bench.store import Dataset


@dataclass(frozen=True, slots=True)
class Batches:
    """Stored images batch by batch, as a method sees them; made anew whenever they are gone through.

    Attributes:
        stored: All of them, on the device.
        positions: Of each batch's, on the CPU.
    """

    stored: UInt8[Tensor, "n 3 h w"]
    positions: Sequence[Int64[Tensor, " _"]]

    def __iter__(self) -> Iterator[Images]:
        return (shown(self.stored, positions) for positions in self.positions)

    def kept(self, budget_bytes: int) -> Iterable[Images]:
        """The same, kept as they are made the first time if they fit the budget: for many passes over them."""
        fits = sum(map(len, self.positions)) * self.stored[0].numel() * 4 <= budget_bytes
        return list(self) if fits else self

    def are(self, kept: Iterable[Images]) -> bool:
        """Whether batches that were kept are what they were; those that are made anew can't be anything else."""
        return kept is self or all(torch.equal(*pair) for pair in zip(self, kept, strict=True))


def shown_images(dataset: Dataset, rows: Int64[np.ndarray, " n"], device: torch.device) -> Images:
    """Images of a prepared file on the device, as a method sees them: in [0, 1]."""
    return shown(stored_images(dataset, rows, device), torch.arange(len(rows)))


def stored_images(dataset: Dataset, rows: Int64[np.ndarray, " n"], device: torch.device) -> UInt8[Tensor, "n 3 h w"]:
    """Images of a prepared file on the device, as they are stored; they bring their digests."""
    pixels = np.ascontiguousarray(dataset.images(rows).transpose(0, 3, 1, 2))
    images = torch.from_numpy(pixels).to(device)
    inherit(images, pixels)
    return images


def shown(stored: UInt8[Tensor, "stored 3 h w"], positions: Int64[Tensor, " m"]) -> Images:
    """Some of the stored images, as a method sees them; they bring their digests.

    Args:
        stored: On the device, from `stored_images`.
        positions: Of those to show, on the CPU.
    """
    images = stored[positions.to(stored.device)].float().div_(255)  # in place: large tensors cost most by being new
    inherit(images, stored, positions.tolist())
    return images
