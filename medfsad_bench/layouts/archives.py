"""Zip files that nobody has unpacked: looked into by their listing, then unpacked as far as they are wanted.

A member's name may not lead out, a member may be no link, and all that an archive holds, the archives in it included,
may not be out of proportion to its size. What is unpacked appears whole or not at all, so that a killed `prepare`
starts it again.
"""

import lzma
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from medfsad_bench.errors import CurationError, DownloadError
from medfsad_bench.files import whole_folder, write_advice

MAX_RATIO = 200  # images hardly shrink; tables do, ten times or so
_SMALL = 64 * 2**20  # below which the ratio says nothing
_NESTED = 2  # archives in archives in archives are nobody's download
TABLES = frozenset({".csv", ".json", ".xml"})
_LARGEST_TABLE = 64 * 2**20  # that a layout reads; longer ones belong to something else
_FIRST_BYTES = 4096  # of files without a suffix, which are told by what they begin with
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA}
_METHOD_NAMES = {6: "implode", 9: "Deflate64", 93: "Zstandard", 95: "XZ", 98: "PPMd", 99: "AES encryption"}
MARKER = ".unpacked"
_NO_FILE = frozenset({"__MACOSX", "Thumbs.db", "desktop.ini"})


@dataclass(frozen=True, slots=True)
class _Entry:
    """A file of an archive, or of an archive in it."""

    parts: tuple[str, ...]  # of its path once it is unpacked
    information: zipfile.ZipInfo
    file: zipfile.ZipFile  # that holds it; open while its entries are gone through


def is_archive(path: Path) -> bool:
    """Whether the name is that of a zip file."""
    return path.suffix.lower() == ".zip" and not path.name.startswith(".") and path.is_file()


def outline(archive: Path, target: Path) -> None:
    """Write what an archive would unpack to without unpacking it: tables, and for any other file its name and size.

    The files of `target` are sparse and take no space. Files without a suffix keep their first bytes.

    Args:
        archive: A zip file.
        target: A new folder.

    Raises:
        DownloadError: If the archive is damaged, encrypted, out of proportion, or names a path that leads out.
        CurationError: If `target` can't be written.
    """
    with _mistakes_told(archive, target):
        target.mkdir(parents=True)
        made = {target}
        for entry in _entries(archive):
            path = _path_for(entry, target, made)
            size, suffix = entry.information.file_size, path.suffix.lower()
            with path.open("wb") as out:
                if suffix in TABLES and size <= _LARGEST_TABLE:
                    with entry.file.open(entry.information) as packed:
                        shutil.copyfileobj(packed, out)
                elif not suffix:
                    with entry.file.open(entry.information) as packed:
                        out.write(packed.read(_FIRST_BYTES))
                out.truncate(size)


def unpack(
    archive: Path,
    target: Path,
    *,
    inside: PurePosixPath,
    on_start: Callable[[str, int], None],
    on_done: Callable[[int], None],
) -> None:
    """Unpack an archive, and the archives in it, into the folder `target`; if it lies there already, do nothing.

    Args:
        archive: A zip file.
        target: The folder.
        inside: Only what lies below this folder of the archive's `outline`.
        on_start: Called with a label and the number of files.
        on_done: Called with the number of files unpacked since the last call.

    Raises:
        DownloadError: As `outline`, or if a file doesn't have its checksum.
        CurationError: If the disk is too full, or can't be written.
    """
    with _mistakes_told(archive, target):
        information = archive.stat()
        key = f"{archive.name} {information.st_size} {information.st_mtime_ns} {inside}"
        if (target / MARKER).is_file() and (target / MARKER).read_text("utf-8") == key:
            return
        shutil.rmtree(target, ignore_errors=True)
        wanted = inside.parts
        sizes = [entry.information.file_size for entry in _entries(archive) if entry.parts[: len(wanted)] == wanted]
        with whole_folder(target) as folder:
            _check_space(folder, sum(sizes))
            on_start(f"unpacking {archive.name}", len(sizes))
            made = {folder}
            for entry in _entries(archive):
                if entry.parts[: len(wanted)] == wanted:
                    with entry.file.open(entry.information) as packed, _path_for(entry, folder, made).open("wb") as out:
                        shutil.copyfileobj(packed, out, 1 << 20)  # stops at the size that was checked; checks the CRC
                    on_done(1)
            (folder / MARKER).write_text(key, "utf-8")


