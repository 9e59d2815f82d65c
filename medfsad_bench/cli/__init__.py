"""The command line. Thin: it reads options, calls one function, and prints what came out."""

import sys

import typer

from medfsad_bench.cli import about, board, demo, methods, prepare, reproduce, run, score, sensitivity, submit
from medfsad_bench.cli.console import fail
from medfsad_bench.errors import MedfsadError

app = typer.Typer(
    name="medfsad",
    help="Few-shot anomaly detection in medical images: prepare data sets, run methods, read the leaderboard.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
for command in (
    *(demo.demo, prepare.prepare, prepare.verify, prepare.inspect, prepare.export),
    *(
        run.run,
        score.score,
        run.rescore,
        reproduce.reproduce,
        board.show,
        sensitivity.robustness,
        sensitivity.influence,
        board.compare,
        submit.submit,
    ),
    *(sensitivity.protocols, board.leaderboard),
    *(methods.methods, methods.check, methods.new_method, about.datasets, about.doctor),
):
    app.command()(command)


def main() -> None:
    """Run the command line: exit 0 = fine, 1 = checked and failed, 2 = wrong use or input."""
    try:
        app()
    except MedfsadError as error:
        fail(str(error))
    except KeyboardInterrupt:
        sys.stderr.write("\nInterrupted. What was finished is kept; the same command goes on from there.\n")
        sys.exit(130)
