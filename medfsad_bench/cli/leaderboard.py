"""`medfsad leaderboard`: who wins, as tables, a page, a site or JSON; rows taken in and checked."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from medfsad_bench.cli.console import err, out
from medfsad_bench.cli.options import RUNS, Results, Targets
from medfsad_bench.errors import ResultsError, nearest
from medfsad_bench.files import write_text

if TYPE_CHECKING:
    from rich.table import Table

    from medfsad_bench.board.groups import Group
    from medfsad_bench.board.significance import Evidence
    from medfsad_bench.metrics.metric import Metric
    from medfsad_bench.results.habits import HabitStudy
    from medfsad_bench.results.row import Row

_EMPTY = (
    "There are no accepted rows yet. `medfsad demo` makes some on generated images; `medfsad run METHOD` makes "
    "your own, `medfsad leaderboard --runs {runs}` shows them, and `--accept RUN` takes one in."
)

_WITHOUT_SCORES = (
    "The scores of {count} row(s) aren't here (an installed package has rows alone), so that their methods are "
    "compared by their intervals, which tells fewer apart than image by image. The repository's board has the scores."
)


def leaderboard(
    runs: Annotated[Path | None, typer.Option(help="Folder of runs; without it, the accepted rows.")] = None,
    metric: Annotated[str, typer.Option(help="What ranks: a metric of the rows, as pixel_auroc.")] = "image_auroc",
    target: Targets = None,
    track: Annotated[
        list[str] | None, typer.Option(help="Words of a table's heading, as `4 shots`; repeatable: all must be there.")
    ] = None,
    format_: Annotated[
        Literal["table", "md", "json", "html"], typer.Option("--format", help="How to show it.")
    ] = "table",
    data: Annotated[
        Path | None, typer.Option(help="Folder of prepared files: the site's contact sheets and example pictures.")
    ] = None,
    out_folder: Annotated[
        Path | None, typer.Option("--out", help="Folder to write leaderboard.md or .json into, or the site.")
    ] = None,
    accept: Annotated[
        list[Path] | None, typer.Option(help="Folder of a run: check it and add its row to the accepted ones.")
    ] = None,
    results: Results = None,
    check: Annotated[
        bool, typer.Option("--check", help="Exit 1 if an accepted row is damaged or a page is out of date.")
    ] = False,
    write: Annotated[
        bool, typer.Option("--write", help="Write LEADERBOARD.md and the parts of each --page from accepted rows.")
    ] = False,
    page: Annotated[
        list[Path] | None, typer.Option(help="Page with parts made of rows, for --write and --check; repeatable.")
    ] = None,
) -> None:
    """Show the leaderboard: figures with intervals per method, target and K; ranks within one track."""
    from medfsad_bench.board import accepted, pages, reported
    from medfsad_bench.board.groups import groups
    from medfsad_bench.board.terminal import as_tables
    from medfsad_bench.metrics.metric import RANKING
    from medfsad_bench.resources import resource_dir
    from medfsad_bench.results.habits import studies_in

    kept = results or resource_dir("leaderboard") / "results"
    if accept:
        for folder in accept:
            out.print(f"accepted {accepted.accept(folder, kept).run_id}", markup=False, soft_wrap=True)
        return
    if write and (runs is not None or check):
        raise ResultsError(
            "--write writes pages from accepted rows; --runs, --accept and --check are commands of their own."
        )
    if page and not (check or write):
        raise ResultsError("--page names a page for --write or --check, and neither was given. Add one of them.")
    if write:
        for path in accepted.write_pages(kept, page or []):
            out.print(f"wrote {path}", markup=False, soft_wrap=True)
        return
    if check:
        faults = accepted.check(kept, page or [])
        for fault in faults:
            out.print(fault, markup=False)
        raise typer.Exit(1 if faults else 0)
    chosen = _metric(metric)
    if format_ == "html" and metric != RANKING.name:
        raise ResultsError(f"--metric {metric} chooses one table; the site has a filter of all metrics. Leave it out.")
    if data is not None and format_ != "html":
        raise ResultsError("--data is for the pictures of --format html, and that wasn't asked for. Add it.")
    if data is not None and not data.is_dir():
        raise ResultsError(
            f"--data {data} is no folder. Expected prepared files (*.h5); `medfsad prepare` writes them."
        )
    rows = _rows(runs, results, kept)
    if not rows:
        err.print(_EMPTY.format(runs=RUNS), markup=False)
    shown = _of_targets(rows, target)
    evidence, reproduced = accepted.evidence_of(runs, kept)
    board = _of_tracks(groups(shown, evidence, metric=chosen, reproduced=reproduced), track)
    if lacking := [row for row in shown if chosen.name not in row.metrics]:
        err.print(f"{len(lacking)} rows have no {chosen.name} and aren't shown.", markup=False)
    if chosen is RANKING and (alone := sum(row.run_id not in evidence for row in shown)):
        err.print(_WITHOUT_SCORES.format(count=alone), markup=False)
    if format_ == "html":
        if out_folder is None:
            raise ResultsError("--format html writes a folder of pages. Name it with --out, as in --out site.")
        material = {"reproduced": reproduced, "data": data, "reported": accepted.reported_elsewhere(kept)}
        material["runs"] = runs
        _write_site(board, evidence, out_folder, material, studies_in(runs or kept))
        return
    whole = runs is None and chosen is RANKING and not (target or track)  # papers' figures are of none of these choices
    elsewhere = accepted.reported_elsewhere(kept) if whole else []
    if format_ == "table":
        _print_tables([*as_tables(board, width=out.width), *reported.as_tables(elsewhere, width=out.width)])
        return
    if format_ == "md":
        text = pages.as_markdown(board, metric=chosen, evidence=evidence) + reported.as_markdown(elsewhere)
    else:
        text = pages.as_json(shown, board, reported.as_json(elsewhere))
    if out_folder is None:
        out.file.write(text)
        return
    path = out_folder / f"leaderboard.{format_}"
    write_text(path, text)
    out.print(f"wrote {path}", markup=False, soft_wrap=True)


def _write_site(
    board: "Sequence[Group]", evidence: "Evidence", folder: Path, material: dict[str, Any], studies: "list[HabitStudy]"
) -> None:
    from medfsad_bench.board.site.build import write_site

    rows = [row for group in board for line in group.lines for row in line.rows.values()]
    shown = {row.target for row in rows}
    studies = [study for study in studies if study.target in shown]
    pages = write_site(rows, evidence, folder, studies=studies, **material)
    out.print(f"wrote {pages} pages; open {folder / 'index.html'}", markup=False, soft_wrap=True)


def _metric(name: str) -> "Metric":
    from medfsad_bench.metrics.metric import METRICS

    if name not in METRICS:
        raise ResultsError(
            f"--metric {name!r} is unknown.{nearest(name, METRICS)} Expected one of {', '.join(METRICS)}."
        )
    return METRICS[name]


def _rows(runs: Path | None, results: Path | None, kept: Path) -> "list[Row]":
    """Rows of the runs, or accepted ones: that there are none of these yet is no mistake."""
    from medfsad_bench.board import accepted

    if runs is None:
        if results is not None and not results.is_dir():
            raise ResultsError(f"--results {results} isn't there. Expected the folder of accepted rows.")
        return accepted.rows_in_results(kept)
    rows = accepted.rows_in_runs(runs)
    if not rows:
        raise ResultsError(f"{runs} holds no finished run. Expected the folder that `medfsad run` wrote to.")
    return rows


def _of_targets(rows: "Sequence[Row]", names: Sequence[str] | None) -> "list[Row]":
    wanted = set(names or ["all"])
    if "all" in wanted:
        return list(rows)
    there = {row.target for row in rows}
    for name in sorted(wanted - there):
        raise ResultsError(
            f"--target {name!r}: no row is of this set.{nearest(name, there)} There are {', '.join(sorted(there))}."
        )
    return [row for row in rows if row.target in wanted]


def _of_tracks(board: "Sequence[Group]", words: Sequence[str] | None) -> "list[Group]":
    patterns = [rf"(?<!\w){re.escape(word)}(?!\w)" for word in words or []]
    chosen = [group for group in board if all(re.search(pattern, group.title, re.IGNORECASE) for pattern in patterns)]
    if board and not chosen:
        titles = "; ".join(group.title for group in board)
        raise ResultsError(
            f"--track {' and '.join(map(repr, words or []))}: no track is called so. There are: {titles}."
        )
    return chosen


def _print_tables(tables: "Sequence[Table]") -> None:
    """Print them, through a pager where somebody sits at the terminal and the screen is too low."""
    if out.is_terminal and sum(table.row_count + 8 for table in tables) > out.height:
        with out.pager():
            out.print(*tables, sep="\n\n")
    else:
        for table in tables:
            out.print(table)
            out.print()
