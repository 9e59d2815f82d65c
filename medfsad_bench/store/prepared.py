"""Which prepared files lie in a folder."""

import hashlib
from pathlib import Path

from medfsad_bench.errors import StoreError
from medfsad_bench.manifest import OWN
from medfsad_bench.store.dataset import Dataset


def prepared_files(folder: Path) -> list[Path]:
    """Prepared files in a folder, sorted; one that is just being written isn't among them."""
    return sorted(path for path in folder.glob("*.h5") if not path.name.startswith("."))


def prepared_sets(data: Path, benchmark: str | None = None) -> list[Dataset]:
    """All prepared sets of one benchmark.

    Args:
        data: Folder that `prepare` wrote to, or one benchmark's folder in it.
        benchmark: Which one; may be None if there is only one.

    Raises:
        StoreError: If there's none, more than one benchmark to choose from, or two files of one set.
    """
    if not data.is_dir():
        raise StoreError(f"{data} is no folder. Expected prepared files (*.h5) there; `medfsad prepare` writes them.")
    folders = [data] if prepared_files(data) else sorted(f for f in data.iterdir() if prepared_files(f))
    folders = [f for f in folders if benchmark in (None, f.name) or f == data]
    if benchmark is None and len(folders) > 1:
        folders = [f for f in folders if f.name != OWN]
    if len(folders) != 1:
        benchmarks = ", ".join(f.name for f in folders) or "none"
        raise StoreError(
            f"{data} holds prepared files of these benchmarks: {benchmarks}; expected one"
            f"{f' named {benchmark!r}' if benchmark else ''}. Choose with --benchmark, or run `medfsad prepare` first."
        )
    return _sets_in(folders[0])


def own_sets(data: Path) -> list[Dataset]:
    """The user's own prepared folders, which may be targets beside any benchmark."""
    return _sets_in(data / OWN)


def origin_digest(origin: Path) -> str:
    """What an own set's file keeps of the folder that it was prepared from: enough to tell one folder from another."""
    return hashlib.sha256(str(origin.resolve()).encode("utf-8", "surrogateescape")).hexdigest()


def find_by_digest(data: Path, digest: str) -> Dataset:
    """The prepared file of a membership.

    Raises:
        StoreError: If there is none in `data` or one level below it.
    """
    folders = [data, *sorted(data.glob("*/"))] if data.is_dir() else []
    sets = [Dataset(path) for folder in folders for path in prepared_files(folder)]
    for dataset in sets:
        if dataset.attributes["membership_digest"] == digest:
            return dataset
    there = ", ".join(f"{d.name} ({str(d.attributes['membership_digest'])[:12]}…)" for d in sets) or "none"
    raise StoreError(
        f"No prepared file in {data} has the membership digest {digest[:12]}… that the scores are bound to; there are "
        f"{there}. Prepare that version of the set, or score this one."
    )


def _sets_in(folder: Path) -> list[Dataset]:
    by_name: dict[str, Dataset] = {}
    for dataset in map(Dataset, prepared_files(folder)):
        if dataset.name in by_name:
            raise StoreError(
                f"{folder} holds two files of {dataset.name!r}: {by_name[dataset.name].path.name} and "
                f"{dataset.path.name}. Move one of them to another folder."
            )
        by_name[dataset.name] = dataset
    return list(by_name.values())
