"""Own folders of 16 bits: one range for the whole set, stated; and what readers notice reaches report and console."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from conftest import Silent
from PIL import Image
from test_dicom import write
from typer.testing import CliRunner

from medfsad_bench.cli import app
from medfsad_bench.curation.options import IntensityChoice
from medfsad_bench.curation.report import SetReport
from medfsad_bench.curation.stage import PrepareOptions, prepare
from medfsad_bench.errors import CurationError
from medfsad_bench.store import Dataset

SHAPE = (64, 64)


def tissue(seed: int, top: int) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(top // 8, top, (8, 8)).astype(np.float32)
    image = Image.fromarray(coarse).resize(SHAPE, Image.Resampling.BICUBIC)
    return np.asarray(image).clip(0, top).astype(np.uint16)


def write_set(root: Path, form: str, top: int = 4095) -> list[np.ndarray]:
    """Eight normal and four anomalous images; the largest value of the whole set is `top`, in one of them."""
    written = []
    for number in range(12):
        values = tissue(number, top if number == 3 else top // 2)
        values[0, 0] = top if number == 3 else 0
        path = root / ("normal" if number < 8 else "anomalous") / f"case{number:02d}.{form}"
        path.parent.mkdir(parents=True, exist_ok=True)
        if form == "png":
            Image.fromarray(values).save(path)
        elif form == "tif":
            tifffile.imwrite(path, values)
        else:
            write(path, values, bits=16, PatientID=str(number))
        written.append(values)
    return written


def prepared(root: Path, out: Path, intensity: IntensityChoice | None = None, **options: Any) -> SetReport:
    (report,), _ = prepare(root, PrepareOptions(out, size_px=64, intensity=intensity, **options), watcher=Silent())
    return report


def grey(report: SetReport, image_id: str) -> np.ndarray:
    dataset = Dataset(Path(report.path))
    (index,) = np.flatnonzero(dataset.table["id"] == image_id)
    return np.asarray(dataset.images(np.array([index]))[0, :, :, 0])


def faults(report: SetReport) -> dict[str, str]:
    return {finding["fault"]: finding["what"] for finding in report.findings}


@pytest.mark.parametrize("form", ["png", "tif"])
def test_twelve_used_bits_are_shown_alike_in_the_whole_set(tmp_path: Path, form: str) -> None:
    values = write_set(tmp_path / "raw" / "ward", form)
    report = prepared(tmp_path / "raw", tmp_path / "out")
    for number in (0, 3, 9):
        image_id = f"{'normal' if number < 8 else 'anomalous'}/case{number:02d}"
        if image_id in set(Dataset(Path(report.path)).table["id"]):
            assert np.array_equal(grey(report, image_id), np.rint(values[number] / 4095 * 255))
    assert "12 file(s) of 16 bits or more: all are shown from 0 to 4095" in faults(report)["intensity"]


def test_the_choice_of_bits_is_the_users(tmp_path: Path) -> None:
    values = write_set(tmp_path / "raw" / "ward", "png")
    full = prepared(tmp_path / "raw", tmp_path / "full", "full")
    assert "few of its bits are in use" in faults(full)["pixels"]
    image_id = str(Dataset(Path(full.path)).table["id"][0])
    number = int(image_id[-2:])
    assert np.abs(grey(full, image_id) - values[number] / 65535 * 255).max() <= 0.5
    stretched = prepared(tmp_path / "raw", tmp_path / "percentiles", "percentiles")
    kept = values[number][values[number] > 0]
    low, high = kept.min(), np.percentile(kept, 99.5)
    expected = np.clip((values[number].astype(float) - low) / (high - low), 0, 1) * 255
    assert np.abs(grey(stretched, image_id) - expected).max() <= 0.51


def test_dicom_of_sixteen_bits_without_window_is_shown_as_it_says_and_noted(tmp_path: Path) -> None:
    values = write_set(tmp_path / "raw" / "ward", "dcm")
    report = prepared(tmp_path / "raw", tmp_path / "out")
    assert "few of its bits are in use and it has no window" in faults(report)["pixels"]
    used = prepared(tmp_path / "raw", tmp_path / "used", "used")
    image_id = str(Dataset(Path(used.path)).table["id"][0])
    assert np.array_equal(grey(used, image_id), np.rint(values[int(image_id[-2:])] / 4095 * 255))
    assert "all are shown from 0 to 4095" in faults(used)["intensity"]


def test_all_sixteen_bits_in_use_need_no_choice(tmp_path: Path) -> None:
    write_set(tmp_path / "raw" / "ward", "png", top=65535)
    assert "intensity" not in faults(prepared(tmp_path / "raw", tmp_path / "out"))


def test_a_choice_that_changes_nothing_or_is_not_ones_own_is_said(tmp_path: Path, own_source: Path) -> None:
    report = prepared(own_source / "ward_a", tmp_path / "out", "used")
    assert "--intensity used changed nothing" in faults(report)["intensity"]
    for name in ("lung_n", "lung_aca"):
        (tmp_path / "LC25000" / name).mkdir(parents=True)
        Image.fromarray(tissue(0, 255).astype(np.uint8)).save(tmp_path / "LC25000" / name / f"{name}1.png")
    with pytest.raises(CurationError, match="--intensity is for folders of your own"):
        prepared(tmp_path / "LC25000", tmp_path / "out", "used", benchmark="medfsad-open")


def test_warnings_of_readers_reach_report_and_console(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "raw" / "ward"
    for number in range(12):
        path = root / ("normal" if number < 8 else "anomalous") / f"case{number:02d}.dcm"
        path.parent.mkdir(parents=True, exist_ok=True)
        centres = [f"{2000 + number}", "7"] if number % 2 else "2048"
        widths = ["4000", "9"] if number % 2 else "4096"
        write(path, tissue(number, 4095), PatientID=str(number), WindowCenter=centres, WindowWidth=widths)
    monkeypatch.setenv("COLUMNS", "80")
    command = ["prepare", "--source", str(root), "--out", str(tmp_path / "out"), "--size", "64"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    words = " ".join(result.output.replace("│", " ").split())
    assert "6 of 12 images: first of 2 windows taken" in words
    assert " noted" in words


def test_a_lone_file_of_several_frames_is_noted(tmp_path: Path) -> None:
    """A layout that doesn't part frames takes the first, and says so."""
    from medfsad_bench.readers import read_picture

    path = write(tmp_path / "a.dcm", np.stack([tissue(0, 4095), tissue(1, 4095)]))
    assert read_picture(path).warnings == ("first of several frames taken (2)",)
    assert read_picture(path, frame=0).warnings == ()
    assert read_picture(path).frames == 2
