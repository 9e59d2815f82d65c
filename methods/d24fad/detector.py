"""D²4FAD as an algorithm: train a student on other data sets, adapt by passing the support once, score by one residual.

pretrain   for each batch of queries, each with K supports of its own source:
               L = λ · L_TSD(teacher(q), student(q)) + L_SSD(student(q), Σ_k w_k student(s_k))
adapt      student features of the support, computed once
score      Σ over scales of 1 − cos(student(q), Σ_k w_k student(s_k)), position by position
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from einops import einsum, rearrange
from jaxtyping import Float, Int64
from torch import Tensor, nn

from d24fad.bank import FeatureBank
from d24fad.config import Config
from d24fad.losses import cosine_loss, residual_map
from d24fad.student import Student, initialise
from d24fad.weighting import LearnToWeight, own_weights, shared_weights
from medfsad_bench.errors import MethodError, WeightsError
from medfsad_bench.method import Backbone, Images, ImageSource, Method, RunContext, Scorer, Scores

_STAGES = (1, 2, 3, 4)


class Losses(NamedTuple):
    """The two terms of a step and their sum L = λ · distill + self_distill."""

    self_distill: Tensor
    distill: Tensor
    total: Tensor


class Networks(nn.Module):
    """What is trained: the student and the learned weights.

    Args:
        shape: Channels of the teacher's stages 1 to 4, then their heights.
        config: Depths of the student.
    """

    def __init__(self, shape: Sequence[int], config: Config) -> None:
        super().__init__()
        channels, heights = shape[:4], shape[4:]
        self.shape = tuple(int(value) for value in shape)
        self.decoder = Student(channels, [heights[i] > heights[i + 1] for i in range(3)], config.depths)
        self.weight = LearnToWeight(channels[:3])


class D24FAD(Method):
    """The detector; see the module's docstring."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._backbone = Backbone(config.backbone, _STAGES, config.size_px, config.normalise, config.weights)
        self._networks: Networks | None = None
        self._optimiser: torch.optim.Adam | None = None
        self._epoch = self._step = 0
        self._finished = False

    def pretrain(self, sources: Mapping[str, ImageSource], context: RunContext) -> None:
        """Train on the normal images of the sources, from wherever `load_state` left off."""
        if self._finished:
            return
        budget = int(self.config.feature_budget_gb * 2**30)
        bank = FeatureBank(sources, self._backbone, context, budget_bytes=budget)
        networks = self._ready(bank[np.array([0])], context)
        optimiser = self._ready_optimiser(networks)
        per_epoch = math.ceil(len(bank) / self.config.batch_size)
        total = per_epoch * self.config.epochs
        total = total if self.config.steps is None else min(total, self.config.steps)
        while self._step < total:
            self._train_epoch(bank, networks, optimiser, context, total)
            self._epoch += 1
            context.epoch_end(self._epoch)
        self._finished = True

    def adapt(self, support: Float[Tensor, "shots 3 h w"], context: RunContext) -> Scorer:
        """Pass the support through the student once."""
        stages = context.features(self._backbone, support)
        networks = self._networks or self._new_networks(stages, context)
        networks.eval()
        with torch.no_grad():
            known = networks.decoder(stages[3])
            keys = networks.weight.keys(known)

        def score(images: Images) -> Scores:
            with torch.no_grad():
                teacher = context.features(self._backbone, images)
                query = networks.decoder(teacher[3])
                weights = [
                    shared_weights(q, key, s, self.config.weighting)
                    for q, key, s in zip(query, keys, known, strict=True)
                ]
                mixed = [einsum(w, s, "n k, k c h w -> n c h w") for w, s in zip(weights, known, strict=True)]
                maps = residual_map(query, mixed, self.config.size_px)
                if self.config.residual:
                    maps = maps + residual_map(teacher[:3], query, self.config.size_px)
            return Scores(pixel=maps)

        return score

    def support_weights(
        self, images: Images, support: Float[Tensor, "shots 3 h w"], context: RunContext
    ) -> Float[Tensor, "scales n shots"]:
        """How much each support image counts for each query, scale by scale (fine to coarse); rows sum to 1."""
        stages = context.features(self._backbone, support)
        networks = (self._networks or self._new_networks(stages, context)).eval()
        with torch.no_grad():
            known = networks.decoder(stages[3])
            query = networks.decoder(context.features(self._backbone, images)[3])
            each = zip(query, networks.weight.keys(known), known, strict=True)
            return torch.stack([shared_weights(q, key, s, self.config.weighting) for q, key, s in each])

    def state(self) -> dict[str, Tensor]:
        """Networks, optimiser and counters."""
        if self._networks is None:
            return {}
        counters = torch.tensor([self._epoch, self._step, int(self._finished)], dtype=torch.int64)
        found = {"shape": torch.tensor(self._networks.shape, dtype=torch.int64), "counters": counters}
        found |= {f"networks.{name}": value for name, value in self._networks.state_dict().items()}
        if self._optimiser is not None:
            for index, moments in self._optimiser.state_dict()["state"].items():
                found |= {f"adam.{index}.{name}": torch.as_tensor(value) for name, value in moments.items()}
        return {name: value.detach().clone() for name, value in found.items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take up a state; training goes on from it."""
        if "shape" not in state or "counters" not in state:
            raise WeightsError("The checkpoint holds no d24fad state (no shape, no counters). Name another file.")
        networks = Networks(state["shape"].tolist(), self.config)
        _load_strictly(networks, {k[9:]: v for k, v in state.items() if k.startswith("networks.")})
        self._networks, self._optimiser = networks, None
        self._epoch, self._step, finished = (int(value) for value in state["counters"])
        self._finished = bool(finished)
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in state.items():
            if name.startswith("adam."):
                _, index, moment = name.split(".", 2)
                moments.setdefault(int(index), {})[moment] = value
        self._moments = moments

    def load_reference(self, path: Path) -> None:
        """Load a checkpoint of the reference implementation: `{"decoder": …, "weight": …}`.

        Raises:
            WeightsError: If it isn't of that form; the message names the first keys that differ.
        """
        try:
            stored = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            raise WeightsError(f"{path} can't be read as a checkpoint ({error}). Expected tensors alone.") from error
        if not isinstance(stored, dict) or set(stored) != {"decoder", "weight"}:
            found = sorted(stored)[:3] if isinstance(stored, dict) else type(stored).__name__
            raise WeightsError(f"{path} holds {found}. Expected the two entries 'decoder' and 'weight'.")
        flat = {f"{part}.{name}": value for part, values in stored.items() for name, value in values.items()}
        networks = Networks(_reference_shape(flat, self.config.size_px), self.config)
        _load_strictly(networks, flat)
        self._networks, self._optimiser, self._finished = networks, None, True

    _moments: Mapping[int, Mapping[str, Tensor]] = {}

    def _new_networks(self, stages: Sequence[Tensor], context: RunContext) -> Networks:
        shape = [stage.shape[1] for stage in stages] + [stage.shape[2] for stage in stages]
        networks = Networks(shape, self.config)
        initialise(networks, torch.Generator().manual_seed(context.seed))
        return networks.to(context.device)

    def _ready(self, stages: Sequence[Tensor], context: RunContext) -> Networks:
        if self._networks is None:
            self._networks = self._new_networks(stages, context)
        return self._networks.to(context.device)

    def _ready_optimiser(self, networks: Networks) -> torch.optim.Adam:
        config = self.config
        self._optimiser = torch.optim.Adam(
            networks.parameters(), lr=config.learning_rate, betas=(config.beta1, config.beta2)
        )
        if self._moments:
            whole = self._optimiser.state_dict()
            whole["state"] = {index: dict(moments) for index, moments in self._moments.items()}
            self._optimiser.load_state_dict(whole)
        return self._optimiser

    def _train_epoch(
        self, bank: FeatureBank, networks: Networks, optimiser: torch.optim.Adam, context: RunContext, total: int
    ) -> None:
        """One pass in an order that seed and epoch alone determine, so that a resumed run does the same."""
        networks.train()
        rng = np.random.default_rng([context.seed, 1, self._epoch])
        order = rng.permutation(len(bank))
        drawn = self._epoch if self.config.supports == "redrawn" else 0
        supports = draw_supports(bank, self.config.training_shots, [context.seed, 2, drawn], self.config.own_group)
        for start in range(0, len(order), self.config.batch_size):
            if self._step >= total:
                return
            queries = order[start : start + self.config.batch_size]
            losses = self.training_losses(networks, bank[queries], bank[supports[queries].T.reshape(-1)][3])
            if not bool(torch.isfinite(losses.total)):
                raise MethodError(
                    f"Training diverged at step {self._step + 1} (loss {losses.total.item()}). The last epoch's "
                    "checkpoint is kept; lower the learning rate with --set learning_rate=…"
                )
            optimiser.zero_grad(set_to_none=True)
            losses.total.backward()
            optimiser.step()
            self._step += 1
            context.progress(
                self._step,
                total,
                loss=losses.total.item(),
                distill=losses.distill.item(),
                self_distill=losses.self_distill.item(),
            )

    def training_losses(
        self, networks: Networks, teacher: Sequence[Float[Tensor, "b _c _h _w"]], support: Float[Tensor, "kb c h w"]
    ) -> Losses:
        """Losses of a batch.

        Args:
            networks: In training mode batch-norm takes the statistics of each pass: the queries', then those of the
                first supports of all queries, of their second, and so on.
            teacher: Stages 1 to 4 of the queries.
            support: Stage 4 of the supports: the first of every query, then the second of every query, …
        """
        count = len(teacher[3])
        query = networks.decoder(teacher[3])
        distill = cosine_loss(list(teacher[:3]), query) if self.config.distillation else query[0].new_zeros(())
        if not self.config.self_distillation:
            return Losses(query[0].new_zeros(()), distill, self.config.distillation_weight * distill)
        passes = [networks.decoder(part) for part in support.split(count)]
        known = [torch.stack(scale, dim=1) for scale in zip(*passes, strict=True)]
        flat = [rearrange(scale, "b k c h w -> (b k) c h w") for scale in known]
        keys = [rearrange(key, "(b k) c h w -> b k c h w", b=count) for key in networks.weight.keys(flat)]
        mixed = []
        for q, key, s in zip(query, keys, known, strict=True):
            weights = own_weights(q, key, s, self.config.weighting)
            mixed.append(einsum(weights, s, "b k, b k c h w -> b c h w"))
        self_distill = cosine_loss(query, mixed)
        return Losses(self_distill, distill, self.config.distillation_weight * distill + self_distill)


def draw_supports(bank: FeatureBank, shots: int, seed: Sequence[int], own_group: bool) -> Int64[np.ndarray, "n k"]:
    """K supports for each image: of its own source, and of other groups unless `own_group`.

    Raises:
        MethodError: If a source has too few images of other groups.
    """
    rng = np.random.default_rng(list(seed))
    drawn = np.empty((len(bank), shots), np.int64)
    everything = np.arange(len(bank))
    for number in everything:
        pool = everything[bank.source == bank.source[number]]
        pool = pool[pool != number] if own_group else pool[bank.group[pool] != bank.group[number]]
        if len(pool) < shots:
            raise MethodError(
                f"A source has only {len(pool)} images of other groups for a query, and {shots} supports are needed. "
                "Lower --set train_shots=…, or leave the small set out of --data."
            )
        drawn[number] = rng.choice(pool, shots, replace=False)
    return drawn


def _load_strictly(networks: Networks, state: Mapping[str, Tensor]) -> None:
    wanted = networks.state_dict()
    missing, extra = sorted(set(wanted) - set(state)), sorted(set(state) - set(wanted))
    shapes = [name for name in wanted if name in state and wanted[name].shape != state[name].shape]
    if missing or extra or shapes:
        raise WeightsError(
            f"The checkpoint doesn't fit: {len(missing)} tensors missing (first {missing[:2]}), {len(extra)} unknown "
            f"(first {extra[:2]}), {len(shapes)} of another shape (first {shapes[:2]}). Use the backbone and depths "
            "that it was trained with."
        )
    networks.load_state_dict(dict(state))


def _reference_shape(flat: Mapping[str, Tensor], size_px: int) -> list[int]:
    """Stages of the teacher that a reference checkpoint is for, from the shapes of its tensors."""
    try:
        channels = [int(flat[f"weight.proj_in{scale}.bias"].shape[0]) for scale in (1, 2, 3)]
        last = int(flat["decoder.layer1.0.conv1.weight"].shape[1])
    except (KeyError, IndexError) as error:
        raise WeightsError(f"The checkpoint lacks {error}. Expected the reference's decoder and weight.") from error
    return [*channels, last, *(size_px // reduction for reduction in (4, 8, 16, 32))]
