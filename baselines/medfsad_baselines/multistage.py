"""Nearest patches over several depths at once: fine texture, parts and the whole weigh the same.

Each stage is scaled to length 1 over its channels before all are joined on one grid; distances to the nearest support
patch are PatchCore's (Roth et al., CVPR 2022). The highest part of the map counts, as an anomaly is rarely one patch.
"""

from jaxtyping import Float
from torch import Tensor

from medfsad_baselines.parts.maps import top_mean
from medfsad_baselines.parts.patches import DepthsConfig, unit_maps
from medfsad_bench.info import MethodInfo
from medfsad_bench.method import Images, Method, RunContext, Scorer, Scores


class Multistage(Method):
    """Distance to the nearest patch of the support, over several stages that weigh the same."""

    def __init__(self, config: DepthsConfig) -> None:
        self.config = config

    def adapt(self, support: Float[Tensor, "shots 3 h w"], context: RunContext) -> Scorer:
        """Keep the support; its patches are the bank."""

        def score(images: Images) -> Scores:
            maps = unit_maps(self.config.features, images, support, context)
            return Scores(image=top_mean(maps, self.config.top_fraction), pixel=maps)

        return score


INFO = MethodInfo(
    name="multistage",
    version="1.0.0",
    config=DepthsConfig,
    build=Multistage,
    summary="Distance to the nearest support patch over three stages that weigh the same",
    paper="",
    licence="Apache-2.0",
    presets={"quick": {"backbone": "efficientnet_lite0"}},
    grid={"stages": ((2, 3, 4), (3, 4), (3,), (4,)), "top_fraction": (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)},
    has_seen=("imagenet-1k",),
)
