"""What the system itself refuses a worker, memory or room on a disk: told in a paragraph, and no row differs by it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from engine_cells import rows_of_local_run, sweep_of, troubled, without_clocks
from test_engine import Heard

from medfsad_bench.results.run_folder import RunFolder
from medfsad_bench.runner.engine.graph import tasks_of
from medfsad_bench.runner.engine.jobs import Workplace
from medfsad_bench.runner.engine.pool import PoolEngine
from medfsad_bench.runner.engine.sweep import sweep
from medfsad_bench.runner.engine.worker import Outcome
from medfsad_bench.runner.plan import Cell

ON_FULL_DISK = (
    "import sys; from pathlib import Path\n"
    "from engine_cells import sweep_of\n"
    "from test_engine_faults import swept, with_network\n"
    "data, runs, store = map(Path, sys.argv[1:])\n"
    "print([end.state for end in swept(with_network(data, runs), store).values()])\n"
)
SMALL_DISK = 'mount -t tmpfs -o size=1m,nr_inodes=1 full "$1" && shift && exec "$@"'


def swept(cells: list[Cell], store: Path) -> dict[str, Outcome]:
    """How tasks end in one process with one thread, which does one after the other."""
    engine = PoolEngine(1, Workplace(Path.cwd(), "cpu", 1, cache_bytes=1 << 30, store=store, store_bytes=1 << 30))
    try:
        return sweep(tasks_of(cells), engine, Heard())
    finally:
        engine.close()


def with_network(data: Path, runs: Path) -> list[Cell]:
    return [cell for cell in sweep_of(data, runs) if cell.info.name == "mean_distance"]


@pytest.fixture(scope="module")
def alone(own_data: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """The run as one process makes it, with all room that it wants."""
    runs = tmp_path_factory.mktemp("alone")
    (row,) = rows_of_local_run(with_network(own_data, runs)).values()
    return RunFolder(runs / row.run_id)


def assert_made_as_alone(runs: Path, before: RunFolder) -> None:
    folder = RunFolder(runs / before.path.name)
    assert without_clocks(folder.row()) == without_clocks(before.row())
    pd.testing.assert_frame_equal(folder.scores(), before.scores(), check_exact=True)


def said_of_features(runs: Path) -> str:
    """What the worker printed while it made features."""
    return "".join(path.read_text() for path in runs.glob(".sweeps/features-*/output.log"))


def test_memory_that_the_system_does_not_give_is_one_paragraph_and_the_rest_goes_on(
    own_data: Path, tmp_path: Path
) -> None:
    cells = [troubled(own_data, tmp_path, "allocates"), troubled(own_data, tmp_path, "none")]
    greedy, modest = swept(cells, tmp_path / "store").values()
    assert (greedy.state, modest.state) == ("failed", "done")
    assert greedy.message.startswith("Out of memory on cpu (")
    assert "finished epochs and draws are kept" in greedy.message
    assert len(greedy.message.splitlines()) == 1


def test_features_that_no_file_holds_are_computed_and_the_row_is_the_same(
    own_data: Path, tmp_path: Path, alone: RunFolder
) -> None:
    """The kernel itself refuses to write: the process may have no file as large as the features."""
    cells = [troubled(own_data, tmp_path / "runs", "little room"), *with_network(own_data, tmp_path / "runs")]
    outcomes = swept(cells, tmp_path / "store")
    assert {outcome.state for outcome in outcomes.values()} == {"done"}, outcomes
    assert "takes no features (File too large)" in said_of_features(tmp_path / "runs")
    assert not list((tmp_path / "store").rglob("*.arrow"))
    assert_made_as_alone(tmp_path / "runs", alone)


@pytest.mark.slow
def test_a_store_on_a_full_disk_costs_time_and_nothing_else(own_data: Path, tmp_path: Path, alone: RunFolder) -> None:
    """A file system of its own that has no room for one more file."""
    unshare, disk, runs = shutil.which("unshare"), tmp_path / "disk", tmp_path / "runs"
    disk.mkdir()
    in_namespace = [str(unshare), "--user", "--map-root-user", "--mount", "sh", "-c", SMALL_DISK, "sh", str(disk)]
    if unshare is None or subprocess.run([*in_namespace, "true"], capture_output=True).returncode:
        pytest.skip("no file system can be mounted in a namespace of one's own here (unshare --user --mount)")
    command = [*in_namespace, sys.executable, "-c", ON_FULL_DISK, str(own_data), str(runs), str(disk / "store")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["['done',", "'done']"]
    assert "takes no features (No space left on device)" in said_of_features(runs)
    assert_made_as_alone(runs, alone)
