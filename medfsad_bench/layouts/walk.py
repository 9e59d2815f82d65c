"""The one way to list a folder as somebody has it on disk: nothing in it stops, blocks or leads in a circle.

What can't be taken is named with the reason, so that it is a line in the report and never just missing.
"""

import os
import stat
from dataclasses import dataclass
from pathlib import Path

_SYSTEM_FILES = (".ds_store", "._", "@eadir")  # how names of files begin that systems make for themselves


@dataclass(frozen=True, slots=True)
class Unreachable:
    """Something in a folder that can't be taken.

    Attributes:
        where: Its path below the folder, readable whatever bytes its name holds.
        what: What it is, and what to do.
    """

    where: str
    what: str


@dataclass(frozen=True, slots=True)
class Walk:
    """What lies in a folder.

    Attributes:
        files: Sorted; links to files and links that lead nowhere are among them, as somebody may miss these.
        unreachable: In the order of their names.
    """

    files: list[Path]
    unreachable: list[Unreachable]


def walk(folder: Path, *, depth: int | None = None) -> Walk:
    """Files of a folder, hidden ones aside, and what can't be taken.

    Args:
        folder: Where to begin; nothing lies in one that isn't there.
        depth: Levels to look at: 1 takes the files directly in it; None takes all.
    """
    files: list[Path] = []
    unreachable: list[Unreachable] = []
    folders = [(folder, depth)]
    while folders:  # no recursion: a folder may be nested deeper than Python's stack
        parent, levels = folders.pop()
        try:
            with os.scandir(parent) as entries:
                inside = list(entries)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            what = f"a folder that can't be listed ({error.strerror}). Check its permissions; nothing in it was taken"
            unreachable.append(Unreachable(_below(parent, folder), what))
            continue
        for entry in inside:
            path = Path(entry.path)
            if what := _why_not(entry):
                unreachable.append(Unreachable(_below(path, folder), what))
            elif entry.name.startswith("."):
                continue  # what a system made for itself
            elif not entry.is_dir():
                files.append(path)
            elif levels is None or levels > 1:
                folders.append((path, levels and levels - 1))
    return Walk(sorted(files), sorted(unreachable, key=lambda item: item.where))


def readable(name: str) -> str:
    r"""A name that can be shown and stored, whatever bytes it holds on the disk.

    >>> readable("caf\udce9.png")
    'caf\\udce9.png'
    """
    return name.encode("utf-8", "backslashreplace").decode()


def is_storable(name: str) -> bool:
    """Whether reports and prepared files can hold a name as it is."""
    return readable(name) == name


def _why_not(entry: os.DirEntry[str]) -> str:
    """Why an entry is neither a file nor a folder to look into; empty if it is one, or nobody misses it."""
    if entry.name.startswith("."):
        if entry.name.lower().startswith(_SYSTEM_FILES):
            return ""
        return "hidden, as its name begins with a dot: not taken. Rename it if it belongs to the images"
    if not is_storable(entry.name):
        return "its name isn't UTF-8, so that reports and prepared files can't hold it: not taken. Rename it"
    try:
        mode = entry.stat().st_mode
    except FileNotFoundError:
        return ""  # a link that leads nowhere: reading it will say so
    except OSError as error:
        what = "a link that leads to itself" if entry.is_symlink() else f"can't be looked at ({error.strerror})"
        return f"{what}: not taken. Put the file itself there"
    if stat.S_ISDIR(mode):
        return "a link to a folder: not followed. Put the folder itself there" if entry.is_symlink() else ""
    return "" if stat.S_ISREG(mode) else "a pipe, socket or device: not read. Remove it, or put a file there"


def _below(path: Path, root: Path) -> str:
    return readable(path.relative_to(root).as_posix() if path != root else path.name)
