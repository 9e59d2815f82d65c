"""From the words of a command to cells, and from cells to rows: what all commands that run methods share."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from medfsad_bench.cli.console import err, progress_bars, table_of, unfolded
from medfsad_bench.display import visible
from medfsad_bench.errors import StoreError

if TYPE_CHECKING:
    from medfsad_bench.info import MethodInfo
    from medfsad_bench.results.row import Row
    from medfsad_bench.runner.failures import Failures
    from medfsad_bench.runner.plan import Cell, RunOptions
    from medfsad_bench.runner.runner import Runner
    from medfsad_bench.store import Dataset


def planned(
    methods: Sequence[str],
    targets: Sequence[str] | None,
    shots: Sequence[int] | None,
    options: "RunOptions",
    *,
    data: Path,
    benchmark: str | None,
    seeds: Sequence[int] = (),
) -> "list[Cell]":
    """The cells asked for that exist, target by target: the next method finds a target's features still in memory.

    Args:
        methods: Names.
        targets: As `--target` names them.
        shots: Numbers of supports; 4 unless given.
        options: The same for all cells.
        data: Folder of prepared sets.
        benchmark: Which one, if it holds several.
        seeds: One cell for each; that of the options unless given.

    Raises:
        StoreError: If a target isn't prepared, or no cell exists.
    """
    from medfsad_bench.manifest import version_note
    from medfsad_bench.registry import configure, method_info
    from medfsad_bench.runner.held_out import held_out_by_content
    from medfsad_bench.runner.plan import sweep_cells
    from medfsad_bench.runner.targets import chosen_targets
    from medfsad_bench.store.prepared import own_sets, prepared_sets
    from medfsad_bench.store.proof import why_own

    infos = [method_info(name) for name in methods]
    for info in infos:  # a wrong setting of the last one is told before the first one's weights are loaded
        configure(info, preset=options.preset, settings=options.settings)
    sets = prepared_sets(data, benchmark)
    chosen = chosen_targets(targets or ["all"], sets, own_sets(data), data)
    for dataset in sets:
        if note := version_note(dataset.attributes):
            err.print(f"{dataset.path.name}: {note}", markup=False)
        if why := why_own(dataset):
            err.print(
                f"{dataset.path.name}: {why}. So its rows, and those of methods trained on it, are of the benchmark "
                "`own` and never stand among that one's.",
                markup=False,
            )
    for target in chosen:
        if partners := held_out_by_content(target, sets):
            err.print(
                f"{target.name}: held out together with {', '.join(partners)}, as they share images", markup=False
            )
    for note in _second_resizings(infos, chosen, options.preset):
        err.print(note, style="yellow", markup=False)
    with err.status("proving the prepared files that take part, once each"):
        variants = [replace(options, seed=seed) for seed in dict.fromkeys(seeds)] or [options]
        plan = sweep_cells(infos, chosen, sets, shots or [4], variants)
    return existing(plan)


def _second_resizings(infos: "Sequence[MethodInfo]", targets: "Sequence[Dataset]", preset: str) -> Iterator[str]:
    """What to say of a preset that is meant for files of another size than the targets'."""
    for info in infos:
        wanted = info.file_px.get(preset)
        others = [
            f"{target.name} ({size} px)" for target in targets if (size := target.attributes["size_px"]) != wanted
        ]
        if wanted and others:
            yield (
                f"{info.name}: the preset {preset} is meant for files of `medfsad prepare --size {wanted}`. With "
                f"{', '.join(others)} images are resized a second time, so scores aren't the preset's."
            )


def existing(plan: "Sequence[Cell]") -> "list[Cell]":
    """Those of a plan's cells that exist; the others are named on stderr, each with its reason.

    Raises:
        StoreError: If none exists.
    """
    reasons = {cell.title: reason for cell in plan if (reason := cell.absent)}
    for title, reason in reasons.items():
        err.print(f"{title}: no such cell ({reason})", style="dim")
    if len(reasons) == len(plan):
        why = "; ".join(dict.fromkeys(reasons.values()))
        raise StoreError(f"No cell to run exists: {why}.{_other_episodes(plan)}")
    return [cell for cell in plan if cell.title not in reasons]


def _other_episodes(plan: "Sequence[Cell]") -> str:
    """What to choose where no episodes are to be had; other reasons bring a remedy of their own."""
    if not all(cell.episodes.why_absent(cell.options.draws) for cell in plan):
        return ""
    if any(cell.options.contaminated for cell in plan):
        return " Choose another --target, other --shots or --contaminated."
    return " Choose another --target or other --shots."


