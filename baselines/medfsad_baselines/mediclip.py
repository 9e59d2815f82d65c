"""MediCLIP (Zhang et al., MediCLIP: Adapting CLIP for Few-Shot Medical Image Anomaly Detection, MICCAI 2024).

The K supports get synthetic lesions, whose masks are known. Learnt with these are

    prompts     M vectors before the words of a normal and of an abnormal image, through CLIP's text tower
    adapters    one linear layer at each of several blocks, from patch tokens to the joint space

A map is the softmax of a patch's cosines to the two prompts, averaged over the blocks; the loss is focal and Dice.
CLIP itself learns nothing, so tokens of an image are computed once.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor, nn
from torch.nn import functional

from medfsad_baselines.parts.clip import Clip, ClipConfig, Levels, load_clip
from medfsad_baselines.parts.clip_weights import RANDOM, TINY
from medfsad_baselines.parts.heads import fit, new_linear
from medfsad_baselines.parts.losses import focal_and_dice
from medfsad_baselines.parts.synthetic_lesions import with_lesions
from medfsad_baselines.parts.training_images import in_own_order
from medfsad_bench.info import TEXT, MethodInfo
from medfsad_bench.method import Images, Method, RunContext, Scorer, Scores

NORMAL_WORDS = ("normal image", "healthy tissue", "image without lesion")
ABNORMAL_WORDS = ("abnormal image", "diseased tissue", "image with lesion")
_PLACEHOLDER = "x"  # one token, in whose place a learnt vector is read


@dataclass(frozen=True)
class Config(ClipConfig):
    """The paper's network; how long it is trained is ours.

    Attributes:
        layers: Blocks whose tokens are adapted, counted from 1.
        prompt_length: Learnt vectors, M.
        lesions: Synthetic images that are made of the support.
        steps: Of training.
        batch_size: Lesions per step.
        learning_rate: Of Adam.
    """

    backbone: str = "ViT-L-14-quickgelu/openai"
    layers: tuple[int, ...] = (12, 18, 24)
    prompt_length: int = 8
    lesions: int = 96
    steps: int = 300
    batch_size: int = 16
    learning_rate: float = 1e-3


class MediClip(Method):
    """Prompts and adapters, trained anew for every support."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def adapt(self, support: Float[Tensor, "shots 3 h w"], context: RunContext) -> Scorer:
        """Make lesions and train with them."""
        clip = load_clip(self.config, context.device)
        generator = Generator().manual_seed(context.seed)
        images, masks = with_lesions(in_own_order(support).cpu(), self.config.lesions, generator)
        head = Head(clip, self.config, generator).to(context.device)
        with torch.no_grad():
            chunks = [self._tokens(clip, part) for part in images.to(context.device).split(self.config.batch_size)]
        tokens = [torch.cat(layer) for layer in zip(*chunks, strict=True)]
        train(head, tokens, masks.to(context.device), self.config, generator)
        with torch.no_grad():
            text = head.text()

        def score(images: Images) -> Scores:
            key = ("tokens", self.config.backbone, self.config.weights, self.config.layers)
            with torch.no_grad():
                return Scores(pixel=head(context.cached(key, images, lambda batch: self._tokens(clip, batch)), text))

        return score

    def _tokens(self, clip: Clip, images: Images) -> Levels:
        return [tokens[:, 1:] for tokens in clip.blocks(clip.embedded(images), self.config.layers)]


class Head(nn.Module):
    """All that is learnt; CLIP is only read, and kept out of its parameters."""

    def __init__(self, clip: Clip, config: Config, generator: Generator) -> None:
        super().__init__()
        self._read, self.scale, self.grid = clip.read, clip.scale, clip.grid
        width, out = clip.visual.proj.shape
        self.adapters = nn.ModuleList([new_linear(width, out, generator) for _ in config.layers])
        words = (*NORMAL_WORDS, *ABNORMAL_WORDS)
        self._ids = clip.tokenised([" ".join([_PLACEHOLDER] * config.prompt_length + [word]) for word in words])
        self._embedded = clip.network.token_embedding(self._ids).detach()
        self.prompt = nn.Parameter(
            0.02 * torch.randn(config.prompt_length, self._embedded.shape[-1], generator=generator)
        )

    def text(self) -> Float[Tensor, "2 d"]:
        """A unit embedding for normal and one for abnormal: the mean over the words of each."""
        behind = self._embedded[:, 1 + len(self.prompt) :]
        learnt = self.prompt.expand(len(behind), -1, -1)
        read = self._read(torch.cat([self._embedded[:, :1], learnt, behind], dim=1), self._ids)
        return functional.normalize(read.unflatten(0, (2, len(NORMAL_WORDS))).mean(1), dim=-1)

    def forward(self, tokens: Levels, text: Float[Tensor, "2 d"]) -> Float[Tensor, "n gh gw"]:
        """Probability of the abnormal prompt at each patch."""
        maps = []
        for adapter, layer in zip(self.adapters, tokens, strict=True):
            cosines = functional.normalize(adapter(layer), dim=-1) @ text.T
            maps.append((self.scale * cosines).softmax(-1)[..., 1])
        return torch.stack(maps).mean(0).unflatten(1, (self.grid, self.grid))


def train(head: Head, tokens: Levels, masks: Bool[Tensor, "n h w"], config: Config, generator: Generator) -> None:
    """Fit prompts and adapters to lesions."""

    def loss() -> Tensor:
        chosen = torch.randperm(len(masks), generator=generator)[: config.batch_size].to(masks.device)
        return focal_and_dice(head([layer[chosen] for layer in tokens], head.text()), masks[chosen])

    fit(head, torch.optim.Adam(head.parameters(), lr=config.learning_rate), loss, config.steps)


INFO = MethodInfo(
    name="mediclip",
    version="1.0.0",
    config=Config,
    build=MediClip,
    summary="CLIP with prompts and adapters learnt from synthetic lesions on the support",
    paper="Zhang et al., MICCAI 2024",
    licence="Apache-2.0",
    presets={
        "quick": {"backbone": "ViT-B-16-quickgelu/openai", "layers": (6, 9, 12), "lesions": 32, "steps": 60},
        "tiny": {"backbone": RANDOM + TINY, "layers": (2, 3, 4), "lesions": 12, "steps": 10, "batch_size": 6},
    },
    has_seen=("wit-400m",),
    knowledge=TEXT,
    deviations=(
        "lesions are made once per support, so that each passes CLIP once",
        "the numbers of lesions and steps and the learning rate are ours: the paper's were not at hand",
        "one set of words for all targets, as a method isn't told what it looks at",
        "tiny is a toy without weights: structure only",
    ),
)
