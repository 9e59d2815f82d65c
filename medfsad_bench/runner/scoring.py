"""The strict protocol: every query of the target, scored on ten support draws, in shuffled order."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64, Int64

from medfsad_bench.errors import MethodError
from medfsad_bench.method import Images, Scorer, Scores
from medfsad_bench.results.draw_scores import DrawScores
from medfsad_bench.results.run_folder import RunFolder
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
        lesion_share: Part of a query's area that its lesions cover; None without a localisation truth.
        absent: Why there are no pixel estimates; empty if there are.
        selected_epoch: Picked by AUROC on the test set; None where the last one counts.
    """

    trained: Trained
    draws: list[DrawScores]
    rows: Int64[np.ndarray, " n"]
    lesion_share: Float64[np.ndarray, " n"] | None = None
    absent: str = ""
    selected_epoch: int | None = None


def score_strict(run: OpenCell, folder: RunFolder) -> Scored:
    """Train or take up what was trained, then score every draw that isn't kept in the folder already."""
    trained = train(run)
    folder.log("scoring", pretrain_s=trained.seconds, reused=trained.reused)
    queries, options = run.images.episodes.queries, run.cell.options
    truth = PixelTruth(run.cell.target, queries)
    draws = []
    for number in range(options.draws):
        draw = folder.kept_draw(number)
        if draw is None:
            draw = score_draw(run, number, on_batch=_progress(run, number))
            if draw.maps is not None and not truth.absent:
                draw.pixel = truth.measure(draw.maps)
            if draw.maps is not None and options.save_maps:
                folder.save_maps(number, draw.maps, queries)
            draw.maps = None
            folder.keep_draw(number, draw)
            folder.log("draw", number=number, adapt_s=draw.adapt_s, score_s=draw.score_s)
        draws.append(draw)
    no_maps = "" if any(draw.pixel for draw in draws) else f"{run.cell.info.name} gives no maps"
    shares = None if truth.absent else truth.lesion_shares()
    return Scored(trained, draws, queries, shares, truth.absent or no_maps)


def score_draw(
    run: OpenCell, draw: int, *, without: int | None = None, on_batch: Callable[[int], None] = lambda _: None
) -> DrawScores:
    """Adapt to one support draw and score every query.

    Args:
        run: The open cell, its method trained.
        draw: Which draw.
        without: Position of a support that is left out.
        on_batch: Told how many queries were scored.

    Raises:
        MethodError: If the method returns other than one finite score per image.
    """
    result = DrawScores()
    support = run.images.support(draw)
    if without is not None:
        support = torch.cat([support[:without], support[without + 1 :]])
    device = run.context.device
    started = now(device)
    scorer = run.images.bound(run.method, draw).adapt(support, run.context)
    result.adapt_s = now(device) - started
    order, parts = [], []
    for positions, images in run.images.batches(run.cell.options.batch_size):
        started = now(device)
        scores = scorer(images)
        result.score_s += now(device) - started
        _check(scores, len(images))
        order.append(positions.numpy())
        parts.append(scores)
        on_batch(len(images))
    _join(result, parts, np.argsort(np.concatenate(order)), run.images.size_px)
    return result


def _progress(run: OpenCell, draw: int) -> Callable[[int], None]:
    """Tells how many queries of how many were scored, all draws counted."""
    each = len(run.images.episodes.queries)
    done = draw * each

    def advance(count: int) -> None:
        nonlocal done
        done += count
        run.progress("scoring", done, run.cell.options.draws * each, {})

    return advance


def image_scores(scorer: Scorer, images: Images) -> np.ndarray:
    """One score per image, float64 (n,), as a run has it: the method's own, or the maximum of its smoothed map."""
    scores = scorer(images)
    if scores.image is not None:
        return scores.image.double().cpu().numpy()
    assert scores.pixel is not None  # noqa: S101 - Scores has at least one of the two
    return pooled(smooth_maps(scores.pixel, images.shape[-1]).cpu().numpy())["score"]


def now(device: torch.device) -> float:
    """Seconds on a clock, once the device has done what it was asked."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _check(scores: Scores, count: int) -> None:
    for name, values in (("image score", scores.image), ("anomaly map", scores.pixel)):
        if values is None:
            continue
        if len(values) != count:
            raise MethodError(f"The scorer gave {len(values)} {name}s for {count} images. Give one for each.")
        if not bool(torch.isfinite(values).all()):
            raise MethodError(
                f"The scorer gave a {name} that isn't finite. Look for a division by zero or an overflow."
            )


def _join(result: DrawScores, parts: list[Scores], order: np.ndarray, size_px: int) -> None:
    """What the batches gave, in the order of the queries: maps smoothed and pooled, image scores in their place."""
    image = [part.image for part in parts if part.image is not None]
    pixel = [part.pixel for part in parts if part.pixel is not None]
    support = [part.support for part in parts if part.support is not None]
    if len(image) not in (0, len(parts)) or len(pixel) not in (0, len(parts)):
        raise MethodError("The method gave image scores or maps for some batches only. Give the same kind for all.")
    if pixel:
        result.maps = np.concatenate([smooth_maps(maps, size_px).cpu().numpy() for maps in pixel])[order]
        result.columns = pooled(result.maps)
    if image:
        result.columns["score"] = torch.cat(image).double().cpu().numpy()[order]
    if len(support) == len(parts):
        result.support = torch.cat(support).float().cpu().numpy()[order]
