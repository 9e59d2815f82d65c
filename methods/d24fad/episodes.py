"""Training episodes: a batch of queries, and the support images that each of them is compared with.

What an epoch consists of depends on the seed and the epoch's number alone, so that a resumed training does the same.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from d24fad.config import Config
from medfsad_bench.errors import MethodError
from medfsad_bench.learning import Numbered, Numbers


@dataclass(frozen=True, slots=True)
class Episode:
    """One training step.

    Attributes:
        queries: Numbers of b images.
        supports: Numbers of their supports, (b, K), or (K,) if the queries share one set.
    """

    queries: Int64[np.ndarray, " b"]
    supports: Int64[np.ndarray, "*b k"]


def epoch_episodes(images: Numbered, config: Config, *, seed: int, epoch: int) -> Iterator[Episode]:
    """Every image once as a query, in random order.

    Raises:
        MethodError: If a source has too few images of other groups to draw supports from.
    """
    rng = np.random.default_rng([seed, 1, epoch])
    drawn = epoch if config.supports == "redrawn" else 0
    if config.shared_support:
        yield from _shared(images, config, rng)
        return
    order = rng.permutation(len(images))
    supports = own_supports(images, config.training_shots, [seed, 2, drawn], own_group=config.own_group)
    for start in range(0, len(order), config.batch_size):
        queries = order[start : start + config.batch_size]
        yield Episode(queries, supports[queries])


def episodes_per_epoch(images: Numbered, config: Config) -> int:
    """How many episodes an epoch has, as far as it is known beforehand (with a shared support it may be some more)."""
    sizes = np.bincount(images.source) if config.shared_support else np.array([len(images)])
    return int(np.ceil(sizes / config.batch_size).sum())


def own_supports(images: Numbered, shots: int, seed: Sequence[int], *, own_group: bool) -> Int64[np.ndarray, "n k"]:
    """K supports for each image: of its own source, and of other groups unless `own_group`.

    Raises:
        MethodError: If a source has too few images of other groups.
    """
    rng = np.random.default_rng(list(seed))
    drawn = np.empty((len(images), shots), np.int64)
    everything = np.arange(len(images))
    for number in everything:
        same = everything[images.source == images.source[number]]
        candidates = same[same != number] if own_group else same[images.group[same] != images.group[number]]
        drawn[number] = _drawn(rng, candidates, shots)
    return drawn


def _shared(images: Numbered, config: Config, rng: np.random.Generator) -> Iterator[Episode]:
    """Batches of one source each, in random order; the queries of a batch share K supports of other groups."""
    shots = config.training_shots
    episodes = []
    for source in np.unique(images.source):
        members = np.flatnonzero(images.source == source)
        queue = rng.permutation(members)
        while len(queue):
            count = min(config.batch_size, len(queue))
            candidates = _others(images, members, queue[:count], own_group=config.own_group)
            while len(candidates) < shots and count > 1:  # the batch's groups leave too few: some queries wait
                count -= 1
                candidates = _others(images, members, queue[:count], own_group=config.own_group)
            episodes.append(Episode(queue[:count], _drawn(rng, candidates, shots)))
            queue = queue[count:]
    for index in rng.permutation(len(episodes)):
        yield episodes[index]


def _others(images: Numbered, members: Numbers, queries: Numbers, *, own_group: bool) -> Numbers:
    if own_group:
        return np.setdiff1d(members, queries)
    return members[~np.isin(images.group[members], images.group[queries])]


def _drawn(rng: np.random.Generator, candidates: Numbers, shots: int) -> Int64[np.ndarray, " k"]:
    if len(candidates) < shots:
        raise MethodError(
            f"A source has only {len(candidates)} images of other groups for a query, and {shots} supports are needed. "
            "Lower --set train_shots=…, or leave the small set out of --data."
        )
    return rng.choice(candidates, shots, replace=False)
