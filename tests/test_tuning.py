"""Settings are chosen on other sets: never by the target's labels, nothing done twice, and the row says so."""

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_cli import Medfsad, medfsad  # noqa: F401 - a fixture
from test_runner import TOY, Toy

from medfsad_bench.board.accepted import accept, rows_in_runs
from medfsad_bench.board.comparison import find_runs
from medfsad_bench.board.groups import groups
from medfsad_bench.cli.tune import grid_of
from medfsad_bench.errors import MethodError, ResultsError
from medfsad_bench.info import MethodInfo
from medfsad_bench.method import RunContext, Scorer, Scores
from medfsad_bench.registry import all_methods, configure, method_info
from medfsad_bench.results.protocol_checks import check_target
from medfsad_bench.results.run_folder import RunFolder
from medfsad_bench.runner import tuning
from medfsad_bench.runner.context import LocalContext
from medfsad_bench.runner.plan import Cell, RunOptions, cells
from medfsad_bench.runner.reproduction import reproduce
from medfsad_bench.runner.runner import Runner
from medfsad_bench.runner.tuning import Choice, choose, chosen_cell, settings_grid
from medfsad_bench.store import Dataset
from medfsad_bench.store.prepared import prepared_sets
from medfsad_bench.testing import phantom_images

TUNABLE = (
    "anomalydino",
    "late_fusion",
    "mean_distance",
    "multistage",
    "patchcore",
    "pooled_and_patch",
    "subspace",
    "whitened_patch",
)


@dataclasses.dataclass(frozen=True)
class SignConfig:
    """`sign` of the score, and a width that does nothing."""

    sign: float = 1.0
    width: int = 1


class Sign(Toy):
    """The toy's map, or its opposite."""

    config: Any

    def adapt(self, support: torch.Tensor, context: RunContext) -> Scorer:
        mean = support.mean(0)
        return lambda images: Scores(image=self.config.sign * (images - mean).abs().amax((1, 2, 3)))


SIGN = dataclasses.replace(
    TOY, name="sign", config=SignConfig, build=Sign, presets={"quick": {}}, grid={"sign": (-1.0, 1.0)}
)


def planned(info: MethodInfo, data: Path, runs: Path, name: str = "ward_a") -> tuple[Cell, list[Dataset]]:
    """The cell of a set at 2 shots, and all sets."""
    sets = prepared_sets(data)
    target = next(dataset for dataset in sets if dataset.name == name)
    return cells(info, [target], sets, [2], RunOptions(runs, draws=2, preset="quick"))[0], sets


def choice_of(info: MethodInfo, data: Path, runs: Path, *, permute: str = "") -> Choice:
    """The choice for ward_a; with the test labels of one set turned around."""
    cell, sets = planned(info, data, runs)
    for dataset in sets:
        if dataset.name == permute:
            test = dataset.table["split"] == "test"
            dataset.table.loc[test, "label"] = 1 - dataset.table.loc[test, "label"]
    grid = settings_grid(info, preset="quick", settings={}, grid={})
    return choose(cell, grid, sets, Runner("cpu"), lambda *_: None)


def test_the_targets_labels_take_no_part_and_those_of_the_others_do(own_data: Path, tmp_path: Path) -> None:
    as_they_are = choice_of(SIGN, own_data, tmp_path / "a")
    assert as_they_are.grid[as_they_are.best] == {"sign": 1.0}, "a bright disc is far from the mean support"
    assert list(as_they_are.aurocs) == ["ward_b"], "never the target"
    turned = choice_of(SIGN, own_data, tmp_path / "b", permute="ward_a")
    assert turned.best == as_they_are.best
    np.testing.assert_array_equal(turned.aurocs["ward_b"], as_they_are.aurocs["ward_b"])
    others_turned = choice_of(SIGN, own_data, tmp_path / "c", permute="ward_b")
    assert others_turned.grid[others_turned.best] == {"sign": -1.0}


def test_what_was_evaluated_is_kept(own_data: Path, tmp_path: Path) -> None:
    first, adapted = choice_of(SIGN, own_data, tmp_path), Toy.adapted
    (torn, *_) = sorted((tmp_path / "tuning").glob("*/tuning/0000.npz"))
    torn.write_bytes(b"torn")
    again = choice_of(SIGN, own_data, tmp_path)
    assert Toy.adapted == adapted
    np.testing.assert_array_equal(first.means, again.means)


