"""A run's row once more, from what it stored: no method, no image and no torch."""

from pathlib import Path

import pandas as pd

from medfsad_bench.errors import ResultsError
from medfsad_bench.estimates.estimate import Estimate
from medfsad_bench.estimates.image import estimates_by
from medfsad_bench.estimates.of_run import estimates_of_run
from medfsad_bench.estimates.pixel import read_pixels
from medfsad_bench.results.protocol_checks import check_reruns, check_scores, check_supports
from medfsad_bench.results.row import Row, read_calibration, read_probes, read_scores


def rescored(folder: Path, row: Row) -> Row:
    """The row of the run in `folder`, every figure and every check of scores recomputed; a sound row is equal to it.

    What can't be recomputed from scores (clocks, digests, what the method was trained on) is taken over.

    Raises:
        ResultsError: If scores, calibration, probes or pixel record are missing or damaged.
    """
    scores = read_scores(folder / "scores.parquet")
    calibration = read_calibration(folder / "calibration.parquet")
    probes = read_probes(folder / "probes.parquet")
    found = estimates_of_run(
        scores,
        read_pixels(folder / "pixels.npz"),
        calibration,
        target=row.target,
        seed=row.seed,
        absent=row.absent,
    )
    own = calibration.loc[calibration["set"] == row.target, "group"].tolist()
    lint = {
        **row.lint,
        **check_scores(scores, queries=row.n_normal + row.n_anomalous, draws=row.draws, seed=row.seed),
        **(check_reruns(probes, scores) if row.protocol == "strict" else {}),
        **check_supports(own, scores),
    }
    return Row.model_validate({**row.model_dump(by_alias=True), **found.fields(), "lint": lint})


def broken_down(folder: Path, row: Row, column: str, table: Path | None = None) -> dict[str, Estimate]:
    """AUROC by a column of the run's scores, or of a CSV file with the images' `id`.

    Raises:
        ResultsError: If there is no such column, or the file doesn't hold every query once.
    """
    scores = read_scores(folder / "scores.parquet")
    if table is not None:
        scores = _joined(scores, table, column)
    return estimates_by(scores, column, seed=row.seed)


def differences(stored: Row, again: Row) -> list[str]:
    """Names of the figures, checks and other fields in which two rows differ."""
    one, other = stored.dump(), again.dump()
    names = []
    for field in one:
        if isinstance(one[field], dict) and field in ("metrics", "secondary", "absent", "operating", "lint"):
            keys = sorted({*one[field], *other[field]})
            names += [key for key in keys if one[field].get(key) != other[field].get(key)]
        elif one[field] != other[field]:
            names.append(field)
    return names


def _joined(scores: pd.DataFrame, path: Path, column: str) -> pd.DataFrame:
    try:
        known = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise ResultsError(
            f"--table {path} can't be read as CSV ({error}). Expected columns id and {column}."
        ) from error
    if missing := [name for name in ("id", column) if name not in known.columns]:
        raise ResultsError(f"--table {path} has no column {missing[0]!r}; there are {', '.join(known.columns)}.")
    values = dict(zip(known["id"], known[column], strict=True))
    lacking = sorted(set(scores["id"].astype(str)) - set(values))
    if lacking or len(values) != len(known):
        what = f"no line for {len(lacking)} queries, first {lacking[0]!r}" if lacking else "an id twice"
        raise ResultsError(f"--table {path} holds {what}. Expected one line per image.")
    return scores.assign(**{column: [values[one] for one in scores["id"].astype(str)]})
