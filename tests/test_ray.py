"""Sweeps on a Ray cluster of two nodes, all on this machine: whatever is killed, every row is there once, and right."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from engine_cells import one_of_each_class, rows_of_local_run, without_clocks
from ray_cluster import NODE, driver, started
from ray_driver import wanted

from medfsad_bench.results.run_folder import RunFolder
from medfsad_bench.runner.plan import Cell
from medfsad_bench.store import Dataset

pytest.importorskip("ray", reason="needs the extra `ray`")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),  # a minute on an idle machine; a busy one starts Ray's processes slowly
    pytest.mark.filterwarnings("ignore"),  # Ray's own; what is tested runs in processes of its own
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A head and a second node, with one CPU each."""
    with started(tmp_path_factory.mktemp("shipped"), cpus=1) as cluster:
        cluster.add_node(**NODE)
        yield cluster


def lines_until(process: "subprocess.Popen[str]", start: str) -> list[str]:
    """What a driver says, up to the first line that begins so."""
    lines: list[str] = []
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line.strip())
        if line.startswith(start):
            return lines
    raise AssertionError(lines)


def test_every_row_is_there_once_whatever_is_killed(cluster: Any, own_data: Path, tmp_path: Path) -> None:
    """A worker dies, a node is killed, its command is killed, and two commands finish the sweep at the same time;
    features can't be kept on disk.
    """
    runs = tmp_path / "runs"
    cells = wanted(own_data, runs)
    killed = driver(cluster, own_data, runs)
    try:
        said = lines_until(killed, "done")
        assert any(line.startswith(f"again {cells[0].run_id} its worker or its node was lost") for line in said)
        (second,) = cluster.worker_nodes
        cluster.remove_node(second, allow_graceful=False)
        cluster.add_node(**NODE)
        lines_until(killed, "done")
    finally:
        killed.kill()
        killed.communicate()
    two = [driver(cluster, own_data, runs) for _ in range(2)]
    said_by = [process.communicate(timeout=400)[0] for process in two]
    assert [process.returncode for process in two] == [0, 0], "\n".join(said_by)
    failed = {line.split()[1] for said in said_by for line in said.splitlines() if line.startswith("failed")}
    assert failed == {cells[1].run_id}

    good = [cell for cell in cells if cell.run_id not in failed and cell.info.name != "trouble"]
    alone = rows_of_local_run([cell for cell in wanted(own_data, tmp_path / "alone") if cell.info.name != "trouble"])
    assert len(good) == len(alone) == 3
    for cell in good:
        assert_made_as_alone(cell, runs, tmp_path / "alone")
        log = (runs / cell.run_id / "log.jsonl").read_text()
        assert log.count('"event": "done"') == 1


def test_a_method_of_every_class_has_the_rows_of_one_process(cluster: Any, own_data: Path, tmp_path: Path) -> None:
    process = driver(cluster, own_data, tmp_path / "runs", "--classes")
    said = process.communicate(timeout=400)[0].splitlines()
    cells = one_of_each_class(own_data, tmp_path / "runs")
    assert {line.split()[0] for line in said} == {"done"}, said
    alone = rows_of_local_run(one_of_each_class(own_data, tmp_path / "alone"))
    assert len(alone) == len(cells) == 7
    for cell in cells:
        assert_made_as_alone(cell, tmp_path / "runs", tmp_path / "alone")


def assert_made_as_alone(cell: Cell, runs: Path, alone: Path) -> None:
    """Row, scores and what pixel figures come from, bit for bit."""
    folder, before = RunFolder(runs / cell.run_id), RunFolder(alone / cell.run_id)
    assert without_clocks(folder.row()) == without_clocks(before.row())
    pd.testing.assert_frame_equal(folder.scores(), before.scores(), check_exact=True)
    pixels = [folder_.path / "pixels.npz" for folder_ in (folder, before)]
    assert len({path.read_bytes() if path.exists() else b"" for path in pixels}) == 1


def test_small_sets_are_shipped_and_needed_no_more_where_they_came_from(
    cluster: Any, own_data: Path, tmp_path: Path
) -> None:
    shutil.copytree(own_data, tmp_path / "data")
    process = driver(cluster, tmp_path / "data", tmp_path / "runs", "--ship")
    said = process.communicate(timeout=400)[0].splitlines()
    assert process.returncode == 0, said
    assert sum(line.startswith("done") for line in said) == 7, said  # 5 cells, a training, features of a network
    assert not (tmp_path / "data").exists()


def test_a_set_that_a_cluster_read_has_the_digests_of_one_that_this_machine_read(
    cluster: Any, own_source: Path, own_data: Path, tmp_path: Path
) -> None:
    command = ("prepare", "--source", str(own_source), "--out", str(tmp_path), "--size", "64")
    medfsad = [sys.executable, "-c", "from medfsad_bench.cli import main; main()"]
    ran = [*medfsad, *command, "--engine", "ray", "--address", cluster.address]
    subprocess.run(ran, check=True, capture_output=True, timeout=400)
    digests = {
        folder: {path.name: Dataset(path).attributes["content_digest"] for path in folder.rglob("ward_*.h5")}
        for folder in (own_data, tmp_path)
    }
    assert len(digests[tmp_path]) == 2
    assert digests[tmp_path] == digests[own_data]
