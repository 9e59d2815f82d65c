"""InCTRL (Zhu and Pang, Toward Generalist Anomaly Detection via In-context Residual Learning, CVPR 2024).

How far an image is from K normal ones, on three levels of a frozen CLIP:

    patches    one minus the cosine to the nearest patch of the support, averaged over blocks: the map M
    image      adapted image embedding minus the mean of the support's; a classifier scores this residual: s_i
    text       softmax on the abnormal prompts (those of WinCLIP): s_a

The score is φ(M + s_i + s_a) + α max M. Adapter, classifier and φ are learnt on the other sets: from normal images and
from labelled anomalies, which is why this method has a track of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn
from torch.nn import functional

from medfsad_baselines.parts.clip import ClipConfig, load_clip, residuals
from medfsad_baselines.parts.clip_prompts import state_embeddings, text_scores
from medfsad_baselines.parts.clip_weights import RANDOM, TINY
from medfsad_baselines.parts.episodic_head import Episode, EpisodicHeadConfig, EpisodicHeadMethod
from medfsad_baselines.parts.heads import two_layers
from medfsad_baselines.parts.maps import squared_up
from medfsad_bench.info import SOURCE_ANOMALIES, TEXT, MethodInfo, knowledge_of
from medfsad_bench.method import Images, RunContext, Scorer, Scores

Parts = Sequence[Tensor]  # of n images: unit image embedding (n, d), then unit patch tokens (n, p, w), block by block


@dataclass(frozen=True)
class Config(EpisodicHeadConfig, ClipConfig):
    """The paper's values.

    Attributes:
        layers: Blocks whose patch tokens are compared, counted from 1.
        subject: What the prompts speak of; one word for all targets.
        patch_weight: α, of the map's maximum.
    """

    layers: tuple[int, ...] = (7, 9, 11)
    subject: str = "medical image"
    patch_weight: float = 0.5


class Head(nn.Module):
    """What is learnt: adapter ψ, classifier η of the image residual, and φ of the map."""

    def __init__(self, width: int, patches: int, config: Config, *, seed: int) -> None:
        super().__init__()
        generator = Generator().manual_seed(seed)
        self.patch_weight = config.patch_weight
        self.adapter = two_layers(width, width // 4, width, generator)
        self.classifier = two_layers(width, width // 4, 1, generator)
        self.holistic = two_layers(patches, 128, 1, generator)

    def forward(
        self, parts: Parts, support: Parts, text: Float[Tensor, " n"]
    ) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"], Float[Tensor, "n p"]]:
        """Logits of the score and of the image residual, and the map; `text` are the scores of the prompts."""
        maps = residual_map(parts, support)
        residual = self.adapter(parts[0]) - self.adapter(support[0]).mean(0)
        of_image = self.classifier(residual)[:, 0]
        whole = maps + of_image.sigmoid()[:, None] + text[:, None]
        return self.holistic(whole)[:, 0] + self.patch_weight * maps.amax(1), of_image, maps


class InCtrl(EpisodicHeadMethod):
    """Residuals to the support, scored by a head that was trained on other sets."""

    name = "inctrl"
    config: Config

    def sizes(self, context: RunContext) -> tuple[int, ...]:
        """Of an image's embedding, and of the map."""
        clip = load_clip(self.config, context.device)
        return clip.visual.output_dim, clip.grid**2

    def new_head(self, sizes: Sequence[int], *, seed: int) -> Head:
        """Adapter, classifier and φ."""
        width, patches = sizes
        return Head(width, patches, self.config, seed=seed)

    def loss(self, head: nn.Module, episode: Episode, context: RunContext) -> Float[Tensor, ""]:
        """Cross-entropy of the score and of the image residual's."""
        support, queries, anomalous = episode
        support_parts, parts = self._parts(support, context), self._parts(queries, context)
        score, of_image, _ = head(parts, support_parts, self._text_scores(parts, context))
        truth = anomalous.to(score.device)
        loss = functional.binary_cross_entropy_with_logits(score, truth)
        return loss + functional.binary_cross_entropy_with_logits(of_image, truth)

    def adapt(self, support: Float[Tensor, "shots 3 h w"], context: RunContext) -> Scorer:
        """Keep the support's embeddings and tokens."""
        head, support_parts = self.head(context), self._parts(support, context)

        def score(images: Images) -> Scores:
            with torch.no_grad():
                parts = self._parts(images, context)
                image, _, maps = head(parts, support_parts, self._text_scores(parts, context))
            return Scores(image=image, pixel=squared_up(maps))

        return score

    def _text_scores(self, parts: Parts, context: RunContext) -> Float[Tensor, " n"]:
        clip = load_clip(self.config, context.device)
        return text_scores(parts[0], state_embeddings(clip, self.config.subject), clip.scale)

    def _parts(self, images: Images, context: RunContext) -> Parts:
        clip = load_clip(self.config, context.device)

        def computed(batch: Images) -> list[Tensor]:
            *blocks, last = clip.blocks(clip.embedded(batch), (*self.config.layers, clip.depth))
            return [clip.joint(last[:, 0]), *(functional.normalize(block[:, 1:], dim=-1) for block in blocks)]

        key = ("inctrl", self.config.backbone, self.config.weights, self.config.layers)
        return context.cached(key, images, computed)


def residual_map(parts: Parts, support: Parts) -> Float[Tensor, "n p"]:
    """One minus the cosine of each patch to the nearest of all supports' patches, averaged over the blocks."""
    return residuals(parts[1:], [block.flatten(0, 1) for block in support[1:]])


INFO = MethodInfo(
    name="inctrl",
    version="1.0.0",
    config=Config,
    build=InCtrl,
    summary="CLIP: residuals to the support, scored by a head that learnt from other sets' anomalies",
    paper="Zhu and Pang, CVPR 2024",
    licence="Apache-2.0",
    presets={
        "quick": {"backbone": "ViT-B-16/laion400m_e31", "steps": 200, "batch_size": 16, "train_shots": 4},
        "tiny": {"backbone": RANDOM + TINY, "layers": (2, 3), "steps": 20, "batch_size": 8, "train_shots": 2},
    },
    has_seen=("laion-400m",),
    knowledge=knowledge_of(TEXT, SOURCE_ANOMALIES),
    trains=True,
    deviations=(
        "binary cross-entropy in place of a focal loss, as batches are half anomalous",
        "a batch comes from one source and shares one support; the number of steps is ours",
        "the prompts name no target, only `subject`",
        "tiny is a toy without weights: structure only",
    ),
)
