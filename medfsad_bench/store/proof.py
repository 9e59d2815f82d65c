"""Proof before use: what has to hold of a prepared file before a number is made with it.

`prove` refuses a file that isn't what `prepare` wrote, and remembers it of those that are, by size, times and inode, so
that it costs once. `benchmark_of` says what a sound file stands for: members that aren't those of the set's manifest
are somebody's own data, whatever benchmark the file names.
"""

import hashlib
import json
from functools import cache
from pathlib import Path

from medfsad_bench import __version__
from medfsad_bench.errors import StoreError
from medfsad_bench.files import write_json
from medfsad_bench.manifest import OWN, Manifest, Split, all_manifests, ids_digest, listed_ids
from medfsad_bench.store.dataset import Dataset
from medfsad_bench.store.integrity import SEAL_BYTES, has_seal, verify_store

GENERATED = frozenset({"demo"})  # benchmarks that no manifest lists
_PROVEN = ".proven.json"  # beside the files: their names, and a mark of each as it was when it was proven


def prove(dataset: Dataset) -> None:
    """Refuse a file whose seal, digests, schema, sides or draws don't hold.

    Raises:
        StoreError: Naming the first faults.
    """
    path = dataset.path
    if faults := _faults(path.resolve(), _mark(path)):
        raise StoreError(
            f"{path} isn't what `medfsad prepare` wrote: {'; '.join(faults[:3])}. Expected a sound file, as "
            "`medfsad verify` shows; nothing was run. Prepare the set again."
        )


def benchmark_of(dataset: Dataset) -> str:
    """The benchmark whose rows a file can make: the one that it names, or `own` where its members aren't that one's."""
    return OWN if why_own(dataset) else str(dataset.attributes["benchmark"])


def why_own(dataset: Dataset) -> str:
    """Why a file that names a benchmark makes rows of `own` alone; empty if it makes the benchmark's.

    A file of another version than the release's can't be compared with a list; its rows never rank anyway.
    """
    return _why_own(dataset.path.resolve(), _mark(dataset.path))


@cache
def _faults(path: Path, mark: str) -> list[str]:
    remembered = _remembered(path.parent)
    if remembered.get(path.name) == mark:
        return []
    faults = verify_store(path)
    if not faults:
        _remember(path.parent, {**remembered, path.name: mark})
    return faults


def _mark(path: Path) -> str:
    """Changes with every write to the file, with another file in its place, and with another release."""
    state = path.stat()
    with path.open("rb") as file:
        seal = hashlib.sha256(file.read(SEAL_BYTES)).hexdigest()
    times = (state.st_mtime_ns, state.st_ctime_ns)
    return f"{__version__} {state.st_size} {times[0]} {times[1]} {state.st_ino} {seal}"


def _remembered(folder: Path) -> dict[str, str]:
    try:
        return dict(json.loads((folder / _PROVEN).read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return {}  # nothing is remembered, so everything is proven again


def _remember(folder: Path, marks: dict[str, str]) -> None:
    try:
        write_json(folder / _PROVEN, {name: mark for name, mark in marks.items() if (folder / name).is_file()})
    except OSError:
        return  # a folder that can only be read is proven once per process


@cache
def _why_own(path: Path, _mark: str) -> str:
    dataset = Dataset(path)
    benchmark, attributes = str(dataset.attributes["benchmark"]), dataset.attributes
    if benchmark == OWN or benchmark in GENERATED:
        return ""
    manifest = all_manifests().get(dataset.name)
    if manifest is None or benchmark not in manifest.benchmarks:
        return f"{dataset.name} is no set of {benchmark}"
    if not has_seal(path):
        return "the file has no seal, so nothing proves the benchmark that it names"
    if manifest.version != attributes["version"] or attributes["allowed"] != "[]":
        return ""
    return _not_the_members(dataset, manifest, manifest.benchmarks[benchmark])


def _not_the_members(dataset: Dataset, manifest: Manifest, split: Split) -> str:
    """In what a file differs from the set's manifest: counts, ids, groups, sides, labels and raw files."""
    table, name = dataset.table, dataset.name
    counts = table.groupby(["split", "label"]).size().to_dict()
    for (side, anomalous), wanted in split.counts.items():
        held = int(counts.get((side, int(anomalous)), 0))
        if held != wanted:
            kind = "anomalous" if anomalous else "normal"
            return f"it holds {held} {kind} images in {side}, the manifest of {name} {wanted}"
    listed = listed_ids(manifest, split)
    if listed is None:
        return ""
    rows = table[["id", "group", "split"]].astype(str).itertuples(index=False, name=None)
    if ids_digest(rows) != split.ids_sha256:
        return f"its ids, groups or sides aren't those of {split.ids}"
    by_id = {row.id: row for row in listed}
    files = dict(zip(table["id"].astype(str), table["sha256"].astype(str), strict=True))
    labels = dict(zip(table["id"].astype(str), table["label"].astype(int), strict=True))
    stated = {**dict.fromkeys(manifest.labels.normal, 0), **dict.fromkeys(manifest.labels.anomalous, 1)}
    stated |= {"normal": 0, "anomalous": 1}
    wrong = [id_ for id_, row in by_id.items() if row.label in stated and stated[row.label] != labels[id_]]
    if wrong:
        return f"{len(wrong)} labels aren't those of {split.ids}, first that of {wrong[0]!r}"
    other = [id_ for id_, row in by_id.items() if row.sha256 and row.sha256 != files[id_]]
    return f"{len(other)} raw files aren't those of {split.ids}, first that of {other[0]!r}" if other else ""
