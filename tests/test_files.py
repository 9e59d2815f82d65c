"""Files and folders appear whole or not at all."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from medfsad_bench.files import whole, whole_folder, write_text


def stop_half_way(path: Path) -> None:
    path.write_text("half")
    raise ValueError("stopped")


def test_a_file_stays_as_it_was_when_writing_the_next_one_fails(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "a.json"
    write_text(path, "first")
    with pytest.raises(ValueError, match="stopped"), whole(path) as temporary:
        stop_half_way(temporary)
    assert path.read_text() == "first"
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_takes_its_name_once_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "downloads"
    path.mkdir()
    with whole_folder(path) as temporary:
        (temporary / "a.txt").touch()
        assert list(path.iterdir()) == []
    assert [inside.name for inside in path.iterdir()] == ["a.txt"]
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_fails_is_removed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="stopped"), whole_folder(tmp_path / "a") as temporary:
        stop_half_way(temporary / "x.txt")
    assert list(tmp_path.iterdir()) == []


def test_what_dead_processes_left_is_swept_and_what_living_ones_write_stays(tmp_path: Path) -> None:
    """Written under the names that are lent to this process, made those of a dead, a living and a foreign one."""
    with whole(tmp_path / "elsewhere" / "a.json") as temporary:
        temporary.touch()
    name = temporary.name
    with subprocess.Popen(["true"]) as ended:
        pass
    dead = name.replace(f"-{os.getpid()}.", f"-{ended.pid}.")
    living = name.replace(f"-{os.getpid()}.", f"-{os.getppid()}.")
    foreign = re.sub("[0-9a-f]{8}-", "00000000-", dead)
    folder = tmp_path / "folder"
    for temporary_name in (dead, living, foreign, ".hidden.json"):
        (folder / temporary_name).parent.mkdir(exist_ok=True)
        (folder / temporary_name).touch()
    (folder / f"{dead.removesuffix('.json')}").mkdir()
    (folder / f"{dead.removesuffix('.json')}" / "inside.txt").touch()
    write_text(folder / "b.json", "{}")
    assert {path.name for path in folder.iterdir()} == {living, foreign, ".hidden.json", "b.json"}


def test_a_process_does_not_remove_the_unfinished_folder_of_another_that_writes_the_same_name(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from medfsad_bench.files import whole_folder\n"
    code += "with whole_folder(Path(sys.argv[1])) as folder: (folder / 'second.txt').touch()"

    def both_write() -> None:
        with whole_folder(tmp_path / "a") as unfinished:
            (unfinished / "first.txt").touch()
            subprocess.run([sys.executable, "-c", code, str(tmp_path / "a")], check=True)
            assert (unfinished / "first.txt").exists()

    with pytest.raises(OSError, match="not empty"):
        both_write()
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "second.txt"]


def test_a_folder_that_holds_something_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "downloads"
    path.mkdir()
    (path / "mine.txt").touch()
    with pytest.raises(OSError, match="not empty"), whole_folder(path) as temporary:
        (temporary / "a.txt").touch()
    assert [inside.name for inside in tmp_path.rglob("*.txt")] == ["mine.txt"]
