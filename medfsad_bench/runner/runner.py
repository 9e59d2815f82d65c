"""One cell from beginning to end: train or reuse, score ten draws, write the run's folder.

A finished run isn't done twice; a broken one resumes at its last epoch and its last finished draw; two processes can
work in one folder, as every run is locked while it's made.
"""

import importlib.metadata
import json
import os
import platform
import resource
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import torch
from filelock import FileLock

from medfsad_bench import __version__
from medfsad_bench.errors import MethodError
from medfsad_bench.estimates.of_run import estimates_of_run
from medfsad_bench.estimates.pixel import PixelDraw, write_pixels
from medfsad_bench.method import Backbone, Method
from medfsad_bench.results.row import Row, read_row, target_facts, write_json, write_table
from medfsad_bench.runner.context import LocalContext, denormals_flushed
from medfsad_bench.runner.evaluate import DrawScores, Target, score_draw, scores_table
from medfsad_bench.runner.features import FeatureCache
from medfsad_bench.runner.memory import memory_told
from medfsad_bench.runner.pixels import PixelTruth
from medfsad_bench.runner.plan import Cell
from medfsad_bench.runner.published import PublishedRun
from medfsad_bench.runner.rerun_checks import calibration_table, checks_of, rerun_table
from medfsad_bench.runner.training import Trained, train

Progress = Callable[[str, int, int, dict[str, float]], None]


class Runner:
    """Runs cells on one device; the feature cache is shared by all of them."""

    def __init__(self, device: str = "auto", *, progress: Progress = lambda *_: None) -> None:
        self.device = choose_device(device)
        self.cache = FeatureCache(self.device)
        self.progress = progress
        torch.use_deterministic_algorithms(True, warn_only=True)
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

    def announce(self, cells: Iterable[Cell]) -> None:
        """Let one pass of a network serve all of a sweep's cells: those whose config tells its `features`."""
        found = (getattr(cell.config, "features", None) for cell in cells)
        self.cache.announce(backbone for backbone in found if isinstance(backbone, Backbone))

    def run(self, cell: Cell) -> tuple[Row, bool]:
        """The cell's row, and whether it was there already."""
        folder = cell.options.runs / cell.run_id
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            if (folder / "row.json").is_file():
                return read_row(folder / "row.json"), True
            return self._make(cell, folder), False

    def _make(self, cell: Cell, folder: Path) -> Row:
        log = _Log(folder / "log.jsonl")
        write_json(folder / "config.json", {"run_id": cell.run_id, **cell.identity})
        write_json(folder / "environment.json", environment(self.device))
        context = LocalContext(self.device, cell.options.seed, self.cache)
        context.on_progress = lambda done, total, figures: self.progress("training", done, total, figures)
        log("training", training_id=cell.training_id if cell.trains else "")
        with memory_told(self.device, cell.config), denormals_flushed():
            method = cell.info.build(cell.config)
            if cell.options.protocol == "published":
                trained, scored = self._published(cell, method, context, folder, log)
            else:
                trained = train(method, cell, context)
                log("scoring", pretrain_s=trained.seconds, reused=trained.reused)
                scored = self._score(cell, method, context, folder, log)
        row = _row(cell, trained, scored, self.device)
        write_json(folder / "row.json", row.dump())
        log("done", **{name: figure.value for name, figure in row.metrics.items()})
        return row

    def _score(self, cell: Cell, method: Method, context: LocalContext, folder: Path, log: "_Log") -> "_Scored":
        options = cell.options
        target = Target(cell.target, self.device, seed=options.seed, contaminated=options.contaminated, pool=cell.pool)
        truth = PixelTruth(cell.target, target.rows)
        total, done = cell.options.draws * len(target.rows), 0
        scored = _Scored(target=target, truth=truth)
        for number in range(cell.options.draws):
            kept = _kept_draw(folder, number)
            if kept is None:
                base = number * len(target.rows)

                def advance(count: int, base: int = base) -> None:
                    nonlocal done
                    done = max(done, base) + count
                    self.progress("scoring", done, total, {})

                draw = score_draw(
                    method,
                    target,
                    context,
                    draw=number,
                    shots=cell.shots,
                    batch_size=cell.options.batch_size,
                    on_batch=advance,
                )
                pixel = truth.measure(draw.maps) if draw.maps is not None and not truth.absent else None
                if cell.options.save_maps and draw.maps is not None:
                    _save_maps(folder, number, draw.maps, target.rows)
                kept = _keep_draw(folder, number, draw, pixel)
                log("draw", number=number, adapt_s=draw.adapt_s, score_s=draw.score_s)
            scored.add(kept)
        scored.write(folder)
        scored.probe(cell, method, context, folder)
        if scored.pixel:
            write_pixels(folder / "pixels.npz", scored.pixel)
        for number in range(cell.options.draws):
            (folder / f".draw{number:02d}.npz").unlink(missing_ok=True)
        return scored

    def _published(
        self, cell: Cell, method: Method, context: LocalContext, folder: Path, log: "_Log"
    ) -> "tuple[Trained, _Scored]":
        target = Target(cell.target, self.device, seed=cell.options.seed, pool=cell.pool)
        published = PublishedRun(target, context, folder, shots=cell.shots)

        def evaluate(epoch: int) -> None:
            log("epoch", number=epoch, test_auroc=published.evaluate(method, epoch))

        trained = train(method, cell, context, folder=folder / "training", on_epoch=evaluate)
        if not published.evaluated:
            if cell.trains and cell.options.checkpoint is None and getattr(cell.config, "epochs", None) != 0:
                raise MethodError(
                    f"Protocol published picks an epoch, and {cell.info.name} never told the end of one "
                    "(context.epoch_end). Run it under --protocol strict."
                )
            evaluate(0)
        scored = _Scored(target=target, truth=PixelTruth(cell.target, target.rows))
        scored.truth.absent = "protocol published states image figures alone"
        scored.selected_epoch, best = published.best()
        scored.positions = published.scored
        scored.add((best, None))
        scored.write(folder)
        scored.probe(cell, method, context, folder)
        return trained, scored


