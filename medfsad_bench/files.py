"""Files and folders appear whole or not at all, whatever stops the process that writes them.

Tables are written so that a spreadsheet shows a cell and never runs it.
"""

import errno
import json
import os
import platform
import re
import shutil
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

# Of files and folders alike: a hidden name, the machine and the process that writes, the suffix if there is one.
_TEMPORARY = re.compile(r"\..*\.(?P<machine>[0-9a-f]{8})-(?P<process>\d{1,7})\.tmp(\.\w+)?")


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Lend a temporary path beside `path`; when the block ends well, the file that was written there takes its name.

    Otherwise what was written is removed and what stood at `path` stays. The temporary file is hidden, keeps the
    suffix, and bears machine and process, so that two writers of one name don't disturb each other, and what a killed
    one left is swept by the next process that writes into the folder. Folders are made.

    Args:
        path: Of the finished file.

    Raises:
        OSError: If it can't be written there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path.parent)
    temporary = path.with_name(f".{path.stem}.{_writer()}.tmp{path.suffix}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Lend a new hidden folder beside `path`; when the block ends well, it takes that name.

    Otherwise it's removed. What a killed process left is swept as that of `whole` is.

    Args:
        path: Of the finished folder; there may be an empty one.

    Raises:
        OSError: If it can't be written there, or `path` holds something.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path.parent)
    temporary = path.with_name(f".{path.name}.{_writer()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        if path.is_dir():
            path.rmdir()
        temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def sweep(folder: Path) -> None:
    """Remove the temporary files and folders, at any depth, of processes of this machine that are no more.

    What can't be removed is left.
    """
    for parent, folders, names in os.walk(folder):
        for name in filter(_is_abandoned, names):
            with suppress(OSError):
                Path(parent, name).unlink()
        for name in filter(_is_abandoned, folders):
            shutil.rmtree(Path(parent, name), ignore_errors=True)
        folders[:] = [name for name in folders if not _TEMPORARY.fullmatch(name)]


def write_advice(error: OSError, option: str = "--out") -> str:
    """What to do about a file or folder that couldn't be written: it depends on why.

    Args:
        error: Why.
        option: Of the command, which said where to write.

    >>> write_advice(OSError(28, "No space left on device"))
    'Free disk space or choose another --out.'
    >>> write_advice(OSError(30, "Read-only file system"))
    'Choose another --out, or get the right to write there.'
    """
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"Free disk space or choose another {option}."
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"Choose another {option}, or get the right to write there."
    if error.errno in (errno.EEXIST, errno.ENOTDIR, errno.EISDIR):
        return f"Expected a folder, or a name that is free; choose another {option}."
    if error.errno in (errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL):
        return f"The name is one that the file system doesn't take; choose another {option}."
    return f"Choose another {option}."


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file whole or not at all."""
    with whole(path) as temporary:
        temporary.write_text(text, "utf-8", newline="")


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file whole or not at all; numbers that JSON doesn't know are refused."""
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def shown_cell(text: str) -> str:
    """A text as a cell of a CSV file that no spreadsheet takes for a formula; `cell_text` gives it back.

    Source: OWASP, CSV injection.

    >>> shown_cell("=1+1"), shown_cell("case-01")
    ("'=1+1", 'case-01')
    """
    return f"'{text}" if re.match(r"'*[=+\-@\t\r]", text) else text


def cell_text(cell: str) -> str:
    """The text that `shown_cell` made a cell of.

    >>> cell_text("'=1+1"), cell_text("'quoted'")
    ('=1+1', "'quoted'")
    """
    return cell[1:] if re.match(r"'+[=+\-@\t\r]", cell) else cell


def _writer() -> str:
    """Machine and process, for a temporary name: whoever shares the folder can tell whose it is."""
    return f"{zlib.crc32(platform.node().encode()):08x}-{os.getpid()}"


@cache
def _sweep(folder: Path) -> None:
    """Remove what dead processes left in a folder, but not below it.

    Once per process and folder: a folder of many files is listed but once, and whoever was killed has another process
    go on for it. What lives, and what another machine writes, stays.
    """
    with suppress(OSError):  # what can't be listed or is somebody else's is no reason not to write
        for path in folder.iterdir():
            if not _is_abandoned(path.name):
                continue
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _is_abandoned(name: str) -> bool:
    """Whether a name is that of a temporary file or folder of a process of this machine that is no more."""
    match = _TEMPORARY.fullmatch(name)
    if match is None or os.name != "posix":  # elsewhere nobody can be asked without being disturbed
        return False
    return match["machine"] == _writer().partition("-")[0] and not _lives(int(match["process"]))


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # there, and somebody else's
        return True
    return True
