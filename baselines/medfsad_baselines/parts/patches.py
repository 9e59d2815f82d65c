"""Patch features and their nearest neighbours: what the feature-based baselines share.

patch_grid           one vector per patch, from a network's stages
middle_grid          the same on the grid of the middle stage: finer stages are averaged
unit_grid            the same, each stage scaled to length 1 before they are joined
maps_to_supports     distances of an image's patches to those of each support image, kept for the next draw
unit_maps_to_each    the same by `unit_grid`
unit_maps            the same to the nearest patch of the whole support
nearest_distances    of each patch to the nearest vector of the support, as the papers write it
MemoryBank           the same, faster
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from medfsad_baselines.parts.maps import check_fraction
from medfsad_bench.method import Backbone, Images, RunContext

_BLOCK = 1024  # vectors: with as many patches, the product is 4 MiB


@dataclass(frozen=True)
class FeatureConfig:
    """Where features come from.

    Attributes:
        backbone: Feature network; a Wide ResNet-50-2 in most papers.
        weights: Local file in place of the hub.
        stages: Of the network, finest first; see `Backbone`.
        size_px: Edge to which images are resized; None keeps the prepared size.
    """

    backbone: str = "wide_resnet50_2.tv_in1k"
    weights: str | None = None
    stages: tuple[int | float, ...] = (2, 3)
    size_px: int | None = None

    @property
    def features(self) -> Backbone:
        """The network, for a sweep's cache, too."""
        return Backbone(self.backbone, self.stages, self.size_px, weights=self.weights)


@dataclass(frozen=True)
class DepthsConfig(FeatureConfig):
    """Three depths of a residual network; of a ViT take blocks of its upper half, such as 0.6, 0.8 and 1.0.

    Attributes:
        top_fraction: Of the map's positions, whose mean is the score.
    """

    stages: tuple[int | float, ...] = (2, 3, 4)
    top_fraction: float = 0.05

    def __post_init__(self) -> None:
        check_fraction(self.top_fraction)


def patch_grid(
    stages: Sequence[Float[Tensor, "n _ _ _"]],
    *,
    mode: Literal["bilinear", "nearest"] = "bilinear",
    edge: int | None = None,
) -> Float[Tensor, "n ph pw d"]:
    """One vector per patch: stages brought to one grid, and joined.

    Args:
        stages: Feature maps, the finest first.
        mode: How stages are brought to another grid.
        edge: Of the grid; None for that of the first stage.
    """
    size = stages[0].shape[-2:] if edge is None else torch.Size((edge, edge))
    corners = False if mode == "bilinear" else None
    resized = [
        stage if stage.shape[-2:] == size else functional.interpolate(stage, size, mode=mode, align_corners=corners)
        for stage in map(channels_last, stages)
    ]
    return torch.cat(resized, dim=1).permute(0, 2, 3, 1).contiguous()


def middle_grid(stages: Sequence[Float[Tensor, "n _ _ _"]]) -> Float[Tensor, "n ph pw d"]:
    """One vector per patch, on the grid of the middle stage, or of the coarser of two."""
    return torch.cat(_on_middle_grid(stages), dim=1).permute(0, 2, 3, 1).contiguous()


def unit_grid(stages: Sequence[Float[Tensor, "n _ _ _"]]) -> Float[Tensor, "n ph pw d"]:
    """The same, but every stage weighs the same.

    Each is scaled to length 1 over its channels, and the joined vector too, so that half the squared distance of two is
    1 − their mean cosine.
    """
    parts = [functional.normalize(part, dim=1) for part in _on_middle_grid(stages)]
    return (torch.cat(parts, dim=1) / len(stages) ** 0.5).permute(0, 2, 3, 1).contiguous()


