"""What the trained baselines share: training images, one loop, checkpoints, and maps that are computed once.

sources    normal images of the other sets, once, in `pretrain`; the map of a query then hangs on no support
support    the K images, anew in every `adapt`
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from medfsad_baselines.parts.patches import FeatureConfig
from medfsad_baselines.parts.pools import Batch, SourcePool, SupportPool
from medfsad_baselines.parts.trainer import Shapes, Trainer, shapes_of
from medfsad_bench.errors import MethodError, WeightsError
from medfsad_bench.method import Images, ImageSource, Method, RunContext, Scorer, Scores

SMALL: Mapping[str, Any] = {"backbone": "efficientnet_lite0", "size_px": 128, "batch_size": 8}


@dataclass(frozen=True)
class TrainingConfig(FeatureConfig):
    """What every trained baseline has.

    Attributes:
        trained_on: `sources`: the other sets' normals, once; `support`: the K images alone, at each adaptation.
        batch_size: Images a step; on the support, at most all of it.
        epochs: Passes over all sources; 0 leaves the network untrained (a control).
        steps: If set, training on the sources stops after so many steps.
        support_steps: Steps on a support.
        learning_rate: Of the method's optimiser, without a schedule.
    """

    trained_on: Literal["sources", "support"] = "sources"
    batch_size: int = 16
    epochs: int = 200
    steps: int | None = None
    support_steps: int = 200
    learning_rate: float = 0.005

    def __post_init__(self) -> None:
        if self.batch_size < 1 or min(self.epochs, self.steps or 0, self.support_steps) < 0:
            raise ValueError("batch_size has to be at least 1; epochs, steps and support_steps can't be negative")

    def training(self) -> dict[str, Any]:
        """What determines the weights that training on sources ends with."""
        return {name: value for name, value in asdict(self).items() if name != "support_steps"}


class PretrainedMethod(Method):
    """A network on frozen features that learns from the sources. Its author writes `network`, `loss` and `adapt`.

    Attributes:
        config: As given; a method names its own class.
        settings: The same, for those who know it as this class alone.
    """

    config: TrainingConfig

    def __init__(self, config: TrainingConfig) -> None:
        self.config = self.settings = config
        self._trainer: Trainer | None = None
        self._finished = False
        self._weights = object()  # stands for the present weights in the cache of maps

    @abstractmethod
    def network(self, shapes: Shapes) -> nn.Module:
        """The network, untrained, for stages of these shapes; it may draw from the global generator."""

    @abstractmethod
    def loss(self, network: nn.Module, batch: Batch) -> Float[Tensor, ""]:
        """The loss of a batch."""

    def optimiser(self, network: nn.Module) -> torch.optim.Optimizer:
        """Adam; the paper's own where it differs."""
        return torch.optim.Adam(network.parameters(), lr=self.settings.learning_rate, betas=(0.5, 0.999))

    def pretrain(self, sources: Mapping[str, ImageSource], context: RunContext) -> None:
        """Train on the sources, from wherever `load_state` left off."""
        if self._finished:
            return
        pool = SourcePool(sources, self.settings.features, context)
        trainer = self._trainer = self._trainer or self._untrained(pool.stages(np.array([0])), context)
        trainer.network.to(context.device)
        total = -(-len(pool) // self.settings.batch_size) * self.settings.epochs
        trainer.run(
            pool,
            self.loss,
            steps=total if self.settings.steps is None else min(total, self.settings.steps),
            batch_size=self.settings.batch_size,
            seed=context.seed,
            epoch_end=context.epoch_end,
            progress=context.progress,
        )
        self._finished = True

    def trained(self, stages: Sequence[Tensor], context: RunContext) -> nn.Module:
        """The network as the sources left it, ready to score; untrained if there were none.

        Raises:
            MethodError: If it was made for stages of another shape.
        """
        trainer = self._trainer or self._untrained(stages, context)
        if shapes_of(stages) != trainer.shapes:
            raise MethodError(
                f"The network was trained on feature maps of {trainer.shapes} (channels, height, width), and these "
                f"images give {shapes_of(stages)}. Expected the image size and backbone of training."
            )
        return trainer.network.to(context.device).eval()

    def state(self) -> dict[str, Tensor]:
        """Network, optimiser and counters."""
        if self._trainer is None:
            return {}
        return {"finished": torch.tensor(self._finished), **self._trainer.state()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take up a state; training goes on from it."""
        if "shapes" not in state or "finished" not in state:
            raise WeightsError(
                f"The checkpoint holds no state of {type(self).__name__} (no shapes). Name another file."
            )
        trainer = self._new([(int(c), int(h), int(w)) for c, h, w in state["shapes"].tolist()], seed=0)
        trainer.load_state(state)
        self._trainer, self._finished, self._weights = trainer, bool(state["finished"]), object()

    def _untrained(self, stages: Sequence[Tensor], context: RunContext) -> Trainer:
        return self._new(shapes_of(stages), seed=context.seed, device=context.device)

    def _new(self, shapes: Shapes, *, seed: int, device: torch.device | None = None) -> Trainer:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = self.network(shapes)
        network = network.to(device)
        return Trainer(network, self.optimiser(network), shapes)


@dataclass(frozen=True, slots=True)
class Seen:
    """Images to be scored, in [0, 1], and the frozen network's features of them, one tensor a stage."""

    images: Images
    stages: Sequence[Tensor]


class TrainedMethod(PretrainedMethod):
    """One whose network says what normal is, from sources or a support. Its author writes `network`, `loss`, `maps`."""

    @abstractmethod
    def maps(self, network: nn.Module, seen: Seen) -> Float[Tensor, "n _s _t"]:
        """Anomaly maps, each of its own image alone."""

    def pretrain(self, sources: Mapping[str, ImageSource], context: RunContext) -> None:
        """Train on the sources, unless the support is to teach."""
        if self.settings.trained_on == "sources":
            super().pretrain(sources, context)

    def adapt(self, support: Float[Tensor, "shots 3 h w"], context: RunContext) -> Scorer:
        """Train on the support; or do nothing, where the sources have taught all."""
        if self.settings.trained_on == "support":
            return self._scorer(self._fitted(support, context), context, key=None)
        network = self.trained(context.features(self.settings.features, support), context)
        key = (self._weights, self._trainer.step) if self._trainer else object()
        return self._scorer(network, context, key=key)

    def _fitted(self, support: Images, context: RunContext) -> nn.Module:
        pool = SupportPool(support, self.settings.features, context)
        trainer = self._untrained(pool.stages(np.array([0])), context)
        trainer.run(
            pool,
            self.loss,
            steps=self.settings.support_steps,
            batch_size=self.settings.batch_size,
            seed=context.seed,
        )
        return trainer.network

    def _scorer(self, network: nn.Module, context: RunContext, *, key: object) -> Scorer:
        network.eval()

        def seen(images: Images) -> tuple[Tensor]:
            return (self.maps(network, Seen(images, context.features(self.settings.features, images))),)

        def score(images: Images) -> Scores:
            with torch.no_grad():
                (maps,) = seen(images) if key is None else context.cached(key, images, seen)
            return Scores(pixel=maps)

        return score


def presets(**quick: Any) -> dict[str, Mapping[str, Any]]:
    """`quick`, these settings over `SMALL`; on the support `quick-support`; and the paper's on it, `support`."""
    quick, support = {**SMALL, **quick}, {"trained_on": "support"}
    return {"quick": quick, "support": support, "quick-support": {**quick, **support}}
