"""A threshold with the help of other prepared sets: how far their normal images lie from *their* supports."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import pandas as pd

from medfsad_bench.errors import MethodError
from medfsad_bench.estimates.thresholds import conformal_threshold, pivots_of
from medfsad_bench.own_images.threshold import SupportThreshold
from medfsad_bench.own_images.trained import TrainedMethod
from medfsad_bench.runner.rerun_checks import reference_tables
from medfsad_bench.runner.sources import reference_rows
from medfsad_bench.store import Dataset

_FEWEST = 3  # supports: of two, each is as far from the other as the other from it, and their spread is rounding
_ROUNDING = 1e-6


def check_sources(sources: Sequence[Dataset], size_px: int) -> None:
    """Refuse sets whose images are of another size than those that are scored: their scores tell nothing of these.

    Raises:
        MethodError: Naming the first of them.
    """
    others = [(source.name, source.attributes["size_px"]) for source in sources]
    if off := [f"{name} ({size} px)" for name, size in others if size != size_px]:
        raise MethodError(
            f"--sources holds {', '.join(off[:3])}, and images are scored at {size_px} px. Expected one size: name it "
            "with --size, or prepare the sets at this one."
        )


def threshold_with_sources(
    own: SupportThreshold, sources: Sequence[Dataset], trained: TrainedMethod, *, shots: int
) -> SupportThreshold:
    """The threshold that other sets' normals suggest, by the rule of `estimates.thresholds`.

    Args:
        own: From the supports alone.
        sources: Other sets, none of which holds a support.
        trained: The method.
        shots: How many supports there are.

    Raises:
        MethodError: If the supports can't be left out one by one, or the sets have too few normals for the level.
    """
    count = len(own.calibration)
    if own.unit != "image" or count < _FEWEST or np.ptp(own.calibration) <= _ROUNDING * np.abs(own.calibration).max():
        raise MethodError(
            f"--sources takes {_FEWEST} or more supports, each of another patient or volume, whose left-out scores "
            f"differ; there are {shots} of {max(count, 1)}. Give one image of each, or leave --sources out."
        )
    tables = [table for source in sources for table in reference_tables(trained.method, source, shots, trained.context)]
    pivots = pivots_of(pd.concat(tables, ignore_index=True)) if tables else np.zeros(0)
    reach = conformal_threshold(pivots, level=own.asked)
    if not np.isfinite(reach):
        raise MethodError(
            f"--sources gives {len(pivots)} normal images beside {shots} supports of theirs, from "
            f"{', '.join(source.name for source in sources)}; a level of {own.asked:g} takes "
            f"{int(np.ceil(1 / own.asked)) - 1}. {_remedy(sources, own.asked, len(pivots), shots)}"
        )
    return dataclasses.replace(
        own,
        value=float(own.calibration.mean() + reach * own.calibration.std(ddof=1)),
        level=own.asked,
        sources=tuple(source.name for source in sources),
        source_images=len(pivots),
    )


def _remedy(sources: Sequence[Dataset], level: float, normals: int, shots: int) -> str:
    """What would give a threshold: a draw holds supports and then normals, so fewer supports may leave more normals.

    Args:
        sources: The sets.
        level: That was asked for.
        normals: How many the sets give at this number of supports.
        shots: The number.
    """

    def suffices(supports: int) -> bool:
        count = sum(len(reference_rows(source, supports)[1]) for source in sources)
        return bool(np.isfinite(conformal_threshold(np.zeros(count), level=level)))

    fewer = next((supports for supports in range(shots - 1, _FEWEST - 1, -1) if suffices(supports)), None)
    ways = ["prepare more or larger sets"]
    ways += [f"give {_FEWEST} to {fewer} supports" if fewer > _FEWEST else f"give {_FEWEST} supports"] if fewer else []
    ways += [f"raise --level to {np.ceil(1000 / (normals + 1)) / 1000:g}"] if normals else []
    return f"{', '.join(ways).capitalize()}, or leave --sources out."
