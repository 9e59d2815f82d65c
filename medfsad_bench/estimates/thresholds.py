"""Operating points set without any anomaly: a threshold from normal images alone, and what it costs and finds.

    support   leave-one-out scores of the K supports; the conformal rule flags what lies above the j-th highest of them,
              j = ⌊level (n + 1)⌋, so the level can't go below 1 / (n + 1): 0.2 at 4 shots
    sources   how far new normals of the other sets lie from *their* supports' leave-one-out scores, in standard
              deviations of these; the conformal quantile of all of them is carried over to the target's supports

A left-out support is scored by a detector of K - 1 others, a query by one of all K: scores of supports tend to be
higher, so fewer normals are flagged than the level says. The sources' level is aimed at, not promised: six sets are
six clusters, and in a simulation of sets that are alike 9 % were flagged for 5 %. The measured specificity stands
beside it.

Source: Vovk, Gammerman and Shafer, "Algorithmic Learning in a Random World", 2005 (conformal quantile).
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Float64
from pydantic import BaseModel, ConfigDict

from medfsad_bench.estimates.estimate import Estimate, mean_estimate
from medfsad_bench.estimates.image import ScoreMatrix
from medfsad_bench.metrics.interval import Replicates, interval_of
from medfsad_bench.metrics.resample import Precision, Resampling

LEVEL = 0.05
PREVALENCES = (0.01, 0.1)  # a screening's and a clinic's: a test set's share of anomalous images is no prevalence


class Threshold(BaseModel):
    """A threshold that was set without any anomaly.

    Attributes:
        method: How, in one line.
        level: False-positive rate that it aims at.
        images: Calibration images per draw.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: str
    level: float
    images: int


def conformal_threshold(normal: Float[np.ndarray, " n"], *, level: float) -> float:
    """Score above which at most `level` of new normals lie, if they are exchangeable with those given.

    The j-th highest of n scores, j = ⌊level (n + 1)⌋; infinity where n is too small for the level.

    >>> conformal_threshold(np.array([0.1, 0.4, 0.2, 0.3]), level=0.2)
    0.4
    >>> conformal_threshold(np.array([0.1, 0.4, 0.2, 0.3]), level=0.1)
    inf
    """
    rank = int(np.floor(level * (len(normal) + 1) + 1e-9))
    return float(np.sort(normal)[::-1][rank - 1]) if rank >= 1 else float("inf")


def threshold_estimates(
    matrix: ScoreMatrix, calibration: pd.DataFrame, resampled: Resampling, *, target: str
) -> tuple[dict[str, Estimate], dict[str, Threshold], dict[str, str]]:
    """Thresholds of every draw, and their rates on the test images.

    Args:
        matrix: Scores of the queries.
        calibration: set, draw, kind (`support` or `normal`) and score of normal images; of the target supports alone.
        resampled: Weights of the queries, in the order of the matrix.
        target: The target's name in `calibration`.

    Returns:
        Sensitivity, specificity, PPV and NPV by name; how each threshold was set; why an operating point is missing.
    """
    limits, thresholds, absent = limits_of(calibration, target=target, draws=len(matrix.scores))
    flagged = {name: matrix.scores > of_draws[:, None] for name, of_draws in limits.items()}
    sensitivities = _rates(flagged, matrix.anomalous, resampled, resampled.of_anomalous)
    specificities = _rates(
        {name: ~of_draws for name, of_draws in flagged.items()}, ~matrix.anomalous, resampled, resampled.of_normal
    )
    estimates: dict[str, Estimate] = {}
    for name in limits:
        estimates |= _stated(name, sensitivities[name], specificities[name])
    return estimates, thresholds, absent


