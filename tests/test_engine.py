"""Sweeps on several processes: every row once, equal to that of one process; what fails fails alone."""

import io
import json
import signal
import subprocess
import sys
from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd
import pytest
from engine_cells import rows_of_local_run, sweep_of, troubled, without_clocks
from test_processes import is_running, running, until

from medfsad_bench.errors import ResultsError
from medfsad_bench.registry import all_methods, method_info
from medfsad_bench.results.progress import is_being_made, progress_of
from medfsad_bench.results.run_folder import RunFolder
from medfsad_bench.results.storage import locked
from medfsad_bench.runner.engine.graph import Task, tasks_of, unfinished
from medfsad_bench.runner.engine.jobs import Workplace, _Packer, _Unpacker, packed, unpacked
from medfsad_bench.runner.engine.pool import PoolEngine
from medfsad_bench.runner.engine.status import recorded, sweeps_in
from medfsad_bench.runner.engine.sweep import sweep
from medfsad_bench.runner.engine.worker import Outcome


@dataclass
class Heard:
    """A watcher that remembers."""

    ended_tasks: list[tuple[str, str]] = field(default_factory=list)
    again_tasks: list[str] = field(default_factory=list)

    def ended(self, task: Task, outcome: Outcome) -> None:
        self.ended_tasks.append((task.id, outcome.state))

    def again(self, task: Task, outcome: Outcome) -> None:
        self.again_tasks.append(task.id)

    def look(self, running: Sequence[Task], waiting: int) -> None:
        pass


class Scripted:
    """An engine that does nothing: each task ends as it is told to, `done` unless it is told."""

    def __init__(self, capacity: int = 2, **ends: list[str]) -> None:
        self.capacity, self._ends, self.order = capacity, ends, list[str]()

    def submit(self, task: Task) -> Hashable:
        self.order.append(task.id)
        return len(self.order) - 1

    def ended(self, handles: Collection[Hashable], timeout_s: float) -> Collection[Hashable]:
        return [min(handles)]  # type: ignore[type-var]

    def outcome(self, handle: Hashable) -> Outcome:
        ends = self._ends.get(self.order[handle], [])  # type: ignore[call-overload]
        return Outcome(ends.pop(0) if ends else "done", message="told to")  # type: ignore[arg-type]


@pytest.fixture
def workplace(tmp_path: Path) -> Workplace:
    return Workplace(tmp_path, "cpu", threads=1, cache_bytes=1 << 30, store=tmp_path / "store", store_bytes=1 << 30)


def some_tasks(data: Path, runs: Path, needs: dict[str, tuple[str, ...]]) -> list[Task]:
    cell = troubled(data, runs, "none")
    return [Task(id_, "scoring", cell, needed) for id_, needed in needs.items()]


def test_a_training_is_one_task_that_all_its_cells_need(own_data: Path, tmp_path: Path) -> None:
    cells = [
        cell
        for cell in sweep_of(own_data, tmp_path, targets=("ward_a", "ward_b"), seeds=(0, 1), shots=(2, 4))
        if cell.trains
    ]
    tasks = tasks_of(cells, features=False)
    trainings = [task for task in tasks if task.kind == "training"]
    assert len(cells) == 8
    assert len(trainings) == 4  # two targets, each with the other as source, and two seeds; K has no part in it
    assert all({task.cell.training_id} == set(task.needs) for task in tasks if task.kind == "scoring")
    published = [replace(cell, options=replace(cell.options, protocol="published", draws=1)) for cell in cells]
    assert {task.kind for task in tasks_of(published, features=False)} == {"scoring"}


def test_features_are_one_task_for_all_cells_of_a_target_and_come_first(own_data: Path, tmp_path: Path) -> None:
    cells = sweep_of(own_data, tmp_path, targets=("ward_a", "ward_b"), shots=(2, 4))
    tasks = tasks_of([cell for cell in cells if cell.info.name == "mean_distance"])
    features = [task for task in tasks if task.kind == "features"]
    assert [(task.cell.target.name, task.cell.shots) for task in features] == [("ward_a", 4), ("ward_b", 4)]
    assert all(task.needs for task in tasks if task.kind == "scoring")
    assert {task.kind for task in tasks_of(cells) if task.cell.info.name == "pixel_distance"} == {"scoring"}


