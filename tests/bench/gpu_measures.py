"""What `make gpu` measures on a device, each beside the CPU's result: features, training, evaluation, runs.

Every function returns lines of the table in `gpu.py`, which says what is measured, in which order and for how long.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from bench.bench_d24fad import Plain
from torch import Tensor

from d24fad.config import Config
from d24fad.detector import D24FAD
from d24fad.networks import Networks, new_networks, numerics
from d24fad.training import training_losses
from medfsad_bench.info import MethodInfo
from medfsad_bench.method import Backbone
from medfsad_bench.results.run_folder import RunFolder
from medfsad_bench.runner.context import LocalContext
from medfsad_bench.runner.features import CACHE_BYTES
from medfsad_bench.runner.frozen import load_backbone
from medfsad_bench.runner.plan import RunOptions, cells
from medfsad_bench.runner.runner import Runner
from medfsad_bench.store.prepared import prepared_sets
from medfsad_bench.testing import phantom_images

CPU = torch.device("cpu")
SHOTS = 4
# Of the features' root mean square, from the CPU's float32. With the roundings done on a CPU, EfficientNet-Lite0 at
# 256 px is off by 5e-3 in TF32 and 5e-2 in bfloat16, the Wide ResNet by a tenth of that.
OF_PRECISION = {"float32": 1e-3, "tf32": 2e-2, "bfloat16": 1.5e-1}
OF_LOSS = {"plain loop": 1e-3, "ours": 1e-3, "compiled": 1e-2}  # of the CPU's loss at the first step
OF_MAPS, OF_AUROC = 1e-3, 2e-3


@dataclass(frozen=True)
class Scale:
    """How much is measured.

    Attributes:
        networks: Feature networks.
        images: Of a batch of features.
        size_px: Of features and runs.
        batches: Of training.
        train_px: Of D²4FAD.
        depths: Of its student.
        modes: Of its training.
        queries: To score.
        draws: Of a run.
        normals: Phantoms that a run's file is prepared from; half as many have a lesion.
        repeats: Of what is timed, after one that isn't.
        tests: Whether the gpu tests are run.
    """

    networks: tuple[str, ...] = ("efficientnet_lite0", "random:wide_resnet50_2")
    images: int = 64
    size_px: int = 256
    batches: tuple[int, ...] = (16, 64)
    train_px: int = 128
    depths: tuple[int, int, int] = (3, 4, 6)
    modes: tuple[str, ...] = ("plain loop", "ours", "compiled")
    queries: int = 256
    draws: int = 10
    normals: int = 200
    repeats: int = 10
    tests: bool = True


SMALL = Scale(
    networks=("efficientnet_lite0",),
    images=2,
    size_px=64,
    batches=(2,),
    train_px=32,
    modes=("plain loop", "ours"),
    queries=4,
    draws=2,
    normals=24,
    repeats=1,
    tests=False,
)


@dataclass
class Line:
    """One measurement.

    Attributes:
        what: Of what.
        value: The figure; None if the part failed.
        unit: Of it.
        difference: From the CPU's result; None where there is nothing to compare.
        tolerance: Largest difference that is allowed.
        peak_mib: Of the device's memory; None on the CPU.
        fault: Why it failed or was left out; empty if it is there.
    """

    what: str
    value: float | None = None
    unit: str = ""
    difference: float | None = None
    tolerance: float | None = None
    peak_mib: float | None = None
    fault: str = ""

    @property
    def passed(self) -> bool:
        """Whether it is there and agrees with the CPU."""
        within = self.difference is None or self.tolerance is None or self.difference <= self.tolerance
        return not self.fault and within


def features(what: str, name: str, precision: str, device: torch.device, scale: Scale) -> list[Line]:
    """Images a second through a frozen network, and how far its last stages are from the CPU's."""
    backbone = Backbone(name, (2, 3))
    grain = torch.rand(scale.images, 3, scale.size_px, scale.size_px, generator=torch.Generator().manual_seed(0))
    # Smooth phantoms alone give features so small that lower precision would change them by a third.
    images = (phantom_images(scale.images, size_px=scale.size_px) + 0.1 * grain).clamp(0, 1)
    network = load_backbone(backbone, device)
    on_device = images.to(device)
    with torch.no_grad():
        expected = load_backbone(backbone, CPU)(images[:2])
        with numerics(precision, device.type):
            computed = [stage.float().cpu() for stage in network(on_device[:2])]
            seconds = timed(lambda: network(on_device), device, scale.repeats)
    return [Line(what, scale.images / seconds, "images/s", typical(computed, expected), OF_PRECISION[precision])]


