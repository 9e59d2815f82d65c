"""The strict protocol: every test image of the target, scored on ten support draws, in shuffled order."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float32, Int64

from medfsad_bench.episodes.abnormal import AbnormalPool, of_draw
from medfsad_bench.episodes.contamination import query_rows, support_rows
from medfsad_bench.errors import MethodError
from medfsad_bench.method import Images, Method, Scorer, Scores
from medfsad_bench.runner.context import LocalContext
from medfsad_bench.runner.maps import pooled, smooth_maps
from medfsad_bench.store import Dataset


@dataclass(slots=True)
class DrawScores:
    """Scores of one draw, in the order of the target's test rows.

    Attributes:
        columns: Per query `score` and, where there are maps, `score_mean` and `score_top1`.
        maps: Smoothed maps at the input size, or None.
        support: How much each support image counted for each query, or None.
        adapt_s: Time to adapt to the support.
        score_s: Time to score all queries, the runner's smoothing not counted.
    """

    columns: dict[str, np.ndarray] = field(default_factory=dict)
    maps: Float32[np.ndarray, "n s s"] | None = None
    support: Float32[np.ndarray, "n shots"] | None = None
    adapt_s: float = 0.0
    score_s: float = 0.0


class Target:
    """The target's images on the device, and the order in which they are shown.

    Args:
        dataset: The target.
        device: Where images go.
        seed: Of the order.
        contaminated: How many supports are anomalies; see `medfsad_bench.episodes.contamination`.
        pool: Where abnormal supports come from, for a method that declares them.

    Attributes:
        rows: Of the queries.
        reserved: Rows of test images that are no queries, for the sake of contaminated or of abnormal supports.
    """

    def __init__(
        self,
        dataset: Dataset,
        device: torch.device,
        *,
        seed: int,
        contaminated: int = 0,
        pool: AbnormalPool | None = None,
    ) -> None:
        self.dataset, self.pool = dataset, pool
        taken = np.zeros(0, np.int64) if pool is None else pool.reserved
        self.rows: Int64[np.ndarray, " n"] = np.setdiff1d(query_rows(dataset, contaminated), taken)
        self.reserved = np.setdiff1d(dataset.indices("test"), self.rows)
        self._contaminated = contaminated
        self.size_px = int(dataset.attributes["size_px"])
        self._device = device
        self._queries = self._on_device(self.rows)
        order = np.random.default_rng([seed, 20]).permutation(len(self.rows))
        self._order = torch.from_numpy(order)

    def support(self, draw: int, shots: int) -> Images:
        """The first `shots` images of a draw, or what stands for them where supports are contaminated."""
        return as_float(self._on_device(support_rows(self.dataset, draw, shots, self._contaminated)))

    def bound(self, method: Method, *, draw: int, shots: int) -> Method:
        """The method with all that it is shown besides the support."""
        return of_draw(method, self.dataset, self.pool, self._device, draw=draw, shots=shots)

    def batches(self, batch_size: int) -> Iterator[tuple[torch.Tensor, Images]]:
        """Positions among the test rows and their images, shuffled so that no batch is of one class."""
        for positions in self._order.split(batch_size):
            yield positions, self.queries(positions)

    def queries(self, positions: Int64[torch.Tensor, " b"]) -> Images:
        """Test images by their position among the test rows."""
        return as_float(self._queries[positions.to(self._device)])

    def _on_device(self, rows: Int64[np.ndarray, " n"]) -> torch.Tensor:
        images = torch.from_numpy(self.dataset.images(rows)).permute(0, 3, 1, 2).contiguous()
        return images.to(self._device)


def score_draw(
    method: Method,
    target: Target,
    context: LocalContext,
    *,
    draw: int,
    shots: int,
    batch_size: int,
    without: int | None = None,
    on_batch: Callable[[int], None] = lambda _: None,
) -> DrawScores:
    """Adapt to one support draw and score every test image; `without` is the place of a support that is left out.

    Raises:
        MethodError: If the method returns other than one finite score an image.
    """
    result = DrawScores()
    support = target.support(draw, shots)
    if without is not None:
        support = torch.cat([support[:without], support[without + 1 :]])
    started = now(context.device)
    scorer = target.bound(method, draw=draw, shots=shots).adapt(support, context)
    result.adapt_s = now(context.device) - started
    order, parts = [], []
    for positions, images in target.batches(batch_size):
        order.append(positions.numpy())
        parts.append(_score_batch(scorer, images, context, result, on_batch))
    back = np.argsort(np.concatenate(order))
    image = [part.image for part in parts if part.image is not None]
    pixel = [part.pixel for part in parts if part.pixel is not None]
    if len(image) not in (0, len(parts)) or len(pixel) not in (0, len(parts)):
        raise MethodError("The method gave image scores or maps for some batches only. Give the same kind for all.")
    if pixel:
        result.maps = np.concatenate([smooth_maps(maps, target.size_px).cpu().numpy() for maps in pixel])[back]
        result.columns = pooled(result.maps)
    if image:
        result.columns["score"] = torch.cat(image).double().cpu().numpy()[back]
    weights = [part.support for part in parts if part.support is not None]
    if len(weights) == len(parts):
        result.support = torch.cat(weights).float().cpu().numpy()[back]
    return result


def scores_table(
    target: Target, draws: list[DrawScores], scored: Int64[np.ndarray, " m"] | None = None
) -> pd.DataFrame:
    """Scores of all draws, one line a query and draw, with what the metrics need of each query.

    Args:
        target: The target.
        draws: Their scores.
        scored: Positions among the test rows that the scores are of; None for all of them.
    """
    rows = target.rows if scored is None else target.rows[scored]
    table = target.dataset.table.iloc[rows]
    known = {
        "index": rows,
        "id": table["id"].to_numpy(str),
        "group": table["group"].to_numpy(str),
        "anomalous": table["label"].to_numpy(bool),
        "disease": table["disease"].to_numpy(str),
    }
    return pd.concat(
        [pd.DataFrame({"draw": number, **known, **draw.columns}) for number, draw in enumerate(draws)],
        ignore_index=True,
    )


def _score_batch(
    scorer: Scorer, images: Images, context: LocalContext, result: DrawScores, on_batch: Callable[[int], None]
) -> Scores:
    started = now(context.device)
    scores = scorer(images)
    result.score_s += now(context.device) - started
    for name, values in (("image score", scores.image), ("anomaly map", scores.pixel)):
        if values is None:
            continue
        if len(values) != len(images):
            raise MethodError(f"The scorer gave {len(values)} {name}s for {len(images)} images. Give one for each.")
        if not bool(torch.isfinite(values).all()):
            raise MethodError(
                f"The scorer gave a {name} that isn't finite. Look for a division by zero or an overflow."
            )
    on_batch(len(images))
    return scores


def as_float(images: torch.Tensor) -> Images:
    """Stored 8 bits as the method sees them."""
    return images.float() / 255


def now(device: torch.device) -> float:
    """Seconds on a clock, once the device has done what it was asked."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