def _on_middle_grid(stages: Sequence[Float[Tensor, "n _ _ _"]]) -> list[Float[Tensor, "n _c ph pw"]]:
    """Finer stages averaged over the patch, coarser ones interpolated (bilinear)."""
    height, width = stages[len(stages) // 2].shape[-2:]
    return [
        functional.adaptive_avg_pool2d(stage, (height, width))
        if stage.shape[-1] > width
        else functional.interpolate(stage, (height, width), mode="bilinear", align_corners=False)
        for stage in map(channels_last, stages)
    ]


def channels_last(stage: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """The same, each position's channels side by side: a CPU then pools, resizes and joins in a third of the time."""
    return stage.contiguous(memory_format=torch.channels_last)


def maps_to_supports(
    name: str,
    backbone: Backbone,
    grid: Callable[[Images], Float[Tensor, "n ph pw d"]],
    images: Images,
    support: Float[Tensor, "shots 3 h w"],
    context: RunContext,
) -> Float[Tensor, "n shots ph pw"]:
    """Distance of each patch of each image to the nearest patch of each support image; kept for the next draw.

    Args:
        name: Stands for `grid`.
        backbone: The stages that `grid` depends on.
        grid: From images to one vector per patch, each image by itself.
        images: A batch of n.
        support: K images.
        context: Keeps what an image and a support image have in common.
    """

    def maps(others: Images) -> Float[Tensor, "_queries n ph pw"]:
        banks = [MemoryBank(vectors.flatten(0, 1)) for vectors in grid(others)]
        return torch.stack([torch.stack([bank.distances_of(vectors) for bank in banks]) for vectors in grid(images)])

    return context.paired((name, backbone), images, support, maps)


def unit_maps_to_each(
    backbone: Backbone, images: Images, support: Float[Tensor, "shots 3 h w"], context: RunContext
) -> Float[Tensor, "n shots ph pw"]:
    """Distance of each patch to the nearest patch of each support image, over stages that weigh the same."""

    def grid(batch: Images) -> Float[Tensor, "n ph pw d"]:
        return unit_grid(context.features(backbone, batch))

    return maps_to_supports("unit grid", backbone, grid, images, support, context)


def unit_maps(
    backbone: Backbone, images: Images, support: Float[Tensor, "shots 3 h w"], context: RunContext
) -> Float[Tensor, "n ph pw"]:
    """The same to the nearest patch of the whole support."""
    return unit_maps_to_each(backbone, images, support, context).amin(1)


def nearest_distances(patches: Float[Tensor, "p d"], vectors: Float[Tensor, "m d"]) -> Float[Tensor, " p"]:
    """Euclidean distance of each patch to its nearest vector, min |p − b|; what `MemoryBank` does faster."""
    return torch.cdist(patches, vectors).amin(1)


class MemoryBank:
    """Vectors of the support, ready to be searched: `nearest_distances` for many patches.

    The squared distance |p − b|² is |p|² + (|b|² − 2 p·b). The bracket is a matrix product with an offset, and only its
    least value per row is needed; taken in blocks, it stays in a CPU's cache. The vectors' mean is subtracted first, so
    that little is lost by cancellation.

    Attributes:
        vectors: In an order that depends on their values alone, so that the support's order doesn't matter.
    """

    def __init__(self, vectors: Float[Tensor, "m d"]) -> None:
        self.vectors = vectors[torch.argsort(vectors[:, 0], stable=True)]
        self._mean = self.vectors.mean(0)
        blocks = (self.vectors - self._mean).split(_BLOCK)
        self._blocks = [(block.square().sum(1), (-2 * block).T.contiguous()) for block in blocks]

    def __len__(self) -> int:
        return len(self.vectors)

    def distances(self, patches: Float[Tensor, "p d"]) -> Float[Tensor, " p"]:
        """Euclidean distance of each patch to its nearest vector."""
        centred = patches - self._mean
        least = torch.stack([torch.addmm(offset, centred, factors).amin(1) for offset, factors in self._blocks])
        return (centred.square().sum(1) + least.amin(0)).clamp_min(0).sqrt()

    def distances_of(self, grid: Float[Tensor, "ph pw d"]) -> Float[Tensor, "ph pw"]:
        """`distances` of one image's patches, as a map."""
        return self.distances(grid.flatten(0, 1)).view(grid.shape[:2])

    def distances_of_grid(
        self, patches: Float[Tensor, "ph pw d"], stages: Sequence[Float[Tensor, "_ _ _"]]
    ) -> Float[Tensor, "ph pw"]:
        """`distances` of the patches that `patch_grid` made of one image's stages, in about half the time.

        A product with what was interpolated is the interpolated product, so a coarse stage is multiplied on its own
        grid, which has a fraction of the positions.
        """
        size, widths = patches.shape[:2], [len(stage) for stage in stages]
        grids = [stage.shape[1:] for stage in stages]
        means = self._mean.split(widths)
        centred = [stage.flatten(1).T - mean for stage, mean in zip(stages, means, strict=True)]
        coarsest, *finer = sorted(range(len(stages)), key=lambda index: len(centred[index]))
        least = []
        for offset, factors in self._blocks:
            rows = factors.split(widths)
            bracket = _resized(torch.addmm(offset, centred[coarsest], rows[coarsest]), grids[coarsest], size)
            for index in finer:
                if grids[index] == size:
                    bracket.addmm_(centred[index], rows[index])
                else:
                    bracket += _resized(centred[index] @ rows[index], grids[index], size)
            least.append(bracket.amin(1))
        squares = (patches - self._mean).square().sum(2)
        return (squares + torch.stack(least).amin(0).view(size)).clamp_min(0).sqrt()

    def nearest(self, patch: Float[Tensor, " d"], count: int) -> Float[Tensor, "count d"]:
        """The vectors that are nearest to one patch, the nearest first."""
        centred = (patch - self._mean)[None]
        brackets = torch.cat([torch.addmm(offset, centred, factors)[0] for offset, factors in self._blocks])
        return self.vectors[brackets.topk(count, largest=False).indices]


def _resized(rows: Float[Tensor, "p m"], grid: torch.Size, size: torch.Size) -> Float[Tensor, "q m"]:
    """Rows of one grid's positions, brought to another's as `patch_grid` does."""
    if grid == size:
        return rows
    maps = rows.view(1, *grid, -1).permute(0, 3, 1, 2)
    return functional.interpolate(maps, size, mode="bilinear", align_corners=False).permute(0, 2, 3, 1).flatten(0, 2)
