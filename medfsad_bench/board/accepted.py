"""Accepted rows: which runs and results there are, what is taken in, and whether what was taken in still holds.

<results>/<method>.jsonl     the rows
          runs/<run id>/     what each is recomputed from: config.json and all that was measured but pixel records,
                             `score` to its last bit, the other poolings of maps as ranks within their draw
          reproduced/        marks of rows that a maintainer has re-run, see `results.reproduction`
"""

import json
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from medfsad_bench.board import reported, sections
from medfsad_bench.board.groups import Group, groups
from medfsad_bench.board.pages import as_markdown
from medfsad_bench.board.significance import Evidence
from medfsad_bench.errors import MedfsadError, ResultsError
from medfsad_bench.files import write_text
from medfsad_bench.metrics.metric import BOX_METRICS, PIXEL_METRICS
from medfsad_bench.results.assembly import reassembled
from medfsad_bench.results.habits import studies_in
from medfsad_bench.results.identity import identity_faults
from medfsad_bench.results.reproduction import Reproduction, read_marks
from medfsad_bench.results.rescore import differences, rescored
from medfsad_bench.results.row import Row, parse_row
from medfsad_bench.results.run_folder import RunFolder, finished_runs, scores_by_run
from medfsad_bench.results.storage import MADE_ANEW, DamagedRunError

_RESTORED = "Restore it from version control, or take the row's line out and accept its run again."


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


def evidence_of(runs: Path | None, results: Path) -> tuple[Evidence, set[str]]:
    """Files of scores by run id, and the run ids of rows that a maintainer has re-run.

    Args:
        runs: Folder of runs, or None for accepted rows.
        results: Folder of accepted rows.

    Raises:
        ResultsError: If a mark is damaged.
    """
    if runs is not None:
        return scores_by_run(runs), set()
    marks = {run_id for run_id, mark in read_marks(results).items() if not _mark_faults(mark, results)}
    return scores_by_run(_kept(results)), marks


def board_of_results(results: Path) -> list[Group]:
    """Accepted rows in groups, with the scores that tell methods apart and the marks of what was re-run.

    Raises:
        ResultsError: If a row or a mark is damaged.
    """
    evidence, reproduced = evidence_of(None, results)
    return groups(rows_in_results(results), evidence, reproduced=reproduced)


def reported_elsewhere(results: Path) -> list[reported.Source]:
    """Figures from papers that lie beside the results.

    Raises:
        ResultsError: If their file is damaged.
    """
    return reported.reported_sources(results.parent / "reported.toml")


def accept(run: Path, results: Path) -> Row:
    """Validate a run by recomputing all of it that can be, and append its row to `<results>/<method>.jsonl`.

    Recomputed are every estimate with its interval from the scores, every check from the scores and the reruns, and
    the run's name and all that the row says of the cell from `config.json`.

    Raises:
        ResultsError: If the row says anything else, a protocol check failed, or the row is there already.
    """
    folder = RunFolder(run)
    row = folder.row()
    if faults := identity_faults(row, folder.config(), folder.scores()):
        raise ResultsError(
            f"{run}: its row isn't the one of this run: {', '.join(faults)}. Expected what the run's "
            f"config says, as `medfsad run` writes both; nothing was accepted. {MADE_ANEW}"
        )
    if differ := differences(row, rescored(folder)):
        raise ResultsError(f"{run}: {', '.join(differ)} of its row can't be recomputed from its scores. {MADE_ANEW}")
    for check_name, fault in row.failed_checks.items():
        raise ResultsError(f"{run}: kept off the board, as the protocol check {check_name!r} failed: {fault}.")
    if row.run_id in {accepted.run_id for accepted in rows_in_results(results)}:
        raise ResultsError(
            f"{run}: the row {row.run_id} is among the results already. Nothing was added. To accept it anew, take its "
            "line out first."
        )
    kept = _kept(results) / row.run_id
    shutil.rmtree(kept, ignore_errors=True)  # of an acceptance that was interrupted: its row isn't there
    folder.copy_measured(kept)
    path = results / f"{row.method.replace(':', '-')}.jsonl"
    before = path.read_text("utf-8") if path.is_file() else ""
    write_text(path, before + json.dumps(row.dump(), ensure_ascii=False) + "\n")
    return row


