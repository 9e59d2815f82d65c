"""What the suite does on a GPU: the gpu tests, then speeds and peak memory, each beside the CPU's figures.

    make gpu            or, where nothing can be set up:  PYTHONPATH=…:tests python -m bench.gpu --out DIR

Features of two networks in three precisions, training of D²4FAD (the reference's plain loop, ours, compiled), its
evaluation, and `multistage` and `patchcore` from a prepared file to a row. It needs no network: EfficientNet-Lite0's
weights come with its package, the Wide ResNet is as initialised. `gpu.json` and `gpu.md` are written anew after every
part, so what is done survives a limit. Exit 1 if a part fails or differs from the CPU by more than its tolerance,
2 without a GPU, unless --small asks for the same parts in small on the CPU.
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import torch
from bench.bench_d24fad import Plain
from torch import Tensor

from d24fad.config import Config
from d24fad.detector import D24FAD
from d24fad.networks import Networks, new_networks, numerics
from d24fad.training import training_losses
from medfsad_baselines import multistage, patchcore
from medfsad_bench.display import markdown_table
from medfsad_bench.files import write_json, write_text
from medfsad_bench.info import MethodInfo
from medfsad_bench.method import Backbone
from medfsad_bench.results.run_folder import RunFolder
from medfsad_bench.runner.context import LocalContext
from medfsad_bench.runner.frozen import load_backbone
from medfsad_bench.runner.plan import RunOptions, cells
from medfsad_bench.runner.runner import Runner
from medfsad_bench.store.prepared import prepared_sets
from medfsad_bench.testing import phantom_images

ROOT = Path(__file__).resolve().parent.parent.parent
CPU = torch.device("cpu")
SHOTS = 4
OF_PRECISION = {"float32": 1e-3, "tf32": 1e-2, "bfloat16": 1e-1}  # of the largest feature, from the CPU's float32
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
        modes: Of its training.
        queries: To score.
        repeats: Of what is timed, after one that isn't.
        tests_s: Limit of the gpu tests.
    """

    networks: tuple[str, ...] = ("efficientnet_lite0", "random:wide_resnet50_2")
    images: int = 64
    size_px: int = 256
    batches: tuple[int, ...] = (16, 64)
    train_px: int = 128
    modes: tuple[str, ...] = ("plain loop", "ours", "compiled")
    queries: int = 256
    repeats: int = 10
    tests_s: int = 150


SMALL = Scale(("efficientnet_lite0",), 2, 64, (2,), 32, ("plain loop", "ours"), 4, 1, 0)


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
        fault: Why it failed, or that time was over; empty if it didn't.
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure all parts and write the table; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("gpu-results"), help="folder of gpu.json and gpu.md")
    parser.add_argument("--data", type=Path, help="folder of prepared files; phantoms are prepared without it")
    parser.add_argument("--limit", type=int, default=450, help="seconds after which no further part begins")
    parser.add_argument("--small", action="store_true", help="everything in small on the CPU: a rehearsal")
    options = parser.parse_args(arguments)
    if not options.small and not torch.cuda.is_available():
        print("No GPU is here (torch.cuda.is_available() is false). Run it on a machine with one, or give --small.")
        return 2
    device, scale = (CPU, SMALL) if options.small else (torch.device("cuda"), Scale())
    return measured(device, scale, options.out, options.data, time.monotonic() + options.limit)


def measured(device: torch.device, scale: Scale, out: Path, data: Path | None, until: float) -> int:
    """Measure part by part."""
    torch.backends.cudnn.allow_tf32 = False  # as the runner has it
    lines: list[Line] = []
    with tempfile.TemporaryDirectory() as scratch:
        for what, part in parts(device, scale, Path(scratch), data):
            began = time.monotonic()
            lines += [Line(what, fault="left out: the time was over")] if began > until else tried(what, part, device)
            print(f"{what}: {time.monotonic() - began:.0f} s", flush=True)
            write(lines, device, out)
    print((out / "gpu.md").read_text("utf-8"))
    return 0 if all(line.passed for line in lines) else 1


