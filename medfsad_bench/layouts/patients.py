"""Which images are of one patient: by a table, else by DICOM headers, else by folders; the coarser of two readings."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from medfsad_bench.layouts.columns import is_placeholder
from medfsad_bench.layouts.finding import Finding, first_of
from medfsad_bench.layouts.headers import Header
from medfsad_bench.layouts.raw import stem

_SUBJECT = re.compile(r"^(sub-[0-9a-z]+)(?=[_.]|$)", re.IGNORECASE)  # BIDS; sessions and runs lie below it

_NUMBERED = re.compile(r"^(.*[^\W_])[ _\-]+[a-z]*\d+$", re.IGNORECASE)  # `P01_s2`, the second of `P01`?
_PER_PATIENT = 1.5  # files per first part of a name from which names look like several of one patient
_ALONE = "4 file"

_Key = tuple[str, str]  # of what kind, and which


@dataclass(frozen=True, slots=True)
class Source:
    """A file and all that may tell whose it is."""

    path: Path
    name: str  # its group where nothing else is known
    label: str
    folders: tuple[str, ...]  # below the folder of its class
    header: Header
    in_table: str = ""  # the patient whom a table names


def patients_by_file(sources: Sequence[Source]) -> tuple[dict[Path, str], list[Finding]]:
    """The patient of each file, and what was made of folders and of IDs that say nobody.

    A table decides; else the PatientID, unless all files share it; else the study, joined with the folder. Of nested
    folders the uppermost that differs among the normal images is taken, of BIDS the subject. Files that share a study
    or a folder, directly or through others, are of one group.
    """
    from scipy.cluster.hierarchy import DisjointSet

    depths = _constant_depths(sources)
    ids = _told_ids(sources)
    folders = {source.path: _folder(source, depths[source.label]) for source in sources}
    untold = {folders[source.path] for source in sources if not ids.get(source.path)} - {""}
    keys = {source.path: _keys(source, ids.get(source.path, ""), folders[source.path], untold) for source in sources}
    joined: DisjointSet[_Key] = DisjointSet({key for of_file in keys.values() for key in of_file})
    for first, *rest in keys.values():
        for key in rest:
            joined.merge(first, key)
    names: dict[_Key, _Key] = {}
    for subset in joined.subsets():
        names |= dict.fromkeys(subset, min(subset))
    patients = {path: names[of_file[0]][1] for path, of_file in keys.items()}
    alone = [source for source in sources if keys[source.path][0][0] == _ALONE]
    return patients, [*_anonymous(sources, ids), *_by_folder(sources, folders, untold, depths), *_by_name(alone)]


def _keys(source: Source, told: str, folder: str, untold: Iterable[str]) -> list[_Key]:
    """All that ties a file to others; the first kind gives the group its name."""
    keys = [("1 patient", told)] if told else []
    keys += [("2 folder", folder)] if folder in untold else []
    if not told:
        keys += [("3 study", uid) for uid in (source.header.study or source.header.series,) if uid]
    return keys or [(_ALONE, source.name)]


def _told_ids(sources: Sequence[Source]) -> dict[Path, str]:
    """Patients by table and PatientID, without placeholders and without an ID that all files of several share."""
    header_ids = {source.header.patient for source in sources if not is_placeholder(source.header.patient)}
    files = sum(bool(source.header.patient) for source in sources)
    nobody = header_ids if len(header_ids) == 1 and files == len(sources) > 1 else set()
    ids = {}
    for source in sources:
        header_id = source.header.patient
        ids[source.path] = source.in_table or ("" if is_placeholder(header_id) or header_id in nobody else header_id)
    return ids


def _constant_depths(sources: Sequence[Source]) -> dict[str, int]:
    """By class how many of the uppermost folders are the same for all, and so tell nothing; as many as for normals."""
    depths: dict[str, int] = {}
    normal = _shared([source.folders for source in sources if source.label == "normal"])
    for label in {source.label for source in sources}:
        depths[label] = min(normal, _shared([source.folders for source in sources if source.label == label]))
    return depths


def _shared(folders: Sequence[tuple[str, ...]]) -> int:
    """How many parts all begin with."""
    depth = 0
    while folders and all(len(parts) > depth and parts[depth] == folders[0][depth] for parts in folders):
        depth += 1
    return depth


def _folder(source: Source, depth: int) -> str:
    """The folder that stands for a patient; empty where the file lies in none."""
    parts = (*source.folders, source.path.name)
    if subject := next((match[1] for part in parts if (match := _SUBJECT.match(part))), ""):
        return subject
    return next(iter(source.folders[depth:]), "")


def _anonymous(sources: Sequence[Source], ids: Mapping[Path, str]) -> list[Finding]:
    silent = [s.name for s in sources if s.header.patient and not s.in_table and not ids[s.path]]
    if not silent:
        return []
    what = (
        f"{len(silent)} of {len(sources)} headers have a PatientID that names nobody (one for all, or a word such as "
        "ANONYMOUS); grouped by study and folder. A table with the columns path and patient says who is who"
    )
    return [Finding("anonymous-patients", first_of(silent), what, stops=False)]


def _by_folder(
    sources: Sequence[Source], folders: Mapping[Path, str], untold: Iterable[str], depths: Mapping[str, int]
) -> list[Finding]:
    grouped = [source for source in sources if folders[source.path] in untold]
    names = sorted({folders[source.path] for source in grouped})
    if len(names) == len(grouped):
        return []
    below = {source.folders[: depths[source.label] + 2] for source in grouped}
    what = f"{len(grouped)} images in {len(names)} folder(s), each taken for one patient"
    if len(below) > len(names):
        what += f"; the {len(below)} folders below could be the patients, the coarser grouping is taken"
    what += ". If that's wrong, a table with the columns path and patient says who is who"
    classes: dict[str, set[str]] = defaultdict(set)
    for source in grouped:
        classes[folders[source.path]].add(source.label)
    both = sorted(name for name, labels in classes.items() if len(labels) > 1)
    what += f" ({first_of(both)} in both classes)" if both else ""
    return [Finding("folder-groups", first_of(names), what, stops=False)]


def _by_name(sources: Sequence[Source]) -> list[Finding]:
    """Names that could tell patients, of files that nothing else groups; they may as well be numbers of images."""
    matches = [match for source in sources if (match := _NUMBERED.match(stem(source.path)))]
    parts = sorted({match[1] for match in matches})
    if not 2 < len(parts) <= len(matches) / _PER_PATIENT:
        return []
    what = (
        f"{len(matches)} files have names of {len(parts)} first parts, which could be patients; each file is taken for "
        "one patient. If that's wrong, a table with the columns path and patient says who is who"
    )
    return [Finding("names-like-patients", first_of(parts), what, stops=False)]
