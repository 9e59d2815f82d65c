"""Whether the native baselines and anomalib's agree on the same features, for baselines/RESULTS.md.

- table RUNS…: both AUROCs per target and K, whether each lies in the other's interval, and their paired difference
- padim --data FOLDER --target NAME…: from the native PaDiM to anomalib's, one change at a time

`python baselines/agreement.py --help`. The second part needs the extra `[anomalib]`, as do the runs of the first.
"""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from medfsad_baselines.padim import Config, Padim
from medfsad_bench.board.accepted import rows_in_runs
from medfsad_bench.board.sections import writer
from medfsad_bench.display import markdown_table
from medfsad_bench.estimates.estimate import REPLICATES, Estimate, metric_estimate
from medfsad_bench.estimates.image import score_matrix
from medfsad_bench.method import Method, RunContext
from medfsad_bench.metrics.interval import Replicates, replicate
from medfsad_bench.metrics.metric import IMAGE_AUROC
from medfsad_bench.metrics.paired import paired_difference
from medfsad_bench.results.row import Row
from medfsad_bench.results.run_folder import RunFolder
from medfsad_bench.runner.context import LocalContext
from medfsad_bench.store import Dataset

PREFIX = "anomalib:"
FEATURES = ("backbone", "stages", "size_px", "weights")  # what two configs have to share
SHOTS = 4  # of the second part


def table(runs: Sequence[Path]) -> str:
    """One line per method, target and K that both sides were run on, with the same features."""
    rows = {
        (row.method, row.target, row.shots): (row, folder / row.run_id)
        for folder in runs
        for row in rows_in_runs(folder)
        if row.protocol == "strict" and not row.contaminated_supports
    }
    lines = [
        "| method | target | K | native | anomalib's | each in the other's interval | native − anomalib's, paired "
        "| furthest draw |",
        "|---|---|--:|---|---|---|---|--:|",
    ]
    for (method, target, shots), (row, folder) in sorted(rows.items()):
        other = rows.get((PREFIX + method, target, shots))
        if other is not None and _features(row) == _features(other[0]) and row.draws == other[0].draws:
            lines.append(f"| `{method}` | {target} | {shots} | {_line(row, folder, *other)} |")
    return "\n".join(lines)


def padim(data: Path, targets: Sequence[str], draws: int) -> str:
    """AUROC of the native PaDiM as it is, then one change at a time until it is anomalib's; K = 4, quick preset.

    What the last step changes is the smoothing of the map: σ = 4 px where the suite has 8 px at 256 px.
    """
    from medfsad_baselines.anomalib_models import _module
    from medfsad_bench.registry import configure, method_info
    from medfsad_bench.store.prepared import prepared_sets

    native, anomalibs = method_info("padim"), method_info(PREFIX + "padim")
    config, anomalibs_config = configure(native, preset="quick"), configure(anomalibs, preset="quick")
    context = LocalContext()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(context.seed)
        channels: Int64[Tensor, " d"] = _module("padim", anomalibs_config, context).model.idx
    steps = {
        "native": native.build(config),
        "with anomalib's channels": _Channels(config, channels),
        "and its covariance": _Unshrunk(config, channels),
        "anomalib's": anomalibs.build(anomalibs_config),
    }
    sets = [dataset for dataset in prepared_sets(data) if dataset.name in targets]
    rows = []
    for name, method in steps.items():
        tables = [_replicates(_scores(method, target, context, draws)) for target in sets]
        rows.append((name, *(metric_estimate(IMAGE_AUROC, table).text for table in tables)))
    return markdown_table(["step", *(dataset.name for dataset in sets)], rows).rstrip()


class _Channels(Padim):
    """PaDiM with given channels."""

    def __init__(self, config: Config, channels: Int64[Tensor, " d"]) -> None:
        super().__init__(config)
        self.channels = channels

    def _chosen(self, count: int, context: RunContext) -> Int64[Tensor, " d"]:  # noqa: ARG002 - as the native one's
        return self.channels.to(context.device)


class _Unshrunk(_Channels):
    """And with anomalib's covariance: that of K - 1 degrees of freedom, and 0.01 on the diagonal."""

    def _gaussians(
        self, vectors: Float[Tensor, "p k d"]
    ) -> tuple[Float[Tensor, "p d"], Float[Tensor, "p k d"], Float[Tensor, " p"]]:
        mean = vectors.mean(1)
        half = (vectors - mean[:, None]) / (vectors.shape[1] - 1) ** 0.5
        isotropic = vectors.new_full((len(vectors),), self.config.ridge)
        inner = half @ half.mT + self.config.ridge * torch.eye(vectors.shape[1], dtype=vectors.dtype)
        return mean, torch.linalg.solve_triangular(torch.linalg.cholesky(inner), half, upper=False), isotropic


def main() -> None:
    """Print the part that is asked for, or write it into its page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    of_runs = parts.add_parser("table")
    of_runs.add_argument("runs", nargs="+", type=Path, help="folders of runs")
    of_padim = parts.add_parser("padim")
    of_padim.add_argument("--data", type=Path, required=True, help="where prepared files lie")
    of_padim.add_argument("--target", action="append", required=True, help="data set; repeatable")
    of_padim.add_argument("--draws", type=int, default=10)
    for part in (of_runs, of_padim):
        part.add_argument("--into", type=Path, help="page with a part `agreement PART`, to be written anew")
    given = parser.parse_args()
    write = writer(given.into, f"agreement {given.part}")
    write(table(given.runs) if given.part == "table" else padim(given.data, given.target, given.draws))


def _line(row: Row, folder: Path, other: Row, other_folder: Path) -> str:
    tables = [_replicates(RunFolder(run).scores(), seed=row.seed) for run in (folder, other_folder)]
    native, anomalibs = row.metrics["image_auroc"], other.metrics["image_auroc"]
    inside = [_within(native, anomalibs), _within(anomalibs, native)]
    furthest = float(np.abs(tables[0].measured - tables[1].measured).max())
    words = "yes" if all(inside) else "no" if not any(inside) else "one"
    shown = (native.text, anomalibs.text, words, paired_difference(*tables).text)
    return f"{' | '.join(shown)} | {furthest:.3f}"


def _features(row: Row) -> list[Any]:
    return [row.config.get(name) for name in FEATURES]


def _within(estimate: Estimate, other: Estimate) -> bool:
    return other.low is not None and other.high is not None and other.low <= estimate.value <= other.high


def _scores(method: Method, dataset: Dataset, context: LocalContext, draws: int) -> pd.DataFrame:
    from medfsad_bench.registry import method_info
    from medfsad_bench.results.tables import scores_table
    from medfsad_bench.runner.opened import opened
    from medfsad_bench.runner.plan import Cell, RunOptions
    from medfsad_bench.runner.scoring import score_draw

    info = dataclasses.replace(method_info("padim"), build=lambda _: method)
    cell = Cell(info, Config(), "", dataset, (), SHOTS, RunOptions(Path(), draws=draws, seed=context.seed))
    with opened(cell, context.device, context.cache, lambda *_: None) as run:
        scored_draws = [dataclasses.replace(score_draw(run, draw), maps=None) for draw in range(draws)]
    return scores_table(dataset, cell.episodes.queries, scored_draws)


def _replicates(scores: pd.DataFrame, *, seed: int = 0) -> Replicates:
    matrix = score_matrix(scores)
    return replicate(matrix.scores, matrix.anomalous, matrix.groups, replicates=REPLICATES, seed=seed)


if __name__ == "__main__":
    main()
