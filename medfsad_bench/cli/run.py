"""`medfsad run` and `rescore`: numbers."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer
from rich.table import Table

from medfsad_bench.cli.console import Bars, err, out, print_json, progress_bar
from medfsad_bench.errors import MethodError, StoreError

if TYPE_CHECKING:
    from medfsad_bench.results.row import Row
    from medfsad_bench.runner.plan import Cell
    from medfsad_bench.store import Dataset


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(run)
    app.command()(rescore)


def run(
    method: Annotated[list[str], typer.Argument(help="Names of methods; `medfsad methods` lists them.")],
    shots: Annotated[list[int] | None, typer.Option(min=1, help="K, the number of support images; repeatable.")] = None,
    target: Annotated[list[str] | None, typer.Option(help="Data set to test on, or `all`; repeatable.")] = None,
    draws: Annotated[
        int | None, typer.Option(min=1, max=10, help="Support draws; 10, or 1 under --protocol published.")
    ] = None,
    protocol: Annotated[
        str, typer.Option(help="strict; or published: the reference implementation's test loop, marked and unranked.")
    ] = "strict",
    hold_out: Annotated[
        str, typer.Option(help="dataset, organ or modality: what no source may share with the target.")
    ] = ("dataset"),
    preset: Annotated[str, typer.Option(help="paper or quick.")] = "paper",
    backbone: Annotated[str | None, typer.Option(help="Feature network of the method.")] = None,
    weights: Annotated[Path | None, typer.Option(help="File with the feature network's weights.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    seed: Annotated[int, typer.Option(min=0, help="Seed of training and order.")] = 0,
    data: Annotated[Path, typer.Option(help="Where prepared files lie.")] = Path("medfsad-data"),
    benchmark: Annotated[str | None, typer.Option(help="Which benchmark, if --data holds several.")] = None,
    runs: Annotated[Path, typer.Option(help="Where runs go.")] = Path("medfsad-runs"),
    checkpoint: Annotated[Path | None, typer.Option(help="Weights to use instead of training.")] = None,
    contaminated: Annotated[
        int, typer.Option(min=0, help="How many of the K supports are anomalies nobody noticed; a track of its own.")
    ] = 0,
    save_maps: Annotated[bool, typer.Option("--save-maps", help="Keep the smoothed anomaly maps.")] = False,
    settings: Annotated[list[str] | None, typer.Option("--set", help="name=value of the method's config.")] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print the rows as JSON.")] = False,
) -> None:
    """Train (where a method trains), adapt to ten support draws, score every test image, write rows."""
    from medfsad_bench.registry import method_info
    from medfsad_bench.runner.plan import RunOptions, cells
    from medfsad_bench.runner.runner import Runner

    infos = [method_info(name) for name in method]
    options = RunOptions(
        runs=runs,
        draws=_draws(draws, protocol),
        seed=seed,
        protocol=cast(Literal["strict", "published"], one_of("--protocol", protocol, _PROTOCOLS)),
        hold_out=cast(Literal["dataset", "organ", "modality"], one_of("--hold-out", hold_out, _HOLD_OUTS)),
        preset=preset,
        settings=settings_of(settings or [], backbone, weights),
        device=device,
        checkpoint=checkpoint,
        save_maps=save_maps,
        contaminated=contaminated,
    )
    sets, targets = prepared_targets(data, benchmark, target or ["all"])
    by_target = [cells(info, [one], sets, shots or [4], options) for one in targets for info in infos]
    plan = [cell for part in by_target for cell in part]  # target by target, so that its features are still in memory
    runner = Runner(device)
    runner.announce(plan)
    with progress_bar() as progress:
        rows = run_cells(runner, plan, Bars(progress))
    if json_:
        print_json([row.dump() for row in rows])
    else:
        out.print(rows_table(rows))
    if not rows:
        raise StoreError(f"No cell of {', '.join(method)} exists: {'; '.join(cell.absent for cell in plan)}.")


def rescore(
    folders: Annotated[list[Path], typer.Argument(help="Folders of finished runs.")],
    by: Annotated[str | None, typer.Option(help="Break AUROC down by this column too: a site, a scanner.")] = None,
    table: Annotated[Path | None, typer.Option(help="CSV with `id` and that column, if the scores lack it.")] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Recompute the figures of runs from their stored scores and pixel tallies. Exit 1 if a row differs."""
    from medfsad_bench.results.rescore import broken_down, differences, rescored
    from medfsad_bench.results.run_folder import RunFolder

    found: dict[str, dict[str, Any]] = {}
    for folder in map(RunFolder, folders):
        again = rescored(folder)
        differ = differences(folder.row(), again)
        parts = broken_down(folder, by, table) if by is not None else {}
        figures = {name: figure.model_dump() for name, figure in {**again.metrics, **again.secondary, **parts}.items()}
        found[folder.path.name] = {"equal": not differ, "differ": differ, "figures": figures}
    if json_:
        print_json(found)
    else:
        for name, result in found.items():
            verdict = "row and scores agree" if result["equal"] else f"differs in {', '.join(result['differ'])}"
            out.print(f"{name}: {verdict}")
            if by is not None:
                out.print(_breakdown(result["figures"], by))
    if not all(result["equal"] for result in found.values()):
        raise typer.Exit(1)


