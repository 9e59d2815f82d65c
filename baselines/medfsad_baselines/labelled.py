"""Training episodes with labels: K normal images of a source, and normal and anomalous queries of the same source."""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float, Int64
from torch import Generator, Tensor

from medfsad_bench.method import Images, LabelledSource


def labelled_episodes(
    sources: Sequence[LabelledSource], *, shots: int, batch_size: int, steps: int, generator: Generator
) -> Iterator[tuple[Images, Images, Float[Tensor, " b"]]]:
    """Support, queries and truth (1 for anomalous) of each step.

    Args:
        sources: Each with anomalies and at least two groups of normal images; a step is of one of them.
        shots: Supports a step, one a group; fewer where a source has too few groups.
        batch_size: Queries a step, half of them anomalous; none shares a group with a support.
        steps: How many.
        generator: On the CPU.
    """
    half = max(batch_size // 2, 1)
    for _ in range(steps):
        source = sources[int(torch.randint(len(sources), (), generator=generator))]
        order = torch.randperm(len(source), generator=generator).to(source.groups.device)
        support = _of_other_groups(source.groups, order, shots)
        free = order[~torch.isin(source.groups[order], source.groups[support])]
        bad = torch.randperm(len(source.anomalies), generator=generator)[:half].to(order.device)
        queries = torch.cat([source[free[:half]], source.anomalies[bad]]).float() / 255
        yield source[support].float() / 255, queries, torch.tensor([0.0] * len(free[:half]) + [1.0] * len(bad))


def _of_other_groups(groups: Int64[Tensor, " n"], order: Int64[Tensor, " n"], count: int) -> Int64[Tensor, " k"]:
    """The first of the first `count` groups in `order`, at least one group being left over."""
    count = min(count, len(groups.unique()) - 1)
    taken: dict[int, int] = {}
    for place, group in zip(order.tolist(), groups[order].tolist(), strict=True):
        if len(taken) < count:
            taken.setdefault(group, place)
    return torch.tensor(list(taken.values()), device=order.device)