def limits_of(
    calibration: pd.DataFrame, *, target: str, draws: int
) -> tuple[dict[str, Float64[np.ndarray, " draws"]], dict[str, Threshold], dict[str, str]]:
    """The threshold of every draw, by operating point.

    Args:
        calibration: set, draw, kind (`support` or `normal`) and score of normal images; of the target supports alone.
        target: The target's name in `calibration`.
        draws: How many draws were scored.

    Returns:
        Thresholds by the operating point's name, how each was set, and why an operating point is missing.
    """
    is_own = calibration["set"].to_numpy(object) == target
    scores, of_draw = (calibration.loc[is_own, name].to_numpy() for name in ("score", "draw"))
    left_out = [scores[(of_draw == draw) & ~np.isnan(scores)] for draw in np.unique(of_draw)]
    count = min(map(len, left_out), default=0)
    if len(left_out) != draws or count < 2:
        why = "no leave-one-out scores of the supports: it takes two shots, and scores made here"
        return {}, {}, {"operating_support": why, "operating_sources": why}
    level = max(LEVEL, 1 / (count + 1))
    limits = {"operating_support": np.array([conformal_threshold(part, level=level) for part in left_out])}
    method = "conformal quantile of the supports' leave-one-out scores"
    thresholds = {"support": Threshold(method=method, level=level, images=count)}
    pivots = pivots_of(calibration[~is_own])
    reach = conformal_threshold(pivots, level=LEVEL)
    absent = {}
    if np.isfinite(reach):
        limits["operating_sources"] = np.array([part.mean() + reach * part.std(ddof=1) for part in left_out])
        method = "conformal quantile of the other sets' normals, in standard deviations of leave-one-out scores"
        thresholds["sources"] = Threshold(method=method, level=LEVEL, images=len(pivots))
    else:
        why = f"{len(pivots)} normal images of other sets; a level of {LEVEL} takes {round(1 / LEVEL) - 1}"
        absent["operating_sources"] = why
    return limits, thresholds, absent


def predictive_value(sensitivity: float, specificity: float, prevalence: float) -> tuple[float | None, float | None]:
    """PPV and NPV at a prevalence, by Bayes; None where nothing, or everything, is flagged.

    >>> predictive_value(0.75, 0.5, 0.5)
    (0.6, 0.6666666666666666)
    """
    hit, missed = sensitivity * prevalence, (1 - sensitivity) * prevalence
    false, clear = (1 - specificity) * (1 - prevalence), specificity * (1 - prevalence)
    return (hit / (hit + false) if hit + false > 0 else None, clear / (clear + missed) if clear + missed > 0 else None)


def pivots_of(calibration: pd.DataFrame) -> Float64[np.ndarray, " m"]:
    """(score - mean) / sd of a source's normals, mean and sd being those of its supports' leave-one-out scores."""
    parts = []
    scores = calibration["score"].to_numpy(float)
    sets, kinds = (calibration[name].to_numpy(object) for name in ("set", "kind"))
    for of_set in (sets == name for name in np.unique(sets)):
        support, normal = (scores[of_set & (kinds == kind) & ~np.isnan(scores)] for kind in ("support", "normal"))
        spread = float(support.std(ddof=1)) if len(support) > 1 else 0.0
        if spread > 0:
            parts.append((normal - support.mean()) / spread)
    return np.concatenate(parts) if parts else np.zeros(0)


def _rates(
    correct: Mapping[str, Bool[np.ndarray, "draws n"]],
    of_class: Bool[np.ndarray, " n"],
    resampled: Resampling,
    precision: Precision,
) -> dict[str, Estimate]:
    """Share of the queries of a class that each operating point is right about, by its name."""
    weights = resampled.weights[of_class].astype(np.float64)
    total = weights.sum(axis=0)
    rates = {}
    for name, of_draws in correct.items():
        measured = of_draws[:, of_class].mean(axis=1)
        if resampled.lacking:
            rates[name] = mean_estimate(measured)
            continue
        replicated = (of_draws[:, of_class].astype(np.float64) @ weights / total).T
        interval = interval_of(Replicates.of(measured, replicated, precision, seed=resampled.seed), smooth=False)
        rates[name] = mean_estimate(measured, (interval.low, interval.high))
    return rates


def _stated(name: str, sensitivity: Estimate, specificity: Estimate) -> dict[str, Estimate]:
    """Sensitivity and specificity of one threshold, and what they mean at a prevalence."""
    estimates = {f"{name}_sensitivity": sensitivity, f"{name}_specificity": specificity}
    for prevalence in PREVALENCES:
        for index, kind_of_value in enumerate(("ppv", "npv")):
            predictive = _predictive(sensitivity, specificity, prevalence, index)
            if predictive is not None:
                estimates[f"{name}_{kind_of_value}[prevalence {100 * prevalence:g} %]"] = predictive
    return estimates


def _predictive(sensitivity: Estimate, specificity: Estimate, prevalence: float, index: int) -> Estimate | None:
    """Of the mean rates; its interval from both rates' ends, both of which it rises with: at least 90 % are inside."""
    value, low, high = (
        None if a is None or b is None else predictive_value(a, b, prevalence)[index]
        for a, b in (
            (sensitivity.value, specificity.value),
            (sensitivity.low, specificity.low),
            (sensitivity.high, specificity.high),
        )
    )
    return None if value is None else Estimate(value=value, low=low, high=high)