@contextmanager
def _mistakes_told(archive: Path, target: Path) -> Iterator[None]:
    """Turn what can go wrong with an archive into one paragraph each."""
    damaged = (zipfile.BadZipFile, EOFError, RuntimeError, ValueError, zlib.error, lzma.LZMAError, struct.error)
    try:
        yield
    except NotImplementedError as error:
        raise DownloadError(
            f"{archive.name}: is of a kind of zip file that can't be read here ({error}). Unpack it with another "
            "program (7-Zip, unzip) and name the folder instead of the zip file."
        ) from error
    except damaged as error:
        parts = sorted(path.name for path in archive.parent.glob(f"{archive.stem}.[zZ]01"))
        remedy = f"It goes on in {parts[0]}: unpack both with another program." if parts else "Get it again."
        raise DownloadError(f"{archive.name}: the zip file is damaged ({error}). {remedy}") from error
    except OSError as error:
        raise CurationError(
            f"{archive.name}: can't be unpacked to {target} ({error.strerror or error}). {write_advice(error)} Or "
            "unpack it yourself and name the folder instead of the zip file."
        ) from error


def _entries(archive: Path) -> Iterator[_Entry]:
    """All files of an archive in the order in which they lie there; names of folders and of other programs left out."""
    budget = max(_SMALL, MAX_RATIO * archive.stat().st_size)
    spent = 0
    with zipfile.ZipFile(archive) as file:
        for entry in _entries_of(file, archive.name, PurePosixPath(archive.name).stem, (), depth=0):
            spent += entry.information.file_size
            if spent > budget:
                raise DownloadError(
                    f"{archive.name}: unpacks to more than {budget / 2**30:.1f} GiB, {MAX_RATIO} times its size "
                    f"({archive.stat().st_size / 2**20:.1f} MiB). Expected images; if it's no bomb, unpack it yourself."
                )
            yield entry


def _entries_of(file: zipfile.ZipFile, name: str, stem: str, at: tuple[str, ...], *, depth: int) -> Iterator[_Entry]:
    members = _checked(file, name)
    # An archive that holds one folder of its own name isn't unpacked into that twice.
    wrapped = bool(members) and all(len(parts) > 1 and parts[0] == stem for _, parts in members)
    paths = {parts[int(wrapped) :]: member for member, parts in members}
    folders = {parts[:end] for parts in paths for end in range(1, len(parts))}
    if both := sorted(folders & paths.keys()):
        raise DownloadError(
            f"{name}: holds {'/'.join(both[0])!r} as a file and as a folder. Nothing was unpacked; unpack it yourself."
        )
    for parts, member in sorted(paths.items(), key=lambda item: item[1].header_offset):
        if parts[-1].lower().endswith(".zip") and depth < _NESTED:
            unpacked = (*parts[:-1], PurePosixPath(parts[-1]).stem)
            kept_parts = parts if unpacked in folders else unpacked  # a folder and an archive of its name are both kept
            with _opened(file, member, f"{name}: {member.filename}") as inner:
                yield from _entries_of(
                    inner, f"{name}: {member.filename}", unpacked[-1], at + kept_parts, depth=depth + 1
                )
        else:
            yield _Entry(at + parts, member, file)


@contextmanager
def _opened(file: zipfile.ZipFile, member: zipfile.ZipInfo, name: str) -> Iterator[zipfile.ZipFile]:
    with file.open(member) as stream:
        try:
            inner = zipfile.ZipFile(stream)
        except zipfile.BadZipFile as error:
            raise zipfile.BadZipFile(f"{name}: {error}") from error
        with inner:
            yield inner


def _checked(file: zipfile.ZipFile, name: str) -> list[tuple[zipfile.ZipInfo, tuple[str, ...]]]:
    """The files of an archive that count, with the parts of their paths."""
    members = []
    for member in file.infolist():
        parts = PurePosixPath(member.filename.replace("\\", "/")).parts
        if ".." in parts or (parts and (parts[0].startswith("/") or ":" in parts[0])):
            raise DownloadError(
                f"{name}: holds {member.filename!r}, which leads out of the folder. Nothing was unpacked; download it "
                "again from its publisher."
            )
        if member.is_dir():
            continue
        if not parts:
            raise DownloadError(
                f"{name}: holds a member named {member.filename!r}, which is no name of a file. Nothing was unpacked; "
                "unpack it yourself."
            )
        if stat.S_ISLNK(member.external_attr >> 16):
            raise DownloadError(f"{name}: {member.filename!r} is a link. Nothing was unpacked; unpack it yourself.")
        if member.flag_bits & 1:
            raise DownloadError(
                f"{name}: {member.filename!r} is encrypted. Unpack it yourself with its password, and name the folder "
                "instead of the zip file."
            )
        if member.compress_type not in _METHODS:
            method = _METHOD_NAMES.get(member.compress_type, "unknown")
            raise NotImplementedError(f"{member.filename!r} is compressed by method {member.compress_type}, {method}")
        if not parts[-1].startswith(".") and _NO_FILE.isdisjoint(parts):
            members.append((member, parts))
    return members


def _path_for(entry: _Entry, folder: Path, made: set[Path]) -> Path:
    path = folder.joinpath(*entry.parts)
    if path.parent not in made:
        path.parent.mkdir(parents=True, exist_ok=True)
        made.add(path.parent)
    return path


def _check_space(folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if size > free:
        raise OSError(28, f"needs {size / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free")
