"""RegAD (Huang et al., Registration based Few-Shot Anomaly Detection, ECCV 2022).

pretrain   pairs of images of one source, each turned and scaled by a spatial transformer, are encoded alike: the
           prediction from one is to have the direction of the other's code, at each position (as in SimSiam),
               L = ½ D(p_a, stop(z_b)) + ½ D(p_b, stop(z_a)),   D = −cos
adapt      a Gaussian at each position of the transformed features of the augmented support
score      Mahalanobis distance, brought back through the inverse of the image's own transformation

Here features are frozen, so one transformer, which sees the last stage, serves all stages; the paper has one after each
stage of a network that learns with them. The covariance is shrunk as in `padim`.
"""

import math
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from medfsad_baselines.anomalydino import rotated
from medfsad_baselines.padim import gaussians, mahalanobis
from medfsad_baselines.patches import patch_grid
from medfsad_baselines.pools import Batch
from medfsad_baselines.training import Seen, Shapes, TrainedMethod, TrainingConfig
from medfsad_bench.info import MethodInfo
from medfsad_bench.method import Images, RunContext, Scorer, Scores

_POOLED = 4  # edge of the map that the transformer looks at
_MOST_DEGREES, _MOST_SCALE = 45.0, 1.5


@dataclass(frozen=True)
class Config(TrainingConfig):
    """The paper's values; augmentations are those of its 22 views a support image.

    Attributes:
        width: Of the codes.
        momentum: Of stochastic gradient descent.
        ridge: Added to every variance.
        rotations: Of each support image, degrees.
        shifts: Of each support image, along both diagonals and both ways, as a part of the edge.
        quarter_turns: Whether each support image is turned by 90, 180 and 270 degrees, too.
        flip: Whether it is mirrored, left to right.
        grey: Whether its colours are averaged.
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
    rotations: tuple[float, ...] = (-45.0, -33.75, -22.5, -11.25, 11.25, 22.5, 33.75, 45.0)
    shifts: tuple[float, ...] = (0.1, 0.2)
    quarter_turns: bool = True
    flip: bool = True
    grey: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.trained_on != "sources":
            raise ValueError("registration is learnt from other sets; trained_on has to be sources")


class Registration(nn.Module):
    """Spatial transformer, encoder and predictor."""

    def __init__(self, shapes: Shapes, width: int) -> None:
        super().__init__()
        channels = shapes[-1][0]
        self.locate = nn.Sequential(
            *(nn.Conv2d(channels, 32, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(_POOLED), nn.Flatten()),
            *(nn.Linear(32 * _POOLED**2, 32), nn.ReLU(), nn.Linear(32, 2)),
        )
        last = cast(nn.Linear, self.locate[-1])
        nn.init.zeros_(last.weight)  # no transformation at first
        nn.init.zeros_(last.bias)
        self.encode = nn.Sequential(
            *_layer(channels, width), nn.ReLU(), *_layer(width, width), nn.ReLU(), *_layer(width, width)
        )
        self.predict = nn.Sequential(*_layer(width, width), nn.ReLU(), nn.Conv2d(width, width, 1))

    def transformation(self, last: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 2 2"]:
        """Rotation and scale for each image, as a matrix from coordinates after to those before."""
        angle, scale = self.locate(last).tanh().unbind(1)
        angle, scale = angle * math.radians(_MOST_DEGREES), (scale * math.log(_MOST_SCALE)).exp()
        cos, sin = scale * angle.cos(), scale * angle.sin()
        return torch.stack([torch.stack([cos, -sin], 1), torch.stack([sin, cos], 1)], 1)

    def loss(self, a: Float[Tensor, "n c h w"], b: Float[Tensor, "n c h w"]) -> Float[Tensor, ""]:
        """L on the last stage of two images of one set."""
        codes = [self.encode(warped(one, self.transformation(one))) for one in (a, b)]
        one, other = (self.predict(code) for code in codes)
        pairs = ((one, codes[1].detach()), (other, codes[0].detach()))
        return -torch.stack([functional.cosine_similarity(p, z, dim=1).mean() for p, z in pairs]).mean()


class RegAd(TrainedMethod):
    """Registration learnt on other sets, then a Gaussian at each position."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.config = config

    def network(self, shapes: Shapes) -> Registration:
        """Spatial transformer, encoder and predictor."""
        return Registration(shapes, self.config.width)

    def optimiser(self, network: nn.Module) -> torch.optim.Optimizer:
        """Stochastic gradient descent with momentum."""
        return torch.optim.SGD(network.parameters(), self.config.learning_rate, momentum=self.config.momentum)

    def loss(self, network: nn.Module, batch: Batch) -> Float[Tensor, ""]:
        """Registration of each image with another of its set."""
        a, b = batch.stages[-1], batch.partners[-1]
        return cast(Registration, network).loss(a, b)

    def adapt(self, support: Float[Tensor, "shots 3 h w"], context: RunContext) -> Scorer:
        """Fit the Gaussians."""
        views = augmented(support, self.config)
        network = cast(Registration, self.trained(context.features(self.config.features, support), context))
        vectors, _ = self._registered(network, views, context)
        mean, whitener, isotropic = gaussians(vectors.flatten(1, 2).transpose(0, 1), self.config.ridge)

        def score(images: Images) -> Scores:
            grids, turns = self._registered(network, images, context)
            found = [mahalanobis(one - mean, whitener, isotropic) for one in grids.flatten(1, 2)]
            maps = torch.stack(found).view(grids.shape[:3]).float()
            return Scores(pixel=warped(maps[:, None], torch.linalg.inv(turns))[:, 0])

        return score

    def maps(self, network: nn.Module, seen: Seen) -> Float[Tensor, "n _s _t"]:
        """Not without a support."""
        raise NotImplementedError

    def _registered(
        self, network: Registration, images: Images, context: RunContext
    ) -> tuple[Float[Tensor, "n ph pw d"], Float[Tensor, "n 2 2"]]:
        stages = context.features(self.config.features, images)
        with torch.no_grad():
            turns = network.transformation(stages[-1])
            return patch_grid([warped(stage, turns) for stage in stages]).double(), turns


