"""Downloads that come in several parts, some of them zip files: which parts belong together, and putting them there."""

import hashlib
import os
import re
import shutil
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from medfsad_bench.layouts.archives import is_archive, unpack
from medfsad_bench.layouts.raw import files_below

_PART = re.compile(r"^(.*?)[-_ .]*(?:part|pt|chunk|vol|volume|disc|disk)[-_ .]*\d+$", re.IGNORECASE)
_NUMBERED = re.compile(r"^(.+?)[-_ .]*\d+$")  # of zip files alone: folders are numbered for other reasons


@dataclass(frozen=True, slots=True)
class Part:
    """A folder, a table or a zip file that a download is made from.

    Attributes:
        path: Where it lies.
        at: Folder of the whole in which its content stands; empty for the whole itself.
    """

    path: Path
    at: str = ""


def part_families(paths: Sequence[Path]) -> list[list[Path]]:
    """Folders and zip files whose names say that they are parts of one thing, two or more at a time.

    >>> part_families([Path("LAG_part_1"), Path("LAG_part_2"), Path("ward_1"), Path("ward_2")])
    [[PosixPath('LAG_part_1'), PosixPath('LAG_part_2')]]
    """
    families: dict[str, list[Path]] = defaultdict(list)
    for path in paths:
        packed = path.suffix.lower() == ".zip"
        name = path.stem if packed else path.name
        if match := _PART.match(name) or (_NUMBERED.match(name) if packed else None):
            families[match[1].lower()].append(path)
    return [family for family in families.values() if len(family) > 1]


def joined(contents: Sequence[tuple[Path, Part]], folder: Path) -> bool:
    """Fill a new folder with the files of several parts.

    Tables are copied, what was unpacked or outlined is linked hard, and files of a folder of the user's get links that
    `medfsad_bench.layouts.discovery.real_files` follows.

    Args:
        contents: Parts, each with the folder or file in which its content lies by now.
        folder: The new folder.

    Returns:
        Whether they go together: not if two of them hold different files of one name.
    """
    sizes: dict[Path, int] = {}
    for content, part in contents:
        for file in [content] if content.is_file() else files_below(content):
            name = Path(part.at, file.name if content.is_file() else file.relative_to(content))
            size = file.stat().st_size if file.is_file() else 0
            if sizes.setdefault(name, size) != size:
                return False
            target = folder / name
            if target.is_symlink() or target.exists():
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            if content.is_file():
                shutil.copyfile(file, target)
            elif content == part.path:
                target.symlink_to(file.absolute())
            else:
                _link(file, target)
    return True


def put_together(
    parts: Sequence[Part],
    inside: PurePosixPath,
    staging: Path,
    on_start: Callable[[str, int], None],
    on_done: Callable[[int], None],
) -> tuple[Path, tuple[Part, ...]]:
    """Unpack the parts that are zip files, and lay links to all parts into one folder if there are several.

    Args:
        parts: What the download is made from.
        inside: Where in it the download lies; of one zip file nothing else is unpacked.
        staging: Folder for it all.
        on_start: Called with a label and the number of files of a zip file.
        on_done: Called with the number of files unpacked since the last call.

    Returns:
        The download's folder, and all folders in which its files lie.

    Raises:
        DownloadError: If a zip file is damaged.
        CurationError: If the disk is too full, or can't be written.
    """
    only = inside if len(parts) == 1 else PurePosixPath()
    contents = []
    for part in parts:
        content = part.path
        if is_archive(part.path):
            key = hashlib.sha256(f"{part.path.resolve()} {only}".encode("utf-8", "surrogateescape")).hexdigest()
            content = staging / key[:12] / part.path.stem
            unpack(part.path, content, inside=only, on_start=on_start, on_done=on_done)
        contents.append((content, part))
    if len(parts) == 1:
        root = contents[0][0] / inside
        return root, (Part(root),)
    whole = staging / "together" / parts[0].path.parent.name
    shutil.rmtree(whole, ignore_errors=True)
    joined(contents, whole)
    return whole / inside, (Part(whole), *(part for content, part in contents if content == part.path))


def _link(file: Path, target: Path) -> None:
    try:
        os.link(file, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(file, target)
