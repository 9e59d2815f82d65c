"""Small heads on a frozen network: layers whose start hangs on a generator alone, and their training."""

from collections.abc import Callable

import torch
from torch import Generator, Tensor, nn


def fit(
    optimiser: torch.optim.Optimizer,
    loss_of: Callable[[], Tensor],
    steps: int,
    progress: Callable[..., None] = lambda *_, **__: None,
) -> list[float]:
    """Take steps down a loss that is made anew for each; returns all losses."""
    losses: list[float] = []
    for step in range(1, steps + 1):
        with torch.enable_grad():
            loss = loss_of()
            optimiser.zero_grad()
            loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
        progress(step, steps, loss=losses[-1])
    return losses


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
