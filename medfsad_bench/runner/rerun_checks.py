"""What a run measures beside its queries: normals that thresholds are set from, and queries scored once more.

The cost is bounded and doesn't grow with the test set: per draw at most 16 supports left out, per other set one draw of
the same size and 12 normals, and some 130 scores of 12 queries and their company, from three calls of `adapt`.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float64, Int64

from medfsad_bench.method import Images, Method, Scorer
from medfsad_bench.results.tables import normals_table
from medfsad_bench.runner.answers import scorer_of
from medfsad_bench.runner.context import LocalContext
from medfsad_bench.runner.digests import chosen
from medfsad_bench.runner.images import shown_images
from medfsad_bench.runner.opened import OpenCell
from medfsad_bench.runner.scoring import image_scores
from medfsad_bench.runner.sources import reference_rows
from medfsad_bench.store import Dataset

LEFT_OUT = 16  # supports per draw
QUERIES = 12
PERTURBATION = 1e-6  # of pixels in [0, 1]: sixteen times the rounding of a number just below 1
_DUPLICATES, _FEW, _MORE, _PERTURBATIONS = 4, 5, 8, 2


def calibration_table(run: OpenCell) -> pd.DataFrame:
    """Scores of normal images, for `estimates.thresholds`: set, draw, kind, position, id, group, score.

    Every support of every draw is listed. Its score is that of a detector of the others; NaN where it wasn't left out:
    beyond the first 16, where the method needs all K (as at one shot), and where the protocol isn't `strict`. Abnormal
    supports have none.
    """
    episodes = run.cell.episodes
    strict = run.cell.options.protocol == "strict"
    can_leave_out = strict and run.cell.shots > run.cell.info.fewest_shots
    tables = []
    for draw in range(run.cell.options.draws):
        rows, scores = episodes.support(draw), None
        if can_leave_out:
            support = shown_images(episodes.dataset, rows, run.context.device)
            scores = _left_out(run.bound(draw), support, run.context)
        tables.append(normals_table(episodes.dataset, draw, "support", rows, scores))
        if episodes.abnormal:
            tables.append(normals_table(episodes.dataset, draw, "abnormal", episodes.abnormal_support(draw)))
    for reference in run.cell.references if can_leave_out else ():
        tables += reference_tables(run.method, reference, run.cell.shots, run.context)
    return pd.concat(tables, ignore_index=True)


def rerun_table(run: OpenCell) -> pd.DataFrame:
    """Some queries scored again for `results.protocol_checks`: rerun, draw, index, score.

    All begin with an empty cache of their own. Draw 0 is scored reversed, in batches of a few and of more than the
    run ever shows, one by one, beside duplicates, and with pixels moved by a rounding error; the last draw by a method
    that was built anew.
    """
    if run.cell.options.protocol != "strict":
        return pd.DataFrame({"rerun": [], "draw": [], "index": [], "score": []})
    options = run.cell.options
    rng = np.random.default_rng([options.seed, 30])
    order = rng.permutation(run.cell.episodes.queries)
    sample = order[:QUERIES]
    more_than_ever = np.resize(order, options.batch_size + _MORE)
    batches = {
        "order": [sample[::-1]],
        "batch": [more_than_ever, *np.split(sample, range(_FEW, len(sample), _FEW))],
        "duplicates": [np.concatenate([sample, sample[:_DUPLICATES]])],
    }
    together, one_by_one = run.context.apart(), run.context.apart(one_by_one=True)
    scorer, lone_scorer = _scorer(run, 0, together), _scorer(run, 0, one_by_one)
    tables = []
    for rerun, of_rows in batches.items():
        for rows in of_rows:
            together.forget()
            tables.append(_table(rerun, 0, rows, image_scores(scorer, _shown(run, rows))))
    images = _shown(run, sample)
    tables.append(_table("alone", 0, sample, _each_alone(lone_scorer, images)))
    moved = [perturbed(images, seed=seed) for seed in range(_PERTURBATIONS)]
    one_by_one.pass_ahead(torch.cat(moved))
    tables += [_table("perturbed", 0, sample, _each_alone(lone_scorer, images_moved)) for images_moved in moved]
    anew = replace(run, method=_built_anew(run))
    last = options.draws - 1
    tables.append(_table("memory", last, sample, image_scores(_scorer(anew, last, run.context.apart()), images)))
    return pd.concat(tables, ignore_index=True)


def reference_tables(method: Method, dataset: Dataset, shots: int, context: LocalContext) -> Iterator[pd.DataFrame]:
    """Scores of another set's supports, each left out once, and of the normals that follow them in its first draw.

    Nothing where the draw has no image beyond K.
    """
    support, normals = reference_rows(dataset, shots)
    if len(support) < shots or not len(normals):
        return
    images = shown_images(dataset, support, context.device)
    yield normals_table(dataset, 0, "support", support, _left_out(method, images, context))
    scores = image_scores(method.adapt(images, context), shown_images(dataset, normals, context.device))
    yield normals_table(dataset, 0, "normal", normals, scores)


def perturbed(images: Images, *, seed: int) -> Images:
    """The same images with every pixel moved up or down by `PERTURBATION`: what rounding may do, and no more."""
    generator = torch.Generator().manual_seed(seed)
    signs = torch.randint(0, 2, images.shape, generator=generator).to(images) * 2 - 1
    return (images + PERTURBATION * signs).clamp(0, 1)


def _scorer(run: OpenCell, draw: int, context: LocalContext) -> Scorer:
    return scorer_of(run.bound(draw), _shown(run, run.cell.episodes.support(draw)), context)


def _shown(run: OpenCell, rows: Int64[np.ndarray, " n"]) -> Images:
    return shown_images(run.cell.target, rows, run.context.device)


def _each_alone(scorer: Scorer, images: Images) -> Float64[np.ndarray, " n"]:
    return np.concatenate([image_scores(scorer, image) for image in images.split(1)])


def _built_anew(run: OpenCell) -> Method:
    """The method as it was before it saw any of the target."""
    method = run.cell.info.build(run.cell.config)
    if state := run.method.state():
        method.load_state(state)
    return method


def _table(rerun: str, draw: int, rows: Int64[np.ndarray, " n"], scores: Float64[np.ndarray, " n"]) -> pd.DataFrame:
    return pd.DataFrame({"rerun": rerun, "draw": draw, "index": rows, "score": scores})


def _left_out(method: Method, support: Images, context: LocalContext) -> Float64[np.ndarray, " k"]:
    """The score of each support by a detector of the others."""
    scores = np.full(len(support), np.nan)
    for position in range(min(len(support), LEFT_OUT)):
        others = [other for other in range(len(support)) if other != position]
        scorer = method.adapt(chosen(support, others), context)
        scores[position] = image_scores(scorer, chosen(support, [position]))[0]
    return scores
