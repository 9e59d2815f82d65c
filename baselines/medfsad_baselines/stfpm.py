"""STFPM (Wang et al., Student-Teacher Feature Pyramid Matching for Anomaly Detection, BMVC 2021).

The student is the teacher's network without its weights. At each position of three stages, features are scaled to
length 1 and compared: ½ |t − s|² (equation 1). The loss is the sum of the stages' means (equations 2 and 3); the map is
the product of the stages' maps, each brought to the image's size (equation 4).
"""

from dataclasses import dataclass
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from medfsad_baselines.parts.losses import stages_loss
from medfsad_baselines.parts.maps import Shapes, stage_maps
from medfsad_baselines.parts.training import Queries, TrainedMethod, TrainingConfig, presets
from medfsad_baselines.parts.training_images import Batch
from medfsad_bench.info import MethodInfo
from medfsad_bench.method import Images


@dataclass(frozen=True)
class Config(TrainingConfig):
    """The paper's values.

    Attributes:
        momentum: Of stochastic gradient descent.
        decay: Of the weights.
    """

    backbone: str = "resnet18.tv_in1k"
    stages: tuple[int, ...] = (1, 2, 3)
    size_px: int | None = 256
    batch_size: int = 32
    epochs: int = 100
    learning_rate: float = 0.4
    momentum: float = 0.9
    decay: float = 1e-4


class Student(nn.Module):
    """The teacher's architecture from scratch, up to the last stage that is compared."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        import timm

        name = config.backbone.removeprefix("random:")
        name = f"tf_{name}" if timm.is_model(f"tf_{name}") else name  # the packaged networks are timm's of that name
        self.network = timm.create_model(name, pretrained=False, features_only=True, out_indices=config.stages)
        self.size_px = config.size_px
        last = cast(Any, self.network.feature_info).module_name()[-1].split(".")
        if last[0] == "blocks":  # timm leaves what comes after the last stage in place, and runs it
            self.network.blocks = cast(nn.Sequential, self.network.blocks)[: int(last[1]) + 1]

    def forward(self, images: Images) -> list[Float[Tensor, "_n _c _h _w"]]:
        """Stages like the teacher's."""
        if self.size_px is not None and images.shape[-1] != self.size_px:
            size = (self.size_px, self.size_px)
            images = functional.interpolate(images, size, mode="bilinear", antialias=True, align_corners=False)
        return list(self.network((images - 0.5) / 0.25))


class Stfpm(TrainedMethod):
    """A student that has learnt the teacher's features on normal images alone."""

    config: Config

    def network(self, _shapes: Shapes) -> Student:
        """The student; it follows the teacher's shapes by itself."""
        return Student(self.config)

    def optimiser(self, network: nn.Module) -> torch.optim.Optimizer:
        """Stochastic gradient descent with momentum."""
        c = self.config
        return torch.optim.SGD(network.parameters(), c.learning_rate, momentum=c.momentum, weight_decay=c.decay)

    def loss(self, network: nn.Module, batch: Batch) -> Float[Tensor, ""]:
        """Equation 3."""
        return stages_loss(batch.stages, network(batch.images))

    def maps(self, network: nn.Module, queries: Queries) -> Float[Tensor, "n _s _t"]:
        """Equation 4."""
        size_px = self.config.size_px or queries.images.shape[-1]
        return stage_maps(queries.stages, network(queries.images), size_px).prod(0)


INFO = MethodInfo(
    name="stfpm",
    version="1.0.0",
    config=Config,
    build=Stfpm,
    summary="A student network that follows a frozen teacher at three stages",
    paper="Wang et al., BMVC 2021",
    licence="Apache-2.0",
    presets=presets(steps=200, support_steps=12),
    has_seen=("imagenet-1k",),
    trains=True,
    deviations=(
        "trained on other sets' normal images or on the K supports; the paper takes many normal images of the target",
        "the network of the last step is used: there is no validation split to choose a step by",
        "quick: EfficientNet-Lite0 at 128 px, 200 steps of 8 images, or 12 on the support",
    ),
)
