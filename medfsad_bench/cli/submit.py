"""`medfsad submit`: scores from elsewhere become a row."""

from pathlib import Path
from typing import Annotated, Literal, cast

import typer

from medfsad_bench.cli.console import out, print_json
from medfsad_bench.errors import ResultsError


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(submit)


def submit(
    scores: Annotated[Path, typer.Option(help="Parquet or CSV with the columns membership_digest, draw, id, score.")],
    method: Annotated[str, typer.Option(help="Name of the method that made them.")],
    shots: Annotated[int, typer.Option(min=1, help="K, the number of support images it was given.")] = 4,
    version: Annotated[str, typer.Option(help="The method's version.")] = "1.0.0",
    seed: Annotated[int, typer.Option(min=0, help="Its training seed.")] = 0,
    hold_out: Annotated[str, typer.Option(help="dataset, organ or modality: what no source shares.")] = "dataset",
    knowledge: Annotated[str, typer.Option(help="What it knows beyond K normal images.")] = "normals",
    trained_on: Annotated[list[str] | None, typer.Option(help="Set it was trained on; repeatable.")] = None,
    has_seen: Annotated[list[str] | None, typer.Option(help="Public set behind its weights; repeatable.")] = None,
    data: Annotated[Path, typer.Option(help="Where prepared files lie.")] = Path("medfsad-data"),
    runs: Annotated[Path, typer.Option(help="Where the run goes.")] = Path("medfsad-runs"),
    json_: Annotated[bool, typer.Option("--json", help="Print the row as JSON.")] = False,
) -> None:
    """Make a row of scores from elsewhere: same figures and lint, marked, never ranked. Exit 1 if the lint fails."""
    from medfsad_bench.cli.run import rows_table
    from medfsad_bench.results.submission import Submission
    from medfsad_bench.results.submission import submit as submitted

    if hold_out not in ("dataset", "organ", "modality"):
        raise ResultsError(f"--hold-out {hold_out!r} is unknown; there are dataset, organ and modality.")
    about = Submission(
        method=method,
        version=version,
        shots=shots,
        seed=seed,
        hold_out=cast(Literal["dataset", "organ", "modality"], hold_out),
        knowledge=knowledge,
        trained_on=tuple(trained_on or ()),
        has_seen=tuple(has_seen or ()),
    )
    row, folder = submitted(scores, about, data=data, runs=runs)
    if json_:
        print_json(row.dump())
    else:
        out.print(rows_table([row]))
        for check, what in row.checks.items():
            out.print(f"{check}: {what}", markup=False)
        out.print(f"wrote {folder}", markup=False)
    if row.failed_checks:
        raise typer.Exit(1)
