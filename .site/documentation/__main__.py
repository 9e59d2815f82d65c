"""`make site`: the board of the accepted rows, or of a folder of runs, and the documentation, as one folder."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from documentation.build import build_site
from documentation.examples import Workspace
from medfsad_bench.board import accepted
from medfsad_bench.cli.console import fail, out
from medfsad_bench.errors import MedfsadError
from medfsad_bench.results.habits import studies_in

ROOT = Path(__file__).resolve().parent.parent.parent


def site(
    folder: Annotated[Path, typer.Option("--out", help="Folder to write.")],
    runs: Annotated[Path | None, typer.Option(help="Folder of runs to show; without it, the accepted rows.")] = None,
) -> None:
    """Build board and documentation.

    Examples run meanwhile, which takes some minutes. What they print is kept in `build/examples.json`, and taken from
    there as long as neither an example nor anything that they depend on changes.
    """
    results = ROOT / "leaderboard" / "results"
    try:
        rows = accepted.rows_in_results(results) if runs is None else accepted.rows_in_runs(runs)
        evidence, reproduced = accepted.evidence_of(runs, results)
        with tempfile.TemporaryDirectory(prefix="medfsad-examples-") as examples:
            workspace = Workspace(Path(examples), kept=ROOT / "build" / "examples.json")
            pages = build_site(
                ROOT,
                folder,
                workspace,
                rows=rows,
                evidence=evidence,
                reproduced=reproduced,
                runs=runs,
                reported=accepted.reported_elsewhere(results),
                studies=studies_in(runs or results),
            )
    except MedfsadError as error:
        fail(str(error))
    out.print(f"wrote {pages} pages; open {folder / 'index.html'}", markup=False, soft_wrap=True)


if __name__ == "__main__":
    typer.run(site)
