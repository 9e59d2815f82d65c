"""What a prepared file must be before anything of it is used: HDF5 that stays within itself, in the form of schema 1.

A file may come from anybody. So nothing of it leads to another file, nothing claims more than the file can hold, and
every attribute and column has the type that `medfsad_bench.store.writer` gives it.
"""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from medfsad_bench.errors import StoreError

SCHEMA = 1
TEXT_COLUMNS = ("id", "patient", "group", "disease", "split", "path", "sha256", "window", "transfer_syntax", "warnings")
NUMBER_COLUMNS = {"label": np.uint8, "height": np.int32, "width": np.int32, "spacing_row_mm": np.float64}
NUMBER_COLUMNS |= {"spacing_column_mm": np.float64}
LONGEST_TEXT = 1 << 16  # characters of a cell
_LONGEST_ATTRIBUTE = 1 << 20  # characters; the manifest is the longest
_MOST_ATTRIBUTES = 64
_DEFLATE_RATIO = 1100  # deflate never packs more than 1,032 bytes into one
_FILTERS = (h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_DEFLATE)


def _is_text(pattern: str) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and re.fullmatch(pattern, value, re.DOTALL) is not None


def _is_list_of_names(value: Any) -> bool:
    names = _parsed(value)
    return isinstance(names, list) and all(isinstance(name, str) for name in names)


_ATTRIBUTES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "benchmark": (_is_text(r"[A-Za-z0-9_-]+"), "a benchmark's name"),
    "name": (_is_text(r"[a-z0-9_]+"), "a set's name (a-z, 0-9, _)"),
    "version": (_is_text(r"\d+\.\d+\.\d+"), "a version like 1.0.0"),
    "size_px": (lambda value: isinstance(value, int) and not isinstance(value, bool), "an integer"),
    "manifest": (_is_text(".*"), "text"),
    "code_version": (_is_text(".*"), "text"),
    "decoders": (_is_text(".*"), "text"),
    "mask_kind": (_is_text("none|box|polygon|voxel"), "none, box, polygon or voxel"),
    "allowed": (_is_list_of_names, "a JSON list of names"),
    "membership_digest": (_is_text("[0-9a-f]{64}"), "a SHA-256"),
    "content_digest": (_is_text("[0-9a-f]{64}"), "a SHA-256"),
    "organ": (_is_text(".*"), "text"),
    "modality": (_is_text(".*"), "text"),
    "held_out_with": (_is_list_of_names, "a JSON list of names"),
}

_checked: set[tuple[object, ...]] = set()  # files that were found sound, by what changes with their content


def open_hdf5(path: Path, check: Callable[[Path, h5py.File], None] = lambda *_: None) -> h5py.File:
    """Open an HDF5 file for reading, unless it leads to other files.

    Args:
        path: Of the file.
        check: Refuses what isn't of the expected form; called once per process for a file that doesn't change.

    Raises:
        StoreError: If it holds a link, or takes data from another file (external storage, a virtual source).
        OSError: If it's no HDF5 file.
    """
    file = h5py.File(path, "r")
    try:
        information = path.stat()
        key = (path.resolve(), information.st_ino, information.st_size, information.st_mtime_ns, check)
        if key not in _checked:
            _refuse_foreign(path, file)
            check(path, file)
            _checked.add(key)
    except BaseException:
        file.close()
        raise
    return file


def check_format(path: Path, file: h5py.File) -> None:
    """Refuse a file that isn't of the form of a prepared one.

    Raises:
        StoreError: With the first fault: schema, an attribute, a data set's type or shape.
    """
    attributes = plain_attributes(path, file)
    schema = attributes.get("schema")
    if schema != SCHEMA:
        raise StoreError(
            f"{path}: schema is {schema if schema is not None else 'absent'}, this version reads schema {SCHEMA}. "
            "Remove it and prepare the set again, or install the version that wrote it."
        )
    if fault := next(_faults(path, file, attributes), None):
        raise StoreError(
            f"{path}: {fault}. It was damaged or not written by `medfsad prepare`; remove it and prepare the set again."
        )


def plain_attributes(path: Path, file: h5py.File) -> dict[str, Any]:
    """The attributes of a file: texts, whole numbers and truths.

    Raises:
        StoreError: If there are too many, or one is anything else.
    """
    if len(file.attrs) > _MOST_ATTRIBUTES:
        raise StoreError(
            f"{path}: has {len(file.attrs)} attributes, a prepared file has some 17. Remove it and prepare the set "
            "again."
        )
    attributes = {}
    for name in file.attrs:
        try:
            value = file.attrs[name] if file.attrs.get_id(name).shape == () else None
        except (OSError, TypeError, ValueError, RuntimeError):
            value = None
        value = value.item() if isinstance(value, np.generic) else value
        if not isinstance(value, str | int) or len(str(value)) > _LONGEST_ATTRIBUTE:
            raise StoreError(
                f"{path}: its attribute {name[:40]!r} is no text or number of a sensible length. It was not written by "
                "`medfsad prepare`; remove it and prepare the set again."
            )
        attributes[name] = value
    return attributes


