"""MVFA (Huang et al., Adapting Visual-Language Models for Generalizable Anomaly Detection in …, CVPR 2024).

Small adapters sit behind several blocks of a frozen CLIP and move its tokens a little, F* = γ A(F) + (1 - γ) F, so that
every later block sees adapted tokens. At each of these levels a projection brings patches to the joint space, where

    text      softmax on the abnormal prompts (those of WinCLIP): an abnormal image has to have such a patch, a normal
              image none; this is what adapters and projections learn, from K normal and K abnormal images of the target
    memory    one minus the cosine to the nearest patch of the normal supports

are averaged over the levels and added. The abnormal supports are why this method has a track of its own.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn
from torch.nn import functional

from medfsad_baselines.parts.clip import Clip, ClipConfig, Levels, load_clip, residuals
from medfsad_baselines.parts.clip_prompts import state_embeddings, text_scores
from medfsad_baselines.parts.clip_weights import RANDOM, TINY
from medfsad_baselines.parts.heads import fit, new_linear
from medfsad_baselines.parts.training_images import in_own_order
from medfsad_bench.info import ABNORMAL_SUPPORTS, TEXT, MethodInfo, knowledge_of
from medfsad_bench.method import AbnormalShotMethod, Images, RunContext, Scorer, Scores

Embedded = Float[Tensor, "_n t c"]


@dataclass(frozen=True)
class Config(ClipConfig):
    """The paper's values.

    Attributes:
        layers: Blocks that are followed by an adapter, counted from 1.
        mixing: γ.
        subject: What the prompts speak of; one word for all targets.
        text_weight: The text's share of a score; the rest is the memory's.
        steps: Of training, each with all supports.
        learning_rate: Of Adam.
    """

    backbone: str = "ViT-L-14-336-quickgelu/openai"
    layers: tuple[int, ...] = (6, 12, 18, 24)
    mixing: float = 0.1
    subject: str = "medical image"
    text_weight: float = 0.5
    steps: int = 50
    learning_rate: float = 1e-3

    def __post_init__(self) -> None:
        if not 0 <= self.mixing <= 1 or not 0 <= self.text_weight <= 1:
            raise ValueError("mixing and text_weight lie in [0, 1]")


class Adapters(nn.Module):
    """All that is learnt; CLIP is only read, and kept out of its parameters."""

    def __init__(self, clip: Clip, config: Config, generator: Generator) -> None:
        super().__init__()
        self._blocks, self._layers, self._mixing = clip.blocks, config.layers, config.mixing
        width, joint = clip.visual.proj.shape
        down = [new_linear(width, joint, generator) for _ in config.layers]
        up = [new_linear(joint, width, generator) for _ in config.layers]
        act = nn.LeakyReLU
        self.adapters = nn.ModuleList([nn.Sequential(a, act(), b, act()) for a, b in zip(down, up, strict=True)])
        self.projections = nn.ModuleList([new_linear(width, joint, generator) for _ in config.layers])

    def forward(self, embedded: Embedded) -> Levels:
        """Unit patch embeddings, level by level."""
        levels = self._blocks(embedded, self._layers, self._changed)
        pairs = zip(self.projections, levels, strict=True)
        return [functional.normalize(project(tokens[:, 1:]), dim=-1) for project, tokens in pairs]

    def _changed(self, block: int, tokens: Embedded) -> Embedded:
        if block not in self._layers:
            return tokens
        adapted = self.adapters[self._layers.index(block)](tokens)
        return self._mixing * adapted + (1 - self._mixing) * tokens


class Mvfa(AbnormalShotMethod):
    """Adapters, trained anew for every support."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def adapt_to_both(
        self, support: Float[Tensor, "shots 3 h w"], abnormal: Float[Tensor, "abnormal 3 h w"], context: RunContext
    ) -> Scorer:
        """Train on both kinds, and keep the normal ones' patches."""
        clip = load_clip(self.config, context.device)
        adapters = Adapters(clip, self.config, Generator().manual_seed(context.seed)).to(context.device)
        text = state_embeddings(clip, self.config.subject)
        normal, bad = clip.embedded(in_own_order(support)), clip.embedded(in_own_order(abnormal))
        train(adapters, normal, bad, text, clip.scale, self.config)
        with torch.no_grad():
            memory = [level.flatten(0, 1) for level in adapters(normal)]
        share = self.config.text_weight

        def score(images: Images) -> Scores:
            with torch.no_grad():
                levels = adapters(clip.embedded(images))
                by_text = torch.stack([text_scores(level, text, clip.scale) for level in levels]).mean(0)
                by_memory = residuals(levels, memory)
            image = share * by_text.amax(1) + (1 - share) * by_memory.amax(1)
            maps = share * by_text + (1 - share) * by_memory
            return Scores(image=image, pixel=maps.unflatten(1, (clip.grid, clip.grid)))

        return score


def train(
    adapters: Adapters, normal: Embedded, abnormal: Embedded, text: Float[Tensor, "2 d"], scale: float, config: Config
) -> None:
    """Fit adapters so that at each level the most abnormal patch of an image tells its kind."""
    images = torch.cat([normal, abnormal])
    truth = torch.tensor([0.0] * len(normal) + [1.0] * len(abnormal), device=images.device)

    def loss() -> Tensor:
        worst = [text_scores(level, text, scale).amax(1).clamp(1e-6, 1 - 1e-6) for level in adapters(images)]
        return torch.stack([functional.binary_cross_entropy(level, truth) for level in worst]).sum()

    adam = torch.optim.Adam(adapters.parameters(), lr=config.learning_rate, betas=(0.5, 0.999))
    fit(adapters, adam, loss, config.steps)


INFO = MethodInfo(
    name="mvfa",
    version="1.0.0",
    config=Config,
    build=Mvfa,
    summary="CLIP with adapters at several blocks, learnt from K normal and K abnormal images",
    paper="Huang et al., CVPR 2024",
    licence="Apache-2.0",
    presets={
        "quick": {"backbone": "ViT-B-16-quickgelu/openai", "layers": (3, 6, 9, 12), "steps": 20},
        "tiny": {"backbone": RANDOM + TINY, "layers": (1, 2, 3, 4), "steps": 10},
    },
    has_seen=("wit-400m",),
    knowledge=knowledge_of(TEXT, ABNORMAL_SUPPORTS),
    deviations=(
        "no method is shown masks, so the branch for segmentation is left out: the map is that of classification",
        "supports are not augmented; every step sees all of them",
        "images are resized to the network's own size",
        "the prompts name no target, only `subject`",
        "tiny is a toy without weights: structure only",
    ),
)
