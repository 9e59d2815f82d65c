"""A head on a frozen network that learns, episode by episode, from labelled anomalies of other sets.

An episode is K normal images of a source, and normal and anomalous queries of the same source.
"""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Generator, Tensor, nn

from medfsad_baselines.parts.heads import fit
from medfsad_bench.errors import MethodError, WeightsError
from medfsad_bench.method import ImageSource, LabelledSource, Method, RunContext

Episode = tuple[Float[Tensor, "k 3 h w"], Float[Tensor, "b 3 h w"], Float[Tensor, " b"]]  # support, queries, truth


@dataclass(frozen=True)
class EpisodicHeadConfig:
    """How long and on what a head is trained.

    Attributes:
        train_shots: Supports per query in training.
        steps: Of training.
        batch_size: Queries per step, half of them anomalous, all of one source.
        learning_rate: Of Adam.
    """

    train_shots: int = 8
    steps: int = 1000
    batch_size: int = 48
    learning_rate: float = 1e-3

    def training(self) -> dict[str, Any]:
        """What determines the trained weights."""
        return asdict(self)


class EpisodicHeadMethod(Method):
    """A head on a frozen network. Its author writes `sizes`, `new_head`, `loss` and `adapt`.

    Attributes:
        name: As in its record, for messages.
        config: As given; a method names its own class.
    """

    name: str
    config: EpisodicHeadConfig

    def __init__(self, config: EpisodicHeadConfig) -> None:
        self.config = config
        self._head: nn.Module | None = None
        self._sizes: tuple[int, ...] = ()

    @abstractmethod
    def sizes(self, context: RunContext) -> tuple[int, ...]:
        """What of the frozen network determines the shape of the head."""

    @abstractmethod
    def new_head(self, sizes: Sequence[int], *, seed: int) -> nn.Module:
        """The head, untrained."""

    @abstractmethod
    def loss(self, head: nn.Module, episode: Episode, context: RunContext) -> Float[Tensor, ""]:
        """The loss of a step."""

    def pretrain(self, sources: Mapping[str, ImageSource], context: RunContext) -> None:
        """Learn the head from normal images and anomalies of the sources.

        Raises:
            MethodError: If no source has labelled anomalies.
        """
        if self._head is not None:
            return
        labelled = [source for _, source in sorted(sources.items()) if isinstance(source, LabelledSource)]
        labelled = [source for source in labelled if len(source.anomalies) and len(source.groups.unique()) > 1]
        if not labelled:
            raise MethodError(
                f"{self.name} learns from labelled anomalies of other sets, and of {', '.join(sources) or 'no set'} "
                "there are none. Prepare at least one more set with anomalous test images."
            )
        head, config = self.head(context), self.config
        episodes = training_episodes(
            labelled,
            shots=config.train_shots,
            batch_size=config.batch_size,
            generator=Generator().manual_seed(context.seed),
        )

        adam = torch.optim.Adam(head.parameters(), lr=config.learning_rate)
        fit(head, adam, lambda: self.loss(head, next(episodes), context), config.steps, context.progress)
        self._head, self._sizes = head, self.sizes(context)
        context.epoch_end(1)  # steps aren't counted in epochs: all of them are one

    def head(self, context: RunContext) -> nn.Module:
        """The head as the sources left it; untrained if there were none."""
        head = self._head or self.new_head(self.sizes(context), seed=context.seed)
        return head.to(context.device)

    def state(self) -> dict[str, Tensor]:
        """The head."""
        if self._head is None:
            return {}
        values = {name: value.clone() for name, value in self._head.state_dict().items()}
        return {"sizes": torch.tensor(self._sizes), **values}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take up a head.

        Raises:
            WeightsError: If it is another method's, or of another shape.
        """
        if not state:
            return
        try:
            sizes = tuple(int(size) for size in state["sizes"])
            head = self.new_head(sizes, seed=0)
            head.load_state_dict({name: value for name, value in state.items() if name != "sizes"})
        except (KeyError, RuntimeError) as error:
            raise WeightsError(f"The checkpoint holds no state of {self.name} ({error}). Name another file.") from error
        self._head, self._sizes = head, sizes


def training_episodes(
    sources: Sequence[LabelledSource], *, shots: int, batch_size: int, generator: Generator
) -> Iterator[Episode]:
    """Support, queries and truth (1 for anomalous) of one step after another, without end.

    Args:
        sources: Each with anomalies and at least two groups of normal images; a step is of one of them.
        shots: Supports per step, one per group; fewer where a source has too few groups.
        batch_size: Queries per step, half of them anomalous; none shares a group with a support.
        generator: On the CPU.
    """
    half = max(batch_size // 2, 1)
    while True:
        source = sources[int(torch.randint(len(sources), (), generator=generator))]
        order = torch.randperm(len(source), generator=generator).to(source.groups.device)
        support = _of_other_groups(source.groups, order, shots)
        free = order[~torch.isin(source.groups[order], source.groups[support])][:half]
        anomalous = torch.randperm(len(source.anomalies), generator=generator)[:half].to(order.device)
        queries = torch.cat([source[free], source.anomalies[anomalous]]).float() / 255
        yield source[support].float() / 255, queries, torch.tensor([0.0] * len(free) + [1.0] * len(anomalous))


def _of_other_groups(groups: Int64[Tensor, " n"], order: Int64[Tensor, " n"], count: int) -> Int64[Tensor, " k"]:
    """The first image of each of the first `count` groups in `order`, at least one group being left over."""
    count = min(count, len(groups.unique()) - 1)
    first_of_group: dict[int, int] = {}
    for index, group in zip(order.tolist(), groups[order].tolist(), strict=True):
        if len(first_of_group) < count:
            first_of_group.setdefault(group, index)
    return torch.tensor(list(first_of_group.values()), device=order.device)
