"""Weights that a user names: the file itself says what they were trained on, and the row says it after it."""

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from tampering import altered, stating
from test_cli import Medfsad, medfsad  # noqa: F401 - a fixture
from test_runner import TOY, cell_of

from medfsad_bench.errors import MethodError, WeightsError
from medfsad_bench.registry import method_info
from medfsad_bench.runner.checkpoint import TrainingRecord, read_record, why_unfit
from medfsad_bench.runner.plan import Cell
from medfsad_bench.runner.runner import Runner
from medfsad_bench.store import Dataset

SMALL = {"steps": 1, "size_px": 64, "batch_size": 4, "train_shots": 2}


@pytest.fixture(scope="module")
def trained(own_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Cell, Path]:
    """d24fad on `ward_a`, trained on `ward_b`, and its checkpoint."""
    cell = cell_of(method_info("d24fad"), own_data, tmp_path_factory.mktemp("runs"), settings=SMALL, draws=1)
    Runner("cpu").run(cell)
    (file,) = (cell.options.runs / "checkpoints" / cell.training_id).glob("*.safetensors")
    return cell, file


def test_a_checkpoint_says_what_it_was_trained_on(trained: tuple[Cell, Path]) -> None:
    cell, file = trained
    record = read_record(file)
    assert record is not None
    assert (record.method, record.method_version) == ("d24fad", cell.info.version)
    assert (record.seed, record.shots, record.finished) == (0, 2, True)
    assert record.config["steps"] == 1
    (source,) = record.sources
    attributes = cell.sources[0].attributes
    assert source["name"] == "ward_b"
    assert all(source[name] == attributes[name] for name in ("membership_digest", "content_digest", "organ"))


def test_the_row_states_the_sources_that_the_weights_saw(
    trained: tuple[Cell, Path], own_data: Path, tmp_path: Path
) -> None:
    """Not those that the cell would have used: there is no other prepared set here at all."""
    cell, file = trained
    data = tmp_path / "data"
    (data / "own").mkdir(parents=True)
    shutil.copy(own_data / "own" / "ward_a-0.0.0-64px.h5", data / "own")
    alone = cell_of(cell.info, data, tmp_path / "runs", settings=SMALL, draws=1, checkpoint=file)
    assert not alone.absent
    row, _ = Runner("cpu").run(alone)
    assert row.sources == {"ward_b": cell.sources[0].attributes["membership_digest"]}
    assert (row.trained_shots, row.has_seen_target, row.checks["unseen"]) == (2, False, "passed")
    assert row.ranks


def test_a_file_of_weights_that_cant_be_read_is_the_users_to_name(own_data: Path, tmp_path: Path) -> None:
    """Nothing is said of deleting: the folder is the user's own."""
    foreign = tmp_path / "mine.pth"
    foreign.write_bytes(b"no weights")
    cell = cell_of(method_info("stfpm"), own_data, tmp_path / "runs", draws=1, checkpoint=foreign)
    with pytest.raises(WeightsError, match=r"--checkpoint .*mine\.pth can't be read .*leave --checkpoint out to train"):
        Runner("cpu").run(cell)


def test_without_a_record_nobody_knows_and_the_row_never_ranks(
    trained: tuple[Cell, Path], own_data: Path, tmp_path: Path
) -> None:
    cell, file = trained
    bare = tmp_path / "bare.safetensors"
    save_file(load_file(file), bare)
    row, _ = Runner("cpu").run(
        cell_of(cell.info, own_data, tmp_path / "runs", settings=SMALL, draws=1, checkpoint=bare)
    )
    assert row.has_seen_target == "unknown"
    assert row.sources == {}
    assert row.checks["unseen"] == "not checked: nothing tells what bare.safetensors was trained on"
    assert not row.ranks
    assert json.loads(json.dumps(row.dump()))["has_seen_target"] == "unknown"


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"target": "ward_b"}, "was trained on 'ward_b', which is the target now"),
        ({"seed": 3}, r"give --seed 0 \(now 3\)"),
        ({"settings": SMALL | {"steps": 2}}, r"give --set steps=1 \(now 2\)"),
    ],
)
def test_weights_that_do_not_fit_what_the_run_says_are_refused(
    trained: tuple[Cell, Path], own_data: Path, tmp_path: Path, changes: dict[str, object], fault: str
) -> None:
    cell, file = trained
    unfit = cell_of(cell.info, own_data, tmp_path, **{"settings": SMALL, "draws": 1, "checkpoint": file, **changes})  # type: ignore[arg-type]
    assert unfit.absent, "so a sweep over all targets goes on with the others"
    with pytest.raises(WeightsError, match=fault):
        Runner("cpu").run(unfit)


