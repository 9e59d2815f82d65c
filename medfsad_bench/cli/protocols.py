"""`medfsad protocols`: what each habit of the published protocol does to a method's figure."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer
from rich.table import Table

from medfsad_bench.cli.console import Bars, err, out, print_json, progress_bar
from medfsad_bench.cli.run import one_of, prepared_targets, settings_of

if TYPE_CHECKING:
    from medfsad_bench.estimates.estimate import Estimate
    from medfsad_bench.runner.protocols import Compared


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(protocols)


def protocols(
    method: Annotated[str, typer.Argument(help="Name of a method that gives anomaly maps.")],
    shots: Annotated[int, typer.Option(min=1, help="K, the number of support images.")] = 4,
    target: Annotated[list[str] | None, typer.Option(help="Data set to test on, or `all`; repeatable.")] = None,
    draws: Annotated[int, typer.Option(min=2, max=10, help="Support draws of the strict lines.")] = 10,
    preset: Annotated[str, typer.Option(help="paper or quick.")] = "paper",
    backbone: Annotated[str | None, typer.Option(help="Feature network of the method.")] = None,
    weights: Annotated[Path | None, typer.Option(help="File with the feature network's weights.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    seed: Annotated[int, typer.Option(min=0, help="Seed of training.")] = 0,
    data: Annotated[Path, typer.Option(help="Where prepared files lie.")] = Path("medfsad-data"),
    benchmark: Annotated[str | None, typer.Option(help="Which benchmark, if --data holds several.")] = None,
    runs: Annotated[Path, typer.Option(help="Where runs go.")] = Path("medfsad-runs"),
    settings: Annotated[list[str] | None, typer.Option("--set", help="name=value of the method's config.")] = None,
    format_: Annotated[str, typer.Option("--format", help="table, md or json.")] = "table",
    json_: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Show a method's AUROC under the published protocol, under the strict one, and with each habit changed alone."""
    from medfsad_bench.registry import method_info
    from medfsad_bench.runner.plan import RunOptions, cells
    from medfsad_bench.runner.protocols import compare_protocols
    from medfsad_bench.runner.runner import Runner

    info = method_info(method)
    style = cast(Literal["table", "md", "json"], "json" if json_ else one_of("--format", format_, _FORMATS))
    options = RunOptions(
        runs, draws=draws, seed=seed, preset=preset, settings=settings_of(settings or [], backbone, weights)
    )
    sets, targets = prepared_targets(data, benchmark, target or ["all"])
    found = []
    with progress_bar() as progress:
        bars = Bars(progress)
        runner = Runner(device)
        for cell in cells(info, targets, sets, [shots], options):
            title = f"{info.name} · {cell.target.name} · {shots} shots"
            if cell.absent:
                err.print(f"{title}: no such cell ({cell.absent})", style="dim")
                continue
            found.append(compare_protocols(cell, runner.device, runner.cache, progress=bars.following(title)))
            bars.finish()
    if style == "json":
        print_json([asdict(one) | {"figures": {k: v.model_dump() for k, v in one.figures.items()}} for one in found])
    elif style == "md":
        out.file.write(_markdown(found))
    else:
        out.print(_table(found))


_FORMATS = ("table", "md", "json")


def _table(found: "list[Compared]") -> Table:
    table = Table(title="image AUROC [95 % interval]")
    table.add_column("protocol")
    for one in found:
        table.add_column(one.target)
    for line in _lines(found):
        table.add_row(*line)
    return table


def _markdown(found: "list[Compared]") -> str:
    header = ["protocol", *(one.target for one in found)]
    lines = [f"| {' | '.join(line)} |" for line in _lines(found)]
    return "\n".join([f"| {' | '.join(header)} |", f"|{'---|' * len(header)}", *lines, ""])


def _lines(found: "list[Compared]") -> list[list[str]]:
    names = list(found[0].figures) if found else []
    return [[name, *(_shown(one.figures[name]) for one in found)] for name in names]


def _shown(figure: "Estimate") -> str:
    return f"{figure.value:.3f} [{figure.low:.3f}, {figure.high:.3f}]"
