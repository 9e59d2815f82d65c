"""Nearest patches over several depths at once: fine texture, parts and the whole weigh the same.

Each stage of a frozen network is scaled to length 1 over its channels before the stages are joined on one grid, so that
none of them outweighs the others by its width or its scale. A patch's score is its Euclidean distance to the nearest
support patch; the image score is the mean of the highest part of the map, as an anomaly is rarely one patch. The memory
bank is PatchCore's (Roth et al., CVPR 2022); scaling before joining and the pooling aren't.
"""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from medfsad_baselines.parts.maps import check_fraction, top_mean
from medfsad_baselines.parts.patches import FeatureConfig, maps_to_supports, unit_grid
from medfsad_bench.info import MethodInfo
from medfsad_bench.method import Images, Method, RunContext, Scorer, Scores


@dataclass(frozen=True)
class Config(FeatureConfig):
    """Three depths of a Wide ResNet-50-2; of a ViT take blocks of its upper half, such as 0.6, 0.8 and 1.0.

    Attributes:
        top_fraction: Of the map's positions, whose mean is the image score.
    """

    stages: tuple[int | float, ...] = (2, 3, 4)
    top_fraction: float = 0.05

    def __post_init__(self) -> None:
        check_fraction(self.top_fraction)


class Multistage(Method):
    """Distance to the nearest patch of the support, over several stages that weigh the same."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def adapt(self, support: Float[Tensor, "shots 3 h w"], context: RunContext) -> Scorer:
        """Keep the support; the bank is the patches of all its images."""

        def grid(images: Images) -> Float[Tensor, "n ph pw d"]:
            return unit_grid(context.features(self.config.features, images))

        def score(images: Images) -> Scores:
            maps = maps_to_supports("multistage", self.config.features, grid, images, support, context).amin(1)
            return Scores(image=top_mean(maps, self.config.top_fraction), pixel=maps)

        return score


INFO = MethodInfo(
    name="multistage",
    version="1.0.0",
    config=Config,
    build=Multistage,
    summary="Distance to the nearest support patch over three stages that weigh the same",
    paper="",
    licence="Apache-2.0",
    presets={"quick": {"backbone": "efficientnet_lite0"}},
    has_seen=("imagenet-1k",),
)
