"""What the suite does on a GPU: the gpu tests, then speeds and peak memory, each beside the CPU's figures.

    make gpu            or, where nothing can be set up:  PYTHONPATH=…:tests python -m bench.gpu --out DIR

Features of two networks in three precisions, training of D²4FAD (the reference's plain loop, ours, compiled), its
evaluation, and `multistage` and `patchcore` from a prepared file to a row, all under the runner's settings: kernels
that repeat their bits, and convolutions in float32 where nothing else is said. It needs no network:
EfficientNet-Lite0's weights come with its package, the Wide ResNet is as initialised.

It ends within 8 minutes. Each part has a limit of its own and is broken off there; the loop that is compiled, which
takes longest, comes last. `gpu.json` and `gpu.md` name all parts from the beginning and are written anew after each, so
whatever stops the script, the table says what was left out. Exit 1 if a part fails, is left out, or differs from the
CPU by more than its tolerance; 2 without a GPU or with files of another size, unless --small asks for the same parts in
small on the CPU, all but the compiled loop.
"""

import argparse
import faulthandler
import gc
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import chain, product
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
from medfsad_bench.errors import StoreError
from medfsad_bench.files import write_json, write_text
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

ROOT = Path(__file__).resolve().parent.parent.parent
CPU = torch.device("cpu")
SHOTS = 4
LIMIT_S, GRACE_S = 445, 15  # of all parts; beyond it, for what can't be broken off from within
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


class OutOfTime(BaseException):
    """A part has reached its limit; no compiler's `except Exception` is to keep it."""


@dataclass(frozen=True)
class Part:
    """Something to measure.

    Attributes:
        what: Its name, which is its line's.
        measure: Measures it.
        limit_s: When it is broken off.
    """

    what: str
    measure: Callable[[], list[Line]]
    limit_s: float = 90


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure all parts and write the table; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("gpu-results"), help="folder of gpu.json and gpu.md")
    parser.add_argument(
        "--data", type=Path, help="folder of files prepared at 256 px; phantoms are prepared without it"
    )
    parser.add_argument("--limit", type=int, default=LIMIT_S, help="seconds after which everything is broken off")
    parser.add_argument("--small", action="store_true", help="everything in small on the CPU: a rehearsal")
    options = parser.parse_args(arguments)
    if not options.small and not torch.cuda.is_available():
        print("No GPU is here (torch.cuda.is_available() is false). Run it on a machine with one, or give --small.")
        return 2
    device, scale = (CPU, SMALL) if options.small else (torch.device("cuda"), Scale())
    if options.data and (fault := unfit(options.data, scale.size_px)):
        print(fault)
        return 2
    # If all else fails, and if a compiler's processes hold up the exit; the table is there by then.
    faulthandler.dump_traceback_later(options.limit + GRACE_S, exit=True)
    return measured(device, scale, options.out, options.data, time.monotonic() + options.limit)


def unfit(data: Path, size_px: int) -> str:
    """Why prepared files can't be run here; empty if they can."""
    try:
        sizes = sorted({int(dataset.attributes["size_px"]) for dataset in prepared_sets(data)})
    except StoreError as error:
        return str(error)
    if sizes == [size_px]:
        return ""
    return (
        f"The files in {data} are prepared at {' and '.join(map(str, sizes))} px, and runs are measured at {size_px} "
        f"px. Prepare them with --size {size_px}, or leave --data out to run phantoms."
    )


def measured(device: torch.device, scale: Scale, out: Path, data: Path | None, until: float) -> int:
    """Measure part by part, until a moment on the monotonic clock."""
    torch.backends.cudnn.allow_tf32 = False  # this and what follows as the runner has it
    torch.use_deterministic_algorithms(True, warn_only=True)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    with tempfile.TemporaryDirectory() as scratch:
        todo = list(parts(device, scale, Path(scratch), data))
        lines = {part.what: [Line(part.what, fault="left out: the script was stopped before")] for part in todo}
        write(lines, device, out)
        for part in todo:
            began = time.monotonic()
            lines[part.what] = tried(part, device, until - began)
            print(f"{part.what}: {time.monotonic() - began:.0f} s", flush=True)
            write(lines, device, out)
    print((out / "gpu.md").read_text("utf-8"))
    return 0 if all(line.passed for line in chain(*lines.values())) else 1


