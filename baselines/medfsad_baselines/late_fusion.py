"""Nearest patches of each depth on its own grid, and the maps summed: every scale has its say, and can be looked at.

Vectors of a stage are scaled to length 1, so that distances of all stages lie in [0, 2] and their mean is fair. Where
`multistage` asks for one support patch that fits at all depths, here each depth finds its own. To look at one scale,
run a single stage, such as `--set stages=4`, with `--save-maps`.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from medfsad_baselines.parts.maps import enlarged, top_mean
from medfsad_baselines.parts.patches import DepthsConfig, maps_to_supports, unit_grid
from medfsad_bench.info import MethodInfo
from medfsad_bench.method import Images, Method, RunContext, Scorer, Scores


class LateFusion(Method):
    """Mean over stages of the distance to the nearest support patch of that stage."""

    def __init__(self, config: DepthsConfig) -> None:
        self.config = config

    def adapt(self, support: Float[Tensor, "shots 3 h w"], context: RunContext) -> Scorer:
        """Keep the support; each stage has a bank of its own."""

        def score(images: Images) -> Scores:
            maps = [self._stage_map(stage, images, support, context) for stage in self.config.stages]
            fused = fuse(maps)
            return Scores(image=top_mean(fused, self.config.top_fraction), pixel=fused)

        return score

    def _stage_map(
        self, stage: int | float, images: Images, support: Float[Tensor, "shots 3 h w"], context: RunContext
    ) -> Float[Tensor, "n sh sw"]:
        position = self.config.stages.index(stage)

        def grid(batch: Images) -> Float[Tensor, "n sh sw d"]:
            return unit_grid([context.features(self.config.features, batch)[position]])

        by_itself = replace(self.config.features, stages=(stage,))  # its distances are the same beside other stages
        return maps_to_supports("unit grid", by_itself, grid, images, support, context).amin(1)


def fuse(maps: Sequence[Float[Tensor, "n _sh _sw"]]) -> Float[Tensor, "n s s"]:
    """Mean of maps of several scales on the finest of their grids, bilinear."""
    edge = max(each.shape[-1] for each in maps)
    return torch.stack([enlarged(each, edge) for each in maps]).mean(0)


INFO = MethodInfo(
    name="late_fusion",
    version="1.0.0",
    config=DepthsConfig,
    build=LateFusion,
    summary="Distance to the nearest support patch at each of three depths, averaged",
    paper="",
    licence="Apache-2.0",
    presets={"quick": {"backbone": "efficientnet_lite0"}},
    grid={"stages": ((2, 3, 4), (2, 3), (3, 4), (4,)), "top_fraction": (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)},
    has_seen=("imagenet-1k",),
)
