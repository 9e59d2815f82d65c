"""Scores of two runs side by side: image by image, by their ids and not by their order in a file."""

import dataclasses

import numpy as np

from medfsad_bench.errors import ResultsError
from medfsad_bench.estimates.image import ScoreMatrix


def paired_with(first: ScoreMatrix, second: ScoreMatrix) -> ScoreMatrix:
    """The second run's scores in the order of the first's images.

    Args:
        first: One run.
        second: Another, of the same images and draws.

    Raises:
        ResultsError: If an id stands twice, or ids, labels, groups or the number of draws differ.
    """
    ids, others = (matrix.queries["id"].astype(str).to_numpy() for matrix in (first, second))
    position = {id_: index for index, id_ in enumerate(others)}
    if len(position) != len(others) or len(ids) != len(others) or set(ids) != set(position):
        raise ResultsError("the runs don't hold scores of the same images, each once")
    if len(first.scores) != len(second.scores):
        raise ResultsError(f"the runs hold {len(first.scores)} and {len(second.scores)} draws")
    order = np.array([position[id_] for id_ in ids], np.int64)
    paired = dataclasses.replace(
        second,
        scores=second.scores[:, order],
        anomalous=second.anomalous[order],
        groups=second.groups[order],
        queries=second.queries.iloc[order],
    )
    if (paired.anomalous != first.anomalous).any() or (paired.groups != first.groups).any():
        raise ResultsError("the runs give the same images other labels or groups")
    return paired