@pytest.mark.parametrize("room", [0, 1 << 30], ids=["made anew", "kept"])
def test_images_are_shown_to_all_settings_alike(
    own_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    """Kept or made anew; a method that would change them for the settings after it is refused."""
    plain = choice_of(SIGN, own_data, tmp_path / "plain")
    monkeypatch.setattr(tuning, "_SHOWN_BYTES", room)
    np.testing.assert_array_equal(choice_of(SIGN, own_data, tmp_path / "other").means, plain.means)

    class Careless(Sign):
        def adapt(self, support: torch.Tensor, context: RunContext) -> Scorer:
            score = super().adapt(support, context)

            def careless(images: torch.Tensor) -> Scores:
                images.numpy()[:, 0] *= 0.5  # no version of the tensor tells of this
                return score(images)

            return careless

    info = dataclasses.replace(SIGN, name="careless", build=Careless)
    if room:
        with pytest.raises(MethodError, match=r"careless changes the images .*images\.clone\(\)"):
            choice_of(info, own_data, tmp_path / "careless")
    else:
        assert len(choice_of(info, own_data, tmp_path / "careless").means) == 2


def test_the_best_mean_is_taken_and_of_equals_the_first() -> None:
    aurocs = {"a": np.array([0.5, 0.9, 0.7, 0.8]), "b": np.array([0.5, 0.5, 0.7, 0.6])}
    points: list[Mapping[str, Any]] = [{"k": value} for value in range(4)]
    choice = Choice("c", 4, points, aurocs, {"a": "1", "b": "2"}, {})
    np.testing.assert_allclose(choice.means, [0.5, 0.7, 0.7, 0.7])
    assert choice.best == 1
    assert choice.record == {"on": {"a": "1", "b": "2"}, "grid": {"k": [0, 1, 2, 3]}}


def test_a_tuned_row_says_so_and_is_a_track_of_its_own(own_data: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    cell, sets = planned(method_info("mean_distance"), own_data, runs, "ward_b")
    grid: list[Mapping[str, Any]] = [{"stages": (4,)}, {"stages": (3, 4)}]
    tuned = chosen_cell(cell, Choice("ward_b", 2, grid, {"ward_a": np.array([0.6, 0.7])}, {"ward_a": "1"}, {}), sets)
    runner = Runner("cpu")
    row, _ = runner.run(tuned)
    runner.run(cell)
    assert (row.settings_chosen_on, row.settings_grid) == (("ward_a",), {"stages": [[4], [3, 4]]})
    assert row.config["stages"] == [3, 4]
    board = groups(rows_in_runs(runs))
    assert [(group.tuned, [line.rank for line in group.lines]) for group in board] == [(False, [1]), (True, [1])]
    assert board[1].title.endswith("settings chosen on other sets")
    folder = runs / tuned.run_id
    assert find_runs(runs, "mean_distance", shots=2, tuned=True) == [folder]
    assert find_runs(runs, "mean_distance", shots=2) == [runs / cell.run_id]
    assert reproduce(folder, data=own_data, runs=tmp_path / "again", device="cpu", progress=lambda *_: None).agrees
    assert accept(folder, tmp_path / "results") == row
    for altered, fault in (
        ({"settings_chosen_on": ["ward_c"]}, "settings_chosen_on"),
        ({"settings_grid": {"stages": [[4], [2]]}}, "settings_grid, which lacks the config's stages"),
        ({"settings_chosen_on": [], "settings_grid": {}}, "settings_chosen_on, settings_grid"),
    ):
        (folder / "row.json").write_text(json.dumps(row.dump() | altered), "utf-8")
        with pytest.raises(ResultsError, match=re.escape(fault)):
            accept(folder, tmp_path / "other")
    assert RunFolder(runs / cell.run_id).row().dump().keys().isdisjoint({"settings_chosen_on", "settings_grid"})


def test_what_was_chosen_for_each_target_is_one_entry_of_the_board(own_data: Path, tmp_path: Path) -> None:
    for name, other, means in (("ward_a", "ward_b", [0.6, 0.7]), ("ward_b", "ward_a", [0.7, 0.6])):
        cell, sets = planned(SIGN, own_data, tmp_path, name)
        grid = [{"width": 1}, {"width": 2}]
        Runner("cpu").run(chosen_cell(cell, Choice(name, 2, grid, {other: np.array(means)}, {other: "1"}, {}), sets))
    rows = [row.model_copy(update={"benchmark": "demo"}) for row in rows_in_runs(tmp_path)]  # own sets stand alone
    (group,) = groups(rows)
    ((line,),) = [group.lines]
    assert {target: row.config["width"] for target, row in line.rows.items()} == {"ward_a": 2, "ward_b": 1}


def test_settings_chosen_on_the_target_or_a_partner_fail_the_check() -> None:
    facts: Mapping[str, Any] = {"target": "a", "method": "m", "sources": [], "has_seen": [], "partners": ["b"]}
    assert check_target(**facts, chosen_on=["c"])["unseen"] == "passed"
    for name in ("a", "b"):
        assert "settings were chosen on" in check_target(**facts, chosen_on=["c", name])["unseen"]


def test_a_method_that_trains_is_never_trained_on_the_target_for_another_set(own_data: Path, tmp_path: Path) -> None:
    """Of two sets the other has none but the target to be trained on, so nothing is left to choose on."""
    with pytest.raises(MethodError, match=r"No set is left .* ward_b: no other data set to train on"):
        choice_of(dataclasses.replace(SIGN, trains=True), own_data, tmp_path)


def test_no_method_with_a_grid_is_left_out_here() -> None:
    with_a_grid = [info.name for info in all_methods().values() if isinstance(info, MethodInfo) and info.grid]
    assert sorted(with_a_grid) == list(TUNABLE)


@pytest.mark.parametrize("name", TUNABLE)
def test_settings_that_share_a_cache_score_as_they_do_alone(name: str) -> None:
    """A method's keys in the cache stand for all settings that a value depends on."""
    info = method_info(name)
    images, shared = phantom_images(6, size_px=64), LocalContext()
    for point in settings_grid(info, preset="quick", settings={}, grid={}):
        method = info.build(configure(info, preset="quick", settings=point))
        together = method.adapt(images[:2], shared)(images[2:]).image
        alone = method.adapt(images[:2], LocalContext(cache=shared.apart().cache).apart())(images[2:]).image
        torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-6)


def test_a_grid_sends_each_image_through_the_network_once(own_data: Path, tmp_path: Path) -> None:
    cell, sets = planned(method_info("multistage"), own_data, tmp_path)
    grid = settings_grid(cell.info, preset="quick", settings={}, grid={"stages": ["2,3", "4", "3,4"]})
    runner = Runner("cpu")
    choose(cell, grid, sets, runner, lambda *_: None)
    other = next(dataset for dataset in sets if dataset.name == "ward_b")
    test, supports = other.indices("test"), {int(row) for draw in other.episodes[:2] for row in draw[:2]}
    assert runner.cache.images_computed == len(test) + len(supports)


@pytest.mark.parametrize(
    ("grid", "settings", "message"),
    [
        ({"stages": ["4"], "stagse": ["1"]}, {}, "no setting 'stagse'"),
        ({"top_fraction": ["0.1", "2"]}, {}, "top_fraction is 2"),
        ({"top_fraction": ["0.1", ".1"]}, {}, "top_fraction=0.1 stands twice"),
        ({"top_fraction": ["0.1"]}, {"top_fraction": "0.2"}, "in the grid too"),
    ],
)
def test_a_grid_that_cant_be_is_told(grid: dict[str, list[str]], settings: dict[str, str], message: str) -> None:
    with pytest.raises(MethodError, match=message):
        settings_grid(method_info("multistage"), preset="quick", settings=settings, grid=grid)


def test_a_method_without_a_grid_asks_for_one() -> None:
    with pytest.raises(MethodError, match=r"no grid of its own.*--grid"):
        settings_grid(method_info("chance"), preset="quick", settings={}, grid={})


@pytest.mark.parametrize(
    ("pairs", "message"), [(["stages"], "is no grid"), (["a=1||2"], "is no grid"), (["a=1", "a=2"], "twice")]
)
def test_what_is_no_grid_is_told(pairs: list[str], message: str) -> None:
    with pytest.raises(MethodError, match=message):
        grid_of(pairs)


@pytest.mark.parametrize("name", TUNABLE)
@pytest.mark.parametrize("preset", ["paper", "quick"])
def test_every_methods_own_grid_is_of_its_settings(name: str, preset: str) -> None:
    info = method_info(name)
    assert len(settings_grid(info, preset=preset, settings={}, grid={})) > 1


def test_tune_shows_settings_by_sets_the_choice_and_its_rows(
    medfsad: Medfsad,  # noqa: F811 - the fixture
    own_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    base = ["tune", "mean_distance", "--preset", "quick", "--data", own_data, "--shots", "2", "--draws", "2"]
    code, printed, _ = medfsad(*base, "--grid", "stages=4|3,4")
    assert code == 0
    assert "stages=3,4" in printed
    assert "mean_distance §" in printed
    assert max(map(len, printed.splitlines())) <= 80
    code, printed, _ = medfsad(*base, "--grid", "stages=4|3,4", "--target", "ward_b", "--json")
    told = json.loads(printed)
    (choice,), (row,) = told["choices"], told["rows"]
    assert (choice["target"], choice["chosen_on"]) == ("ward_b", ["ward_a"])
    assert row["settings_chosen_on"] == ["ward_a"]
    assert row["settings_grid"] == {"stages": [[4], [3, 4]]}
    assert choice["chosen"]["stages"] == row["config"]["stages"]