def dataset_names(file: h5py.File) -> list[str]:
    """All data sets of a file, with the groups they lie in."""
    names: list[str] = []
    file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
    return names


def _refuse_foreign(path: Path, file: h5py.File) -> None:
    """Look at every link and at how every data set is stored, without following or reading any."""
    broken: list[Exception] = []

    def visited(name: bytes, link: Any) -> str | None:
        try:
            return _leads_elsewhere(file, name, link)
        except Exception as error:  # noqa: BLE001 - raised in here it would come out of h5py as a SystemError
            broken.append(error)
            return "damaged"

    what = file.id.links.visit(visited, info=True)
    if broken:
        raise OSError(*broken[0].args) from broken[0]
    if what:
        raise StoreError(
            f"{path}: {what}, so that it would show what lies elsewhere on this machine. Expected a file that holds "
            "all of its data itself, as `medfsad` writes them; don't use it."
        )


def _leads_elsewhere(file: h5py.File, name: bytes, link: Any) -> str | None:
    if link.type != h5py.h5l.TYPE_HARD:
        return f"/{name.decode(errors='replace')[:80]} is a link"
    item = h5py.h5o.open(file.id, name)
    if not isinstance(item, h5py.h5d.DatasetID):
        return None
    created = item.get_create_plist()
    if created.get_layout() == h5py.h5d.VIRTUAL or created.get_external_count():
        return f"/{name.decode(errors='replace')[:80]} takes its data from another file"
    return None


def _faults(path: Path, file: h5py.File, attributes: dict[str, Any]) -> Iterator[str]:
    for name, (is_right, expected) in _ATTRIBUTES.items():
        if name not in attributes:
            yield f"the attribute {name!r} is missing"
        elif not is_right(attributes[name]):
            yield f"the attribute {name!r} is {str(attributes[name])[:40]!r}; expected {expected}"
    yield from _dataset_faults(path, file, attributes["size_px"])


def _dataset_faults(path: Path, file: h5py.File, size_px: int) -> Iterator[str]:
    names = dataset_names(file)
    most = _DEFLATE_RATIO * path.stat().st_size
    for name in names:
        data = file[name]
        if max(data.size * data.dtype.itemsize, *data.shape, 0) > most:
            yield f"/{name} claims {data.shape} values, more than the file can hold"
        filters = data.id.get_create_plist()
        used = [filters.get_filter(number)[0] for number in range(filters.get_nfilters())]
        if used not in ([], list(_FILTERS)):
            yield f"/{name} is packed in a way that no prepared file is (filters {used})"
    if "images" not in names:
        yield "it holds no /images"
        return
    images = file["images"]
    count = images.shape[0] if images.ndim else 0
    if images.dtype != np.uint8 or images.shape not in {(count, size_px, size_px, c) for c in (1, 3)} or not count:
        yield f"/images is {images.dtype} {images.shape}; expected uint8 (n, {size_px}, {size_px}, 1 or 3)"
    elif images.chunks != (1, *images.shape[1:]) or images.id.get_num_chunks() != count:
        yield "/images isn't stored as one chunk per image"
    yield from _table_faults(file, names, count)
    for name in names:
        folder, _, index = name.rpartition("/")
        data = file[name]
        if folder == "masks":
            numbered = index.isascii() and index.isdecimal() and int(index) < count
            if not numbered or data.dtype != np.uint8 or data.ndim != 2:
                yield f"/{name} is {data.dtype} {data.shape}; expected the number of an image and uint8 (h, w)"
        elif folder == "episodes" and (data.dtype != np.int64 or data.ndim != 1):
            yield f"/{name} is {data.dtype} {data.shape}; expected int64 (k,)"
        elif name != "images" and folder not in ("table", "episodes"):
            yield f"it holds /{name[:80]}, which no prepared file has"


def _table_faults(file: h5py.File, names: list[str], count: int) -> Iterator[str]:
    columns = {name.removeprefix("table/"): file[name] for name in names if name.startswith("table/")}
    expected = {**dict.fromkeys(TEXT_COLUMNS, "text"), **{name: np.dtype(t).name for name, t in NUMBER_COLUMNS.items()}}
    if missing := [name for name in expected if name not in columns]:
        yield f"its table lacks the column(s) {', '.join(missing)}"
    for name, data in columns.items():
        text = h5py.check_string_dtype(data.dtype)
        kind = "text" if text is not None and text.length is None else data.dtype.name
        if data.shape != (count,):
            yield f"column {name[:40]!r} of its table has the shape {data.shape} for {count} images"
        elif kind != expected.get(name):
            yield f"column {name[:40]!r} of its table is {kind}; expected {expected.get(name, 'none of that name')}"


def _parsed(text: Any) -> Any:
    try:
        return json.loads(text)
    except (TypeError, ValueError, RecursionError):
        return None
