"""Several processes at one store of features: one writes, others wait or take over, and what is read isn't removed."""

import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from test_processes import running

from medfsad_bench.runner import feature_store
from medfsad_bench.runner.feature_file import Batch, open_features, remove_unused
from medfsad_bench.runner.feature_store import FeatureStore

FACTS = {"network": "net"}
DIGESTS = [bytes([number]) * 32 for number in range(4)]

WRITER = (
    "import sys, time; from pathlib import Path\n"
    "from test_feature_writers import written\n"
    "from medfsad_bench.runner.feature_store import FeatureStore\n"
    "store = FeatureStore(Path(sys.argv[1]))\n"
    "with store.sole_writer({'network': 'net'}, 'digest'):\n"
    "    print('writing', flush=True)\n"
    "    time.sleep(float(sys.argv[2]))\n"
    "    written(store)\n"
)
READER = (
    "import sys; from pathlib import Path\n"
    "from medfsad_bench.runner.feature_file import open_features\n"
    "file = open_features(Path(sys.argv[1]))\n"
    "print('reading', flush=True)\n"
    "sys.stdin.read()\n"
)


def batches() -> Iterator[Batch]:
    yield DIGESTS, [np.arange(4 * 2 * 3 * 3, dtype=np.float32).reshape(4, 2, 3, 3)]


def written(store: FeatureStore) -> bool:
    return store.write(FACTS, (1,), "digest", DIGESTS, batches())


def files_of(store: FeatureStore) -> int:
    return len(store.open(FACTS, (1,), "digest", set(DIGESTS)))


@contextmanager
def other_process(code: str, *arguments: object) -> Iterator["subprocess.Popen[str]"]:
    with running(code, *map(str, arguments), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process


def test_who_comes_second_waits_and_finds_what_the_first_wrote(tmp_path: Path) -> None:
    told: list[str] = []
    store = FeatureStore(tmp_path, tell=told.append)
    store.set_names["digest"] = "ward"
    with other_process(WRITER, tmp_path, 2), store.sole_writer(FACTS, "digest") as can_write:
        assert can_write
        assert files_of(store) == 1
    assert told == ["Another process computes features of ward; this one waits for it."]


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGSTOP], ids=["dead", "silent"])
def test_a_dead_writers_place_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: signal.Signals) -> None:
    """Dead on this machine: at once. Without a sign of life, as on another machine: after the lease's time."""
    lease_s = 1.0 if end == signal.SIGSTOP else 30.0
    monkeypatch.setattr(feature_store, "_LEASE_S", lease_s)
    code = f"from medfsad_bench.runner import feature_store; feature_store._LEASE_S = {lease_s}\n" + WRITER
    store = FeatureStore(tmp_path)
    with other_process(code, tmp_path, 60) as writer:
        writer.send_signal(end)
        if end == signal.SIGKILL:
            writer.wait()
        started = time.monotonic()
        with store.sole_writer(FACTS, "digest") as can_write:
            assert can_write
            assert time.monotonic() - started < 10
            assert written(store)
        writer.kill()
    assert files_of(store) == 1
    assert list(tmp_path.rglob("*.lock")) == []


def test_what_another_process_reads_is_not_removed(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    with store.sole_writer(FACTS, "digest"):
        written(store)
    (path,) = tmp_path.rglob("*.arrow")
    with other_process(READER, path) as reader:
        assert not remove_unused(path)
        assert path.exists()
        reader.kill()
        reader.wait()
        assert remove_unused(path)
    assert not path.exists()


def test_a_process_keeps_what_its_run_names_and_lets_the_rest_go(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    with store.sole_writer(FACTS, "digest"):
        written(store)
    assert files_of(store) == 1
    (path,) = tmp_path.rglob("*.arrow")
    assert store.close(but={"digest"}) == []
    assert not remove_unused(path)
    assert len(store.close(but={"another"})) == 1
    assert remove_unused(path)
    assert not path.exists()


def test_an_open_file_is_found_by_its_digests(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    with store.sole_writer(FACTS, "digest"):
        written(store)
    (path,) = tmp_path.rglob("*.arrow")
    assert open_features(path, {b"another"}) is None
    assert open_features(path, {DIGESTS[2]}) is not None
