"""One run as the site shows it: its draws, its supports, the command that makes it, and its scores as a table."""

import shlex
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from medfsad_bench.errors import MedfsadError
from medfsad_bench.estimates.image import score_matrix
from medfsad_bench.files import shown_cell, whole
from medfsad_bench.metrics.metric import IMAGE_AUROC
from medfsad_bench.registry import configure, method_info
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
        table: CSV to write: a line per query, its id, group, label and the score of every draw, unrounded.

    Raises:
        ResultsError: If a file is there and damaged.
    """
    if scores is None:
        return CellFacts((), (), command_of(row), has_scores=False)
    folder = RunFolder(scores.parent)
    matrix = score_matrix(folder.scores())
    draws = tuple(IMAGE_AUROC.score(of_draw, matrix.anomalous) for of_draw in matrix.scores)
    texts = {name: matrix.queries[name].astype(str).map(shown_cell) for name in ("id", "group")}
    by_draw = {f"draw{number:02d}": of_draw for number, of_draw in enumerate(matrix.scores)}
    with whole(table) as temporary:
        pd.DataFrame({**texts, "anomalous": matrix.anomalous.astype(int), **by_draw}).to_csv(temporary, index=False)
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
    try:
        defaults = asdict(configure(method_info(row.method), preset=row.preset))
    except (MedfsadError, TypeError):
        defaults = {}  # not installed here: all settings are named
    for name, value in row.config.items():
        if name != "shots" and value != _as_json(defaults.get(name)):
            text = ",".join(map(str, value)) if isinstance(value, list) else str(value).lower()
            words += ["--set", f"{name}={text if isinstance(value, list | bool | None) else value}"]
    return shlex.join(words)


def _supports(folder: RunFolder, row: Row) -> tuple[tuple[str, ...], ...]:
    kept = folder.calibration()
    mine = kept[(kept["set"] == row.target) & (kept["kind"] == "support")]
    return tuple(tuple(dict.fromkeys(part["id"].astype(str))) for _, part in mine.groupby("draw"))


def _as_json(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value
