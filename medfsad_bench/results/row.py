"""The result row: everything that is said of one method on one target at K shots. Closed, versioned, unrounded.

<runs>/<run id>/config.json        what determines the result
                scores.parquet     one line a query and draw, unrounded
                pixels.npz         what pixel and lesion figures are recomputed from, without maps
                calibration.parquet  scores of normals that thresholds are set from, support by support
                probes.parquet     some queries scored once more, in other order and company
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
from jaxtyping import Int64
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from medfsad_bench.errors import ResultsError
from medfsad_bench.estimates.estimate import Estimate
from medfsad_bench.estimates.thresholds import Threshold
from medfsad_bench.info import HoldOut, Protocol
from medfsad_bench.store import Dataset

ROW_SCHEMA = 1


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Row(_Closed):
    """One method, target, K and training seed."""

    row_schema: Literal[1] = Field(default=1, alias="schema")
    run_id: str
    benchmark: str
    allowed: tuple[str, ...] = ()  # faults of the target's file; such a row isn't the benchmark's
    protocol: Protocol
    hold_out: HoldOut
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
    contaminated_supports: int = Field(default=0, ge=0)  # of the K, anomalies that the method isn't told of
    n_normal: int
    n_anomalous: int
    n_groups: int
    n_unscored: int = 0  # test images that the protocol left out
    n_reserved: int = 0  # test images that share a group with an abnormal or contaminated support, so are no queries
    selected_epoch: int | None = None  # picked by test AUROC, under protocol published
    metrics: dict[str, Estimate]
    secondary: dict[str, Estimate] = {}
    absent: dict[str, str] = {}  # metric → why it isn't there
    operating: dict[str, Threshold] = {}  # thresholds that were set without anomalies
    pixel_mode: Literal["exact", "streamed"] | None = None
    lint: dict[str, str] = {}  # check → "passed", "not checked: why", "flagged: why" or what failed
    submitted: bool = False  # scores came from outside: no clock, no probe of their independence
    pretrain_s: float | None = None
    adapt_s: float | None = None  # median over draws
    score_ms_per_image: float | None = None
    peak_memory_mb: float | None = None
    device: str | None = None
    package_version: str
    date: str
    warnings: tuple[str, ...] = ()

    @property
    def ranks(self) -> bool:
        """Whether the row is ranked: strict protocol, surely unseen target, run here, lint passed."""
        doubts = self.contaminated or self.submitted or self.warnings or self.failed_checks
        return self.protocol == "strict" and not doubts

    @property
    def failed_checks(self) -> dict[str, str]:
        """Checks that failed, each with its reason."""
        harmless = ("passed", "not checked", "flagged")
        return {check: found for check, found in self.lint.items() if not found.startswith(harmless)}

    def dump(self) -> dict[str, Any]:
        """As written to JSON; a row of clean supports doesn't speak of contaminated ones."""
        content = self.model_dump(mode="json", by_alias=True)
        if not self.contaminated_supports:
            del content["contaminated_supports"]
        return content


def target_facts(dataset: Dataset, rows: Int64[np.ndarray, " n"]) -> dict[str, Any]:
    """What a row says of its target, by the row's names; `rows` are the test rows."""
    attributes, test = dataset.attributes, dataset.table.iloc[rows]
    return {
        "benchmark": attributes["benchmark"],
        "allowed": tuple(json.loads(attributes["allowed"])),
        "target": dataset.name,
        "target_version": attributes["version"],
        "organ": attributes["organ"],
        "modality": attributes["modality"],
        "size_px": attributes["size_px"],
        "membership_digest": attributes["membership_digest"],
        "content_digest": attributes["content_digest"],
        "n_normal": int((test["label"] == 0).sum()),
        "n_anomalous": int((test["label"] == 1).sum()),
        "n_groups": int(test["group"].nunique()),
    }


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
    return read_table(path, {"draw", "index", "id", "group", "anomalous", "score"})


def read_calibration(path: Path) -> pd.DataFrame:
    """Read the scores of normal images that thresholds are set from: set, draw, kind, position, id, group, score.

    Raises:
        ResultsError: If the file is missing or damaged.
    """
    return read_table(path, {"set", "draw", "kind", "id", "group", "score"})


def read_probes(path: Path) -> pd.DataFrame:
    """Read the scores of queries that were scored once more: probe, draw, index, score.

    Raises:
        ResultsError: If the file is missing or damaged.
    """
    return read_table(path, {"probe", "draw", "index", "score"})


def read_table(path: Path, needed: set[str]) -> pd.DataFrame:
    """Read a Parquet file of a run.

    Raises:
        ResultsError: If it's missing, damaged, or lacks a column.
    """
    try:
        found = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise ResultsError(f"{path}: the file can't be read ({error}). Run the cell again.") from error
    if missing := sorted(needed - set(found.columns)):
        raise ResultsError(f"{path}: column(s) {', '.join(missing)} missing. Run the cell again.")
    return found


def write_table(path: Path, content: pd.DataFrame) -> None:
    """Write a Parquet file whole or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    content.to_parquet(temporary, index=False)
    temporary.replace(path)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file whole or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n", "utf-8")
    temporary.replace(path)
