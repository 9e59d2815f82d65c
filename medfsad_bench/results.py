"""The result row: everything that is said of one method on one target at K shots. Closed, versioned, unrounded.

<runs>/<run id>/config.json        what determines the result
                scores.parquet     one line a query and draw, unrounded
                maps.h5            smoothed maps, if asked for
                support.npz        how much each support image counted, where a method tells
                row.json           the row
                environment.json   machine and versions
                log.jsonl          what happened when
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from medfsad_bench.errors import MetricError, ResultsError
from medfsad_bench.metrics.image import auroc_score, average_precision_score
from medfsad_bench.metrics.interval import bootstrap_interval

ROW_SCHEMA = 1
REPLICATES = 2000
IMAGE_METRICS = {"image_auroc": auroc_score, "image_average_precision": average_precision_score}
_BOOTSTRAP_NAMES = {"image_auroc": "auroc", "image_average_precision": "average_precision"}
POOLINGS = {"score_mean": "pooled_mean", "score_top1": "pooled_top1"}  # secondary figures, from the same maps


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Figure(_Closed):
    """A metric, mean over draws, with its 95 % bootstrap interval and the spread over draws."""

    value: float
    low: float | None = None
    high: float | None = None
    draws_sd: float | None = None


class Row(_Closed):
    """One method, target, K and training seed."""

    row_schema: Literal[1] = Field(default=1, alias="schema")
    run_id: str
    benchmark: str
    allowed: tuple[str, ...] = ()  # faults of the target's file; such a row isn't the benchmark's
    protocol: Literal["strict", "published"]
    hold_out: Literal["dataset", "organ", "modality"]
    method: str
    method_version: str
    preset: str
    config: dict[str, Any]
    weights_digest: str
    knowledge: str
    contaminated: bool
    target: str
    target_version: str
    organ: str
    modality: str
    size_px: int
    membership_digest: str
    content_digest: str
    sources: dict[str, str]  # membership digests by name
    trained_shots: int | None = None
    shots: int
    draws: int
    seed: int
    n_normal: int
    n_anomalous: int
    n_groups: int
    n_unscored: int = 0  # test images that the protocol left out
    selected_epoch: int | None = None  # picked by test AUROC, under protocol published
    metrics: dict[str, Figure]
    secondary: dict[str, Figure] = {}
    absent: dict[str, str] = {}  # metric → why it isn't there
    pretrain_s: float
    adapt_s: float  # median over draws
    score_ms_per_image: float
    peak_memory_mb: float
    device: str
    package_version: str
    date: str
    warnings: tuple[str, ...] = ()

    @property
    def ranks(self) -> bool:
        """Whether the row takes part in a ranking: strict protocol, and nothing seen of the target, for certain."""
        return self.protocol == "strict" and not self.contaminated and not self.warnings

    def dump(self) -> dict[str, Any]:
        """As written to JSON."""
        return self.model_dump(mode="json", by_alias=True)


def read_row(path: Path) -> Row:
    """Read and check a row.

    Raises:
        ResultsError: If the file is missing, no JSON, or not of the schema.
    """
    if not path.is_file():
        raise ResultsError(f"{path.parent}: no row.json there. Expected the folder of a finished run.")
    try:
        return Row.model_validate_json(path.read_text("utf-8"))
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:5])
        raise ResultsError(
            f"{path}: not a result row of schema {ROW_SCHEMA} ({faults}). Run the cell again."
        ) from error


def read_scores(path: Path) -> pd.DataFrame:
    """Read the scores of a run: draw, index, id, group, anomalous, disease, score and, from maps, the poolings.

    Raises:
        ResultsError: If the file is missing or damaged.
    """
    try:
        scores = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise ResultsError(f"{path}: the scores can't be read ({error}). Run the cell again.") from error
    needed = {"draw", "index", "id", "group", "anomalous", "score"}
    if missing := sorted(needed - set(scores.columns)):
        raise ResultsError(f"{path}: column(s) {', '.join(missing)} missing. Run the cell again.")
    return scores


def image_figures(scores: pd.DataFrame, *, seed: int = 0) -> tuple[dict[str, Figure], dict[str, Figure]]:
    """Image-level figures of a run, primary and secondary, from its scores alone.

    Args:
        scores: As `read_scores` gives them.
        seed: Of the bootstrap.

    Raises:
        MetricError: If a class is missing, a score isn't finite, or a draw lacks queries.
    """
    anomalous, groups, matrix = _matrix(scores, "score")
    primary = {name: _figure(matrix, anomalous, groups, name, seed=seed, interval=True) for name in IMAGE_METRICS}
    secondary = {
        f"image_auroc_{POOLINGS[column]}": _figure(
            _matrix(scores, column)[2], anomalous, groups, "image_auroc", seed=seed, interval=False
        )
        for column in POOLINGS
        if column in scores.columns
    }
    return primary, secondary


def figures_by_disease(scores: pd.DataFrame) -> dict[str, Figure]:
    """AUROC of each disease against all normal images, mean over draws."""
    diseases = sorted(set(scores.loc[scores["anomalous"], "disease"]) - {""})
    if len(diseases) < 2:
        return {}
    figures = {}
    for disease in diseases:
        part = scores[~scores["anomalous"] | (scores["disease"] == disease)]
        anomalous, groups, matrix = _matrix(part, "score")
        figures[f"image_auroc[{disease}]"] = _figure(matrix, anomalous, groups, "image_auroc", seed=0, interval=False)
    return figures


def mean_figure(values: np.ndarray, interval: tuple[float, float] | None = None) -> Figure:
    """A figure from one value per draw."""
    low, high = interval or (None, None)
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Figure(value=float(np.mean(values)), low=low, high=high, draws_sd=spread)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file whole or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n", "utf-8")
    temporary.replace(path)


def _matrix(scores: pd.DataFrame, column: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    wide = scores.pivot_table(index="index", columns="draw", values=column, aggfunc="first", dropna=False)
    if wide.isna().to_numpy().any():
        missing = int(wide.isna().to_numpy().sum())
        raise MetricError(f"{missing} scores are missing or not a number; expected one per query and draw.")
    first = scores.drop_duplicates("index").set_index("index").loc[wide.index]
    groups = np.unique(first["group"].to_numpy(str), return_inverse=True)[1].astype(np.int64)
    return first["anomalous"].to_numpy(bool), groups, wide.to_numpy(np.float64).T


def _figure(
    matrix: np.ndarray, anomalous: np.ndarray, groups: np.ndarray, name: str, *, seed: int, interval: bool
) -> Figure:
    values = np.array([IMAGE_METRICS[name](draw, anomalous) for draw in matrix])
    if not interval:
        return mean_figure(values)
    found = bootstrap_interval(
        matrix, anomalous, groups, metric=_BOOTSTRAP_NAMES[name], replicates=REPLICATES, seed=seed
    )
    return mean_figure(values, (found.low, found.high))
