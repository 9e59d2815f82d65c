"""Rows are grouped by their images and size, and paired image by image; names and orders say nothing."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from test_cli import Medfsad, medfsad  # noqa: F401 - a fixture
from test_runner import cell_of

from medfsad_bench.board.accepted import accept, board_of_results, check
from medfsad_bench.board.comparison import compare
from medfsad_bench.board.groups import groups
from medfsad_bench.board.pages import as_markdown
from medfsad_bench.board.pairing import paired_with
from medfsad_bench.errors import ResultsError
from medfsad_bench.estimates.image import score_matrix
from medfsad_bench.registry import method_info
from medfsad_bench.results.protocol_checks import partners, seen_facts
from medfsad_bench.results.reproduction import read_marks, write_mark
from medfsad_bench.results.row import Row
from medfsad_bench.results.run_folder import RunFolder
from medfsad_bench.runner.reproduction import reproduce
from medfsad_bench.runner.runner import Runner
from medfsad_bench.store import Dataset


@pytest.fixture(scope="module")
def made(own_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a sound run of an installed method."""
    cell = cell_of(method_info("pixel_distance"), own_data, tmp_path_factory.mktemp("runs"))
    Runner("cpu").run(cell)
    return cell.options.runs / cell.run_id


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / made.name))


def row_of(run: Path, **changes: Any) -> Row:
    return RunFolder(run).row().model_copy(update=changes)


def test_rows_of_one_name_and_other_images_share_no_rank(run: Path) -> None:
    first = row_of(run)
    other_images = {"membership_digest": "1" * 64, "run_id": "b"}
    rows = [
        first,
        row_of(run, method="second", run_id="c"),
        row_of(run, method="third", **other_images),
        row_of(run, method="fourth", size_px=96, run_id="d"),
    ]
    board = groups(rows)
    assert [[line.method for line in group.lines] for group in board] == [
        ["pixel_distance", "second"],
        ["third"],
        ["fourth"],
    ]
    assert [group.title for group in board] == [
        "own: ward_a, 2 shots, 64 px",
        "own: ward_a, 2 shots, 64 px, other images of the same names (1)",
        "own: ward_a, 2 shots, 96 px",
    ]
    assert all(line.rank for group in board for line in group.lines)


def test_runs_are_paired_by_image_and_not_by_order(run: Path, tmp_path: Path) -> None:
    """The same scores in another order of the file are no difference; other labels aren't paired at all."""
    scores = RunFolder(run).scores()
    turned = scores.assign(index=scores["index"].max() - scores["index"]).sort_values(["draw", "index"])
    other = Path(shutil.copytree(run, tmp_path / "turned"))
    turned.to_parquet(other / "scores.parquet", index=False)
    first, second = score_matrix(scores), score_matrix(turned)
    assert not (first.scores == second.scores).all()
    assert (first.scores == paired_with(first, second).scores).all()
    (target,) = compare([run], [other]).targets
    difference = target.differences["image_auroc"]
    assert (difference.value, difference.low, difference.high) == (0, 0, 0)
    flipped = score_matrix(scores.assign(anomalous=~scores["anomalous"]))
    with pytest.raises(ResultsError, match="other labels"):
        paired_with(first, flipped)
    with pytest.raises(ResultsError, match="the same images"):
        paired_with(first, dataclasses.replace(second, queries=second.queries.assign(id="one")))


def test_what_a_folder_of_ones_own_is_called_says_nothing_of_a_public_set(own_data: Path) -> None:
    dataset = Dataset(own_data / "own" / "ward_a-0.0.0-64px.h5")
    dataset.attributes["name"] = "odir_dr"
    assert partners(dataset) == ()
    assert seen_facts(dataset, ["odir_dr", "imagenet-1k"], "")["has_seen"] == ["imagenet-1k"]
    dataset.attributes["benchmark"] = "medfsad-open"
    assert "odir_glaucoma" in partners(dataset)
    assert seen_facts(dataset, ["odir_dr"], "")["has_seen"] == ["odir_dr"]


def quiet(*_: object) -> None:
    """No progress."""


def again(run: Path, data: Path, runs: Path, **options: Any) -> Any:
    return reproduce(run, data=data, runs=runs, device="cpu", progress=quiet, **options)


