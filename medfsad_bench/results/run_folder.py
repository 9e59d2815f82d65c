"""The folder of a run: the one place that knows the names of its files.

    <runs>/<run id>/config.json        what determines the result
                    environment.json   machine and versions
                    log.jsonl          what happened when
                    draws/, epochs/    what is finished of a run that isn't yet
                    scores.parquet     one line per query and draw, unrounded
                    calibration.parquet  scores of normal images that thresholds are set from, support by support
                    reruns.parquet     some queries scored once more, in other order and company
                    pixels.npz         what pixel and lesion estimates are recomputed from, without maps
                    support.npz        how much each support image counted, where a method tells
                    maps.h5            smoothed maps, if they were asked for; in maps/ while the run is made
                    row.json           the row

A run is finished when its row is there. Files appear whole or not at all; a run is locked while it is made.
"""

import hashlib
import json
import os
import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float32, Int64

from medfsad_bench.errors import ResultsError
from medfsad_bench.estimates.image import POOLINGS
from medfsad_bench.estimates.pixel import PixelDraw
from medfsad_bench.files import whole_folder, write_json
from medfsad_bench.results import storage
from medfsad_bench.results.row import Row, parse_row
from medfsad_bench.results.tables import DrawScores, with_poolings, without_poolings

_ROW, _CONFIG, _ENVIRONMENT, _LOG = "row.json", "config.json", "environment.json", "log.jsonl"
_SCORES, _CALIBRATION, _RERUNS = "scores.parquet", "calibration.parquet", "reruns.parquet"
_PIXELS, _SUPPORT, _MAPS = "pixels.npz", "support.npz", "maps.h5"
_RERUNS_BEFORE = "probes.parquet"  # their name, and that of their first column, in runs of row schema 1


@dataclass(frozen=True, slots=True)
class Measurements:
    """All that a row's estimates and checks are computed from.

    Attributes:
        scores: draw, index, id, group, anomalous, disease, score and, from maps, the poolings; a line per query, draw.
        calibration: set, draw, kind, position, id, group, score of normal images.
        reruns: rerun, draw, index, score of queries that were scored once more.
        pixels: The pixel record, one per draw; empty if there is none.
    """

    scores: pd.DataFrame
    calibration: pd.DataFrame
    reruns: pd.DataFrame
    pixels: tuple[PixelDraw, ...] = ()


