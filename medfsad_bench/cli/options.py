"""The options that several commands share: name, help and range of each are written here once."""

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from medfsad_bench import info
from medfsad_bench.curation.options import IntensityChoice
from medfsad_bench.errors import MedfsadError, MethodError, nearest

DATA = Path("medfsad-data")
RUNS = Path("medfsad-runs")


def _there(device: str) -> str:
    """The device as it was named, once it is known that it can be used: before anything else is loaded.

    Raises:
        MethodError: If it is unknown, or isn't there.
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
        alike = nearest(device.replace("gpu", "cuda"), ("auto", "cpu", "cuda", "cuda:0"))
        raise MethodError(f"--device {device!r} is unknown.{alike} Expected auto, cpu, cuda or cuda:N.")
    if device.startswith("cuda"):
        from medfsad_bench.runner.runner import choose_device

        choose_device(device)
    return device


def _installed(given: str | list[str]) -> str | list[str]:
    """The names of methods, if all are installed: told before a method is imported, and PyTorch with it.

    Raises:
        MethodError: If one isn't.
    """
    from medfsad_bench.registry import all_methods, method_info

    for name in [given] if isinstance(given, str) else given:
        if name.partition(":")[0] not in all_methods():
            method_info(name)  # says so
    return given


def drawable(picture: Path | None) -> Path | None:
    """The picture's name, once it is known that a PNG can be written there: told before the work, not after it.

    Raises:
        MedfsadError: If it is a folder's, has another suffix, or lies where no file can be written.
    """
    if picture is None:
        return None
    if picture.is_dir():
        raise MedfsadError(f"--out {picture} is a folder. Expected the name of a PNG, such as {picture / 'x.png'}.")
    if picture.suffix.lower() != ".png":
        raise MedfsadError(
            f"--out {picture}: pictures are written as PNG. Expected a name that ends in .png, such as "
            f"{picture.with_suffix('.png')}."
        )
    above = next(folder for folder in picture.absolute().parents if folder.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise MedfsadError(f"--out {picture}: {above} is no folder that takes files. Choose another --out.")
    return picture


Method = Annotated[str, typer.Argument(help="Name of a method; `medfsad methods` lists them.", callback=_installed)]
Methods = Annotated[
    list[str], typer.Argument(help="Names of methods; `medfsad methods` lists them.", callback=_installed)
]
Preset = Annotated[str, typer.Option(help="paper or quick; `medfsad methods NAME` lists further ones of a method.")]
Backbone = Annotated[str | None, typer.Option(help="Feature network of the method.")]
Weights = Annotated[Path | None, typer.Option(help="File with the feature network's weights.")]
Settings = Annotated[list[str] | None, typer.Option("--set", help="name=value of the method's config; repeatable.")]
Checkpoint = Annotated[Path | None, typer.Option(help="Weights to use instead of training.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.", callback=_there)]
Seed = Annotated[int, typer.Option(min=0, help="Seed of training and of the order of test images.")]

Size = Annotated[int, typer.Option(min=32, max=2048, help="Edge of the stored square images, px.")]
IntensityRule = Annotated[
    IntensityChoice | None,
    typer.Option(help="Own files of 16 bits and no window: by all bits, by those in use in the set, or percentiles."),
]
Workers = Annotated[int, typer.Option(min=1, help="Processes that read images.")]
Data = Annotated[Path, typer.Option(help="Folder of prepared files.")]
Benchmark = Annotated[str | None, typer.Option(help="Which benchmark, if --data holds several.")]
Runs = Annotated[Path, typer.Option(help="Folder of runs.")]
Features = Annotated[
    str | None,
    typer.Option(help="Folder of networks' features, or `none`. .features in --runs by default, but none on a GPU."),
]
FeaturesGB = Annotated[
    float | None,
    typer.Option("--features-gb", min=0, help="What --features may hold, 20 by default; the least used goes first."),
]
Results = Annotated[Path | None, typer.Option(help="Folder of accepted rows.")]
Targets = Annotated[
    list[str] | None, typer.Option("--target", help="Data set to test on, or `all` (the default); repeatable.")
]

Shots = Annotated[int, typer.Option(min=1, help="K, the number of support images.")]
ShotsList = Annotated[
    list[int] | None, typer.Option("--shots", min=1, help="K, the number of support images; repeatable. 4 by default.")
]
Draws = Annotated[
    int | None, typer.Option(min=1, max=10, help="Support draws: 10 by default, 1 under the published protocol.")
]
Seeds = Annotated[
    list[int] | None, typer.Option("--seed", min=0, help="Seed of training and of the order; repeatable. 0 by default.")
]
Contaminated = Annotated[
    int, typer.Option(min=0, help="How many of the K supports are anomalies that nobody noticed; a track of its own.")
]
Protocol = Annotated[
    info.Protocol,
    typer.Option(help="strict; or published: the test loop of the reference implementation, marked and never ranked."),
]
HoldOut = Annotated[info.HoldOut, typer.Option(help="What no source may share with the target.")]

SaveMaps = Annotated[bool, typer.Option("--save-maps", help="Keep the smoothed anomaly maps.")]
EngineName = Literal["local", "ray"]
Engine = Annotated[EngineName, typer.Option(help="Where tasks are done: on this machine, or on a Ray cluster.")]
Jobs = Annotated[int | None, typer.Option(min=1, help="With --engine local: processes, each with a task of its own.")]
Address = Annotated[
    str | None, typer.Option(help="With --engine ray: auto or HOST:PORT. Without it, RAY_ADDRESS, or a Ray of its own.")
]
CpusPerTask = Annotated[
    int | None, typer.Option(min=1, help="CPU threads of a task. By default 1 on Ray, here the cores over --jobs.")
]
GpusPerTask = Annotated[
    float | None, typer.Option(min=0, help="With --engine ray: GPUs of a task; 0.5 lets two tasks share one.")
]
MemoryPerTask = Annotated[float | None, typer.Option(min=0, help="With --engine ray: GiB of memory of a task.")]
ShipData = Annotated[
    bool, typer.Option("--ship-data", help="With --engine ray: send prepared files to the nodes; for small sets.")
]
Retries = Annotated[int, typer.Option(min=0, help="How often a task is begun again whose worker was lost.")]

Format = Literal["table", "md", "json"]
Shown = Annotated[Format, typer.Option("--format", help="How to print it.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Picture = Annotated[Path, typer.Option("--out", help="PNG to write.", callback=drawable)]


def settings_of(pairs: list[str] | None, backbone: str | None, weights: Path | None) -> dict[str, Any]:
    """Settings of a method's config by name, from --set, --backbone and --weights.

    Raises:
        MethodError: If one of `pairs` isn't `name=value`.
    """
    settings: dict[str, Any] = {}
    for pair in pairs or []:
        name, equals, value = pair.partition("=")
        if not equals or not name.strip():
            raise MethodError(f"--set {pair!r} is no setting. Expected name=value, as in --set epochs=10.")
        settings[name.strip()] = value
    if backbone is not None:
        settings["backbone"] = backbone
    if weights is not None:
        settings["weights"] = str(weights)
    return settings


def draws_of(draws: int | None, protocol: info.Protocol = "strict") -> int:
    """The number of support draws: ten unless said otherwise, one under the published protocol.

    Raises:
        MethodError: If the published protocol is asked for another number.
    """
    if protocol == "published" and draws not in (None, 1):
        raise MethodError(f"--draws {draws} doesn't go with --protocol published, which has one support draw.")
    return draws or (1 if protocol == "published" else 10)