def test_a_run_is_made_again_and_its_mark_stands_on_the_board(run: Path, own_data: Path, tmp_path: Path) -> None:
    results = tmp_path / "board" / "results"
    row = accept(run, results)
    assert "✓" not in as_markdown(board_of_results(results)).partition("|")[2]
    outcome = again(run, own_data, tmp_path / "again")
    assert outcome.agrees
    assert (outcome.largest_difference, outcome.scores) == (0.0, 3 * (row.n_normal + row.n_anomalous))
    mark = write_mark(results, outcome)
    (board,) = board_of_results(results)
    assert [line.reproduced for line in board.lines] == [True]
    assert "pixel_distance ✓" in as_markdown([board])
    forged = json.loads(mark.read_text("utf-8")) | {"scores_sha256": "0" * 64}
    mark.write_text(json.dumps(forged), "utf-8")
    assert any("a mark of other scores" in fault for fault in check(results))
    assert not board_of_results(results)[0].lines[0].reproduced
    mark.write_text(json.dumps(forged | {"largest_difference": 9.0}), "utf-8")
    with pytest.raises(ResultsError, match="wasn't reached again"):
        read_marks(results)


def test_scores_reruns_and_row_that_were_all_made_up_are_found_by_running_again(
    run: Path, own_data: Path, tmp_path: Path
) -> None:
    """Everything in the folder agrees, so that it is accepted: only the method can say that it never gave this."""
    from medfsad_bench.results.rescore import rescored

    folder = RunFolder(run)
    scores = folder.scores()
    lifted = scores.assign(score=scores["score"] + scores["anomalous"] * 10)
    lifted.to_parquet(run / "scores.parquet", index=False)
    lift = lifted.set_index(["draw", "index"])["score"]
    reruns = folder.reruns()
    reruns["score"] = [lift[draw, index] for draw, index in zip(reruns["draw"], reruns["index"], strict=True)]
    reruns.to_parquet(run / "reruns.parquet", index=False)
    folder.write_row(rescored(folder))
    accepted = accept(run, tmp_path / "results")
    assert accepted.metrics["image_auroc"].value == 1
    assert accepted.ranks
    outcome = again(run, own_data, tmp_path / "again")
    assert not outcome.agrees
    assert outcome.largest_difference == pytest.approx(10)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("method_version", "0.0.1", r"training\.method_version \(0\.0\.1; here"),
        ("sources", {"ward_c": "0" * 64}, r"prepared files that .* doesn't hold: ward_c \(000000000000…\)"),
        ("seed", 5, r"training\.seed \(5; here 0\)"),
    ],
)
def test_a_run_that_can_not_be_planned_as_it_says_is_not_run(
    run: Path, own_data: Path, tmp_path: Path, field: str, value: Any, message: str
) -> None:
    config = RunFolder(run).config()
    config["training"][field] = value
    (run / "config.json").write_text(json.dumps(config), "utf-8")
    with pytest.raises(ResultsError, match=message):
        again(run, own_data, tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_a_run_of_given_weights_asks_for_them(run: Path, own_data: Path, tmp_path: Path) -> None:
    config = RunFolder(run).config() | {"checkpoint": "abc" * 20}
    (run / "config.json").write_text(json.dumps(config), "utf-8")
    with pytest.raises(ResultsError, match="Name that file with --checkpoint"):
        again(run, own_data, tmp_path / "again")


def test_reproduce_as_a_user_meets_it(
    medfsad: Medfsad,  # noqa: F811
    run: Path,
    own_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    code, out, err = medfsad("reproduce", run, "--data", own_data, "--mark", "--results", "results")
    assert code == 0, err
    assert f"{run.name}: reproduced. 66 scores were made again on cpu" in out
    assert (tmp_path / "results" / "reproduced" / f"{run.name}.json").is_file()
    code, _, err = medfsad("reproduce", run, "--data", own_data, "--runs", run.parent)
    assert code == 2
    assert "Name another folder with --runs" in " ".join(err.split())
    assert "delete" not in err, "that is the run itself"
    code, _, err = medfsad("reproduce", run, "--data", own_data)
    assert code == 2, "made above"
    assert "delete that one, or name another folder with --runs" in " ".join(err.split())
    scores = RunFolder(run).scores()
    scores.assign(score=-scores["score"]).to_parquet(run / "scores.parquet", index=False)
    code, out, _ = medfsad("reproduce", run, "--data", own_data, "--runs", "third", "--json")
    assert code == 1
    assert json.loads(out)["agrees"] is False


def test_submitted_scores_can_not_be_made_again(run: Path, own_data: Path, tmp_path: Path) -> None:
    RunFolder(run).write_row(row_of(run, submitted=True))
    with pytest.raises(ResultsError, match="submitted"):
        again(run, own_data, tmp_path / "again")
