"""A new method as a package that works at once: what `medfsad new-method NAME` writes.

<out>/<name>/pyproject.toml          its entry point in the group `medfsad.methods`
             README.md               its row, to be filled in
             <name>/__init__.py
             <name>/info.py          name, paper, licence, what it has seen; imports no torch
             <name>/config.py        what can be chosen
             <name>/method.py        the part to write
             tests/test_<name>.py    the contract, and one claim
"""

import keyword
import re
from pathlib import Path
from string import Template

from medfsad_bench.errors import MethodError
from medfsad_bench.files import whole_folder, write_text
from medfsad_bench.registry import all_methods


def new_method(name: str, out: Path) -> Path:
    """Write the package.

    Args:
        name: Of the method and its package: lower-case letters, digits and underscores.
        out: Folder to put it in.

    Returns:
        The package's folder.

    Raises:
        MethodError: If the name can't be a package's, is taken, or the folder exists.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise MethodError(
            f"{name!r} can't be the name of a method. Expected lower-case letters, digits and underscores, beginning "
            "with a letter, as in my_method: it becomes a Python package."
        )
    if name in all_methods():
        raise MethodError(f"A method {name!r} is installed already. Choose another name.")
    folder = out / name
    if folder.exists():
        raise MethodError(f"{folder} exists already. Choose another name, or another folder with --out.")
    if not out.is_dir():
        raise MethodError(f"--out {out} isn't a folder. Expected one in which {name}/ can be made.")
    words = {"name": name, "title": "".join(part.capitalize() for part in name.split("_")) or name}
    with whole_folder(folder) as package:
        for path, text in _FILES.items():
            write_text(package / Template(path).substitute(words), Template(text).substitute(words))
    return folder


_PROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "$name"
version = "0.1.0"
description = "$title, a method for MedFSAD"
requires-python = ">=3.11"
dependencies = ["medfsad"]

[project.entry-points."medfsad.methods"]
$name = "$name.info:INFO"
"""

_README = """\
# $title

What it does in one sentence, and the paper it comes from.

| method | paper | licence | data seen | knows | at K shots |
|---|---|---|---|---|---|
| `$name` | – | Apache-2.0 | ImageNet-1k | K normal images | distance to the mean patch of the support |

    pip install -e .
    medfsad check $name
    medfsad run $name --preset quick --shots 4
"""

_INIT = '"""$title, a method for MedFSAD."""\n'

_INFO = '''\
"""The record of $name. Imports no torch, so that listing methods is fast."""

from typing import TYPE_CHECKING

from medfsad_bench.info import MethodInfo

from $name.config import Config

if TYPE_CHECKING:
    from medfsad_bench.method import Method


def build(config: Config) -> "Method":
    """The method for a configuration."""
    from $name.method import $title

    return $title(config)


INFO = MethodInfo(
    name="$name",
    version="0.1.0",  # raise it with every change that moves a score
    config=Config,
    build=build,
    summary="One line for `medfsad methods`",
    paper="",
    licence="Apache-2.0",
    presets={"quick": {"backbone": "efficientnet_lite0"}},
    has_seen=("imagenet-1k",),  # public data behind its weights
    knowledge="normals",  # with more than K normal images, `knowledge_of(…)`: such methods have their own track
    trains=False,  # True if `pretrain` learns from the normal images of the other data sets
)
'''

_CONFIG = '''\
"""What can be chosen with `--set name=value`; the defaults are the paper's."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Config:
    """Where features come from."""

    backbone: str = "wide_resnet50_2.tv_in1k"
    weights: str | None = None
    stages: tuple[int, ...] = (2, 3)
'''

_METHOD = '''\
"""$title: distance of each patch to the mean patch of the support. Replace this with your own."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from medfsad_bench.method import Backbone, Images, Method, RunContext, Scorer, Scores

from $name.config import Config


class $title(Method):
    """Sees K normal images, scores every test image by itself; higher is more anomalous."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.backbone = Backbone(config.backbone, config.stages, weights=config.weights)

    def adapt(self, support: Float[Tensor, "shots 3 h w"], context: RunContext) -> Scorer:
        """Learn the support; leave `self` as it was."""
        mean = self._patches(support, context).mean((0, 2, 3))

        def score(images: Images) -> Scores:
            differences = self._patches(images, context) - mean[:, None, None]
            return Scores(pixel=differences.square().sum(1).sqrt())  # the suite smooths it and takes its maximum

        return score

    def _patches(self, images: Images, context: RunContext) -> Float[Tensor, "n c ph pw"]:
        first, *others = context.features(self.backbone, images)  # frozen, and computed once per image
        size = first.shape[-2:]
        same = [functional.interpolate(f, size, mode="bilinear", align_corners=False) for f in others]
        return torch.cat([first, *same], dim=1)
'''

_TEST = '''\
"""$title keeps the contract, and finds what it should."""

import torch

from medfsad_bench.registry import configure
from medfsad_bench.runner.context import LocalContext
from medfsad_bench.testing import check_method, phantom_images

from $name.info import INFO


def test_it_keeps_the_contract() -> None:
    check_method(INFO.build(configure(INFO, preset="quick")))


def test_a_bright_square_raises_the_map_where_it_is() -> None:
    images = phantom_images(5)
    images[4] = images[3]
    images[4, :, 8:24, 8:24] = 1
    maps = INFO.build(configure(INFO, preset="quick")).adapt(images[:3], LocalContext())(images[3:]).pixel
    assert maps is not None
    edge = maps.shape[-1]
    assert (maps[1] - maps[0]).flatten().argmax() // edge < edge // 2
    assert torch.isfinite(maps).all()
'''

_FILES = {
    "pyproject.toml": _PROJECT,
    "README.md": _README,
    "$name/__init__.py": _INIT,
    "$name/info.py": _INFO,
    "$name/config.py": _CONFIG,
    "$name/method.py": _METHOD,
    "tests/test_$name.py": _TEST,
}
