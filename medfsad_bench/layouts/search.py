"""Looking through a folder for downloads, at any depth, unpacked or in zip files, whole or in parts.

a folder of a known layout           taken as it is, not looked into any further
else its subfolders and zip files    each by itself; of zip files only the listing is read
then these together                  tables beside zip files, parts of one download (`…_part_1/`, `…-001.zip`)
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from medfsad_bench.errors import DownloadError, MedfsadError
from medfsad_bench.layouts import slides
from medfsad_bench.layouts.archives import TABLES, is_archive, outline
from medfsad_bench.layouts.discovery import Download, LeftAlone, layout_of, real_files
from medfsad_bench.layouts.incomplete import hint, what_is_missing
from medfsad_bench.layouts.parts import Part, joined, part_families
from medfsad_bench.layouts.raw import leads_out

_OTHER_ARCHIVES = (".rar", ".7z", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_COPY_MARK = re.compile(r" ?\(\d+\)$")
_NO_FOLDER = frozenset({"__MACOSX", "node_modules"})


def recognise(folder: Path) -> tuple[list[Download], list[LeftAlone]]:
    """Find raw downloads in `folder`, at any depth and in the zip files there; nothing is unpacked.

    Links to folders are left alone. Of several copies of one download the most complete is taken.

    Args:
        folder: The one that the user named, or a zip file.

    Returns:
        The downloads, and what isn't any: the topmost folders without one. If `folder` itself is of a layout, only
        that is returned.

    Raises:
        DownloadError: If it is neither, or if there is nothing to take and something is damaged.
    """
    if not folder.is_dir() and not is_archive(folder):
        raise DownloadError(
            f"{folder} is not a folder or a zip file. Expected a raw download, or a folder that holds several; "
            "`medfsad datasets` says what they look like and where to get them."
        )
    with TemporaryDirectory(prefix="medfsad-") as scratch:
        search = _Search(folder, Path(scratch))
        downloads, left_alone = search.into(folder) if folder.is_dir() else search.into_archive(folder)
    faults = [item.reason for item in left_alone if item.kind == "failed"]
    if faults and not downloads:
        raise DownloadError(" ".join(faults))
    return _without_copies(downloads, left_alone)


class _Search:
    """One look through the folder that a user named; `scratch` holds outlines of archives while it lasts."""

    def __init__(self, top: Path, scratch: Path) -> None:
        self._top = top
        self._scratch = scratch
        self._outlines: dict[Path, Path] = {}  # of archives that could be listed
        self._numbers = count()  # of what is put together

    def into(self, folder: Path) -> tuple[list[Download], list[LeftAlone]]:
        """Downloads in a folder, and what else lies there."""
        downloads, left_alone = self._below(folder)
        if folder == self._top and not any(download.root == folder for download in downloads):
            return self._with_slides(folder, downloads, left_alone)
        if downloads or folder in (self._top, *self._outlines.values()):
            return downloads, left_alone
        told = [item for item in left_alone if item.kind != "unknown"]
        return [], told or [LeftAlone(self._shown(folder), hint(folder))]

    def into_archive(self, archive: Path) -> tuple[list[Download], list[LeftAlone]]:
        """Downloads in a zip file, by its listing."""
        folder = self._scratch / str(len(self._outlines)) / archive.stem
        try:
            outline(archive, folder)
        except MedfsadError as error:
            return [], [LeftAlone(self._shown(archive), str(error), "failed")]
        self._outlines[archive] = folder
        downloads, left_alone = self.into(folder)
        if not downloads and not any(item.kind != "unknown" for item in left_alone):
            return [], [LeftAlone(self._shown(archive), hint(folder))]
        parts = (Part(archive),)
        return [
            replace(d, parts=parts, inside=_relative(d.root, folder), origin=self._shown(d.root)) for d in downloads
        ], left_alone

    def _below(self, folder: Path) -> tuple[list[Download], list[LeftAlone]]:
        left_alone: list[LeftAlone] = []
        download: Download | None = None
        try:
            download = layout_of(folder)
            children = sorted(path for path in folder.iterdir() if _is_visible(path))
        except DownloadError as error:
            left_alone.append(LeftAlone(self._shown(folder), str(error), "failed"))
            children = sorted(path for path in folder.iterdir() if _is_visible(path))
        except OSError as error:
            reason = f"{self._shown(folder)}: can't be listed ({error.strerror}). Check its permissions."
            return [], [LeftAlone(self._shown(folder), reason, "failed")]
        if download and not (download.missing and any(map(is_archive, children))):
            return ([download], []) if download.images else ([], [_names_only(download)])
        downloads = [download] if download and download.images else []
        for child in children:
            more, others = self._child(child)
            downloads, left_alone = downloads + more, left_alone + others
        for parts in _candidates(children, self._outlines):
            downloads, left_alone = self._together(folder, parts, downloads, left_alone)
        if not downloads and (incomplete := what_is_missing(folder)):
            layout, missing = incomplete
            return [], [*left_alone, LeftAlone(self._shown(folder), missing, "incomplete", layout)]
        return downloads, left_alone

    def _child(self, child: Path) -> tuple[list[Download], list[LeftAlone]]:
        if child.is_dir() and child.is_symlink():
            reason = "a link out of the folder" if leads_out(child, self._top) else "a link back into the folder"
            return [], [LeftAlone(child, f"{reason}; name its target with --source")]
        if child.is_dir():
            return self.into(child)
        if is_archive(child):
            return self.into_archive(child)
        if child.name.lower().endswith(_OTHER_ARCHIVES):
            return [], [LeftAlone(self._shown(child), "an archive that isn't looked into; unpack it yourself")]
        return [], []

    def _together(
        self, folder: Path, parts: Sequence[Part], downloads: list[Download], left_alone: list[LeftAlone]
    ) -> tuple[list[Download], list[LeftAlone]]:
        """Take parts as one download where that gives more images than any of them by itself."""
        scratch = self._scratch / f"together{next(self._numbers)}"
        whole = scratch / folder.name
        if not joined([(self._outlines.get(part.path, part.path), part) for part in parts], whole):
            return downloads, left_alone
        for as_whole in _Search(whole, scratch / "inner").into(whole)[0]:
            used = [part for part in parts if _uses(as_whole, part, whole)]
            apart = [d for d in downloads if d.origin == folder or any(_within(d.origin, part.path) for part in used)]
            most = max((len(d.images) for d in apart if d.layout == as_whole.layout), default=0)
            own_parts = as_whole.is_own and not any(part.at for part in parts)  # ward_1 and ward_2 are two wards
            if len(as_whole.images) <= most or own_parts or as_whole.packed:
                continue
            joined_download = replace(
                as_whole,
                root=folder if as_whole.root == whole else as_whole.root,
                images=[real_files(image) for image in as_whole.images],
                origin=folder,
                parts=tuple(used),
                inside=_relative(as_whole.root, whole),
            )
            downloads = [*(d for d in downloads if d not in apart), joined_download]
            left_alone = [item for item in left_alone if not any(_within(item.path, part.path) for part in used)]
        return downloads, left_alone

    def _with_slides(
        self, folder: Path, downloads: list[Download], left_alone: list[LeftAlone]
    ) -> tuple[list[Download], list[LeftAlone]]:
        """Whole slides lie at any depth, beside or below their annotations."""
        content = slides.camelyon_slides(folder)
        if content is None:
            return downloads, left_alone
        images = [image for image in content.images if not any(_within(image.path, d.origin) for d in downloads)]
        if not images:
            return downloads, left_alone
        paths = {image.path for image in images}
        left_alone = [item for item in left_alone if not any(_within(path, item.path) for path in paths)]
        return [*downloads, Download("camelyon_slides", folder, images, content.findings, origin=folder)], left_alone

    def _shown(self, path: Path) -> Path:
        """The path as the user knows it: of an outline, the archive's."""
        for archive, folder in self._outlines.items():
            if path.is_relative_to(folder):
                return self._shown(archive) / path.relative_to(folder)
        return path


