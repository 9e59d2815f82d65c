"""Mean distance: how far an image's pooled embedding is from the mean of the support's.

The least that a feature network can do. What a method gains over it comes from looking at patches, or from training.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from medfsad_baselines.parts.patches import FeatureConfig
from medfsad_bench.info import MethodInfo
from medfsad_bench.method import Images, Method, RunContext, Scorer, Scores


@dataclass(frozen=True)
class Config(FeatureConfig):
    """The last stage, averaged over all positions."""

    stages: tuple[int, ...] = (4,)


class MeanDistance(Method):
    """Euclidean distance to the mean support embedding."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def adapt(self, support: Float[Tensor, "shots 3 h w"], context: RunContext) -> Scorer:
        """Average the support's embeddings."""
        centre = self._embeddings(support, context).mean(0)

        def score(images: Images) -> Scores:
            return Scores(image=(self._embeddings(images, context) - centre).square().sum(1).sqrt())

        return score

    def _embeddings(self, images: Images, context: RunContext) -> Float[Tensor, "n d"]:
        return torch.cat([stage.mean((2, 3)) for stage in context.features(self.config.features, images)], dim=1)


INFO = MethodInfo(
    name="mean_distance",
    version="1.0.0",
    config=Config,
    build=MeanDistance,
    summary="Distance of the pooled embedding to the support's mean",
    paper="",
    licence="Apache-2.0",
    grid={"stages": ((4,), (3,), (2, 3, 4))},
    presets={"quick": {"backbone": "efficientnet_lite0"}},
    has_seen=("imagenet-1k",),
)
