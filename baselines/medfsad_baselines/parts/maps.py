"""Maps of features and of scores: their shapes, distances between them, and the sizes they are brought to."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

Stages = Sequence[Float[Tensor, "n _c _h _w"]]
Shapes = Sequence[tuple[int, int, int]]  # channels, height and width of each stage


def shapes_of(stages: Stages) -> tuple[tuple[int, int, int], ...]:
    """Channels, height and width of each stage."""
    return tuple((stage.shape[1], stage.shape[2], stage.shape[3]) for stage in stages)


def cosine_distance(a: Float[Tensor, "n c h w"], b: Float[Tensor, "n c h w"]) -> Float[Tensor, "n h w"]:
    """1 − cos at each position: half the squared distance of the two vectors, each scaled to length 1."""
    return 1 - functional.cosine_similarity(a, b, dim=1)


def stage_maps(teacher: Stages, student: Stages, size_px: int) -> Float[Tensor, "_k n s s"]:
    """The cosine distances of each stage, all brought to one size."""
    return torch.stack([enlarged(cosine_distance(t, s), size_px) for t, s in zip(teacher, student, strict=True)])


def enlarged(maps: Float[Tensor, "n h w"], size_px: int) -> Float[Tensor, "n s s"]:
    """Maps at another size, bilinear."""
    size = (size_px, size_px)
    return functional.interpolate(maps[:, None], size, mode="bilinear", align_corners=False)[:, 0]


def top_mean(maps: Float[Tensor, "n h w"], fraction: float) -> Float[Tensor, " n"]:
    """Mean of the highest `fraction` of each map's positions, of one at least."""
    flat = maps.flatten(1)
    return flat.topk(max(1, round(fraction * flat.shape[1])), dim=1).values.mean(1)


def check_fraction(fraction: float) -> None:
    """Refuse a part of a map that isn't one, for the settings of a method.

    Raises:
        ValueError: If it isn't in (0, 1].
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"top_fraction is {fraction}; expected a part of the map's positions, in (0, 1]")


def squared_up(tokens: Float[Tensor, "n l"]) -> Float[Tensor, "n s s"]:
    """One value per token as maps, where the tokens fill a square row by row."""
    edge = round(tokens.shape[1] ** 0.5)
    return tokens.view(-1, edge, edge)
