"""Half the whole image, half its patches: `mean_distance` and `multistage`, brought to one scale by the support itself.

Each score is divided by what it is on average for a support image that is left out of the support. So both halves are 1
for a typical normal image, whatever network or organ; this takes two supports at least.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from medfsad_baselines.parts.maps import check_fraction, top_mean
from medfsad_baselines.parts.patches import FeatureConfig, unit_maps, unit_maps_to_each
from medfsad_bench.errors import MethodError
from medfsad_bench.info import MethodInfo
from medfsad_bench.method import Images, Method, RunContext, Scorer, Scores


@dataclass(frozen=True)
class Config(FeatureConfig):
    """Three depths for the patches, of which the last is pooled for the whole image.

    Attributes:
        top_fraction: Of the map's positions, whose mean is the patches' score.
        pooled_share: Of the whole image in the score, from 0 (patches alone) to 1.
    """

    stages: tuple[int | float, ...] = (2, 3, 4)
    top_fraction: float = 0.05
    pooled_share: float = 0.5

    def __post_init__(self) -> None:
        check_fraction(self.top_fraction)
        if not 0 <= self.pooled_share <= 1:
            raise ValueError(f"pooled_share is {self.pooled_share}; expected a share from 0 to 1")


class PooledAndPatch(Method):
    """Pooled and patch distances, each over its mean among supports left out one at a time."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def adapt(self, support: Float[Tensor, "shots 3 h w"], context: RunContext) -> Scorer:
        """Score each support image by the others.

        Raises:
            MethodError: For a single support image.
        """
        if len(support) < 2:
            raise MethodError(
                "pooled_and_patch got 1 support image, and sets its scale by leaving one out. Expected 2 shots or more."
            )
        embeddings = self._pooled(support, context)
        maps_to_each = unit_maps_to_each(self.config.features, support, support, context)
        pooled_scale, patch_scale = embeddings.new_zeros(2)
        for left_out in range(len(support)):
            others = [index for index in range(len(support)) if index != left_out]
            pooled_scale += _distance(embeddings[left_out : left_out + 1], embeddings[others])[0] / len(support)
            patches = maps_to_each[left_out : left_out + 1, others].amin(1)
            patch_scale += self._patch_score(patches)[0] / len(support)

        def score(images: Images) -> Scores:
            maps = unit_maps(self.config.features, images, support, context) / _positive(patch_scale)
            pooled = _distance(self._pooled(images, context), embeddings) / _positive(pooled_scale)
            return Scores(image=pooled.lerp(self._patch_score(maps), 1 - self.config.pooled_share), pixel=maps)

        return score

    def _patch_score(self, maps: Float[Tensor, "n ph pw"]) -> Float[Tensor, " n"]:
        return top_mean(maps, self.config.top_fraction)

    def _pooled(self, images: Images, context: RunContext) -> Float[Tensor, "n d"]:
        return context.features(self.config.features, images)[-1].mean((2, 3))


def _distance(embeddings: Float[Tensor, "n d"], of_others: Float[Tensor, "k d"]) -> Float[Tensor, " n"]:
    return (embeddings - of_others.mean(0)).square().sum(1).sqrt()


def _positive(scale: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """A scale of equal supports is 0; nothing is divided by it then."""
    return scale if scale > 0 else torch.ones_like(scale)


INFO = MethodInfo(
    name="pooled_and_patch",
    version="1.0.0",
    config=Config,
    build=PooledAndPatch,
    summary="Pooled and patch distances, each over its mean among left-out supports",
    paper="",
    licence="Apache-2.0",
    presets={"quick": {"backbone": "efficientnet_lite0"}},
    fewest_shots=2,
    grid={
        "stages": ((2, 3, 4), (3, 4), (4,)),
        "top_fraction": (0.01, 0.05, 0.1, 0.2),
        "pooled_share": (0.25, 0.5),
    },
    has_seen=("imagenet-1k",),
)
