"""`make gpu` without a GPU: it says so; and every part of it runs in small on the CPU."""

import json
from pathlib import Path

import pytest
import torch
from bench import gpu


def test_without_a_gpu_it_says_so_and_exits_2(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main(["--out", str(tmp_path / "out")]) == 2
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1
    assert "--small" in printed
    assert not (tmp_path / "out").exists()


@pytest.mark.long
def test_every_part_runs_in_small_on_the_cpu_and_agrees_with_itself(tmp_path: Path) -> None:
    assert gpu.main(["--small", "--out", str(tmp_path)]) == 0
    lines = json.loads((tmp_path / "gpu.json").read_text("utf-8"))["lines"]
    assert len(lines) == 7
    assert all(line["value"] > 0 and line["difference"] <= line["tolerance"] for line in lines)
    text = (tmp_path / "gpu.md").read_text("utf-8")
    assert all(line["what"] in text for line in lines)


def test_a_part_that_fails_or_comes_too_late_leaves_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails() -> list[gpu.Line]:
        raise RuntimeError("no compiler\nhere")

    parts = [("a", fails), ("b", lambda: [gpu.Line("b", 2.0, "s", 0.5, 0.1)]), ("c", lambda: [gpu.Line("c", 1.0, "s")])]
    monkeypatch.setattr(gpu, "parts", lambda *_: iter(parts))
    assert gpu.measured(gpu.CPU, gpu.SMALL, tmp_path, None, float("inf")) == 1
    first, second, third = json.loads((tmp_path / "gpu.json").read_text("utf-8"))["lines"]
    assert first["fault"] == "RuntimeError: no compiler here"
    assert (second["passed"], third["passed"]) == (False, True), "too far from the CPU's"
    assert gpu.measured(gpu.CPU, gpu.SMALL, tmp_path, None, 0.0) == 1
    assert all("time was over" in line["fault"] for line in json.loads((tmp_path / "gpu.json").read_text())["lines"])


def test_a_gpu_measures_three_precisions_two_batches_and_three_loops(tmp_path: Path) -> None:
    names = [name for name, _ in gpu.parts(torch.device("cuda"), gpu.Scale(), tmp_path, None)]
    assert names[0] == "gpu tests"
    assert sum("features" in name for name in names) == 2 * 3
    assert sum("training" in name for name in names) == 2 * 3
    assert any("multistage" in name for name in names)
