"""Golden digests: what a refactoring must not move. Speaks to the command line alone, so it knows no module's place.

    python tests/golden.py write OUT.json [--open SHARED/data]     run everything, keep digests
    python tests/golden.py compare ONE.json OTHER.json             say what differs; exit 1 if anything does

A digest is of a prepared file's two digests, of a run's id, of its scores (by column) and of its figures.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

ALL = ("chance", "patchcore", "padim", "regad", "d24fad")
STEPS = {"regad": ("--set", "steps=6"), "d24fad": ("--set", "steps=8")}
PHANTOMS = ("brain_tumor", "rsna", "brats")  # no masks, boxes, voxels
REAL = ("odir_dr", "odir_glaucoma", "histology_lung")
QUICK = ("--preset", "quick", "--draws", "2", "--device", "cpu")


def main() -> int:
    """Write or compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    write = commands.add_parser("write")
    write.add_argument("out", type=Path)
    write.add_argument("--open", type=Path, help="folder with the raw downloads of medfsad-open")
    write.add_argument("--quick", action="store_true", help="the methods that take no training, at 4 shots alone")
    compare = commands.add_parser("compare")
    compare.add_argument("files", type=Path, nargs=2)
    arguments = parser.parse_args()
    if arguments.command == "compare":
        before, after = (json.loads(path.read_text("utf-8")) for path in arguments.files)
        differences = list(differing(before, after))
        sys.stdout.write("".join(f"{line}\n" for line in differences) or "equal\n")
        return 1 if differences else 0
    with tempfile.TemporaryDirectory() as folder:
        digests = quick_digests(Path(folder)) if arguments.quick else phantom_digests(Path(folder))
        if arguments.open:
            digests |= {"open": open_digests(Path(folder), arguments.open)}
    digests["machine"] = machine()
    arguments.out.write_text(json.dumps(digests, indent=1, sort_keys=True) + "\n", "utf-8")
    return 0


def phantom_digests(folder: Path) -> dict[str, Any]:
    """Generated data from the raw download to every kind of row."""
    data, runs, common = prepared_phantoms(folder)
    for method in ALL:
        medfsad("run", method, "--shots", "2", "--shots", "4", *common, *STEPS.get(method, ()))
    medfsad("run", "patchcore", "--shots", "4", "--contaminated", "1", *common)
    on_brats = ("--data", data, "--benchmark", "demo", "--target", "brats", "--preset", "quick", "--device", "cpu")
    steps = STEPS["d24fad"]
    medfsad("run", "d24fad", "--shots", "4", "--protocol", "published", "--runs", runs, *on_brats, *steps)
    protocols = medfsad(
        "protocols", "d24fad", "--shots", "4", "--draws", "2", "--runs", folder / "habits", *on_brats, *steps, "--json"
    )
    influence = medfsad(
        "influence", "patchcore", "--shots", "2", "--draw", "0", "--runs", folder / "influence", *on_brats, "--json",
        "--out", folder / "influence.png",
    )  # fmt: skip
    return {
        "prepared": prepared_digests(data),
        "runs": run_digests(runs),
        "protocols": json.loads(protocols),
        "influence": [line["difference"] for line in json.loads(influence)],
    }


def quick_digests(folder: Path) -> dict[str, Any]:
    """The part of it that a test has time for."""
    data, runs, common = prepared_phantoms(folder)
    medfsad("run", "chance", "patchcore", "--shots", "4", *common)
    return {"prepared": prepared_digests(data), "runs": run_digests(runs)}


def prepared_phantoms(folder: Path) -> tuple[Path, Path, tuple[object, ...]]:
    """Folders of prepared phantoms and of their runs, and the options that say so."""
    raw, data, runs = folder / "raw", folder / "data", folder / "runs"
    write = "import sys, pathlib, medfsad_bench.demo as d; d.write_demo_downloads(pathlib.Path(sys.argv[1]), seed=0)"
    subprocess.run([sys.executable, "-c", write, str(raw)], check=True)
    medfsad("prepare", "--source", raw, "--out", data, "--benchmark", "demo", "--size", "64", "--workers", "2")
    targets = [word for name in PHANTOMS for word in ("--target", name)]
    return data, runs, ("--data", data, "--benchmark", "demo", "--runs", runs, *targets, *QUICK)


