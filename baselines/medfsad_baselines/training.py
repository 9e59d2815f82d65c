"""What the trained baselines share: training images, one loop, checkpoints, and maps that are computed once.

sources    normal images of the other sets, once, in `pretrain`; the map of a query then hangs on no support
support    the K images, anew in every `adapt`
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from medfsad_baselines.patches import FeatureConfig
from medfsad_baselines.pools import Batch, Pool, SourcePool, SupportPool
from medfsad_bench.errors import MethodError, WeightsError
from medfsad_bench.method import Images, ImageSource, Method, RunContext, Scorer, Scores

Shapes = Sequence[tuple[int, int, int]]  # channels, height and width of each stage
_LISTED = 40  # first entry of the seeds of an epoch's order and noise


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


class Trainer:
    """A network, its optimiser, and how far they are. What a step does hangs on the seed and the step alone.

    Attributes:
        network: What learns.
        shapes: Of the stages it was made for.
        epoch: Whole epochs done.
        step: Steps done.
    """

    def __init__(self, network: nn.Module, optimiser: torch.optim.Optimizer, shapes: Shapes) -> None:
        self.network, self.shapes = network, tuple(shapes)
        self.epoch = self.step = 0
        self._optimiser = optimiser

    def run(
        self,
        pool: Pool,
        loss_of: Callable[[nn.Module, Batch], Tensor],
        *,
        steps: int,
        batch_size: int,
        seed: int,
        epoch_end: Callable[[int], None] = lambda _: None,
        progress: Callable[..., None] = lambda *_, **__: None,
    ) -> None:
        """Go on until `steps` are done, through the images in random order.

        Raises:
            MethodError: If the loss isn't finite.
        """
        while self.step < steps:
            self.network.train()
            rng = np.random.default_rng([seed, _LISTED, self.epoch])
            order = rng.permutation(len(pool))
            for start in range(0, len(order), batch_size):
                if self.step >= steps:
                    break
                loss = loss_of(self.network, Batch(pool, order[start : start + batch_size], rng))
                self._optimiser.zero_grad(set_to_none=True)
                loss.backward()
                self._optimiser.step()
                self.step += 1
                self._stop_unless_finite(loss.item())
                progress(self.step, steps, loss=loss.item())
            self.epoch += 1
            epoch_end(self.epoch)

    def state(self) -> dict[str, Tensor]:
        """All of it, flat."""
        found = {
            "shapes": torch.tensor(self.shapes, dtype=torch.int64),
            "counters": torch.tensor([self.epoch, self.step], dtype=torch.int64),
        }
        found |= {f"network.{name}": value.detach().clone() for name, value in self.network.state_dict().items()}
        for index, moments in self._optimiser.state_dict()["state"].items():
            known = {name: value for name, value in moments.items() if value is not None}
            found |= {f"moment.{index}.{name}": torch.as_tensor(value).clone() for name, value in known.items()}
        return found

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take up what `state` returned.

        Raises:
            WeightsError: If a name or shape differs.
        """
        mine = {name.removeprefix("network."): one for name, one in state.items() if name.startswith("network.")}
        wanted = self.network.state_dict()
        differ = sorted(
            n for n in {*wanted, *mine} if n not in mine or n not in wanted or wanted[n].shape != mine[n].shape
        )
        if differ:
            raise WeightsError(
                f"The checkpoint doesn't fit: {len(differ)} tensors are missing, unknown or of another shape (first "
                f"{differ[:2]}). Use the settings that it was trained with."
            )
        self.network.load_state_dict(mine)
        self.epoch, self.step = (int(value) for value in state["counters"])
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in state.items():
            if name.startswith("moment."):
                _, index, moment = name.split(".", 2)
                moments.setdefault(int(index), {})[moment] = value
        if moments:
            self._optimiser.load_state_dict(self._optimiser.state_dict() | {"state": moments})

    def _stop_unless_finite(self, loss: float) -> None:
        if not np.isfinite(loss):
            raise MethodError(
                f"Training diverged at step {self.step} (loss {loss}). Lower the learning rate with "
                "--set learning_rate=…"
            )


