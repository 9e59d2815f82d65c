"""Runs under stress: killed, torn, out of disk, nowhere to write: a clear line, and the same scores in the end."""

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from test_faults import files_up_to
from test_runner import TOY, cell_of

from medfsad_bench import cli
from medfsad_bench.errors import ResultsError
from medfsad_bench.registry import method_info
from medfsad_bench.results import storage
from medfsad_bench.results.rescore import rescored
from medfsad_bench.results.run_folder import RunFolder
from medfsad_bench.runner.plan import Cell
from medfsad_bench.runner.runner import Runner

QUICK = {"steps": 9, "size_px": 64, "batch_size": 4, "train_shots": 2}  # three steps an epoch


@pytest.fixture(scope="module")
def unbroken(own_data: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run with maps that nothing disturbed."""
    return ran(toy_cell(own_data, tmp_path_factory.mktemp("unbroken"), save_maps=True))


def toy_cell(data: Path, runs: Path, **options: object) -> Cell:
    """On the set without masks, whose figures cost the least."""
    return cell_of(TOY, data, runs, target="ward_b", **options)  # type: ignore[arg-type]


def ran(cell: Cell) -> RunFolder:
    Runner("cpu").run(cell)
    return RunFolder(cell.options.runs / cell.run_id)


def stopped_after(draws: int) -> Callable[..., None]:
    def stop(stage: str, done: int, total: int, figures: dict[str, float]) -> None:
        if stage == "scoring" and done > total // 3 * draws:
            raise KeyboardInterrupt

    return stop


def broken_after(draws: int, cell: Cell) -> RunFolder:
    with pytest.raises(KeyboardInterrupt):
        Runner("cpu", progress=stopped_after(draws)).run(cell)
    return RunFolder(cell.options.runs / cell.run_id)


def assert_same(folder: RunFolder, expected: RunFolder) -> None:
    """Scores, calibration, reruns, maps and figures to the last bit; and nothing else is left of the way there."""
    for table in (RunFolder.scores, RunFolder.calibration, RunFolder.reruns):
        pd.testing.assert_frame_equal(table(folder), table(expected), check_exact=True)
    rows = expected.scores().query("draw == 0")["index"].to_numpy()
    if expected.has_maps(0):
        for draw in range(3):
            np.testing.assert_array_equal(folder.maps(draw, rows), expected.maps(draw, rows))
    assert folder.row().metrics == expected.row().metrics
    assert rescored(folder) == folder.row()
    names = {path.name for path in folder.path.iterdir()} - {".lock"}
    assert names == {path.name for path in expected.path.iterdir()} - {".lock"}


def test_a_run_that_keeps_maps_goes_on_where_it_was_broken(own_data: Path, tmp_path: Path, unbroken: RunFolder) -> None:
    cell = toy_cell(own_data, tmp_path, save_maps=True)
    folder = broken_after(2, cell)
    assert sorted(path.name for path in (folder.path / "maps").iterdir()) == ["draw00.h5", "draw01.h5"]
    assert not (folder.path / "maps.h5").exists()
    ran(cell)
    assert_same(folder, unbroken)
    events = [json.loads(line) for line in (folder.path / "log.jsonl").read_text().splitlines()]
    assert [event["number"] for event in events if event["event"] == "draw"] == [0, 1, 2], "none was made twice"


@pytest.mark.parametrize("part", ["draws/0001.npz", "maps/draw01.h5", "maps/draw00.h5"])
@pytest.mark.parametrize("bytes_left", [0, 300])
def test_a_torn_draw_is_made_anew(
    own_data: Path, tmp_path: Path, unbroken: RunFolder, part: str, bytes_left: int
) -> None:
    """What a crash of the machine leaves: a name without its bytes."""
    cell = toy_cell(own_data, tmp_path, save_maps=True)
    folder = broken_after(2, cell)
    (folder.path / part).write_bytes((folder.path / part).read_bytes()[:bytes_left])
    assert_same(ran(cell), unbroken)


def test_draws_that_were_made_without_maps_are_made_anew_where_maps_are_asked_for(
    own_data: Path, tmp_path: Path, unbroken: RunFolder
) -> None:
    broken_after(2, toy_cell(own_data, tmp_path))
    assert_same(ran(toy_cell(own_data, tmp_path, save_maps=True)), unbroken)


@pytest.mark.parametrize("size", [0, 300, 4_000, 9_000, 30_000])
def test_a_full_disk_is_said_and_loses_nothing(own_data: Path, tmp_path: Path, unbroken: RunFolder, size: int) -> None:
    """Full at the first byte, at the log, at maps of a draw, at scores, at the joined maps."""
    cell = toy_cell(own_data, tmp_path, save_maps=True)
    with files_up_to(size), pytest.raises(ResultsError, match=r"can't be written.*--runs.*goes on from there"):
        Runner("cpu").run(cell)
    folder = RunFolder(tmp_path / cell.run_id)
    assert not folder.finished
    assert_same(ran(cell), unbroken)
    assert all(json.loads(line) for line in (folder.path / "log.jsonl").read_text().splitlines() if line.endswith("}"))


@pytest.mark.parametrize(
    ("name", "left", "read"),
    [
        ("scores.parquet", None, RunFolder.scores),
        ("scores.parquet", b"PAR1", RunFolder.scores),
        ("config.json", None, RunFolder.config),
        ("pixels.npz", b"PK", RunFolder.pixels),
        ("support.npz", b"PK\x03\x04", partial(RunFolder.support_weights, number=0)),
        ("row.json", b"{", RunFolder.row),
    ],
)
def test_what_a_finished_run_has_lost_is_told_with_a_remedy_that_works(
    own_data: Path,
    tmp_path: Path,
    unbroken: RunFolder,
    name: str,
    left: bytes | None,
    read: Callable[[RunFolder], object],
) -> None:
    """A finished run is taken as it is: to run its cell again is no remedy while its row is there."""
    cell = toy_cell(own_data, tmp_path)
    folder = RunFolder(tmp_path / cell.run_id)
    shutil.copytree(unbroken.path, folder.path)
    (folder.path / name).unlink(missing_ok=True)
    if left is not None:
        (folder.path / name).write_bytes(left)
    with pytest.raises(ResultsError, match=rf"{name}.*Remove (the run's folder|it), and run (its|the) cell") as told:
        read(folder)
    assert str(pickle.loads(pickle.dumps(told.value))) == str(told.value), "from a process to another"
    if name == "row.json":
        (folder.path / name).unlink()
    else:
        shutil.rmtree(folder.path)
    read(ran(cell))
    pd.testing.assert_frame_equal(folder.scores(), unbroken.scores())


@pytest.mark.slow
def test_a_full_disk_while_a_checkpoint_is_written_loses_nothing(own_data: Path, tmp_path: Path) -> None:
    info = method_info("d24fad")
    whole = ran(cell_of(info, own_data, tmp_path / "whole", settings=QUICK))
    cell = cell_of(info, own_data, tmp_path / "full", settings=QUICK)
    with files_up_to(100_000), pytest.raises(ResultsError, match=r"checkpoints.*can't be written"):
        Runner("cpu").run(cell)
    assert_same(ran(cell), whole)
    (state,) = (tmp_path / "full" / "checkpoints" / cell.training_id).glob("state-*.safetensors")
    (tmp_path / "full" / cell.run_id / "row.json").unlink()
    state.write_bytes(state.read_bytes()[:1000])  # a crash of the machine
    assert_same(ran(cell), whole)


@pytest.mark.slow
def test_a_torn_epoch_of_the_published_protocol_is_trained_anew(own_data: Path, tmp_path: Path) -> None:
    info = method_info("d24fad")
    options = {"protocol": "published", "draws": 1, "settings": QUICK}
    whole = ran(cell_of(info, own_data, tmp_path / "whole", **options))  # type: ignore[arg-type]
    cell = cell_of(info, own_data, tmp_path / "torn", **options)  # type: ignore[arg-type]

    def stop(stage: str, done: int, total: int, figures: dict[str, float]) -> None:
        if stage == "training" and "loss" in figures and done == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Runner("cpu", progress=stop).run(cell)
    first, *_ = sorted((tmp_path / "torn" / cell.run_id / "epochs").iterdir())
    first.write_bytes(b"")
    folder = ran(cell)
    assert folder.row().selected_epoch == whole.row().selected_epoch
    pd.testing.assert_frame_equal(folder.scores(), whole.scores(), check_exact=True)
    assert [path.name for path in (folder.path / "epochs").iterdir()] == [
        path.name for path in (whole.path / "epochs").iterdir()
    ]


@pytest.mark.parametrize("runs", ["a-file", "a-file/below", "/proc/no-such-folder/runs"])
def test_runs_that_are_no_folder_are_one_paragraph_and_exit_code_2(
    own_data: Path, tmp_path: Path, runs: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a-file").write_text("kept")
    words = ["medfsad", "run", "pixel_distance", "--data", str(own_data), "--runs", str(tmp_path / runs)]
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    message = " ".join(capsys.readouterr().err.split())
    assert ended.value.code == 2
    assert "can't be written" in message
    assert "name another --runs" in message
    assert (tmp_path / "a-file").read_text() == "kept"


def test_a_read_only_folder_of_runs_is_told_and_its_finished_runs_are_read(
    own_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may write everywhere, so the lock says what a read-only disk would."""
    finished = toy_cell(own_data, tmp_path)
    row, _ = Runner("cpu").run(finished)

    class ReadOnly:
        def __init__(self, path: Path) -> None:
            raise OSError(30, "Read-only file system", str(path))

    monkeypatch.setattr(storage, "FileLock", ReadOnly)
    assert Runner("cpu").run(finished) == (row, True)
    with pytest.raises(ResultsError, match=r"can't be written \(Read-only file system\)"):
        Runner("cpu").run(toy_cell(own_data, tmp_path, shots=4))


def test_maps_that_were_asked_for_and_are_not_there_are_mentioned(
    own_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["medfsad", "run", "pixel_distance", "--target", "ward_b", "--draws", "1", "--data", str(own_data)]
    for more in ([], ["--save-maps"]):
        monkeypatch.setattr("sys.argv", [*words, "--runs", str(tmp_path), *more])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == 0
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("no anomaly maps were kept: name another --runs to have them") == 1


def test_maps_are_asked_of_a_run_that_may_have_them(own_data: Path, tmp_path: Path, unbroken: RunFolder) -> None:
    rows = unbroken.scores()["index"].unique()[:1]
    (unbroken.path / "maps.h5").rename(tmp_path / "maps.h5")
    with pytest.raises(ResultsError, match=r"no anomaly maps .* with --save-maps"):
        unbroken.maps(0, rows)
    (tmp_path / "maps.h5").rename(unbroken.path / "maps.h5")
    without = ran(cell_of(method_info("shortcut"), own_data, tmp_path, target="ward_b"))
    with pytest.raises(ResultsError, match=r"no anomaly maps .* gives none; name a run of another"):
        without.maps(0, rows)


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_a_row_tells_the_threads_that_scored_all_of_them(own_data: Path, tmp_path: Path, two_threads: None) -> None:
    cell = toy_cell(own_data, tmp_path)
    broken_after(1, cell)
    torch.set_num_threads(1)
    row = ran(cell).row()
    assert row.threads == (1, 2)
    assert type(row).model_validate(row.model_dump(by_alias=True) | {"threads": ()}).dump().get("threads") is None


def test_an_old_run_with_its_maps_in_one_growing_file_is_taken_up(
    own_data: Path, tmp_path: Path, unbroken: RunFolder
) -> None:
    cell = toy_cell(own_data, tmp_path, save_maps=True)
    folder = broken_after(2, cell)
    for path in (folder.path / "maps").iterdir():
        path.unlink()
    with h5py.File(folder.path / "maps.h5", "w") as file:
        file["draw00"] = np.zeros(3)
    assert_same(ran(cell), unbroken)


@pytest.mark.long
def test_runs_that_are_killed_at_random_end_in_the_scores_of_those_that_never_were() -> None:
    """A small form of `tests/bench/kill_runs.py`, which makes fifty kills."""
    script = Path(__file__).parent / "bench" / "kill_runs.py"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # one thread: forks of a process with more may wait for ever
    command = [sys.executable, str(script), "--kills", "5"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "5 kills" in result.stdout