Part = tuple[str, Callable[[], list[Line]]]


def parts(device: torch.device, scale: Scale, scratch: Path, data: Path | None) -> Iterator[Part]:
    """What is measured, the most telling first."""
    if scale.tests_s:
        yield "gpu tests", partial(gpu_tests, scale)
    precisions = OF_PRECISION if device.type == "cuda" else ("float32", "bfloat16")
    for name, precision in product(scale.networks, precisions):
        what = f"features, {name}, {precision}, {scale.size_px} px"
        yield what, partial(features, what, name, precision, device, scale)
    for info in (multistage.INFO, patchcore.INFO):  # not by name: entry points may not be installed there
        what = f"{info.name}, {scale.size_px} px, from a prepared file to a row"
        yield what, partial(end_to_end, what, info, device, scale, scratch, data)
    what = f"d24fad evaluation, {scale.train_px} px"
    yield what, partial(evaluation, what, device, scale)
    for batch, mode in product(scale.batches, scale.modes):
        what = f"d24fad training, K = {SHOTS}, {scale.train_px} px, batch {batch}, {mode}"
        yield what, partial(training, what, mode, batch, device, scale)


def tried(what: str, part: Callable[[], list[Line]], device: torch.device) -> list[Line]:
    """A part's lines, or one that says why it failed: whatever breaks, the next part is measured."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    try:
        lines = part()
    except Exception as error:  # noqa: BLE001 - a compiler that is missing, memory that is short
        return [Line(what, fault=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")]
    if device.type == "cuda":
        for line in lines:
            line.peak_mib = torch.cuda.max_memory_allocated() / 2**20
    return lines


def gpu_tests(scale: Scale) -> list[Line]:
    """The tests that need a GPU, in a process of their own."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "tests/test_gpu.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=scale.tests_s, check=False)
    tail = " ".join(done.stdout.split())[-300:]
    return [Line("gpu tests", float(done.returncode), "exit code", fault=tail if done.returncode else "")]


def features(what: str, name: str, precision: str, device: torch.device, scale: Scale) -> list[Line]:
    """Images a second through a frozen network, and how far its last stages are from the CPU's."""
    backbone = Backbone(name, (2, 3))
    images = phantom_images(scale.images, size_px=scale.size_px)
    network = load_backbone(backbone, device)
    on_device = images.to(device)
    with torch.inference_mode():
        expected = load_backbone(backbone, CPU)(images[:2])
        with numerics(precision, device.type):
            given = [stage.float().cpu() for stage in network(on_device[:2])]
            seconds = timed(lambda: network(on_device), device, scale)
    return [Line(what, scale.images / seconds, "images/s", worst(given, expected), OF_PRECISION[precision])]


