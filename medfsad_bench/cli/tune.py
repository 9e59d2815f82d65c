"""`medfsad tune`: settings chosen on other sets than the target, then run on it."""

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.table import Table

from medfsad_bench.cli import options as opt
from medfsad_bench.cli.cache import feature_store
from medfsad_bench.cli.cells import failures_of, planned, rows_table, run_cells, stop_if_failed
from medfsad_bench.cli.console import err, folded, out, print_json, progress_bars, table_of
from medfsad_bench.errors import MethodError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from medfsad_bench.results.row import Row
    from medfsad_bench.runner.tuning import Choice


def tune(
    method: opt.Method,
    grid: Annotated[
        list[str] | None,
        typer.Option(help="name=value|value of a setting, in quotes; repeatable. The method's own grid by default."),
    ] = None,
    shots: opt.ShotsList = None,
    target: opt.Targets = None,
    draws: opt.Draws = None,
    hold_out: opt.HoldOut = "dataset",
    preset: opt.Preset = "paper",
    backbone: opt.Backbone = None,
    weights: opt.Weights = None,
    device: opt.Device = "auto",
    seed: opt.Seed = 0,
    data: opt.Data = opt.DATA,
    benchmark: opt.Benchmark = None,
    runs: opt.Runs = opt.RUNS,
    features: opt.Features = None,
    features_gb: opt.FeaturesGB = None,
    settings: opt.Settings = None,
    json_: opt.Json = False,
) -> None:
    """Choose settings for each target on the other sets, never by its labels, and run it: rows on a track of their own.

    Exit 1 if a row fails a protocol check, or one of several targets fails: the others go on.
    """
    from medfsad_bench.registry import method_info
    from medfsad_bench.runner.plan import RunOptions
    from medfsad_bench.runner.runner import Runner
    from medfsad_bench.runner.tuning import choose, chosen_cell, settings_grid
    from medfsad_bench.store.prepared import prepared_sets

    fixed = opt.settings_of(settings, backbone, weights)
    points = settings_grid(method_info(method), preset=preset, settings=fixed, grid=grid_of(grid))
    options = RunOptions(runs, draws=opt.draws_of(draws), seed=seed, hold_out=hold_out, preset=preset, settings=fixed)
    plan = planned([method], target, shots, options, data=data, benchmark=benchmark)
    sets = prepared_sets(data, benchmark)
    runner = Runner(device, store=feature_store(features, features_gb, runs, device))
    failures = failures_of(plan)
    chosen: dict[str, Choice] = {}
    cells = []
    with progress_bars() as bars:
        for cell in plan:
            with failures.alone(cell.title):
                choice = choose(cell, points, sets, runner, bars.following(cell.title))
                cells.append(chosen_cell(cell, choice, sets))
                chosen[cells[-1].run_id] = choice
                bars.finish()
    rows = run_cells(cells, runner, failures)
    choices = [chosen[row.run_id] for row in rows]
    if json_:
        print_json({"choices": [_as_json(choice) for choice in choices], "rows": [row.dump() for row in rows]})
    else:
        for k in sorted({choice.shots for choice in choices}):
            out.print(_grid_table([choice for choice in choices if choice.shots == k]))
        if rows:
            out.print(_choices_table(choices, rows))
        for choice in choices:
            for name, reason in choice.left_out.items():
                err.print(f"{choice.target}, {choice.shots} shots: not chosen on {name} ({reason})", markup=False)
        if rows:
            out.print(rows_table(rows))
    stop_if_failed(rows, failures.paragraphs)


def grid_of(pairs: list[str] | None) -> dict[str, list[str]]:
    """Values by setting, from --grid.

    Raises:
        MethodError: If one of `pairs` isn't `name=value|value`, or a name stands twice.
    """
    grid: dict[str, list[str]] = {}
    for pair in pairs or []:
        name, _, values = (part.strip() for part in pair.partition("="))
        parts = [value.strip() for value in values.split("|")]
        if not name or not all(parts):
            raise MethodError(f"--grid {pair!r} is no grid. Expected name=value|value, as in --grid 'stages=2,3|3'.")
        if name in grid:
            raise MethodError(f"--grid names {name!r} twice. Give all its values at once: --grid '{name}=value|value'.")
        grid[name] = parts
    return grid


def _as_json(choice: "Choice") -> dict[str, Any]:
    return {
        "target": choice.target,
        "shots": choice.shots,
        "chosen_on": sorted(choice.aurocs),
        "chosen": dict(choice.grid[choice.best]),
        "grid": [dict(point) for point in choice.grid],
        "aurocs": {name: aurocs.tolist() for name, aurocs in choice.aurocs.items()},
        "means": choice.means.tolist(),
        "left_out": dict(choice.left_out),
    }


def _grid_table(choices: "Sequence[Choice]") -> Table:
    """What each setting reaches on each set: settings by sets, whatever the target."""
    from medfsad_bench.runner.tuning import settings_text

    by_set = {name: aurocs for choice in choices for name, aurocs in choice.aurocs.items()}
    rows = (
        (settings_text(point), *(f"{aurocs[number]:.3f}" for aurocs in by_set.values()))
        for number, point in enumerate(choices[0].grid)
    )
    title = f"AUROC of each setting at {choices[0].shots} shots, mean over draws"
    return table_of(folded("settings", *by_set), rows, title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))


def _choices_table(choices: "Sequence[Choice]", rows: "Sequence[Row]") -> Table:
    """What was chosen for each target, and what it reaches there."""
    from medfsad_bench.runner.tuning import settings_text

    cells = (
        (
            choice.target,
            str(choice.shots),
            settings_text(choice.grid[choice.best]),
            f"{choice.means[choice.best]:.3f}",
            f"{row.metrics['image_auroc'].value:.3f}",
        )
        for choice, row in zip(choices, rows, strict=True)
    )
    table = table_of(
        folded("target", "K", "settings chosen for it", "mean of the others", "target"),
        cells,
        title="chosen without the target",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    table.caption = "by the highest mean over the other sets that may serve as sources; of equals, the first"
    return table
