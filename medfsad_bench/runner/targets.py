"""Which prepared set `--target` means: a name, the prepared file itself, or the folder that it was prepared from."""

from collections.abc import Sequence
from pathlib import Path

from medfsad_bench.errors import StoreError
from medfsad_bench.store import Dataset
from medfsad_bench.store.prepared import origin_digest


def chosen_targets(
    targets: Sequence[str], sets: Sequence[Dataset], own: Sequence[Dataset], data: Path
) -> list[Dataset]:
    """The sets that the user asked for.

    Args:
        targets: Names, `own/NAME`, prepared files, or folders of own images; `all` is every set of the benchmark.
        sets: Those of the benchmark.
        own: The user's own.
        data: Where they lie, for messages.

    Raises:
        StoreError: If one isn't prepared, or a name stands for a set of the benchmark and one of the user's own.
    """
    chosen = {
        dataset.path: dataset for target in targets if target != "all" for dataset in [_target(target, sets, own, data)]
    }
    if "all" in targets:
        chosen |= {dataset.path: dataset for dataset in sets}
    return list(chosen.values())


def _target(target: str, sets: Sequence[Dataset], own: Sequence[Dataset], data: Path) -> Dataset:
    by_full_name = {f"{dataset.attributes['benchmark']}/{dataset.name}": dataset for dataset in (*own, *sets)}
    path = Path(target)
    meant = [
        name
        for name, dataset in by_full_name.items()
        if target in (name, dataset.name)
        or dataset.path.resolve() == path.resolve()
        or (path.exists() and dataset.attributes.get("origin") == origin_digest(path))
    ]
    if len(meant) > 1:
        raise StoreError(f"--target {target!r} stands for several prepared sets. Say which: {' or '.join(meant)}.")
    if meant:
        return by_full_name[meant[0]]
    remedy = f" It is a folder: prepare it with `medfsad prepare --source {target}`." if path.is_dir() else ""
    there = ", ".join(sorted({dataset.name for dataset in (*own, *sets)}))
    raise StoreError(f"--target {target!r} is not prepared in {data}; there are {there}.{remedy}")