def training(what: str, mode: str, batch: int, device: torch.device, scale: Scale) -> list[Line]:
    """Queries a second in training, and how far the first loss is from ours on the CPU, from the same weights."""
    config = Config(scale.networks[-1], size_px=scale.train_px, shots=SHOTS)
    backbone = Backbone(config.backbone, (-4, -3, -2, -1), config.size_px, normalise=False)
    images = phantom_images(batch * (1 + SHOTS), size_px=scale.train_px)
    queries, supports = np.arange(batch), np.arange(batch, len(images)).reshape(SHOTS, batch).T
    stages = LocalContext(device).features(backbone, images.to(device))
    on_cpu = [stage.cpu() for stage in stages]
    networks = new_networks(on_cpu, config, seed=0).train()
    expected = training_losses(networks, [stage[:batch] for stage in on_cpu], on_cpu[3][batch:], config).total.item()
    step: Callable[[], float]
    if mode == "plain loop":
        plain = Plain(OnDevice(images.to(device)), backbone, fresh(on_cpu, config, device), config, device)
        step = partial(plain.step, queries, supports)
    else:
        compiled = replace(config, compile="default") if mode == "compiled" else config
        step = own_step(fresh(on_cpu, compiled, device), stages, batch, compiled)
    first = step()
    seconds = timed(step, device, scale)
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
    """Queries a second that an untrained student scores, no feature known, and how far its maps are from the CPU's."""
    config = Config(size_px=scale.train_px, backbone=scale.networks[-1])
    images = phantom_images(SHOTS + scale.queries, size_px=scale.train_px)

    def maps(where: torch.device, count: int) -> Tensor:
        context = LocalContext(where)
        shown = images.to(where)
        method = D24FAD(config)
        method._networks = new_networks(
            LocalContext().features(method._backbone, images[:1]), config, seed=0
        )  # drawn on the CPU for both
        scorer = method.adapt(shown[:SHOTS], context)
        pixel = [scorer(part).pixel for part in shown[SHOTS : SHOTS + count].split(64)]
        return torch.cat([part.cpu() for part in pixel if part is not None])

    few = min(scale.queries, 8)
    difference = worst([maps(device, few)], [maps(CPU, few)])
    seconds = timed(lambda: maps(device, scale.queries), device, replace(scale, repeats=1))
    return [Line(what, scale.queries / seconds, "queries/s", difference, OF_MAPS)]


def end_to_end(
    what: str, info: MethodInfo, device: torch.device, scale: Scale, scratch: Path, data: Path | None
) -> list[Line]:
    """Seconds of a run of ten draws, and how far its AUROC is from the CPU's."""
    folder = data or phantom_data(scratch, scale)
    sets = prepared_sets(folder)
    aurocs, seconds = [], 0.0
    for where in dict.fromkeys((CPU, device)):
        options = RunOptions(scratch / "runs" / str(where), draws=2 if scale is SMALL else 10, preset="quick")
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
        count = 12 if scale is SMALL else 100
        write_own_folder(scratch / "phantoms" / "ward", seed=1, masks=False, normal=2 * count, anomalous=count)
        prepare(scratch / "phantoms", PrepareOptions(scratch / "data", size_px=scale.size_px), watcher=Silent())
    return scratch / "data"


def timed(call: Callable[[], object], device: torch.device, scale: Scale) -> float:
    """Seconds of a call, mean over the repeats, after one that isn't timed."""
    call()
    synchronise(device)
    began = time.perf_counter()
    for _ in range(scale.repeats):
        call()
    synchronise(device)
    return (time.perf_counter() - began) / scale.repeats


def synchronise(device: torch.device) -> None:
    """Wait until the device has done what it was asked."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def worst(given: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Largest difference, in parts of the largest value."""
    pairs = zip(given, expected, strict=True)
    return max(float((computed - reference).abs().max() / reference.abs().max()) for computed, reference in pairs)


def write(lines: Sequence[Line], device: torch.device, out: Path) -> None:
    """Both forms of the table, whole or not at all."""
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads, small"
    facts = {"device": name, "torch": torch.__version__, "python": platform.python_version(), "cpus": os.cpu_count()}
    content = [asdict(line) | {"passed": line.passed} for line in lines]
    write_json(out / "gpu.json", {**facts, "lines": content})
    table = markdown_table(["what", "figure", "peak MiB", "from the CPU's", "allowed", ""], map(cells_of, lines))
    write_text(out / "gpu.md", f"{', '.join(f'{key} {value}' for key, value in facts.items())}\n\n{table}")


def cells_of(line: Line) -> list[str]:
    """A line of the Markdown table."""
    value = "–" if line.value is None else f"{line.value:.4g} {line.unit}"
    memory = "–" if line.peak_mib is None else f"{line.peak_mib:.0f}"
    difference = "–" if line.difference is None else f"{line.difference:.1e}"
    allowed = "–" if line.tolerance is None else f"{line.tolerance:.0e}"
    return [line.what, value, memory, difference, allowed, line.fault or ("" if line.passed else "differs")]


if __name__ == "__main__":
    sys.exit(main())
