"""What a run measures beside its queries: normals that thresholds are set from, and queries scored once more.

The cost is bounded and doesn't grow with the test set: per draw at most 16 supports left out, per other set one draw of
the same size and 12 normals, and of one draw 12 queries in three other companies.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float64

from medfsad_bench.method import Images, Method
from medfsad_bench.results.tables import normals_table
from medfsad_bench.runner.context import LocalContext
from medfsad_bench.runner.images import shown_images
from medfsad_bench.runner.opened import OpenCell
from medfsad_bench.runner.scoring import image_scores
from medfsad_bench.store import Dataset

LEFT_OUT = 16  # supports per draw
SOURCE_NORMALS = 12  # per other set; the next ones of its first draw, so no group twice
QUERIES = 12
_ALONE = 4


def calibration_table(run: OpenCell) -> pd.DataFrame:
    """Scores of normal images, for `estimates.thresholds`: set, draw, kind, position, id, group, score.

    Every support of every draw is listed. Its score is that of a detector of the others; NaN where it wasn't left out:
    beyond the first 16, at one shot, and where the protocol isn't `strict`. Abnormal supports have none.
    """
    episodes, strict = run.cell.episodes, run.cell.options.protocol == "strict"
    tables = []
    for draw in range(run.cell.options.draws):
        rows, scores = episodes.support(draw), None
        if strict:
            support = shown_images(episodes.dataset, rows, run.context.device)
            scores = _left_out(run.bound(draw), support, run.context)
        tables.append(normals_table(episodes.dataset, draw, "support", rows, scores))
        if episodes.abnormal:
            tables.append(normals_table(episodes.dataset, draw, "abnormal", episodes.abnormal_support(draw)))
    for reference in run.cell.references if strict and run.cell.shots > 1 else ():
        tables += _of_reference(run.method, reference, run.cell.shots, run.context)
    return pd.concat(tables, ignore_index=True)


def rerun_table(run: OpenCell) -> pd.DataFrame:
    """Some queries of draw 0 scored again: reversed, alone, and beside duplicates; rerun, draw, index, score."""
    if run.cell.options.protocol != "strict":
        return pd.DataFrame({"rerun": [], "draw": [], "index": [], "score": []})
    rng = np.random.default_rng([run.cell.options.seed, 30])
    episodes, device = run.cell.episodes, run.context.device
    rows = rng.permutation(episodes.queries)[:QUERIES]
    images = shown_images(episodes.dataset, rows, device)
    scorer = run.bound(0).adapt(shown_images(episodes.dataset, episodes.support(0), device), run.context)
    alone = np.arange(min(_ALONE, len(rows)))
    twice = np.concatenate([np.arange(len(rows)), alone])
    reruns = {
        "order": (rows[::-1], image_scores(scorer, images.flip(0))),
        "batch": (rows[alone], np.concatenate([image_scores(scorer, images[i : i + 1]) for i in alone])),
        "duplicates": (rows[twice], image_scores(scorer, images[torch.from_numpy(twice).to(device)])),
    }
    tables = [
        pd.DataFrame({"rerun": name, "draw": 0, "index": index, "score": score})
        for name, (index, score) in reruns.items()
    ]
    return pd.concat(tables, ignore_index=True)


def _of_reference(method: Method, dataset: Dataset, shots: int, context: LocalContext) -> Iterator[pd.DataFrame]:
    """Supports of another set's first draw, and the normals that follow them in it."""
    first = next(iter(dataset.episodes), np.zeros(0, np.int64))
    support, normals = np.split(first[: shots + SOURCE_NORMALS], [shots])
    if len(support) < shots or not len(normals):
        return
    images = shown_images(dataset, support, context.device)
    yield normals_table(dataset, 0, "support", support, _left_out(method, images, context))
    scores = image_scores(method.adapt(images, context), shown_images(dataset, normals, context.device))
    yield normals_table(dataset, 0, "normal", normals, scores)


def _left_out(method: Method, support: Images, context: LocalContext) -> Float64[np.ndarray, " k"]:
    """The score of each support by a detector of the others."""
    scores = np.full(len(support), np.nan)
    if len(support) < 2:
        return scores
    for position in range(min(len(support), LEFT_OUT)):
        others = [other for other in range(len(support)) if other != position]
        scores[position] = image_scores(method.adapt(support[others], context), support[position : position + 1])[0]
    return scores
