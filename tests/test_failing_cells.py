"""Without an engine, too, what fails for a user's reason fails alone; the rest goes on, the list comes at the end."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

import medfsad_bench as medfsad
from medfsad_bench.cli import app
from medfsad_bench.errors import DiskError, MedfsadError, MethodError, ResultsError, UnfitMethodError
from medfsad_bench.info import MethodInfo
from medfsad_bench.method import Method, RunContext, Scorer, Scores
from medfsad_bench.registry import all_methods
from medfsad_bench.results.run_folder import RunFolder
from medfsad_bench.runner.failures import Failures


@dataclass(frozen=True)
class PickyConfig:
    """Settings.

    Attributes:
        fewest: Supports that it takes; thresholds leave one of them out.
    """

    fewest: int = 3


class Picky(Method):
    """Distance to the mean support, if there are enough of them."""

    def __init__(self, config: PickyConfig) -> None:
        self.config = config

    def adapt(self, support: torch.Tensor, context: RunContext) -> Scorer:
        if len(support) < self.config.fewest:
            raise MethodError(f"Found {len(support)} supports, [expected] {self.config.fewest}.")
        mean = support.mean(0)
        return lambda images: Scores(image=(images - mean).abs().flatten(1).mean(1))


PICKY = MethodInfo("picky", "1", PickyConfig, Picky, "", "", "Apache-2.0", presets={"quick": {}})
FAILED = "picky · ward_b · 2 shots: Found 2 supports, [expected] 3."


@pytest.fixture(autouse=True)
def picky(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(all_methods(), "picky", PICKY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")


def asked(command: str, own_data: Path, *words: object) -> Result:
    where = ("--data", own_data, "--target", "ward_b", "--preset", "quick", "--device", "cpu")
    return CliRunner().invoke(app, [command, "picky", *map(str, (*where, *words))])


def failures_listed(result: Result) -> list[str]:
    lines = result.stderr.splitlines()
    return [line.removeprefix("- ") for line in lines[lines.index("1 task failed:") + 1 :]]


def test_one_cell_fails_and_the_others_have_their_rows(own_data: Path) -> None:
    result = asked("run", own_data, "--draws", 2, "--shots", 2, "--shots", 4, "--json")
    assert result.exit_code == 1
    assert [(row["method"], row["shots"]) for row in json.loads(result.stdout)] == [("picky", 4)]
    assert failures_listed(result) == [FAILED]
    assert "picky · ward_b · 2 shots: failed: Found 2 supports" in result.stderr
    assert "[2/2] picky · ward_b · 4 shots: AUROC" in result.stderr


def test_the_only_cell_fails_as_the_command_does(own_data: Path) -> None:
    result = asked("run", own_data, "--draws", 2, "--shots", 2)
    assert isinstance(result.exception, MethodError)
    assert "failed" not in result.stderr


def test_settings_are_chosen_and_cells_paired_for_what_did_not_fail(own_data: Path) -> None:
    shots = ("--draws", 2, "--shots", 2, "--shots", 4)
    tuned = asked("tune", own_data, *shots, "--grid", "fewest=3|1", "--json")
    assert (tuned.exit_code, failures_listed(tuned)) == (1, [FAILED])
    assert [row["shots"] for row in json.loads(tuned.stdout)["rows"]] == [4]
    paired = asked("robustness", own_data, *shots, "--json")
    assert paired.exit_code == 1
    assert "2 tasks failed:" in paired.stderr
    assert [(point["shots"], point["contaminated"]) for point in json.loads(paired.stdout)] == [(4, 1)]


@pytest.mark.parametrize("command", ["curve", "protocols"])
def test_a_target_that_fails_does_not_keep_the_others_from_being_looked_at(
    command: str, own_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at = []

    def fails(cell: object, *_: object, **__: object) -> None:
        looked_at.append(cell)
        raise MethodError("Found nothing.")

    monkeypatch.setattr("medfsad_bench.runner.curves.training_curve", fails)
    monkeypatch.setattr("medfsad_bench.runner.protocols.compare_protocols", fails)
    result = asked(command, own_data, "--target", "ward_a")
    assert (result.exit_code, len(looked_at)) == (1, 2)
    assert "2 tasks failed:" in result.stderr


def test_where_no_cell_exists_only_options_are_named_that_can_help(own_data: Path) -> None:
    assert str(asked("protocols", own_data, "--shots", 99).exception).endswith(
        "Choose another --target or other --shots."
    )
    contaminated = asked("run", own_data, "--shots", 99, "--contaminated", 1)
    assert str(contaminated.exception).endswith("Choose another --target, other --shots or --contaminated.")


@pytest.mark.parametrize("kind", [DiskError, UnfitMethodError])
def test_what_concerns_all_cells_stops_at_once(kind: type[MedfsadError]) -> None:
    told: list[str] = []
    failures = Failures(2, told.append)
    with failures.alone("first"):
        raise ResultsError("Found half a file.")
    with pytest.raises(kind, match="everywhere"), failures.alone("second"):
        raise kind("everywhere")
    assert failures.paragraphs == ["first: Found half a file."]
    assert told == ["first: failed: Found half a file."]


def test_a_disk_that_takes_nothing_is_told_once(own_data: Path) -> None:
    Path("medfsad-runs").write_text("no folder")
    result = asked("run", own_data, "--draws", 2, "--shots", 3, "--shots", 4, "--features", "none")
    assert isinstance(result.exception, DiskError)


def test_the_python_interface_says_at_the_end_what_failed(own_data: Path) -> None:
    where = {"data": own_data, "runs": "runs", "target": "ward_b", "draws": 2, "preset": "quick"}
    with pytest.raises(ResultsError, match=r"Of 2 cells .* 1 failed; .* picky · ward_b · 2 shots: Found 2 supports"):
        medfsad.run("picky", shots=(2, 4), **where)  # type: ignore[arg-type]
    (run,) = medfsad.leaderboard("runs")["path"]
    assert RunFolder(Path(run)).row().shots == 4
