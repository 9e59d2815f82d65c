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

from d24fad.config import Config
from d24fad.losses import Loss, cosine_loss, residual_map
from d24fad.networks import Networks, new_networks, read_reference
from d24fad.training import new_training, train
from d24fad.weighting import shared_weights
from medfsad_bench.errors import WeightsError
from medfsad_bench.learning import SourceImages, Training
from medfsad_bench.method import Backbone, Images, ImageSource, Method, RunContext, Scorer, Scores

_STAGES = (-4, -3, -2, -1)  # timm counts a ResNet's stem, which others don't have
_EARLIER_NAMES = {"networks.": "network.", "training.counters": "counters", "training.adam.": "moment."}


class D24FAD(Method):
    """The detector; see the module's docstring.

    Attributes:
        loss: That both losses are made of; a variation may have another.
        source_images: What reads the teacher's features of training images, by their numbers.
    """

    loss: Loss = staticmethod(cosine_loss)
    source_images: type[SourceImages] = SourceImages

    def __init__(self, config: Config) -> None:
        self.config = config
        self._backbone = Backbone(
            config.backbone, _STAGES, config.size_px, config.normalise, config.weights, config.half_features
        )
        self._networks: Networks | None = None
        self._training: Training | None = None
        self._finished = False
        self._weights = object()  # stands for the present weights in the cache of student features

    def pretrain(self, sources: Mapping[str, ImageSource], context: RunContext) -> None:
        """Train on the normal images of the sources, from wherever `load_state` left off."""
        if self._finished:
            return
        images = self.source_images(sources, self._backbone, context)
        networks, training = self._networks, self._training
        if networks is None or training is None:
            networks = new_networks(images.stages(np.array([0])), self.config, seed=context.seed)
            training = self._take(networks)
        training.to(context.device)
        train(training, networks, images, self.config, context, self.loss)
        self._finished = True

    def adapt(self, support: Float[Tensor, "shots 3 h w"], context: RunContext) -> Scorer:
        """Pass the support through the student once."""
        teacher_support = self.teacher(support, context)
        networks = self._networks or new_networks(teacher_support, self.config, seed=context.seed)
        networks = networks.to(context.device).eval()
        version = self._weights, self._training.step if self._training else 0

        def compared(teacher: Sequence[Tensor]) -> Sequence[Tensor]:
            return teacher[:3] if self.config.compared == "teacher" else networks.decode(teacher[3])

        def compared_of(images: Images) -> Sequence[Tensor]:
            return compared(self.teacher(images, context))

        with torch.no_grad():
            supports = list(compared(teacher_support))
            keys = networks.weight.keys(supports)

        def score(images: Images) -> Scores:
            with torch.no_grad():
                query = context.cached(version, images, compared_of)
                scales = zip(query, keys, supports, strict=True)
                weights = [shared_weights(q, key, s, self.config.weighting) for q, key, s in scales]
                mixed = [einsum(w, s, "n k, k c h w -> n c h w") for w, s in zip(weights, supports, strict=True)]
                maps = residual_map(query, mixed, self.config.size_px)
                if self.config.residual:
                    teacher = self.teacher(images, context)[:3]
                    maps = maps + residual_map(teacher, query, self.config.size_px)
            return Scores(pixel=maps, support=torch.stack(weights).mean(0))

        return score

    def teacher(self, images: Images, context: RunContext) -> Sequence[Float[Tensor, "n _c _h _w"]]:
        """Stages 1 to 4 of the teacher; the student sees the last."""
        return context.features(self._backbone, images)

    def state(self) -> dict[str, Tensor]:
        """Networks, optimiser and counters."""
        if self._networks is None or self._training is None:
            return {}
        shape = torch.tensor(self._networks.shape, dtype=torch.int64)
        return {"shape": shape, "finished": torch.tensor(self._finished), **self._training.state()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take up a state; training goes on from it.

        Raises:
            WeightsError: If it is another method's, or a name or shape differs.
        """
        if "shape" not in state or "finished" not in state:
            raise WeightsError("The checkpoint holds no d24fad state (no shape). Name another file.")
        networks = Networks(state["shape"].tolist(), self.config)
        training = new_training(networks, self.config)
        training.load_state({_present_name(name): value for name, value in state.items()})
        self._take(networks, training, finished=bool(state["finished"]))

    def load_reference(self, path: Path) -> None:
        """Load a checkpoint of the reference implementation: `{"decoder": …, "weight": …}`.

        Raises:
            WeightsError: If it isn't of that form; the message names the first keys that differ.
        """
        self._take(read_reference(path, self.config), finished=True)

    def _take(self, networks: Networks, training: Training | None = None, *, finished: bool = False) -> Training:
        training = training or new_training(networks, self.config)
        self._networks, self._training = networks, training
        self._finished, self._weights = finished, object()
        return training


def _present_name(name: str) -> str:
    """Of an entry of a state: checkpoints from before `medfsad_bench.learning` bear other prefixes."""
    for earlier, present in _EARLIER_NAMES.items():
        if name.startswith(earlier):
            return present + name.removeprefix(earlier)
    return name
