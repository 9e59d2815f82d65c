"""What a run measures beside its queries: normals that thresholds are set from, and queries scored once more.

The cost is bounded and doesn't grow with the test set: per draw at most 16 supports left out, per other set one draw of
the same size and 12 normals, and of one draw 12 queries in three other companies.
"""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float64, Int64

from medfsad_bench.episodes.abnormal import of_draw
from medfsad_bench.method import Images, Method, Scorer
from medfsad_bench.results.protocol_checks import (
    PROBES,
    check_episodes,
    check_reruns,
    check_scores,
    check_supports,
    check_target,
    partners_of,
)
from medfsad_bench.runner.context import LocalContext
from medfsad_bench.runner.maps import pooled, smooth_maps
from medfsad_bench.runner.plan import Cell
from medfsad_bench.store import Dataset

LEFT_OUT = 16  # supports per draw
SOURCE_NORMALS = 12  # per other set; the next ones of its first draw, so no group twice
QUERIES = 12
_ALONE = 4


def calibration_table(cell: Cell, method: Method, context: LocalContext) -> pd.DataFrame:
    """Scores of normal images, for `medfsad_bench.estimates.thresholds`: set, draw, kind, position, id, group, score.

    Every support of every draw is listed. Its score is that of a detector of the others; NaN where it wasn't left out:
    beyond the first 16, at one shot, and where the protocol isn't `strict`. Abnormal supports have none.
    """
    strict = cell.options.protocol == "strict"
    rows: list[dict[str, Any]] = []
    for draw in range(cell.options.draws):
        support = cell.support(draw)
        bound = of_draw(method, cell.target, cell.pool, context.device, draw=draw, shots=cell.shots)
        scores = _left_out(bound, cell.target, support, context) if strict else np.full(len(support), np.nan)
        rows += _lines(cell.target, draw, "support", support, scores)
        if cell.pool is not None:
            taken = cell.pool.support(draw, cell.shots)
            rows += _lines(cell.target, draw, "abnormal", taken, np.full(len(taken), np.nan))
    for other in cell.references if strict and cell.shots > 1 else ():
        first = next(iter(other.episodes), np.zeros(0, np.int64))
        support, normals = first[: cell.shots], first[cell.shots : cell.shots + SOURCE_NORMALS]
        if len(support) == cell.shots and len(normals):
            rows += _lines(other, 0, "support", support, _left_out(method, other, support, context))
            scorer = method.adapt(_images(other, support, context), context)
            scores = np.concatenate([image_scores(scorer, part) for part in _parts(other, normals, context)])
            rows += _lines(other, 0, "normal", normals, scores)
    return pd.DataFrame(rows)


def rerun_table(cell: Cell, method: Method, context: LocalContext, rows: Int64[np.ndarray, " n"]) -> pd.DataFrame:
    """Some queries of the first draw scored again: reversed, alone, and beside duplicates; probe, draw, index, score.

    Args:
        cell: What is run.
        method: As trained.
        context: As lent to it.
        rows: The target's test rows.
    """
    if cell.options.protocol != "strict":
        return pd.DataFrame({"probe": [], "draw": [], "index": [], "score": []})
    rng = np.random.default_rng([cell.options.seed, 30])
    chosen = rng.permutation(rows)[:QUERIES]
    images = _images(cell.target, chosen, context)
    bound = of_draw(method, cell.target, cell.pool, context.device, draw=0, shots=cell.shots)
    scorer = bound.adapt(_images(cell.target, cell.support(0), context), context)
    alone = np.arange(min(_ALONE, len(chosen)))
    again = np.concatenate([np.arange(len(chosen)), alone])
    found = {
        "order": (chosen[::-1], image_scores(scorer, images.flip(0))),
        "batch": (chosen[alone], np.concatenate([image_scores(scorer, images[i : i + 1]) for i in alone])),
        "duplicates": (chosen[again], image_scores(scorer, images[torch.from_numpy(again).to(images.device)])),
    }
    return pd.concat(
        [
            pd.DataFrame({"probe": name, "draw": 0, "index": index, "score": score})
            for name, (index, score) in found.items()
        ],
        ignore_index=True,
    )


def checks_of(
    cell: Cell, scores: pd.DataFrame, calibration: pd.DataFrame, probes: pd.DataFrame, *, queries: int
) -> dict[str, str]:
    """Protocol checks of a cell's scores, see `medfsad_bench.results.protocol_checks`; `queries`: how many to score."""
    own = calibration[calibration["set"] == cell.target.name]
    strict = cell.options.protocol == "strict"
    target = check_target(
        target=cell.target.name,
        method=cell.info.name,
        sources=[source.name for source in cell.sources],
        has_seen=cell.info.has_seen,
        partners=partners_of(cell.target.name, json.loads(cell.target.attributes["held_out_with"])),
    )
    checkpoint = cell.options.checkpoint
    if checkpoint is not None and checkpoint.suffix != ".safetensors":
        target["unseen"] = f"not checked: nothing tells what {checkpoint.name} was trained on"
    return {
        **check_scores(scores, queries=queries, draws=cell.options.draws, seed=cell.options.seed),
        **(check_reruns(probes, scores) if strict else dict.fromkeys(PROBES, "not checked: protocol published")),
        **check_supports(own["group"].tolist(), scores),
        **target,
        **check_episodes(cell.target),
    }


def image_scores(scorer: Scorer, images: Images) -> Float64[np.ndarray, " n"]:
    """One score an image as the runner makes it: the method's own, or the maximum of its smoothed map."""
    scores = scorer(images)
    if scores.image is not None:
        return scores.image.double().cpu().numpy()
    assert scores.pixel is not None  # noqa: S101 - Scores has at least one of the two
    return np.asarray(pooled(smooth_maps(scores.pixel, images.shape[-1]).cpu().numpy())["score"])


def _left_out(
    method: Method, dataset: Dataset, support: Int64[np.ndarray, " k"], context: LocalContext
) -> Float64[np.ndarray, " k"]:
    scores = np.full(len(support), np.nan)
    if len(support) < 2:
        return scores
    images = _images(dataset, support, context)
    for position in range(min(len(support), LEFT_OUT)):
        kept = [other for other in range(len(support)) if other != position]
        scores[position] = image_scores(method.adapt(images[kept], context), images[position : position + 1])[0]
    return scores


def _lines(
    dataset: Dataset, draw: int, kind: str, rows: Int64[np.ndarray, " k"], scores: Float64[np.ndarray, " k"]
) -> list[dict[str, Any]]:
    known = dataset.table.iloc[rows]
    each = zip(known["id"].astype(str), known["group"].astype(str), scores.tolist(), strict=True)
    return [
        {
            "set": dataset.name,
            "draw": draw,
            "kind": kind,
            "position": position,
            "id": id_,
            "group": group,
            "score": score,
        }
        for position, (id_, group, score) in enumerate(each)
    ]


def _images(dataset: Dataset, rows: Int64[np.ndarray, " k"], context: LocalContext) -> Images:
    pixels = torch.from_numpy(dataset.images(rows)).permute(0, 3, 1, 2).contiguous()
    return pixels.to(context.device).float() / 255


def _parts(dataset: Dataset, rows: Int64[np.ndarray, " k"], context: LocalContext, size: int = 32) -> Iterator[Images]:
    for start in range(0, len(rows), size):
        yield _images(dataset, rows[start : start + size], context)
