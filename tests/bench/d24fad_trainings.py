"""Trainings of D²4FAD that leave the paper, for `beyond_d24fad.py`: other losses, and a student that sees more.

paper       as `medfsad run d24fad` trains
position    both losses compare features position by position, as the map does, and not whole maps at once
stages      the student sees all four stages of the teacher, on the grid of the last, and not the last alone
both        both
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from d24fad.detector import D24FAD
from d24fad.info import INFO
from d24fad.losses import Scales
from medfsad_bench.info import MethodInfo
from medfsad_bench.learning import Numbers, SourceImages
from medfsad_bench.method import Images, RunContext


def position_loss(a: Scales, b: Scales) -> Float[Tensor, ""]:
    """Σ over scales of the mean of 1 − cos over images and positions."""
    return torch.stack(
        [(1 - functional.cosine_similarity(x, y, dim=1)).mean() for x, y in zip(a, b, strict=True)]
    ).sum()


def with_all_seen(stages: Sequence[Float[Tensor, "n _c _h _w"]]) -> tuple[Tensor, ...]:
    """The stages, the last of which holds all: averaged to its grid, each of the same size at every position."""
    edge = stages[-1].shape[-1]
    pooled = [functional.adaptive_avg_pool2d(stage, edge) for stage in stages]
    even = [functional.normalize(stage, dim=1) * stage.shape[1] ** 0.5 for stage in pooled]
    return *stages[:-1], torch.cat(even, dim=1)


class SourceImagesOfAllStages(SourceImages):
    """What the student sees of training images is made of all stages."""

    def stages(self, numbers: Numbers, positions: Sequence[int] | None = None) -> tuple[Tensor, ...]:
        """See `with_all_seen`."""
        seen = with_all_seen(super().stages(numbers))
        return seen if positions is None else tuple(seen[position] for position in positions)


class PositionWise(D24FAD):
    """Losses position by position."""

    loss = staticmethod(position_loss)


class AllStages(D24FAD):
    """The student sees all stages."""

    source_images = SourceImagesOfAllStages

    def teacher(self, images: Images, context: RunContext) -> Sequence[Tensor]:
        """See `with_all_seen`."""
        return with_all_seen(super().teacher(images, context))


class Both(AllStages):
    """All stages, and losses position by position."""

    loss = staticmethod(position_loss)


def _varied(name: str, method: type[D24FAD]) -> MethodInfo:
    return replace(INFO, name=f"d24fad_{name}", build=method)


TRAININGS = {
    "paper": INFO,
    "position": _varied("position", PositionWise),
    "stages": _varied("stages", AllStages),
    "both": _varied("both", Both),
}
