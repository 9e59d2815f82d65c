"""The board in a terminal: it fits, it cuts nothing, and who lacks a set takes no rank from who doesn't."""

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from board_rows import row_of
from rich.console import Console
from test_cli import Medfsad, medfsad  # noqa: F401 - a fixture

from medfsad_bench.board.groups import Group, groups
from medfsad_bench.board.terminal import as_tables
from medfsad_bench.cli.console import SafeConsole
from medfsad_bench.results.row import Row

TARGETS = ("brain_tumor", "chest_child", "chest_nih", "histology_lung", "lgg", "odir_dr", "odir_glaucoma")
METHODS = [f"anomalib:method_{number:02d}" for number in range(20)]


@cache
def board() -> list[Group]:
    return groups(
        row_of(method, target, 0.9 - number / 40, preset="quick")
        for number, method in enumerate(METHODS)
        for target in TARGETS
    )


def printed(groups_: Sequence[Group], width: int, console: type[Console] = SafeConsole, **options: Any) -> str:
    terminal = console(width=width, **options)
    with terminal.capture() as capture:
        for table in as_tables(groups_, width=width):
            terminal.print(table)
    return capture.get()


@pytest.mark.parametrize("width", [80, 120, 200])
def test_twenty_methods_on_seven_targets_are_one_line_each_and_nothing_is_cut(width: int) -> None:
    shown = printed(board(), width)
    lines = shown.splitlines()
    assert max(map(len, lines)) <= width
    ranked = [line for line in lines if re.match(r" *\d+ ", line)]
    assert [sum(method in line for line in ranked) for method in METHODS] == [1] * len(METHODS)
    assert all(target in shown for target in TARGETS)
    assert "…" not in shown
    assert "medfsad-open, 4 shots, 64 px" in shown
    rows = [line.split() for line in ranked]
    assert [cells[0] for cells in rows] == [str(rank) for rank in range(1, 21)]
    assert all(sum(bool(re.fullmatch(r"0?\.\d{3}", cell)) for cell in cells) == 1 + len(TARGETS) for cells in rows)


def test_the_richest_layout_that_fits_is_taken() -> None:
    assert "0.900 [0.850, 0.950]" in printed(board(), 200)
    assert ".900 .85–.95" in printed(board(), 150)
    assert re.search(r"brain_tumor +chest_child", printed(board(), 120))
    narrow = printed(board(), 80)
    assert re.search(r"A +B +C +D +E +F +G", narrow)
    assert "A: brain_tumor" in narrow


def test_more_targets_than_fit_go_on_in_a_second_table_under_the_same_methods() -> None:
    names = [f"ward_{number:02d}" for number in range(30)]
    (group,) = groups(row_of("chance", name, 0.5) for name in names)
    shown = printed([group], 80)
    assert max(map(len, shown.splitlines())) <= 80
    assert shown.count("chance") == len(as_tables([group], width=80)) > 1
    assert all(name in shown for name in names)


def test_groups_of_ties_are_seen_by_letters() -> None:
    letters = {line.method: line.letters for line in board()[0].lines}
    assert letters[METHODS[0]] != letters[METHODS[-1]]
    first = next(line for line in printed(board(), 80).splitlines() if METHODS[0] in line)
    assert f" {letters[METHODS[0]]} " in first


def test_no_colour_is_printed_where_none_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert not re.search(r"\x1b\[[\d;]*3\d", printed(board(), 80, force_terminal=True))


def test_who_lacks_a_target_is_told_and_the_others_keep_their_ranks() -> None:
    rows = [row for row in all_rows("a", "b") if (row.method, row.target) != ("b", "lgg")]
    (group,) = groups(rows)
    assert {line.method: (line.rank, line.lacks) for line in group.lines} == {"a": (1, ()), "b": (None, ("lgg",))}
    assert "Not ranked: b (lacks lgg)." in printed([group], 80)