class _Scored:
    """All draws of a cell."""

    def __init__(self, *, target: Target, truth: PixelTruth) -> None:
        self.target, self.truth = target, truth
        self.draws: list[DrawScores] = []
        self.pixel: list[PixelDraw] = []
        self.table = self.calibration = self.probes = pd.DataFrame()
        self.positions: np.ndarray | None = None  # of those among the test rows that were scored; None for all
        self.selected_epoch: int | None = None

    @property
    def queries(self) -> int:
        """How many test images were scored."""
        return len(self.target.rows) if self.positions is None else len(self.positions)

    def add(self, kept: tuple[DrawScores, PixelDraw | None]) -> None:
        self.draws.append(kept[0])
        if kept[1] is not None:
            self.pixel.append(kept[1])

    def write(self, folder: Path) -> None:
        self.table = scores_table(self.target, self.draws, self.positions)
        if not self.truth.absent:
            self.table["lesion_share"] = np.tile(self.truth.lesion_shares(), len(self.draws))
        write_table(folder / "scores.parquet", self.table)
        weights = [draw.support for draw in self.draws if draw.support is not None]
        if weights:
            temporary = folder / ".support.tmp.npz"
            np.savez_compressed(temporary, weights=np.stack(weights), rows=self.target.rows)
            temporary.replace(folder / "support.npz")

    def probe(self, cell: Cell, method: Method, context: LocalContext, folder: Path) -> None:
        """Score what thresholds and the lint need beside the queries."""
        self.calibration = calibration_table(cell, method, context)
        write_table(folder / "calibration.parquet", self.calibration)
        self.probes = rerun_table(cell, method, context, self.target.rows)
        write_table(folder / "probes.parquet", self.probes)


class _Log:
    """Appends one JSON line an event."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self, event: str, **known: Any) -> None:
        line = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "event": event, **known}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def choose_device(name: str) -> torch.device:
    """The device that `--device` names; `auto` takes CUDA where there is one.

    Raises:
        MethodError: If it isn't there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise MethodError(
            f"--device {name!r} can't be used here ({str(error).splitlines()[0]}). Expected auto, cpu, cuda or cuda:N."
        ) from error
    return device


def environment(device: torch.device) -> dict[str, Any]:
    """Machine and versions, for whoever wonders about a number later."""
    names = ("torch", "timm", "numpy", "scipy", "scikit-learn", "pandas", "h5py")
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "processor": platform.machine(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": str(device),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else "",
        "packages": {name: importlib.metadata.version(name) for name in names},
        "medfsad": __version__,
    }


