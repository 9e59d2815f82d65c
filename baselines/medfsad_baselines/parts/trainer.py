"""A network in training: steps, seeds, and a state to go on from."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from medfsad_baselines.parts.pools import Batch, Pool
from medfsad_bench.errors import MethodError, WeightsError

Shapes = Sequence[tuple[int, int, int]]  # channels, height and width of each stage
_LISTED = 40  # first entry of the seeds of an epoch's order and noise


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


def shapes_of(stages: Sequence[Tensor]) -> tuple[tuple[int, int, int], ...]:
    """Channels, height and width of each stage."""
    return tuple((stage.shape[1], stage.shape[2], stage.shape[3]) for stage in stages)
