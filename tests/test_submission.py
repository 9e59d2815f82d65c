"""Scores from elsewhere: bound to the membership, same figures, marked, never ranked; and two runs compared."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from test_runner import TOY, cell_of

from medfsad_bench.board.accepted import accept, rows_in_runs
from medfsad_bench.board.comparison import as_json, compare, find_runs, pairing_runs
from medfsad_bench.board.groups import groups
from medfsad_bench.board.pages import as_markdown
from medfsad_bench.board.significance import letters_of
from medfsad_bench.errors import MedfsadError, ResultsError
from medfsad_bench.registry import method_info
from medfsad_bench.results.rescore import rescored
from medfsad_bench.results.row import Row
from medfsad_bench.results.row_schema import PATH, row_schema
from medfsad_bench.results.run_folder import RunFolder, scores_by_run
from medfsad_bench.results.submission import Submission, submit
from medfsad_bench.runner.runner import Runner
from medfsad_bench.store import Dataset


@pytest.fixture
def run(own_data: Path, tmp_path: Path) -> tuple[Row, Path]:
    """A run of chance on `ward_b`."""
    row, _ = Runner("cpu").run(cell_of(method_info("chance"), own_data, tmp_path / "runs", target="ward_b"))
    return row, tmp_path / "runs" / row.run_id


def written(folder: Path, run: tuple[Row, Path], suffix: str = ".parquet", **changes: Any) -> Path:
    """The run's scores as an outsider's file, shuffled."""
    row, source = run
    table = RunFolder(source).scores()[["draw", "id", "score"]].sample(frac=1, random_state=0)
    table = table.assign(membership_digest=row.membership_digest, **changes)
    path = folder / f"scores{suffix}"
    table.to_csv(path, index=False) if suffix == ".csv" else table.to_parquet(path, index=False)
    return path


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_submitted_scores_give_the_figures_of_the_run(
    run: tuple[Row, Path], own_data: Path, tmp_path: Path, suffix: str
) -> None:
    path = written(tmp_path, run, suffix)
    row, folder = submit(path, Submission("outside", "2.1", 2), data=own_data, runs=tmp_path / "runs")
    assert row.metrics == run[0].metrics
    assert row.submitted
    assert not row.ranks
    assert not row.failed_checks
    assert "not checked" in row.checks["batch"]
    assert row.adapt_s is None
    assert rescored(RunFolder(folder)) == row
    (board,) = groups(rows_in_runs(tmp_path / "runs"), scores_by_run(tmp_path / "runs"))
    assert {line.method: (line.rank, line.note) for line in board.lines} == {
        "chance": (1, ""),
        "outside": (None, "submitted scores"),
    }
    again, same = submit(path, Submission("outside", "2.1", 2), data=own_data, runs=tmp_path / "runs")
    assert (again.run_id, same) == (row.run_id, folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"membership_digest": "0" * 64}, "No prepared file"),
        ({"score": np.nan}, "not finite"),
        ({"draw": 7}, r"holds the draws \[7\]"),
        ({"id": "nobody"}, "first 'nobody'"),
    ],
)
def test_scores_that_do_not_fit_are_refused(
    run: tuple[Row, Path], own_data: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    row, source = run
    table = RunFolder(source).scores()[["draw", "id", "score"]]
    table.assign(**{"membership_digest": row.membership_digest, **changes}).to_csv(tmp_path / "s.csv", index=False)
    with pytest.raises(MedfsadError, match=message):
        submit(tmp_path / "s.csv", Submission("outside", "1", 2), data=own_data, runs=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("cut", "message"),
    [
        (lambda t: t[1:], "expected 3 draws × 22 test images"),
        (lambda t: pd.concat([t, t[:1]]), "twice in one draw"),
        (lambda t: t.drop(columns="score"), "score missing"),
    ],
)
def test_a_query_missing_or_twice_is_refused(
    run: tuple[Row, Path], own_data: Path, tmp_path: Path, cut: Any, message: str
) -> None:
    cut(pd.read_parquet(written(tmp_path, run))).to_parquet(tmp_path / "cut.parquet", index=False)
    with pytest.raises(ResultsError, match=message):
        submit(tmp_path / "cut.parquet", Submission("outside", "1", 2), data=own_data, runs=tmp_path / "out")


@pytest.mark.parametrize(("name", "message"), [("chance", "installed method"), ("My Method", "small letters")])
def test_the_name_of_a_submission_is_its_own(
    run: tuple[Row, Path], own_data: Path, tmp_path: Path, name: str, message: str
) -> None:
    with pytest.raises(ResultsError, match=message):
        submit(written(tmp_path, run), Submission(name, "1", 2), data=own_data, runs=tmp_path)


def test_declared_training_on_the_target_fails_a_check(run: tuple[Row, Path], own_data: Path, tmp_path: Path) -> None:
    about = Submission("outside", "1", 2, trained_on=("ward_b",))
    row, folder = submit(written(tmp_path, run), about, data=own_data, runs=tmp_path / "runs")
    assert "trained on ward_b" in row.failed_checks["unseen"]
    with pytest.raises(ResultsError, match="kept off the board"):
        accept(folder, tmp_path / "results")
    seen, _ = submit(
        written(tmp_path, run), Submission("other", "1", 2, has_seen=("ward_b",)), data=own_data, runs=tmp_path / "runs"
    )
    assert seen.has_seen_target
    assert not seen.failed_checks


def test_submitting_and_rescoring_need_no_torch(run: tuple[Row, Path], own_data: Path, tmp_path: Path) -> None:
    path = written(tmp_path, run)
    code = f"""
