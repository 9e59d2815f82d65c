"""INP-Former (Luo et al., Exploring Intrinsic Normal Prototypes within a Single Image, CVPR 2025).

extractor    M learnt tokens attend to the image's own tokens, which gives its intrinsic normal prototypes (INPs)
coherence    each token is to be near its nearest prototype: L_c = mean of the least 1 − cos
bottleneck   a perceptron on the tokens
decoder      layers in which tokens attend to the prototypes alone, by rectified weights, with no shortcut around them:
             F' = A P W_v + FFN(A P W_v), so nothing but combinations of prototypes comes out
loss         L_sm + λ L_c, where L_sm is 1 − cos of flattened maps, with each position's gradient weighted by
             (its distance / the mean distance)^γ (soft mining)

Stages are compared in groups: the decoder's layers are split into as many, and the sum of a group's layers is compared
with that of its stages (as in Dinomaly). Of a convolutional network each stage is a group.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from medfsad_baselines.parts.attention import PrototypeLayer, Tokens, perceptron
from medfsad_baselines.parts.losses import soft_mining
from medfsad_baselines.parts.maps import Shapes, squared_up
from medfsad_baselines.parts.patches import patch_grid
from medfsad_baselines.parts.training import Queries, TrainedMethod, TrainingConfig, presets
from medfsad_baselines.parts.training_images import Batch
from medfsad_bench.info import MethodInfo


@dataclass(frozen=True)
class Config(TrainingConfig):
    """The paper's values.

    Attributes:
        groups: Into how many the stages and the decoder's layers are split.
        prototypes: M.
        heads: Of each attention.
        layers: Of the decoder.
        coherence: λ.
        mining: γ.
        decay: Of the weights, by AdamW.
    """

    backbone: str = "vit_base_patch14_reg4_dinov2.lvd142m"
    stages: tuple[int, ...] = (2, 3, 4, 5, 6, 7, 8, 9)
    size_px: int | None = 392
    learning_rate: float = 1e-3
    groups: int = 2
    prototypes: int = 6
    heads: int = 12
    layers: int = 8
    coherence: float = 0.2
    mining: float = 3.0
    decay: float = 1e-4

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.stages) % self.groups or self.layers % self.groups:
            raise ValueError("stages and layers have to be multiples of groups")


class InpNetwork(nn.Module):
    """Extractor, bottleneck and decoder on tokens with the channels of all groups."""

    def __init__(self, channels: Sequence[int], config: Config) -> None:
        super().__init__()
        width = sum(channels)
        self.channels, self.groups = list(channels), config.groups
        self.tokens = nn.Parameter(torch.randn(config.prototypes, width))
        self.extractor = PrototypeLayer(width, config.heads, softmax=True)
        self.bottleneck = perceptron(width, nn.GELU())
        self.decoder = nn.ModuleList(PrototypeLayer(width, config.heads, softmax=False) for _ in range(config.layers))

    def forward(self, tokens: Tokens) -> tuple[list[Float[Tensor, "n l _c"]], Float[Tensor, "n m c"]]:
        """The groups as the decoder rebuilds them, and the image's prototypes."""
        prototypes = self.extractor(self.tokens.expand(len(tokens), -1, -1), tokens)
        out, layers = self.bottleneck(tokens), []
        for layer in self.decoder:
            out = layer(out, prototypes)
            layers.append(out)
        size = len(layers) // self.groups
        sums = [torch.stack(layers[i * size : (i + 1) * size]).sum(0) for i in range(self.groups)]
        return [summed.split(self.channels, dim=-1)[i] for i, summed in enumerate(sums)], prototypes


class InpFormer(TrainedMethod):
    """What of an image its own normal prototypes can't rebuild."""

    config: Config

    def network(self, shapes: Shapes) -> InpNetwork:
        """Extractor, bottleneck and decoder."""
        firsts = shapes[:: len(shapes) // self.config.groups]
        return InpNetwork([channels for channels, _, _ in firsts], self.config)

    def optimiser(self, network: nn.Module) -> torch.optim.Optimizer:
        """AdamW."""
        return torch.optim.AdamW(network.parameters(), self.config.learning_rate, weight_decay=self.config.decay)

    def loss(self, network: nn.Module, batch: Batch) -> Float[Tensor, ""]:
        """Soft mining and coherence."""
        groups = self._groups(batch.stages)
        rebuilt, prototypes = cast(InpNetwork, network)(torch.cat(groups, dim=-1))
        mined = [soft_mining(a, b, self.config.mining) for a, b in zip(groups, rebuilt, strict=True)]
        coherence = least_distances(torch.cat(groups, dim=-1), prototypes).mean()
        return torch.stack(mined).mean() + self.config.coherence * coherence

    def maps(self, network: nn.Module, queries: Queries) -> Float[Tensor, "n _s _t"]:
        """1 − cos at each position, mean over groups."""
        groups = self._groups(queries.stages)
        rebuilt, _ = cast(InpNetwork, network)(torch.cat(groups, dim=-1))
        distances = [1 - functional.cosine_similarity(a, b, dim=-1) for a, b in zip(groups, rebuilt, strict=True)]
        return squared_up(torch.stack(distances).mean(0))

    def _groups(self, stages: Sequence[Float[Tensor, "n _c _h _w"]]) -> list[Float[Tensor, "n _l _c"]]:
        """Tokens of each group, on the grid of the first stage."""
        size = len(stages) // self.config.groups
        sums = [sum(stages[i * size + 1 : (i + 1) * size], stages[i * size]) for i in range(self.config.groups)]
        return list(patch_grid(sums).flatten(1, 2).split([summed.shape[1] for summed in sums], dim=-1))


def least_distances(tokens: Tokens, prototypes: Float[Tensor, "n m c"]) -> Float[Tensor, "n l"]:
    """1 − cos of each token to its nearest prototype."""
    directions = functional.normalize(tokens, dim=-1) @ functional.normalize(prototypes, dim=-1).mT
    return (1 - directions).amin(-1)


INFO = MethodInfo(
    name="inp_former",
    version="1.0.0",
    config=Config,
    build=InpFormer,
    summary="A decoder that rebuilds an image from its own normal prototypes alone",
    paper="Luo et al., CVPR 2025",
    licence="Apache-2.0",
    presets=presets(stages=(2, 3), steps=300, support_steps=20, heads=4, layers=2),
    has_seen=("imagenet-1k",),
    trains=True,
    deviations=(
        "trained on other sets' normal images, or on the K supports as in its own few-shot setting",
        "structure only on a convolutional network: stages of unlike channels can't be summed, so each is a group",
        "tokens are the groups joined, not their mean",
        "AdamW at a constant learning rate in place of StableAdamW with a warm-up and a cosine",
        "quick: EfficientNet-Lite0 at 128 px, two stages, two decoder layers, 300 steps of 8 images, "
        "or 20 on the support",
    ),
)