def test_a_row_that_is_never_ranked_asks_its_target_of_nobody() -> None:
    seen = row_of("knows_it", "lgg", 0.99, has_seen_target=True)
    rows = [row for row in all_rows("a", "b") if row.target != "lgg"]
    (group,) = groups([*rows, seen])
    assert "lgg" in group.targets
    assert "lgg" not in group.in_mean
    assert [line.rank for line in group.lines if line.method in ("a", "b")] == [1, 2]


def test_own_sets_take_no_ranks_from_each_other() -> None:
    own = {"benchmark": "own", "target_version": "0.0.0"}
    rows = [row_of("a", "ward_a", 0.8, **own), row_of("b", "ward_a", 0.7, **own), row_of("a", "ward_b", 0.6, **own)]
    board_of_own = groups(rows)
    assert [(group.targets, [line.rank for line in group.lines]) for group in board_of_own] == [
        (("ward_a",), [1, 2]),
        (("ward_b",), [1]),
    ]
    assert [group.title.split(",")[0] for group in board_of_own] == ["own: ward_a", "own: ward_b"]


def test_the_interval_of_a_mean_of_independent_targets_is_joined_by_squares() -> None:
    """By hand: two targets, 0.05 to either side, so √2 · 0.05 / 2; sets that share patients add up instead."""
    (apart,) = groups([row_of("a", "lgg", 0.6), row_of("a", "chest_nih", 0.8)])
    assert apart.lines[0].interval == pytest.approx((0.7 - 0.05 / 2**0.5, 0.7 + 0.05 / 2**0.5))
    (together,) = groups([row_of("a", "odir_dr", 0.6), row_of("a", "odir_glaucoma", 0.8)])
    assert together.lines[0].interval == pytest.approx((0.65, 0.75))
    (single,) = groups([row_of("a", "lgg", 0.6)])
    assert single.lines[0].interval == pytest.approx((0.55, 0.65))


def test_lines_that_differ_in_a_seed_alone_are_told_apart() -> None:
    rows = [row_of("a", "lgg", 0.6 + seed / 10, seed=seed, run_id=f"a-{seed}") for seed in (0, 1)]
    shown = printed(groups(rows), 80)
    assert "a, seed 0" in shown
    assert "a, seed 1" in shown


def test_metric_target_and_track_choose_what_is_shown(medfsad: Medfsad, own_data: Path) -> None:  # noqa: F811
    for method in ("chance", "shortcut"):
        assert medfsad("run", method, "--data", own_data, "--preset", "quick", "--shots", 2, "--shots", 4)[0] == 0
    board_of_runs = ("leaderboard", "--runs", "medfsad-runs")
    shown = medfsad(*board_of_runs)[1]
    assert shown.count("image AUROC") == 4
    shown = medfsad(*board_of_runs, "--target", "ward_b", "--track", "4 shots", "--metric", "image_fpr_at_tpr95")[1]
    assert shown.count("image FPR at TPR 95 %") == 1
    assert "own: ward_b, 4 shots" in shown
    for wrong, hint in (
        (("--metric", "image_aurok"), "Did you mean 'image_auroc'?"),
        (("--target", "ward_c"), "There are ward_a, ward_b"),
        (("--track", "16 shots"), "own: ward_a, 2 shots"),
    ):
        code, _, error = medfsad(*board_of_runs, *wrong)
        assert code == 2
        assert hint in " ".join(error.split())


def test_the_empty_board_says_what_to_do(medfsad: Medfsad, tmp_path: Path) -> None:  # noqa: F811
    (tmp_path / "results").mkdir()
    code, shown, hint = medfsad("leaderboard", "--results", "results")
    assert (code, shown) == (0, "")
    assert "medfsad run METHOD" in " ".join(hint.split())
    code, shown, _ = medfsad("leaderboard", "--results", "results", "--format", "json")
    assert (code, re.sub(r"\s", "", shown)) == (0, '{"rows":[],"groups":[]}')
    assert medfsad("leaderboard", "--results", "nowhere")[0] == 2


def all_rows(*methods: str) -> list[Row]:
    return [row_of(method, target, 0.9 - n / 10) for n, method in enumerate(methods) for target in TARGETS]
