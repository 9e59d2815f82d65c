"""A threshold from the supports alone, with the level that their number permits and what that promises, in words."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64

from medfsad_bench.errors import MethodError
from medfsad_bench.estimates.thresholds import LEVEL, conformal_threshold


@dataclass(frozen=True, slots=True)
class SupportThreshold:
    """A threshold that was set from leave-one-out scores of the supports, alone or with other sets' normals.

    Attributes:
        value: Above it an image is flagged; None where no threshold can be set, so that nothing is flagged.
        level: Share of new normals that it flags at most, if they are exchangeable with the supports.
        asked: The level that was asked for.
        unit: What was left out: image, or a patient or volume of several images.
        calibration: Highest leave-one-out score of each, sorted.
        sources: Other sets that helped; the level is then aimed at, not promised.
        source_images: How many normal images of theirs.
    """

    value: float | None
    level: float
    asked: float
    unit: str
    calibration: Float64[np.ndarray, " m"]
    sources: tuple[str, ...] = ()
    source_images: int = 0

    @property
    def promise(self) -> str:
        """What the level means, in words."""
        count, unit = len(self.calibration), self.unit
        units = "images" if unit == "image" else "patients or volumes"
        if self.value is None:
            return (
                f"No threshold: with {count or 'one'} normal {unit} none can be left out and scored by the others, so "
                "nothing is flagged. Two or more are needed; the ranking of the scores holds all the same."
            )
        if self.sources:
            return (
                f"Aimed at {_per_cent(self.level)} of new normals flagged, and not promised: {self.source_images} "
                f"normal images of other sets ({', '.join(self.sources)}) say how far normals lie from their supports, "
                "in standard deviations of the supports' left-out scores. If these images behave otherwise, more or "
                "fewer are flagged. It says nothing of how many anomalies are found."
            )
        held = (
            f"At most {_per_cent(self.level)} of new normal {units} are flagged on average, if they are like the "
            f"{count} supports: same scanner, same protocol, same people. It promises nothing of how many anomalies "
            "are found."
        )
        if self.level > self.asked:
            needed = int(np.ceil(1 / self.asked)) - 1
            held += (
                f" With {count} normal {units} no level below {_per_cent(self.level)} can be promised; "
                f"{_per_cent(self.asked)} takes {needed}."
            )
        return held

    def flags(self, scores: Float[np.ndarray, " n"]) -> np.ndarray:
        """Which scores are flagged, bool (n,)."""
        return np.zeros(len(scores), bool) if self.value is None else np.asarray(scores) > self.value

    def percentiles(self, scores: Float[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
        """Per cent of the left-out supports that score lower or as high; NaN where none was left out."""
        if not len(self.calibration):
            return np.full(len(scores), np.nan)
        return 100 * np.searchsorted(self.calibration, scores, side="right") / len(self.calibration)


def support_threshold(
    left_out: Float64[np.ndarray, " k"], groups: Sequence[str], *, level: float = LEVEL
) -> SupportThreshold:
    """The threshold of some leave-one-out scores.

    Images of one patient or volume aren't independent, so they count once, by the highest of them: the level then
    holds for new patients or volumes, any of whose images might be flagged.

    Args:
        left_out: Score of each support by a detector of the others; NaN where it wasn't left out.
        groups: What supports share that aren't independent.
        level: That is asked for; one below 1 / (K + 1) is raised to it.

    Raises:
        MethodError: If the level isn't between 0 and 1.

    >>> threshold = support_threshold(np.array([0.1, 0.4, 0.2, 0.3]), list("abcd"))
    >>> threshold.value, threshold.level
    (0.4, 0.2)
    """
    if not 0 < level < 1:
        raise MethodError(f"--level {level:g} is no share of normals. Expected a number above 0 and below 1, as 0.05.")
    names = np.asarray(groups, object)
    kept = np.isfinite(left_out)
    highest = np.sort([left_out[kept & (names == name)].max() for name in dict.fromkeys(names[kept])])
    unit = "image" if len(set(groups)) == len(groups) else "patient or volume"
    if len(highest) < 2:
        return SupportThreshold(None, level, level, unit, np.zeros(0))
    possible = max(level, 1 / (len(highest) + 1))
    return SupportThreshold(conformal_threshold(highest, level=possible), possible, level, unit, highest)


def _per_cent(share: float) -> str:
    return f"{100 * share:.3g} %"
