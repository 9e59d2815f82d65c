"""Histograms, streamed metrics with their error bounds, and intervals of pixel metrics."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medfsad_bench.errors import MetricError
from medfsad_bench.metrics.interval import Interval, Replicates, interval_of, replicates_of, shifted
from medfsad_bench.metrics.metric import PIXEL_CURVE_METRICS, Metric
from medfsad_bench.metrics.pixel import pixel_metrics
from medfsad_bench.metrics.ranks import pixel_ranks
from medfsad_bench.metrics.resample import resampling
from medfsad_bench.metrics.score_histogram import ScoreHistogram, pixel_curve, pixel_histogram
from medfsad_bench.metrics.streaming import TOLERANCE, Bounded, bounded_metrics, streamed_histogram


def lesions(rng: np.random.Generator, *, images: int = 12, size_px: int = 48, shift: float = 1.0) -> Any:
    """Noise maps, lesions in every second image, and a score raised there."""
    maps = rng.normal(size=(images, size_px, size_px)).astype(np.float32)
    masks = np.zeros(maps.shape, dtype=bool)
    for index in range(0, images, 2):
        for _ in range(rng.integers(1, 4)):
            row, column, edge = *rng.integers(0, size_px - 8, 2), rng.integers(2, 8)
            masks[index, row : row + edge, column : column + edge] = True
    maps[masks] += np.float32(shift)
    return maps, masks


def streamed(images: Any, **options: int) -> Mapping[str, Bounded]:
    """Metrics of images that are read one after the other."""
    return bounded_metrics(streamed_histogram(images, **options))


def replicates(histogram: ScoreHistogram, metric: Metric, groups: Any, count: int) -> Replicates:
    """Of one draw, under `count` resamplings."""
    anomalous, normal = histogram.regions > 0, histogram.normal.sum(axis=1) > 0
    resampled = resampling(groups, anomalous, normal=normal, replicates=count, seed=0)
    return replicates_of([histogram], [metric], resampled, weigh=pixel_curve)[metric.name]


def interval(histogram: ScoreHistogram, metric: str = "aupro_fpr30_conn8", value: float | None = None) -> Interval:
    """Of one draw whose images are independent, around its exact value if that is given."""
    table = replicates(histogram, PIXEL_CURVE_METRICS[metric], np.arange(len(histogram.regions)), 400)
    table = table if value is None else shifted(table, np.array([value]))
    return interval_of(table, smooth=PIXEL_CURVE_METRICS[metric].smooth)


@given(st.integers(0, 10**6), st.sampled_from([8, 64, 1024]), st.sampled_from([0.5, 3.0, 1000.0]))
def test_the_error_is_within_its_computed_bound(seed: int, bins: int, decimals: float) -> None:
    """Whatever the bins and however many ties."""
    maps, masks = lesions(np.random.default_rng(seed), images=4, size_px=20)
    maps = np.round(maps * np.float32(decimals))
    exact = pixel_metrics(pixel_ranks(maps, masks))
    for bounded in (
        bounded_metrics(pixel_histogram(maps, masks, bins=bins)),
        streamed(zip(maps, masks, strict=True), bins=bins, chunk_px=500),
        streamed(list(zip(maps, masks, strict=True)), bins=bins, chunk_px=500),
    ):
        for name, metric in bounded.items():
            assert abs(metric.value - exact[name]) <= metric.error + 1e-6, name


def test_the_bound_meets_the_tolerance_at_the_default_bins() -> None:
    maps, masks = lesions(np.random.default_rng(0), images=40, size_px=128)
    exact = pixel_metrics(pixel_ranks(maps, masks))
    for name, metric in streamed(list(zip(maps, masks, strict=True)), chunk_px=2**17).items():
        assert abs(metric.value - exact[name]) <= metric.error + 1e-12
        assert metric.error <= TOLERANCE[name], name


def test_tied_scores_are_counted_exactly() -> None:
    """Many equal scores have a bin of their own: the bound is 0, and so is the error."""
    rng = np.random.default_rng(1)
    maps, masks = rng.integers(0, 5, (3, 30, 30)).astype(np.float32), rng.random((3, 30, 30)) < 0.2
    exact = pixel_metrics(pixel_ranks(maps, masks))
    for name, metric in streamed(list(zip(maps, masks, strict=True))).items():
        assert metric.value == pytest.approx(exact[name], abs=1e-12)
        if name != "dice_max_oracle":
            assert metric.error == pytest.approx(0, abs=1e-12)


def test_a_second_pass_finds_what_the_first_could_not_expect() -> None:
    """The first chunk is normal and low: the bins of a one-time stream fit badly, and the bound says so."""
    maps, masks = lesions(np.random.default_rng(2), images=16, size_px=64)
    maps[2:] += 50
    maps[:2], masks[:2] = maps[:2] - 50, False
    images = list(zip(maps, masks, strict=True))
    once = streamed(iter(images), bins=4096, chunk_px=64 * 64)
    twice = streamed(images, bins=4096, chunk_px=64 * 64)
    exact = pixel_metrics(pixel_ranks(maps, masks))
    for name, metric in twice.items():
        assert metric.error < once[name].error / 10
        assert abs(metric.value - exact[name]) <= metric.error + 1e-9
        assert abs(once[name].value - exact[name]) <= once[name].error + 1e-9


def test_one_image_is_held_at_a_time() -> None:
    """Bounded memory: no image is still held when the next chunk is read."""
    import weakref

    alive: list[Any] = []

    def read() -> Iterator[Any]:
        for seed in range(30):
            maps, masks = lesions(np.random.default_rng(seed), images=1, size_px=32)
            image = maps[0].copy()
            alive.append(weakref.ref(image))
            assert sum(reference() is not None for reference in alive) <= 3
            yield image, masks[0]

    streamed(read(), chunk_px=1)


def test_no_image_is_an_error() -> None:
    with pytest.raises(MetricError, match="No image was given"):
        streamed([])


def test_streamed_metrics_without_an_anomalous_pixel_are_an_error() -> None:
    with pytest.raises(MetricError, match="empty"):
        streamed([(np.zeros((4, 4)), np.zeros((4, 4), dtype=bool))])


@pytest.mark.parametrize("metric", PIXEL_CURVE_METRICS.values(), ids=PIXEL_CURVE_METRICS.keys())
def test_replicates_are_the_metrics_of_repeated_images(metric: Metric) -> None:
    """Before those of a curved metric are moved out to the variance of groups left out."""
    maps, masks = lesions(np.random.default_rng(3), images=10, size_px=24)
    histogram = pixel_histogram(maps, masks, bins=20000)
    drawn = resampling(np.arange(10), masks.any(axis=(1, 2)), normal=np.ones(10, dtype=bool), replicates=6, seed=0)
    times = np.random.default_rng(4).integers(1, 5, size=(10, 6))
    repeated = replace(drawn, weights=times.astype(np.float32), precision=replace(drawn.precision, stretch=1.0))
    table = replicates_of([histogram], [replace(metric, curved=False)], repeated, weigh=pixel_curve)[metric.name]
    for column in range(6):
        again = np.repeat(np.arange(10), times[:, column])
        exact = metric.score(maps[again], masks[again])
        assert table.resampled[column, 0] == pytest.approx(exact, abs=2e-4)


def test_an_interval_of_pixels_resamples_images() -> None:
    """Ten times the pixels of the same images tell nothing new; ten times the images do."""
    maps, masks = lesions(np.random.default_rng(4), images=24, size_px=32)
    enlarged = np.kron(maps, np.ones((1, 3, 3), dtype=np.float32)), np.kron(masks, np.ones((1, 3, 3))) > 0
    plain = interval(pixel_histogram(maps, masks))
    large = interval(pixel_histogram(*enlarged))
    many_maps, many_masks = lesions(np.random.default_rng(5), images=240, size_px=32)
    many = interval(pixel_histogram(many_maps, many_masks))
    assert (large.low, large.high) == pytest.approx((plain.low, plain.high), abs=2e-3)
    assert many.high - many.low < 0.5 * (plain.high - plain.low)


def test_an_interval_works_where_every_image_has_a_lesion() -> None:
    maps, masks = lesions(np.random.default_rng(6), images=24, size_px=32)
    histogram = pixel_histogram(maps[::2], masks[::2])
    value = pixel_metrics(pixel_ranks(maps[::2], masks[::2]))["pixel_auroc"]
    ends = interval(histogram, "pixel_auroc", value)
    assert 0 <= ends.low < value < ends.high <= 1