def training(what: str, mode: str, batch: int, device: torch.device, scale: Scale) -> list[Line]:
    """Queries a second in training, and how far the first loss is from ours on the CPU, from the same weights."""
    config = Config(scale.networks[-1], size_px=scale.train_px, shots=SHOTS, depths=scale.depths)
    backbone = Backbone(config.backbone, (-4, -3, -2, -1), config.size_px, normalise=False)
    images = phantom_images(batch * (1 + SHOTS), size_px=scale.train_px)
    queries, supports = np.arange(batch), np.arange(batch, len(images)).reshape(SHOTS, batch).T
    stages = LocalContext(device).features(backbone, images.to(device))
    on_cpu = [stage.cpu() for stage in stages]
    networks = new_networks(on_cpu, config, seed=0).train()
    with torch.no_grad():
        expected = training_losses(
            networks, [stage[:batch] for stage in on_cpu], on_cpu[3][batch:], config
        ).total.item()
    step: Callable[[], float]
    if mode == "plain loop":
        plain = Plain(OnDevice(images.to(device)), backbone, fresh(on_cpu, config, device), config, device)
        step = partial(plain.step, queries, supports)
    elif mode == "compiled":
        torch.compiler.reset()  # else it would remember the batch before, and compile for any size
        compiled = replace(config, compile="default")
        step = own_step(fresh(on_cpu, compiled, device), stages, batch, compiled)
    else:
        step = own_step(fresh(on_cpu, config, device), stages, batch, config)
    first = step()
    seconds = timed(step, device, scale.repeats)
    return [Line(what, batch / seconds, "queries/s", abs(first - expected) / expected, OF_LOSS[mode])]


class OnDevice:
    """Images that lie on the device already: what the plain loop would read from files isn't measured here."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def decoded(self, numbers: np.ndarray) -> Tensor:
        """Images in [0, 1] by number."""
        return self.images[torch.from_numpy(numbers).to(self.images.device)]


def fresh(stages: Sequence[Tensor], config: Config, device: torch.device) -> Networks:
    """The networks of seed 0 on the device, before their first step."""
    return new_networks(stages, config, seed=0).to(device).train()


def own_step(networks: Networks, stages: Sequence[Tensor], batch: int, config: Config) -> Callable[[], float]:
    """A training step with the teacher's features at hand, as they are after the first epoch."""
    optimiser = torch.optim.Adam(networks.parameters(), lr=1e-4, betas=(0.5, 0.999), fused=True)

    def step() -> float:
        total = training_losses(networks, [stage[:batch] for stage in stages], stages[3][batch:], config).total
        optimiser.zero_grad(set_to_none=True)
        total.backward()
        optimiser.step()
        return total.item()

    return step


def evaluation(what: str, device: torch.device, scale: Scale) -> list[Line]:
    """Queries a second that an untrained student scores, and how far its maps are from the CPU's.

    The clock runs from the support to the last map: adapt, and score all queries, from images that lie on the device.
    The networks are loaded and have been used before; nothing is known of the features of any image.
    """
    config = Config(size_px=scale.train_px, backbone=scale.networks[-1], depths=scale.depths)
    images = phantom_images(SHOTS + scale.queries, size_px=scale.train_px)
    few = min(scale.queries, 8)
    method, context = untrained(config, device, images)
    support, queries = images.to(device).split([SHOTS, scale.queries])
    batches = queries.split(64)

    def forget() -> None:
        context.cache.keep_at_most(0)
        context.cache.keep_at_most(CACHE_BYTES)

    seconds = timed(lambda: maps_of(method, context, support, batches), device, scale.repeats, before=forget)
    computed = maps_of(method, context, support, [queries[:few]])
    expected = maps_of(*untrained(config, CPU, images), images[:SHOTS], [images[SHOTS:][:few]])
    return [Line(what, scale.queries / seconds, "queries/s", worst([computed.cpu()], [expected]), OF_MAPS)]


