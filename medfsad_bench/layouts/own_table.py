"""A user's own table, row by row: which file each means, and what it says of that file."""

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from medfsad_bench.errors import DownloadError
from medfsad_bench.layouts.columns import columns_of, patients_of, unused_columns
from medfsad_bench.layouts.finding import Finding, first_of, within
from medfsad_bench.layouts.masks import is_mask_folder, unified
from medfsad_bench.layouts.raw import stem
from medfsad_bench.layouts.table_file import TABLE_SUFFIXES, TableFile, read_table

COLUMNS = {what: what for what in ("path", "label", "patient", "mask")}  # each told by its header
WORDS = {
    **dict.fromkeys(("normal", "0", "0.0", "good", "healthy", "negative", "false", "no"), "normal"),
    **dict.fromkeys(("anomalous", "abnormal", "anomaly", "1", "1.0", "bad", "ungood", "positive"), "anomalous"),
    **dict.fromkeys(("defect", "defective", "true", "yes"), "anomalous"),
}


@dataclass(frozen=True, slots=True)
class Described:
    """What a table says of one file."""

    path: Path
    label: str = ""  # normal or anomalous; empty where the table doesn't say
    patient: str = ""
    masks: tuple[Path, ...] = ()


def tables_in(root: Path | None) -> list[Path]:
    """Files directly in a folder that may be tables."""
    if root is None:
        return []
    return sorted(path for path in root.iterdir() if path.suffix.lower() in TABLE_SUFFIXES and path.is_file())


def said_by(path: Path, columns: Mapping[str, str] | None = None) -> set[str]:
    """What the columns of a file say if it's a table with `columns`; nothing if it can't be read as one."""
    try:
        return set(columns_of(read_table(path, header_only=True), columns))
    except DownloadError:
        return set()


def described_files(
    table: TableFile,
    root: Path,
    files: Sequence[Path],
    *,
    columns: Mapping[str, str] | None = None,
    words: Mapping[str, str] = WORDS,
    labelled: bool = True,
) -> tuple[dict[Path, Described], list[Finding]]:
    """What a table says of each file. Several rows of one file agree, and unite their masks.

    Args:
        table: With a column of paths; they are relative to `root`, or any end of a path below it, with or without
            suffix, in any case.
        root: The folder.
        files: All files below it.
        columns: Headers that the user named, by what they say.
        words: Classes by the words of the table, in lower case; that of `*` holds for all others.
        labelled: Whether each row needs a label. Otherwise words that aren't known say nothing, and rows of files that
            aren't there are counted.

    Raises:
        DownloadError: With the first offending row, if a label is missing or contradicts another, a path leads out or
            stands for several files, or a file has two patients.
    """
    headers = columns_of(table, columns)
    patients, findings = patients_of(table, headers["patient"][0]) if "patient" in headers else ({}, [])
    findings += unused_columns(table, headers)
    names = _FileNames(files, root)
    described: dict[Path, Described] = {}
    repeated, missing = [], []
    for line, row in table.rows.items():
        where, name = f"{table.path.name}, line {line}", row[headers["path"][0]]
        path = names.file(name, where)
        if not labelled and path not in names.paths:
            missing.append(name)
            continue
        word = row[headers["label"][0]].lower() if "label" in headers else ""
        label = words.get(word, words.get("*", "")) if word else ""
        if labelled and not label:
            raise DownloadError(
                f"{where}: the label is {row[headers['label'][0]]!r}. Expected {_wanted(words)}; `--label normal=WORD` "
                "and `--label anomalous=WORD` tell what other words mean."
            )
        masks = tuple(names.file(row[header], where, mask=True) for header in headers.get("mask", ()) if row[header])
        of_row = Described(path, label, patients.get(line, ""), masks)
        if path in described:
            repeated.append(name)
            of_row = united(described[path], of_row, f"{where}: {name}")
        described[path] = of_row
    if repeated:
        what = f"{len(repeated)} row(s) name a file again; it's one image. Remove them if another file was meant"
        findings.append(Finding("duplicate-rows", f"{table.path.name}: {first_of(repeated)}", what, stops=False))
    if missing:
        what = f"{len(missing)} of {len(table.rows)} rows name no file of the folder"
        findings.append(Finding("unused-rows", f"{table.path.name}: {first_of(missing)}", what, stops=False))
    return described, findings


def united(first: Described, second: Described, where: str) -> Described:
    """What two rows say of one file.

    Raises:
        DownloadError: `where`: if they contradict each other.
    """
    for what in ("label", "patient"):
        values = getattr(second, what), getattr(first, what)
        if all(values) and values[0] != values[1]:
            said = f"is {values[0]} here and {values[1]} above" if what == "label" else f"has two patients, {values}"
            raise DownloadError(f"{where} {said}. Mend the table.")
    masks = dict.fromkeys((*first.masks, *second.masks))
    return Described(first.path, first.label or second.label, first.patient or second.patient, tuple(masks))


def _wanted(words: Mapping[str, str]) -> str:
    by_class = {label: [word for word in words if words[word] == label][:3] for label in ("normal", "anomalous")}
    return " or ".join(f"{', '.join(of_class)} ({label})" for label, of_class in by_class.items() if of_class)


class _FileNames:
    """Files by any end of their paths."""

    def __init__(self, files: Sequence[Path], root: Path) -> None:
        self.paths = set(files)
        self._root = root
        self._by_name: dict[str, list[Path]] = defaultdict(list)
        for path in files:
            for name in {unified(path.name), unified(stem(path))}:
                self._by_name[name].append(path)

    def file(self, name: str, where: str, *, mask: bool = False) -> Path:
        """The file that a cell means; where there's none, the path that it would have."""
        parts = PurePosixPath(name.replace("\\", "/")).parts
        path = Path(os.path.normpath(self._root.joinpath(*parts)))
        if not path.is_relative_to(os.path.normpath(self._root)):
            raise DownloadError(
                f"{where}: {name!r} leads out of {self._root.name}. Expected a path below the table's folder."
            )
        if path in self.paths or path == self._root or not parts:
            return path
        ends = [unified(part) for part in parts]
        alike = [other for other in self._by_name.get(ends[-1], ()) if self._parts(other)[-len(ends) : -1] == ends[:-1]]
        if len(alike) > 1:  # masks may bear the names of their images
            alike = [other for other in alike if any(map(is_mask_folder, self._parts(other)[:-1])) == mask] or alike
        if len(alike) > 1:
            listed = ", ".join(within(other, self._root) for other in alike[:3])
            raise DownloadError(
                f"{where}: {name!r} could be {listed}. Expected one file; write its path from the table's folder."
            )
        return alike[0] if alike else path

    def _parts(self, path: Path) -> list[str]:
        return [unified(part) for part in path.relative_to(self._root).parts]
