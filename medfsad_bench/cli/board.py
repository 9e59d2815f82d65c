"""`medfsad leaderboard`: rows become a table."""

from pathlib import Path
from typing import Annotated

import typer

from medfsad_bench.cli.console import out
from medfsad_bench.cli.options import Shown
from medfsad_bench.errors import ResultsError
from medfsad_bench.files import write_text


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(leaderboard)


def leaderboard(
    runs: Annotated[Path | None, typer.Option(help="Folder of runs; without it, the accepted rows.")] = None,
    format_: Shown = "table",
    out_folder: Annotated[
        Path | None, typer.Option("--out", help="Folder to write leaderboard.md or leaderboard.json into.")
    ] = None,
    accept: Annotated[
        list[Path] | None, typer.Option(help="Folder of a run: check it and add its row to the accepted ones.")
    ] = None,
    results: Annotated[Path | None, typer.Option(help="Folder of accepted rows.")] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Exit 1 if an accepted row is damaged or LEADERBOARD.md is out of date.")
    ] = False,
) -> None:
    """Show the leaderboard: AUROC with intervals per method, target and K; ranks within one benchmark and K."""
    from medfsad_bench.board import accepted, pages
    from medfsad_bench.board.groups import groups
    from medfsad_bench.resources import resource_dir
    from medfsad_bench.results.run_folder import scores_by_run

    kept = results or resource_dir("leaderboard") / "results"
    if accept:
        for folder in accept:
            out.print(f"accepted {accepted.accept(folder, kept).run_id}")
        return
    if check:
        faults = accepted.check(kept)
        for fault in faults:
            out.print(fault)
        raise typer.Exit(1 if faults else 0)
    rows = accepted.rows_in_runs(runs) if runs is not None else accepted.rows_in_results(kept)
    if not rows:
        raise ResultsError(f"{runs or kept} holds no finished run. Expected the folder that `medfsad run` wrote to.")
    board = groups(rows, scores_by_run(runs or kept))
    if format_ == "table":
        for table in pages.as_tables(board):
            out.print(table)
        return
    text = pages.as_markdown(board) if format_ == "md" else pages.as_json(rows, board)
    if out_folder is None:
        out.file.write(text)
        return
    path = out_folder / f"leaderboard.{format_}"
    write_text(path, text)
    out.print(f"wrote {path}")
