"""One cell from beginning to end: train or reuse, score ten draws, write the run's folder.

A finished run isn't done twice; a broken one resumes at its last epoch and its last finished draw; two processes can
work in one folder, as every run is locked while it's made. Done twice, it gives the same scores bit for bit on one
machine with one number of threads; sums in another order move a score by up to 1e-5, so the row tells the threads.
"""

import importlib.metadata
import os
import platform
import resource
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch

from medfsad_bench import __version__
from medfsad_bench.errors import MethodError
from medfsad_bench.method import Backbone
from medfsad_bench.results.assembly import assemble_row, stated_fields
from medfsad_bench.results.identity import RUN_ID
from medfsad_bench.results.row import Row
from medfsad_bench.results.run_folder import Measurements, RunFolder
from medfsad_bench.results.tables import scores_table
from medfsad_bench.runner.callbacks import SILENT, RunCallback
from medfsad_bench.runner.feature_store import FeatureStore
from medfsad_bench.runner.features import CACHE_BYTES, FeatureCache
from medfsad_bench.runner.opened import Progress, opened
from medfsad_bench.runner.plan import Cell
from medfsad_bench.runner.published import score_published
from medfsad_bench.runner.rerun_checks import calibration_table, rerun_table
from medfsad_bench.runner.scoring import score_strict


class Runner:
    """Runs cells on one device; the feature cache is shared by all of them.

    Args:
        device: As `--device` names it.
        progress: Told of each stage.
        store: Where features lie on disk; None keeps them in memory alone.
        cache_bytes: Room for features in memory.
        callback: Told of stages, epochs, draws and rows.
    """

    def __init__(
        self,
        device: str = "auto",
        *,
        progress: Progress = lambda *_: None,
        store: FeatureStore | None = None,
        cache_bytes: int = CACHE_BYTES,
        callback: RunCallback = SILENT,
    ) -> None:
        self.device = choose_device(device)
        self.cache = FeatureCache(self.device, budget_bytes=cache_bytes, store=store)
        self.progress = progress
        self.callback = callback
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.allow_tf32 = False  # torch's default: convolutions with 10 bits, which no CPU has
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

    def announce(self, cells: Iterable[Cell]) -> None:
        """Let one pass of a network serve all of a sweep's cells: those whose config tells its `features`."""
        self.cache.announce(announced(cells))

    def run(self, cell: Cell) -> tuple[Row, bool]:
        """The cell's row, and whether it was there already."""
        try:
            row, done_before = self._row_of(cell)
            self.callback.on_row(cell, row)
        finally:
            self.callback.on_left(cell)
        return row, done_before

    def _row_of(self, cell: Cell) -> tuple[Row, bool]:
        folder = RunFolder(cell.options.runs / cell.run_id)
        if not folder.finished:
            with folder.lock():
                if not folder.finished:
                    return self._make(cell, folder), False
        folder.tidy()
        return folder.row(), True

    def _make(self, cell: Cell, folder: RunFolder) -> Row:
        folder.begin({RUN_ID: cell.run_id, **cell.identity, **cell.statements}, environment(self.device))
        folder.log("training", training_id=cell.training_id if cell.trains else "")
        with opened(cell, self.device, self.cache, self.progress, self.callback) as run:
            score = score_published if cell.options.protocol == "published" else score_strict
            scored = score(run, folder)
            scores = scores_table(cell.target, scored.rows, scored.draws)
            pixels = tuple(draw.pixel for draw in scored.draws if draw.pixel is not None)
            measured = Measurements(scores, calibration_table(run), rerun_table(run), pixels)
            folder.write(measured, scored.draws)
        trained = scored.trained
        stated = stated_fields(
            cell.target,
            no_pixels=scored.absent,
            has_seen=cell.info.has_seen,
            unknown_training=trained.unknown,
            **cell.facts,
            trained_shots=trained.shots,
            n_unscored=len(cell.episodes.queries) - len(scored.rows),
            n_reserved=len(cell.episodes.reserved),
            selected_epoch=scored.selected_epoch,
            pretrain_s=trained.seconds,
            adapt_s=float(np.median([draw.adapt_s for draw in scored.draws])),
            score_ms_per_image=1e3 * float(np.median([draw.score_s for draw in scored.draws])) / len(scored.rows),
            peak_memory_mb=_peak_memory_mb(self.device),
            device=str(self.device),
            threads=tuple(sorted({draw.threads for draw in scored.draws})),
            warnings=(f"{trained.unknown}: it may have seen the target",) if trained.unknown else (),
        )
        row = assemble_row(measured, stated)
        folder.write_row(row)
        folder.log("done", **{name: estimate.value for name, estimate in row.metrics.items()})
        return row


def announced(cells: Iterable[Cell]) -> Iterator[Backbone]:
    """The networks that cells tell they will use, with the stages that each asks for."""
    backbones = (getattr(cell.config, "features", None) for cell in cells)
    return (backbone for backbone in backbones if isinstance(backbone, Backbone))


def _peak_memory_mb(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


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
