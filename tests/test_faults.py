"""Killed, out of disk, unreadable: a clear line, nothing lost, nothing half-written, nothing outside of --out."""

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import Silent, write_own_folder

from medfsad_bench.curation import load
from medfsad_bench.curation.stage import PrepareOptions, SetReport, prepare
from medfsad_bench.errors import MedfsadError
from medfsad_bench.readers import read_picture
from medfsad_bench.store import verify_store


def prepared(download: Path, out: Path, **options: object) -> SetReport:
    return prepare(download, PrepareOptions(out, **{"size_px": 64, **options}), watcher=Silent())[0][0]  # type: ignore[arg-type]


@pytest.fixture
def ward(tmp_path: Path) -> Path:
    write_own_folder(tmp_path / "ward", seed=21, masks=True)
    return tmp_path / "ward"


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """No file of this process grows beyond `size` bytes: what a full disk looks like to it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.slow
@pytest.mark.parametrize("staged", [1, 20])
def test_killed_at_any_moment_it_goes_on_and_ends_with_the_same_digests(
    ward: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, staged: int
) -> None:
    expected = prepared(ward, tmp_path / "whole")
    code = (
        "import sys, time; from pathlib import Path; from medfsad_bench.curation import load\n"
        "inner = load.read_picture\n"
        "def slow(*a, **k):\n    time.sleep(0.03); return inner(*a, **k)\n"
        "load.read_picture = slow\n"
        "from medfsad_bench.cli import main; main()"
    )
    out = tmp_path / "out"
    command = [sys.executable, "-c", code, "prepare", "--source", str(ward), "--out", str(out), "--size", "64"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and process.poll() is None:
            if len(list(out.rglob("[!.]*.safetensors"))) >= staged:
                break
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    assert [verify_store(path) for path in out.rglob("*.h5") if not path.name.startswith(".")] in ([], [[]])
    kept = len(list(out.rglob("[!.]*.safetensors")))
    reads: list[str] = []
    inner = read_picture

    def counted(path: Path, **options: object) -> object:
        reads.append(path.name)
        return inner(path, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(load, "read_picture", counted)
    report = prepared(ward, out)
    assert len(reads) == 34 - kept, "finished work is not done again"
    assert (report.membership_digest, report.content_digest) == (expected.membership_digest, expected.content_digest)
    assert not [
        path for path in out.rglob("*") if path.is_file() and (path.name.startswith(".") or ".staging" in path.parts)
    ]


@pytest.mark.parametrize("size", [500, 12_000, 60_000])
def test_a_full_disk_is_said_and_loses_nothing(ward: Path, tmp_path: Path, size: int) -> None:
    """Full while staging, while writing the file, and while drawing its contact sheet."""
    expected = prepared(ward, tmp_path / "whole")
    out = tmp_path / "out"
    with files_up_to(size), pytest.raises(MedfsadError, match=r"can't be written|doesn't verify"):
        prepared(ward, out)
    assert all(verify_store(path) == [] for path in out.rglob("*.h5"))
    report = prepared(ward, out)
    assert report.content_digest == expected.content_digest
    assert not report.quarantined


def test_a_file_that_can_not_be_read_is_one_quarantined_line(
    ward: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = load._file_digest

    def refused(image: load.RawImage) -> str:
        if image.path.name == "case05.png":
            raise PermissionError(13, "Permission denied")
        return inner(image)

    monkeypatch.setattr(load, "_file_digest", refused)
    report = prepared(ward, tmp_path / "out")
    assert report.quarantined == {"normal/case05": "case05.png: can't be read ([Errno 13] Permission denied)"}


def test_pipes_and_broken_links_do_not_block(ward: Path, tmp_path: Path) -> None:
    os.mkfifo(ward / "normal" / "pipe.png")
    (ward / "normal" / "broken.png").symlink_to(ward / "normal" / "gone.png")
    report = prepared(ward, tmp_path / "out", allow=frozenset({"smaller"}))
    assert list(report.quarantined) == ["normal/broken"]


def test_a_download_is_only_read_and_left_as_it_was(ward: Path, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in ward.rglob("*")}
    prepared(ward, tmp_path / "out")
    assert {path: path.stat().st_mtime_ns for path in ward.rglob("*")} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "ward"]


def test_a_torn_staged_file_is_read_again(ward: Path, tmp_path: Path) -> None:
    """What a power failure leaves: a name without its bytes."""
    with files_up_to(60_000), pytest.raises(MedfsadError):
        prepared(ward, tmp_path / "out")
    staged = sorted((tmp_path / "out").rglob("[!.]*.safetensors"))
    assert staged
    staged[0].write_bytes(staged[0].read_bytes()[:100])
    staged[-1].write_bytes(b"")
    assert prepared(ward, tmp_path / "out").content_digest == prepared(ward, tmp_path / "other").content_digest