def failures_of(plan: "Sequence[Cell]") -> "Failures":
    """Takes note of those of a plan's cells that fail, each of which is told on stderr at once."""
    from medfsad_bench.runner.failures import Failures

    return Failures(len(plan), lambda line: err.print(line, style="red", markup=False))


def run_cells(plan: "Sequence[Cell]", runner: "Runner", failures: "Failures") -> "list[Row]":
    """Run cells one after the other, with one line for each on stderr; returns the rows of those that didn't fail."""
    runner.announce(plan)
    rows = []
    with progress_bars() as bars:
        for number, cell in enumerate(plan, start=1):
            title = f"[{number}/{len(plan)}] {cell.title}"
            runner.progress = bars.following(title)
            with failures.alone(cell.title):
                row, done_before = runner.run(cell)
                bars.finish()
                for line in said_of(cell, title, row, done_before=done_before):
                    err.print(line, markup=False)
                rows.append(row)
    return rows


def said_of(cell: "Cell", title: str, row: "Row", *, done_before: bool) -> Iterator[Text]:
    """What is said of a cell that has its row: its AUROC, maps that are missing, and checks that failed."""
    from medfsad_bench.results.run_folder import RunFolder

    yield Text(f"{title}: AUROC {row.metrics['image_auroc'].value:.3f}{' (done before)' if done_before else ''}")
    if cell.options.save_maps and not RunFolder(cell.options.runs / cell.run_id).has_maps(0):
        why = "name another --runs to have them" if done_before else "the method or the protocol gives none"
        yield Text(f"{title}: no anomaly maps were kept: {why}")
    for check, fault in row.failed_checks.items():
        yield Text(f"{title}: fails the check {check}, so it never ranks: {visible(fault)}", style="bold red")


def stop_if_failed(rows: "Sequence[Row]", failures: Sequence[str] = ()) -> None:
    """Exit 1 with the list of what failed, if anything did, or if a row fails a protocol check.

    Args:
        rows: Of which `run_cells` has said which checks they fail, and why.
        failures: A paragraph for each cell, or task of an engine, that failed.
    """
    if failures:
        err.print(f"[bold red]{len(failures)} task{'s' if len(failures) > 1 else ''} failed:[/]")
    for failure in failures:
        err.print(f"- {failure}", markup=False)
    if failures or any(row.failed_checks for row in rows):
        raise typer.Exit(1)


def rows_table(rows: "Sequence[Row]") -> Table:
    """Rows as a table for the terminal."""
    estimates = ("image_average_precision", "pixel_auroc", "aupro_fpr30_conn8")
    cells = (
        (
            row.method
            + ("" if row.protocol == "strict" else f" [{row.protocol}]")
            + (" §" if row.settings_chosen_on else ""),
            row.target + (" *" if row.allowed else "") + (" ‡" if row.is_small else ""),
            str(row.shots) + (f" ({row.contaminated_supports} †)" if row.contaminated_supports else ""),
            row.metrics["image_auroc"].text,
            *(f"{row.metrics[name].value:.3f}" if name in row.metrics else "–" for name in estimates),
        )
        for row in rows
    )
    columns = unfolded("method", "target", "K", "AUROC [95 %]", "AP", "px AUROC", "AUPRO")
    caption = "\n".join(_captions(rows))
    return table_of(columns, cells, caption=caption, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))  # fits 80 columns


def _captions(rows: "Sequence[Row]") -> list[str]:
    from medfsad_bench.store.composition import SMALL

    captions = {
        "* not the benchmark: smaller, or with a fault that was allowed": any(row.allowed for row in rows),
        "† so many supports are anomalies nobody noticed, on fewer queries: a track of its own": any(
            row.contaminated_supports for row in rows
        ),
        "§ settings chosen on other sets: a track of its own": any(row.settings_chosen_on for row in rows),
        f"‡ {SMALL}": any(row.is_small for row in rows),
        **{f"{row.target}: no interval. {row.absent['interval']}": True for row in rows if "interval" in row.absent},
        "[published]: maps smoothed across images, epoch picked on the test set; never ranked": any(
            row.protocol != "strict" for row in rows
        ),
    }
    warnings = dict.fromkeys(
        f"{row.method} on {row.target} never ranks: {text}" for row in rows for text in row.warnings
    )
    return [*(caption for caption, applies in captions.items() if applies), *warnings]