@dataclass(frozen=True, slots=True)
class Seen:
    """Images to be scored, in [0, 1], and the frozen network's features of them, one tensor a stage."""

    images: Images
    stages: Sequence[Tensor]


class TrainedMethod(Method):
    """A network on frozen features that learns what normal is. Its author writes three functions."""

    def __init__(self, config: TrainingConfig) -> None:
        self.settings = config
        self._trainer: Trainer | None = None
        self._finished = False
        self._weights = object()  # stands for the present weights in the cache of maps

    @abstractmethod
    def network(self, shapes: Shapes) -> nn.Module:
        """The network, untrained, for stages of these shapes; it may draw from the global generator."""

    @abstractmethod
    def loss(self, network: nn.Module, batch: Batch) -> Float[Tensor, ""]:
        """The loss of a batch."""

    @abstractmethod
    def maps(self, network: nn.Module, seen: Seen) -> Float[Tensor, "n _s _t"]:
        """Anomaly maps, each of its own image alone."""

    def optimiser(self, network: nn.Module) -> torch.optim.Optimizer:
        """Adam; the paper's own where it differs."""
        return torch.optim.Adam(network.parameters(), lr=self.settings.learning_rate, betas=(0.5, 0.999))

    def pretrain(self, sources: Mapping[str, ImageSource], context: RunContext) -> None:
        """Train on the sources, from wherever `load_state` left off."""
        if self._finished or self.settings.trained_on == "support":
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

    def adapt(self, support: Float[Tensor, "shots 3 h w"], context: RunContext) -> Scorer:
        """Train on the support; or do nothing, where the sources have taught all."""
        if self.settings.trained_on == "support":
            return self._scorer(self._fitted(support, context), context, key=None)
        network = self.trained(context.features(self.settings.features, support), context)
        key = (self._weights, self._trainer.step) if self._trainer else object()
        return self._scorer(network, context, key=key)

    def trained(self, stages: Sequence[Tensor], context: RunContext) -> nn.Module:
        """The network as the sources left it, ready to score; untrained if there were none.

        Raises:
            MethodError: If it was made for stages of another shape.
        """
        trainer = self._trainer or self._untrained(stages, context)
        if _shapes_of(stages) != trainer.shapes:
            raise MethodError(
                f"The network was trained on feature maps of {trainer.shapes} (channels, height, width), and these "
                f"images give {_shapes_of(stages)}. Expected the image size and backbone of training."
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

    def _untrained(self, stages: Sequence[Tensor], context: RunContext) -> Trainer:
        return self._new(_shapes_of(stages), seed=context.seed, device=context.device)

    def _new(self, shapes: Shapes, *, seed: int, device: torch.device | None = None) -> Trainer:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = self.network(shapes)
        network = network.to(device)
        return Trainer(network, self.optimiser(network), shapes)


def cosine_distance(a: Float[Tensor, "n c h w"], b: Float[Tensor, "n c h w"]) -> Float[Tensor, "n h w"]:
    """1 − cos at each position: half the squared distance of the two vectors, each scaled to length 1."""
    return 1 - functional.cosine_similarity(a, b, dim=1)


def enlarged(maps: Float[Tensor, "n h w"], size_px: int) -> Float[Tensor, "n s s"]:
    """Maps at another size, bilinear."""
    size = (size_px, size_px)
    return functional.interpolate(maps[:, None], size, mode="bilinear", align_corners=False)[:, 0]


def presets(quick: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """`quick` and, for a method that can be trained on the support, `support` and `quick-support`."""
    support = {"trained_on": "support"}
    return {"quick": quick, "support": support, "quick-support": {**quick, **support}}


def _shapes_of(stages: Sequence[Tensor]) -> tuple[tuple[int, int, int], ...]:
    return tuple((stage.shape[1], stage.shape[2], stage.shape[3]) for stage in stages)
