"""Images of all sources under one number each, and a training that stops, diverges and goes on as it should."""

import pickle
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from test_trained_baselines import SOURCES, context
from torch import nn

from medfsad_bench.errors import MethodError, WeightsError
from medfsad_bench.learning import Losses, SourceImages, Training, load_weights, read_tensors
from medfsad_bench.method import Backbone
from medfsad_bench.runner.frozen import load_backbone


def new_training(kind: str = "adam") -> Training:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    optimisers: dict[str, Callable[..., torch.optim.Optimizer]] = {
        "adam": lambda parameters: torch.optim.Adam(parameters, lr=0.1),
        "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.01, momentum=0.9),
    }
    return Training(network, optimisers[kind](network.parameters()))


def epochs_of_four(training: Training, *, factor: float = 1) -> Callable[[int], Iterator[Losses]]:
    def losses_of_epoch(epoch: int) -> Iterator[Losses]:
        generator = torch.Generator().manual_seed(epoch)
        for _ in range(4):
            batch = torch.randn(5, 3, generator=generator)
            loss = (training.network(batch)[:, 0] - batch.sum(1)).square().mean()
            yield {"loss": factor * loss, "halved": loss / 2}

    return losses_of_epoch


@pytest.mark.parametrize("kind", ["adam", "sgd"])
def test_a_training_ends_in_the_midst_of_an_epoch_and_is_resumed_bit_for_bit(kind: str) -> None:
    whole, first, second = (new_training(kind) for _ in range(3))
    shown: list[tuple[int, int, float, float]] = []
    ended: list[int] = []

    def show(step: int, steps: int, *, loss: float, halved: float) -> None:
        shown.append((step, steps, loss, halved))

    whole.run(epochs_of_four(whole), steps=10, epoch_end=ended.append, progress=show)
    assert (whole.epoch, whole.step, ended) == (3, 10, [1, 2, 3])
    assert [line[:2] for line in shown] == [(step, 10) for step in range(1, 11)]
    assert [line[3] for line in shown] == pytest.approx([line[2] / 2 for line in shown])
    assert shown[-1][2] < shown[0][2]
    first.run(epochs_of_four(first), steps=8)
    second.load_state(first.state())
    second.to(torch.device("cpu"))
    second.run(epochs_of_four(second), steps=10)
    assert whole.state().keys() == second.state().keys()
    assert all(torch.equal(value, second.state()[name]) for name, value in whole.state().items())


def test_a_loss_that_is_not_finite_stops_the_training_and_names_the_setting() -> None:
    training = new_training()
    with pytest.raises(MethodError, match=r"diverged by step 1 \(loss nan\).*learning_rate"):
        training.run(epochs_of_four(training, factor=float("nan")), steps=4)


def test_a_state_of_another_network_is_refused_by_its_first_names() -> None:
    state = new_training().state()
    with pytest.raises(WeightsError, match=r"1 tensors missing \(first \['0.bias'\]\)"):
        new_training().load_state({name: value for name, value in state.items() if name != "network.0.bias"})
    with pytest.raises(WeightsError, match=r"1 of another shape \(first \['weight'\]\)"):
        load_weights(nn.Linear(2, 2), {"weight": torch.zeros(3, 2), "bias": torch.zeros(2)})
    with pytest.raises(WeightsError, match="no counters"):
        new_training().load_state({name: value for name, value in state.items() if name != "counters"})


def test_each_number_is_of_one_image_of_one_source() -> None:
    images = SourceImages(SOURCES, Backbone(stages=(2, 3), size_px=64), context())
    assert len(images) == 16
    assert images.source.tolist() == [0] * 7 + [1] * 9, "in the order of their names"
    pairs = set(zip(images.source.tolist(), images.group.tolist(), strict=True))
    assert len(pairs) == len(set(images.group.tolist())) == 4 + 5, "no group is of two sources"
    numbers = np.array([9, 0, 6, 15])
    expected = [SOURCES["b"].pictures[2], SOURCES["a"].pictures[0], SOURCES["a"].pictures[6], SOURCES["b"].pictures[8]]
    assert torch.equal(images.images(numbers), torch.stack(expected).float() / 255)
    alone = [images.stages(np.array([number]))[1] for number in numbers]
    assert torch.equal(images.stages(numbers)[1], torch.cat(alone))
    (second,) = images.stages(numbers, (1,))
    assert torch.equal(second, torch.cat(alone))


class Runs:
    """Leaves a file behind where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("content", ["nothing", "junk", "code", "torn"])
def test_a_file_that_holds_no_tensors_is_told_and_never_run(content: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"a": torch.zeros(100)}, path)
    damaged = {
        "nothing": b"",
        "junk": b"junk",
        "code": pickle.dumps(Runs(tmp_path / "ran")),
        "torn": path.read_bytes()[:300],
    }
    path.write_bytes(damaged[content])
    with pytest.raises(WeightsError, match=r"weights\.pth can't be read .* Expected a file of torch\.save") as told:
        read_tensors(path)
    assert "weights_only" not in str(told.value), "no advice to run it"
    assert not (tmp_path / "ran").exists()
    with pytest.raises(WeightsError, match="can't be read"):
        load_backbone(Backbone("efficientnet_lite0", weights=str(path)), torch.device("cpu"))
