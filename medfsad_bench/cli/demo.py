"""`medfsad demo`: the whole path on generated data, offline, on the CPU."""

import shutil
import time
from pathlib import Path
from typing import Annotated

import typer

from medfsad_bench.cli.cells import failures_of, run_cells, stop_if_failed
from medfsad_bench.cli.console import err, out, progress_bars
from medfsad_bench.cli.options import Workers
from medfsad_bench.errors import MedfsadError

_METHODS = ("chance", "patchcore", "d24fad")
_SETTINGS = {"d24fad": {"steps": 10}}


def demo(
    out_dir: Annotated[Path, typer.Option("--out", help="Folder to write everything into.")] = Path("medfsad-demo"),
    workers: Workers = 2,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the generated data and of training.")] = 0,
    keep: Annotated[bool, typer.Option("--keep", help="Go on in a folder that an earlier demo left.")] = False,
) -> None:
    """Generate raw data in the true layouts, prepare, run three methods, show the leaderboard, score own images."""
    from medfsad_bench.board.accepted import rows_in_runs
    from medfsad_bench.board.groups import groups
    from medfsad_bench.board.terminal import as_tables
    from medfsad_bench.curation.stage import PrepareOptions, prepare
    from medfsad_bench.demo import write_demo_downloads
    from medfsad_bench.registry import method_info
    from medfsad_bench.results.run_folder import scores_by_run
    from medfsad_bench.runner.plan import RunOptions, cells
    from medfsad_bench.runner.runner import Runner
    from medfsad_bench.store.prepared import prepared_sets

    started = time.monotonic()
    raw, data, runs = out_dir / "raw", out_dir / "data", out_dir / "runs"
    _clear(out_dir, keep=keep)
    with progress_bars() as bars:
        if not raw.exists():
            bars.start("generating raw data", 1)
            write_demo_downloads(raw, seed=seed, on_progress=bars.at)
        reports, _ = prepare(raw, PrepareOptions(data, benchmark="demo", workers=workers, size_px=128), watcher=bars)
        for report in reports:
            counts = ", ".join(f"{count} {name}" for name, count in report.counts.items())
            err.print(f"prepared {report.name}: {counts}")
    sets = prepared_sets(data, "demo")
    plan = []
    for name in _METHODS:
        options = RunOptions(runs, draws=5, preset="quick", seed=seed, settings=_SETTINGS.get(name, {}))
        plan += cells(method_info(name), sets, sets, [4], options)
    failures = failures_of(plan)
    stop_if_failed(run_cells(plan, Runner("cpu"), failures), failures.paragraphs)
    for table in as_tables(groups(rows_in_runs(runs), scores_by_run(runs)), width=out.width):
        out.print(table)
    page = _score_own_images(raw / "brain-tumor-mri-dataset", out_dir / "scores")
    out.print(
        f"Own images, without labels: {page} shows which of a few new ones are unlike a few normal ones.",
        markup=False,
    )
    out.print(
        f"Generated images, not patients: these numbers say that the path works, nothing about a method. "
        f"{time.monotonic() - started:.0f} s; files are in {out_dir}."
    )


def _score_own_images(download: Path, folder: Path) -> Path:
    """Score some of the download's images against a few normal ones, as `medfsad score` does; returns the report."""
    from medfsad_bench.own_images.folder import ScoreOptions, score_folder
    from medfsad_bench.own_images.reading import ReadingOptions
    from medfsad_bench.own_images.trained import DEFAULT_METHOD, MethodOptions

    support, *new = (
        sorted((download / side).glob("*.jpg"))[:count]
        for side, count in (("Training/notumor", 6), ("Testing/notumor", 4), ("Training/glioma", 3))
    )
    method = MethodOptions(DEFAULT_METHOD, preset="quick", device="cpu")
    with progress_bars() as bars:
        images = [path for paths in new for path in paths]
        score_folder(ScoreOptions(support, images, folder, method, ReadingOptions(128), command="medfsad demo"), bars)
    return folder / "report.html"


def _clear(folder: Path, *, keep: bool) -> None:
    """Start anew in a folder that an earlier demo left; never touch another one."""
    marker = folder / ".medfsad-demo"
    if folder.exists() and not folder.is_dir():
        raise MedfsadError(f"--out {folder} is a file. Expected a folder, new or left by an earlier demo.")
    if folder.is_dir() and any(folder.iterdir()):
        if not marker.is_file():
            raise MedfsadError(
                f"--out {folder} isn't empty and wasn't written by the demo. Expected a new folder; choose another."
            )
        if not keep:
            for name in ("raw", "data", "runs", "scores"):
                shutil.rmtree(folder / name, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    marker.touch()
