"""Source training: λ · L_TSD(teacher(q), student(q)) + L_SSD(student(q), Σ_k w_k student(s_k)), by Adam."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from d24fad.bank import FeatureBank
from d24fad.config import Config
from d24fad.episodes import Episode, episodes_an_epoch, epoch_episodes
from d24fad.losses import cosine_loss
from d24fad.networks import Networks
from d24fad.weighting import own_weights, shared_weights
from medfsad_bench.errors import MethodError
from medfsad_bench.method import RunContext

_CUDA_REPORT = 20  # steps between looks at the losses: each waits for the device


class Losses(NamedTuple):
    """The two terms of a step and their sum L = λ · distill + self_distill."""

    self_distill: Tensor
    distill: Tensor
    total: Tensor


def training_losses(
    networks: Networks,
    teacher: Sequence[Float[Tensor, "b _c _h _w"]],
    support: Float[Tensor, "kb c h w"],
    config: Config,
) -> Losses:
    """Losses of a batch.

    Args:
        networks: In training mode batch-norm takes the statistics of each pass: the queries', then those of the
            first supports of all queries, of their second, and so on; or of the K shared supports together.
        teacher: Stages 1 to 4 of the queries.
        support: Stage 4 of the supports: the first of every query, then the second of every query, …; or the K
            supports that all queries share (`shared_support`).
        config: Which losses, λ, the weighting.
    """
    own = config.self_distillation and not config.shared_support
    last = torch.cat([teacher[3], support]) if own else teacher[3]
    query, *known = networks.passes(last, len(teacher[3]))
    zero = query[0].new_zeros(())
    distill = cosine_loss(list(teacher[:3]), query) if config.distillation else zero
    if not config.self_distillation:
        return Losses(zero, distill, config.distillation_weight * distill)
    if own:
        mixed = _own_mix(networks, query, known, config)
    else:
        mixed = _shared_mix(networks, query, networks.decode(support), config)
    self_distill = cosine_loss(query, mixed)
    return Losses(self_distill, distill, config.distillation_weight * distill + self_distill)


class Trainer:
    """The optimiser and the loop; all that it has to remember is in `state`.

    Attributes:
        epoch: Whole epochs done.
        step: Steps done.
    """

    def __init__(self, networks: Networks, config: Config) -> None:
        self.networks, self.config = networks, config
        self.epoch = self.step = 0
        self._optimiser = torch.optim.Adam(
            networks.parameters(), lr=config.learning_rate, betas=(config.beta1, config.beta2), fused=True
        )

    def steps(self, bank: FeatureBank) -> int:
        """Steps in all."""
        total = episodes_an_epoch(bank, self.config) * self.config.epochs
        return total if self.config.steps is None else min(total, self.config.steps)

    def run(self, bank: FeatureBank, context: RunContext) -> None:
        """Train to the end, from wherever the state left off."""
        total = self.steps(bank)
        while self.step < total and self.epoch < self.config.epochs:
            self._epoch(bank, context, total)
            self.epoch += 1
            context.epoch_end(self.epoch)

    def state(self) -> dict[str, Tensor]:
        """Counters and Adam's moments, flat."""
        found = {"counters": torch.tensor([self.epoch, self.step], dtype=torch.int64)}
        for index, moments in self._optimiser.state_dict()["state"].items():
            found |= {f"adam.{index}.{name}": torch.as_tensor(value) for name, value in moments.items()}
        return found

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take up what `state` returned."""
        self.epoch, self.step = (int(value) for value in state["counters"])
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in state.items():
            if name.startswith("adam."):
                _, index, moment = name.split(".", 2)
                moments.setdefault(int(index), {})[moment] = value
        if moments:
            self._optimiser.load_state_dict(self._optimiser.state_dict() | {"state": moments})

    def _epoch(self, bank: FeatureBank, context: RunContext, total: int) -> None:
        self.networks.train()
        report = _CUDA_REPORT if context.device.type == "cuda" else 1
        finite = torch.ones((), dtype=torch.bool, device=context.device)
        for episode in epoch_episodes(bank, self.config, seed=context.seed, epoch=self.epoch):
            if self.step >= total:
                break
            losses = self._step(bank, episode)
            self.step += 1
            finite = finite & torch.isfinite(losses.total)
            if self.step % report == 0:
                self._stop_unless(finite, losses)
                figures = {name: part.item() for name, part in losses._asdict().items() if name != "total"}
                context.progress(self.step, total, loss=losses.total.item(), **figures)
        self._stop_unless(finite, losses)

    def _step(self, bank: FeatureBank, episode: Episode) -> Losses:
        teacher = bank.stages(episode.queries)
        (support,) = bank.stages(episode.supports.T.reshape(-1), (3,))
        losses = training_losses(self.networks, teacher, support, self.config)
        self._optimiser.zero_grad(set_to_none=True)
        losses.total.backward()
        self._optimiser.step()
        return losses

    def _stop_unless(self, finite: Tensor, losses: Losses) -> None:
        if not bool(finite):
            raise MethodError(
                f"Training diverged by step {self.step} (loss {losses.total.item()}). The last epoch's checkpoint is "
                "kept; lower the learning rate with --set learning_rate=…"
            )


def _own_mix(
    networks: Networks, query: Sequence[Tensor], known: Sequence[Sequence[Tensor]], config: Config
) -> list[Float[Tensor, "b _c _h _w"]]:
    """Σ_k w_k student(s_k) with supports of each query's own: `known` has the first of all queries, their second, …."""
    mixed = []
    for q, turned, *supports in zip(query, networks.weight.turned(query), *known, strict=True):
        s = torch.stack(supports, dim=1)
        mixed.append(einsum(own_weights(q, turned, s, config.weighting), s, "b k, b k c h w -> b c h w"))
    return mixed


def _shared_mix(
    networks: Networks, query: Sequence[Tensor], known: Sequence[Tensor], config: Config
) -> list[Float[Tensor, "b _c _h _w"]]:
    """Σ_k w_k student(s_k) with one support set for all queries: B + K student passes in place of B · (1 + K)."""
    mixed = []
    for q, key, s in zip(query, networks.weight.keys(known), known, strict=True):
        mixed.append(einsum(shared_weights(q, key, s, config.weighting), s, "n k, k c h w -> n c h w"))
    return mixed
