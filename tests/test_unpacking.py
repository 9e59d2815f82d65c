"""Zip files: unpacked whole or not at all, in linear time, within bounds, and each odd one called what it is."""

import os
import stat
import time
import zipfile
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from conftest import Silent, write_own_folder
from PIL import Image
from test_cli import Medfsad, medfsad  # noqa: F401 - a fixture
from test_layouts import picture, zipped

from medfsad_bench.errors import CurationError, DownloadError
from medfsad_bench.layouts import archives as zips
from medfsad_bench.layouts import recognise


def with_method(archive: Path, method: int) -> None:
    content = bytearray(archive.read_bytes())
    content[8], content[content.rfind(b"PK\x01\x02") + 10] = method, method
    archive.write_bytes(bytes(content))


def unpacked(archive: Path, target: Path) -> list[str]:
    zips.unpack(archive, target, inside=PurePosixPath(), on_start=Silent().start, on_done=Silent().advance)
    return sorted(path.relative_to(target).as_posix() for path in target.rglob("[!.]*") if path.is_file())


def test_4000_members_are_unpacked_in_seconds(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "many.zip", "w") as file:
        for number in range(4000):
            file.writestr(f"w/{number % 50}/{number}.png", b"x")
    start = time.monotonic()
    assert len(unpacked(tmp_path / "many.zip", tmp_path / "out")) == 4000
    assert time.monotonic() - start < 20


def test_a_folder_and_an_archive_of_its_name_are_both_kept(tmp_path: Path) -> None:
    picture(tmp_path / "x" / "a.png")
    inner = zipped(tmp_path / "x", tmp_path / "x.zip")
    with zipfile.ZipFile(tmp_path / "outer.zip", "w") as file:
        file.write(tmp_path / "x" / "a.png", "x/b.png")
        file.write(inner, "x.zip")
        file.write(inner, "y.zip")
    assert unpacked(tmp_path / "outer.zip", tmp_path / "out") == ["x.zip/a.png", "x/b.png", "y/a.png"]


def test_nested_archives_together_may_not_be_a_bomb(tmp_path: Path) -> None:
    """Each level is below the ratio, both together are far above it."""
    with zipfile.ZipFile(tmp_path / "inner.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.bin", bytes(1 << 20))
        file.writestr("b.bin", os.urandom(6000))
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=9) as file:
        for number in range(100):
            file.write(tmp_path / "inner.zip", f"{number}.zip")
    content = (tmp_path / "bomb.zip").stat().st_size
    assert zips._SMALL < 100 << 20
    if content * zips.MAX_RATIO < 100 << 20:
        pytest.fail("the test's archive is too small to show anything")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zips, "MAX_RATIO", (99 << 20) // content)
        with pytest.raises(DownloadError, match="times its size"):
            unpacked(tmp_path / "bomb.zip", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_broken_streams_are_called_damaged(tmp_path: Path, method: int) -> None:
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w", method) as file:
        file.writestr("a.png", np.random.default_rng(0).bytes(4000))
    content = bytearray(archive.read_bytes())
    content[60:1000] = bytes(255 - byte for byte in content[60:1000])
    archive.write_bytes(bytes(content))
    with pytest.raises((DownloadError, CurationError), match=r"a\.zip"):
        unpacked(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_odd_members_unknown_methods_and_split_archives_say_what_they_are(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "dot.zip", "w") as file:
        file.writestr(".", b"x")
    with zipfile.ZipFile(tmp_path / "both.zip", "w") as file:
        file.writestr("a", b"x")
        file.writestr("a/b.png", b"x")
    with zipfile.ZipFile(tmp_path / "method.zip", "w") as file:
        file.writestr("a.png", b"x")
    with_method(tmp_path / "method.zip", 9)
    (tmp_path / "split.zip").write_bytes(b"rest")
    (tmp_path / "split.z01").write_bytes(b"begin")
    messages = {
        "dot": "named '.'", "both": "as a file and as a folder", "method": "Deflate64", "split": r"split\.z01",
    }  # fmt: skip
    for name, message in messages.items():
        with pytest.raises(DownloadError, match=message) as raised:
            recognise(tmp_path / f"{name}.zip")
        assert ("damaged" in str(raised.value)) == (name == "split")


@pytest.mark.parametrize("command", ["prepare", "score"])
def test_an_archive_that_can_not_be_read_here_is_unpacked_and_its_folder_named_instead(
    medfsad: Medfsad,  # noqa: F811
    tmp_path: Path,
    command: str,
) -> None:
    """The advice suits both commands, of which only one has --source."""
    write_own_folder(tmp_path / "ward", seed=1, masks=False, normal=5, anomalous=2)
    zipped(tmp_path / "ward", tmp_path / "odd.zip")
    whole = (tmp_path / "odd.zip").read_bytes()

    def given(source: str) -> tuple[object, ...]:
        if command == "prepare":
            return "--source", source, "--size", 64, "--out", "data"
        return "pixel_distance", "--support", "ward/normal", "--images", source, "--size", 64

    encrypted = bytearray(whole)
    encrypted[whole.rfind(b"PK\x01\x02") + 8] |= 1
    for content, says in ((whole, "Deflate64"), (encrypted, "encrypted")):
        (tmp_path / "odd.zip").write_bytes(content)
        if says == "Deflate64":
            with_method(tmp_path / "odd.zip", 9)
        code, out, err = medfsad(command, *given("odd.zip"))
        told = " ".join((out + err).split())
        assert says in told
        assert "the folder instead of the zip file" in told
        assert "--source" not in told.partition("zip file")[0]
        assert code == 2
    assert medfsad(command, *given("ward/anomalous" if command == "score" else "ward"))[0] == 0


def test_an_out_that_can_not_be_written_is_one_paragraph(medfsad: Medfsad, tmp_path: Path) -> None:  # noqa: F811
    write_own_folder(tmp_path / "ward", seed=1, masks=False, normal=4, anomalous=2)
    (tmp_path / "file").touch()
    for out_dir in ("file", "file/below", "/proc/medfsad"):
        code, _, err = medfsad("prepare", "--source", "ward", "--out", out_dir)
        assert code == 2
        assert "can't be written" in " ".join(err.split())
        assert "disk space" not in err
    if os.geteuid():
        (tmp_path / "locked").mkdir(mode=stat.S_IRUSR | stat.S_IXUSR)
        assert medfsad("prepare", "--source", "ward", "--out", "locked")[0] == 2


def test_an_image_of_a_zip_is_listed_with_its_size_and_not_unpacked(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(tmp_path / "a.png")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.write(tmp_path / "a.png", "a.png")
        file.writestr("list.csv", "path,label\n")
    zips.outline(tmp_path / "a.zip", tmp_path / "outline")
    assert (tmp_path / "outline" / "a.png").stat().st_size == (tmp_path / "a.png").stat().st_size
    assert set((tmp_path / "outline" / "a.png").read_bytes()) == {0}
    assert (tmp_path / "outline" / "list.csv").read_text() == "path,label\n"