def write_pages(results: Path, pages: Sequence[Path] = ()) -> list[Path]:
    """Write LEADERBOARD.md beside the results, and the parts of other pages that are made of rows; returns all.

    Raises:
        ResultsError: If a row or a page is damaged.
    """
    material = _material(results)
    texts = {_page(results): _page_text(results), **{page: sections.made_anew(page, material) for page in pages}}
    for path, text in texts.items():
        write_text(path, text)
    return list(texts)


def check(results: Path, pages: Sequence[Path] = ()) -> list[str]:
    """What's wrong with the accepted rows: damaged, twice, not what their scores give, or a page stale.

    Args:
        results: Folder of accepted rows; LEADERBOARD.md lies beside it.
        pages: Others with parts that are made of rows.
    """
    of_board = board_faults(results, pages)  # first: a page that can't be read is said before the long work
    rows = sorted(rows_in_results(results), key=lambda row: row.target)  # those of one target share their resampling
    return [fault for row in rows for fault in row_faults(row, results)] + of_board


def row_faults(row: Row, results: Path) -> list[str]:
    """In what an accepted row differs from what was kept of its run.

    Every figure and interval is recomputed but those of pixels, whose record stays with the run.
    """
    folder = RunFolder(_kept(results) / row.run_id)
    try:
        measured = folder.measurements()
        faults = identity_faults(row, folder.config(), measured.scores)
        again = reassembled(row, measured)
    except DamagedRunError as error:
        return [f"{row.run_id}: {error.found} {_RESTORED}"]
    except MedfsadError as error:
        return [f"{row.run_id}: {error}"]
    of_pixels = () if row.pixel_mode is None else ("pixel_mode", *PIXEL_METRICS, *BOX_METRICS)
    differ = [name for name in differences(row, again) if not name.startswith(of_pixels)]
    faults += [f"{name}, which its scores don't give" for name in differ]
    return [f"{row.run_id} differs from its run in {fault}" for fault in faults]


def board_faults(results: Path, pages: Sequence[Path] = ()) -> list[str]:
    """What's wrong with the accepted rows as a whole: one stands twice, a mark is of none, a page is stale or typed."""
    material = _material(results)
    stale = [other for other in pages if sections.page_text(other) != sections.made_anew(other, material)]
    times = Counter(row.run_id for row in material.rows)
    faults = [f"{run_id} stands twice" for run_id, number in times.items() if number > 1]
    for run_id, mark in read_marks(results).items():
        faults += _mark_faults(mark, results) if run_id in times else [f"{run_id} bears a mark and isn't accepted"]
    advice = "is stale; write it anew with `medfsad leaderboard --write"
    page = _page(results)
    if times and (not page.is_file() or page.read_text("utf-8") != _page_text(results)):
        faults.append(f"{page.name} {advice}`")
    by_hand = [(other, name) for other in pages for name in sections.parts_changed_by_hand(other)]
    faults += [f"{other}: its part {name!r} isn't as a command wrote it; run that again" for other, name in by_hand]
    return faults + [f"{other} {advice} --page {other}`" for other in stale]


def _page(results: Path) -> Path:
    return results.parent / "LEADERBOARD.md"


def _page_text(results: Path) -> str:
    """The whole board, and what others report."""
    board = as_markdown(board_of_results(results), evidence=scores_by_run(_kept(results)))
    return "\n".join(filter(None, (board, reported.as_markdown(reported_elsewhere(results)))))


def _material(results: Path) -> sections.Material:
    return sections.Material(rows_in_results(results), scores_by_run(_kept(results)), studies_in(results))


def _kept(results: Path) -> Path:
    """Where lies what accepted rows are recomputed from, and paired with others by."""
    return results / "runs"


def _mark_faults(mark: Reproduction, results: Path) -> list[str]:
    """Whether a mark is of the scores that were accepted."""
    try:
        kept = RunFolder(_kept(results) / mark.run_id).scores_digest()
    except DamagedRunError as error:
        return [f"{mark.run_id} bears a mark, but {error.found} {_RESTORED}"]
    return [] if kept == mark.scores_sha256 else [f"{mark.run_id} bears a mark of other scores than those accepted"]
