"""RD4AD (Deng and Li, Anomaly Detection via Reverse Distillation from One-Class Embedding, CVPR 2022).

The teacher's three stages go through a one-class bottleneck, and a decoder gives them back.

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
from torch.nn import functional

from medfsad_baselines.pools import Batch
from medfsad_baselines.training import Seen, Shapes, TrainedMethod, TrainingConfig, cosine_distance, enlarged, presets
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


class Block(nn.Module):
    """Residual bottleneck at half (`scale` −1), the same (0) or twice (1) the resolution."""

    def __init__(self, inputs: int, outputs: int, scale: int = 0, *, rectified: bool = True) -> None:
        super().__init__()
        width = max(1, outputs // 2)
        self.body = nn.Sequential(
            *(nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()),
            *(_spatial(width, width, scale, edge=3), nn.BatchNorm2d(width), nn.ReLU()),
            *(nn.Conv2d(width, outputs, 1, bias=False), nn.BatchNorm2d(outputs)),
        )
        alike = scale == 0 and inputs == outputs
        shortcut = nn.Sequential(_spatial(inputs, outputs, scale, edge=1), nn.BatchNorm2d(outputs))
        self.shortcut: nn.Module = nn.Identity() if alike else shortcut
        self.rectified = rectified

    def forward(self, x: Float[Tensor, "n _c _h _w"]) -> Float[Tensor, "n _d _i _j"]:
        """Residual plus shortcut."""
        out: Tensor = self.body(x) + self.shortcut(x)
        return functional.relu(out) if self.rectified else out


class Reverse(nn.Module):
    """Bottleneck and decoder for stages of these shapes, finest first."""

    def __init__(self, shapes: Shapes, config: Config) -> None:
        super().__init__()
        channels, heights = [one[0] for one in shapes], [one[1] for one in shapes]
        last = channels[-1]
        self.reductions = nn.ModuleList(
            nn.Sequential(*_halvings(channel, last, height, heights[-1]))
            for channel, height in zip(channels, heights, strict=True)
        )
        self.fusion = nn.Sequential(nn.Conv2d(len(shapes) * last, last, 1, bias=False), nn.BatchNorm2d(last), nn.ReLU())
        self.embedding = _blocks(last, 2 * last, -1, config.depths[-1], rectified=True)
        inputs, height, decoder = 2 * last, heights[-1] // 2, []
        for (channel, edge, _), depth in zip(reversed(shapes), config.depths, strict=False):
            decoder.append(_blocks(inputs, channel, int(edge > height), depth, rectified=config.rectified))
            inputs, height = channel, edge
        self.decoder = nn.ModuleList(decoder)

    def forward(self, stages: Sequence[Float[Tensor, "n _c _h _w"]]) -> list[Float[Tensor, "n _c _h _w"]]:
        """The stages as the decoder gives them back, finest first."""
        reduced = [reduce(stage) for reduce, stage in zip(self.reductions, stages, strict=True)]
        out = self.embedding(self.fusion(torch.cat(reduced, dim=1)))
        found = []
        for blocks in self.decoder:
            out = blocks(out)
            found.append(out)
        return found[::-1]


class Rd4ad(TrainedMethod):
    """Reverse distillation."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.config = config

    def network(self, shapes: Shapes) -> Reverse:
        """Bottleneck and decoder."""
        return Reverse(shapes, self.config)

    def loss(self, network: nn.Module, batch: Batch) -> Float[Tensor, ""]:
        """Equation 2."""
        stages = batch.stages
        pairs = zip(stages, network(stages), strict=True)
        return torch.stack([cosine_distance(t, s).mean() for t, s in pairs]).sum()

    def maps(self, network: nn.Module, seen: Seen) -> Float[Tensor, "n _s _t"]:
        """Equation 3."""
        size_px = self.config.size_px or seen.images.shape[-1]
        pairs = zip(seen.stages, network(seen.stages), strict=True)
        return torch.stack([enlarged(cosine_distance(t, s), size_px) for t, s in pairs]).sum(0)


def _blocks(inputs: int, outputs: int, scale: int, depth: int, *, rectified: bool) -> nn.Sequential:
    ends = [rectified or place < depth - 1 for place in range(depth)]
    first = Block(inputs, outputs, scale, rectified=ends[0])
    return nn.Sequential(first, *(Block(outputs, outputs, rectified=end) for end in ends[1:]))


def _halvings(inputs: int, outputs: int, height: int, wanted: int) -> list[nn.Module]:
    parts: list[nn.Module] = []
    while height > wanted:
        parts += [nn.Conv2d(inputs, outputs, 3, 2, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
        inputs, height = outputs, (height + 1) // 2
    return parts or [nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]


def _spatial(inputs: int, outputs: int, scale: int, *, edge: int) -> nn.Module:
    if scale > 0:
        return nn.ConvTranspose2d(inputs, outputs, 2, 2, bias=False)
    return nn.Conv2d(inputs, outputs, edge, 1 if scale == 0 else 2, edge // 2, bias=False)


_QUICK = {
    "backbone": "efficientnet_lite0",
    "size_px": 128,
    "batch_size": 8,
    "steps": 400,
    "support_steps": 20,
    "depths": (2, 2, 2, 2),
    "rectified": False,
}

INFO = MethodInfo(
    name="rd4ad",
    version="1.0.0",
    config=Config,
    build=Rd4ad,
    summary="A decoder that gives the teacher's stages back through a one-class bottleneck",
    paper="Deng and Li, CVPR 2022",
    licence="Apache-2.0",
    presets=presets(_QUICK),
    has_seen=("imagenet-1k",),
    trains=True,
    deviations=(
        "trained on other sets' normals or on the K supports; the paper's has many normals of the target",
        "the loss takes the cosine at each position, as the paper's equation does, and not of flattened maps",
        "quick: EfficientNet-Lite0 at 128 px, two blocks a stage, none rectified at its end (the teacher's stages take "
        "both signs), 400 steps of 8 images, or 20 on the support",
    ),
)
