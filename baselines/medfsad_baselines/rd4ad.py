"""RD4AD (Deng and Li, Anomaly Detection via Reverse Distillation from One-Class Embedding, CVPR 2022).

The teacher's three stages go through a one-class bottleneck, and a decoder rebuilds them.

fusion       MFF: stages are brought to the coarsest grid by 3 × 3 convolutions of stride 2, joined, and projected
embedding    OCE: residual blocks of stride 2, as the teacher's own next stage
decoder      the teacher mirrored, from the embedding up to stages 3, 2 and 1

The loss is the mean over positions of 1 − cos, summed over stages (equations 1 and 2); the map is the sum of the
stages' maps at the image's size (equation 3).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from medfsad_baselines.parts.losses import stages_loss
from medfsad_baselines.parts.maps import Shapes, stage_maps
from medfsad_baselines.parts.residual import halvings, residual_blocks
from medfsad_baselines.parts.training import Queries, TrainedMethod, TrainingConfig, presets
from medfsad_baselines.parts.training_images import Batch
from medfsad_bench.info import MethodInfo


@dataclass(frozen=True)
class Config(TrainingConfig):
    """The paper's values; its optimiser is Adam with betas 0.5 and 0.999.

    Attributes:
        depths: Residual blocks of the decoder's three stages from coarse to fine, then of the embedding.
        rectified: Whether the decoder's stages end in a rectifier, as those of a ResNet do.
    """

    stages: tuple[int, ...] = (1, 2, 3)
    size_px: int | None = 256
    depths: tuple[int, int, int, int] = (6, 4, 3, 3)
    rectified: bool = True


class Reverse(nn.Module):
    """Bottleneck and decoder for stages of these shapes, finest first."""

    def __init__(self, shapes: Shapes, config: Config) -> None:
        super().__init__()
        channels, heights, _ = zip(*shapes, strict=True)
        last = channels[-1]
        self.reductions = nn.ModuleList(
            nn.Sequential(*halvings(channel, last, height, heights[-1]))
            for channel, height in zip(channels, heights, strict=True)
        )
        self.fusion = nn.Sequential(nn.Conv2d(len(shapes) * last, last, 1, bias=False), nn.BatchNorm2d(last), nn.ReLU())
        self.embedding = residual_blocks(last, 2 * last, -1, config.depths[-1], rectified=True)
        inputs, height, decoder = 2 * last, heights[-1] // 2, []
        for (channel, edge, _), depth in zip(reversed(shapes), config.depths, strict=False):
            decoder.append(residual_blocks(inputs, channel, int(edge > height), depth, rectified=config.rectified))
            inputs, height = channel, edge
        self.decoder = nn.ModuleList(decoder)

    def forward(self, stages: Sequence[Float[Tensor, "n _c _h _w"]]) -> list[Float[Tensor, "n _c _h _w"]]:
        """The stages as the decoder rebuilds them, finest first."""
        reduced = [reduce(stage) for reduce, stage in zip(self.reductions, stages, strict=True)]
        out = self.embedding(self.fusion(torch.cat(reduced, dim=1)))
        rebuilt = []
        for blocks in self.decoder:
            out = blocks(out)
            rebuilt.append(out)
        return rebuilt[::-1]


class Rd4ad(TrainedMethod):
    """Reverse distillation."""

    config: Config

    def network(self, shapes: Shapes) -> Reverse:
        """Bottleneck and decoder."""
        return Reverse(shapes, self.config)

    def loss(self, network: nn.Module, batch: Batch) -> Float[Tensor, ""]:
        """Equation 2."""
        stages = batch.stages
        return stages_loss(stages, network(stages))

    def maps(self, network: nn.Module, queries: Queries) -> Float[Tensor, "n _s _t"]:
        """Equation 3."""
        size_px = self.config.size_px or queries.images.shape[-1]
        return stage_maps(queries.stages, network(queries.stages), size_px).sum(0)


INFO = MethodInfo(
    name="rd4ad",
    version="1.0.0",
    config=Config,
    build=Rd4ad,
    summary="A decoder that rebuilds the teacher's stages from a one-class bottleneck",
    paper="Deng and Li, CVPR 2022",
    licence="Apache-2.0",
    presets=presets(steps=400, support_steps=20, depths=(2, 2, 2, 2), rectified=False),
    has_seen=("imagenet-1k",),
    trains=True,
    deviations=(
        "trained on other sets' normal images or on the K supports; the paper takes many normal images of the target",
        "the loss takes the cosine at each position, as the paper's equation does, and not of flattened maps",
        "quick: EfficientNet-Lite0 at 128 px, two blocks per stage, none rectified at its end (the teacher's stages "
        "have both signs), 400 steps of 8 images, or 20 on the support",
    ),
)