def test_tasks_come_in_the_order_of_the_plan_and_after_what_they_need(own_data: Path, tmp_path: Path) -> None:
    tasks = some_tasks(own_data, tmp_path, {"a": ("t",), "b": (), "t": (), "c": ("t", "b"), "d": ()})
    engine = Scripted(capacity=1)
    assert all(outcome.state == "done" for outcome in sweep(tasks, engine, Heard()).values())
    assert engine.order == ["b", "t", "a", "c", "d"]


def test_what_fails_takes_with_it_what_needs_it_and_nothing_else(own_data: Path, tmp_path: Path) -> None:
    tasks = some_tasks(own_data, tmp_path, {"t": (), "a": ("t",), "b": ()})
    engine, heard = Scripted(t=["failed"]), Heard()
    outcomes = sweep(tasks, engine, heard)
    assert {id_: outcome.state for id_, outcome in outcomes.items()} == {"t": "failed", "a": "failed", "b": "done"}
    assert outcomes["a"].message.startswith("needs what failed (trouble · ward_b · 2 shots): told to")
    assert "a" not in engine.order


def test_a_lost_task_is_begun_again_but_not_for_ever(own_data: Path, tmp_path: Path) -> None:
    tasks = some_tasks(own_data, tmp_path, {"once": (), "always": (), "preempted": ()})
    engine = Scripted(once=["lost"], always=["lost"] * 9, preempted=["handed back"] * 5)
    outcomes = sweep(tasks, engine, Heard(), retries=2)
    assert [outcomes[id_].state for id_ in ("once", "always", "preempted")] == ["done", "lost", "done"]
    assert [engine.order.count(id_) for id_ in ("once", "always", "preempted")] == [2, 3, 6]