def _candidates(children: Sequence[Path], outlines: dict[Path, Path]) -> Iterator[list[Part]]:
    """What may be one download: tables and the archives beside them, and parts by their names."""
    lists = [child for child in children if child.suffix.lower() in TABLES and child.is_file()]
    packed = [child for child in children if child in outlines]
    families = part_families([child for child in children if child in packed or _is_folder(child)])
    if lists and packed:
        beside = {path for family in families for path in family if any(other in packed for other in family)}
        content = [*packed, *(path for path in sorted(beside) if path.is_dir())]
        stems = [path.stem if path in packed else path.name for path in content]
        if len(set(stems)) == len(stems):
            yield [*(Part(path) for path in lists), *map(Part, content, stems)]
    for family in families:
        yield [Part(path) for path in family]


def _uses(download: Download, part: Part, whole: Path) -> bool:
    """Whether a download that was put together in `whole` takes files of a part."""
    return not part.at or any(_within(image.path, whole / part.at) for image in download.images)


def _without_copies(downloads: list[Download], left_alone: list[LeftAlone]) -> tuple[list[Download], list[LeftAlone]]:
    """Of several downloads of one benchmark's layout the most complete; of own folders all but marked copies."""
    alike: dict[object, list[Download]] = defaultdict(list)
    for download in downloads:
        alike[_own_key(download) if download.is_own else download.layout].append(download)
    copies = []
    for same in alike.values():
        best, *others = sorted(same, key=_completeness)
        for other in others:
            reason = f"{other.layout} again; taken is {best.origin}, which holds {len(best.images):,} images"
            copies.append((other, LeftAlone(other.origin, reason, "copy", other.layout)))
    taken = [download for download in downloads if not any(download is copy for copy, _ in copies)]
    return taken, [*left_alone, *(item for _, item in copies)]


def _own_key(download: Download) -> object:
    """Equal for a folder, its `(1)` copy and a zip file of it beside it, if they hold the same files."""
    files = tuple(sorted(image.id for image in download.images)), download.size
    origin = download.origin
    return origin.parent, _COPY_MARK.sub("", origin.stem if origin.suffix.lower() == ".zip" else origin.name), files


def _completeness(download: Download) -> tuple[int, bool, bool, int, str]:
    marked = any(_COPY_MARK.search(Path(part).stem) for part in download.origin.parts)
    return -len(download.images), download.packed, marked, len(download.origin.parts), str(download.origin)


def _names_only(download: Download) -> LeftAlone:
    first = download.missing[0].path.name
    reason = f"its table names {len(download.missing):,} images, and none of their files is there (first {first})"
    return LeftAlone(download.origin, reason, "incomplete", download.layout)


def _is_visible(path: Path) -> bool:
    return not path.name.startswith(".") and path.name not in _NO_FOLDER


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _within(path: Path, folder: Path) -> bool:
    return path.is_relative_to(folder)


def _relative(path: Path, folder: Path) -> PurePosixPath:
    return PurePosixPath(path.relative_to(folder).as_posix())
