"""`medfsad methods`, `check`, `new-method`: which methods there are, whether they keep the contract, a new one."""

import dataclasses
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from medfsad_bench.cli.console import folded, out, print_json, table_of, unfolded
from medfsad_bench.cli.options import Backbone, Device, Json, Method, Preset, Settings, Weights, settings_of
from medfsad_bench.display import visible
from medfsad_bench.info import MethodInfo

if TYPE_CHECKING:
    from medfsad_bench.registry import Broken
    from medfsad_bench.testing import Clause


def methods(
    name: Annotated[str | None, typer.Argument(help="Show one method in full.")] = None, json_: Json = False
) -> None:
    """List the installed methods: whether they train on other sets, and what they know beyond K normal images."""
    from medfsad_bench.registry import all_methods, method_info

    infos: Mapping[str, MethodInfo | Broken] = all_methods()
    if name is not None:  # a method, a family, or one of a family's members
        info = infos.get(name)
        infos = {name: info if isinstance(info, MethodInfo) else method_info(name)}
    if json_:
        print_json({key: _facts(info) for key, info in infos.items()})
    elif name is None:
        _print_methods(infos)
    else:
        _print_method(name, _facts(infos[name]))


def check(
    method: Method,
    preset: Preset = "quick",
    backbone: Backbone = None,
    weights: Weights = None,
    device: Device = "auto",
    settings: Settings = None,
    json_: Json = False,
) -> None:
    """Test a method against the interface's contract, clause by clause, on phantoms. Exit 1 if it breaks one."""
    from medfsad_bench.manifest import all_manifests
    from medfsad_bench.registry import configure, method_info
    from medfsad_bench.runner.context import LocalContext
    from medfsad_bench.runner.plan import learns_from_sources
    from medfsad_bench.runner.runner import choose_device
    from medfsad_bench.testing import contract, shortened, training_contract

    info = method_info(method)
    config = configure(info, preset=preset, settings=settings_of(settings, backbone, weights))
    context = LocalContext(choose_device(device))
    clauses: list[Clause] = []
    if learns_from_sources(info, config):
        clauses, built = training_contract(lambda: info.build(shortened(config)), context=context)
    else:
        built = info.build(config)
    clauses += contract(built, context=context)
    broken = [clause.name for clause in clauses if clause.fault]
    seen = sorted(set(info.has_seen) & set(all_manifests()))
    if json_:
        print_json(
            {
                "method": method,
                "version": info.version,
                "preset": preset,
                "kept": not broken,
                "clauses": [asdict(clause) for clause in clauses],
                "has_seen": seen,
            }
        )
    else:
        columns = (*unfolded("", "clause"), *folded("what has to hold, and what was found"))
        out.print(table_of(columns, map(_clause_cells, clauses), box=None, padding=(0, 1, 0, 0)))
        verdict = f"breaks the contract: {', '.join(broken)}" if broken else "keeps the contract"
        out.print(f"{method}: {verdict}", style="bold red" if broken else "", markup=False)
        for target in seen:
            out.print(f"{method}: has seen {target}, so its rows there are flagged and never ranked", markup=False)
    if broken:
        raise typer.Exit(1)


def _clause_cells(clause: "Clause") -> tuple[Text, Text, Text]:
    if clause.untried:
        cells = "not tried", clause.name, f"{clause.promise} ({clause.untried})"
        state, name, promise = (Text(cell, style="dim") for cell in cells)
        return state, name, promise
    if clause.fault:
        fault = Text(visible(clause.fault), style="red")
        return Text("broken", style="bold red"), Text(clause.name), Text(f"{clause.promise}\n").append_text(fault)
    return Text("kept", style="green"), Text(clause.name), Text(clause.promise)


def new_method(
    name: Annotated[str, typer.Argument(help="Name of the method and its package, as in my_method.")],
    out_folder: Annotated[Path, typer.Option("--out", help="Folder to put the package in.")] = Path(),
) -> None:
    """Write a package with a working method to start from: config, method, info, test, README row."""
    from medfsad_bench import scaffold

    folder = scaffold.new_method(name, out_folder)
    out.print(
        f"wrote {folder}; the part to write is {folder / name / 'method.py'}. Next:",
        f"  pip install -e {folder}",
        f"  medfsad check {name}",
        f"  medfsad run {name} --preset quick --shots 4",
        sep="\n",
        markup=False,
        soft_wrap=True,
    )


def _facts(info: "MethodInfo | Broken") -> dict[str, Any]:
    if not isinstance(info, MethodInfo):
        return {"broken": info.reason}
    from medfsad_bench.registry import PRESETS

    as_they_are = ("version", "summary", "paper", "licence", "knowledge", "has_seen", "trains")
    return {
        **{name: getattr(info, name) for name in as_they_are},
        "presets": list(dict.fromkeys((*PRESETS, *info.presets))),
        "settings": {field.name: str(field.default) for field in dataclasses.fields(info.config)},
        "deviations": info.deviations,
        "family": info.member is not None,
        "file_px": dict(info.file_px),
        "grid": {field: list(values) for field, values in info.grid.items()},
    }


def _print_methods(infos: "Mapping[str, MethodInfo | Broken]") -> None:
    """One line for each method, in 80 columns."""
    rows = (
        (f"{name}:…" if info.member else name, "yes" if info.trains else "no", info.knowledge, info.paper)
        for name, info in infos.items()
        if isinstance(info, MethodInfo)
    )
    out.print(table_of(unfolded("method", "trains", "knows", "paper"), rows, box=None, padding=(0, 1, 0, 0)))
    for name, info in infos.items():
        if not isinstance(info, MethodInfo):
            out.print(f"{name}: can't be imported ({info.reason})", markup=False)
    out.print("trains: on normal images of other sets; knows: normals, K normal images alone")
    out.print("`medfsad methods NAME` shows one method in full.")


def _print_method(name: str, facts: "Mapping[str, Any]") -> None:
    out.print(f"[bold]{name}[/] {facts['version']}: ", end="")
    out.print(facts["summary"], markup=False)
    lines = {
        "paper": facts["paper"] or "none",
        "licence": facts["licence"],
        "trains on other sets": "yes" if facts["trains"] else "no",
        "knows": facts["knowledge"],
        "has seen": ", ".join(facts["has_seen"]) or "nothing",
        "presets": ", ".join(facts["presets"]),
        "settings": ", ".join(f"{key}={default}" for key, default in facts["settings"].items()) or "none",
    }
    for key, value in lines.items():
        out.print(f"{key}: {value}", markup=False)
    for field, values in facts["grid"].items():
        out.print(f"tuned by default: {field} among {'; '.join(map(str, values))}", markup=False)
    for preset, size_px in facts["file_px"].items():
        out.print(f"preset {preset}: for files of `medfsad prepare --size {size_px}`", markup=False)
    for deviation in facts["deviations"]:
        out.print(f"deviates from the paper: {deviation}", markup=False)
