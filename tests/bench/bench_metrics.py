"""How fast the metrics are, side by side with what else computes them; `make bench` runs it.

    exact      200 maps of 256² with about 200 regions: all pixel metrics against scikit-learn and anomalib
    bootstrap  2,000 replicates of 1,600 images × 10 draws, all image metrics
    streamed   pixels a second of the bounded-memory mode, on one core, with the error bounds it computes

anomalib (2.3 or newer) is compared if it can be imported; it is no dependency. The machine's other load moves seconds,
and ratios less, as everything is measured in turn and the best of several rounds counts.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from medfsad_bench.metrics.curve import Ranking, auroc
from medfsad_bench.metrics.interval import interval_of, replicate_all
from medfsad_bench.metrics.metric import IMAGE_AUROC, IMAGE_METRICS, Metric
from medfsad_bench.metrics.pixel import pixel_metrics
from medfsad_bench.metrics.ranks import checked_maps, pixel_ranks
from medfsad_bench.metrics.resample import resampling
from medfsad_bench.metrics.streaming import TOLERANCE, bounded_metrics, streamed_histogram


def scene(images: int, size_px: int, *, seed: int = 0) -> Any:
    """Smooth float32 maps of unlike values, with one or two lesions in two of three images."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(seed)
    maps, masks = np.empty((images, size_px, size_px), np.float32), np.zeros((images, size_px, size_px), dtype=bool)
    rows, columns = np.ogrid[:size_px, :size_px]
    for index in range(images):
        noise = gaussian_filter(rng.normal(size=(size_px, size_px)), 4)
        for _ in range(0 if index % 3 == 0 else rng.integers(1, 3)):
            row, column = rng.integers(20, size_px - 20, 2)
            radius = rng.integers(3, 18)
            masks[index] |= (rows - row) ** 2 + (columns - column) ** 2 < radius**2
        maps[index] = noise + 0.15 * gaussian_filter(masks[index].astype(float), 4)
    return maps, masks


class Took(NamedTuple):
    """Best of several rounds, and what came out."""

    clock_s: float
    core_s: float  # of all cores together, so that other load on the machine hardly moves it
    value: Any


def timed(call: Callable[[], Any], *, rounds: int) -> Took:
    """Run `call` several times."""
    best = Took(np.inf, np.inf, None)
    for _ in range(rounds):
        clock, core = time.perf_counter(), time.process_time()
        value = call()
        best = Took(min(best.clock_s, time.perf_counter() - clock), min(best.core_s, time.process_time() - core), value)
    return best


def anomalib_aupro(maps: Any, masks: Any, limit: float) -> Callable[[], float] | None:
    """AUPRO of anomalib, or None where it isn't installed."""
    try:
        import torch
        from anomalib.metrics.aupro import _AUPRO
    except ImportError:
        return None

    def call() -> float:
        metric = _AUPRO(fpr_limit=limit)
        metric.update(torch.from_numpy(maps), torch.from_numpy(masks))
        return float(metric.compute())

    return call


def exact(rounds: int) -> None:
    """All our pixel metrics once, against one metric after the other."""
    from scipy.ndimage import label
    from sklearn.metrics import average_precision_score, roc_auc_score

    maps, masks = scene(200, 256)
    regions = sum(label(mask, structure=np.ones((3, 3)))[1] for mask in masks)
    print(f"exact: {maps.size:,} pixels, {regions} regions, {masks.mean():.1%} anomalous")
    ours = timed(lambda: pixel_metrics(pixel_ranks(*checked_maps(maps, masks))), rounds=rounds)
    flat, truth = maps.ravel(), masks.ravel()
    rows = [
        ("pixel_auroc", "scikit-learn", timed(lambda: roc_auc_score(truth, flat), rounds=1)),
        ("pixel_average_precision", "scikit-learn", timed(lambda: average_precision_score(truth, flat), rounds=1)),
    ]
    for name, limit in (("aupro_fpr30_conn8", 0.3), ("aupro_fpr05_conn8", 0.05)):
        call = anomalib_aupro(maps, masks, limit)
        if call is not None:
            rows.append((name, "anomalib", timed(call, rounds=1)))
    print(f"  {'':38}{'clock':>9}{'cores':>9}   value")
    for name, whose, took in rows:
        values = f"{took.value:.6f}, ours {ours.value[name]:.6f}"
        print(f"  {whose:13}{name:25}{took.clock_s:7.2f} s{took.core_s:7.2f} s   {values}")
    print(f"  {'ours':13}{'all five metrics':25}{ours.clock_s:7.2f} s{ours.core_s:7.2f} s")
    counted = [row for row in rows if row[0] != "aupro_fpr05_conn8"]
    if len(counted) < 3:
        print("  anomalib isn't installed, so its AUPRO is not in the ratio")
    clock, core = (sum(getattr(took, kind) for _, _, took in counted) for kind in ("clock_s", "core_s"))
    names = " + ".join(f"{whose} {name}" for name, whose, _ in counted)
    print(f"  {names}: {clock:.2f} s = {clock / ours.clock_s:.0f} × ours by the clock,")
    print(f"  {core / ours.core_s:.0f} × in the cores' time (goal: 20)")