import sys
from pathlib import Path
from medfsad_bench.results.submission import Submission, submit
from medfsad_bench.results.rescore import rescored
from medfsad_bench.results.run_folder import RunFolder, scores_by_run
scores, data, runs = (Path(place) for place in {[str(path), str(own_data), str(tmp_path)]!r})
row, folder = submit(scores, Submission("outside", "1", 2), data=data, runs=runs)
assert rescored(RunFolder(folder)) == row
from medfsad_bench import cli
from medfsad_bench.board import accepted, comparison
print("torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_two_runs_are_compared_on_their_draws(run: tuple[Row, Path], own_data: Path, tmp_path: Path) -> None:
    other, _ = Runner("cpu").run(cell_of(TOY, own_data, tmp_path / "runs", target="ward_b"))
    comparison = compare([tmp_path / "runs" / other.run_id], [run[1]])
    (only,) = comparison.targets
    difference = only.differences["image_auroc"]
    expected = other.metrics["image_auroc"].value - run[0].metrics["image_auroc"].value
    assert difference.value == pytest.approx(expected, abs=1e-12)
    assert difference.low is not None
    assert difference.high is not None
    assert difference.low < difference.value < difference.high
    assert only.delong.value == pytest.approx(expected, abs=1e-12)
    assert only.delong.error == pytest.approx(difference.error, rel=0.15)
    assert {"image_average_precision", "image_fpr_at_tpr95"} <= set(only.differences)
    assert comparison.means["image_auroc"].other_targets is None
    assert json.loads(json.dumps(as_json(comparison)))["targets"]["ward_b"]["differences"]["image_auroc"]["p"] <= 1


def test_methods_are_compared_over_their_targets(own_data: Path, tmp_path: Path) -> None:
    for target in ("ward_a", "ward_b"):
        for info in (TOY, method_info("chance")):
            Runner("cpu").run(cell_of(info, own_data, tmp_path, target=target))
    sides = [find_runs(tmp_path, name, shots=2) for name in ("toy", "chance")]
    comparison = compare(*sides)
    assert [result.target for result in comparison.targets] == ["ward_a", "ward_b"]
    by_target = [result.differences["image_auroc"].value for result in comparison.targets]
    assert comparison.means["image_auroc"].these_targets.value == pytest.approx(np.mean(by_target))
    assert "pixel_auroc" not in comparison.means
    rows = rows_in_runs(tmp_path)
    rows = [row.model_copy(update={"benchmark": "demo"}) for row in rows]  # own sets are ranked each by itself
    (board,) = groups(rows, scores_by_run(tmp_path))
    assert [(line.method, line.letters) for line in board.lines] == [("toy", "a"), ("chance", "b")]
    assert "share a letter" in as_markdown([board])
    assert letters_of([board.lines[0].rows] * 2, {}) == ["a", "a"], "without scores, by the intervals"


def test_of_several_runs_of_a_target_those_that_pair_with_most_draws_are_taken(own_data: Path, tmp_path: Path) -> None:
    rows = {}
    for info, draws in ((TOY, 2), (TOY, 3), (TOY, 4), (method_info("chance"), 2), (method_info("chance"), 3)):
        cell = cell_of(info, own_data, tmp_path, target="ward_b", draws=draws)
        rows[info.name, draws] = Runner("cpu").run(cell)[0].run_id
    toys, others = (find_runs(tmp_path, name, shots=2) for name in ("toy", "chance"))
    first, second, (note,) = pairing_runs(toys, others)
    assert [path.name for path in (*first, *second)] == [rows["toy", 3], rows["chance", 3]]
    assert "which pair on 3 draws" in note
    assert compare(first, second).targets[0].target == "ward_b"
    alone = [tmp_path / rows["toy", 4]]
    assert pairing_runs(alone, [tmp_path / rows["chance", 3]]) == (alone, [tmp_path / rows["chance", 3]], [])
    with pytest.raises(ResultsError, match="No two are of the same images, draws and seed"):
        pairing_runs(alone, others)


@pytest.mark.parametrize(("changes", "message"), [({"shots": 3}, "differ in shots"), ({"draws": 2}, "differ in draws")])
def test_runs_of_other_cells_are_not_paired(
    run: tuple[Row, Path], own_data: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    other, _ = Runner("cpu").run(cell_of(TOY, own_data, tmp_path / "runs", target="ward_b", **changes))
    with pytest.raises(ResultsError, match=message):
        compare([tmp_path / "runs" / other.run_id], [run[1]])


def test_the_spread_over_training_seeds_is_a_figure_of_its_own(own_data: Path, tmp_path: Path) -> None:
    rows = [
        Runner("cpu").run(cell_of(method_info("chance"), own_data, tmp_path / str(seed), target="ward_b", seed=seed))[0]
        for seed in range(3)
    ]
    (board,) = groups(rows)
    means = [row.metrics["image_auroc"].value for row in rows]
    assert [line.seeds_sd for line in board.lines] == pytest.approx([np.std(means, ddof=1)] * 3)
    assert "sd over seeds" in as_markdown([board])


def test_the_exported_schema_is_the_rows(run: tuple[Row, Path]) -> None:
    """`python -m medfsad_bench.results.row_schema` writes it anew."""
    assert PATH.read_text("utf-8") == row_schema()
    schema = json.loads(row_schema())
    assert schema["additionalProperties"] is False
    assert all(part["additionalProperties"] is False for part in schema["$defs"].values())
    row = run[0].dump()
    unsaid = {"contaminated_supports", "settings_chosen_on", "settings_grid"}
    assert set(row) == set(schema["properties"]) - unsaid, "said only where there is something to say"
    assert set(schema["required"]) <= set(row)
    with pytest.raises(ValueError, match="Extra inputs are not permitted"):
        Row.model_validate({**row, "surplus": 1})


def test_episodes_are_exported_for_whoever_scores_elsewhere(own_data: Path, tmp_path: Path) -> None:
    from medfsad_bench.store.export import export_episodes

    dataset = Dataset(own_data / "own" / "ward_b-0.0.0-64px.h5")
    export_episodes(dataset, tmp_path / "episodes.csv")
    table = pd.read_csv(tmp_path / "episodes.csv", dtype={"id": str})
    assert set(table["membership_digest"]) == {dataset.attributes["membership_digest"]}
    first = table[(table["role"] == "support") & (table["draw"] == 1)].sort_values("position")
    assert first["id"].tolist() == dataset.table["id"].astype(str).iloc[dataset.episodes[1]].tolist()
    assert len(table[table["role"] == "query"]) == len(dataset.indices("test"))
