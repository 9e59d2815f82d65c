"""`medfsad plan` and `status`: what a sweep consists of and will take, and how far one is."""

import inspect
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer
from rich.table import Column
from typer.models import ArgumentInfo

from medfsad_bench.cli import options as opt
from medfsad_bench.cli.cache import feature_store
from medfsad_bench.cli.cells import planned
from medfsad_bench.cli.console import err, out, print_json, table_of, unfolded
from medfsad_bench.cli.run import run
from medfsad_bench.errors import MethodError

if TYPE_CHECKING:
    from medfsad_bench.runner.engine.cost import Costs
    from medfsad_bench.runner.engine.graph import Task
    from medfsad_bench.runner.engine.status import SweepStatus

_OF_ENGINE = {
    "engine",
    "address",
    "jobs",
    "ship_data",
    "json_",
}  # what a job on a cluster says by itself, or not at all
_FAILED_SHOWN = 20


def plan(
    method: opt.Methods,
    shots: opt.ShotsList = None,
    target: opt.Targets = None,
    draws: opt.Draws = None,
    protocol: opt.Protocol = "strict",
    hold_out: opt.HoldOut = "dataset",
    preset: opt.Preset = "paper",
    backbone: opt.Backbone = None,
    weights: opt.Weights = None,
    device: opt.Device = "auto",
    seed: opt.Seeds = None,
    data: opt.Data = opt.DATA,
    benchmark: opt.Benchmark = None,
    runs: opt.Runs = opt.RUNS,
    features: opt.Features = None,
    features_gb: opt.FeaturesGB = None,
    checkpoint: opt.Checkpoint = None,
    contaminated: opt.Contaminated = 0,
    save_maps: opt.SaveMaps = False,
    settings: opt.Settings = None,
    jobs: opt.Jobs = None,
    cpus_per_task: opt.CpusPerTask = None,
    gpus_per_task: opt.GpusPerTask = None,
    memory_per_task: opt.MemoryPerTask = None,
    retries: opt.Retries = 3,
    slurm: Annotated[Path | None, typer.Option(help="Write a batch script for Slurm that runs the sweep.")] = None,
    kubernetes: Annotated[Path | None, typer.Option(help="Write a RayJob for Kubernetes that runs the sweep.")] = None,
    nodes: Annotated[int, typer.Option(min=1, help="Machines to ask the scheduler for.")] = 2,
    cpus_per_node: Annotated[int, typer.Option(min=1, help="CPUs of each.")] = 8,
    gpus_per_node: Annotated[int, typer.Option(min=0, help="GPUs of each.")] = 0,
    memory_per_node: Annotated[int, typer.Option(min=1, help="GiB of memory of each.")] = 32,
    hours: Annotated[float, typer.Option(min=0.1, help="Longest time.")] = 24.0,
    image: Annotated[str, typer.Option(help="With --kubernetes: container image with medfsad and Ray.")] = "",
    claim: Annotated[str, typer.Option(help="With --kubernetes: volume claim that all nodes share.")] = "",
    mount: Annotated[Path, typer.Option(help="With --kubernetes: where it is mounted; relative paths start here.")] = (
        Path("/medfsad")
    ),
    json_: opt.Json = False,
) -> None:
    """Print what `medfsad run` with the same options would do, and what it will take; write it as a cluster's job.

    Times are those that earlier rows in --runs tell, on whatever machine they were made.
    """
    given = dict(locals())
    from medfsad_bench.runner.engine.batch import Allocation, ray_job, slurm_script
    from medfsad_bench.runner.engine.cost import costs_from
    from medfsad_bench.runner.engine.graph import tasks_of
    from medfsad_bench.runner.plan import RunOptions

    if kubernetes is None and (image or claim):
        raise MethodError("--image and --claim go with --kubernetes FILE. Give all three, or leave them out.")
    options = RunOptions(
        runs=runs,
        draws=opt.draws_of(draws, protocol),
        protocol=protocol,
        hold_out=hold_out,
        preset=preset,
        settings=opt.settings_of(settings, backbone, weights),
        checkpoint=checkpoint,
        save_maps=save_maps,
        contaminated=contaminated,
    )
    cells = planned(method, target, shots, options, data=data, benchmark=benchmark, seeds=seed or [0])
    store = feature_store(features, features_gb, runs, device)
    tasks, costs = tasks_of(cells, features=store is not None), costs_from(runs)
    command = ["medfsad", "run", *_words(given), "--engine", "ray", "--address", "auto"]
    allocation = Allocation(nodes, cpus_per_node, gpus_per_node, memory_per_node, hours, image, claim)
    if slurm is not None:
        _write(slurm, slurm_script(command, allocation, Path.cwd()), start="sbatch")
    if kubernetes is not None:
        _write(kubernetes, ray_job(command, allocation, mount, _ray_version()), start="kubectl create -f")
    if json_:
        print_json(_as_json(tasks, costs))
        return
    _print_table(tasks, costs, jobs)


def status(runs: opt.Runs = opt.RUNS, json_: opt.Json = False) -> None:
    """Say how far the sweeps of a folder of runs are: done, running, failed, waiting, time left."""
    from medfsad_bench.runner.engine.status import as_json, sweeps_in

    sweeps = sweeps_in(runs)
    if json_:
        print_json([as_json(sweep) for sweep in sweeps])
        return
    if not sweeps:
        out.print(f"No sweep was begun in {runs}; `medfsad run … --jobs N` or --engine ray begins one.", markup=False)
    for sweep in sweeps[:1]:
        _print_status(sweep)
    for sweep in sweeps[1:]:
        counts = f"{sweep.count('done')} of {len(sweep.tasks)} tasks done"
        out.print(f"earlier: begun {sweep.started} on {sweep.host}, {counts}", style="dim", markup=False)


