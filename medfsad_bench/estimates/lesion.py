"""Lesion and box estimates of a run, from the records of its draws: overall, and by the size of the lesions."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from jaxtyping import Int64

from medfsad_bench.estimates.estimate import REPLICATES, Estimate, metric_estimate
from medfsad_bench.metrics.interval import replicates_of
from medfsad_bench.metrics.lesion import LesionRecord
from medfsad_bench.metrics.metric import BOX_RECALL, FROC, LESION_SENSITIVITY, POINTING_GAME
from medfsad_bench.metrics.resample import resampling

SHARES = (0.001, 0.01)  # of its image's area: where a small lesion ends, and where a large one begins
_OF_LESIONS = ("lesion_image", "lesion_share", "lesion_peak", "lesion_detection")  # in a record, one per lesion


def lesion_estimates(
    draws: Sequence[LesionRecord], groups: Int64[np.ndarray, " n"], *, boxes: bool, seed: int = 0
) -> tuple[dict[str, Estimate], dict[str, Estimate], dict[str, str]]:
    """Estimates, those by lesion size, and what can't be stated with the reason.

    Args:
        draws: One per support draw, of the same images.
        groups: Group number of every image.
        boxes: Whether the truth is boxes: then only what boxes support.
        seed: Of the bootstrap.
    """
    has_lesion = np.isfinite(draws[0].pointing)
    every = bool(has_lesion.all())
    normal = np.ones_like(has_lesion) if every else None
    resampled = resampling(groups, has_lesion, normal=normal, replicates=REPLICATES, seed=seed)
    recall = BOX_RECALL if boxes else LESION_SENSITIVITY
    metrics = [FROC, *([POINTING_GAME] if boxes else []), *([] if every else [recall])]
    tables = replicates_of(draws, metrics, resampled)
    estimates = {metric.name: metric_estimate(metric, tables[metric.name]) for metric in metrics}
    if every:
        why = "every test image has a lesion, so that no share of normal images can be set"
        return estimates, {}, {recall.name: why}
    size = pd.cut(draws[0].lesion_share, [-np.inf, *SHARES, np.inf], right=False, labels=size_names(SHARES))
    by_size = {}
    for name in size_names(SHARES):
        chosen = np.asarray(size == name)
        if chosen.any():
            records = [replace(draw, **{part: getattr(draw, part)[chosen] for part in _OF_LESIONS}) for draw in draws]
            table = replicates_of(records, [recall], resampled)[recall.name]
            by_size[f"{recall.name}[lesion {name}]"] = metric_estimate(recall, table)
    return estimates, by_size, {}


def size_names(edges: Sequence[float]) -> list[str]:
    """Names of the groups between shares of an area.

    >>> size_names((0.001, 0.01))
    ['below 0.1 %', '0.1 to 1 %', 'from 1 %']
    """
    shown = [f"{100 * edge:g}" for edge in edges]
    inner = [f"{low} to {high} %" for low, high in zip(shown, shown[1:], strict=False)]  # noqa: RUF007 - of a list
    return [f"below {shown[0]} %", *inner, f"from {shown[-1]} %"]