def open_digests(folder: Path, source: Path) -> dict[str, Any]:
    """The same methods on small sets of real images."""
    data, runs = folder / "open-data", folder / "open-runs"
    names = [word for name in REAL for word in ("--dataset", name)]
    medfsad("prepare", "--source", source, "--out", data, "--benchmark", "medfsad-open", "--size", "64", *names)
    for method in ALL:
        medfsad("run", method, "--shots", "2", "--data", data, "--runs", runs, *QUICK, *STEPS.get(method, ()))
    return {"prepared": prepared_digests(data), "runs": run_digests(runs)}


def machine() -> dict[str, str]:
    """What the last bits of a score depend on: on another kind of machine AUROCs alone can be compared, roughly."""
    versions = {name: version(name) for name in ("torch", "numpy", "scipy", "timm", "pillow")}
    return {**versions, "cpu": torch.backends.cpu.get_cpu_capability()}


def medfsad(*words: object) -> str:
    """Run a command; its standard output."""
    command = [str(Path(sys.executable).with_name("medfsad")), *map(str, words)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # with more threads sums are in another order
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if result.returncode:
        raise SystemExit(f"{' '.join(command)}: exit {result.returncode}\n{result.stdout}{result.stderr}")
    return result.stdout


def prepared_digests(data: Path) -> dict[str, Any]:
    """Both digests of every prepared file."""
    import h5py

    digests = {}
    for path in sorted(data.rglob("*.h5")):
        with h5py.File(path) as file:
            digests[path.name] = {name: str(file.attrs[name]) for name in ("membership_digest", "content_digest")}
    return digests


def run_digests(runs: Path) -> dict[str, Any]:
    """Scores and figures of every run by its id."""
    digests = {}
    for path in sorted(runs.glob("*/row.json")):
        row = json.loads(path.read_text("utf-8"))
        digests[path.parent.name] = {
            "scores": table_digest(path.with_name("scores.parquet")),
            "calibration": table_digest(path.with_name("calibration.parquet")),
            "auroc": repr(row["metrics"]["image_auroc"]["value"]),
            "figures": figures_digest({**row["metrics"], **row["secondary"]}),
            "n_figures": len(row["metrics"]) + len(row["secondary"]),
            "absent": sorted(row["absent"]),
            "counts": [row[name] for name in ("n_normal", "n_anomalous", "n_groups", "n_unscored", "n_reserved")],
        }
    return digests


def table_digest(path: Path) -> str:
    """Of a Parquet file's columns, their order aside: names and values, floats by their bytes."""
    table = pd.read_parquet(path)
    digest = hashlib.sha256()
    for name in sorted(table.columns):
        column = table[name]
        values = column.to_numpy(np.float64) if pd.api.types.is_numeric_dtype(column) else column.astype(str)
        digest.update(name.encode())
        digest.update(values.tobytes() if isinstance(values, np.ndarray) else "\n".join(values).encode())
    return digest.hexdigest()


def figures_digest(figures: dict[str, Any]) -> str:
    """Of figures by name, every number to its last bit."""
    return hashlib.sha256(json.dumps(figures, sort_keys=True).encode()).hexdigest()


def differing(before: Any, after: Any, where: Sequence[str] = ()) -> "list[str]":
    """Paths at which two nested records differ."""
    if isinstance(before, dict) and isinstance(after, dict):
        keys = sorted({*before, *after})
        return [line for key in keys for line in differing(before.get(key), after.get(key), (*where, key))]
    return [] if before == after else [f"{' / '.join(where)}: {before} → {after}"]


if __name__ == "__main__":
    sys.exit(main())
