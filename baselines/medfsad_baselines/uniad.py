"""UniAD-like (You et al., A Unified Model for Multi-class Anomaly Detection, NeurIPS 2022).

One transformer rebuilds frozen features of many sets. Three things keep it from copying its input:

neighbour mask     in every attention a token sees nothing of itself and the tokens around it
layer-wise query   every decoder layer has learnt queries of its own, one per position
feature jitter     in training, noise of length α |f| / C is added to the tokens f

The mask holds for one attention. Through several, a token's own features come back by way of far tokens, as in
the paper. The loss is the mean squared difference of the tokens; the map is its length at each position.
"""

from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from medfsad_baselines.parts.attention import MaskedLayer, Tokens, visible_beyond
from medfsad_baselines.parts.maps import Shapes, squared_up
from medfsad_baselines.parts.patches import patch_grid
from medfsad_baselines.parts.training import Queries, TrainedMethod, TrainingConfig, presets
from medfsad_baselines.parts.training_images import Batch
from medfsad_bench.info import MethodInfo


@dataclass(frozen=True)
class Config(TrainingConfig):
    """The paper's values.

    Attributes:
        grid: Edge to which the joined stages are brought; None keeps the first stage's.
        width: Of the transformer.
        heads: Of each attention.
        layers: Of the encoder, and of the decoder.
        neighbourhood: Edge of the square around a token that is hidden from it.
        jitter: α; 0 for none.
        decay: Of the weights, by AdamW.
    """

    backbone: str = "efficientnet_b4.ra2_in1k"
    stages: tuple[int, ...] = (0, 1, 2, 3)
    size_px: int | None = 224
    batch_size: int = 64
    epochs: int = 1000
    learning_rate: float = 1e-4
    grid: int | None = 14
    width: int = 256
    heads: int = 8
    layers: int = 4
    neighbourhood: int = 7
    jitter: float = 20.0
    decay: float = 1e-4


class Transformer(nn.Module):
    """From tokens with `channels` to tokens with `channels`, on a grid of `edge` × `edge`."""

    def __init__(self, channels: int, edge: int, config: Config) -> None:
        super().__init__()
        width, heads = config.width, config.heads
        self.enter, self.leave = nn.Linear(channels, width), nn.Linear(width, channels)
        self.position = nn.Parameter(0.02 * torch.randn(edge**2, width))
        self.queries = nn.Parameter(0.02 * torch.randn(config.layers, edge**2, width))
        self.encoder = nn.ModuleList(MaskedLayer(width, heads, 1) for _ in range(config.layers))
        self.decoder = nn.ModuleList(MaskedLayer(width, heads, 2) for _ in range(config.layers))
        self.visible: Tensor
        self.register_buffer("visible", visible_beyond(edge, config.neighbourhood), persistent=False)

    def forward(self, tokens: Tokens) -> Tokens:
        """The tokens rebuilt."""
        memory = self.enter(tokens)
        for layer in self.encoder:
            positioned = memory + self.position
            memory = layer(positioned, [(positioned, memory)], self.visible)
        out = memory
        for layer, own in zip(self.decoder, self.queries, strict=True):
            pairs = [(memory + self.position, memory), (out + self.position, out)]
            out = layer((own + self.position).expand_as(memory), pairs, self.visible)
        return self.leave(out)


class UniAd(TrainedMethod):
    """Distance between tokens and what a transformer makes of their surroundings."""

    config: Config

    def network(self, shapes: Shapes) -> Transformer:
        """The transformer."""
        return Transformer(sum(channels for channels, _, _ in shapes), self.config.grid or shapes[0][1], self.config)

    def optimiser(self, network: nn.Module) -> torch.optim.Optimizer:
        """AdamW."""
        return torch.optim.AdamW(network.parameters(), self.config.learning_rate, weight_decay=self.config.decay)

    def loss(self, network: nn.Module, batch: Batch) -> Float[Tensor, ""]:
        """Mean squared difference from the tokens without jitter."""
        tokens = patch_grid(batch.stages, edge=self.config.grid).flatten(1, 2)
        noise = torch.from_numpy(batch.rng.standard_normal(tokens.shape, np.float32)).to(tokens.device)
        return functional.mse_loss(network(jittered(tokens, noise, self.config.jitter)), tokens)

    def maps(self, network: nn.Module, queries: Queries) -> Float[Tensor, "n _s _t"]:
        """Length of the difference at each position."""
        tokens = patch_grid(queries.stages, edge=self.config.grid).flatten(1, 2)
        return squared_up((cast(Tensor, network(tokens)) - tokens).norm(dim=-1))


def jittered(tokens: Tokens, noise: Tokens, alpha: float) -> Tokens:
    """Tokens f with noise of standard deviation α |f| / C in each channel."""
    return tokens + noise * (alpha / tokens.shape[-1]) * tokens.norm(dim=-1, keepdim=True)


INFO = MethodInfo(
    name="uniad",
    version="1.0.0",
    config=Config,
    build=UniAd,
    summary="A transformer that rebuilds features without seeing their neighbourhood",
    paper="You et al., NeurIPS 2022",
    licence="Apache-2.0",
    presets=presets(
        stages=(2, 3), steps=300, support_steps=20, learning_rate=1e-3, grid=None, width=64, heads=4, layers=2
    ),
    has_seen=("imagenet-1k",),
    trains=True,
    deviations=(
        "trained on other sets' normal images; the paper trains on those of all its targets",
        "the learning rate is constant; the paper's drops to a tenth at epoch 800",
        "every batch is jittered; positions are learnt",
        "quick: EfficientNet-Lite0 at 128 px, two stages, two layers of width 64 on 16 × 16 tokens, 300 steps of 8 "
        "images, or 20 on the support",
    ),
)
