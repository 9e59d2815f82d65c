"""A user's own images: a folder per class, or a table; rasters, DICOM by patient, NIfTI with masks.

files → what each is (by content) → masks (by names) → patients (table, headers, folders) → images

What lies there and isn't used as it is becomes a finding; a doubt about a mask stops the set.
"""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from medfsad_bench.errors import DownloadError
from medfsad_bench.layouts.class_folders import class_folders
from medfsad_bench.layouts.finding import Content, Finding, first_of, within
from medfsad_bench.layouts.headers import Header, kind_of, page_count, read_ids
from medfsad_bench.layouts.masks import FAULT, Located, is_mask_folder, masks_beside, match_masks, unified
from medfsad_bench.layouts.own_table import COLUMNS, WORDS, Described, described_files, said_by, tables_in, united
from medfsad_bench.layouts.patients import Source, patients_by_file
from medfsad_bench.layouts.raw import RawImage, files_below, is_volume, stem
from medfsad_bench.layouts.table_file import read_table
from medfsad_bench.layouts.unused import unused_files


def plain(root: Path) -> Content | None:
    """Folders `normal/` and `anomalous/` or their synonyms, masks beside or in them, and a table of patients."""
    folders = class_folders(root)
    if len(folders) < 2:
        return None
    content = class_images(folders)
    others = (path for path in root.iterdir() if path.is_dir() and path not in folders.values())
    elsewhere = (path for path in others if not is_mask_folder(path.name) and not path.name.startswith("."))
    unused = unused_files((path for folder in elsewhere for path in files_below(folder)), root)
    return Content(content.images, (*content.findings, *unused))


def class_images(folders: Mapping[str, Path], masks_folder: Path | None = None) -> Content:
    """Images at any depth below one folder per class; the id begins with the class, whatever its folder is called.

    Masks lie in a folder of masks, in the folders of the classes, or are named in a table beside these; how they are
    matched says `medfsad_bench.layouts.masks`, how patients are told `medfsad_bench.layouts.patients`. NIfTI volumes
    become slices; one that is anomalous needs a mask, as it holds normal slices too.

    Args:
        folders: Of `normal` and of `anomalous` images.
        masks_folder: Of masks; by default those beside the folders of the classes that are called `masks` or the like.

    Raises:
        DownloadError: If volumes and pictures are mixed, or a table contradicts a folder or itself.
    """
    parents = {folder.parent for folder in folders.values()}
    beside = next(iter(parents)) if len(parents) == 1 else None  # where tables and masks may lie
    root = beside or Path(os.path.commonpath([parent.absolute() for parent in parents]))
    mask_folders = _mask_folders(beside, folders) if masks_folder is None else [masks_folder]
    in_mask_folders = {path: folder for folder in mask_folders for path in files_below(folder)}
    files = {label: set(files_below(folder)) - in_mask_folders.keys() for label, folder in folders.items()}
    strange = {path for path in set(in_mask_folders).union(*files.values()) if not kind_of(path)}
    masks = [_located_mask(path, folder, folders) for path, folder in in_mask_folders.items() if path not in strange]
    images: list[Located] = []
    for label, folder in folders.items():
        pictures = sorted(files[label] - strange)
        of_others = masks_beside(pictures, folder)
        images += [Located(path, folder, label) for path in pictures if path not in of_others]
        masks += [Located(path, folder, label) for path in pictures if path in of_others]
    tables = tables_in(beside)
    described, used, findings = _beside_tables(tables, root, images, masks)
    in_tables = {mask for of_file in described.values() for mask in of_file.masks}
    matched, doubts = match_masks(images, [mask for mask in masks if mask.path not in in_tables], root)
    matched |= {path: of_file.masks for path, of_file in described.items() if of_file.masks}
    names = {image.path: Path(image.label) / image.path.relative_to(image.base) for image in images}
    content = _content(images, names, matched, described, root)
    unused = unused_files([*strange, *(path for path in tables if path not in used)], root)
    return Content(content.images, (*findings, *doubts, *content.findings, *unused))


def table(root: Path) -> Content | None:
    """A table with columns of paths and labels and, if known, patients and masks; see `table_images`."""
    return table_images(root, COLUMNS, WORDS)


def table_images(root: Path, columns: Mapping[str, str], words: Mapping[str, str]) -> Content | None:
    """Images of the one table in a folder that has columns of paths and labels; None if there is none.

    Args:
        root: The folder; paths are relative to it.
        columns: Headers of `path`, `label`, `patient` and `mask`. One that is called like what it says is told by
            `medfsad_bench.layouts.columns.columns_of`, as are those that aren't given.
        words: Class (`normal` or `anomalous`) by the table's word for it, in lower case; that of `*` holds for all
            others.

    Raises:
        DownloadError: If there are two such tables; with the first offending row, if a label is missing or contradicts
            another, or a path leads out.
    """
    tables = [path for path in tables_in(root) if {"path", "label"} <= said_by(path, columns)]
    if not tables:
        return None
    if len(tables) > 1:
        raise DownloadError(
            f"{root.name}: {tables[0].name} and {tables[1].name} both have columns of paths and labels. Expected one "
            "table; move the other away."
        )
    files = files_below(root)
    described, findings = described_files(read_table(tables[0]), root, files, columns=columns, words=words)
    images = [Located(file, root, of_file.label) for file, of_file in described.items()]
    masks = {file: of_file.masks for file, of_file in described.items() if of_file.masks}
    names = {file: file.relative_to(root) for file in described}
    content = _content(images, names, masks, described, root)
    used = {tables[0], *described, *(mask for of_image in masks.values() for mask in of_image)}
    unused = unused_files((other for other in files if other not in used), root)
    return Content(content.images, (*findings, *content.findings, *unused))


