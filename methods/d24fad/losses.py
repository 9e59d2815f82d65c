"""The two losses, on flattened maps, and the anomaly map, position by position."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

Scales = Sequence[Float[Tensor, "n _c _h _w"]]
Loss = Callable[[Scales, Scales], Tensor]


def cosine_loss(a: Scales, b: Scales) -> Float[Tensor, ""]:
    """Σ over scales of the batch's mean of 1 − cos(vec a, vec b)."""
    scales = [
        (1 - functional.cosine_similarity(x.flatten(1), y.flatten(1), dim=1)).mean() for x, y in zip(a, b, strict=True)
    ]
    return torch.stack(scales).sum()


def residual_map(a: Scales, b: Scales, size_px: int) -> Float[Tensor, "n s s"]:
    """Σ over scales of 1 − cos at every position, enlarged to `size_px` (bilinear, corners aligned)."""
    distances = [1 - functional.cosine_similarity(x, y, dim=1)[:, None] for x, y in zip(a, b, strict=True)]
    size = (size_px, size_px)
    first, *others = (functional.interpolate(d, size, mode="bilinear", align_corners=True) for d in distances)
    return sum(others, first)[:, 0]
