"""From stored pixels to what a method sees: the one place where images become tensors on the run's device."""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from medfsad_bench.episodes import Episodes
from medfsad_bench.errors import MethodError
from medfsad_bench.info import ABNORMAL_SUPPORTS
from medfsad_bench.method import AbnormalShotMethod, Images, Method
from medfsad_bench.store import Dataset


def stored_images(dataset: Dataset, rows: Int64[np.ndarray, " n"], device: torch.device) -> UInt8[Tensor, "n 3 h w"]:
    """Images of a prepared file on the device, as they are stored."""
    return torch.from_numpy(dataset.images(rows)).permute(0, 3, 1, 2).contiguous().to(device)


def as_float(images: UInt8[Tensor, "n 3 h w"]) -> Images:
    """Stored 8 bits as a method sees them: in [0, 1]."""
    return images.float() / 255


class EpisodeImages:
    """The images of a target's episodes on the device, and the order in which queries are shown.

    Args:
        episodes: Who takes part.
        device: Where images go.
        seed: Of the order.

    Attributes:
        episodes: As given.
        size_px: Edge of the images.
    """

    def __init__(self, episodes: Episodes, device: torch.device, *, seed: int) -> None:
        self.episodes = episodes
        self.size_px = int(episodes.dataset.attributes["size_px"])
        self._device = device
        self._queries = stored_images(episodes.dataset, episodes.queries, device)
        self._order = torch.from_numpy(np.random.default_rng([seed, 20]).permutation(len(episodes.queries)))

    def batches(self, batch_size: int) -> Iterator[tuple[Int64[Tensor, " b"], Images]]:
        """Positions among the queries and their images, shuffled so that no batch is of one class."""
        for positions in self._order.split(batch_size):
            yield positions, self.queries(positions)

    def queries(self, positions: Int64[Tensor, " b"]) -> Images:
        """Queries by their position among them."""
        return as_float(self._queries[positions.to(self._device)])

    def support(self, draw: int) -> Images:
        """The K supports of a draw."""
        return self.of_rows(self.episodes.support(draw))

    def of_rows(self, rows: Int64[np.ndarray, " n"]) -> Images:
        """Any images of the target by their rows."""
        return as_float(stored_images(self.episodes.dataset, rows, self._device))

    def bound(self, method: Method, draw: int) -> Method:
        """The method with the draw's abnormal supports, or as it is where it declares that it knows none.

        Raises:
            MethodError: If it declares them and takes none.
        """
        if not self.episodes.abnormal:
            return method
        if not isinstance(method, AbnormalShotMethod):
            raise MethodError(
                f"{type(method).__name__} declares that it knows {ABNORMAL_SUPPORTS}, and takes none. Derive it from "
                "AbnormalShotMethod, or leave them out of its MethodInfo.knowledge."
            )
        return method.bound(self.of_rows(self.episodes.abnormal_support(draw)))
