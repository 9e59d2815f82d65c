"""Files and folders appear whole or not at all, whatever stops the process that writes them."""

import errno
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Lend a temporary path beside `path`; when the block ends well, the file that was written there takes its name.

    Otherwise what was written is removed and what stood at `path` stays. The temporary file is hidden, keeps the
    suffix, and bears the process id, so that two writers of one name don't disturb each other. Folders are made.

    Args:
        path: Of the finished file.

    Raises:
        OSError: If it can't be written there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Lend a new hidden folder beside `path`; when the block ends well, it takes that name.

    Otherwise it's removed. What a killed process left of it is removed by the next that writes the same folder.

    Args:
        path: Of the finished folder; there may be an empty one.

    Raises:
        OSError: If it can't be written there, or `path` holds something.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        if path.is_dir():
            path.rmdir()
        temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_advice(error: OSError) -> str:
    """What to do about a file or folder that couldn't be written: it depends on why.

    >>> write_advice(OSError(28, "No space left on device"))
    'Free disk space or choose another --out.'
    >>> write_advice(OSError(30, "Read-only file system"))
    'Choose another --out, or get the right to write there.'
    """
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "Free disk space or choose another --out."
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "Choose another --out, or get the right to write there."
    if error.errno in (errno.EEXIST, errno.ENOTDIR, errno.EISDIR):
        return "Expected a folder, or a name that is free; choose another --out."
    if error.errno in (errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL):
        return "The name is one that the file system doesn't take; choose another --out."
    return "Choose another --out."


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file whole or not at all."""
    with whole(path) as temporary:
        temporary.write_text(text, "utf-8", newline="")


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file whole or not at all; numbers that JSON doesn't know are refused."""
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