def untrained(config: Config, device: torch.device, images: Tensor) -> tuple[D24FAD, LocalContext]:
    """The detector with a student that was drawn on the CPU, and a context whose teacher is loaded, on a device."""
    method, context = D24FAD(config), LocalContext(device)
    context.features(method._backbone, images[:1].to(device))
    stages = LocalContext().features(method._backbone, images[:1])
    method._networks = new_networks(stages, config, seed=0).to(device)
    return method, context


def maps_of(method: D24FAD, context: LocalContext, support: Tensor, batches: Sequence[Tensor]) -> Tensor:
    """Maps of all queries, on the device."""
    scorer = method.adapt(support, context)
    maps = [scorer(batch).pixel for batch in batches]
    return torch.cat([part for part in maps if part is not None])


def end_to_end(
    what: str, info: MethodInfo, device: torch.device, scale: Scale, scratch: Path, data: Path | None
) -> list[Line]:
    """Seconds of a run, and how far its AUROC is from the CPU's."""
    sets = prepared_sets(data or phantom_data(scratch, scale))
    aurocs, seconds = [], 0.0
    for where in dict.fromkeys((CPU, device)):
        options = RunOptions(scratch / "runs" / str(where), draws=scale.draws, preset="quick")
        (cell,) = cells(info, sets[:1], sets, [SHOTS], options)
        runner, began = Runner(str(where)), time.perf_counter()
        row, _ = runner.run(cell)
        seconds = time.perf_counter() - began
        aurocs.append(row.metrics["image_auroc"].value)
        assert len(RunFolder(options.runs / cell.run_id).scores())
    return [Line(f"{what} ({sets[0].name})", seconds, "s", abs(aurocs[-1] - aurocs[0]), OF_AUROC)]


def phantom_data(scratch: Path, scale: Scale) -> Path:
    """A prepared file of blurred noise with bright discs; only this needs what reads images, so it is imported here."""
    from conftest import Silent, write_own_folder

    from medfsad_bench.curation.stage import PrepareOptions, prepare

    if not (scratch / "data").exists():
        counts = {"normal": scale.normals, "anomalous": scale.normals // 2}
        write_own_folder(scratch / "phantoms" / "ward", seed=1, masks=False, **counts)
        prepare(scratch / "phantoms", PrepareOptions(scratch / "data", size_px=scale.size_px), watcher=Silent())
    return scratch / "data"


def timed(
    call: Callable[[], object], device: torch.device, repeats: int, *, before: Callable[[], None] = lambda: None
) -> float:
    """Seconds of a call, mean over the repeats, after one that isn't timed; `before` comes before each, untimed."""
    seconds = 0.0
    for number in range(repeats + 1):
        before()
        synchronise(device)
        began = time.perf_counter()
        call()
        synchronise(device)
        if number:
            seconds += time.perf_counter() - began
    return seconds / repeats


def synchronise(device: torch.device) -> None:
    """Wait until the device has done what it was asked."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def worst(computed: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Largest difference, in parts of the largest value."""
    pairs = zip(computed, expected, strict=True)
    return max(float((values - reference).abs().max() / reference.abs().max()) for values, reference in pairs)


def typical(computed: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Root mean square of the difference, in parts of the values'."""
    pairs = zip(computed, expected, strict=True)
    return max(float((values - reference).norm() / reference.norm()) for values, reference in pairs)
