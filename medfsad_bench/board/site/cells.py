"""One run as the site shows it: its draws, its supports, the command that makes it, and its scores as a table."""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from medfsad_bench.board.site.downloads import write_table
from medfsad_bench.estimates.image import score_matrix
from medfsad_bench.metrics.metric import IMAGE_AUROC
from medfsad_bench.registry import preset_settings
from medfsad_bench.results.habits import HabitStudy
from medfsad_bench.results.row import Row
from medfsad_bench.results.run_folder import RunFolder


@dataclass(frozen=True, slots=True)
class CellFacts:
    """What is known of a run beside its row.

    Attributes:
        draws: Image AUROC of each draw; empty where the scores aren't at hand.
        supports: Ids of each draw's normal supports.
        command: That makes the run.
        has_scores: Whether a table of scores lies beside the page.
    """

    draws: tuple[float, ...]
    supports: tuple[tuple[str, ...], ...]
    command: str
    has_scores: bool


def facts_of(row: Row, scores: Path | None, table: Path) -> CellFacts:
    """Read what is kept of a run, and write its scores for a spreadsheet.

    Args:
        row: The run's row.
        scores: Its file of scores, or None.
        table: CSV and Parquet to write, a path without a suffix: a line per query, its id, group, label and the score
            of every draw, unrounded.

    Raises:
        ResultsError: If a file is there and damaged.
    """
    if scores is None:
        return CellFacts((), (), command_of(row), has_scores=False)
    folder = RunFolder(scores.parent)
    matrix = score_matrix(folder.scores())
    draws = tuple(IMAGE_AUROC.score(of_draw, matrix.anomalous) for of_draw in matrix.scores)
    texts = {name: matrix.queries[name].astype(str) for name in ("id", "group")}
    by_draw = {f"draw{number:02d}": of_draw for number, of_draw in enumerate(matrix.scores)}
    write_table(pd.DataFrame({**texts, "anomalous": matrix.anomalous.astype(int), **by_draw}), table)
    return CellFacts(draws, _supports(folder, row), command_of(row), has_scores=True)


def command_of(row: Row) -> str:
    """The command that makes a row, with the settings in which it differs from its preset."""
    if row.submitted:
        return ""
    words = ["medfsad", "run", row.method, "--target", row.target, "--shots", str(row.shots)]
    words += ["--preset", row.preset, "--draws", str(row.draws), "--seed", str(row.seed)]
    words += [] if row.hold_out == "dataset" else ["--hold-out", row.hold_out]
    words += [] if row.protocol == "strict" else ["--protocol", row.protocol]
    words += ["--contaminated", str(row.contaminated_supports)] if row.contaminated_supports else []
    return shlex.join([*words, *_settings(row)])


def command_of_study(study: HabitStudy) -> str:
    """The command that makes a study of the published protocol's habits."""
    words = ["medfsad", "protocols", study.method, "--target", study.target, "--shots", str(study.shots)]
    words += ["--preset", study.preset, "--draws", str(study.draws), "--seed", str(study.seed)]
    return shlex.join([*words, *_settings(study)])


def _settings(of: Row | HabitStudy) -> Iterator[str]:
    """Words for the settings that aren't their preset's."""
    defaults = preset_settings(of.method, of.preset)  # all are named where the method isn't installed
    for name, value in of.config.items():
        if name != "shots" and value != defaults.get(name):
            text = ",".join(map(str, value)) if isinstance(value, list) else str(value).lower()
            yield "--set"
            yield f"{name}={text if isinstance(value, list | bool | None) else value}"


def _supports(folder: RunFolder, row: Row) -> tuple[tuple[str, ...], ...]:
    kept = folder.calibration()
    supports = kept[(kept["set"] == row.target) & (kept["kind"] == "support")]
    return tuple(tuple(dict.fromkeys(part["id"].astype(str))) for _, part in supports.groupby("draw"))
