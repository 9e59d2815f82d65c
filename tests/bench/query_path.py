"""How far a query travels from the prepared file to its row: the stops, and the climbs back up a file.

    python tests/bench/query_path.py [--no-masks]

One cell of `pixel_distance` is run on a small set of patients with two images each, one draw. A *stop* is a function
of ours that is handed the queries: one of its arguments holds data with one entry per query (pixels, maps, scores,
table rows). It *passes them on* if it hands them to another. A *climb* is such a call to a function that stands above
its caller in the same file.
"""

import argparse
import dataclasses
import sys
import tempfile
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import numpy as np
import pandas as pd
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from conftest import Silent, write_own_folder  # noqa: E402

from medfsad_bench.curation.stage import PrepareOptions, prepare  # noqa: E402
from medfsad_bench.registry import method_info  # noqa: E402
from medfsad_bench.runner.plan import Cell, RunOptions, cells  # noqa: E402
from medfsad_bench.runner.runner import Runner  # noqa: E402
from medfsad_bench.store.prepared import own_sets  # noqa: E402

QUERIES = 22  # 12 normal and 10 anomalous images: no other number of the run is the same
_NOT_LOOKED_INTO = ("Dataset", "Cell", "Episodes", "Runner", "LocalContext", "FeatureCache", "RunFolder", "OpenCell")

Place = tuple[str, str, int]  # file, function, first line


class Trace:
    """What was seen of the calls."""

    def __init__(self) -> None:
        self.stops: set[Place] = set()
        self.calls: set[tuple[Place, Place]] = set()

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        if event != "call" or not _is_ours(frame.f_code):
            return
        sys.setprofile(None)
        try:
            code = frame.f_code
            names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
            if any(_holds_queries(frame.f_locals.get(name)) for name in names):
                self.stops.add(_place(code))
                caller = frame.f_back
                while caller is not None and not _is_ours(caller.f_code):
                    caller = caller.f_back
                if caller is not None:
                    self.calls.add((_place(caller.f_code), _place(code)))
        finally:
            sys.setprofile(self)


def main() -> None:
    """Run the cell and print the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--no-masks", action="store_true", help="a set without a localisation truth")
    with tempfile.TemporaryDirectory() as folder:
        cell = _cell(Path(folder), masks=not parser.parse_args().no_masks)
        runner, trace = Runner("cpu"), Trace()
        sys.setprofile(trace)
        runner.run(cell)
        sys.setprofile(None)
    passing = trace.stops & {caller for caller, _ in trace.calls}
    climbs = [(caller, callee) for caller, callee in trace.calls if caller[0] == callee[0] and callee[2] < caller[2]]
    for file, function, _ in sorted(trace.stops):
        print(f"  {file}  {function}")
    print(f"{len(trace.stops)} stops, {len(passing)} of them pass on, {len(trace.calls)} calls, {len(climbs)} climbs")


def _cell(folder: Path, *, masks: bool) -> Cell:
    for name, seed in (("ward_a", 1), ("ward_b", 2)):
        write_own_folder(folder / "raw" / name, seed=seed, masks=masks)
        for path in sorted((folder / "raw" / name).glob("*/*.png")):  # so that groups can't be taken for queries
            patient = path.parent / f"patient{int(path.stem.removeprefix('case')) // 2}"
            patient.mkdir(exist_ok=True)
            path.rename(patient / path.name)
    prepare(folder / "raw", PrepareOptions(folder / "data", size_px=64), watcher=Silent())
    sets = own_sets(folder / "data")
    cell = cells(method_info("pixel_distance"), sets[:1], sets, [2], RunOptions(folder / "runs", draws=1))[0]
    if len(cell.episodes.queries) != QUERIES:
        raise SystemExit(f"{len(cell.episodes.queries)} queries, expected {QUERIES}: adapt the number.")
    return cell


def _is_ours(code: CodeType) -> bool:
    path = code.co_filename
    ours = path.startswith(str(ROOT)) and "/tests/" not in path and "/.venv" not in path
    return ours and not code.co_name.startswith("<")


def _place(code: CodeType) -> Place:
    return str(Path(code.co_filename).relative_to(ROOT)), code.co_qualname, code.co_firstlineno


def _holds_queries(value: Any, depth: int = 0) -> bool:
    if isinstance(value, torch.Tensor | np.ndarray):
        return QUERIES in tuple(value.shape)
    if isinstance(value, pd.DataFrame | pd.Series):
        return len(value) == QUERIES
    if depth > 2 or type(value).__name__ in _NOT_LOOKED_INTO:
        return False
    if isinstance(value, dict):
        return any(_holds_queries(part, depth + 1) for part in value.values())
    if isinstance(value, list | tuple):
        return (len(value) == QUERIES and depth < 2) or any(_holds_queries(part, depth + 1) for part in value[:4])
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return any(_holds_queries(getattr(value, field.name, None), depth + 1) for field in dataclasses.fields(value))
    if type(value).__module__.startswith("medfsad_"):
        return any(_holds_queries(part, depth + 1) for part in getattr(value, "__dict__", {}).values())
    return False


if __name__ == "__main__":
    main()
