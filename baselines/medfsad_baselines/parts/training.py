"""What the trained baselines share: their settings, one way to train and to score, and maps that are computed once.

sources    normal images of the other sets, once, in `pretrain`; the map of a query then depends on no support
support    the K images, anew in every `adapt`
"""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from medfsad_baselines.parts.maps import Shapes, Stages, shapes_of
from medfsad_baselines.parts.patches import FeatureConfig
from medfsad_baselines.parts.training_images import Batch, SupportImages, TrainingImages
from medfsad_bench.errors import MethodError, WeightsError
from medfsad_bench.learning import Losses, SourceImages, Training
from medfsad_bench.method import Images, ImageSource, Method, RunContext, Scorer, Scores

SMALL: Mapping[str, Any] = {"backbone": "efficientnet_lite0", "size_px": 128, "batch_size": 8}
_EPOCH = 40  # in a seed: the random numbers of an epoch's order and noise, apart from all others


@dataclass(frozen=True)
class TrainingConfig(FeatureConfig):
    """What every trained baseline has.

    Attributes:
        trained_on: `sources`: the other sets' normals, once; `support`: the K images alone, at each adaptation.
        batch_size: Images per step; on the support, at most all of it.
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
        self._training: Training | None = None
        self._shapes: Shapes = ()
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
        images = SourceImages(sources, self.settings.features, context)
        if self._training is None:
            self._shapes = shapes_of(images.stages(np.array([0])))
            self._training = self._untrained(self._shapes, seed=context.seed)
        self._training.to(context.device)
        steps = -(-len(images) // self.settings.batch_size) * self.settings.epochs
        self._training.run(
            self._losses_of_epoch(self._training.network, images, seed=context.seed),
            steps=steps if self.settings.steps is None else min(steps, self.settings.steps),
            epoch_end=context.epoch_end,
            progress=context.progress,
        )
        self._finished = True

    def trained(self, stages: Stages, context: RunContext) -> nn.Module:
        """The network as the sources left it, ready to score; untrained if there were none.

        Raises:
            MethodError: If it was made for stages of another shape.
        """
        shapes = shapes_of(stages)
        if self._training is not None and shapes != self._shapes:
            raise MethodError(
                f"The network was trained on feature maps of {self._shapes} (channels, height, width), and these "
                f"images give {shapes}. Expected the image size and backbone of training."
            )
        training = self._training or self._untrained(shapes, seed=context.seed)
        return training.network.to(context.device).eval()

    def state(self) -> dict[str, Tensor]:
        """Network, optimiser and counters."""
        if self._training is None:
            return {}
        shapes = torch.tensor(self._shapes, dtype=torch.int64)
        return {"shapes": shapes, "finished": torch.tensor(self._finished), **self._training.state()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take up a state; training goes on from it.

        Raises:
            WeightsError: If it is another method's, or a name or shape differs.
        """
        if "shapes" not in state or "finished" not in state:
            raise WeightsError(
                f"The checkpoint holds no state of {type(self).__name__} (no shapes). Name another file."
            )
        shapes = tuple((int(c), int(h), int(w)) for c, h, w in state["shapes"].tolist())
        training = self._untrained(shapes, seed=0)
        training.load_state(state)
        self._training, self._shapes = training, shapes
        self._finished, self._weights = bool(state["finished"]), object()

    def _untrained(self, shapes: Shapes, *, seed: int) -> Training:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = self.network(shapes)
        return Training(network, self.optimiser(network))

    def _losses_of_epoch(
        self, network: nn.Module, images: TrainingImages, *, seed: int
    ) -> Callable[[int], Iterator[Losses]]:
        """Every image once, in random order, batch by batch."""

        def losses_of_epoch(epoch: int) -> Iterator[Losses]:
            rng = np.random.default_rng([seed, _EPOCH, epoch])
            order = rng.permutation(len(images))
            for start in range(0, len(order), self.settings.batch_size):
                batch = Batch(images, order[start : start + self.settings.batch_size], rng)
                yield {"loss": self.loss(network, batch)}

        return losses_of_epoch


@dataclass(frozen=True, slots=True)
class Queries:
    """Images to be scored, in [0, 1], and the frozen network's features of them, one tensor per stage."""

    images: Images
    stages: Stages


class TrainedMethod(PretrainedMethod):
    """One whose network says what normal is, from sources or a support. Its author writes `network`, `loss`, `maps`."""

    @abstractmethod
    def maps(self, network: nn.Module, queries: Queries) -> Float[Tensor, "n _s _t"]:
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
        key = (self._weights, self._training.step) if self._training else object()
        return self._scorer(network, context, key=key)

    def _fitted(self, support: Images, context: RunContext) -> nn.Module:
        images = SupportImages(support, self.settings.features, context)
        training = self._untrained(shapes_of(images.stages(np.array([0]))), seed=context.seed)
        training.to(context.device)
        losses_of_epoch = self._losses_of_epoch(training.network, images, seed=context.seed)
        training.run(losses_of_epoch, steps=self.settings.support_steps)
        return training.network

    def _scorer(self, network: nn.Module, context: RunContext, *, key: object) -> Scorer:
        network.eval()

        def maps_of(images: Images) -> tuple[Tensor]:
            return (self.maps(network, Queries(images, context.features(self.settings.features, images))),)

        def score(images: Images) -> Scores:
            with torch.no_grad():
                (maps,) = maps_of(images) if key is None else context.cached(key, images, maps_of)
            return Scores(pixel=maps)

        return score


def presets(**quick: Any) -> dict[str, Mapping[str, Any]]:
    """`quick`, these settings over `SMALL`; on the support `quick-support`; and the paper's on it, `support`."""
    quick, support = {**SMALL, **quick}, {"trained_on": "support"}
    return {"quick": quick, "support": support, "quick-support": {**quick, **support}}
