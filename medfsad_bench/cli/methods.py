"""`medfsad methods`, `check`, `new-method`: which methods there are, whether they keep the contract, a new one."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medfsad_bench.cli.console import out, print_json, table_of, unfolded
from medfsad_bench.cli.options import Json, Method, Preset
from medfsad_bench.errors import MethodError
from medfsad_bench.info import MethodInfo

if TYPE_CHECKING:
    from medfsad_bench.registry import Broken


def methods(
    name: Annotated[str | None, typer.Argument(help="Show one method in full.")] = None, json_: Json = False
) -> None:
    """List the installed methods: whether they train on other sets, and what they know beyond K normal images."""
    from medfsad_bench.registry import all_methods, method_info

    infos = all_methods()
    if name is not None:  # a method, a family, or one of a family's members
        info = infos.get(name)
        infos = {name: info if isinstance(info, MethodInfo) else method_info(name)}
    if json_:
        print_json({key: _facts(info) for key, info in infos.items()})
    elif name is None:
        _print_methods(infos)
    else:
        _print_method(name, _facts(infos[name]))


def check(method: Method, preset: Preset = "quick") -> None:
    """Test a method against the interface's contract. Exit 1 if it breaks a clause."""
    from medfsad_bench.manifest import all_manifests
    from medfsad_bench.registry import configure, method_info
    from medfsad_bench.testing import check_method

    info = method_info(method)
    config = configure(info, preset=preset)
    try:
        check_method(info.build(config))
    except MethodError as error:
        out.print(f"{method}: {error}", markup=False)
        raise typer.Exit(1) from error
    out.print(f"{method}: keeps the contract")
    for target in sorted(set(info.has_seen) & set(all_manifests())):
        out.print(f"{method}: has seen {target}, so its rows there are flagged and never ranked")


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
    for deviation in facts["deviations"]:
        out.print(f"deviates from the paper: {deviation}", markup=False)