def parts(device: torch.device, scale: Scale, scratch: Path, data: Path | None) -> Iterator[Part]:
    """What is measured, the most telling first; what is compiled, and may take minutes, last."""
    if scale.tests:
        yield Part("gpu tests", gpu_tests, 180)
    precisions = OF_PRECISION if device.type == "cuda" else ("float32", "bfloat16")
    for name, precision in product(scale.networks, precisions):
        what = f"features, {name}, {precision}, {scale.size_px} px"
        yield Part(what, partial(features, what, name, precision, device, scale))
    for info in (multistage.INFO, patchcore.INFO):  # not by name: entry points may not be installed there
        what = f"{info.name}, {scale.size_px} px, from a prepared file to a row of {scale.draws} draws"
        yield Part(what, partial(end_to_end, what, info, device, scale, scratch, data))
    what = f"d24fad evaluation, K = {SHOTS}, {scale.train_px} px, adapt and score, networks loaded, no features cached"
    yield Part(what, partial(evaluation, what, device, scale))
    for mode, batch in product(scale.modes, scale.batches):
        what = f"d24fad training, K = {SHOTS}, {scale.train_px} px, batch {batch}, {mode}"
        yield Part(what, partial(training, what, mode, batch, device, scale), 150 if mode == "compiled" else 60)


def tried(part: Part, device: torch.device, seconds_left: float) -> list[Line]:
    """A part's lines, or one that says why it failed or was left out: whatever breaks, the next part is measured."""
    limit_s = min(part.limit_s, seconds_left)
    if limit_s <= 0:
        return [Line(part.what, fault="left out: the time was over")]
    gc.collect()  # what the part before has left on the device isn't this one's
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    try:
        with stopped_after(limit_s):
            lines = part.measure()
    except OutOfTime as stop:
        return [Line(part.what, fault=f"left out: broken off after {limit_s:.0f} s. {stop}".strip())]
    except Exception as error:  # noqa: BLE001 - a compiler that is missing, memory that is short
        return [Line(part.what, fault=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")]
    if device.type == "cuda":
        for line in lines:
            line.peak_mib = torch.cuda.max_memory_allocated() / 2**20 or None  # of none, if another process used it
    return lines


@contextmanager
def stopped_after(seconds: float, *, again_s: float = 5) -> Iterator[None]:
    """Raise `OutOfTime` in the block once it has taken so long; an alarm that was set before goes on afterwards.

    It is raised again every `again_s`: an exception in a finaliser is ignored, and a bare `except:` would keep it.
    """

    def stop(*_: object) -> None:
        raise OutOfTime

    began = time.monotonic()
    earlier_handler = signal.signal(signal.SIGALRM, stop)
    earlier_s, _ = signal.setitimer(signal.ITIMER_REAL, seconds, again_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, earlier_handler)
        if earlier_s:
            signal.setitimer(signal.ITIMER_REAL, max(earlier_s - (time.monotonic() - began), 1e-3))


def gpu_tests() -> list[Line]:
    """The tests that need a GPU, in a process of their own, which takes its compilers' processes with it."""
    options = ["-v", "-m", "gpu", "-p", "no:cacheprovider", "-p", "no:randomly"]
    command = [sys.executable, "-m", "pytest", *options, "tests/test_gpu.py"]
    environment = os.environ | {"JAXTYPING_DISABLE": "1"}  # a compiler would stop at every check of a type
    with tempfile.TemporaryFile("w+") as output:  # not a pipe, which would wait for whoever holds its other end
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=output, stderr=output, start_new_session=True
        )

        def printed() -> str:
            output.seek(0)
            return " ".join(output.read().split())

        try:
            code = process.wait()
        except OutOfTime:
            raise OutOfTime(printed()[-500:]) from None
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        passed = re.search(r"(\d+) passed", printed())
        wrong = code or (not passed and torch.cuda.is_available())  # all skipped: their process had no device
        return [Line("gpu tests", float(passed[1]) if passed else 0, "passed", fault=printed()[-500:] if wrong else "")]


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


def write(lines_of_parts: Mapping[str, Sequence[Line]], device: torch.device, out: Path) -> None:
    """Both forms of the table, whole or not at all."""
    lines = list(chain(*lines_of_parts.values()))
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
    allowed = "–" if line.tolerance is None else f"{line.tolerance:.1e}"
    return [line.what, value, memory, difference, allowed, line.fault or ("" if line.passed else "differs")]


if __name__ == "__main__":
    sys.exit(main())