def test_what_another_command_makes_is_put_off(own_data: Path, tmp_path: Path) -> None:
    here, there = troubled(own_data, tmp_path, "none"), troubled(own_data, tmp_path, "none", target="ward_a")
    engine = Scripted(capacity=1)
    script = (
        "import sys, time; from pathlib import Path; from medfsad_bench.results.storage import locked\n"
        "with locked(Path(sys.argv[1])):\n    print('locked', flush=True); time.sleep(2)\n"
    )
    folder = here.options.runs / here.run_id
    with subprocess.Popen([sys.executable, "-c", script, str(folder)], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        sweep(tasks_of([here, there]), engine, Heard())
    assert engine.order == [there.run_id, here.run_id]


def test_a_job_names_sets_and_methods_and_the_worker_opens_them(own_data: Path, tmp_path: Path) -> None:
    cell = sweep_of(own_data, tmp_path)[0]
    cell.target.table, cell.run_id  # noqa: B018 - what a cell has found out doesn't travel
    workplace = Workplace(tmp_path, "cpu", 1, 0)
    job = packed(tasks_of([cell])[-1], workplace)
    assert len(job.cell) < 3000
    arrived = unpacked(job, lambda path: path)
    assert arrived.run_id == cell.run_id
    assert arrived.info is method_info("d24fad")
    assert arrived.target is not cell.target


def test_a_worker_that_sees_other_files_makes_nothing(own_data: Path, tmp_path: Path) -> None:
    cell = troubled(own_data, tmp_path, "none")
    other = next(path for path in own_data.rglob("ward_a*.h5"))
    job = packed(tasks_of([cell])[0], Workplace(tmp_path, "cpu", 1, 0))
    with pytest.raises(ResultsError, match=r"planned was trouble-ward_b.*the same, on a shared file system"):
        unpacked(job, lambda path: other if path.name.startswith("ward_b") else path)


@pytest.mark.parametrize("name", sorted(all_methods()))
def test_every_installed_method_travels(name: str, own_data: Path, tmp_path: Path) -> None:
    info = all_methods()[name]
    if getattr(info, "member", None) is not None:
        pytest.skip("a family isn't run itself")
    stream = io.BytesIO()
    _Packer(stream).dump(info)
    assert _Unpacker(io.BytesIO(stream.getvalue()), lambda path: path).load() is info


@pytest.mark.slow
def test_rows_of_a_pool_are_those_of_one_process(own_data: Path, tmp_path: Path, workplace: Workplace) -> None:
    alone = rows_of_local_run(sweep_of(own_data, tmp_path / "alone"))
    cells = sweep_of(own_data, tmp_path / "pool")
    bad = [troubled(own_data, tmp_path / "pool", kind) for kind in ("refuses", "raises")]
    tasks, heard, engine = tasks_of([*bad, *cells]), Heard(), PoolEngine(2, workplace)
    try:
        with recorded(tmp_path / "pool", tasks, "two processes"):
            outcomes = sweep(tasks, engine, heard)
            (status,) = sweeps_in(tmp_path / "pool")
    finally:
        engine.close()
    assert [outcomes[cell.run_id].state for cell in bad] == ["failed", "failed"]
    assert outcomes[bad[0].run_id].message.startswith("Found a support that it doesn't take.")
    assert "ZeroDivisionError: a bug" in outcomes[bad[1].run_id].message
    assert "in _make_trouble" in (RunFolder(tasks[1].folder).path / "output.log").read_text()
    assert status.count("failed") == 2
    assert status.count("done") == len(tasks) - 2
    assert list((tmp_path / "store").rglob("*.arrow"))
    assert status.ended == ""
    assert sweeps_in(tmp_path / "pool")[0].ended
    assert unfinished(tasks_of(cells)) == []
    for cell in cells:
        folder, before = RunFolder(tmp_path / "pool" / cell.run_id), RunFolder(tmp_path / "alone" / cell.run_id)
        assert without_clocks(folder.row()) == without_clocks(alone[cell.run_id])
        pd.testing.assert_frame_equal(folder.scores(), before.scores(), check_exact=True)
        assert {path.name for path in folder.path.iterdir()} == {path.name for path in before.path.iterdir()}


@pytest.mark.parametrize("kind", ["dies", "told to end"])
def test_a_worker_that_is_ended_from_outside_costs_no_row(
    kind: str, own_data: Path, tmp_path: Path, workplace: Workplace
) -> None:
    cells = [troubled(own_data, tmp_path, kind, tmp_path / "mark"), troubled(own_data, tmp_path, "none")]
    engine, heard = PoolEngine(1, workplace), Heard()
    try:
        outcomes = sweep(tasks_of(cells), engine, heard)
    finally:
        engine.close()
    assert [outcome.state for outcome in outcomes.values()] == ["done", "done"]
    assert heard.again_tasks == [cells[0].run_id]


def test_a_lock_that_nobody_holds_keeps_nobody_out(tmp_path: Path) -> None:
    assert not is_being_made(tmp_path / "nowhere")
    with locked(tmp_path / "run"):
        pass
    assert not is_being_made(tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("ended_by", [signal.SIGTERM, signal.SIGINT])
def test_a_command_that_is_told_to_end_keeps_what_is_finished(
    ended_by: signal.Signals, own_data: Path, tmp_path: Path
) -> None:
    """And leaves no process behind."""
    main = "from medfsad_bench.cli import main; main()"
    words = ("d24fad", "--preset", "quick", "--shots", "2", "--target", "ward_b", "--jobs", "1", "--device", "cpu")
    settings = ("--set", "steps=100000", "--set", "size_px=64", "--set", "batch_size=4", "--set", "train_shots=2")
    where = ("--data", str(own_data), "--runs", str(tmp_path))
    with running(main, "run", *words, *settings, *where, stderr=subprocess.PIPE) as process:
        until(lambda: list(tmp_path.glob("checkpoints/*/training.json")), seconds=200)
        (folder,) = tmp_path.glob("checkpoints/*")
        worker = progress_of(folder)["process"]
        process.send_signal(ended_by)
        said = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert "Interrupted. What was finished is kept" in said
    until(lambda: not is_running(worker), seconds=20)
    assert json.loads((folder / "training.json").read_text())["finished"] is False
    assert progress_of(folder) == {}
