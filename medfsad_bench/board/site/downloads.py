"""What can be downloaded: every row and every run's scores, as JSON, CSV and Parquet, unrounded.

Files are written straight: the folder of the site appears as a whole.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from medfsad_bench.files import shown_cell
from medfsad_bench.results.row import Row

_FACTS = (
    *("run_id", "benchmark", "method", "method_version", "preset", "knowledge", "target", "target_version", "size_px"),
    *("shots", "contaminated_supports", "hold_out", "protocol", "seed", "draws", "ranks", "date"),
)


def write_rows(rows: Sequence[Row], folder: Path) -> None:
    """Write every row whole, together as `rows.json` and each as `cells/<run id>.json`, and a table of all figures.

    Args:
        rows: Of the board.
        folder: Of the site. `rows.csv` and `rows.parquet` have a line per row and metric.
    """
    texts = [json.dumps(row.dump(), ensure_ascii=False, allow_nan=False) for row in rows]
    for row, text in zip(rows, texts, strict=True):
        (folder / "cells" / f"{row.run_id}.json").write_text(text + "\n", "utf-8")
    (folder / "rows.json").write_text(f"[{', '.join(texts)}]\n", "utf-8")
    facts = pd.DataFrame({name: [getattr(row, name) for row in rows] for name in _FACTS})
    figures = pd.DataFrame(
        [
            (number, name, estimate.value, estimate.low, estimate.high, estimate.draws_sd)
            for number, row in enumerate(rows)
            for name, estimate in row.metrics.items()
        ],
        columns=["number", "metric", "value", "low", "high", "draws_sd"],
    )
    of_row = facts.iloc[figures.pop("number")].reset_index(drop=True)
    write_table(of_row.join(figures), folder / "rows")


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV, whose cells no spreadsheet takes for a formula, and as Parquet.

    Args:
        table: Any columns of texts and numbers.
        path: Without a suffix.
    """
    table.to_parquet(path.with_name(f"{path.name}.parquet"), index=False)
    texts = {name: _shown(table[name]) for name in table.columns if pd.api.types.is_string_dtype(table[name])}
    table.assign(**texts).to_csv(path.with_name(f"{path.name}.csv"), index=False)


def _shown(column: "pd.Series[str]") -> "pd.Series[str]":
    """Each text once: most stand in many lines."""
    return column.map({text: shown_cell(text) for text in column.unique()})
