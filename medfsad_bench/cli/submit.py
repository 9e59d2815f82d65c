"""`medfsad submit`: scores from elsewhere become a row."""

from pathlib import Path
from typing import Annotated

import typer

from medfsad_bench.cli.cells import rows_table
from medfsad_bench.cli.console import out, print_json
from medfsad_bench.cli.options import DATA, RUNS, Data, HoldOut, Json, Runs, Seed, Shots


def submit(
    scores: Annotated[Path, typer.Option(help="Parquet or CSV with the columns membership_digest, draw, id, score.")],
    method: Annotated[str, typer.Option(help="Name of the method that made them.")],
    shots: Shots = 4,
    version: Annotated[str, typer.Option(help="The method's version.")] = "1.0.0",
    seed: Seed = 0,
    hold_out: HoldOut = "dataset",
    knowledge: Annotated[str, typer.Option(help="What it knows beyond K normal images.")] = "normals",
    trained_on: Annotated[list[str] | None, typer.Option(help="Set it was trained on; repeatable.")] = None,
    has_seen: Annotated[list[str] | None, typer.Option(help="Public set behind its weights; repeatable.")] = None,
    data: Data = DATA,
    runs: Runs = RUNS,
    json_: Json = False,
) -> None:
    """Make a row of scores from elsewhere: the same estimates and checks, marked, never ranked. Exit 1 if one fails."""
    from medfsad_bench.results.submission import Submission
    from medfsad_bench.results.submission import submit as submitted

    about = Submission(
        method=method,
        version=version,
        shots=shots,
        seed=seed,
        hold_out=hold_out,
        knowledge=knowledge,
        trained_on=tuple(trained_on or ()),
        has_seen=tuple(has_seen or ()),
    )
    row, folder = submitted(scores, about, data=data, runs=runs)
    if json_:
        print_json(row.dump())
    else:
        out.print(rows_table([row]))
        for check, result in row.checks.items():
            out.print(f"{check}: {result}", markup=False)
        out.print(f"wrote {folder}", markup=False)
    if row.failed_checks:
        raise typer.Exit(1)
