"""SPADE at K shots (Cohen and Hoshen, Sub-Image Anomaly Detection with Deep Pyramid Correspondences, 2020).

The image score is the mean squared distance of the pooled last stage to the nearest support images (section 3.2). The
map compares each position with all positions of those images, in a pyramid of finer stages (section 3.3). The paper is
arXiv 2005.02357.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from medfsad_baselines.parts.patches import FeatureConfig, MemoryBank, patch_grid
from medfsad_bench.info import MethodInfo
from medfsad_bench.method import Backbone, Images, Method, RunContext, Scorer, Scores


@dataclass(frozen=True)
class Config(FeatureConfig):
    """The paper's values where it states them.

    Attributes:
        stages: The pyramid; the paper's layers 1 to 3.
        image_stage: Pooled for the image score.
        neighbours: Support images that take part; at most K of them, however many are asked for.
    """

    stages: tuple[int, ...] = (1, 2, 3)
    image_stage: int = 4
    neighbours: int = 50

    @property
    def features(self) -> Backbone:
        """The pyramid's stages, then the image's."""
        return replace(super().features, stages=(*self.stages, self.image_stage))


class Spade(Method):
    """Nearest images, then nearest positions in them."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def adapt(self, support: Float[Tensor, "shots 3 h w"], context: RunContext) -> Scorer:
        """Keep the support's embeddings and pyramids."""
        embeddings, pyramids = self._described(support, context)
        count = min(self.config.neighbours, len(support))
        whole = MemoryBank(pyramids.flatten(0, 2))

        def score(images: Images) -> Scores:
            image, pixel = [], []
            for embedding, pyramid in zip(*self._described(images, context), strict=True):
                near = (embeddings - embedding).square().sum(1).topk(count, largest=False)
                bank = whole if count == len(support) else MemoryBank(pyramids[near.indices].flatten(0, 2))
                image.append(near.values.mean())
                pixel.append(bank.distances(pyramid.flatten(0, 1)).view(pyramid.shape[:2]))
            return Scores(image=torch.stack(image), pixel=torch.stack(pixel))

        return score

    def _described(
        self, images: Images, context: RunContext
    ) -> tuple[Float[Tensor, "n e"], Float[Tensor, "n gh gw d"]]:
        *pyramid, last = context.features(self.config.features, images)
        return last.mean((2, 3)), patch_grid(pyramid)


INFO = MethodInfo(
    name="spade",
    version="1.0.0",
    config=Config,
    build=Spade,
    summary="Distance to the nearest support images, then to the nearest positions in them",
    paper="Cohen and Hoshen, 2020",
    licence="Apache-2.0",
    presets={"quick": {"backbone": "efficientnet_lite0", "stages": (3,)}},
    has_seen=("imagenet-1k",),
    deviations=("quick takes the map from one stage, whose positions are few",),
)
