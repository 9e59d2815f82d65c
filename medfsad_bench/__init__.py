"""MedFSAD: few-shot anomaly detection in medical images, measured so that anyone can recompute the number.

The Python interface, each name loaded when it is asked for:

    import medfsad_bench as medfsad

    load(file)                        a prepared set, as `Dataset`
    prepare(folder)                   raw downloads to prepared sets
    run(method, data=…, shots=4)      rows as a table
    score(method, support, images)    own images, without labels
    leaderboard(runs), compare(a, b)  who wins, and can that be said
    check_method, Method, MethodInfo, Scores    for authors of methods
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medfsad_bench.info import MethodInfo as MethodInfo
    from medfsad_bench.interface import compare as compare
    from medfsad_bench.interface import leaderboard as leaderboard
    from medfsad_bench.interface import load as load
    from medfsad_bench.interface import prepare as prepare
    from medfsad_bench.interface import run as run
    from medfsad_bench.method import Method as Method
    from medfsad_bench.method import Scores as Scores
    from medfsad_bench.own_images.arrays import score as score
    from medfsad_bench.store import Dataset as Dataset
    from medfsad_bench.testing import check_method as check_method

__version__ = version("medfsad")

_HOMES = {
    "Dataset": "store",
    "Method": "method",
    "MethodInfo": "info",
    "Scores": "method",
    "check_method": "testing",
    "compare": "interface",
    "leaderboard": "interface",
    "load": "interface",
    "prepare": "interface",
    "run": "interface",
    "score": "own_images.arrays",
}
__all__ = [
    "Dataset",
    "Method",
    "MethodInfo",
    "Scores",
    "__version__",
    "check_method",
    "compare",
    "leaderboard",
    "load",
    "prepare",
    "run",
    "score",
]


def __getattr__(name: str) -> Any:
    if name == "metrics":
        return import_module(f"{__name__}.metrics")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; there are {', '.join(__all__)}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
