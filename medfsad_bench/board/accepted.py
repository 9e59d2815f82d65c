"""Accepted rows: which runs and results there are, what is taken in, and whether what was taken in still holds."""

import json
from pathlib import Path

import numpy as np

from medfsad_bench.board.groups import groups
from medfsad_bench.board.pages import as_markdown
from medfsad_bench.errors import MedfsadError, ResultsError
from medfsad_bench.estimates.image import score_matrix
from medfsad_bench.files import write_text
from medfsad_bench.metrics.metric import IMAGE_AUROC
from medfsad_bench.results.rescore import differences, rescored
from medfsad_bench.results.row import Row, parse_row
from medfsad_bench.results.run_folder import RunFolder, finished_runs, read_scores, scores_by_run


def rows_in_runs(runs: Path) -> list[Row]:
    """Rows of all finished runs in a folder.

    Raises:
        ResultsError: If the folder is missing or a row is damaged.
    """
    return [folder.row() for folder in finished_runs(runs)]


def rows_in_results(results: Path) -> list[Row]:
    """Accepted rows, of all methods.

    Raises:
        ResultsError: If a line is damaged.
    """
    rows = []
    for path in sorted(results.glob("*.jsonl")):
        for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1):
            rows.append(parse_row(line, where=f"{path.name}, line {number}"))
    return rows


def accept(run: Path, results: Path) -> Row:
    """Validate a run by recomputing its estimates and append its row to `<results>/<method>.jsonl`.

    Raises:
        ResultsError: If the estimates differ from the scores, a protocol check failed, or the row is there already.
    """
    folder = RunFolder(run)
    row = folder.row()
    differ = differences(row, rescored(folder))
    if differ:
        raise ResultsError(
            f"{run}: {', '.join(differ)} of its row can't be recomputed from its scores. Run the cell again."
        )
    for check_name, fault in row.failed_checks.items():
        raise ResultsError(f"{run}: kept off the board, as the protocol check {check_name!r} failed: {fault}.")
    if row.run_id in {accepted.run_id for accepted in rows_in_results(results)}:
        raise ResultsError(f"{run}: the row {row.run_id} is among the results already. Nothing was added.")
    folder.copy_scores(_scores_of(row, results))
    path = results / f"{row.method.replace(':', '-')}.jsonl"
    before = path.read_text("utf-8") if path.is_file() else ""
    write_text(path, before + json.dumps(row.dump(), ensure_ascii=False) + "\n")
    return row


def check(results: Path) -> list[str]:
    """What's wrong with the accepted rows: damaged, twice, or the committed page is stale."""
    rows = rows_in_results(results)
    seen: set[str] = set()
    faults = []
    for row in rows:
        if row.run_id in seen:
            faults.append(f"{row.run_id} stands twice")
        seen.add(row.run_id)
        faults += _score_faults(row, _scores_of(row, results))
    page = results.parent / "LEADERBOARD.md"
    shown = as_markdown(groups(rows, scores_by_run(results)))
    if rows and (not page.is_file() or page.read_text("utf-8") != shown):
        faults.append("LEADERBOARD.md is stale; write it anew with `medfsad leaderboard --format md`")
    return faults


def _scores_of(row: Row, results: Path) -> Path:
    """Where an accepted row's scores lie, so that anyone can recompute it, and pair it with another."""
    return results / "scores" / f"{row.run_id}.parquet"


def _score_faults(row: Row, path: Path) -> list[str]:
    """Whether the accepted scores are there and give the row's AUROC."""
    try:
        matrix = score_matrix(read_scores(path))
        recomputed = float(np.mean([IMAGE_AUROC.score(draw, matrix.anomalous) for draw in matrix.scores]))
    except MedfsadError as error:
        return [f"{row.run_id}: {error}"]
    stated = row.metrics[IMAGE_AUROC.name].value
    if recomputed == stated:
        return []
    return [f"{row.run_id}: its scores give an AUROC of {recomputed:.6f}, the row {stated:.6f}"]
