"""Ray ends workers where a node runs low on memory, several at once: who took too much fails alone."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from engine_cells import HOARD_BYTES, rows_of_local_run, without_clocks
from ray_cluster import driver, started
from ray_driver import beside_a_hoarder

from medfsad_bench.results.run_folder import RunFolder

pytest.importorskip("ray", reason="needs the extra `ray`")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.filterwarnings("ignore")]  # as in test_ray
ROOM_BYTES = HOARD_BYTES * 3 // 4  # beside what is in use before: for a few workers, and not for the hoard


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Any]:
    """A node with two CPUs, whose Ray takes what is in use now and some room for all the memory that there is."""
    total, available = memory_bytes("MemTotal"), memory_bytes("MemAvailable")
    if available < 2 * HOARD_BYTES:
        pytest.skip(f"needs {2 * HOARD_BYTES >> 30} GiB of free memory")
    share = (total - available + ROOM_BYTES) / total
    settings = {"RAY_memory_usage_threshold": f"{share:.4f}", "RAY_memory_monitor_refresh_ms": "50"}
    with started(tmp_path / "shipped", cpus=2, settings=settings) as cluster:
        yield cluster


def test_who_takes_too_much_memory_fails_and_whom_ray_ended_with_it_is_done(
    cluster: Any, own_data: Path, tmp_path: Path
) -> None:
    """Both are ended together and begun again, each with the node to itself; once more is all that they get."""
    runs = tmp_path / "runs"
    process = driver(cluster, own_data, runs, "--hoard")
    try:
        said = process.communicate(timeout=400)[0].splitlines()
    finally:
        process.kill()
    hoards, *others = beside_a_hoarder(own_data, runs)
    assert process.returncode == 0, said
    assert len((runs / "hoarded").read_text().split()) == 2, said
    assert any(line.startswith(f"again {hoards.run_id} its node ran low on memory") for line in said), said
    assert [line.split()[1] for line in said if line.startswith(("lost", "failed"))] == [hoards.run_id], said
    assert any(line.startswith(f"lost {hoards.run_id} with a node to itself it ran low on memory") for line in said)
    assert {line.split()[1] for line in said if line.startswith("done")} == {cell.run_id for cell in others}
    (before,) = rows_of_local_run(beside_a_hoarder(own_data, tmp_path / "alone")[2:]).values()
    assert without_clocks(RunFolder(runs / before.run_id).row()) == without_clocks(before)
    for cell in others:
        assert (runs / cell.run_id / "log.jsonl").read_text().count('"event": "done"') == 1


def memory_bytes(name: str) -> int:
    """What the system says of its memory; 0 where it is no Linux."""
    facts = Path("/proc/meminfo")
    lines = facts.read_text().splitlines() if facts.exists() else []
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), 0)
