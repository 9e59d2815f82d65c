"""Zip files that nobody has unpacked yet: unpacked into the staging folder, never beside the download.

A member's name may not lead out, a member may be no link, and what is unpacked may not be out of all proportion to the
archive. Each archive appears unpacked whole or not at all, so that a killed `prepare` starts it again.
"""

import shutil
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from medfsad_bench.errors import CurationError, DownloadError
from medfsad_bench.files import whole_folder

MAX_RATIO = 200  # images hardly shrink; tables do, ten times or so
_SMALL = 64 * 2**20  # below which the ratio says nothing
_NESTED = 2  # archives in archives in archives are nobody's download
_TABLES = frozenset({".csv", ".json", ".xml"})
_MARKER = ".unpacked"


def archives(folder: Path) -> list[Path]:
    """Zip files directly in a folder."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix.lower() == ".zip" and path.is_file())


def unpacked(
    packed: Path, staging: Path, *, on_start: Callable[[str, int], None], on_done: Callable[[int], None]
) -> Path:
    """A folder below `staging` with all archives of `packed` unpacked, and copies of the tables that lie beside them.

    Args:
        packed: A zip file, or a folder with zip files.
        staging: Where to unpack.
        on_start: Called with a label and the number of members of an archive.
        on_done: Called with the number of members unpacked since the last call.

    Raises:
        DownloadError: If an archive is damaged, encrypted, out of proportion, or names a path that leads out.
        CurationError: If the disk is too full.
    """
    folder = staging / packed.stem
    if packed.is_file():
        _unpack(packed, folder, on_start, on_done, depth=0)
        return folder
    for archive in archives(packed):
        _unpack(archive, folder / archive.stem, on_start, on_done, depth=0)
    for table in sorted(path for path in packed.iterdir() if path.suffix.lower() in _TABLES and path.is_file()):
        shutil.copyfile(table, folder / table.name)
    return folder


def _unpack(
    archive: Path, target: Path, on_start: Callable[[str, int], None], on_done: Callable[[int], None], *, depth: int
) -> None:
    information = archive.stat()
    key = f"{archive.name} {information.st_size} {information.st_mtime_ns if depth == 0 else 0}"
    if (target / _MARKER).is_file() and (target / _MARKER).read_text("utf-8") == key:
        return
    shutil.rmtree(target, ignore_errors=True)
    try:
        with zipfile.ZipFile(archive) as file:
            members = _checked(archive, file)
            # An archive that holds one folder of its own name isn't unpacked into that twice.
            wrapped = all(len(parts := _parts(member)) > 1 and parts[0] == archive.stem for member in members)
            with whole_folder(target) as folder:
                _check_space(folder, sum(member.file_size for member in members))
                on_start(f"unpacking {archive.name}", len(members))
                for member in members:
                    path = folder.joinpath(*_parts(member)[int(wrapped) :])
                    path.parent.mkdir(parents=True, exist_ok=True)
                    with file.open(member) as packed, path.open("wb") as out:
                        shutil.copyfileobj(packed, out, 1 << 20)  # stops at the size that was checked; checks the CRC
                    on_done(1)
                for inner in archives(folder) if depth < _NESTED else ():
                    _unpack(inner, folder / inner.stem, on_start, on_done, depth=depth + 1)
                    inner.unlink()
                (folder / _MARKER).write_text(key, "utf-8")
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise DownloadError(f"{archive.name}: the zip file is damaged ({error}). Download it again.") from error
    except OSError as error:
        raise CurationError(
            f"{target.parent.name}/{target.name}: {archive.name} can't be unpacked ({error.strerror or error}). Free "
            "disk space, or unpack it yourself and name that folder with --source."
        ) from error


def _checked(archive: Path, file: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    members = [member for member in file.infolist() if not member.is_dir()]
    for member in members:
        parts = _parts(member)
        if ".." in parts or (parts and (parts[0].startswith("/") or ":" in parts[0])):
            raise DownloadError(
                f"{archive.name}: holds {member.filename!r}, which leads out of the folder. Nothing was unpacked; "
                "download it again from its publisher."
            )
        if stat.S_ISLNK(member.external_attr >> 16):
            raise DownloadError(
                f"{archive.name}: {member.filename!r} is a link. Nothing was unpacked; unpack it yourself."
            )
        if member.flag_bits & 1:
            raise DownloadError(
                f"{archive.name}: {member.filename!r} is encrypted. Unpack it yourself with its password."
            )
    size = sum(member.file_size for member in members)
    if size > _SMALL and size > MAX_RATIO * max(1, archive.stat().st_size):
        raise DownloadError(
            f"{archive.name}: {size / 2**30:.1f} GiB in {archive.stat().st_size / 2**20:.1f} MiB is more than "
            f"{MAX_RATIO} times its size. Expected images; if it's no bomb, unpack it yourself."
        )
    visible = (member for member in members if not _parts(member)[-1].startswith("."))
    return [member for member in visible if "__MACOSX" not in _parts(member)]


def _parts(member: zipfile.ZipInfo) -> tuple[str, ...]:
    return PurePosixPath(member.filename.replace("\\", "/")).parts


def _check_space(folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if size > free:
        raise OSError(28, f"needs {size / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free")