def _print_status(sweep: "SweepStatus") -> None:
    from medfsad_bench.runner.engine.status import State

    left = "" if sweep.ended or sweep.left_s is None else f", about {_time(sweep.left_s)} left"
    ended = f", ended {sweep.ended}" if sweep.ended else ""
    out.print(f"begun {sweep.started} on {sweep.host}{ended}: {sweep.engine}{left}", markup=False)
    out.print(", ".join(f"{sweep.count(state)} {state}" for state in get_args(State)), markup=False)
    for task in sweep.tasks:
        if task.state == "running":
            out.print(f"  {task.title}: {task.note or 'running'}", markup=False)
    failed = [task for task in sweep.tasks if task.state == "failed"]
    for task in failed[:_FAILED_SHOWN]:
        out.print(f"  failed: {task.title}: {task.note}", style="red", markup=False)
    if len(failed) > _FAILED_SHOWN:
        out.print(f"  and {len(failed) - _FAILED_SHOWN} more; --json lists all", style="red", markup=False)


def _print_table(tasks: "Sequence[Task]", costs: "Costs", jobs: int | None) -> None:
    """One line per method and kind of task, and the sum."""
    from medfsad_bench.runner.engine.graph import unfinished

    open_ids = {task.id for task in unfinished(tasks)}
    by_method: dict[tuple[str, str], list[Task]] = defaultdict(list)
    for task in tasks:
        name = task.cell.config.features.name if task.kind == "features" else task.cell.info.name
        by_method[name, task.kind].append(task)
    rows, seconds_open, unknown = [], 0.0, 0
    for (name, kind), of_method in by_method.items():
        open_tasks = [task for task in of_method if task.id in open_ids]
        times = [costs.seconds(task) for task in open_tasks]
        estimated = [seconds for seconds in times if seconds is not None]
        seconds_open, unknown = seconds_open + sum(estimated), unknown + len(times) - len(estimated)
        spent = _time(sum(estimated)) if estimated else ("–" if open_tasks else "")
        rows.append((name, kind, f"{len(of_method):,}", f"{len(of_method) - len(open_tasks):,}", spent))
    numbers = (Column(name, no_wrap=True, justify="right") for name in ("tasks", "done", "time left"))
    out.print(table_of((*unfolded("method or network", "task"), *numbers), rows, box=None, padding=(0, 2, 0, 0)))
    said = [f"{len(tasks):,} tasks, {len(open_ids):,} of them to do"]
    if seconds_open:
        at_once = f", {_time(seconds_open / jobs)} with {jobs} at a time" if jobs else ""
        said.append(f"{_time(seconds_open)} of work{at_once}")
    if unknown:
        said.append(f"no earlier row tells the time of {unknown:,}")
    out.print("; ".join(said), markup=False)


def _as_json(tasks: "Sequence[Task]", costs: "Costs") -> dict[str, Any]:
    from medfsad_bench.runner.engine.graph import unfinished

    open_ids = {task.id for task in unfinished(tasks)}
    entries = [
        {
            "id": task.id,
            "kind": task.kind,
            "title": task.title,
            "method": task.cell.info.name,
            "target": task.cell.target.name,
            "shots": task.cell.shots,
            "seed": task.cell.options.seed,
            "needs": list(task.needs),
            "done": task.id not in open_ids,
            "seconds": costs.seconds(task),
        }
        for task in tasks
    ]
    left = [entry["seconds"] for entry in entries if not entry["done"]]
    return {
        "tasks": entries,
        "seconds_left": sum(seconds for seconds in left if seconds is not None),
        "tasks_of_unknown_time": left.count(None),
    }


def _write(path: Path, text: str, *, start: str) -> None:
    from medfsad_bench.files import write_text

    try:
        write_text(path, text)
    except OSError as error:
        raise MethodError(f"{path}: can't be written ({error.strerror}). Name a file where you may write.") from error
    err.print(f"{path} written; start it with: {start} {path}", markup=False, soft_wrap=True)


def _words(given: Mapping[str, Any]) -> list[str]:
    """What was given to this command, by parameter, as the words that `medfsad run` takes; defaults are left out."""
    arguments, options = list[str](), list[str]()
    for name, parameter in inspect.signature(run).parameters.items():
        value = given.get(name, parameter.default)
        if name in _OF_ENGINE or value == parameter.default:
            continue
        info = parameter.annotation.__metadata__[0]
        values = [str(each) for each in value] if isinstance(value, list) else [str(value)]
        option = info.param_decls[0] if info.param_decls else f"--{name.replace('_', '-')}"
        if isinstance(info, ArgumentInfo):
            arguments += values
        else:
            options += [option] if value is True else [word for each in values for word in (option, each)]
    return [*arguments, *options]


def _ray_version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("ray")
    except PackageNotFoundError:
        raise MethodError(
            "--kubernetes names the version of Ray in the image, and Ray isn't installed here. Install the extra: "
            "pip install 'medfsad[ray]'."
        ) from None


def _time(seconds: float) -> str:
    """A time as people say it: the two largest units."""
    days, rest = divmod(timedelta(seconds=round(seconds)), timedelta(days=1))
    hours, minutes = divmod(round(rest.total_seconds()) // 60, 60)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes:02d} min"
    if minutes:
        return f"{minutes} min"
    return f"{seconds:.0f} s"
