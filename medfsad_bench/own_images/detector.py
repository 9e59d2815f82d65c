"""A method that has seen the supports: it scores images, and each support by a detector of the others."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Float64, UInt8
from torch import Tensor

from medfsad_bench.method import Images, Method, Scorer
from medfsad_bench.own_images.reading import Pixels
from medfsad_bench.runner.answers import scorer_of, scores_of
from medfsad_bench.runner.context import LocalContext
from medfsad_bench.runner.images import shown
from medfsad_bench.runner.maps import pooled, smooth_maps

_BATCH_PX = 32 * 256**2  # pixels shown to a method at once; a score doesn't depend on it
MOST_LEFT_OUT = 50  # supports, or patients or volumes of them: each costs an `adapt`


@dataclass(frozen=True, slots=True)
class Answer:
    """What a method says of n images.

    Attributes:
        scores: One per image; higher is more anomalous.
        maps: Smoothed, at the images' size; None where the method gives none.
        weights: How much each support counted, rows summing to 1; None where the method doesn't say.
    """

    scores: Float64[np.ndarray, " n"]
    maps: Float32[np.ndarray, "n s s"] | None
    weights: Float32[np.ndarray, "n k"] | None


@dataclass(frozen=True, slots=True)
class LeftOutAnswers:
    """What detectors that lack a group of supports say of it.

    Attributes:
        scores: Of each support; NaN where it wasn't left out.
        maps: Of those that were, in their order; None where the method gives none.
    """

    scores: Float64[np.ndarray, " k"]
    maps: Float32[np.ndarray, "m s s"] | None


class Detector:
    """A trained method adapted to supports."""

    def __init__(self, method: Method, context: LocalContext, support: Pixels, groups: Sequence[str]) -> None:
        """Adapt.

        Args:
            method: Trained, if it trains.
            context: Lent to it.
            support: Of K normal images.
            groups: What supports share that aren't independent, one per support.
        """
        self._method, self._context = method, context
        self._support = _on_device(support, context.device)
        self._groups = np.asarray(groups, object)
        self._scorer = scorer_of(method, _shown(self._support), context)

    def answer(self, pixels: Pixels) -> Answer:
        """Score images."""
        return self._answer(self._scorer, pixels)

    def left_out(self) -> LeftOutAnswers:
        """Leave each group of supports out once and score it; nothing where there are fewer than two groups."""
        names = list(dict.fromkeys(self._groups))
        scores = np.full(len(self._groups), np.nan)
        maps: list[np.ndarray] = []
        for name in names[:MOST_LEFT_OUT] if len(names) > 1 else []:
            of_group = np.flatnonzero(self._groups == name)
            others = torch.from_numpy(np.flatnonzero(self._groups != name))
            scorer = scorer_of(self._method, shown(self._support, others), self._context)
            pixels = self._support[torch.from_numpy(of_group)].permute(0, 2, 3, 1).cpu().numpy()
            answer = self._answer(scorer, pixels)
            scores[of_group] = answer.scores
            maps += [] if answer.maps is None else list(answer.maps)
        return LeftOutAnswers(scores, np.stack(maps) if maps else None)

    def _answer(self, scorer: Scorer, pixels: Pixels) -> Answer:
        step = batch_size(pixels.shape[1])
        starts = range(0, len(pixels), step)
        parts = [self._of_batch(scorer, pixels[start : start + step]) for start in starts]
        maps = [part.maps for part in parts if part.maps is not None]
        weights = [part.weights for part in parts if part.weights is not None]
        return Answer(
            np.concatenate([part.scores for part in parts]) if parts else np.zeros(0),
            np.concatenate(maps) if maps else None,
            np.concatenate(weights) if weights else None,
        )

    def _of_batch(self, scorer: Scorer, pixels: Pixels) -> Answer:
        images = _shown(_on_device(pixels, self._context.device))
        given = scores_of(scorer, images)
        maps = None if given.pixel is None else smooth_maps(given.pixel, images.shape[-1]).cpu().numpy()
        if given.image is not None:
            scores = given.image.double().cpu().numpy()
        else:
            assert maps is not None  # noqa: S101 - Scores has at least one of the two
            scores = pooled(maps)["score"]
        weights = None if given.support is None else given.support.float().cpu().numpy()
        return Answer(scores, maps, weights)


def batch_size(size_px: int) -> int:
    """How many images are shown to a method at once.

    >>> batch_size(256), batch_size(1024)
    (32, 2)
    """
    return max(1, _BATCH_PX // size_px**2)


def _on_device(pixels: Pixels, device: torch.device) -> UInt8[Tensor, "n 3 s s"]:
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))).to(device)


def _shown(stored: UInt8[Tensor, "n 3 s s"]) -> Images:
    return shown(stored, torch.arange(len(stored)))
