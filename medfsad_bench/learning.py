"""What methods share that learn from the sources: their images by one number, the loop of training, and its state.

SourceImages    all images of all sources by number, and a frozen network's features of them
Training        a network and its optimiser: step after step down a loss, and a state from which training goes on
"""

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor, nn

from medfsad_bench.errors import MethodError, WeightsError
from medfsad_bench.method import Backbone, Images, ImageSource, RunContext

Numbers = Int64[np.ndarray, " _count"]
Losses = Mapping[str, Tensor]  # `loss`, down which a step goes, and whatever else is to be shown beside it
_CUDA_REPORT = 20  # steps between looks at the losses on a GPU: each look waits for it


@runtime_checkable
class Numbered(Protocol):
    """Training images that are known by number.

    Attributes:
        source: Number of the set that each image belongs to.
        group: Opaque number of each image's group, unique across sets.
    """

    source: Numbers
    group: Numbers

    def __len__(self) -> int: ...


class SourceImages:
    """All images of all sources, numbered through the sources in the order of their names; see `Numbered`."""

    def __init__(self, sources: Mapping[str, ImageSource], backbone: Backbone, context: RunContext) -> None:
        self._sources = [sources[name] for name in sorted(sources)]
        self._backbone, self._context = backbone, context
        sizes = [len(source) for source in self._sources]
        self._starts = np.cumsum([0, *sizes])
        self.source: Numbers = np.repeat(np.arange(len(sizes)), sizes)
        groups = [source.groups.cpu().numpy() for source in self._sources]
        offsets = np.cumsum([0, *(int(numbers.max(initial=-1)) + 1 for numbers in groups)])
        self.group: Numbers = np.concatenate([g + start for g, start in zip(groups, offsets[:-1], strict=True)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def images(self, numbers: Numbers) -> Images:
        """Images in [0, 1]."""
        (images,) = self._gathered(numbers, lambda source, indices: (source[indices].float() / 255,))
        return images

    def stages(self, numbers: Numbers, positions: Sequence[int] | None = None) -> tuple[Tensor, ...]:
        """Feature maps, one tensor per stage, without gradient; computed once for each source.

        Args:
            numbers: Of the images.
            positions: Positions in the backbone's `stages` to return; None returns all.
        """
        return self._gathered(
            numbers,
            lambda source, indices: self._context.source_features(self._backbone, source, indices, positions),
        )

    def _gathered(
        self, numbers: Numbers, read: Callable[[ImageSource, Tensor], tuple[Tensor, ...]]
    ) -> tuple[Tensor, ...]:
        gathered: tuple[Tensor, ...] = ()
        for source in np.unique(self.source[numbers]):
            rows = np.flatnonzero(self.source[numbers] == source)
            parts = read(self._sources[source], self._on_device(numbers[rows] - self._starts[source]))
            gathered = gathered or tuple(part.new_empty((len(numbers), *part.shape[1:])) for part in parts)
            for whole, part in zip(gathered, parts, strict=True):
                whole[self._on_device(rows)] = part
        return gathered

    def _on_device(self, numbers: Numbers) -> Int64[Tensor, " b"]:
        return torch.from_numpy(numbers.astype(np.int64)).to(self._context.device)


class Training:
    """A network in training, its optimiser, and how far they are; all that has to be remembered is in `state`.

    Attributes:
        network: What learns.
        epoch: Whole epochs done.
        step: Steps done.
    """

    def __init__(self, network: nn.Module, optimiser: torch.optim.Optimizer) -> None:
        self.network = network
        self.epoch = self.step = 0
        self._optimiser = optimiser

    def to(self, device: torch.device) -> None:
        """Bring the network there, and what the optimiser remembers of it."""
        self.network.to(device)
        self._optimiser.load_state_dict(self._optimiser.state_dict())  # whose tensors follow their parameters

    def run(
        self,
        losses_of_epoch: Callable[[int], Iterable[Losses]],
        *,
        steps: int,
        epoch_end: Callable[[int], None] = lambda _: None,
        progress: Callable[..., None] = lambda *_, **__: None,
    ) -> None:
        """Go on until `steps` are done in all.

        Args:
            losses_of_epoch: From an epoch's number (from 0) to the losses of its steps. Each is computed when the step
                before it is done, and has to depend on nothing but the network, the seed and the epoch, so that a
                training that is resumed does the same.
            steps: Where training ends, in the midst of an epoch, too.
            epoch_end: Called after each epoch with the number of epochs done.
            progress: Called with the steps done, the steps in all, and each loss by its name.

        Raises:
            MethodError: If a loss isn't finite.
        """
        while self.step < steps:
            self.network.train()
            with torch.enable_grad():
                self._run_epoch(losses_of_epoch(self.epoch), steps, progress)
            self.epoch += 1
            epoch_end(self.epoch)

    def state(self) -> dict[str, Tensor]:
        """Weights, counters, and what the optimiser remembers of each parameter, flat."""
        state = {"counters": torch.tensor([self.epoch, self.step], dtype=torch.int64)}
        state |= {f"network.{name}": value for name, value in self.network.state_dict().items()}
        for index, moments in self._optimiser.state_dict()["state"].items():
            present = {name: value for name, value in moments.items() if value is not None}
            state |= {f"moment.{index}.{name}": torch.as_tensor(value) for name, value in present.items()}
        return {name: value.detach().clone() for name, value in state.items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take up what `state` returned; other names are left alone.

        Raises:
            WeightsError: If a name or shape differs; the message names the first that do.
        """
        load_weights(self.network, part_of(state, "network."))
        if "counters" not in state:
            raise WeightsError("The checkpoint doesn't say how far training was (no counters). Name another file.")
        self.epoch, self.step = (int(value) for value in state["counters"])
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in part_of(state, "moment.").items():
            index, moment = name.split(".", 1)
            moments.setdefault(int(index), {})[moment] = value
        if moments:
            self._optimiser.load_state_dict(self._optimiser.state_dict() | {"state": moments})

    def _run_epoch(self, epoch: Iterable[Losses], steps: int, progress: Callable[..., None]) -> None:
        finite: bool | Tensor = True
        for losses in epoch:
            loss = losses["loss"]
            self._optimiser.zero_grad(set_to_none=True)
            loss.backward()
            self._optimiser.step()
            self.step += 1
            finite = finite & torch.isfinite(loss)
            last = self.step == steps
            if last or loss.device.type != "cuda" or self.step % _CUDA_REPORT == 0:
                self._stop_unless(finite, loss)
                progress(self.step, steps, **{name: part.item() for name, part in losses.items()})
            if last:
                return
        self._stop_unless(finite, loss)

    def _stop_unless(self, finite: bool | Tensor, loss: Tensor) -> None:
        if not bool(finite):
            raise MethodError(
                f"Training diverged by step {self.step} (loss {loss.item()}). The last epoch's checkpoint is kept, if "
                "there was one; lower the learning rate with --set learning_rate=…"
            )


def read_tensors(path: Path) -> Any:
    """What a file of `torch.save` holds, tensors and plain values alone: nothing in it is run.

    Raises:
        WeightsError: If it holds anything else. Torch's reason is cut short, as it goes on to advise running the file.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the pickle's protocol
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever the bytes of a damaged file lead to
        reason = f"{type(error).__name__}: {str(error).partition('. ')[0]}"
        raise WeightsError(
            f"{path} can't be read ({' '.join(reason.split())[:200]}). Expected a file of torch.save that holds "
            "tensors alone, without code."
        ) from error


def load_weights(network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Take up a state dict of exactly the network's names and shapes.

    Raises:
        WeightsError: Naming the first that differ.
    """
    own = network.state_dict()
    missing, unknown = sorted(set(own) - set(weights)), sorted(set(weights) - set(own))
    shapes = [name for name in own if name in weights and own[name].shape != weights[name].shape]
    if missing or unknown or shapes:
        raise WeightsError(
            f"The checkpoint doesn't fit: {len(missing)} tensors missing (first {missing[:2]}), {len(unknown)} unknown "
            f"(first {unknown[:2]}), {len(shapes)} of another shape (first {shapes[:2]}). Use the settings that it was "
            "trained with."
        )
    network.load_state_dict(dict(weights))


def part_of(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The entries whose names begin with a prefix, by what follows it.

    >>> part_of({"network.bias": torch.zeros(1), "counters": torch.zeros(2)}, "network.")
    {'bias': tensor([0.])}
    """
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
