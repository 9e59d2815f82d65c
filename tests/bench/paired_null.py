"""How often methods that don't differ are told apart, by simulation: a table in medfsad_bench/metrics/RESULTS.md.

Several methods see the same images; an image's score is the sum of what all methods see in its group and in itself,
what the one method sees in both, and fresh noise of every draw. None is better than another. Counted is how often the
first two differ at 5 % by DeLong and by the bootstrap, and how often any two of all of them have no letter in common.
"""

import argparse
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from medfsad_bench.metrics.delong import delong, placements
from medfsad_bench.metrics.interval import replicate
from medfsad_bench.metrics.paired import Difference, difference_of, holm, letters, mean_over_targets, paired_difference

ALPHA = 0.05


@dataclass(frozen=True)
class Methods:
    """Methods without a difference.

    Attributes:
        large: Share of the groups that hold 20 to 45 images; the others hold two.
        group_sd: Of what images of a group share, in units of the image's own.
        targets: Sets that each is measured on.
        count: Number of methods.
        draws: Support draws.
    """

    large: float = 0.1
    group_sd: float = 1.0
    targets: int = 1
    count: int = 3
    draws: int = 2

    def scores(self, rng: np.random.Generator, groups: int) -> Any:
        """Scores (methods × draws × images), labels and groups; half of the groups are anomalous."""
        sizes = np.full(groups, 2)
        for first, last in ((0, groups // 2), (groups // 2, groups)) if self.large else ():
            count = max(1, round(self.large * (last - first)))
            sizes[first : first + count] = rng.integers(20, 46, count)
        group = np.repeat(np.arange(groups), sizes)
        anomalous, images = group < groups // 2, len(group)
        shared = rng.normal(size=images) + self.group_sd * rng.normal(size=groups)[group]
        own = rng.normal(size=(self.count, images)) + self.group_sd * rng.normal(size=(self.count, groups))[:, group]
        scores = (shared + 0.7 * own)[:, None] + 0.5 * rng.normal(size=(self.count, self.draws, images))
        scores[:, :, anomalous] += 1 + 0.1 * rng.normal(size=(self.count, self.draws, 1))
        return scores, anomalous, group


def rejected(methods: Methods, groups: int, *, seed: int, replicates: int = 0) -> tuple[bool, bool, bool]:
    """Whether DeLong, the bootstrap (if there are replicates) and the letters tell apart what doesn't differ."""
    pairs = list(itertools.combinations(range(methods.count), 2))
    by_pair: dict[Any, list[Any]] = {pair: [] for pair in pairs}
    bootstrapped = []
    for target in range(methods.targets):
        scores, anomalous, group = methods.scores(np.random.default_rng([seed, groups, target]), groups)
        placed = [placements(of_method, anomalous) for of_method in scores]
        for first, second in pairs:
            by_pair[first, second].append(difference_of(delong(placed[first] - placed[second], anomalous, group)))
        if replicates:
            keys = group + 1000 * target  # other targets have other groups
            tables = [replicate(part, anomalous, keys, replicates=replicates, seed=seed) for part in scores[:2]]
            bootstrapped.append(paired_difference(*tables))
    p_values = [_p_value(differences) for differences in by_pair.values()]
    names = [str(number) for number in range(methods.count)]
    apart = {(names[a], names[b]): p < ALPHA for (a, b), p in zip(pairs, holm(p_values), strict=True)}
    shown = letters(names, apart)
    any_apart = any(not set(shown[a]) & set(shown[b]) for a, b in itertools.combinations(names, 2))
    by_bootstrap = bool(bootstrapped) and _p_value(bootstrapped) < ALPHA
    return p_values[0] < ALPHA, by_bootstrap, any_apart


def _p_value(differences: Sequence[Difference]) -> float:
    p = mean_over_targets(differences).these_targets.p
    assert p is not None
    return p


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--simulations", type=int, default=1000)
    parser.add_argument("--replicates", type=int, default=0, help="of the bootstrap; 0 leaves it out")
    parser.add_argument("--groups", type=int, nargs="+", default=[15, 30, 60])
    parser.add_argument("--targets", type=int, nargs="+", default=[1, 3])
    parser.add_argument("--large", type=float, nargs="+", default=[0.0, 0.1])
    options = parser.parse_args()
    print(
        "| groups | of them large | targets | DeLong | bootstrap | letters, three methods |\n|--:|--:|--:|--:|--:|--:|"
    )
    for groups, large, targets in itertools.product(options.groups, options.large, options.targets):
        counted = [
            rejected(Methods(large=large, targets=targets), groups, seed=seed, replicates=options.replicates)
            for seed in range(options.simulations)
        ]
        by_delong, by_bootstrap, by_letters = np.mean(counted, axis=0)
        shares = f"{by_delong:.1%} | {f'{by_bootstrap:.1%}' if options.replicates else '–'} | {by_letters:.1%}"
        print(f"| {groups} | {large:.0%} | {targets} | {shares} |", flush=True)


if __name__ == "__main__":
    main()
