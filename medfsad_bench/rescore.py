"""A run's row once more, from what it stored: no method, no image and no torch."""

from pathlib import Path

from medfsad_bench.figures import row_figures
from medfsad_bench.lint import lint_probes, lint_scores, lint_supports
from medfsad_bench.pixel_record import read_pixels
from medfsad_bench.results import Row, read_calibration, read_probes, read_scores


def rescored(folder: Path, row: Row) -> Row:
    """The row of the run in `folder`, every figure and every check of scores recomputed; a sound row is equal to it.

    What can't be recomputed from scores (clocks, digests, what the method was trained on) is taken over.

    Raises:
        ResultsError: If scores, calibration, probes or pixel record are missing or damaged.
    """
    scores = read_scores(folder / "scores.parquet")
    calibration = read_calibration(folder / "calibration.parquet")
    probes = read_probes(folder / "probes.parquet")
    found = row_figures(
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
        **lint_scores(scores, queries=row.n_normal + row.n_anomalous, draws=row.draws, seed=row.seed),
        **(lint_probes(probes, scores) if row.protocol == "strict" else {}),
        **lint_supports(own, scores),
    }
    return Row.model_validate({**row.model_dump(by_alias=True), **found.fields(), "lint": lint})


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
