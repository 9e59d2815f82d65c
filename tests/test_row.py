"""The row's schema: closed, versioned, and older rows read under its names."""

import json
from pathlib import Path
from typing import Any

import pytest
from test_runner import TOY, cell_of

from medfsad_bench.errors import ResultsError
from medfsad_bench.results.rescore import rescored
from medfsad_bench.results.row import Row, parse_row
from medfsad_bench.results.run_folder import RunFolder
from medfsad_bench.runner.runner import Runner


@pytest.fixture(scope="module")
def run(own_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Row, RunFolder]:
    runs = tmp_path_factory.mktemp("runs")
    row, _ = Runner("cpu").run(cell_of(TOY, own_data, runs))
    return row, RunFolder(runs / row.run_id)


def as_schema_1(row: Row, **checks: str) -> dict[str, Any]:
    """The row as version 0.1.0 wrote it."""
    content = row.dump()
    now = content.pop("checks")
    content |= {"schema": 1, "lint": {**now, "contamination": "passed", **checks}}
    content["contaminated"] = content.pop("has_seen_target")
    content["operating"] = content.pop("thresholds")
    return content


def test_a_row_of_schema_1_is_the_same_row(run: tuple[Row, RunFolder]) -> None:
    row, _ = run
    assert parse_row(json.dumps(as_schema_1(row)), where="here") == row


def test_a_flagged_row_of_schema_1_stays_flagged_and_unranked(run: tuple[Row, RunFolder]) -> None:
    seen = "flagged: weights or training of toy have seen ward_a"
    content = as_schema_1(run[0], contamination=seen) | {"contaminated": True}
    upgraded = parse_row(json.dumps(content), where="here")
    assert upgraded.checks["unseen"] == seen
    assert upgraded.has_seen_target
    assert not upgraded.ranks
    assert not upgraded.failed_checks


def test_training_on_the_target_is_not_hidden_by_a_flag(run: tuple[Row, RunFolder]) -> None:
    trained = "trained on ward_a, which the target ward_a must not share"
    content = as_schema_1(run[0], contamination="flagged: seen", unseen=trained)
    assert parse_row(json.dumps(content), where="here").failed_checks == {"unseen": trained}


def test_a_run_folder_of_schema_1_is_rescored(run: tuple[Row, RunFolder], tmp_path: Path) -> None:
    """Its reruns had another file name and column."""
    row, folder = run
    for path in folder.path.glob("*.parquet"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "pixels.npz").write_bytes((folder.path / "pixels.npz").read_bytes())
    (tmp_path / "reruns.parquet").unlink()
    folder.reruns().rename(columns={"rerun": "probe"}).to_parquet(tmp_path / "probes.parquet")
    (tmp_path / "row.json").write_text(json.dumps(as_schema_1(row)), "utf-8")
    assert rescored(RunFolder(tmp_path)) == RunFolder(tmp_path).row() == row


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("{", "no JSON"),
        ("[]", "valid dictionary"),
        ('{"schema": 3}', "schema: Input should be 2"),
        ('{"schema": 2, "unheard_of": 1}', "not a result row of schema 2"),
    ],
)
def test_what_is_no_row_is_told_with_its_place(text: str, fault: str) -> None:
    with pytest.raises(ResultsError, match=f"here, line 7: .*{fault}"):
        parse_row(text, where="here, line 7")
