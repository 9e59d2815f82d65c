"""The table of scores: one line per image, as CSV for people and Parquet for programs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from medfsad_bench.files import shown_cell, whole
from medfsad_bench.own_images.threshold import SupportThreshold

SCORES = "scores.csv"
COLUMNS = (
    *("file", "frame", "slice", "score", "percentile", "flagged", "not_comparable"),
    *("nearest_support", "support_weight", "warnings", "overlay", "map", "volume_map", "dicom", "sha256"),
)


def scores_table(rows: Sequence[dict[str, Any]], threshold: SupportThreshold, *, with_ids: bool) -> pd.DataFrame:
    """One line per image, in the order of the files.

    Args:
        rows: As `blocks.scored_rows` yields them, those that were scored.
        threshold: Of the supports.
        with_ids: Whether patients of DICOM headers are named.

    Returns:
        `COLUMNS`: `percentile` is the per cent of left-out supports that score lower or as high; what isn't comparable
        is never flagged; `frame` and `slice` count from 0.
    """
    table = pd.DataFrame(rows)
    scores = table["score"].to_numpy(float)
    table["percentile"] = threshold.percentiles(scores)
    table["flagged"] = threshold.flags(scores) & (table["not_comparable"] == "").to_numpy()
    for name in ("overlay", "map", "volume_map", "dicom"):
        table[name] = table[name].fillna("") if name in table else ""
    for name in ("frame", "slice"):
        table[name] = table[name].astype("Int64")
    table["support_weight"] = table["support_weight"].astype(float)
    columns = [name for name in COLUMNS if table[name].notna().any() and (table[name] != "").any()]
    kept = [name for name in COLUMNS if name in columns or name in _ALWAYS]
    return table[[*(["patient"] if with_ids else []), *kept]]


def write_tables(table: pd.DataFrame, folder: Path) -> None:
    """Write `SCORES` as CSV and as Parquet; the CSV holds no cell that a spreadsheet would run."""
    texts = [str(name) for name in table if pd.api.types.is_string_dtype(table[name])]
    shown = table.copy()
    shown[texts] = table[texts].map(shown_cell)
    with whole(folder / SCORES) as temporary:
        shown.to_csv(temporary, index=False, lineterminator="\n")
    with whole((folder / SCORES).with_suffix(".parquet")) as temporary:
        table.to_parquet(temporary, index=False)


_ALWAYS = ("file", "score", "percentile", "flagged", "not_comparable", "warnings")
