"""Curves of trainings: resumed where they broke, the weights those of a plain run, losses and AUROC the true ones."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from test_cli import Medfsad, medfsad  # noqa: F401 - a fixture
from test_runner import TOY, cell_of

from d24fad.config import Config
from medfsad_bench.board.sections import parts_changed_by_hand
from medfsad_bench.errors import MethodError, ResultsError
from medfsad_bench.registry import configure, method_info
from medfsad_bench.results.run_folder import RunFolder
from medfsad_bench.runner import curves
from medfsad_bench.runner.curves import training_curve
from medfsad_bench.runner.plan import Cell
from medfsad_bench.runner.runner import Runner

SETTINGS = {"epochs": 3, "size_px": 32, "depths": "1,1,1", "batch_size": 6}


def student(data: Path, runs: Path) -> Cell:
    """Three epochs of a small student at two shots."""
    info = method_info("d24fad")
    return cell_of(info, data, runs, target="ward_b", draws=2, preset="laptop", settings=SETTINGS)


def curve_of(cell: Cell, *, every: int = 2) -> curves.Curve:
    return training_curve(cell, Runner("cpu"), every=every, progress=lambda *_: None)


def test_a_broken_curve_goes_on_and_ends_as_a_whole_one(
    own_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = curve_of(student(own_data, tmp_path / "whole"))
    assert list(whole.auroc) == [0, 2, 3], "untrained, every second epoch, and the last"
    assert list(whole.losses) == [1, 2, 3]
    assert {*whole.losses[1]} == {"loss", "self_distill", "distill"}
    for losses in whole.losses.values():
        assert losses["loss"] == pytest.approx(0.1 * losses["distill"] + losses["self_distill"], rel=1e-5)
    assert list(whole.controls) == ["teacher alone"]
    assert whole.picked in (2, 3)

    looks = iter([None, None])  # the untrained one, and epoch 2
    look = curves._look

    def breaks(run: Any) -> Any:
        next(looks)  # StopIteration at the third
        return look(run)

    cell = student(own_data, tmp_path / "broken")
    monkeypatch.setattr(curves, "_look", breaks)
    with pytest.raises(StopIteration):
        curve_of(cell)
    monkeypatch.setattr(curves, "_look", look)
    resumed = curve_of(cell)
    assert resumed == whole


def test_the_last_point_is_the_run_and_its_weights_serve_it(own_data: Path, tmp_path: Path) -> None:
    cell = student(own_data, tmp_path / "both")
    curve = curve_of(cell, every=3)
    row, _ = Runner("cpu").run(cell)
    assert row.metrics["image_auroc"] == curve.auroc[3]
    log = (tmp_path / "both" / cell.run_id / "log.jsonl").read_text("utf-8")
    assert '"reused": true' in log
    alone = student(own_data, tmp_path / "alone")
    Runner("cpu").run(alone)
    after_curve, plain = (RunFolder(c.options.runs / c.run_id).scores() for c in (cell, alone))
    pd.testing.assert_series_equal(after_curve["score"], plain["score"], check_exact=True)


def test_the_teacher_alone_is_the_control_that_it_says(own_data: Path, tmp_path: Path) -> None:
    cell = student(own_data, tmp_path)
    control = dict(method_info("d24fad").controls["teacher alone"])
    by_hand = cell_of(
        cell.info, own_data, tmp_path, target="ward_b", draws=2, preset="laptop", settings={**SETTINGS, **control}
    )
    row, _ = Runner("cpu").run(by_hand)
    short = dataclasses.replace(cell, config=dataclasses.replace(cell.config, epochs=1))
    assert curve_of(short).controls["teacher alone"] == row.metrics["image_auroc"]


def test_a_method_that_trains_nothing_has_no_curve(own_data: Path, tmp_path: Path) -> None:
    with pytest.raises(MethodError, match="trains nothing"):
        curve_of(cell_of(TOY, own_data, tmp_path))


def test_laptop_is_the_papers_setting_but_the_teacher() -> None:
    info = method_info("d24fad")
    paper, laptop = (configure(info, preset=preset) for preset in ("paper", "laptop"))
    assert paper == Config()
    assert dataclasses.replace(laptop, backbone=paper.backbone) == paper
    assert laptop.backbone == "efficientnet_lite0"
    assert info.file_px["laptop"] == 128


def test_curve_writes_its_part_of_a_page(medfsad: Medfsad, own_data: Path, tmp_path: Path) -> None:  # noqa: F811
    settings = [f"{name}={value}" for name, value in (SETTINGS | {"epochs": 1}).items()]
    part = " ".join(["curve d24fad laptop 2 0", *settings, "draws=2"])
    page, other = tmp_path / "RESULTS.md", "<!-- generated: curve d24fad laptop 2 0 -->\nKept.\n<!-- end -->\n"
    page.write_text(f"# Ours\n\n{other}\n<!-- generated: {part} -->\n<!-- end -->\n\nMore.\n", "utf-8")
    chosen = [word for setting in settings for word in ("--set", setting)]
    base = ["curve", "d24fad", "--preset", "laptop", "--shots", "2", "--draws", "2", "--data", own_data, *chosen]
    code, printed, _ = medfsad(*base, "--target", "ward_b", "--into", page, "--json")
    assert code == 0
    (told,) = json.loads(printed)
    text = page.read_text("utf-8")
    assert text.startswith(f"# Ours\n\n{other}")
    assert re.search(r"<!-- end [0-9a-f]{16} -->\n\nMore\.\n$", text)
    assert parts_changed_by_hand(page) == ["curve d24fad laptop 2 0"]
    assert f"| untrained | {told['auroc']['0']['value']:.3f} [" in text
    assert f"| teacher alone | {told['controls']['teacher alone']['value']:.3f} [" in text
    picked = told["published_takes"]
    assert f"| published protocol | {told['published'][str(picked)]:.3f} at epoch {picked} |" in text
    assert "](curve.png)" in text
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("page", "said"), [("NONE.md", "can't be read"), ("OTHER.md", "no part 'curve d24fad")])
def test_curve_tells_at_once_that_a_page_cant_take_it(
    medfsad: Medfsad,  # noqa: F811
    own_data: Path,
    tmp_path: Path,
    page: str,
    said: str,
) -> None:
    (tmp_path / "OTHER.md").write_text("# Ours\n", "utf-8")
    code, _, complaint = medfsad("curve", "d24fad", "--data", own_data, "--into", tmp_path / page)
    assert code == 2
    assert said in " ".join(complaint.split())
    assert not (tmp_path / "medfsad-runs").exists()


def test_a_part_that_isnt_there_is_told_and_nothing_is_changed(tmp_path: Path) -> None:
    from medfsad_bench.board.sections import fill

    page = tmp_path / "RESULTS.md"
    page.write_text("<!-- generated: other -->\n<!-- end -->\n", "utf-8")
    with pytest.raises(ResultsError, match=r"no part 'curve'.*'other'"):
        fill(page, "curve", "x")
    assert "x" not in page.read_text("utf-8")
