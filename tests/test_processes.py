"""Several processes at `prepare`: workers end with their parent, one writes at a time, nothing is left of the dead."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from conftest import Silent, write_own_folder

from medfsad_bench.curation.options import PrepareOptions
from medfsad_bench.curation.out_folder import sole_writer
from medfsad_bench.curation.stage import prepare
from medfsad_bench.curation.workers import map_in_workers
from medfsad_bench.errors import CurationError
from medfsad_bench.files import sweep, whole, whole_folder
from medfsad_bench.store import verify_store

JOBS = (
    "import sys, time; from pathlib import Path\n"
    "from test_processes import note_process\n"
    "from medfsad_bench.curation.workers import map_in_workers\n"
    "list(map_in_workers(note_process, [sys.argv[1]] * 8, workers=2, preload='test_processes'))\n"
)


def note_process(folder: str) -> int:
    """A job that says in which process it runs, and takes long."""
    (Path(folder) / str(os.getpid())).touch()
    time.sleep(60)
    return os.getpid()


def end_this_process(number: int) -> int:
    if number == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def until(happens: object, *, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not happens():  # type: ignore[operator]
        assert time.monotonic() < deadline, "waited for too long"
        time.sleep(0.02)


@contextmanager
def running(*arguments: str, **options: object) -> Iterator["subprocess.Popen[str]"]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", *arguments]
    with subprocess.Popen(command, env=environment, text=True, **options) as process:  # type: ignore[call-overload]
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks at processes in /proc")
@pytest.mark.parametrize("ended_by", [signal.SIGKILL, signal.SIGTERM])
def test_workers_end_with_their_parent_and_let_its_pipes_go(tmp_path: Path, ended_by: signal.Signals) -> None:
    with running(JOBS, str(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        until(lambda: len(list(tmp_path.iterdir())) == 2)
        workers = [int(path.name) for path in tmp_path.iterdir()]
        assert all(map(is_running, workers))
        process.send_signal(ended_by)
        assert process.stdout is not None
        started = time.monotonic()
        process.stdout.read()  # comes to an end once nobody holds the pipe
        assert time.monotonic() - started < 20
        until(lambda: not any(map(is_running, workers)), seconds=20)


def test_a_worker_that_is_ended_from_outside_is_one_paragraph() -> None:
    with pytest.raises(CurationError, match="memory ran out") as refusal:
        list(map_in_workers(end_this_process, range(12), workers=2, preload="test_processes"))
    assert "\n" not in str(refusal.value)


def test_a_second_process_waits_and_says_for_whom(tmp_path: Path) -> None:
    write_own_folder(tmp_path / "ward", seed=41, masks=False)
    out = tmp_path / "out"
    code = "import sys; from medfsad_bench.cli import main; sys.argv = ['medfsad', *sys.argv[1:]]; main()"
    words = ("prepare", "--source", str(tmp_path / "ward"), "--out", str(out), "--size", "64")
    with ExitStack() as held:
        held.enter_context(sole_writer(out, Path("ward_b"), Silent()))
        with running(code, *words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as second:
            assert second.stderr is not None
            said = ""
            while "writes to" not in said:
                line = second.stderr.readline()
                assert line, said
                said += " " + line.strip()
            assert f"waiting for process {os.getpid()} on " in said
            assert "ward_b" in said
            assert not list(out.rglob("*.h5"))
            held.close()
            second.communicate(timeout=120)
    assert second.returncode == 0
    assert [verify_store(path) for path in out.rglob("*.h5")] == [[]]


def test_what_dead_processes_left_is_swept_and_what_living_ones_write_is_not(tmp_path: Path) -> None:
    write_own_folder(tmp_path / "ward", seed=41, masks=False)
    out = tmp_path / "out"
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    with whole(tmp_path / "any") as temporary:
        temporary.touch()
    machine = temporary.name.split(".")[-2].partition("-")[0]
    dead, living = f"{machine}-{process.pid}", f"{machine}-{os.getppid()}"
    for pid in (dead, living):
        for name in (
            f"own/.ward.{pid}.tmp.h5",
            f".staging/key/.ab.{pid}.tmp.safetensors",
            f".staging/.zip.{pid}.tmp/a",
        ):
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (out / name).touch()
    (out / ".staging" / "key" / "finished.safetensors").touch()
    prepare(tmp_path / "ward", PrepareOptions(out, size_px=64), watcher=Silent())
    left = {path.relative_to(out).as_posix() for path in out.rglob("*") if ".tmp" in path.name}
    assert left == {
        f"own/.ward.{living}.tmp.h5",
        f".staging/key/.ab.{living}.tmp.safetensors",
        f".staging/.zip.{living}.tmp",
    }
    assert (out / ".staging" / "key" / "finished.safetensors").exists()


def test_two_processes_that_write_one_folder_have_a_temporary_one_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with whole_folder(tmp_path / "a") as first:
        (first / "x").touch()
        monkeypatch.setattr(os, "getpid", os.getppid)
        with whole_folder(tmp_path / "a") as second:
            (second / "y").touch()
        assert (first / "x").exists()
        (tmp_path / "a" / "y").unlink()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["x"]


def test_names_that_only_look_temporary_are_kept(tmp_path: Path) -> None:
    names = ["a.1.tmp.h5", ".a.tmp", ".a.x1.tmp.h5", ".tmp", ".a.99999999.tmpx"]
    for name in names:
        (tmp_path / name).touch()
    with whole(tmp_path / "b") as temporary:
        temporary.touch()
        sweep(tmp_path)
        assert temporary.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*names, "b"])
