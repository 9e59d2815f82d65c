"""The strict protocol: every query of the target, scored on ten support draws, in shuffled order."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64, Int64

from medfsad_bench.errors import MethodError
from medfsad_bench.method import Images, Scorer, Scores
from medfsad_bench.metrics.image import auroc_score
from medfsad_bench.results.run_folder import RunFolder
from medfsad_bench.results.tables import DrawScores
from medfsad_bench.runner.answers import scorer_of, scores_of
from medfsad_bench.runner.digests import chosen
from medfsad_bench.runner.images import Batches, shown_images
from medfsad_bench.runner.maps import pooled, smooth_maps
from medfsad_bench.runner.opened import OpenCell
from medfsad_bench.runner.pixels import PixelTruth
from medfsad_bench.runner.training import Trained, train


@dataclass(frozen=True, slots=True)
class Scored:
    """What a protocol makes of a cell.

    Attributes:
        trained: How the method came by its weights.
        draws: Scores of each draw, in the order of `rows`.
        rows: Rows of the queries that were scored.
        absent: Why there are no pixel estimates; empty if there are.
        selected_epoch: Picked by AUROC on the test set; None where the last one counts.
    """

    trained: Trained
    draws: list[DrawScores]
    rows: Int64[np.ndarray, " n"]
    absent: str = ""
    selected_epoch: int | None = None


def score_strict(run: OpenCell, folder: RunFolder) -> Scored:
    """Train or take up what was trained, then score every draw that isn't kept in the folder already."""
    trained = train(run)
    folder.log("scoring", pretrain_s=trained.seconds, reused=trained.reused)
    queries, options = run.cell.episodes.queries, run.cell.options
    truth = PixelTruth(run.cell.target, queries)
    anomalous = run.cell.target.labels[queries]
    kept = {number: DrawScores.of_arrays(arrays) for number, arrays in folder.kept("draws").items()}
    draws = []
    for number in range(options.draws):
        draw = kept.get(number)
        if draw is None or (options.save_maps and draw.of_maps and not folder.has_maps(number)):

            def advance(done: int, before: int = number * len(queries)) -> None:
                run.progress("scoring", before + done, options.draws * len(queries), {})

            draw = score_draw(run, number, on_batch=advance)
            if draw.maps is not None and not truth.absent:
                draw.pixel = truth.measure(draw.maps)
            if draw.maps is not None and options.save_maps:
                folder.save_maps(number, draw.maps, queries)
            draw.maps = None
            folder.keep("draws", number, draw.arrays())
            folder.log("draw", number=number, adapt_s=draw.adapt_s, score_s=draw.score_s)
        run.callback.on_draw(run.cell, number, auroc_score(draw.columns["score"], anomalous))
        draws.append(draw)
    if not truth.absent:
        for draw in draws:
            draw.columns["lesion_share"] = truth.lesion_shares
    no_maps = "" if any(draw.pixel for draw in draws) else f"{run.cell.info.name} gives no maps"
    return Scored(trained, draws, queries, truth.absent or no_maps)


def score_draw(
    run: OpenCell, draw: int, *, without: int | None = None, on_batch: Callable[[int], None] = lambda _: None
) -> DrawScores:
    """Adapt to one support draw and score every query, shuffled so that no batch is of one class.

    Args:
        run: The open cell, its method trained.
        draw: Which draw.
        without: Position of a support that is left out.
        on_batch: Told how many queries of the draw are scored.

    Raises:
        MethodError: If the method returns other than one finite score per image.
    """
    options, count = run.cell.options, len(run.queries)
    order = torch.from_numpy(np.random.default_rng([options.seed, 20]).permutation(count))
    batches = Batches(run.queries, order.split(options.batch_size))
    result, parts = score_batches(run, draw, batches, without=without, on_batch=on_batch)
    image = [part.image for part in parts if part.image is not None]
    pixel = [part.pixel for part in parts if part.pixel is not None]
    support = [part.support for part in parts if part.support is not None]
    if len(image) not in (0, len(parts)) or len(pixel) not in (0, len(parts)):
        raise MethodError("The method gave image scores or maps for some batches only. Give the same kind for all.")
    sorted_back = np.argsort(order.numpy())
    if pixel:
        size_px = run.queries.shape[-1]
        result.maps = np.concatenate([smooth_maps(maps, size_px).cpu().numpy() for maps in pixel])[sorted_back]
        result.columns = pooled(result.maps)
    if image:
        result.columns["score"] = torch.cat(image).double().cpu().numpy()[sorted_back]
    if len(support) == len(parts):
        result.support = torch.cat(support).float().cpu().numpy()[sorted_back]
    return result


def score_batches(
    run: OpenCell,
    draw: int,
    batches: Iterable[Images],
    *,
    without: int | None = None,
    on_batch: Callable[[int], None] = lambda _: None,
) -> tuple[DrawScores, list[Scores]]:
    """Adapt to one support draw and score some queries, batch by batch.

    Args:
        run: The open cell, its method trained.
        draw: Which draw.
        batches: Of queries.
        without: Position of a support that is left out.
        on_batch: Told how many queries of the draw are scored.

    Returns:
        The draw with its clocks alone, and what the method gave for each batch.

    Raises:
        MethodError: If the method returns other than one finite score per image.
    """
    result, parts, done = DrawScores(threads=torch.get_num_threads()), [], 0
    device = run.context.device
    support = shown_images(run.cell.target, run.cell.episodes.support(draw), device)
    if without is not None:
        support = chosen(support, [position for position in range(len(support)) if position != without])
    started = _now(device)
    scorer = scorer_of(run.bound(draw), support, run.context)
    result.adapt_s = _now(device) - started
    for images in batches:
        started = _now(device)
        scores = scores_of(scorer, images)
        result.score_s += _now(device) - started
        parts.append(scores)
        done += len(images)
        on_batch(done)
    return result, parts


def image_scores(scorer: Scorer, images: Images) -> np.ndarray:
    """One score per image, float64 (n,), as a run has it: the method's own, or the maximum of its smoothed map."""
    return pooled_scores(scores_of(scorer, images), images.shape[-1])


def pooled_scores(scores: Scores, size_px: int) -> Float64[np.ndarray, " n"]:
    """One score per image: the method's own, or the maximum of its map, smoothed at the images' size."""
    if scores.image is not None:
        return scores.image.double().cpu().numpy()
    assert scores.pixel is not None  # noqa: S101 - Scores has at least one of the two
    return pooled(smooth_maps(scores.pixel, size_px).cpu().numpy())["score"]


def _now(device: torch.device) -> float:
    """Seconds on a clock, once the device has done what it was asked."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
