"""A run's row once more, from what it stored: no method, no image and no torch."""

import math
from pathlib import Path
from typing import Any

import pandas as pd

from medfsad_bench.errors import ResultsError
from medfsad_bench.estimates.estimate import Estimate
from medfsad_bench.estimates.image import estimates_by, score_matrix
from medfsad_bench.results.assembly import reassembled
from medfsad_bench.results.row import Row
from medfsad_bench.results.run_folder import RunFolder

_ROUNDING = 1e-6


def rescored(folder: RunFolder) -> Row:
    """The row of a run, recomputed from its folder: a sound row is equal to it.

    Raises:
        ResultsError: If scores, calibration, reruns or pixel record are missing or damaged.
    """
    return reassembled(folder.row(), folder.measurements())


def broken_down(folder: RunFolder, column: str, table: Path | None = None) -> dict[str, Estimate]:
    """AUROC by a column of the run's scores, or of a CSV file with the images' `id`.

    Raises:
        ResultsError: If there is no such column, or the file doesn't hold every query once.
    """
    scores = folder.scores()
    if table is not None:
        scores = _joined(scores, table, column)
    return estimates_by(score_matrix(scores), column, seed=folder.row().seed)


def differences(stored: Row, again: Row) -> list[str]:
    """Names of the estimates, checks and other fields in which two rows differ.

    Numbers are the same if they agree to six digits: another kind of processor, or another number of threads, adds up
    in another order.
    """
    before, after = stored.dump(), again.dump()
    names = []
    for field in before:
        if isinstance(before[field], dict) and field in ("metrics", "secondary", "absent", "thresholds", "checks"):
            keys = sorted({*before[field], *after[field]})
            names += [key for key in keys if not _same(before[field].get(key), after[field].get(key))]
        elif not _same(before[field], after[field]):
            names.append(field)
    return names


def _same(before: Any, after: Any) -> bool:
    if isinstance(before, dict) and isinstance(after, dict):
        return before.keys() == after.keys() and all(_same(before[key], after[key]) for key in before)
    if isinstance(before, float) and isinstance(after, float):
        return math.isclose(before, after, rel_tol=_ROUNDING, abs_tol=_ROUNDING**2)
    return bool(before == after)


def _joined(scores: pd.DataFrame, path: Path, column: str) -> pd.DataFrame:
    try:
        given = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise ResultsError(
            f"--table {path} can't be read as CSV ({error}). Expected columns id and {column}."
        ) from error
    if missing := [name for name in ("id", column) if name not in given.columns]:
        raise ResultsError(f"--table {path} has no column {missing[0]!r}; there are {', '.join(given.columns)}.")
    values = dict(zip(given["id"], given[column], strict=True))
    lacking = sorted(set(scores["id"].astype(str)) - set(values))
    if lacking or len(values) != len(given):
        what = f"no line for {len(lacking)} queries, first {lacking[0]!r}" if lacking else "an id twice"
        raise ResultsError(f"--table {path} holds {what}. Expected one line per image.")
    return scores.assign(**{column: [values[id_] for id_ in scores["id"].astype(str)]})