def bootstrap(rounds: int) -> None:
    """Intervals of all image metrics of one run."""
    rng = np.random.default_rng(1)
    anomalous = np.arange(1600) < 800
    scores = rng.normal(size=(10, 1600)) + anomalous
    groups = np.arange(1600) // 2
    for metrics in ((IMAGE_AUROC,), tuple(IMAGE_METRICS.values())):

        def call(metrics: tuple[Metric, ...] = metrics) -> Any:
            tables = replicate_all(scores, anomalous, groups, metrics=metrics, replicates=2000)
            return [interval_of(table, smooth=True) for table in tables.values()]

        took = timed(call, rounds=rounds)
        what = metrics[0].name if len(metrics) == 1 else f"all {len(metrics)} image metrics"
        print(f"bootstrap: 2,000 × 1,600 images × 10 draws, {what}: {took.clock_s:.2f} s,")
        print(f"  {took.core_s:.2f} s in the cores' time (goal: 5)")
    weights = resampling(groups, anomalous, replicates=2000, seed=0).weights
    plain = timed(lambda: [plain_auroc(draw, anomalous, weights) for draw in scores], rounds=rounds)
    ours = timed(lambda: [auroc(Ranking.of(draw, anomalous).curve(weights)) for draw in scores], rounds=rounds)
    assert np.allclose(plain.value, ours.value, atol=1e-12, rtol=0)
    print(f"  AUROC with cumulative sums over all images, as NumPy adds them up: {plain.core_s:.2f} s")
    print(f"  = {plain.core_s / ours.core_s:.1f} × ours (goal: 3)")


def plain_auroc(scores: Any, anomalous: Any, weights: Any) -> Any:
    """The area by trapezoids, one column after the other of both classes together."""
    order = np.argsort(-scores)
    hits, false_alarms = (
        np.cumsum(weights[order] * kind[order, None], axis=0, dtype=float) for kind in (anomalous, ~anomalous)
    )
    return np.trapezoid(hits, false_alarms, axis=0) / (hits[-1] * false_alarms[-1])


def streamed(rounds: int, megapixels: int) -> None:
    """Maps and masks from disk to metrics, one core; the masks' regions are found on the way."""
    import os
    import tempfile

    count = max(megapixels * 10**6 // 512**2, 8)
    maps, masks = scene(64, 512, seed=2)
    with tempfile.TemporaryDirectory() as folder:
        shape = (count, 512, 512)
        paths = [os.path.join(folder, name) for name in ("maps.npy", "masks.npy")]  # noqa: PTH118
        files = [
            np.lib.format.open_memmap(path, "w+", dtype, shape) for path, dtype in zip(paths, ("f4", "?"), strict=True)
        ]
        for index in range(count):
            files[0][index] = maps[index % 64] + np.float32(1e-6) * (index // 64)
            files[1][index] = masks[index % 64]
        del files

        class Images:
            def __iter__(self) -> Any:
                for map_, mask in zip(*(np.load(path, mmap_mode="r") for path in paths), strict=True):
                    yield np.asarray(map_), np.asarray(mask)

        took = timed(lambda: bounded_metrics(streamed_histogram(Images())), rounds=rounds)
    pixels = count * 512**2
    rate, of_core = (pixels / 1e6 / seconds for seconds in (took.clock_s, took.core_s))
    print(
        f"streamed: {pixels / 1e6:,.0f} million pixels from disk in {took.clock_s:.1f} s = {rate:.1f} M/s by the clock,"
    )
    print(f"  {of_core:.1f} M a second of one core's time (goal: 10)")
    for name, metric in took.value.items():
        verdict = "within" if metric.error <= TOLERANCE[name] else "OVER"
        print(f"  {name:25}{metric.value:.6f} ± {metric.error:.1e}, {verdict} {TOLERANCE[name]:.0e}")


def main() -> None:
    """Run all three."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--megapixels", type=int, default=200, help="size of the streamed set")
    options = parser.parse_args()
    exact(options.rounds)
    bootstrap(options.rounds)
    streamed(max(options.rounds - 1, 1), options.megapixels)


if __name__ == "__main__":
    main()
