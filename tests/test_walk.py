"""Folders as people have them on disk: what can't be taken is a line, and the set goes on."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

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


def test_a_folder_that_nobody_may_look_into_is_a_line(ward: Path, tmp_path: Path) -> None:
    """In a process without root's rights, to which no folder is closed."""
    for closed in (ward / "normal" / "closed", ward / "closed", ward / "masks" / "closed"):
        closed.mkdir()
        closed.chmod(0)
    out = tmp_path / "out"
    out.mkdir()
    code = (
        "import json, sys; from conftest import Silent; from pathlib import Path\n"
        "from medfsad_bench.curation.stage import PrepareOptions, prepare\n"
        "out = PrepareOptions(Path(sys.argv[2]), size_px=64)\n"
        "report, = prepare(Path(sys.argv[1]), out, watcher=Silent())[0]\n"
        "print(json.dumps([[f['where'], f['what']] for f in report.findings if f['fault'] == 'left-out']))"
    )
    as_root = os.getuid() == 0
    for path in [*tmp_path.parents, tmp_path] if as_root else []:
        if path.is_relative_to(tmp_path.parents[2]) and path.owner() == "root":
            path.chmod(0o755)
    out.chmod(0o777)
    rights: dict[str, Any] = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if as_root else {}
    done = subprocess.run(
        [sys.executable, "-c", code, str(ward), str(out)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "HOME": str(out)},
        **rights,
    )
    if as_root and not done.stdout and "Permission denied" in done.stderr:
        pytest.skip("this Python can't be run by another user")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("can't be listed (Permission denied)") == 3


def test_a_link_to_itself_leads_nowhere_and_asking_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert not leads_out(tmp_path / "a", tmp_path)
    assert files_below(tmp_path) == rasters(tmp_path) == []
    assert [item.where for item in walk(tmp_path).unreachable] == ["a", "b"]


def test_folders_nested_deeper_than_the_stack_are_looked_through(tmp_path: Path) -> None:
    folder = tmp_path
    for _ in range(1500):
        folder = folder / "d"
    try:
        folder.mkdir(parents=True)
    except OSError:
        pytest.skip("the file system takes no such path")
    (folder / "x.png").touch()
    assert walk(tmp_path).files == [folder / "x.png"]


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