def warped(maps: Float[Tensor, "n c h w"], turns: Float[Tensor, "n 2 2"]) -> Float[Tensor, "n c h w"]:
    """Maps turned and scaled about their centre, bilinear, with repeated borders."""
    grid = functional.affine_grid(functional.pad(turns, (0, 1)), list(maps.shape), align_corners=False)
    return functional.grid_sample(maps, grid, mode="bilinear", padding_mode="border", align_corners=False)


def augmented(images: Images, config: Config) -> Float[Tensor, "_views 3 h w"]:
    """Each image as it is, and its views."""
    views = [images, *(rotated(images, degrees) for degrees in config.rotations)]
    views += [_shifted(images, x * s, y * s) for s in config.shifts for x in (-1, 1) for y in (-1, 1)]
    views += [images.rot90(turns, (2, 3)) for turns in (1, 2, 3) if config.quarter_turns]
    views += [images.flip(3)] if config.flip else []
    views += [images.mean(1, keepdim=True).expand_as(images)] if config.grey else []
    return torch.cat(views)


def _shifted(images: Images, x: float, y: float) -> Images:
    move = torch.tensor([[1.0, 0.0, 2 * x], [0.0, 1.0, 2 * y]], device=images.device).expand(len(images), -1, -1)
    grid = functional.affine_grid(move, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _layer(inputs: int, outputs: int) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs)


INFO = MethodInfo(
    name="regad",
    version="1.0.0",
    config=Config,
    build=RegAd,
    summary="Registration learnt on other sets, then a Gaussian at each position of the augmented support",
    paper="Huang et al., ECCV 2022",
    licence="Apache-2.0",
    presets={
        "quick": {
            "backbone": "efficientnet_lite0",
            "stages": (2, 3),
            "size_px": 128,
            "batch_size": 16,
            "steps": 300,
            "learning_rate": 0.01,
            "width": 128,
            "rotations": (-22.5, -11.25, 11.25, 22.5),
            "shifts": (0.1,),
            "quarter_turns": False,
            "flip": False,
            "grey": False,
        }
    },
    has_seen=("imagenet-1k",),
    trains=True,
    deviations=(
        "structure only: the backbone is frozen, so one spatial transformer serves all stages, in place of one after "
        "each stage of a backbone that learns with them",
        "the covariance is shrunk: a few views don't give one of full rank",
        "pairs come from different groups of images",
        "the learning rate stays as it is, the paper's falls along a cosine",
        "quick: EfficientNet-Lite0 at 128 px, two stages, 300 steps of 16 pairs; small rotations and shifts alone, as "
        "a mirrored or turned radiograph is no normal one",
    ),
)
