"""`medfsad report`: runs as pages to hand over."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medfsad_bench.cli.console import err, out, print_json, printable
from medfsad_bench.cli.options import DATA, Data, Json

if TYPE_CHECKING:
    from medfsad_bench.board.report.run import Images


def report(
    folders: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of finished runs.")],
    out_dir: Annotated[Path, typer.Option("--out", help="Folder for the pages, one per run.")] = Path("reports"),
    data: Data = DATA,
    no_pictures: Annotated[
        bool, typer.Option("--no-pictures", help="Leave out pictures of images; nothing of --data is read.")
    ] = False,
    json_: Json = False,
) -> None:
    """Write each run as one HTML file that needs nothing else: curves with bands, misses, checks, how to repeat it."""
    from medfsad_bench.board.report.run import Images, write_run_report
    from medfsad_bench.results.run_folder import RunFolder

    pages = {}
    for run in folders:
        images = Images(None, "Pictures of images were left out on request.") if no_pictures else _images_of(run, data)
        pages[run] = out_dir / f"{RunFolder(run).row().run_id}.html"
        write_run_report(run, images, pages[run])
        if not json_:
            out.print(f"wrote {pages[run]}", markup=False, soft_wrap=True)
        if images.missing and not no_pictures:
            err.print(f"{run}: {images.missing}", markup=False)
    if json_:
        print_json({"pages": {printable(run): printable(page) for run, page in pages.items()}})


def _images_of(run: Path, data: Path) -> "Images":
    """The prepared file that a run was made with, or why there is none: figures of scores need no images."""
    from medfsad_bench.board.report.run import Images
    from medfsad_bench.errors import StoreError
    from medfsad_bench.results.run_folder import RunFolder
    from medfsad_bench.store.prepared import find_by_digest

    row = RunFolder(run).row()
    try:
        return Images(find_by_digest(data, row.membership_digest, size_px=row.size_px))
    except StoreError as error:
        return Images(None, f"No pictures of images are inside: {error}")
