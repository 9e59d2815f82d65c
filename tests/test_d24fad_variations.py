"""Trainings of D²4FAD that leave the paper (`tests/bench/d24fad_trainings.py`): each does what its line says."""

from pathlib import Path

import numpy as np
import pytest
import torch
from bench.d24fad_trainings import TRAININGS, position_loss, with_all_seen
from bench.following_d24fad import nearness

from medfsad_bench.registry import configure, method_info
from medfsad_bench.runner.context import LocalContext
from medfsad_bench.runner.opened import opened
from medfsad_bench.runner.plan import RunOptions, cells
from medfsad_bench.runner.runner import Runner
from medfsad_bench.runner.sources import DeviceSource
from medfsad_bench.store.prepared import own_sets, prepared_sets
from medfsad_bench.testing import check_method

SMALL = {"steps": 2, "size_px": 64, "batch_size": 4, "train_shots": 2, "backbone": "random:resnet18"}
SIGNED = SMALL | {"backbone": "efficientnet_lite0"}  # whose stages have both signs


def weights_of(training: str, data: Path) -> dict[str, torch.Tensor]:
    """After two steps on the phantoms' sets."""
    sources = {dataset.name: DeviceSource(dataset, torch.device("cpu")) for dataset in own_sets(data)}
    info = TRAININGS[training]
    method = info.build(configure(info, preset="quick", settings=SMALL))
    method.pretrain(sources, LocalContext())
    return {name: value for name, value in method.state().items() if name.startswith("network.")}


def test_a_loss_by_position_is_the_mean_of_every_positions() -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = ((3, 4, 2, 2), (3, 5, 1, 3))
    a, b = ([torch.randn(shape, generator=generator) for shape in shapes] for _ in range(2))
    expected = 0.0
    for x, y in zip(a, b, strict=True):
        cosines = [
            float(x[n, :, i, j] @ y[n, :, i, j] / (x[n, :, i, j].norm() * y[n, :, i, j].norm()))
            for n, i, j in np.ndindex(len(x), *x.shape[2:])
        ]
        expected += 1 - float(np.mean(cosines))
    assert float(position_loss(a, b)) == pytest.approx(expected, rel=1e-5)


def test_what_the_student_sees_of_all_stages_is_of_one_size_each() -> None:
    generator = torch.Generator().manual_seed(1)
    stages = [torch.randn(2, width, edge, edge, generator=generator) for width, edge in ((3, 8), (4, 4), (6, 2))]
    *finer, seen = with_all_seen(stages)
    assert all(torch.equal(before, after) for before, after in zip(stages[:-1], finer, strict=True))
    assert seen.shape == (2, 13, 2, 2)
    for part in seen.split([3, 4, 6], dim=1):
        assert part.square().mean(1).numpy() == pytest.approx(1, rel=1e-5)
    assert seen[0, 3, 0, 1] / seen[0, 4, 0, 1] == pytest.approx(
        float(stages[1][0, 0, :2, 2:].mean() / stages[1][0, 1, :2, 2:].mean()), rel=1e-4
    )


def test_each_training_ends_with_weights_of_its_own(own_data: Path) -> None:
    weights = {training: weights_of(training, own_data) for training in TRAININGS}
    inputs = {name: state["network.decoder.layer1.0.conv1.weight"].shape[1] for name, state in weights.items()}
    assert inputs == {"paper": 512, "position": 512, "stages": 960, "both": 960}
    for narrow, other in (("paper", "position"), ("stages", "both")):
        assert any(not torch.equal(value, weights[other][name]) for name, value in weights[narrow].items())


def test_a_student_that_sees_all_stages_keeps_the_contract() -> None:
    info = TRAININGS["both"]
    check_method(info.build(configure(info, preset="quick", settings=SMALL)))


def test_no_student_is_nearer_to_the_teacher_than_a_relu_allows(own_data: Path, tmp_path: Path) -> None:
    sets = prepared_sets(own_data)
    (cell,) = cells(method_info("d24fad"), sets[:1], sets, [2], RunOptions(tmp_path, preset="quick", settings=SIGNED))
    runner = Runner("cpu")
    with opened(cell, runner.device, runner.cache, lambda *_: None) as run:
        trained, untrained, one_for_all, nearest, *of_pairs = nearness(run)
    assert 0.1 < nearest < min(trained, untrained, one_for_all)
    assert max(trained, untrained, one_for_all) < 6
    assert all(0 < value < 6 for value in of_pairs)
    assert len({trained, untrained}) == 2
