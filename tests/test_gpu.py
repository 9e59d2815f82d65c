"""CUDA beside the CPU: the same maps and figures, and how much faster. Every test needs a CUDA device.

`make gpu` runs them without run-time types (JAXTYPING_DISABLE=1), at each of which torch.compile would stop.
"""

import time
from pathlib import Path

import numpy as np
import pytest
import torch
from test_runner import cell_of

from d24fad.config import Config
from d24fad.detector import D24FAD
from d24fad.info import INFO
from d24fad.networks import new_networks
from d24fad.training import training_losses
from medfsad_baselines import patchcore
from medfsad_bench.info import MethodInfo
from medfsad_bench.results.run_folder import RunFolder
from medfsad_bench.runner.context import LocalContext
from medfsad_bench.runner.runner import Runner
from medfsad_bench.testing import phantom_images

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device; none is here"),
    pytest.mark.filterwarnings("default"),  # a driver, a kernel or a compiler has its own to say on every machine
]
SETTINGS = {"steps": 20, "size_px": 64, "batch_size": 4, "train_shots": 2}


@pytest.fixture(autouse=True)
def no_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the runner has it; by torch's default convolutions round to TF32, and maps would differ by 7e-3."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def config(**settings: object) -> Config:
    values = {"backbone": "efficientnet_lite0", "normalise": True}
    return Config(**{**values, **settings})  # type: ignore[arg-type]


def maps_on(device: str, settings: Config) -> tuple[torch.Tensor, float]:
    """Maps of 64 phantoms with the same untrained weights, and images a second once warm."""
    context = LocalContext(torch.device(device))
    images = phantom_images(68, size_px=settings.size_px).to(context.device)
    method = D24FAD(settings)
    cpu = LocalContext()
    method._networks = new_networks(cpu.features(method._backbone, images[:1].cpu()), settings, seed=3)
    scorer = method.adapt(images[:4], context)
    scorer(images[4:8])
    started = time.perf_counter()
    pixel = scorer(images[4:]).pixel
    assert pixel is not None
    maps = pixel.cpu()
    return maps, 64 / (time.perf_counter() - started)


def test_maps_are_the_cpus(capsys: pytest.CaptureFixture[str]) -> None:
    slow, cpu_rate = maps_on("cpu", config())
    fast, gpu_rate = maps_on("cuda", config())
    torch.testing.assert_close(fast, slow, rtol=0, atol=1e-3)
    with capsys.disabled():
        print(f"\nscoring, cold: CUDA {gpu_rate / cpu_rate:.1f} × the CPU")  # noqa: T201


@pytest.mark.parametrize("precision", ["tf32", "bfloat16"])
def test_lower_precision_stays_close(precision: str) -> None:
    slow, _ = maps_on("cpu", config())
    fast, _ = maps_on("cuda", config(precision=precision, channels_last=True))
    assert float((fast - slow).abs().mean()) < (5e-3 if precision == "tf32" else 5e-2)


@pytest.mark.parametrize("info", [patchcore.INFO, INFO], ids=lambda info: info.name)  # entry points may not be there
def test_a_run_has_the_cpus_auroc(own_data: Path, tmp_path: Path, info: MethodInfo) -> None:
    settings = SETTINGS | {"steps": 0} if info is INFO else {}
    results = []
    for device in ("cpu", "cuda"):
        cell = cell_of(info, own_data, tmp_path / device, settings=settings)
        row, _ = Runner(device).run(cell)
        results.append((row.metrics["image_auroc"].value, RunFolder(tmp_path / device / cell.run_id).scores()))
    assert results[1][0] == pytest.approx(results[0][0], abs=1e-3)
    assert row.peak_memory_mb


@pytest.mark.parametrize("mode", ["no", "default", "reduce-overhead"])
def test_training_steps_have_the_cpus_losses(mode: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Eight steps on each side from the same weights; compiled and with CUDA graphs, too.

    The student is a shallow one: its code is written in a quarter of the time, and rounding grows by a third as much
    from step to step, to 0.3 % of the loss.
    """
    torch.compiler.reset()
    losses, rates = [], []
    for device, compiled in (("cpu", "no"), ("cuda", mode)):
        settings = config(size_px=128, compile=compiled, depths=(1, 1, 1))
        context = LocalContext(torch.device(device))
        images = phantom_images(40, size_px=128).to(device)
        method = D24FAD(settings)
        stages = context.features(method._backbone, images)
        networks = new_networks([stage.cpu() for stage in stages], settings, seed=1).to(device).train()
        optimiser = torch.optim.Adam(networks.parameters(), lr=1e-4, betas=(0.5, 0.999))
        mine = []
        for step in range(8):
            if step == 3:
                started = time.perf_counter()
            total = training_losses(networks, [stage[:8] for stage in stages], stages[3][8:], settings).total
            optimiser.zero_grad(set_to_none=True)
            total.backward()
            optimiser.step()
            mine.append(total.item())
        rates.append(5 * 8 / (time.perf_counter() - started))
        losses.append(mine)
    np.testing.assert_allclose(losses[1][0], losses[0][0], rtol=1e-3)
    np.testing.assert_allclose(losses[1], losses[0], rtol=2e-2)
    with capsys.disabled():
        print(f"\ntraining, compile={mode}: CUDA {rates[1] / rates[0]:.1f} × the CPU")  # noqa: T201
