"""The Python interface: what the command line does, as functions that return tables; `medfsad_bench` offers them."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np  # noqa: F401 - for the examples
import pandas as pd

from medfsad_bench.store import Dataset

if TYPE_CHECKING:
    from medfsad_bench.board.comparison import Comparison
    from medfsad_bench.curation.report import SetReport
    from medfsad_bench.results.row import Row
    from medfsad_bench.runner.callbacks import RunCallback
    from medfsad_bench.runner.feature_store import FeatureStore
    from medfsad_bench.runner.plan import Cell


def load(path: str | Path) -> Dataset:
    """A prepared set; its `repr` says what it holds.

    >>> import tempfile
    >>> from PIL import Image
    >>> rng, folder = np.random.default_rng(0), Path(tempfile.mkdtemp())
    >>> for number in range(20):
    ...     path = folder / "ward" / ("anomalous" if number < 6 else "normal") / f"{number}.png"
    ...     path.parent.mkdir(parents=True, exist_ok=True)
    ...     _ = Image.fromarray(rng.integers(0, 256, (40, 40), dtype=np.uint8)).save(path)
    >>> report = prepare(folder / "ward", folder / "data", size=32)[0]
    >>> dataset = load(report.path)
    >>> dataset.name, int(dataset.labels.sum()), dataset.images("test").shape[1:]
    ('ward', 6, (32, 32, 3))
    >>> episode = dataset.episode(draw=0, shots=2)
    >>> len(episode.support), set(dataset.groups[episode.support]) & set(dataset.groups[episode.queries])
    (2, set())
    >>> image, label = dataset.to_torch("test")[0]
    >>> image.shape, image.dtype
    (torch.Size([3, 32, 32]), torch.float32)
    >>> rows = run("pixel_distance", data=folder / "data", runs=folder / "runs", target="ward", shots=2, draws=2)
    >>> rows[["method", "shots", "failed_checks"]].to_dict("records")
    [{'method': 'pixel_distance', 'shots': 2, 'failed_checks': ''}]
    >>> compare(rows["path"][0], rows["path"][0]).targets[0].differences["image_auroc"].value
    0.0

    Raises:
        StoreError: If the file is missing or isn't what `prepare` writes.
    """
    return Dataset(Path(path))


def prepare(
    folder: str | Path, out: str | Path, *, benchmark: str = "medfsad-13k", size: int = 256, workers: int = 1
) -> "list[SetReport]":
    """Prepare every set that lies in a folder, as `medfsad prepare` does.

    Args:
        folder: Of downloads, or of own images in `normal/` and `anomalous/`.
        out: Where prepared files go.
        benchmark: Which composition.
        size: Edge of the stored square images, px.
        workers: Processes that read.

    Returns:
        A report per set; its `path` is that of the prepared file.

    Raises:
        DownloadError: If nothing in the folder is recognised.
        CurationError: If a set isn't what its manifest promises.
    """
    from medfsad_bench.curation.stage import PrepareOptions
    from medfsad_bench.curation.stage import prepare as prepare_downloads

    options = PrepareOptions(Path(out), benchmark, size, workers)
    return prepare_downloads(Path(folder), options, watcher=_Silent())[0]


def run(
    method: str | Sequence[str],
    *,
    data: str | Path,
    runs: str | Path,
    shots: int | Sequence[int] = 4,
    target: str | Sequence[str] = "all",
    draws: int = 10,
    preset: str = "paper",
    settings: dict[str, Any] | None = None,
    benchmark: str | None = None,
    device: str = "auto",
    seed: int = 0,
    save_maps: bool = False,
    features: str | Path | None = None,
    features_gb: float | None = None,
    jobs: int | None = None,
    callbacks: "Sequence[RunCallback]" = (),
) -> pd.DataFrame:
    """Run methods on prepared sets under the strict protocol, as `medfsad run` does.

    Args:
        method: One name or several.
        data: Folder of prepared sets.
        runs: Folder for runs; those that are finished there aren't done again.
        shots: K, one or several.
        target: Sets to test on, by name.
        draws: Support draws.
        preset: Of the methods.
        settings: Fields of their configs.
        benchmark: Which one, if `data` holds several.
        device: auto, cpu, cuda or cuda:N.
        seed: Of training.
        save_maps: Whether to keep the anomaly maps.
        features: Folder where features of frozen networks lie, or `none`; on a CPU that is `.features` in `runs`
            unless given.
        features_gb: How much it may hold, in GB; 20 unless given.
        jobs: Processes that share the cells and the CPUs; None does one cell after the other in this process. They
            import the script that calls, so the call has to stand below `if __name__ == "__main__":`.
        callbacks: Told of stages, epochs, draws and rows; see `medfsad_bench.runner.callbacks.RunCallback`. They are
            told in this process, so they don't go with `jobs`.

    Returns:
        One line per row, see `leaderboard`.

    Raises:
        MethodError: If a method is unknown or wrongly set, or callbacks are given beside `jobs`.
        StoreError: If a set isn't prepared, or no such episodes exist.
        ResultsError: At the end, if some of several cells failed, with the reason of each.
    """
    from medfsad_bench.errors import MethodError, StoreError
    from medfsad_bench.registry import method_info
    from medfsad_bench.runner.plan import RunOptions, cells
    from medfsad_bench.runner.store_choice import chosen_store
    from medfsad_bench.runner.targets import chosen_targets
    from medfsad_bench.store.prepared import own_sets, prepared_sets

    if jobs is not None and (jobs < 1 or callbacks):
        raise MethodError(
            f"jobs is {jobs}{' and callbacks are given' if callbacks else ''}. Expected at least one process, and no "
            "callbacks beside it: these are told in the process that calls, and cells are made in others. Leave one "
            "of them out."
        )
    sets = prepared_sets(Path(data), benchmark)
    targets = chosen_targets(_several(target), sets, own_sets(Path(data)), Path(data))
    options = RunOptions(
        Path(runs), draws=draws, seed=seed, preset=preset, settings=settings or {}, save_maps=save_maps
    )
    infos = [method_info(name) for name in _several(method)]
    plan = [
        cell
        for dataset in targets
        for info in infos
        for cell in cells(info, [dataset], sets, [shots] if isinstance(shots, int) else list(shots), options)
    ]
    if absent := [cell for cell in plan if cell.absent]:
        raise StoreError(
            f"{absent[0].info.name} on {absent[0].target.name}: {absent[0].absent}. Choose other arguments."
        )
    folder = None if features is None else str(features)
    store = chosen_store(folder, features_gb, Path(runs), device, tell=lambda line: warnings.warn(line, stacklevel=2))
    rows = _run_here(plan, device, store, callbacks) if jobs is None else _run_in_others(plan, jobs, device, store)
    return _table(rows, Path(runs))


def leaderboard(runs: str | Path) -> pd.DataFrame:
    """The rows of a folder of runs.

    Returns:
        One line per row: benchmark, protocol, method, preset, target, shots, seed, each metric with its interval's ends
        (`_low`, `_high`; missing where there is none), `failed_checks`, in words, empty for a row that may rank, and
        `path`, the run's folder.

    Raises:
        ResultsError: If it holds no finished run.
    """
    from medfsad_bench.board.accepted import rows_in_runs
    from medfsad_bench.errors import ResultsError

    rows = rows_in_runs(Path(runs))
    if not rows:
        raise ResultsError(f"{runs} holds no finished run. Expected the folder that `run` wrote to.")
    return _table(rows, Path(runs))


def compare(first: str | Path | Sequence[str | Path], second: str | Path | Sequence[str | Path]) -> "Comparison":
    """Compare two runs, or two methods over several targets, on the same images and draws; first minus second.

    Args:
        first: Folders of runs, one per target.
        second: The same of the other.

    Raises:
        ResultsError: If targets, K, draws or members differ.
    """
    from medfsad_bench.board.comparison import compare as compare_runs

    return compare_runs([Path(path) for path in _several(first)], [Path(path) for path in _several(second)])


def _run_here(
    plan: "Sequence[Cell]", device: str, store: "FeatureStore | None", callbacks: "Sequence[RunCallback]"
) -> "list[Row]":
    from medfsad_bench.runner.callbacks import Together
    from medfsad_bench.runner.failures import Failures
    from medfsad_bench.runner.runner import Runner

    runner, failures, rows = Runner(device, store=store, callback=Together(callbacks)), Failures(len(plan)), []
    runner.announce(plan)
    for cell in plan:
        with failures.alone(cell.title):
            rows.append(runner.run(cell)[0])
    _stop_if_any(failures.paragraphs, len(plan))
    return rows


def _run_in_others(plan: "Sequence[Cell]", jobs: int, device: str, store: "FeatureStore | None") -> "list[Row]":
    from medfsad_bench.runner.engine.cells import run_on_processes

    rows, failures = run_on_processes(plan, jobs, device=device, store=store)
    _stop_if_any(failures, len(plan))
    return rows


def _stop_if_any(failures: Sequence[str], cells: int) -> None:
    from medfsad_bench.errors import ResultsError

    if failures:
        raise ResultsError(
            f"Of {cells} cells or what they need, {len(failures)} failed; the rows of the others are kept, and the "
            f"same call goes on from there. {' '.join(failures)}"
        )


def _several(given: Any) -> list[Any]:
    return [given] if isinstance(given, str | Path) else list(given)


def _table(rows: "Sequence[Row]", runs: Path) -> pd.DataFrame:
    names = ("benchmark", "protocol", "method", "preset", "target", "shots", "seed", "run_id")
    lines = []
    for row in rows:
        line: dict[str, Any] = {name: getattr(row, name) for name in names}
        for name, estimate in row.metrics.items():
            line |= {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
        failed = "; ".join(row.failed_checks.values())
        lines.append(line | {"failed_checks": failed, "path": str(runs / row.run_id)})
    return pd.DataFrame(lines)


class _Silent:
    """Shows no progress."""

    def start(self, label: str, total: int) -> None:
        """A stage begins."""

    def advance(self, steps: int) -> None:
        """Some steps are done."""
