"""InCTRL (Zhu and Pang, Toward Generalist Anomaly Detection via In-context Residual Learning, CVPR 2024).

How far an image is from K normal ones, on three levels of a frozen CLIP:

    patches    one minus the cosine to the nearest patch of the support, averaged over blocks: the map M
    image      adapted image embedding minus the mean of the support's; a classifier scores this residual: s_i
    text       softmax on the abnormal prompts (those of WinCLIP): s_a

The score is φ(M + s_i + s_a) + α max M. Adapter, classifier and φ are learnt on the other sets: from normal images and
from labelled anomalies, which is why this method has a track of its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn
from torch.nn import functional

from medfsad_baselines.clip import Clip, ClipConfig, load_clip, new_linear
from medfsad_baselines.clip_weights import RANDOM, TINY
from medfsad_baselines.labelled import labelled_episodes
from medfsad_baselines.winclip import state_embeddings, text_scores
from medfsad_bench.errors import MethodError, WeightsError
from medfsad_bench.info import SOURCE_ANOMALIES, TEXT, MethodInfo, known
from medfsad_bench.method import Images, ImageSource, LabelledSource, Method, RunContext, Scorer, Scores

Parts = Sequence[Tensor]  # of n images: unit image embedding (n, d), then unit patch tokens (n, p, w), block by block


@dataclass(frozen=True)
class Config(ClipConfig):
    """The paper's values.

    Attributes:
        layers: Blocks whose patch tokens are compared, counted from 1.
        subject: What the prompts speak of; one word for all targets.
        patch_weight: α, of the map's maximum.
        train_shots: Supports a query in training.
        steps: Of training.
        batch_size: Queries a step, half of them anomalous, all of one source.
        learning_rate: Of Adam.
    """

    layers: tuple[int, ...] = (7, 9, 11)
    subject: str = "medical image"
    patch_weight: float = 0.5
    train_shots: int = 8
    steps: int = 1000
    batch_size: int = 48
    learning_rate: float = 1e-3

    def training(self) -> dict[str, Any]:
        """What determines the trained weights."""
        return asdict(self)


class Head(nn.Module):
    """What is learnt: adapter ψ, classifier η of the image residual, and φ of the map."""

    def __init__(self, width: int, patches: int, config: Config, *, seed: int) -> None:
        super().__init__()
        generator = Generator().manual_seed(seed)
        self.patch_weight = config.patch_weight
        self.adapter = _two_layers(width, width // 4, width, generator)
        self.classifier = _two_layers(width, width // 4, 1, generator)
        self.holistic = _two_layers(patches, 128, 1, generator)

    def forward(
        self,
        maps: Float[Tensor, "n p"],
        image: Float[Tensor, "n d"],
        support: Float[Tensor, "k d"],
        text: Float[Tensor, " n"],
    ) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
        """Logits of the score's first part and of the image residual, and with them all that is scored.

        Args:
            maps: Patch residuals.
            image: Embeddings of queries.
            support: Embeddings of normal images.
            text: Scores of the prompts.
        """
        residual = self.adapter(image) - self.adapter(support).mean(0)
        of_image = self.classifier(residual)[:, 0]
        whole = maps + of_image.sigmoid()[:, None] + text[:, None]
        return self.holistic(whole)[:, 0] + self.patch_weight * maps.amax(1), of_image


class InCtrl(Method):
    """Residuals to the support, scored by a head that was trained on other sets."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._head: Head | None = None

    def pretrain(self, sources: Mapping[str, ImageSource], context: RunContext) -> None:
        """Learn the head from normal images and anomalies of the sources."""
        if self._head is not None:
            return
        labelled = [source for _, source in sorted(sources.items()) if isinstance(source, LabelledSource)]
        labelled = [source for source in labelled if len(source.anomalies) and len(source.groups.unique()) > 1]
        if not labelled:
            raise MethodError(
                f"inctrl learns from labelled anomalies of other sets, and of {', '.join(sources) or 'no set'} there "
                "are none. Prepare at least one more set with anomalous test images."
            )
        clip = load_clip(self.config, context.device)
        head = Head(clip.visual.output_dim, clip.grid**2, self.config, seed=context.seed).to(context.device)
        optimiser = torch.optim.Adam(head.parameters(), lr=self.config.learning_rate)
        text = state_embeddings(clip, self.config.subject)
        draws = labelled_episodes(
            labelled,
            shots=self.config.train_shots,
            batch_size=self.config.batch_size,
            steps=self.config.steps,
            generator=Generator().manual_seed(context.seed),
        )
        for step, (support, queries, anomalous) in enumerate(draws, start=1):
            known_parts, parts = self._parts(clip, support, context), self._parts(clip, queries, context)
            prior = text_scores(parts[0], text, clip.scale)
            score, of_image = head(residual_map(parts, known_parts), parts[0], known_parts[0], prior)
            truth = anomalous.to(score.device)
            loss = functional.binary_cross_entropy_with_logits(score, truth)
            loss = loss + functional.binary_cross_entropy_with_logits(of_image, truth)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            context.progress(step, self.config.steps, loss=float(loss.detach()))
        self._head = head

    def adapt(self, support: Float[Tensor, "shots 3 h w"], context: RunContext) -> Scorer:
        """Keep the support's embeddings and tokens."""
        clip = load_clip(self.config, context.device)
        head = self._head or Head(clip.visual.output_dim, clip.grid**2, self.config, seed=context.seed)
        head = head.to(context.device)
        text, parts = state_embeddings(clip, self.config.subject), self._parts(clip, support, context)

        def score(images: Images) -> Scores:
            with torch.no_grad():
                found = self._parts(clip, images, context)
                maps = residual_map(found, parts)
                image, _ = head(maps, found[0], parts[0], text_scores(found[0], text, clip.scale))
            return Scores(image=image, pixel=maps.unflatten(1, (clip.grid, clip.grid)))

        return score

    def _parts(self, clip: Clip, images: Images, context: RunContext) -> Parts:
        def computed(batch: Images) -> list[Tensor]:
            *blocks, last = clip.blocks(clip.embedded(batch), (*self.config.layers, clip.depth))
            return [clip.joint(last[:, 0]), *(functional.normalize(block[:, 1:], dim=-1) for block in blocks)]

        return context.cached(
            ("inctrl", self.config.backbone, self.config.weights, self.config.layers), images, computed
        )

    def state(self) -> dict[str, Tensor]:
        """The head."""
        if self._head is None:
            return {}
        sizes = [self._head.adapter[0].in_features, self._head.holistic[0].in_features]
        return {
            "sizes": torch.tensor(sizes),
            **{name: value.clone() for name, value in self._head.state_dict().items()},
        }

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take up a head."""
        if not state:
            return
        try:
            width, patches = (int(size) for size in state["sizes"])
            head = Head(width, patches, self.config, seed=0)
            head.load_state_dict({name: value for name, value in state.items() if name != "sizes"})
        except (KeyError, RuntimeError) as error:
            raise WeightsError(f"The checkpoint holds no state of inctrl ({error}). Name another file.") from error
        self._head = head


def residual_map(parts: Parts, support: Parts) -> Float[Tensor, "n p"]:
    """One minus the cosine of each patch to the nearest of all supports' patches, averaged over the blocks."""
    each = [1 - (own @ bank.flatten(0, 1).T).amax(2) for own, bank in zip(parts[1:], support[1:], strict=True)]
    return torch.stack(each).mean(0)


def _two_layers(inputs: int, hidden: int, outputs: int, generator: Generator) -> nn.Sequential:
    return nn.Sequential(new_linear(inputs, hidden, generator), nn.ReLU(), new_linear(hidden, outputs, generator))


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
    knowledge=known(TEXT, SOURCE_ANOMALIES),
    trains=True,
    deviations=(
        "binary cross-entropy in place of a focal loss, as batches are half anomalous",
        "a batch is of one source and shares its support; the number of steps is ours",
        "the prompts name no target, only `subject`",
        "tiny is a toy without weights: structure only",
    ),
)
