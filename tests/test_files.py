"""Files and folders appear whole or not at all."""

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


def test_a_folder_that_fails_is_removed_and_so_is_what_a_killed_process_left(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="stopped"), whole_folder(tmp_path / "a") as temporary:
        stop_half_way(temporary / "x.txt")
    assert list(tmp_path.iterdir()) == []
    temporary.mkdir()
    (temporary / "left.txt").touch()
    with whole_folder(tmp_path / "a"):
        pass
    assert [path.name for path in tmp_path.rglob("*")] == ["a"]


def test_a_folder_that_holds_something_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "downloads"
    path.mkdir()
    (path / "mine.txt").touch()
    with pytest.raises(OSError, match="not empty"), whole_folder(path) as temporary:
        (temporary / "a.txt").touch()
    assert [inside.name for inside in tmp_path.rglob("*.txt")] == ["mine.txt"]
