"""What LEADERBOARD.md opens with: the method to take for an unseen target, and what training adds."""

import itertools
from pathlib import Path
from typing import Any

import pytest
from board_rows import row_of

from medfsad_bench.board.answers import answers
from medfsad_bench.board.groups import groups
from medfsad_bench.board.pages import as_markdown
from medfsad_bench.board.site.build import write_site
from medfsad_bench.results.row import Row

TARGETS = ("brain_tumor", "lgg")
_NUMBERS = itertools.count()  # of runs, so that no two are called alike


def rows_of(method: str, values: tuple[float, float], **facts: Any) -> list[Row]:
    return [
        row_of(method, target, value, run_id=f"{method}-{target}-{next(_NUMBERS)}", **facts)
        for target, value in zip(TARGETS, values, strict=True)
    ]


def tuned(method: str, values: tuple[float, float], fractions: tuple[float, float], **facts: Any) -> list[Row]:
    grid = {"settings_chosen_on": ("chest_nih",), "settings_grid": {"fraction": [0.1, 0.2], "turns": [4]}}
    return [
        row.model_copy(update={"config": {"fraction": fraction, "turns": 4}, **grid})
        for row, fraction in zip(rows_of(method, values, **facts), fractions, strict=True)
    ]


def table(rows: list[Row]) -> list[list[str]]:
    (answer,) = answers(groups(rows), {})
    return answer.lines


def test_the_method_to_take_is_the_best_of_those_whose_settings_were_chosen_without_the_target(tmp_path: Path) -> None:
    """Two targets, so a difference of means: (0.9 + 0.7) / 2 - (0.87 + 0.67) / 2."""
    rows = tuned("first", (0.9, 0.7), (0.1, 0.2)) + tuned("second", (0.87, 0.67), (0.1, 0.1))
    rows += tuned("far", (0.3, 0.2), (0.1, 0.1), sources={"chest_nih": "0" * 64}) + rows_of("by_hand", (0.99, 0.99))
    ((track, take, mean, trained, others, settings),) = table(rows)
    assert (track, take, trained) == ("medfsad-open, 4 shots, 64 px", "first", "no")
    assert mean.startswith("0.800 [")
    second, far = others.split("; ")
    assert second.startswith("second: +0.030 [")
    assert second.endswith("], can't be told apart")
    assert far.startswith("far: +0.550 [")
    assert far.endswith("], told apart")
    assert settings == "fraction 0.1 (1), 0.2 (1); turns 4"
    page, basis = as_markdown(groups(rows)), answers(groups(rows), {})[0].basis
    assert f"| {track} | first | {mean} | no | {others} | {settings} |" in page
    assert "What training adds" not in page
    write_site(rows, {}, tmp_path / "site")
    front = " ".join((tmp_path / "site" / "index.html").read_text("utf-8").split())
    assert f'<h2 id="answer-1">What to take for an unseen target</h2> <p>{basis}</p>' in front
    assert f"<td>first</td><td>{mean}</td><td>no</td><td>{others.replace(chr(39), '&#39;')}</td>" in front


@pytest.mark.parametrize(
    "rows",
    [
        [],
        rows_of("by_hand", (0.9, 0.8)) + rows_of("other", (0.6, 0.5)),
        tuned("alone", (0.9, 0.7), (0.1, 0.1)) + rows_of("by_hand", (0.9, 0.8)),
        tuned("a", (0.9, 0.7), (0.1, 0.1), contaminated_supports=1)
        + tuned("b", (0.8, 0.7), (0.1, 0.1), contaminated_supports=1),
    ],
    ids=["no rows", "by hand", "one alone", "contaminated"],
)
def test_where_nothing_was_compared_nothing_is_recommended(rows: list[Row]) -> None:
    assert answers(groups(rows), {}) == []


def test_what_training_adds_is_a_line_less_the_one_that_differs_in_its_epochs_alone() -> None:
    def lines(values: tuple[float, float], **config: Any) -> list[Row]:
        return rows_of("learner", values, preset="quick", config={"epochs": 7, "width": 8} | config)

    trained, untrained = lines((0.9, 0.5)), lines((0.6, 0.54), epochs=0)
    ((track, method, before, after, difference, better, worse),) = table(trained + untrained)
    assert (track, method) == ("medfsad-open, 4 shots, 64 px", "learner, quick")
    assert before.startswith("0.570 [")
    assert after.startswith("0.700 [")
    assert difference.startswith("+0.130 [")
    assert (better, worse) == ("1", "0"), "0.3 is sure where intervals are 0.05 to either side, and -0.04 isn't"
    for other in (lines((0.6, 0.6), epochs=0, width=4), lines((0.6, 0.6), epochs=3)):
        assert answers(groups(trained + other), {}) == []
    of_seed = [row.model_copy(update={"seed": 1}) for row in untrained]
    assert answers(groups(trained + of_seed), {}) == []