class RunFolder:
    """One run on disk.

    Args:
        path: Of the folder; made when something is written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def finished(self) -> bool:
        """Whether the row is there."""
        return (self.path / _ROW).is_file()

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes that make the same run waiting.

        Raises:
            ResultsError: If the folder can't be made or written to.
        """
        with storage.locked(self.path):
            yield

    def begin(self, config: Mapping[str, Any], environment: Mapping[str, Any] | None = None) -> None:
        """Say what the run is, and where it is made."""
        with storage.writing(self.path):
            write_json(self.path / _CONFIG, config)
            if environment is not None:
                write_json(self.path / _ENVIRONMENT, environment)

    def config(self) -> dict[str, Any]:
        """What determines the result.

        Raises:
            ResultsError: If it's missing or damaged.
        """
        with storage.readable(self.path / _CONFIG):
            return dict(json.loads((self.path / _CONFIG).read_text("utf-8")))

    def log(self, event: str, **facts: Any) -> None:
        """Append one line per event."""
        line = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "event": event, **facts}
        with storage.writing(self.path), (self.path / _LOG).open("a+b") as file:
            if file.tell() and file.seek(-1, os.SEEK_END) and file.read() != b"\n":
                file.write(b"\n")  # the line before was cut short by a full disk
            file.write(json.dumps(line).encode() + b"\n")

    def last_event(self) -> dict[str, Any]:
        """The log's last line; empty if there is none, or a full disk cut it short."""
        with suppress(OSError, ValueError, IndexError):
            return dict(json.loads((self.path / _LOG).read_text("utf-8").splitlines()[-1]))
        return {}

    def keep(self, stage: str, number: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Leave on disk what is finished of `draws` or `epochs`, so that a broken run goes on with the next one."""
        with storage.writing(self.path):
            storage.write_arrays(self.path / stage / f"{number:04d}.npz", arrays)

    def kept(self, stage: str) -> dict[int, dict[str, np.ndarray]]:
        """What was kept of each of the `draws` or `epochs`, in their order; without those that a crash tore."""
        kept = {}
        for path in sorted((self.path / stage).glob("[0-9]*.npz")):
            with suppress(*storage.TORN):
                kept[int(path.stem)] = storage.read_arrays(path)
        return kept

    def restart_if_torn(self, stage: str, weights: Path) -> None:
        """Remove a stage, and the folder of the weights that it was made with, if a crash tore a part of it.

        For epochs of a training: the weights of one that is over are gone, so that it can't be made anew by itself.
        """
        names = list((self.path / stage).glob("[0-9]*.npz"))
        if len(self.kept(stage)) < len(names):
            self.log("restart", torn=stage)
            shutil.rmtree(weights, ignore_errors=True)  # first: a whole stage without weights is what a new run has
            shutil.rmtree(self.path / stage, ignore_errors=True)

    def save_maps(self, number: int, maps: Float32[np.ndarray, "n s s"], rows: Int64[np.ndarray, " n"]) -> None:
        """Keep the smoothed maps of a draw; `rows` are those of the queries."""
        with storage.writing(self.path):
            storage.write_maps(self._maps_of(number), number, maps, rows)

    def has_maps(self, number: int) -> bool:
        """Whether the maps of a draw were kept."""
        return storage.has_maps(self._maps_of(number), number)

    def maps(self, number: int, rows: Int64[np.ndarray, " m"]) -> Float32[np.ndarray, "m s s"]:
        """Smoothed maps of some queries in a draw.

        Raises:
            ResultsError: If none were kept, or can be read.
        """
        try:
            return storage.read_maps(self._maps_of(number), number, rows)
        except (OSError, KeyError) as error:
            remedy = "Run the cell again in another --runs folder with --save-maps."
            if not self.scores().columns.isin(POOLINGS).any():
                remedy = "Its method or protocol gives none; name a run of another."
            raise ResultsError(f"{self.path} holds no anomaly maps that can be read. {remedy}") from error

    def write(self, measured: Measurements, draws: list[DrawScores]) -> None:
        """Write all measurements, and what else is known of the draws."""
        with storage.writing(self.path):
            tables = {_SCORES: measured.scores, _CALIBRATION: measured.calibration, _RERUNS: measured.reruns}
            for name, table in tables.items():
                storage.write_table(self.path / name, table)
            weights = [draw.support for draw in draws if draw.support is not None]
            if weights:
                rows = measured.scores.loc[measured.scores["draw"] == 0, "index"].to_numpy(np.int64)
                storage.write_arrays(self.path / _SUPPORT, {"weights": np.stack(weights), "rows": rows})
            if measured.pixels:
                records = [(f"{number:02d}", draw.arrays()) for number, draw in enumerate(measured.pixels)]
                arrays = {f"{draw}/{name}": values for draw, record in records for name, values in record.items()}
                storage.write_arrays(self.path / _PIXELS, arrays)
            if all(self.has_maps(number) for number in range(len(draws))):
                storage.join_maps(self.path / _MAPS, [self._maps_of(number) for number in range(len(draws))])

    def measurements(self) -> Measurements:
        """Everything that `write` wrote of them.

        Raises:
            ResultsError: If a file is missing or damaged.
        """
        return Measurements(self.scores(), self.calibration(), self.reruns(), self.pixels())

    def scores(self) -> pd.DataFrame:
        """Scores of all draws; see `Measurements`."""
        return read_scores(self.path / _SCORES)

    def calibration(self) -> pd.DataFrame:
        """Scores of normal images that thresholds are set from; see `Measurements`."""
        return storage.read_table(self.path / _CALIBRATION, {"set", "draw", "kind", "id", "group", "score"})

    def reruns(self) -> pd.DataFrame:
        """Scores of queries that were scored once more; see `Measurements`."""
        before = self.path / _RERUNS_BEFORE
        if before.is_file():
            return storage.read_table(before, {"probe", "draw", "index", "score"}).rename(columns={"probe": "rerun"})
        return storage.read_table(self.path / _RERUNS, {"rerun", "draw", "index", "score"})

    def pixels(self) -> tuple[PixelDraw, ...]:
        """The pixel record of each draw; empty if the run has none.

        Raises:
            ResultsError: If it's damaged.
        """
        path, records = self.path / _PIXELS, defaultdict[str, dict[str, np.ndarray]](dict)
        if not path.is_file():
            return ()
        with storage.readable(path):
            for key, values in storage.read_arrays(path).items():
                draw, name = key.split("/")
                records[draw][name] = values
            return tuple(PixelDraw.of_arrays(records[draw]) for draw in sorted(records))

    def copy_measured(self, path: Path) -> None:
        """Keep elsewhere what the run is and what its figures need: no pixel record, maps or log, poolings as ranks."""
        with whole_folder(path) as temporary:
            shutil.copyfile(self.path / _CONFIG, temporary / _CONFIG)
            storage.write_table(temporary / _SCORES, without_poolings(self.scores()))
            storage.write_table(temporary / _CALIBRATION, self.calibration())
            storage.write_table(temporary / _RERUNS, self.reruns())

    def scores_digest(self) -> str:
        """SHA-256 of the scores by draw and query, however they are kept.

        Raises:
            ResultsError: If they are missing or damaged.
        """
        scores = self.scores().sort_values(["draw", "index"])[["draw", "index", "score"]]
        return hashlib.sha256(scores.to_numpy(np.float64).tobytes()).hexdigest()

    def support_weights(self, number: int) -> dict[int, np.ndarray]:
        """How much each support counted in a draw, by the query's row; empty where the method doesn't tell.

        Raises:
            ResultsError: If their file is damaged.
        """
        path = self.path / _SUPPORT
        if not path.is_file():
            return {}
        with storage.readable(path):
            arrays = storage.read_arrays(path)
            return dict(zip(arrays["rows"].tolist(), arrays["weights"][number], strict=True))

    def write_row(self, row: Row) -> None:
        """Write the row, which finishes the run: its single draws aren't needed any more."""
        with storage.writing(self.path):
            write_json(self.path / _ROW, row.dump())
        self.tidy()

    def tidy(self) -> None:
        """Remove from a finished run what only an unfinished one needs."""
        shutil.rmtree(self.path / "draws", ignore_errors=True)
        shutil.rmtree(self.path / "maps", ignore_errors=True)

    def row(self) -> Row:
        """The row.

        Raises:
            ResultsError: If it's missing, no JSON, or of no known schema.
        """
        if not self.finished:
            raise ResultsError(f"{self.path}: no {_ROW} there. Expected the folder of a finished run.")
        return parse_row((self.path / _ROW).read_text("utf-8"), where=str(self.path / _ROW))

    def _maps_of(self, number: int) -> Path:
        part = self.path / "maps" / f"draw{number:02d}.h5"
        return part if part.is_file() or not self.finished else self.path / _MAPS


def finished_runs(runs: Path) -> list[RunFolder]:
    """The finished runs of a folder, by name.

    Raises:
        ResultsError: If the folder is missing.
    """
    if not runs.is_dir():
        raise ResultsError(f"{runs} is no folder. Expected a folder of runs; `medfsad run` writes them.")
    return [RunFolder(path.parent) for path in sorted(runs.glob(f"*/{_ROW}"))]


def read_scores(path: Path) -> pd.DataFrame:
    """Read scores that lie anywhere, as those of an accepted row do; see `Measurements`.

    Raises:
        ResultsError: If the file is missing or damaged.
    """
    return with_poolings(storage.read_table(path, {"draw", "index", "id", "group", "anomalous", "score"}))


def scores_by_run(folder: Path) -> dict[str, Path]:
    """Files of scores by run id, of the runs in a folder."""
    return {path.parent.name: path for path in folder.glob(f"*/{_SCORES}")}
