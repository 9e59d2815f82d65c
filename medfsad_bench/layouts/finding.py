"""What a layout hands up: the images of a folder, and whatever lies there that isn't used as it is."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from medfsad_bench.layouts.raw import RawImage


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault; those that stop keep the set from being written unless the user allows it."""

    fault: str  # short name; what `--allow` takes
    where: str  # image or images, file or files
    what: str  # what was found and what to do
    stops: bool
    ids: tuple[str, ...] = ()  # the images, for the sheet of offenders


@dataclass(frozen=True, slots=True)
class Content:
    """What a layout makes of a folder."""

    images: list[RawImage]
    findings: tuple[Finding, ...] = ()  # files that are left out, tables not read, two readings that are both possible


def first_of(names: Sequence[str]) -> str:
    """The first name, and how many more there are.

    >>> first_of(["a", "b", "c"])
    'a and 2 more'
    """
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def within(path: Path, root: Path) -> str:
    """A file's path below `root` with forward slashes, for findings; its name where it lies elsewhere."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name


def first_files(
    paths: Iterable[Path], key: Callable[[Path], str], root: Path, *, stops: bool
) -> tuple[dict[str, Path], list[Finding]]:
    """Files by a name that a table or list knows them by; of several files of one name the first is taken, and said.

    Args:
        paths: In the order of their right.
        key: From a path to the name.
        root: Of the download, for messages.
        stops: Whether it stops the set, as nobody knows which file is meant.
    """
    files: dict[str, Path] = {}
    copies: list[tuple[Path, Path]] = []
    for path in paths:
        first = files.setdefault(key(path), path)
        if first != path:
            copies.append((first, path))
    if not copies:
        return files, []
    taken, left = copies[0]
    what = (
        f"{len(copies)} file(s) have the name of another, such as {within(left, root)}; {within(taken, root)} is "
        "taken. Move away the copies that aren't meant"
    )
    return files, [Finding("two-files", first_of([within(path, root) for _, path in copies]), what, stops)]
