"""How often a nominal 95 % interval holds the true value, by simulation: the table in medfsad_bench/metrics/RESULTS.md.

A detector's scores are normal with an effect of the group that images share, of the image, of the draw on the distance
of the classes, and fresh noise of every image and draw. The truth is the metric of a very large set, mean over draws.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from medfsad_bench.metrics.curve import score_curve
from medfsad_bench.metrics.interval import interval_of, replicate_all
from medfsad_bench.metrics.metric import IMAGE_METRICS


@dataclass(frozen=True)
class Detector:
    """Spreads of the effects, in units of the image's own.

    Attributes:
        shift: Distance of the classes.
        draws: Support draws.
        per_group: Images that share a group's effect.
        large: Share of the groups that hold 20 to 45 images instead.
        group_sd: Of the effect that a group's images share.
        draw_sd: Of the draw's effect on the distance.
        cell_sd: Of the noise of every image and draw.
    """

    shift: float = 1.2
    draws: int = 5
    per_group: int = 1
    large: float = 0.0
    group_sd: float = 0.0
    draw_sd: float = 0.2
    cell_sd: float = 0.6

    def scores(self, rng: np.random.Generator, groups: int) -> Any:
        """Scores (draws × images), labels and groups; half of the groups are anomalous."""
        group = np.repeat(np.arange(groups), self.sizes(rng, groups))
        anomalous = group < groups // 2
        own = rng.normal(size=len(group)) + self.group_sd * rng.normal(size=groups)[group]
        scores = own + self.cell_sd * rng.normal(size=(self.draws, len(group)))
        scores[:, anomalous] += self.shift + self.draw_sd * rng.normal(size=(self.draws, 1))
        return scores, anomalous, group

    def sizes(self, rng: np.random.Generator, groups: int) -> Any:
        """Images of every group; of each class the same share of the groups is large, one at least."""
        sizes = np.full(groups, self.per_group)
        for first, last in ((0, groups // 2), (groups // 2, groups)) if self.large else ():
            count = max(1, round(self.large * (last - first)))
            sizes[first : first + count] = rng.integers(20, 46, count)
        return sizes


@cache
def truth_of(detector: Detector) -> dict[str, float]:
    """Every metric of a set without end: by the draw's effect at 41 quantiles."""
    from scipy.special import ndtri

    rng = np.random.default_rng(99)
    spread = np.sqrt(1 + detector.group_sd**2 + detector.cell_sd**2)
    normal, effects = spread * rng.normal(size=100_000), detector.draw_sd * ndtri((np.arange(41) + 0.5) / 41)
    anomalous = spread * rng.normal(size=100_000) + detector.shift
    labels, ones = np.arange(200_000) < 100_000, np.ones(200_000)
    curves = [score_curve(np.concatenate([anomalous + effect, normal]), ones, anomalous=labels) for effect in effects]
    return {name: float(np.mean([metric.statistic(c) for c in curves])) for name, metric in IMAGE_METRICS.items()}


CASES = {
    "five draws": Detector(),
    "one draw": Detector(draws=1, draw_sd=0.0),  # one draw tells nothing of the spread over draws
    "groups of three": Detector(draws=10, per_group=3, group_sd=1.0),
    "the same, two draws": Detector(draws=2, draw_sd=0.0, per_group=3, group_sd=1.0),  # one difference tells little
    "nearly perfect": Detector(shift=3.5),
    "unequal groups": Detector(draws=3, per_group=2, large=0.1, group_sd=1.0),
    "unequal groups, one draw": Detector(draws=1, draw_sd=0.0, per_group=2, large=0.1, group_sd=1.0),
    "unequal groups, independent images": Detector(draws=3, per_group=2, large=0.1),
    "unequal groups, nearly perfect": Detector(shift=4.5, draws=3, per_group=2, large=0.1, group_sd=1.0),
}


def coverage(
    detector: Detector,
    groups: int,
    *,
    simulations: int,
    replicates: int,
    metrics: Sequence[str] = tuple(IMAGE_METRICS),
    seed: int = 0,
) -> dict[str, float]:
    """Share of simulations whose interval holds the truth, by metric."""
    truth = truth_of(detector)
    inside = dict.fromkeys(metrics, 0)
    for number in range(simulations):
        scores, anomalous, group = detector.scores(np.random.default_rng([seed, groups, number]), groups)
        chosen = [IMAGE_METRICS[name] for name in metrics]
        tables = replicate_all(scores, anomalous, group, metrics=chosen, replicates=replicates, seed=number)
        for name, table in tables.items():
            interval = interval_of(table, smooth=IMAGE_METRICS[name].smooth)
            inside[name] += interval.low <= truth[name] <= interval.high
    return {name: count / simulations for name, count in inside.items()}


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--simulations", type=int, default=400)
    parser.add_argument("--replicates", type=int, default=128)
    parser.add_argument("--groups", type=int, nargs="+", default=[16, 30, 50, 100, 200, 400])
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--metrics", nargs="+", default=list(IMAGE_METRICS), choices=list(IMAGE_METRICS))
    options = parser.parse_args()
    print(f"| case | groups | {' | '.join(options.metrics)} |")
    print(f"|---|--:|{'--:|' * len(options.metrics)}")
    for case in options.cases:
        for groups in options.groups:
            shares = coverage(
                CASES[case],
                groups,
                simulations=options.simulations,
                replicates=options.replicates,
                metrics=options.metrics,
            )
            print(f"| {case} | {groups} | {' | '.join(f'{value:.1%}' for value in shares.values())} |", flush=True)


if __name__ == "__main__":
    main()
