"""Files and folders appear whole or not at all, whatever stops the process that writes them.

Tables are written so that a spreadsheet shows a cell and never runs it.
"""

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

_TEMPORARY = re.compile(r"\..+\.(\d+)\.tmp(?:\.[^.]*)?")  # with the number of the process that writes it


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
    temporary = _temporary(path.with_name(path.stem), path.suffix)
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Lend a new hidden folder beside `path`; when the block ends well, it takes that name.

    Otherwise it's removed. What a killed process left of it is removed by the next that writes the same folder; that
    of a living one is its own.

    Args:
        path: Of the finished folder; there may be an empty one.

    Raises:
        OSError: If it can't be written there, or `path` holds something.
    """
    temporary = _temporary(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.iterdir():
        if left == temporary or (left.name.startswith(f".{path.name}.") and _is_abandoned(left.name)):
            shutil.rmtree(left, ignore_errors=True)
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


def _temporary(path: Path, suffix: str = "") -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.tmp{suffix}")


def _is_abandoned(name: str) -> bool:
    """Whether a name is that of a temporary file whose process is no more."""
    match = _TEMPORARY.fullmatch(name)
    if match is None or os.name != "posix":  # elsewhere nobody can be asked without being disturbed
        return False
    try:
        os.kill(int(match[1]), 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:  # somebody else's
        return False
    return False
