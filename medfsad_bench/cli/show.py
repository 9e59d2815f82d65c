"""`medfsad show`: a run as a picture."""

from pathlib import Path
from typing import Annotated

import typer

from medfsad_bench.cli.console import out, print_json
from medfsad_bench.cli.options import DATA, Data, Json, Picture
from medfsad_bench.errors import ResultsError


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(show)


def show(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run that was made with --save-maps.")],
    out_png: Picture = Path("run.png"),
    data: Data = DATA,
    draw: Annotated[int, typer.Option(min=0, help="Which support draw.")] = 0,
    query: Annotated[list[str] | None, typer.Option(help="Id of a test image; repeatable.")] = None,
    json_: Json = False,
) -> None:
    """Draw queries, their anomaly maps, and the support images with the weight that each had."""
    from medfsad_bench.board.run_picture import target_of, write_picture
    from medfsad_bench.store import Dataset

    benchmark, target = target_of(run)
    files = sorted(path for folder in (data, data / benchmark) for path in folder.glob(f"{target}-*.h5"))
    if not files:
        raise ResultsError(
            f"{data} holds no prepared file of {target!r}, the run's target. Expected the one it was made with; name "
            "its folder with --data."
        )
    shown = write_picture(run, Dataset(files[0]), out_png, draw=draw, ids=query or [])
    if json_:
        print_json({"path": str(out_png), "draw": draw, "queries": shown})
    else:
        out.print(f"wrote {out_png}: {len(shown)} queries of draw {draw}")
