"""Zip files that nobody has unpacked yet: unpacked into the staging folder, never beside the source.

A member's name may not lead out, a member may be no link, and what is unpacked may not be out of all proportion to the
archive. Each archive appears unpacked whole or not at all, so that a killed `prepare` starts it again.
"""

import shutil
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from medfsad_bench.errors import CurationError, DownloadError

MAX_RATIO = 200  # images hardly shrink; tables do, ten times or so
_FREE = 64 * 2**20  # below which the ratio says nothing
_NESTED = 2  # archives in archives in archives are nobody's download
_TABLES = frozenset({".csv", ".json", ".xml"})
_DONE = ".unpacked"


def archives(folder: Path) -> list[Path]:
    """Zip files directly in a folder."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix.lower() == ".zip" and path.is_file())


def unpacked(
    source: Path, staging: Path, *, on_start: Callable[[str, int], None], on_done: Callable[[int], None]
) -> Path:
    """A folder below `staging` with all archives of `source` unpacked, and copies of the tables that lie beside them.

    Args:
        source: A zip file, or a folder with zip files.
        staging: Where to unpack.
        on_start: Called with a label and the number of members of an archive.
        on_done: Called with the number of members unpacked since the last call.

    Raises:
        DownloadError: If an archive is damaged, encrypted, out of proportion, or names a path that leads out.
        CurationError: If the disk is too full.
    """
    found = [source] if source.is_file() else archives(source)
    view = staging / source.stem
    for archive in found:
        _unpack(archive, view if source.is_file() else view / archive.stem, on_start, on_done, depth=0)
    if source.is_dir():
        for table in sorted(path for path in source.iterdir() if path.suffix.lower() in _TABLES and path.is_file()):
            shutil.copyfile(table, view / table.name)
    return view


def _unpack(
    archive: Path, target: Path, on_start: Callable[[str, int], None], on_done: Callable[[int], None], *, depth: int
) -> None:
    information = archive.stat()
    key = f"{archive.name} {information.st_size} {information.st_mtime_ns if depth == 0 else 0}"
    if (target / _DONE).is_file() and (target / _DONE).read_text("utf-8") == key:
        return
    shutil.rmtree(target, ignore_errors=True)
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with zipfile.ZipFile(archive) as file:
            members = _checked(archive, file)
            partial.mkdir(parents=True)
            _check_space(partial, sum(member.file_size for member in members))
            on_start(f"unpacking {archive.name}", len(members))
            for member in members:
                _extract(file, member, partial / _place(member, members, archive.stem))
                on_done(1)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise DownloadError(f"{archive.name}: the zip file is damaged ({error}). Download it again.") from error
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise CurationError(
            f"{staging_name(target)}: {archive.name} can't be unpacked ({error.strerror or error}). Free disk "
            "space, or unpack it yourself and name that folder with --source."
        ) from error
    if depth < _NESTED:
        for inner in archives(partial):
            _unpack(inner, partial / inner.stem, on_start, on_done, depth=depth + 1)
            inner.unlink()
    (partial / _DONE).write_text(key, "utf-8")
    partial.replace(target)


def staging_name(path: Path) -> str:
    """A place in the staging folder, for messages."""
    return f"{path.parent.name}/{path.name}"


def _checked(archive: Path, file: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    members = [member for member in file.infolist() if not member.is_dir()]
    for member in members:
        path = PurePosixPath(member.filename.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or (path.parts and ":" in path.parts[0]):
            raise DownloadError(
                f"{archive.name}: holds {member.filename!r}, which leads out of the folder. Nothing was unpacked; "
                "download it again from its source."
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
    if size > _FREE and size > MAX_RATIO * max(1, archive.stat().st_size):
        raise DownloadError(
            f"{archive.name}: {size / 2**30:.1f} GiB in {archive.stat().st_size / 2**20:.1f} MiB is more than "
            f"{MAX_RATIO} times its size. Expected images; if it's no bomb, unpack it yourself."
        )
    return [member for member in members if not _rubbish(member)]


def _rubbish(member: zipfile.ZipInfo) -> bool:
    parts = PurePosixPath(member.filename).parts
    return "__MACOSX" in parts or parts[-1].startswith(".")


def _place(member: zipfile.ZipInfo, members: list[zipfile.ZipInfo], name: str) -> PurePosixPath:
    """Where a member goes; an archive that holds one folder of its own name isn't unpacked into that twice."""
    parts = PurePosixPath(member.filename.replace("\\", "/")).parts
    own = all(PurePosixPath(other.filename.replace("\\", "/")).parts[0] == name for other in members)
    return PurePosixPath(*parts[1:]) if own and len(parts) > 1 else PurePosixPath(*parts)


def _extract(file: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with file.open(member) as packed, target.open("wb") as out:
        shutil.copyfileobj(packed, out, 1 << 20)  # zipfile stops at the size that was checked, and checks the CRC


def _check_space(folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if size > free:
        raise OSError(28, f"needs {size / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free")
