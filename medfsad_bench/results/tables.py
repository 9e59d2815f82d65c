"""The columns of a run's tables, whoever makes the scores."""

import numpy as np
import pandas as pd
from jaxtyping import Float64, Int64

from medfsad_bench.results.draw_scores import DrawScores
from medfsad_bench.store import Dataset


def scores_table(dataset: Dataset, rows: Int64[np.ndarray, " n"], draws: list[DrawScores]) -> pd.DataFrame:
    """Scores of all draws, one line per query and draw, with what the metrics need of each query.

    Args:
        dataset: The target.
        rows: Of the queries, in the order of the scores.
        draws: Their scores.
    """
    table = dataset.table.iloc[rows]
    queries = {
        "index": rows,
        "id": table["id"].to_numpy(str),
        "group": table["group"].to_numpy(str),
        "anomalous": table["label"].to_numpy(bool),
        "disease": table["disease"].to_numpy(str),
    }
    tables = [pd.DataFrame({"draw": number, **queries, **draw.columns}) for number, draw in enumerate(draws)]
    return pd.concat(tables, ignore_index=True)


def normals_table(
    dataset: Dataset,
    draw: int,
    kind: str,
    rows: Int64[np.ndarray, " k"],
    scores: Float64[np.ndarray, " k"] | None = None,
) -> pd.DataFrame:
    """Lines of the calibration table: images that aren't queries, and their scores where they have any.

    Args:
        dataset: The set that they are of.
        draw: Which draw they belong to.
        kind: `support`, `abnormal` or `normal`.
        rows: Of the images.
        scores: NaN, or left out, where there is none.
    """
    table = dataset.table.iloc[rows]
    return pd.DataFrame(
        {
            "set": dataset.name,
            "draw": draw,
            "kind": kind,
            "position": range(len(rows)),
            "id": table["id"].to_numpy(str),
            "group": table["group"].to_numpy(str),
            "score": np.full(len(rows), np.nan) if scores is None else scores,
        }
    )
