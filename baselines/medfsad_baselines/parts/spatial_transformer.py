"""A spatial transformer that turns and scales (Jaderberg et al., Spatial Transformer Networks, NIPS 2015)."""

import math
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

_POOLED = 4  # edge of the map that it looks at
_MOST_DEGREES, _MOST_SCALE = 45.0, 1.5


class SpatialTransformer(nn.Sequential):
    """From feature maps to two numbers an image, which stand for an angle and a scale; untrained, both for none."""

    def __init__(self, channels: int) -> None:
        super().__init__(
            *(nn.Conv2d(channels, 32, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(_POOLED), nn.Flatten()),
            *(nn.Linear(32 * _POOLED**2, 32), nn.ReLU(), nn.Linear(32, 2)),
        )
        last = cast(nn.Linear, self[-1])
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def matrices(self, maps: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 2 2"]:
        """Rotation and scale for each image, as a matrix from coordinates after to those before."""
        angle, scale = self(maps).tanh().unbind(1)
        angle, scale = angle * math.radians(_MOST_DEGREES), (scale * math.log(_MOST_SCALE)).exp()
        cos, sin = scale * angle.cos(), scale * angle.sin()
        return torch.stack([torch.stack([cos, -sin], 1), torch.stack([sin, cos], 1)], 1)
