"""The rows in leaderboard/results: each is what its scores give, and every page is made of them."""

import re
from pathlib import Path

import pytest

from medfsad_bench.board.accepted import board_faults, row_faults, rows_in_results

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "leaderboard" / "results"
PAGES = [ROOT / "README.md", ROOT / "baselines" / "RESULTS.md", ROOT / "methods" / "d24fad" / "RESULTS.md"]
ROWS = rows_in_results(RESULTS)
LIMIT_BYTES = 20 * 2**20


@pytest.mark.slow
@pytest.mark.parametrize("target", sorted({row.target for row in ROWS}))
def test_every_figure_is_recomputed_from_its_scores(target: str) -> None:
    """By target, since its rows share their resampling."""
    rows = [row for row in ROWS if row.target == target]
    assert [fault for row in rows for fault in row_faults(row, RESULTS)] == []


@pytest.mark.slow
def test_pages_are_made_of_the_rows_and_studies() -> None:
    assert board_faults(RESULTS, PAGES) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_figure_in_prose_stands_in_a_table(page: Path) -> None:
    """Of three decimals: of the page itself, or the board's means and answers. What a table no longer says is stale.

    A wrong figure that stands elsewhere on the page isn't noticed.
    """
    board = (RESULTS.parent / "LEADERBOARD.md").read_text("utf-8")
    tabled = figures(board.partition("\n## medfsad")[0])
    for line in board.splitlines():
        tabled |= figures(line.rstrip("| ").rpartition("|")[2])  # the mean, or a sentence
    lines = [line for line in page.read_text("utf-8").splitlines() if not line.startswith("    ")]
    tabled |= {figure for line in lines if line.startswith("|") for figure in figures(line)}
    stale = {line: figures(line) - tabled for line in lines if not line.startswith("|")}
    assert {line: missing for line, missing in stale.items() if missing} == {}


def figures(text: str) -> set[str]:
    return set(re.findall(r"(?<![\d.])\d\.\d{3}(?!\d)", text))


def test_what_is_kept_of_their_runs_stays_small() -> None:
    assert sum(path.stat().st_size for path in RESULTS.rglob("*") if path.is_file()) < LIMIT_BYTES
