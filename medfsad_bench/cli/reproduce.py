"""`medfsad reproduce`: a run made again, and whether its scores come out."""

from pathlib import Path
from typing import Annotated

import typer

from medfsad_bench.cli.console import out, print_json, progress_bars
from medfsad_bench.cli.options import DATA, RUNS, Checkpoint, Data, Device, Json, Results


def reproduce(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run, of whoever made it.")],
    data: Data = DATA,
    runs: Annotated[Path, typer.Option(help="Folder of your own for the run made again.")] = RUNS / "reproduced",
    device: Device = "auto",
    checkpoint: Checkpoint = None,
    mark: Annotated[
        bool, typer.Option("--mark", help="If the scores agree, say so beside the accepted rows: re-run here.")
    ] = False,
    results: Results = None,
    json_: Json = False,
) -> None:
    """Make a run again from its folder and compare the scores. Exit 1 if one is off by over 1 % of their spread."""
    from medfsad_bench.resources import resource_dir
    from medfsad_bench.results.reproduction import write_mark
    from medfsad_bench.runner.reproduction import reproduce as made_again

    with progress_bars() as bars:
        outcome = made_again(
            run, data=data, runs=runs, device=device, checkpoint=checkpoint, progress=bars.following(run.name)
        )
    path = None
    if mark and outcome.agrees:
        path = write_mark(results or resource_dir("leaderboard") / "results", outcome)
    if json_:
        print_json(outcome.model_dump() | {"agrees": outcome.agrees, "mark": path and str(path)})
    else:
        verdict = "reproduced" if outcome.agrees else "NOT reproduced"
        out.print(
            f"{outcome.run_id}: {verdict}. {outcome.scores:,} scores were made again on {outcome.device}; the largest "
            f"difference is {outcome.largest_difference:.3g}, {outcome.tolerance:.3g} (1 % of their spread) may be.",
            markup=False,
            soft_wrap=True,
        )
        if mark:
            out.print(f"wrote {path}" if path else "no mark was left", markup=False, soft_wrap=True)
    if not outcome.agrees:
        raise typer.Exit(1)
