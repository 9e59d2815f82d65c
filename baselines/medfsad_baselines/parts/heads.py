"""Small heads on a frozen network: layers whose initial values depend on a generator alone, and their training."""

from collections.abc import Callable, Iterator

import torch
from torch import Generator, Tensor, nn

from medfsad_bench.learning import Losses, Training


def fit(
    head: nn.Module,
    optimiser: torch.optim.Optimizer,
    loss_of_step: Callable[[], Tensor],
    steps: int,
    progress: Callable[..., None] = lambda *_, **__: None,
) -> None:
    """Take steps down a loss that is computed anew for each."""

    def losses_of_epoch(_epoch: int) -> Iterator[Losses]:
        while True:
            yield {"loss": loss_of_step()}

    Training(head, optimiser).run(losses_of_epoch, steps=steps, progress=progress)


def two_layers(inputs: int, hidden: int, outputs: int, generator: Generator) -> nn.Sequential:
    """Two linear layers and a rectifier between them."""
    return nn.Sequential(new_linear(inputs, hidden, generator), nn.ReLU(), new_linear(hidden, outputs, generator))


def new_linear(inputs: int, outputs: int, generator: Generator) -> nn.Linear:
    """A layer to be trained, initialised from a generator on the CPU; keeps the scale of what passes."""
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, inputs, outputs)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(outputs, inputs, generator=generator) * inputs**-0.5)
        layer.bias.zero_()
    return layer
