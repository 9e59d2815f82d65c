"""The command line. Thin: it reads options, calls one function, and prints what came out."""

import importlib.metadata
import logging
import sys
from typing import Annotated

import typer

from medfsad_bench.cli import (
    about,
    board,
    cache,
    curve,
    demo,
    leaderboard,
    methods,
    plan,
    prepare,
    report,
    reproduce,
    run,
    score,
    sensitivity,
    submit,
    tune,
)
from medfsad_bench.cli.console import fail, out
from medfsad_bench.errors import MedfsadError

_INTERRUPTED = 130

app = typer.Typer(
    name="medfsad",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> bool:
    if wanted:
        out.print(f"medfsad {importlib.metadata.version('medfsad')}", markup=False)
        raise typer.Exit
    return wanted


@app.callback()
def medfsad(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Few-shot anomaly detection in medical images: prepare data sets, run methods, read the leaderboard."""


for command in (
    *(demo.demo, prepare.prepare, prepare.verify, prepare.inspect, prepare.export),
    *(
        run.run,
        plan.plan,
        plan.status,
        score.score,
        run.rescore,
        reproduce.reproduce,
        report.report,
        board.show,
        sensitivity.robustness,
        sensitivity.influence,
        board.compare,
        submit.submit,
        tune.tune,
        curve.curve,
    ),
    *(sensitivity.protocols, leaderboard.leaderboard),
    *(methods.methods, methods.check, methods.new_method, cache.cache, about.datasets, about.doctor),
):
    app.command()(command)


def main() -> None:
    """Run the command line: exit 0 = fine, 1 = checked and failed, 2 = wrong use or input."""
    for library in ("tifffile", "nibabel.global"):  # what is wrong with a file is said in one line of ours
        logging.getLogger(library).setLevel(logging.CRITICAL)
    try:
        app()
    except MedfsadError as error:
        fail(str(error))
    except SystemExit as end:
        if end.code == _INTERRUPTED:  # typer ends so after Ctrl-C, and says nothing
            sys.stderr.write("\nInterrupted. What was finished is kept; the same command goes on from there.\n")
        raise
