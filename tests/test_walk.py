"""Folders as people have them on disk: what can't be taken is a line, and the set goes on."""

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from conftest import Silent, write_own_folder
from hypothesis import given, settings
from hypothesis import strategies as st

from medfsad_bench.curation.stage import PrepareOptions, SetReport, prepare
from medfsad_bench.layouts.raw import files_below, leads_out, rasters
from medfsad_bench.layouts.walk import walk

NOBODY = 65534


@pytest.fixture
def ward(tmp_path: Path) -> Path:
    write_own_folder(tmp_path / "ward", seed=31, masks=True)
    return tmp_path / "ward"


def prepared(ward: Path, out: Path) -> SetReport:
    return prepare(ward, PrepareOptions(out, size_px=64), watcher=Silent())[0][0]


def clutter(ward: Path) -> dict[str, str]:
    """Put everything odd into a folder; returns what the report has to say of each."""
    folder = ward / "normal"
    (folder / "circle.png").symlink_to(folder / "circle.png")
    (folder / "again").symlink_to(ward)
    os.mkfifo(folder / "pipe.png")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(folder / "socket.png"))
    Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.png")).write_bytes((folder / "case00.png").read_bytes())
    (folder / ".DS_Store").touch()
    (folder / "._case00.png").touch()
    (folder / ".trashed-case.png").touch()
    return {
        "normal/circle.png": "a link that leads to itself",
        "normal/again": "a link to a folder",
        "normal/pipe.png": "a pipe, socket or device",
        "normal/socket.png": "a pipe, socket or device",
        "normal/caf\\udce9.png": "its name isn't UTF-8",
        "normal/.trashed-case.png": "hidden",
    }


def test_what_can_not_be_taken_is_a_line_each_and_changes_nothing_else(ward: Path, tmp_path: Path) -> None:
    clean = prepared(ward, tmp_path / "clean")
    expected = clutter(ward)
    report = prepared(ward, tmp_path / "out")
    left_out = {f["where"]: f["what"] for f in report.findings if f["fault"] == "left-out"}
    assert left_out.keys() == expected.keys()
    assert all(left_out[where].startswith(what) for where, what in expected.items())
    assert (report.content_digest, report.quarantined) == (clean.content_digest, {})


@contextmanager
def without_roots_rights() -> Iterator[None]:
    """No folder is closed to root."""
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)


def test_a_folder_that_nobody_may_look_into_is_a_line(
    ward: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clean = prepared(ward, tmp_path / "clean")
    with TemporaryDirectory() as name:  # pytest's own folders are closed to others
        folder = Path(name)
        folder.chmod(0o777)
        monkeypatch.setattr(tempfile, "tempdir", name)
        shutil.copytree(ward, folder / "ward")
        for closed in ("normal/closed", "closed", "masks/closed"):
            (folder / "ward" / closed).mkdir()
            (folder / "ward" / closed).chmod(0)
        with without_roots_rights():
            report = prepared(folder / "ward", folder / "out")
        left_out = {f["where"]: f["what"] for f in report.findings if f["fault"] == "left-out"}
    assert list(left_out) == ["closed", "masks/closed", "normal/closed"]
    assert all("can't be listed (Permission denied)" in what for what in left_out.values())
    assert report.content_digest == clean.content_digest


def test_a_link_to_itself_leads_nowhere_and_asking_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert not leads_out(tmp_path / "a", tmp_path)
    assert files_below(tmp_path) == rasters(tmp_path) == []
    assert [item.where for item in walk(tmp_path).unreachable] == ["a", "b"]


@given(st.dictionaries(st.text("ab.", min_size=1, max_size=3), st.integers(0, 3), max_size=6))
@settings(max_examples=25)
def test_every_entry_is_a_file_or_a_line_or_looked_into(
    tmp_path_factory: pytest.TempPathFactory, entries: dict[str, int]
) -> None:
    folder = tmp_path_factory.mktemp("walk")
    for name, kind in entries.items():
        path = folder / name
        if name in (".", ".."):
            continue
        if kind == 0:
            path.touch()
        elif kind == 1:
            path.mkdir()
        elif kind == 2:
            path.symlink_to(folder)
        else:
            os.mkfifo(path)
    looked = walk(folder)
    names = {path.name for path in looked.files} | {item.where for item in looked.unreachable}
    folders = {entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.is_symlink()}
    system = {name for name in os.listdir(folder) if name.startswith("._")}  # noqa: PTH208
    assert names | folders | system == {entry.name for entry in folder.iterdir()}
    assert not {path.name for path in looked.files} & {item.where for item in looked.unreachable}