def _mask_folders(root: Path | None, class_folders: Mapping[str, Path]) -> list[Path]:
    if root is None:
        return []
    folders = (path for path in sorted(root.iterdir()) if path.is_dir() and is_mask_folder(path.name))
    return [path for path in folders if path not in class_folders.values()]


def _located_mask(path: Path, folder: Path, class_folders: Mapping[str, Path]) -> Located:
    """A mask, which may lie in a folder that is called like that of its class."""
    first, *below = path.relative_to(folder).parts
    names = {unified(name): label for label, of_class in class_folders.items() for name in (label, of_class.name)}
    label = names.get(unified(first), "") if below else ""
    return Located(path, folder / first if label else folder, label)


def _beside_tables(
    tables: Sequence[Path], root: Path, images: Sequence[Located], masks: Sequence[Located]
) -> tuple[dict[Path, Described], list[Path], list[Finding]]:
    """What tables say of the images, which of them say anything, and findings."""
    described: dict[Path, Described] = {}
    used, findings = [], []
    files = [item.path for item in (*images, *masks)]
    for path in tables:
        if "path" in said_by(path):
            of_table, notes = described_files(read_table(path), root, files, labelled=False)
            used += [path] if of_table else []
            findings += notes if of_table else []
            for file, of_file in of_table.items():
                described[file] = united(described.get(file, of_file), of_file, f"{path.name}: {within(file, root)}")
    for image in images:
        said = described.get(image.path)
        if said and said.label not in ("", image.label):
            raise DownloadError(
                f"{within(image.path, root)}: lies in the folder of {image.label} images, and a table says "
                f"{said.label}. Expected one label; mend the table or move the file."
            )
    silent = [within(image.path, root) for image in images if image.path not in described]
    if used and silent:
        what = f"{len(silent)} of {len(images)} images are in no row of the table; list them with their patients"
        findings.append(Finding("no-patient", first_of(silent), what, stops=False))
    return described, used, findings


def _content(
    files: Sequence[Located],
    names: Mapping[Path, Path],
    masks: Mapping[Path, tuple[Path, ...]],
    described: Mapping[Path, Described],
    root: Path,
) -> Content:
    """Images with their groups, masks and frames. Ids are `names` without suffix where that's enough to tell them."""
    short = {path: (name.parent / stem(name)).as_posix() for path, name in names.items()}
    count = Counter(short.values())
    ids = {path: short[path] if count[short[path]] == 1 else names[path].as_posix() for path in short}
    sources = [
        Source(
            path=file.path,
            name=ids[file.path],
            label=file.label,
            folders=file.folders,
            header=read_ids(file.path) if kind_of(file.path) == "dicom" else Header(),
            in_table=described[file.path].patient if file.path in described else "",
        )
        for file in files
    ]
    patients, findings = patients_by_file(sources)
    fitting, misfits = _masks_of_as_many_frames(sources, masks, root)
    images = []
    for source in sources:
        image = RawImage(
            id=source.name,
            path=source.path,
            label=source.label,
            patient=patients[source.path],
            disease=source.label,
            masks=fitting.get(source.path, ()),
            frames=source.header.frames,
        )
        images += _parts(image)
    return Content(_of_one_kind(images, root), (*findings, *misfits))


def _masks_of_as_many_frames(
    sources: Sequence[Source], masks: Mapping[Path, tuple[Path, ...]], root: Path
) -> tuple[dict[Path, tuple[Path, ...]], list[Finding]]:
    """Masks with a frame or page for each frame of their image.

    Those of normal volumes are left out too: their slices would turn anomalous.
    """
    fitting, findings, of_normal = {}, [], []
    for source in sources:
        of_image = masks.get(source.path, ())
        if is_volume(source.path):
            if source.label == "normal" and of_image:
                of_normal.append(source.name)
            elif of_image:
                fitting[source.path] = of_image
            continue
        pages = {path: page_count(path) for path in of_image}
        misfit = next((path for path, count in pages.items() if count != source.header.frames), None)
        if misfit is None:
            fitting[source.path] = of_image
            continue
        what = (
            f"the image has {source.header.frames} frame(s), its mask {within(misfit, root)} has {pages[misfit]}. "
            "Expected as many; the mask is left out if you allow that"
        )
        findings.append(Finding(FAULT, source.name, what, stops=True))
    if of_normal:
        what = f"{len(of_normal)} normal volume(s) have a mask, which isn't used. Move them to the anomalous ones"
        findings.append(Finding("unused-masks", first_of(of_normal), what, stops=False))
    return fitting, findings


def _parts(image: RawImage) -> list[RawImage]:
    """A volume, which has slices of both classes; the frames of a file; or the image itself."""
    if is_volume(image.path):
        return [replace(image, label="volume" if image.label == "normal" or image.masks else "unlabelled")]
    if image.frames > 1:
        return [replace(image, id=f"{image.id}#{frame:04d}", frame=frame) for frame in range(image.frames)]
    return [image]


def _of_one_kind(images: list[RawImage], root: Path) -> list[RawImage]:
    volumes = sum(is_volume(image.path) for image in images)
    if 0 < volumes < len(images):
        raise DownloadError(
            f"{root.name}: {volumes} NIfTI volumes among {len(images)} files. Expected volumes alone or pictures "
            "alone, as one mapping to 8 bits holds for a set; make two folders."
        )
    return images
