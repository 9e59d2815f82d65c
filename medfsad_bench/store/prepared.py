"""Which prepared files lie in a folder."""

import hashlib
from pathlib import Path

from medfsad_bench.errors import StoreError, nearest
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
    try:
        inside = sorted(data.iterdir())
    except OSError as error:
        raise StoreError(f"{data} can't be listed ({error.strerror}). Check its permissions.") from error
    folders = [data] if prepared_files(data) else [folder for folder in inside if prepared_files(folder)]
    there = [folder.name for folder in folders]
    folders = [f for f in folders if benchmark in (None, f.name) or f == data]
    if benchmark is None and len(folders) > 1:
        folders = [f for f in folders if f.name != OWN]
    if len(folders) != 1:
        raise StoreError(
            f"{data} holds prepared files of these benchmarks: {', '.join(there) or 'none'}; expected one"
            f"{f' named {benchmark!r}' if benchmark else ''}.{nearest(benchmark or '', there)} Choose with "
            "--benchmark, or run `medfsad prepare` first."
        )
    return _sets_in(folders[0])


def own_sets(data: Path) -> list[Dataset]:
    """The user's own prepared folders, which may be targets beside any benchmark."""
    return _sets_in(data / OWN)


def sets_below(data: Path) -> list[Dataset]:
    """Every prepared set in a folder or one level below it, of whatever benchmark."""
    folders = [data, *sorted(data.glob("*/"))] if data.is_dir() else []
    return [Dataset(path) for folder in folders for path in prepared_files(folder)]


def origin_digest(origin: Path) -> str:
    """What an own set's file keeps of the folder that it was prepared from: enough to tell one folder from another."""
    return hashlib.sha256(str(origin.resolve()).encode("utf-8", "surrogateescape")).hexdigest()


def find_by_digest(data: Path, digest: str, *, size_px: int | None = None) -> Dataset:
    """The prepared file of a membership.

    Args:
        data: Where to look, and one level below.
        digest: Of the membership.
        size_px: Edge of its images; may be None if all files of that membership are of one size.

    Raises:
        StoreError: If there is none, or files of several sizes.
    """
    sets = sets_below(data)
    of_digest = [dataset for dataset in sets if dataset.attributes["membership_digest"] == digest]
    fitting = [dataset for dataset in of_digest if size_px in (None, dataset.attributes["size_px"])]
    sizes = sorted({int(dataset.attributes["size_px"]) for dataset in fitting})
    if len(sizes) > 1:
        raise StoreError(
            f"{data} holds files of {fitting[0].name} of {', '.join(map(str, sizes))} px, all with the membership "
            f"digest {digest[:12]}… that is asked for. Expected one size; name the folder of the right one with --data."
        )
    if fitting:
        return fitting[0]
    there = ", ".join(
        f"{d.name} ({str(d.attributes['membership_digest'])[:12]}…, {d.attributes['size_px']} px)" for d in sets
    )
    wanted = "" if size_px is None else f" and {size_px} px"
    raise StoreError(
        f"No prepared file in {data} has the membership digest {digest[:12]}…{wanted}; there are {there or 'none'}. "
        "Prepare that version of the set, or name another folder with --data."
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
