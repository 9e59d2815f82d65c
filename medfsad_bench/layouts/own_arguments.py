"""A user's own images, told by arguments instead of by the names of folders and columns."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

from medfsad_bench.errors import DownloadError
from medfsad_bench.layouts.class_folders import OWN_FORMS
from medfsad_bench.layouts.discovery import Download
from medfsad_bench.layouts.own import class_images, table_images
from medfsad_bench.layouts.own_table import COLUMNS, WORDS
from medfsad_bench.layouts.parts import Part


@dataclass(frozen=True, slots=True)
class OwnImages:
    """Where a user's own images lie, as the arguments of `prepare` say.

    Attributes:
        normal: Folder of normal images.
        anomalous: Folder of anomalous ones.
        masks: Folder of masks.
        columns: `path=filename`, `label=diagnosis`, …: what the table calls our columns.
        labels: `normal=0,healthy`, …: the table's words for a class.
    """

    normal: Path | None = None
    anomalous: Path | None = None
    masks: Path | None = None
    columns: Sequence[str] = ()
    labels: Sequence[str] = ()

    @property
    def given(self) -> bool:
        """Whether any argument was used."""
        return bool(self.normal or self.anomalous or self.masks or self.columns or self.labels)


def own_download(own: OwnImages, source: Path | None) -> Download:
    """The download that the arguments describe.

    Args:
        own: The arguments.
        source: Folder of the table.

    Raises:
        DownloadError: If they don't describe one; the message shows the accepted forms.
    """
    if own.columns or own.labels:
        if own.normal or own.anomalous or own.masks:
            raise DownloadError(
                f"--column and --label tell of a table, --normal and --anomalous of folders. {OWN_FORMS}"
            )
        return _from_table(own, source)
    if source is not None:
        raise DownloadError(f"--source doesn't go with --normal and --anomalous, which say where to look. {OWN_FORMS}")
    return _from_folders(own)


def _from_folders(own: OwnImages) -> Download:
    if own.normal is None or own.anomalous is None:
        missing = "--anomalous" if own.normal else "--normal"
        raise DownloadError(f"{missing} is not given; a target needs normal and anomalous images. {OWN_FORMS}")
    folders = {"normal": own.normal, "anomalous": own.anomalous}
    for option, folder in {**folders, "masks": own.masks}.items():
        if folder is not None and not folder.is_dir():
            raise DownloadError(f"--{option} {folder}: is not a folder. {OWN_FORMS}")
    given = {**folders, "masks": own.masks} if own.masks else folders
    for (option, folder), (other, outer) in permutations(given.items(), 2):
        if folder.resolve().is_relative_to(outer.resolve()):
            raise DownloadError(
                f"--{option} {folder} lies in --{other} {outer}, so that its files would be taken for both. Expected "
                "folders side by side."
            )
    content = class_images(folders, own.masks)
    root = Path(os.path.commonpath([folder.resolve() for folder in folders.values()]))
    origin = root if own.normal.resolve().parent == root else own.normal
    return Download(
        "plain", root, content.images, content.findings, origin=origin, parts=tuple(map(Part, given.values()))
    )


def _from_table(own: OwnImages, source: Path | None) -> Download:
    if source is None or not source.is_dir():
        raise DownloadError(f"--column and --label need --source, the folder of the table. {OWN_FORMS}")
    columns, words = dict(COLUMNS), dict[str, str]()
    for name, value in _pairs("--column", own.columns, tuple(COLUMNS)):
        columns[name] = value
    for label, value in _pairs("--label", own.labels, ("normal", "anomalous")):
        for word in filter(None, (part.strip().lower() for part in value.split(","))):
            if words.setdefault(word, label) != label:
                raise DownloadError(f"--label: {word!r} is told to be normal and anomalous. Expected one of them.")
    if words and len(set(words.values())) == 1:  # whatever else the table says is the other class
        words["*"] = "anomalous" if "normal" in words.values() else "normal"
    content = table_images(source, columns, words or WORDS)
    if content is None:
        raise DownloadError(
            f"{source}: no CSV table in it has the columns {columns['path']} and {columns['label']}. {OWN_FORMS}"
        )
    there = [image for image in content.images if image.path.exists()]
    missing = tuple(image for image in content.images if not image.path.exists())
    return Download("table", source, there, content.findings, missing, origin=source)


def _pairs(option: str, pairs: Sequence[str], names: Sequence[str]) -> list[tuple[str, str]]:
    told = []
    for pair in pairs:
        name, equals, value = (part.strip() for part in pair.partition("="))
        if not equals or not value or name not in names:
            raise DownloadError(f"{option} {pair!r}: expected one of {', '.join(f'{name}=…' for name in names)}.")
        told.append((name, value))
    return told
