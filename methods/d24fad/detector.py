"""D²4FAD as an algorithm: train a student on other data sets, adapt by passing the support once, score by one residual.

pretrain   for each batch of queries, each with K supports of its own source:
               L = λ · L_TSD(teacher(q), student(q)) + L_SSD(student(q), Σ_k w_k student(s_k))
adapt      student features of the support, computed once
score      Σ over scales of 1 − cos(student(q), Σ_k w_k student(s_k)), position by position
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from d24fad.bank import FeatureBank
from d24fad.config import Config
from d24fad.losses import residual_map
from d24fad.networks import Networks, load_strictly, new_networks, read_reference
from d24fad.training import Trainer
from d24fad.weighting import shared_weights
from medfsad_bench.errors import WeightsError
from medfsad_bench.method import Backbone, Images, ImageSource, Method, RunContext, Scorer, Scores

_STAGES = (-4, -3, -2, -1)  # timm counts a ResNet's stem, which others don't have


class D24FAD(Method):
    """The detector; see the module's docstring."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._backbone = Backbone(
            config.backbone, _STAGES, config.size_px, config.normalise, config.weights, config.half_features
        )
        self._networks: Networks | None = None
        self._training: Mapping[str, Tensor] = {}  # the trainer's state, as it was saved
        self._trainer: Trainer | None = None
        self._finished = False
        self._weights = object()  # stands for the present weights in the cache of student features

    def pretrain(self, sources: Mapping[str, ImageSource], context: RunContext) -> None:
        """Train on the normal images of the sources, from wherever `load_state` left off."""
        if self._finished:
            return
        bank = FeatureBank(sources, self._backbone, context)
        networks = self._networks or new_networks(bank.stages(np.array([0])), self.config, seed=context.seed)
        self._networks = networks.to(context.device)
        self._trainer = Trainer(self._networks, self.config)
        if self._training:
            self._trainer.load_state(self._training)
        self._trainer.run(bank, context)
        self._finished = True

    def adapt(self, support: Float[Tensor, "shots 3 h w"], context: RunContext) -> Scorer:
        """Pass the support through the student once."""
        stages = context.features(self._backbone, support)
        networks = self._networks or new_networks(stages, self.config, seed=context.seed)
        networks = networks.to(context.device).eval()
        version = self._weights, self._trainer.step if self._trainer else 0

        def compared(teacher: Sequence[Tensor]) -> Sequence[Tensor]:
            return teacher[:3] if self.config.compared == "teacher" else networks.decode(teacher[3])

        def seen(images: Images) -> Sequence[Tensor]:
            return compared(context.features(self._backbone, images))

        with torch.no_grad():
            known = list(compared(stages))
            keys = networks.weight.keys(known)

        def score(images: Images) -> Scores:
            with torch.no_grad():
                query = context.cached(version, images, seen)
                each = zip(query, keys, known, strict=True)
                weights = [shared_weights(q, key, s, self.config.weighting) for q, key, s in each]
                mixed = [einsum(w, s, "n k, k c h w -> n c h w") for w, s in zip(weights, known, strict=True)]
                maps = residual_map(query, mixed, self.config.size_px)
                if self.config.residual:
                    teacher = context.features(self._backbone, images)[:3]
                    maps = maps + residual_map(teacher, query, self.config.size_px)
            return Scores(pixel=maps, support=torch.stack(weights).mean(0))

        return score

    def state(self) -> dict[str, Tensor]:
        """Networks, optimiser and counters."""
        if self._networks is None:
            return {}
        found = {
            "shape": torch.tensor(self._networks.shape, dtype=torch.int64),
            "finished": torch.tensor(self._finished),
        }
        found |= {f"networks.{name}": value for name, value in self._networks.state_dict().items()}
        if self._trainer is not None:
            found |= {f"training.{name}": value for name, value in self._trainer.state().items()}
        return {name: value.detach().clone() for name, value in found.items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take up a state; training goes on from it."""
        if "shape" not in state or "finished" not in state:
            raise WeightsError("The checkpoint holds no d24fad state (no shape). Name another file.")
        networks = Networks(state["shape"].tolist(), self.config)
        load_strictly(networks, _part(state, "networks."))
        self._take(networks, finished=bool(state["finished"]), training=_part(state, "training."))

    def load_reference(self, path: Path) -> None:
        """Load a checkpoint of the reference implementation: `{"decoder": …, "weight": …}`.

        Raises:
            WeightsError: If it isn't of that form; the message names the first keys that differ.
        """
        self._take(read_reference(path, self.config), finished=True, training={})

    def _take(self, networks: Networks, *, finished: bool, training: Mapping[str, Tensor]) -> None:
        self._networks, self._finished, self._training = networks, finished, training
        self._trainer, self._weights = None, object()


def _part(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
