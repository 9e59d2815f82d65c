"""What can be downloaded: every row and every run's scores, as JSON, CSV and Parquet, unrounded."""

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from medfsad_bench.files import shown_cell, whole, write_text
from medfsad_bench.results.row import Row

_FACTS = (
    *("run_id", "benchmark", "method", "method_version", "preset", "knowledge", "target", "target_version", "size_px"),
    *("shots", "contaminated_supports", "hold_out", "protocol", "seed", "draws", "ranks", "date"),
)


def write_rows(rows: Sequence[Row], folder: Path) -> None:
    """Write `rows.json`, every row whole, and `rows.csv` and `rows.parquet`, a line per row and metric."""
    write_text(folder / "rows.json", json.dumps([row.dump() for row in rows], ensure_ascii=False, allow_nan=False))
    lines = [
        {
            **{name: getattr(row, name) for name in _FACTS},
            "metric": name,
            "value": estimate.value,
            "low": estimate.low,
            "high": estimate.high,
            "draws_sd": estimate.draws_sd,
        }
        for row in rows
        for name, estimate in row.metrics.items()
    ]
    write_table(pd.DataFrame(lines), folder / "rows")


def write_row(row: Row, path: Path) -> None:
    """Write one row whole as JSON."""
    write_text(path, json.dumps(row.dump(), ensure_ascii=False, allow_nan=False))


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV, whose cells no spreadsheet takes for a formula, and as Parquet.

    Args:
        table: Any columns of texts and numbers.
        path: Without a suffix.
    """
    with whole(path.with_name(f"{path.name}.parquet")) as temporary:
        table.to_parquet(temporary, index=False)
    texts = {name: table[name].map(shown_cell) for name in table.columns if pd.api.types.is_string_dtype(table[name])}
    with whole(path.with_name(f"{path.name}.csv")) as temporary:
        table.assign(**texts).to_csv(temporary, index=False)
