"""From the words of a command to cells, and from cells to rows: what all commands that run methods share."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

from medfsad_bench.cli.console import err, interval_text, progress_bars, table_of, unfolded
from medfsad_bench.errors import StoreError

if TYPE_CHECKING:
    from medfsad_bench.results.row import Row
    from medfsad_bench.runner.plan import Cell, RunOptions


def planned(
    methods: Sequence[str],
    targets: Sequence[str] | None,
    shots: Sequence[int] | None,
    options: "RunOptions",
    *,
    data: Path,
    benchmark: str | None,
) -> "list[Cell]":
    """The cells asked for that exist, target by target: the next method finds a target's features still in memory.

    Raises:
        StoreError: If a target isn't prepared, or no cell exists.
    """
    from medfsad_bench.manifest import version_note
    from medfsad_bench.registry import method_info
    from medfsad_bench.runner.plan import cells, held_out_by_content
    from medfsad_bench.runner.targets import chosen_targets
    from medfsad_bench.store.prepared import own_sets, prepared_sets

    infos = [method_info(name) for name in methods]
    sets = prepared_sets(data, benchmark)
    chosen = chosen_targets(targets or ["all"], sets, own_sets(data), data)
    for dataset in sets:
        if note := version_note(dataset.attributes):
            err.print(f"{dataset.path.name}: {note}", markup=False)
    for target in chosen:
        if partners := held_out_by_content(target, sets):
            err.print(
                f"{target.name}: held out together with {', '.join(partners)}, as they share images", markup=False
            )
    return existing(
        [cell for target in chosen for info in infos for cell in cells(info, [target], sets, shots or [4], options)]
    )


def existing(plan: "Sequence[Cell]") -> "list[Cell]":
    """Those of a plan's cells that exist; the others are named on stderr, each with its reason.

    Raises:
        StoreError: If none exists.
    """
    reasons = {title_of(cell): cell.absent for cell in plan if cell.absent}
    for title, reason in reasons.items():
        err.print(f"{title}: no such cell ({reason})", style="dim")
    if len(reasons) == len(plan):
        why = "; ".join(dict.fromkeys(reasons.values()))
        raise StoreError(f"No cell to run exists: {why}. Choose other targets, --shots or --contaminated.")
    return [cell for cell in plan if not cell.absent]


def title_of(cell: "Cell") -> str:
    """What a progress bar calls a cell."""
    contaminated = f", {cell.options.contaminated} contaminated" if cell.options.contaminated else ""
    return f"{cell.info.name} · {cell.target.name} · {cell.shots} shots{contaminated}"


def run_cells(plan: "Sequence[Cell]", device: str) -> "list[Row]":
    """Run cells one after the other, with one line for each on stderr; returns their rows."""
    from medfsad_bench.runner.runner import Runner

    runner = Runner(device)
    runner.announce(plan)
    rows = []
    with progress_bars() as bars:
        for number, cell in enumerate(plan, start=1):
            title = f"[{number}/{len(plan)}] {title_of(cell)}"
            runner.progress = bars.following(title)
            row, done_before = runner.run(cell)
            bars.finish()
            auroc = row.metrics["image_auroc"]
            err.print(f"{title}: AUROC {auroc.value:.3f}{' (done before)' if done_before else ''}")
            rows.append(row)
    return rows


def rows_table(rows: "Sequence[Row]") -> Table:
    """Rows as a table for the terminal."""
    estimates = ("image_average_precision", "pixel_auroc", "aupro_fpr30_conn8")
    cells = (
        (
            row.method + ("" if row.protocol == "strict" else f" [{row.protocol}]"),
            row.target + (" *" if row.allowed else "") + (" ‡" if row.is_small else ""),
            str(row.shots) + (f" ({row.contaminated_supports} †)" if row.contaminated_supports else ""),
            interval_text(row.metrics["image_auroc"]),
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
        f"‡ {SMALL}": any(row.is_small for row in rows),
        "[published]: maps smoothed across images, epoch picked on the test set; never ranked": any(
            row.protocol != "strict" for row in rows
        ),
    }
    return [caption for caption, applies in captions.items() if applies]
