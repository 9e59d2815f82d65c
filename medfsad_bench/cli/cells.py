"""From the words of a command to cells, and from cells to rows: what all commands that run methods share."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from medfsad_bench.cli.console import Bars, err, interval_text, progress_bar
from medfsad_bench.errors import StoreError

if TYPE_CHECKING:
    from medfsad_bench.estimates.estimate import Estimate
    from medfsad_bench.results.row import Row
    from medfsad_bench.runner.plan import Cell, RunOptions
    from medfsad_bench.store import Dataset


def planned(
    methods: Sequence[str],
    targets: Sequence[str] | None,
    shots: Sequence[int] | None,
    options: "RunOptions",
    *,
    data: Path,
    benchmark: str | None,
) -> "list[Cell]":
    """The cells asked for that exist, target by target: the next method finds a target's features still in memory."""
    from medfsad_bench.registry import method_info
    from medfsad_bench.runner.plan import cells

    infos = [method_info(name) for name in methods]
    sets, chosen = prepared_targets(data, benchmark, targets or ["all"])
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


def prepared_targets(data: Path, benchmark: str | None, names: Sequence[str]) -> "tuple[list[Dataset], list[Dataset]]":
    """All sets of the benchmark, and those among them and the user's own that were named.

    Raises:
        StoreError: If a name isn't prepared.
    """
    from medfsad_bench.manifest import version_note
    from medfsad_bench.store.prepared import own_sets, prepared_sets

    sets = prepared_sets(data, benchmark)
    by_name = {dataset.name: dataset for dataset in (*own_sets(data), *sets)}
    if unknown := sorted(set(names) - set(by_name) - {"all"}):
        raise StoreError(f"--target {unknown[0]!r} is not prepared in {data}; there are {', '.join(sorted(by_name))}.")
    for dataset in sets:
        if note := version_note(dataset.attributes):
            err.print(f"{dataset.path.name}: {note}", markup=False)
    return sets, sets if "all" in names else [by_name[name] for name in names]


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
    with progress_bar() as progress:
        bars = Bars(progress)
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
    table = Table()
    for column in ("method", "target", "K", "AUROC [95 %]", "AP", "px AUROC", "AUPRO"):
        table.add_column(column, no_wrap=True)
    for row in rows:
        metrics = row.metrics
        table.add_row(
            row.method + ("" if row.protocol == "strict" else f" [{row.protocol}]"),
            row.target + (" *" if row.allowed else "") + (" ‡" if row.is_small else ""),
            str(row.shots) + (f" ({row.contaminated_supports} †)" if row.contaminated_supports else ""),
            interval_text(metrics["image_auroc"]),
            _value(metrics["image_average_precision"]),
            _value(metrics.get("pixel_auroc")),
            _value(metrics.get("aupro_fpr30_conn8")),
        )
    table.caption = "\n".join(_captions(rows))
    return table


def _captions(rows: "Sequence[Row]") -> list[str]:
    from medfsad_bench.store.composition import SMALL

    captions = []
    if any(row.allowed for row in rows):
        captions.append("* not the benchmark: smaller, or with a fault that was allowed")
    if any(row.contaminated_supports for row in rows):
        captions.append("† so many supports are anomalies nobody noticed, on fewer queries: a track of its own")
    if any(row.is_small for row in rows):
        captions.append(f"‡ {SMALL}")
    if any(row.protocol != "strict" for row in rows):
        captions.append("[published]: maps smoothed across images, epoch picked on the test set; never ranked")
    return captions


def _value(estimate: "Estimate | None") -> str:
    return "–" if estimate is None else f"{estimate.value:.3f}"