def record_of(trained: tuple[Cell, Path], **source: str) -> TrainingRecord:
    record = read_record(trained[1])
    assert record is not None
    return record.model_copy(update={"sources": ({**record.sources[0], **source},)})


def test_partners_the_same_images_and_hold_out_count(trained: tuple[Cell, Path], own_data: Path) -> None:
    cell, _ = trained
    membership = cell.target.attributes["membership_digest"]
    for source, hold_out, fault in (
        ({"membership_digest": membership}, "dataset", "which is the target now"),
        ({"held_out_with": '["ward_a"]'}, "dataset", "shares images or patients"),
        ({}, "organ", "is of the target's organ"),
        ({"organ": "brain"}, "organ", ""),
    ):
        why = why_unfit(record_of(trained, **source), cell.training, cell.target, hold_out)  # type: ignore[arg-type]
        assert fault in why
        assert bool(why) == bool(fault)
    older = record_of(trained, organ="brain").model_copy(update={"method_version": "0.0.1"})
    assert "holds weights of d24fad 0.0.1" in why_unfit(older, cell.training, cell.target, "dataset")
    torn = record_of(trained).model_copy(update={"finished": False})
    assert "interrupted" in why_unfit(torn, cell.training, cell.target, "dataset")


@pytest.mark.parametrize("text", ["{", "[]", '{"method": "d24fad"}', '{"sources": [{"name": 1}]}'])
def test_a_record_that_can_not_be_read_is_refused(trained: tuple[Cell, Path], tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.safetensors"
    save_file(load_file(trained[1]), path, metadata={"medfsad": text})
    with pytest.raises(WeightsError, match="record of what it was trained on"):
        read_record(path)


def test_weights_for_a_method_that_trains_nothing_are_not_ignored(
    trained: tuple[Cell, Path], own_data: Path, tmp_path: Path
) -> None:
    with pytest.raises(MethodError, match="learns nothing from other sets"):
        cell_of(TOY, own_data, tmp_path, checkpoint=trained[1])


def test_a_sweep_leaves_out_the_targets_that_the_weights_saw(
    medfsad: Medfsad,  # noqa: F811
    trained: tuple[Cell, Path],
    own_data: Path,
) -> None:
    small = [word for name, value in SMALL.items() for word in ("--set", f"{name}={value}")]
    code, out, err = medfsad(
        *("run", "d24fad", "--preset", "quick", *small, "--data", own_data, "--checkpoint", trained[1]),
        *("--shots", 2, "--draws", 1, "--json"),
    )
    assert code == 0, err
    assert [row["target"] for row in json.loads(out)] == ["ward_a"]
    assert "was trained on 'ward_b', which is the target now" in " ".join(err.split())


def test_a_source_that_is_not_the_benchmarks_makes_the_row_own(
    own_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from medfsad_bench.runner import plan

    data = tmp_path / "data" / "demo"
    shutil.copytree(own_data / "own", data, ignore=shutil.ignore_patterns(".*"))
    for path in data.glob("*.h5"):
        altered(path, stating(benchmark="demo"), sealed=True)

    def planned() -> Cell:
        return cell_of(method_info("d24fad"), data, tmp_path / "runs", settings=SMALL)

    assert planned().benchmark == "demo"

    def benchmark_of(dataset: Dataset) -> str:
        return "own" if dataset.name == "ward_b" else "demo"

    monkeypatch.setattr(plan, "benchmark_of", benchmark_of)
    cell = planned()
    assert cell.benchmark == cell.facts["benchmark"] == cell.identity["benchmark"] == "own"
