"""WinCLIP (Jeong et al., WinCLIP: Zero-/Few-Shot Anomaly Classification and Segmentation, CVPR 2023).

Text     states of a normal and of an abnormal thing in many phrasings, each averaged to one embedding (section 3.2);
         the score of an image embedding is its softmax on the abnormal one.
Windows  each window of 2 × 2 and 3 × 3 patches goes through the network alone, the other tokens left out (3.3).
         A patch takes the harmonic mean over the windows that hold it, then over the scales and the whole image.
Support  half of one minus the cosine to the nearest embedding of the support, for windows of both scales and for the
         patch tokens, averaged (3.4). The image's score is the mean of its text score and the map's maximum.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from medfsad_baselines.parts.clip import Clip, ClipConfig, load_clip
from medfsad_baselines.parts.clip_prompts import state_embeddings, text_scores
from medfsad_baselines.parts.clip_weights import RANDOM, TINY
from medfsad_bench.info import TEXT, MethodInfo
from medfsad_bench.method import Images, Method, RunContext, Scorer, Scores

_LEAST = 1e-8  # of a score: a harmonic mean isn't defined for 0


@dataclass(frozen=True)
class Config(ClipConfig):
    """The paper's values.

    Attributes:
        windows: Edges of the windows, in patches.
        subject: What the prompts speak of; one word for all targets.
        reference: Whether the support counts; False is the zero-shot score.
    """

    windows: tuple[int, ...] = (2, 3)
    subject: str = "medical image"
    reference: bool = True


class WinClip(Method):
    """Text and support, window by window."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def adapt(self, support: Float[Tensor, "shots 3 h w"], context: RunContext) -> Scorer:
        """Embed the prompts, and keep the support's embeddings."""
        clip = load_clip(self.config, context.device)
        masks = [window_masks(clip.grid, edge).to(context.device) for edge in self.config.windows]
        text = state_embeddings(clip, self.config.subject)
        patch_bank, *window_banks = (part.flatten(0, 1) for part in self._parts(clip, masks, support, context)[1:])

        def score(images: Images) -> Scores:
            whole, patches, *windows = self._parts(clip, masks, images, context)
            image = text_scores(whole[:, 0], text, clip.scale)
            by_text = [image[:, None].expand(-1, clip.grid**2)]
            for embeddings, mask in zip(windows, masks, strict=True):
                by_text.append(harmonic_mean(text_scores(embeddings, text, clip.scale), mask))
            maps = len(by_text) / torch.stack(by_text).clamp_min(_LEAST).reciprocal().sum(0)
            if self.config.reference:
                by_support = [nearest(patches, patch_bank)]
                for embeddings, mask, bank in zip(windows, masks, window_banks, strict=True):
                    by_support.append(harmonic_mean(nearest(embeddings, bank), mask))
                distances = torch.stack(by_support).mean(0)
                maps, image = (maps + distances) / 2, (image + distances.amax(1)) / 2
            return Scores(image=image, pixel=maps.unflatten(1, (clip.grid, clip.grid)))

        return score

    def _parts(
        self, clip: Clip, masks: Sequence[Bool[Tensor, "_w _p"]], images: Images, context: RunContext
    ) -> tuple[Tensor, ...]:
        """Of each image: one embedding of the whole, of each patch, and of each window, scale by scale."""

        def computed(batch: Images) -> list[Tensor]:
            tokens = clip.embedded(batch)
            (last,) = clip.blocks(tokens, (clip.depth,))
            embedded = clip.joint(last)
            return [embedded[:, :1], embedded[:, 1:], *(window_embeddings(clip, tokens, mask) for mask in masks)]

        key = ("winclip", self.config.backbone, self.config.weights, self.config.windows)
        return context.cached(key, images, computed)


def window_masks(grid: int, edge: int) -> Bool[Tensor, "w p"]:
    """Which of the grid × grid patches each window of edge × edge holds, in steps of one patch."""
    edge = min(edge, grid)
    starts = range(grid - edge + 1)
    masks = torch.zeros(len(starts) ** 2, grid, grid, dtype=torch.bool)
    for number, (row, column) in enumerate(product(starts, starts)):
        masks[number, row : row + edge, column : column + edge] = True
    return masks.flatten(1)


def window_embeddings(clip: Clip, tokens: Float[Tensor, "n t c"], masks: Bool[Tensor, "m p"]) -> Float[Tensor, "n m d"]:
    """Unit embeddings of the class token where it and a window's patches are all that the network sees."""
    inside = masks.nonzero()[:, 1].view(len(masks), -1)  # the patches of each window
    windows = torch.cat([tokens[:, :1].expand(-1, len(masks), -1)[:, :, None], tokens[:, 1:][:, inside]], dim=2)
    (last,) = clip.blocks(windows.flatten(0, 1), (clip.depth,))
    return clip.joint(last[:, 0]).unflatten(0, (len(tokens), len(masks)))


def harmonic_mean(scores: Float[Tensor, "n m"], masks: Bool[Tensor, "m p"]) -> Float[Tensor, "n p"]:
    """At each patch the harmonic mean of the scores of all windows that hold it."""
    weights = masks.to(scores.dtype)
    return weights.sum(0) / (scores.clamp_min(_LEAST).reciprocal() @ weights)


def nearest(embeddings: Float[Tensor, "n m d"], bank: Float[Tensor, "b d"]) -> Float[Tensor, "n m"]:
    """Half of one minus the cosine to the nearest vector of the bank; all are unit vectors."""
    return (1 - (embeddings @ bank.T).amax(2)).clamp_min(0) / 2


INFO = MethodInfo(
    name="winclip",
    version="1.0.0",
    config=Config,
    build=WinClip,
    summary="CLIP: prompts for normal and abnormal, and the nearest windows of the support",
    paper="Jeong et al., CVPR 2023",
    licence="Apache-2.0",
    presets={
        "quick": {"backbone": "ViT-B-16/laion400m_e31"},
        "tiny": {"backbone": RANDOM + TINY},
        "zero_shot": {"reference": False},
    },
    has_seen=("laion-400m",),
    knowledge=TEXT,
    deviations=(
        "the prompts name no target, only `subject`: a method isn't told what it looks at",
        "patch tokens are those of the last block, in the joint space",
        "the softmax uses the network's own temperature",
        "tiny is a toy without weights: structure only",
    ),
)
