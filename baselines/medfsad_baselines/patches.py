"""Patch features and their nearest neighbours: what the feature-based baselines share."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from medfsad_bench.method import Backbone


@dataclass(frozen=True)
class FeatureConfig:
    """Where features come from.

    Attributes:
        backbone: Feature network; a Wide ResNet-50-2 in most papers.
        weights: Local file in place of the hub.
        stages: Of the network, finest first.
        size_px: Edge to which images are resized; None keeps the prepared size.
    """

    backbone: str = "wide_resnet50_2.tv_in1k"
    weights: str | None = None
    stages: tuple[int, ...] = (2, 3)
    size_px: int | None = None

    @property
    def features(self) -> Backbone:
        """The network, for a sweep's cache, too."""
        return Backbone(self.backbone, self.stages, self.size_px, weights=self.weights)


def patch_grid(
    stages: Sequence[Float[Tensor, "n _ _ _"]],
    *,
    pool: int = 1,
    mode: Literal["bilinear", "nearest"] = "bilinear",
    edge: int | None = None,
) -> Float[Tensor, "n ph pw d"]:
    """One vector a patch: stages brought to one grid, and joined.

    Args:
        stages: Feature maps, the finest first.
        pool: Edge of the neighbourhood over which each stage is averaged first (PatchCore: 3); 1 for none.
        mode: How stages are brought to another grid.
        edge: Of the grid; None for that of the first stage.
    """
    pooled = [functional.avg_pool2d(stage, pool, 1, pool // 2) if pool > 1 else stage for stage in stages]
    size = pooled[0].shape[-2:] if edge is None else torch.Size((edge, edge))
    corners = False if mode == "bilinear" else None
    alike = [
        stage if stage.shape[-2:] == size else functional.interpolate(stage, size, mode=mode, align_corners=corners)
        for stage in pooled
    ]
    return torch.cat(alike, dim=1).permute(0, 2, 3, 1).contiguous()


class Bank:
    """Vectors of the support, ready to be searched.

    The squared distance |p − b|² is |p|² + (−2 p·b + |b|²). The bracket is one matrix product with a column more, and
    only its least value a row is looked for: on a CPU this takes half the time of distances to all and their minimum.
    Vectors are taken from their mean, so that little is lost by cancellation.

    Attributes:
        vectors: In an order that hangs on their values alone, so that the support's order doesn't matter.
    """

    def __init__(self, vectors: Float[Tensor, "m d"]) -> None:
        self.vectors = vectors[torch.argsort(vectors[:, 0], stable=True)]
        self._mean = self.vectors.mean(0)
        centred = self.vectors - self._mean
        self._factors = torch.cat([-2 * centred, centred.square().sum(1, keepdim=True)], dim=1).T.contiguous()

    def __len__(self) -> int:
        return len(self.vectors)

    def distances(self, patches: Float[Tensor, "p d"]) -> Float[Tensor, " p"]:
        """Euclidean distance of each patch to its nearest vector."""
        centred = patches - self._mean
        least = (_with_ones(centred) @ self._factors).amin(1)
        return (centred.square().sum(1) + least).clamp_min(0).sqrt()

    def nearest(self, patch: Float[Tensor, " d"]) -> Float[Tensor, " d"]:
        """The vector that is nearest to one patch."""
        return self.vectors[(_with_ones((patch - self._mean)[None]) @ self._factors)[0].argmin()]


def _with_ones(vectors: Float[Tensor, "p d"]) -> Float[Tensor, "p e"]:
    return functional.pad(vectors, (0, 1), value=1.0)