def _row(cell: Cell, trained: Trained, scored: _Scored, device: torch.device) -> Row:
    absent = scored.truth.absent or ("" if scored.pixel else f"{cell.info.name} gives no maps")
    found = estimates_of_run(
        scored.table,
        scored.pixel,
        scored.calibration,
        target=cell.target.name,
        seed=cell.options.seed,
        absent=dict.fromkeys(scored.truth.figures, absent) if absent else {},
    )
    lint = checks_of(cell, scored.table, scored.calibration, scored.probes, queries=scored.queries)
    return Row(
        run_id=cell.run_id,
        **target_facts(cell.target, scored.table.loc[scored.table["draw"] == 0, "index"].to_numpy()),
        protocol=cell.options.protocol,
        hold_out=cell.options.hold_out,
        method=cell.info.name,
        method_version=cell.info.version,
        preset=cell.options.preset,
        config=json.loads(json.dumps(cell.identity["config"])),
        weights_digest=cell.weights_digest,
        knowledge=cell.info.knowledge,
        contaminated=lint["contamination"].startswith("flagged"),
        sources={s.name: s.attributes["membership_digest"] for s in cell.sources},
        trained_shots=trained.shots,
        shots=cell.shots,
        draws=cell.options.draws,
        seed=cell.options.seed,
        contaminated_supports=cell.options.contaminated,
        n_unscored=len(scored.target.rows) - scored.queries,
        n_reserved=len(scored.target.reserved),
        selected_epoch=scored.selected_epoch,
        **found.fields(),
        lint=lint,
        pretrain_s=trained.seconds,
        adapt_s=float(np.median([draw.adapt_s for draw in scored.draws])),
        score_ms_per_image=1e3 * float(np.median([draw.score_s for draw in scored.draws])) / scored.queries,
        peak_memory_mb=_peak_memory_mb(device),
        device=str(device),
        package_version=__version__,
        date=time.strftime("%Y-%m-%d", time.gmtime()),
        warnings=(trained.warning,) if trained.warning else (),
    )


def _peak_memory_mb(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def _keep_draw(
    folder: Path, number: int, draw: DrawScores, pixel: PixelDraw | None
) -> tuple[DrawScores, PixelDraw | None]:
    """Leave a finished draw on disk, so that a broken run goes on with the next one; its maps aren't needed again."""
    known = {"adapt_s": np.array(draw.adapt_s), "score_s": np.array(draw.score_s)}
    known |= {f"score/{name}": value for name, value in draw.columns.items()}
    known |= {f"pixel/{name}": value for name, value in pixel.arrays().items()} if pixel else {}
    known |= {"support": draw.support} if draw.support is not None else {}
    temporary = folder / f".draw{number:02d}.tmp.npz"
    np.savez(temporary, **known)  # type: ignore[arg-type]  # NumPy's stub takes the names for options
    temporary.replace(folder / f".draw{number:02d}.npz")
    return replace(draw, maps=None), pixel


def _kept_draw(folder: Path, number: int) -> tuple[DrawScores, PixelDraw | None] | None:
    path = folder / f".draw{number:02d}.npz"
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as file:
        parts: dict[str, dict[str, np.ndarray]] = {"score": {}, "pixel": {}, "known": {}}
        for key in file.files:
            kind, _, name = key.rpartition("/")
            parts[kind or "known"][name] = file[key]
    known = parts["known"]
    adapt_s, score_s = float(known["adapt_s"]), float(known["score_s"])
    draw = DrawScores(parts["score"], support=known.get("support"), adapt_s=adapt_s, score_s=score_s)
    return draw, PixelDraw.of_arrays(parts["pixel"]) if parts["pixel"] else None


def _save_maps(folder: Path, number: int, maps: np.ndarray, rows: np.ndarray) -> None:
    with h5py.File(folder / "maps.h5", "a") as file:
        if f"draw{number:02d}" in file:
            del file[f"draw{number:02d}"]
        file.create_dataset(
            f"draw{number:02d}", data=maps, chunks=(1, *maps.shape[1:]), compression="gzip", shuffle=True
        )
        if "rows" not in file:
            file.create_dataset("rows", data=rows)
