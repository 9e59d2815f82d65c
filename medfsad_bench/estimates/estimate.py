"""One estimate of a row: a metric's value, its interval, and how it spread over the draws."""

import numpy as np
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict

from medfsad_bench.metrics.interval import Replicates, interval_of
from medfsad_bench.metrics.metric import Metric

REPLICATES = 2000


class Estimate(BaseModel):
    """A metric, mean over draws, with its 95 % bootstrap interval and the spread over draws.

    Attributes:
        value: Mean over draws.
        low: Lower end of the interval; None where too few groups allow none.
        high: Upper end.
        draws_sd: Standard deviation over draws; None for one draw.
        error: Largest possible distance from the exact value, where pixels were streamed; None where it is exact.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    value: float
    low: float | None = None
    high: float | None = None
    draws_sd: float | None = None
    error: float | None = None

    @property
    def text(self) -> str:
        """With its interval where it has one, as `0.701 [0.650, 0.752]`."""
        ends = "" if self.low is None else f" [{self.low:.3f}, {self.high:.3f}]"
        return f"{self.value:.3f}{ends}"


def metric_estimate(metric: Metric, table: Replicates, *, error: float | None = None) -> Estimate:
    """The estimate of a metric from its replicates, if any; the interval lies within the metric's bounds."""
    if not len(table.resampled):
        return mean_estimate(table.measured, error=error)
    interval = interval_of(table, smooth=metric.smooth)
    ends = max(interval.low, metric.low), min(interval.high, metric.high)
    return mean_estimate(table.measured, ends, error=error)


def mean_estimate(
    values: Float[np.ndarray, " draws"], interval: tuple[float, float] | None = None, *, error: float | None = None
) -> Estimate:
    """An estimate from one value per draw."""
    low, high = interval or (None, None)
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Estimate(value=float(np.mean(values)), low=low, high=high, draws_sd=spread, error=error)
