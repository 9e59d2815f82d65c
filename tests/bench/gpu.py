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
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain, product
from pathlib import Path

import torch
from bench.gpu_measures import CPU, OF_PRECISION, SHOTS, SMALL, Line, Scale, end_to_end, evaluation, features, training

from medfsad_baselines import multistage, patchcore
from medfsad_bench.display import markdown_table
from medfsad_bench.errors import StoreError
from medfsad_bench.files import write_json, write_text
from medfsad_bench.store.prepared import prepared_sets

ROOT = Path(__file__).resolve().parent.parent.parent
LIMIT_S, GRACE_S = 445, 15  # of all parts; beyond it, for what can't be broken off from within


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
