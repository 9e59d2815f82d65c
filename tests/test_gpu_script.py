"""`make gpu` without a GPU: it says so, and keeps its time; its parts run on the CPU and on a stand-in for a GPU."""

import contextlib
import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import test_gpu
import torch
from bench import gpu
from bench.gpu_measures import CPU, SMALL, Line, Scale, phantom_data
from stand_in_gpu import stand_in_gpu

from d24fad.info import INFO
from medfsad_baselines import patchcore
from medfsad_bench.method import Backbone
from medfsad_bench.runner import features
from medfsad_bench.runner.frozen import load_backbone

TINY = replace(SMALL, depths=(1, 1, 1), draws=1)
COMPILED = """
import functools, sys, torch
from bench.gpu_measures import CPU, SMALL, training
from dataclasses import replace
network, depths, backend = sys.argv[1], tuple(map(int, sys.argv[2])), sys.argv[3]
torch.compile = functools.partial(torch.compile, backend=backend, fullgraph=True)
(line,) = training("", "compiled", 2, CPU, replace(SMALL, networks=(network,), depths=depths))
sys.exit(not line.passed)
"""


def pretend(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the driver would say of the stand-in."""
    monkeypatch.setattr(features, "_CUDA_CHUNK", 4)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "a stand-in")
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda *_: 2**20)
    for name in ("synchronize", "empty_cache", "reset_peak_memory_stats"):
        monkeypatch.setattr(torch.cuda, name, lambda *_: None)


def lines_in(folder: Path) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = json.loads((folder / "gpu.json").read_text("utf-8"))["lines"]
    text = (folder / "gpu.md").read_text("utf-8")
    assert all(line["what"] in text for line in lines)
    return lines


def test_without_a_gpu_it_says_so_and_exits_2(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main(["--out", str(tmp_path / "out")]) == 2
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1
    assert "--small" in printed
    assert not (tmp_path / "out").exists()


def test_files_of_another_size_or_none_are_refused(
    own_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gpu.unfit(own_data, 64) == ""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert gpu.main(["--data", str(own_data), "--out", str(tmp_path / "out")]) == 2
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1
    assert "prepared at 64 px" in printed
    assert "--size 256" in printed
    assert gpu.main(["--data", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "medfsad prepare" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


# An autocast for CUDA that isn't there computes in float32.
@pytest.mark.filterwarnings("ignore:.*CUDA is not available.*:UserWarning")
def test_every_part_runs_on_a_stand_in_for_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From part to part with `device="cuda"`, no tensor left on the CPU; the compiler has tests of its own."""
    load_backbone(Backbone("efficientnet_lite0"), CPU)  # reads its weights
    pretend(monkeypatch)
    data = phantom_data(tmp_path, TINY)
    parts = [part for part in gpu.parts(torch.device("cuda"), TINY, tmp_path, data) if "patchcore" not in part.what]
    monkeypatch.setattr(gpu, "parts", lambda *_: iter(parts))  # patchcore's way is multistage's
    with stand_in_gpu() as device:
        assert gpu.measured(device, TINY, tmp_path, data, time.monotonic() + 250) == 0, lines_in(tmp_path)
    lines = lines_in(tmp_path)
    assert len(lines) == 3 + 1 + 1 + 2
    assert all(line["value"] > 0 and line["difference"] <= line["tolerance"] for line in lines)
    assert all(line["peak_mib"] == 1 for line in lines)


def compiled(network: str, depths: str, backend: str) -> subprocess.CompletedProcess[str]:
    """Training steps in a process without run-time types, which would break what is compiled into pieces."""
    command = [sys.executable, "-c", COMPILED, network, depths, backend]
    return subprocess.run(command, cwd=gpu.ROOT / "tests", capture_output=True, text=True, timeout=280, check=False)


def test_a_student_is_compiled_whole_and_begins_with_the_cpus_loss() -> None:
    """Traced as for a GPU. The code that a compiler would write of it is left out: it takes minutes on a CPU."""
    done = compiled("efficientnet_lite0", "111", "eager")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.long
def test_the_rehearsal_runs_as_a_command(tmp_path: Path) -> None:
    """On the CPU, phantoms being prepared for it, and the whole student."""
    command = [sys.executable, "-m", "bench.gpu", "--small", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=gpu.ROOT / "tests", capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = lines_in(tmp_path)
    assert len(lines) == 7
    assert all(line["value"] > 0 and line["difference"] <= line["tolerance"] for line in lines)


@pytest.mark.long
@pytest.mark.filterwarnings("default")
def test_the_gpu_tests_pass_on_a_stand_in(
    own_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All but those of a compiler and of bfloat16, which an autocast for CUDA that isn't there leaves out."""
    load_backbone(Backbone("efficientnet_lite0"), CPU)  # reads its weights
    pretend(monkeypatch)
    with stand_in_gpu():
        test_gpu.test_maps_are_the_cpus(capsys)
        test_gpu.test_lower_precision_stays_close("tf32")
        test_gpu.test_training_steps_have_the_cpus_losses("no", capsys)
        for info in (patchcore.INFO, INFO):
            test_gpu.test_a_run_has_the_cpus_auroc(own_data, tmp_path / info.name, info)


@pytest.mark.long
def test_a_wide_resnet_runs_in_small_and_agrees_with_itself(tmp_path: Path) -> None:
    scale = replace(SMALL, networks=("random:wide_resnet50_2",))
    wanted = [part for part in gpu.parts(CPU, scale, tmp_path, None) if "file to a row" not in part.what]
    lines = [line for part in wanted for line in gpu.tried(part, CPU, 250)]
    assert len(lines) == 2 + 1 + 2
    assert all(line.passed for line in lines), lines


@pytest.mark.long
def test_the_whole_student_of_a_wide_resnet_is_compiled_in_both_directions() -> None:
    done = compiled("random:wide_resnet50_2", "346", "aot_eager")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_part_that_fails_differs_or_takes_too_long_leaves_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails() -> list[Line]:
        raise RuntimeError("no compiler\nhere")

    def never_ends() -> list[Line]:
        while True:
            with contextlib.suppress(Exception):  # as a compiler might
                time.sleep(60)

    parts = [
        gpu.Part("a", fails),
        gpu.Part("b", lambda: [Line("b", 2.0, "s", 0.5, 0.1)]),
        gpu.Part("c", never_ends, limit_s=0.2),
        gpu.Part("d", lambda: [Line("d", 1.0, "s")]),
    ]
    monkeypatch.setattr(gpu, "parts", lambda *_: iter(parts))
    assert gpu.measured(CPU, SMALL, tmp_path, None, float("inf")) == 1
    lines = lines_in(tmp_path)
    assert [line["passed"] for line in lines] == [False, False, False, True]
    assert lines[0]["fault"] == "RuntimeError: no compiler here"
    assert lines[1]["fault"] == "", "too far from the CPU's"
    assert "left out: broken off after 0 s" in lines[2]["fault"]
    assert gpu.measured(CPU, SMALL, tmp_path, None, 0.0) == 1
    assert all("time was over" in line["fault"] for line in lines_in(tmp_path))


def test_a_part_ends_with_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def sleeps() -> list[Line]:
        time.sleep(60)
        return []

    parts = [gpu.Part(name, sleeps) for name in "ab"]
    monkeypatch.setattr(gpu, "parts", lambda *_: iter(parts))
    began = time.monotonic()
    assert gpu.measured(CPU, SMALL, tmp_path, None, began + 0.3) == 1
    assert time.monotonic() - began < 10
    assert ["left out" in line["fault"] for line in lines_in(tmp_path)] == [True, True]


def test_whenever_it_is_stopped_the_table_names_every_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed() -> list[Line]:
        raise KeyboardInterrupt

    parts = [gpu.Part("a", lambda: [Line("a", 1.0, "s")]), gpu.Part("b", killed), gpu.Part("c", killed)]
    monkeypatch.setattr(gpu, "parts", lambda *_: iter(parts))
    with pytest.raises(KeyboardInterrupt):
        gpu.measured(CPU, SMALL, tmp_path, None, float("inf"))
    assert [line["fault"] for line in lines_in(tmp_path)] == ["", *["left out: the script was stopped before"] * 2]


def heedless(seconds: float) -> None:
    """Sleeps so long twice, and lets no exception wake it from the first."""
    with contextlib.suppress(BaseException):
        time.sleep(seconds)
    time.sleep(seconds)


def test_an_alarm_that_was_set_before_rings_all_the_same() -> None:
    """pytest-timeout sets one, for instance."""
    rung: list[float] = []
    handler = signal.signal(signal.SIGALRM, lambda *_: rung.append(time.monotonic()))
    earlier, _ = signal.setitimer(signal.ITIMER_REAL, 0.6)
    try:
        with gpu.stopped_after(60):
            pass
        with pytest.raises(gpu.OutOfTime), gpu.stopped_after(0.05):
            time.sleep(60)
        with pytest.raises(gpu.OutOfTime), gpu.stopped_after(0.05, again_s=0.05):
            heedless(60)
        assert not rung
        time.sleep(0.5)
        assert rung
    finally:
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, earlier)


def test_the_gpu_tests_are_begun_and_reported() -> None:
    """Without a GPU they are all skipped."""
    (line,) = gpu.gpu_tests()
    assert line.passed
    assert line.value == 0 or torch.cuda.is_available()
    with pytest.raises(gpu.OutOfTime), gpu.stopped_after(0.5):
        gpu.gpu_tests()


def test_a_gpu_measures_three_precisions_two_batches_and_three_loops_the_compiled_last(tmp_path: Path) -> None:
    parts = list(gpu.parts(torch.device("cuda"), Scale(), tmp_path, None))
    names = [part.what for part in parts]
    assert names[0] == "gpu tests"
    assert sum(name.startswith("features") for name in names) == 2 * 3
    assert sum("training" in name for name in names) == 2 * 3
    assert any("multistage" in name for name in names)
    assert all("compiled" in name for name in names[-2:])
    assert gpu.LIMIT_S + gpu.GRACE_S < 8 * 60 - 15, "torch takes its time to import"
