"""`medfsad leaderboard`: rows become a table."""

from pathlib import Path
from typing import Annotated

import typer

from medfsad_bench.cli.console import out
from medfsad_bench.errors import ResultsError
from medfsad_bench.files import write_text

_FORMATS = ("table", "md", "json")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(leaderboard)


def leaderboard(
    runs: Annotated[Path | None, typer.Option(help="Folder of runs; without it, the accepted rows.")] = None,
    format_: Annotated[str, typer.Option("--format", help="table, md or json.")] = "table",
    out_file: Annotated[
        Path | None, typer.Option("--out", help="Folder to write leaderboard.md or .json into.")
    ] = None,
    accept: Annotated[list[Path] | None, typer.Option(help="Validate a run and add its row to the results.")] = None,
    results: Annotated[Path | None, typer.Option(help="Folder of accepted rows.")] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Exit 1 if an accepted row is damaged or LEADERBOARD.md stale.")
    ] = False,
) -> None:
    """Show the leaderboard: AUROC with intervals per method, target and K; ranks within one benchmark and K."""
    from medfsad_bench.board import accepted as rows_of
    from medfsad_bench.board import pages
    from medfsad_bench.board.groups import groups
    from medfsad_bench.resources import resource_dir
    from medfsad_bench.results.run_folder import scores_by_run

    kept = results or resource_dir("leaderboard") / "results"
    if format_ not in _FORMATS:
        raise ResultsError(f"--format {format_!r} is unknown; there are {', '.join(_FORMATS)}.")
    for folder in accept or []:
        row = rows_of.accept(folder, kept)
        out.print(f"accepted {row.run_id}")
    if accept:
        return
    rows = rows_of.rows_in_runs(runs) if runs is not None else rows_of.rows_in_results(kept)
    if check:
        faults = rows_of.check(kept)
        for fault in faults:
            out.print(fault)
        raise typer.Exit(1 if faults else 0)
    board = groups(rows, scores_by_run(runs or kept))
    if not rows:
        raise ResultsError(
            f"{runs or kept} holds no finished rows. Expected runs with a row.json; `medfsad run` makes them."
        )
    if format_ == "table":
        for table in pages.as_tables(board):
            out.print(table)
        return
    text = pages.as_markdown(board) if format_ == "md" else pages.as_json(rows, board)
    if out_file is None:
        out.file.write(text)
        return
    path = out_file / ("leaderboard.md" if format_ == "md" else "leaderboard.json")
    write_text(path, text)
    out.print(f"wrote {path}")
