"""Scores of each draw, and the tables of a run that are made of them, whoever makes the scores."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from jaxtyping import Float, Float32, Float64, Int64

from medfsad_bench.estimates.pixel import PixelDraw
from medfsad_bench.store import Dataset

_RANKS = {"score_mean": "rank_mean", "score_top1": "rank_top1"}  # what is kept of a column of a run in accepted rows


@dataclass(slots=True)
class DrawScores:
    """Scores of one draw, in the order of the queries.

    Attributes:
        columns: Per query `score` and, where there are maps, `score_mean` and `score_top1`.
        maps: Smoothed maps at the input size; None where the method gives none, or once they were measured.
        support: How much each support image counted for each query, or None.
        pixel: What the maps are worth against the localisation truth, where there is one.
        adapt_s: Time to adapt to the support.
        score_s: Time to score all queries, the runner's smoothing not counted.
        threads: Of the CPU that computed; 0 where that isn't known.
    """

    columns: dict[str, np.ndarray] = field(default_factory=dict)
    maps: Float32[np.ndarray, "n s s"] | None = None
    support: Float[np.ndarray, "n shots"] | None = None
    pixel: PixelDraw | None = None
    adapt_s: float = 0.0
    score_s: float = 0.0
    threads: int = 0

    @property
    def of_maps(self) -> bool:
        """Whether the method gave maps, however many of them are still at hand."""
        return "score_mean" in self.columns

    def arrays(self) -> dict[str, np.ndarray]:
        """As arrays by name, the maps left out."""
        arrays = {name: np.array(getattr(self, name)) for name in ("adapt_s", "score_s", "threads")}
        arrays |= {f"score/{name}": values for name, values in self.columns.items()}
        arrays |= {f"pixel/{name}": values for name, values in self.pixel.arrays().items()} if self.pixel else {}
        return arrays | ({} if self.support is None else {"support": self.support})

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "DrawScores":
        """The inverse of `arrays`."""
        parts: dict[str, dict[str, np.ndarray]] = {"score": {}, "pixel": {}, "": {}}
        for key, values in arrays.items():
            kind, _, name = key.rpartition("/")
            parts[kind][name] = values
        return cls(
            parts["score"],
            support=parts[""].get("support"),
            pixel=PixelDraw.of_arrays(parts["pixel"]) if parts["pixel"] else None,
            adapt_s=float(parts[""]["adapt_s"]),
            score_s=float(parts[""]["score_s"]),
            threads=int(parts[""].get("threads", 0)),
        )


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


def without_poolings(scores: pd.DataFrame) -> pd.DataFrame:
    """Scores as accepted rows keep them: of the other poolings the ranks within a draw, all that an AUROC needs.

    That is half of the bytes, and every figure is the same to its last bit.
    """
    poolings = [name for name in _RANKS if name in scores]
    ranks = scores.groupby("draw")[poolings].rank(method="dense").astype(np.int32).rename(columns=_RANKS)
    return pd.concat([scores.drop(columns=poolings), ranks], axis=1)


def with_poolings(scores: pd.DataFrame) -> pd.DataFrame:
    """Scores as a run keeps them, or with ranks in place of the other poolings where only these were kept."""
    return scores.rename(columns={rank: pooling for pooling, rank in _RANKS.items()})


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
