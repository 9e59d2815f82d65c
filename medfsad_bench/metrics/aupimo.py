"""AUPIMO: recall image by image, at false-positive rates so low that normal images stay nearly clean."""

import numpy as np
from jaxtyping import Float, Float64, Real

from medfsad_bench.errors import MetricError
from medfsad_bench.metrics.ranks import Maps, Masks, checked_maps, count_below
from medfsad_bench.metrics.score_histogram import ScoreHistogram

FPR_BOUNDS = (1e-5, 1e-4)  # the paper's


def aupimo_score(maps: Maps, masks: Masks, *, fpr_bounds: tuple[float, float] = FPR_BOUNDS) -> float:
    """Mean of `aupimo_scores` over the anomalous images; the images' scores tell more than their mean.

    Raises:
        MetricError: See `aupimo_scores`.

    >>> aupimo_score(
    ...     np.array([[[0.0, 1.0]], [[0.2, 0.3]]]), np.array([[[False, True]], [[False, False]]]), fpr_bounds=(0.1, 1.0)
    ... )
    1.0
    """
    return float(np.nanmean(aupimo_scores(maps, masks, fpr_bounds=fpr_bounds)))


def aupimo_scores(
    maps: Maps, masks: Masks, *, fpr_bounds: tuple[float, float] = FPR_BOUNDS
) -> Float64[np.ndarray, " n"]:
    """Per image the area under its recall over the logarithm of the false-positive rate; NaN for normal images.

    The false-positive rate is the mean over *normal images* of the share of their pixels flagged, the recall that of
    the image's anomalous pixels; the area is over [L, U] of `fpr_bounds` and divided by ln(U / L), thus in [0, 1]. A
    pixel that is reached at rate f adds ln(U / max(f, L)) / ln(U / L), if positive, to its image's mean, so the area
    is exact.

    Source: Bertoldo et al., "AUPIMO: Redefining Visual Anomaly Detection Benchmarks with High Speed and Low Tolerance",
    BMVC 2024, section 3.

    Raises:
        MetricError: If there is no normal or no anomalous image, the bounds aren't 0 < L < U ≤ 1, the normal images
            have too few pixels to show a rate of U, a pixel isn't finite or shapes differ.
    """
    maps, masks = checked_maps(maps, masks)
    low, high = fpr_bounds
    anomalous = np.array([bool(mask.any()) for mask in masks])
    if not 0 < low < high <= 1:
        raise MetricError(f"False-positive rates from {low} to {high}; expected 0 < low < high ≤ 1.")
    if anomalous.all() or not anomalous.any():
        missing = "normal" if len(anomalous) and anomalous.all() else "anomalous"
        raise MetricError(f"None of the {len(anomalous)} images is {missing}; AUPIMO needs both, leave it out.")
    normal_px = sum(image.size for image, ill in zip(maps, anomalous, strict=True) if not ill)
    if normal_px * high < 1:
        raise MetricError(
            f"The normal images have {normal_px} pixels, which can't show a false-positive rate of {high}; raise the "
            "bounds or leave AUPIMO out."
        )
    pixels = [image[mask] for image, mask in zip(maps, masks, strict=True)]
    marks, inverse = np.unique(np.concatenate(pixels), return_inverse=True)
    rate = _mean_share_reached([image for image, ill in zip(maps, anomalous, strict=True) if not ill], marks)
    gain = np.clip(np.log(high / np.maximum(rate, low)) / np.log(high / low), 0, None)[inverse]
    parts = np.split(gain, np.cumsum([len(part) for part in pixels])[:-1])
    return np.array([part.mean() if len(part) else np.nan for part in parts])


def binned_aupimo(
    histogram: ScoreHistogram,
    weights: Real[np.ndarray, "n replicates"],
    *,
    fpr_bounds: tuple[float, float] = FPR_BOUNDS,
) -> Float64[np.ndarray, " replicates"]:
    """AUPIMO of binned pixels under weights of the images: a bin's pixels are all reached at the bin's end."""
    low, high = fpr_bounds
    clean = histogram.anomalous.sum(axis=1) == 0
    normal = np.flip(histogram.normal[clean], axis=1).cumsum(axis=1, dtype=np.float64)
    clean_weight = weights[clean].sum(axis=0)
    rate = np.divide(
        (normal / normal[:, -1:]).T @ weights[clean],
        clean_weight,
        where=clean_weight > 0,
        out=np.ones((normal.shape[1], len(clean_weight))),
    )
    gain = np.clip(np.log(high / np.maximum(rate, low)) / np.log(high / low), 0, None)
    pixels = np.flip(histogram.anomalous[~clean], axis=1).astype(np.float64)
    share = (pixels / pixels.sum(axis=1, keepdims=True)) @ gain
    weight = weights[~clean].astype(np.float64)
    return np.asarray((share * weight).sum(axis=0) / weight.sum(axis=0))


def _mean_share_reached(
    images: list[Float[np.ndarray, "_ _"]], marks: Float[np.ndarray, " k"]
) -> Float64[np.ndarray, " k"]:
    """Mean over images of the share of pixels at or above each mark; images of one size are counted together."""
    total = np.zeros(len(marks))
    for size in {image.size for image in images}:
        pixels = np.concatenate([image.ravel() for image in images if image.size == size])
        total += (len(pixels) - count_below(pixels, marks)[0]) / size
    return total / len(images)
