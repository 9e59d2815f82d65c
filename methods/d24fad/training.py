"""Source training: λ · L_TSD(teacher(q), student(q)) + L_SSD(student(q), Σ_k w_k student(s_k)), by Adam."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from d24fad.config import Config
from d24fad.episodes import Episode, episodes_per_epoch, epoch_episodes
from d24fad.losses import Loss, cosine_loss
from d24fad.networks import Networks
from d24fad.weighting import own_weights, shared_weights
from medfsad_bench import learning
from medfsad_bench.learning import SourceImages, Training
from medfsad_bench.method import RunContext


class Losses(NamedTuple):
    """The two terms of a step and their sum L = λ · distill + self_distill."""

    self_distill: Tensor
    distill: Tensor
    total: Tensor


def new_training(networks: Networks, config: Config) -> Training:
    """Networks before their first step, and their optimiser."""
    betas = (config.beta1, config.beta2)
    adam = torch.optim.Adam(networks.parameters(), lr=config.learning_rate, betas=betas, fused=True)
    return Training(networks, adam)


def train(
    training: Training,
    networks: Networks,
    images: SourceImages,
    config: Config,
    context: RunContext,
    loss: Loss = cosine_loss,
) -> None:
    """Train to the end, from wherever the state left off; `loss` compares two features, scale by scale."""

    def losses_of_epoch(epoch: int) -> Iterator[learning.Losses]:
        for episode in epoch_episodes(images, config, seed=context.seed, epoch=epoch):
            losses = episode_losses(networks, images, episode, config, loss)
            yield {"loss": losses.total, "self_distill": losses.self_distill, "distill": losses.distill}

    steps = episodes_per_epoch(images, config) * config.epochs
    training.run(
        losses_of_epoch,
        steps=steps if config.steps is None else min(steps, config.steps),
        epoch_end=context.epoch_end,
        progress=context.progress,
    )


def episode_losses(
    networks: Networks, images: SourceImages, episode: Episode, config: Config, loss: Loss = cosine_loss
) -> Losses:
    """Losses of an episode, with the teacher's features of its images."""
    teacher = images.stages(episode.queries)
    (support,) = images.stages(episode.supports.T.reshape(-1), (3,))
    return training_losses(networks, teacher, support, config, loss)


def training_losses(
    networks: Networks,
    teacher: Sequence[Float[Tensor, "b _c _h _w"]],
    support: Float[Tensor, "kb c h w"],
    config: Config,
    loss: Loss = cosine_loss,
) -> Losses:
    """Losses of a batch.

    Args:
        networks: In training mode batch-norm takes the statistics of each pass: the queries', then those of the
            first supports of all queries, of their second, and so on; or of the K shared supports together.
        teacher: Stages 1 to 4 of the queries.
        support: Stage 4 of the supports: the first of every query, then the second of every query, …; or the K
            supports that all queries share (`shared_support`).
        config: Which losses, λ, the weighting.
        loss: Of two features, scale by scale.
    """
    own = config.self_distillation and not config.shared_support
    last = torch.cat([teacher[3], support]) if own else teacher[3]
    query, *support_passes = networks.passes(last, len(teacher[3]))
    zero = query[0].new_zeros(())
    distill = loss(list(teacher[:3]), query) if config.distillation else zero
    if not config.self_distillation:
        return Losses(zero, distill, config.distillation_weight * distill)
    if own:
        mixed = _own_mix(networks, query, support_passes, config)
    else:
        mixed = _shared_mix(networks, query, networks.decode(support), config)
    self_distill = loss(query, mixed)
    return Losses(self_distill, distill, config.distillation_weight * distill + self_distill)


def _own_mix(
    networks: Networks, query: Sequence[Tensor], support_passes: Sequence[Sequence[Tensor]], config: Config
) -> list[Float[Tensor, "b _c _h _w"]]:
    """Σ_k w_k student(s_k) with supports of each query's own.

    Args:
        networks: For φ.
        query: Student features Z(q), scale by scale.
        support_passes: Those of the first supports of all queries, then of their second, ….
        config: The weighting.
    """
    mixed = []
    for q, turned, *supports in zip(query, networks.weight.turned(query), *support_passes, strict=True):
        s = torch.stack(supports, dim=1)
        mixed.append(einsum(own_weights(q, turned, s, config.weighting), s, "b k, b k c h w -> b c h w"))
    return mixed


def _shared_mix(
    networks: Networks, query: Sequence[Tensor], support: Sequence[Tensor], config: Config
) -> list[Float[Tensor, "b _c _h _w"]]:
    """Σ_k w_k student(s_k) with one support set for all queries: B + K student passes in place of B · (1 + K)."""
    mixed = []
    for q, key, s in zip(query, networks.weight.keys(support), support, strict=True):
        mixed.append(einsum(shared_weights(q, key, s, config.weighting), s, "n k, k c h w -> n c h w"))
    return mixed
