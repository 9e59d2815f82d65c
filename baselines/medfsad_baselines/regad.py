"""RegAD (Huang et al., Registration based Few-Shot Anomaly Detection, ECCV 2022).

pretrain   pairs of images of one source, each turned and scaled by a spatial transformer, are encoded alike: the
           prediction from one is to have the direction of the other's code, at each position (as in SimSiam),
               L = ½ D(p_a, stop(z_b)) + ½ D(p_b, stop(z_a)),   D = −cos
adapt      a Gaussian at each position of the transformed features of the augmented support
score      Mahalanobis distance, brought back through the inverse of the image's own transformation

Here features are frozen, so one transformer, which sees the last stage, serves all stages; the paper has one after each
stage of a network that learns with them. The covariance is shrunk as in `padim`.
"""

from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from medfsad_baselines.padim import gaussians, mahalanobis
from medfsad_baselines.parts.augmentations import UPRIGHT, AugmentationConfig, warped
from medfsad_baselines.parts.maps import Shapes
from medfsad_baselines.parts.patches import patch_grid
from medfsad_baselines.parts.spatial_transformer import SpatialTransformer
from medfsad_baselines.parts.training import SMALL, PretrainedMethod, TrainingConfig
from medfsad_baselines.parts.training_images import Batch
from medfsad_bench.info import MethodInfo
from medfsad_bench.method import Images, RunContext, Scorer, Scores


@dataclass(frozen=True)
class Config(AugmentationConfig, TrainingConfig):
    """The paper's values, its 22 augmentations of the support among them.

    Attributes:
        width: Of the codes.
        momentum: Of stochastic gradient descent.
        ridge: Added to every variance.
    """

    backbone: str = "resnet18.tv_in1k"
    stages: tuple[int, ...] = (1, 2, 3)
    size_px: int | None = 224
    batch_size: int = 32
    epochs: int = 50
    learning_rate: float = 1e-4
    width: int = 256
    momentum: float = 0.9
    ridge: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.trained_on != "sources":
            raise ValueError("registration is learnt from other sets; trained_on has to be sources")


class Registration(nn.Module):
    """Spatial transformer, encoder and predictor."""

    def __init__(self, shapes: Shapes, width: int) -> None:
        super().__init__()
        channels = shapes[-1][0]
        self.locate = SpatialTransformer(channels)
        self.encode = nn.Sequential(
            *_layer(channels, width), nn.ReLU(), *_layer(width, width), nn.ReLU(), *_layer(width, width)
        )
        self.predict = nn.Sequential(*_layer(width, width), nn.ReLU(), nn.Conv2d(width, width, 1))

    def transformation(self, last: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 2 2"]:
        """Rotation and scale for each image, as a matrix from coordinates after to those before."""
        return self.locate.matrices(last)

    def loss(self, a: Float[Tensor, "n c h w"], b: Float[Tensor, "n c h w"]) -> Float[Tensor, ""]:
        """L on the last stage of two images of one set."""
        z_a, z_b = (self.encode(warped(maps, self.transformation(maps))) for maps in (a, b))
        p_a, p_b = self.predict(z_a), self.predict(z_b)
        pairs = ((p_a, z_b.detach()), (p_b, z_a.detach()))
        return -torch.stack([functional.cosine_similarity(p, z, dim=1).mean() for p, z in pairs]).mean()


class RegAd(PretrainedMethod):
    """Registration learnt on other sets, then a Gaussian at each position."""

    config: Config

    def network(self, shapes: Shapes) -> Registration:
        """Spatial transformer, encoder and predictor."""
        return Registration(shapes, self.config.width)

    def optimiser(self, network: nn.Module) -> torch.optim.Optimizer:
        """Stochastic gradient descent with momentum."""
        return torch.optim.SGD(network.parameters(), self.config.learning_rate, momentum=self.config.momentum)

    def loss(self, network: nn.Module, batch: Batch) -> Float[Tensor, ""]:
        """Registration of each image with another of its set."""
        return cast(Registration, network).loss(batch.stages[-1], batch.partners[-1])

    def adapt(self, support: Float[Tensor, "shots 3 h w"], context: RunContext) -> Scorer:
        """Fit the Gaussians."""
        network = cast(Registration, self.trained(context.features(self.config.features, support), context))
        vectors, _ = self._registered(network, self.config.augmented(support), context)
        mean, whitener, isotropic = gaussians(vectors.flatten(1, 2).transpose(0, 1), self.config.ridge)

        def score(images: Images) -> Scores:
            grids, turns = self._registered(network, images, context)
            distances = [mahalanobis(grid - mean, whitener, isotropic) for grid in grids.flatten(1, 2)]
            maps = torch.stack(distances).view(grids.shape[:3]).float()
            return Scores(pixel=warped(maps[:, None], torch.linalg.inv(turns))[:, 0])

        return score

    def _registered(
        self, network: Registration, images: Images, context: RunContext
    ) -> tuple[Float[Tensor, "n ph pw d"], Float[Tensor, "n 2 2"]]:
        stages = context.features(self.config.features, images)
        with torch.no_grad():
            turns = network.transformation(stages[-1])
            return patch_grid([warped(stage, turns) for stage in stages]).double(), turns


def _layer(inputs: int, outputs: int) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs)


_QUICK = {**SMALL, **UPRIGHT, "stages": (2, 3), "batch_size": 16, "steps": 300, "learning_rate": 0.01, "width": 128}

INFO = MethodInfo(
    name="regad",
    version="1.0.0",
    config=Config,
    build=RegAd,
    summary="Registration learnt on other sets, then a Gaussian at each position of the augmented support",
    paper="Huang et al., ECCV 2022",
    licence="Apache-2.0",
    presets={"quick": _QUICK},
    has_seen=("imagenet-1k",),
    trains=True,
    deviations=(
        "structure only: the backbone is frozen, so one spatial transformer serves all stages, in place of one after "
        "each stage of a backbone that learns with them",
        "the covariance is shrunk: a few augmented images don't give one of full rank",
        "pairs come from different groups of images",
        "the learning rate is constant; the paper's falls along a cosine",
        "quick: EfficientNet-Lite0 at 128 px, two stages, 300 steps of 16 pairs; small rotations and shifts alone, as "
        "a mirrored or turned radiograph isn't normal",
    ),
)