def _breakdown(figures: dict[str, Any], by: str) -> Table:
    table = Table()
    for column in ("figure", "value [95 %]"):
        table.add_column(column, overflow="fold")
    for name, figure in figures.items():
        if f"[{by} " in name:
            ends = "" if figure["low"] is None else f" [{figure['low']:.3f}, {figure['high']:.3f}]"
            table.add_row(name.replace("[", r"\["), f"{figure['value']:.3f}{ends}")
    return table


_HOLD_OUTS = ("dataset", "organ", "modality")
_PROTOCOLS = ("strict", "published")


def _draws(draws: int | None, protocol: str) -> int:
    if protocol == "published" and draws not in (None, 1):
        raise MethodError(f"--draws {draws} doesn't go with --protocol published, which has one support draw.")
    return draws or (1 if protocol == "published" else 10)


def prepared_targets(data: Path, benchmark: str | None, wanted: list[str]) -> "tuple[list[Dataset], list[Dataset]]":
    """All sets of the benchmark, and those among them and the user's own that were named.

    Raises:
        StoreError: If a name isn't prepared.
    """
    from medfsad_bench.store.prepared import own_sets, prepared_sets

    sets = prepared_sets(data, benchmark)
    by_name = {dataset.name: dataset for dataset in (*own_sets(data), *sets)}
    if unknown := sorted(set(wanted) - set(by_name) - {"all"}):
        raise StoreError(f"--target {unknown[0]!r} is not prepared in {data}; there are {', '.join(sorted(by_name))}.")
    return sets, sets if "all" in wanted else [by_name[name] for name in wanted]


def one_of(option: str, value: str, known: tuple[str, ...]) -> str:
    """The value of an option, if it's known."""
    if value not in known:
        raise MethodError(f"{option} {value!r} is unknown; there are {', '.join(known)}.")
    return value


def settings_of(pairs: list[str], backbone: str | None, weights: Path | None) -> dict[str, Any]:
    """Settings of a method's config from the command line, by name."""
    settings: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.strip():
            raise MethodError(f"--set {pair!r} is no setting. Expected name=value, as in --set epochs=10.")
        settings[name.strip()] = value
    if backbone is not None:
        settings["backbone"] = backbone
    if weights is not None:
        settings["weights"] = str(weights)
    return settings


def run_cells(runner: Any, plan: "list[Cell]", bars: Bars) -> "list[Row]":
    """Run what exists of a plan, with a line a cell; returns its rows."""
    rows = []
    for number, cell in enumerate(plan, start=1):
        title = f"[{number}/{len(plan)}] {cell.info.name} · {cell.target.name} · {cell.shots} shots"
        title += f", {cell.options.contaminated} contaminated" if cell.options.contaminated else ""
        if cell.absent:
            err.print(f"{title}: no such cell ({cell.absent})", style="dim")
            continue
        runner.progress = bars.following(title)
        row, there = runner.run(cell)
        bars.finish()
        auroc = row.metrics["image_auroc"]
        err.print(f"{title}: AUROC {auroc.value:.3f}{' (done before)' if there else ''}")
        rows.append(row)
    return rows


def rows_table(rows: "list[Row]") -> Table:
    """Rows as a table for the terminal."""
    table = Table()
    for column in ("method", "target", "K", "AUROC [95 %]", "AP", "px AUROC", "AUPRO"):
        table.add_column(column, no_wrap=True)
    for row in rows:
        metrics = row.metrics
        auroc = metrics["image_auroc"]
        table.add_row(
            row.method + ("" if row.protocol == "strict" else f" [{row.protocol}]"),
            row.target + (" *" if row.allowed else ""),
            str(row.shots) + (f" ({row.contaminated_supports} †)" if row.contaminated_supports else ""),
            f"{auroc.value:.3f} [{auroc.low:.3f}, {auroc.high:.3f}]",
            f"{metrics['image_average_precision'].value:.3f}",
            _shown(metrics.get("pixel_auroc")),
            _shown(metrics.get("aupro_fpr30_conn8")),
        )
    if any(row.allowed for row in rows):
        table.caption = "* not the benchmark: smaller, or with a fault that was allowed"
    if any(row.contaminated_supports for row in rows):
        table.caption = "† so many supports are anomalies nobody noticed, on fewer queries: a track of its own"
    if any(row.protocol != "strict" for row in rows):
        table.caption = "[published]: maps smoothed across images, epoch picked on the test set; never ranked"
    return table


def _shown(figure: Any) -> str:
    return "–" if figure is None else f"{figure.value:.3f}"
