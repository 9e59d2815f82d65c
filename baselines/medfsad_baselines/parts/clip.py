"""CLIP for the baselines that are built on it: loading a network, image tokens at any block, text embeddings.

A network is named `architecture/tag` as in open_clip (extra `[clip]`), for weights from its hub's cache or, with
`weights`, from a local file; or `random:architecture`, the network as initialised, a control that nothing falls back
to. `random:tiny` has the structure of all of them and the size of a toy.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from medfsad_baselines.parts.clip_weights import EXAMPLE, SCALING, Scaling, loaded_network, network_digest
from medfsad_bench.errors import WeightsError
from medfsad_bench.method import Images

Levels = Sequence[Float[Tensor, "n p _d"]]  # of n images: patches after several blocks


@dataclass(frozen=True)
class ClipConfig:
    """Which CLIP.

    Attributes:
        backbone: `architecture/tag` of open_clip, or `random:architecture`.
        weights: Local file (safetensors or a state dict) in place of the hub.
    """

    backbone: str = EXAMPLE
    weights: str | None = None

    def weights_digest(self) -> str:
        """SHA-256 over names and values of the weights: part of the run id."""
        return network_digest(self.backbone, self.weights)


class Clip(nn.Module):
    """A frozen CLIP with a plain vision transformer.

    Attributes:
        network: Of open_clip.
        size_px: Edge of the images that it takes.
        grid: Patches along an edge.
        depth: Blocks of its vision transformer.
        scale: What cosines are multiplied with before a softmax: CLIP's learned temperature, inverted.
    """

    def __init__(self, network: Any, scaling: Scaling = SCALING) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        self.visual = network.visual
        self.size_px, self.grid = int(self.visual.image_size[0]), int(self.visual.grid_size[0])
        self.depth = len(self.visual.transformer.resblocks)
        self.scale = float(network.logit_scale.exp())
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(scaling[0]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(scaling[1]).view(1, 3, 1, 1), persistent=False)

    def embedded(self, images: Images) -> Float[Tensor, "n t c"]:
        """What enters the first block: the class token, then one token per patch, positions added."""
        if images.shape[-1] != self.size_px:
            size = (self.size_px, self.size_px)
            images = functional.interpolate(images, size, mode="bicubic", antialias=True, align_corners=False)
        tokens: Tensor = self.visual._embeds((images.clamp(0, 1) - self.mean) / self.std)
        return tokens

    def blocks(
        self,
        tokens: Float[Tensor, "n t c"],
        layers: Sequence[int],
        change: Callable[[int, Tensor], Tensor] = lambda _, tokens: tokens,
    ) -> list[Float[Tensor, "n t c"]]:
        """Tokens after the blocks `layers`, counted from 1.

        Args:
            tokens: As `embedded` gives them; any subset that begins with the class token.
            layers: Rising.
            change: What becomes of the tokens after each block before the next one sees them.

        Raises:
            WeightsError: If the network has fewer blocks.
        """
        if not layers or min(layers) < 1 or max(layers) > self.depth:
            raise WeightsError(
                f"Blocks {tuple(layers)} of a CLIP with {self.depth} are asked for. Expected numbers from 1 to "
                f"{self.depth}; set layers to fit the backbone, as in --set layers={self.depth}."
            )
        after_layers = []
        for number, block in enumerate(self.visual.transformer.resblocks[: max(layers)], start=1):
            tokens = change(number, block(tokens))
            if number in layers:
                after_layers.append(tokens)
        return after_layers

    def joint(self, tokens: Float[Tensor, "*n c"]) -> Float[Tensor, "*n d"]:
        """Tokens of the last width in the space that images and texts share, as unit vectors."""
        return functional.normalize(self.visual.ln_post(tokens) @ self.visual.proj, dim=-1)

    def text(self, prompts: Sequence[str]) -> Float[Tensor, "m d"]:
        """Unit embeddings of texts."""
        ids = self.tokenised(prompts)
        with torch.no_grad():
            return self.read(self.network.token_embedding(ids), ids)

    def tokenised(self, prompts: Sequence[str]) -> Int64[Tensor, "m t"]:
        """Token numbers, padded; the vocabulary lies inside the package."""
        import open_clip

        ids: Tensor = open_clip.tokenize(list(prompts), context_length=self.network.context_length)
        return ids.to(self.mean.device)

    def read(self, embedded: Float[Tensor, "m t c"], ids: Int64[Tensor, "m t"]) -> Float[Tensor, "m d"]:
        """Unit embeddings of token embeddings, some of which may have been learnt; `ids` tell where a text ends."""
        network = self.network
        tokens = network.transformer(embedded + network.positional_embedding, attn_mask=network.attn_mask)
        last = network.ln_final(tokens)[torch.arange(len(ids), device=ids.device), ids.argmax(1)]
        return functional.normalize(last @ network.text_projection, dim=-1)


def ensemble(clip: Clip, prompts: Sequence[str]) -> Float[Tensor, " d"]:
    """One embedding for many phrasings: the mean of their unit embeddings, as a unit vector."""
    return functional.normalize(clip.text(prompts).mean(0), dim=0)


def residuals(levels: Levels, banks: Sequence[Float[Tensor, "_b _d"]]) -> Float[Tensor, "n p"]:
    """One minus the cosine of each patch to the nearest of a bank, averaged over levels; all are unit vectors."""
    distances = [1 - (level @ bank.T).amax(2) for level, bank in zip(levels, banks, strict=True)]
    return torch.stack(distances).mean(0)


def load_clip(config: ClipConfig, device: torch.device) -> Clip:
    """The network on a device, loaded once.

    Raises:
        WeightsError: If open_clip isn't installed, the network is unknown, or its weights can't be had or don't fit.
    """
    return _loaded(config.backbone, config.weights).to(device)


@cache
def _loaded(backbone: str, weights: str | None) -> Clip:
    return Clip(*loaded_network(backbone, weights))
