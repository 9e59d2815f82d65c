"""One figure of a row: its value, its interval, and how it spread over the draws."""

import numpy as np
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict

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


def mean_estimate(
    values: Float[np.ndarray, " draws"], interval: tuple[float, float] | None = None, *, error: float | None = None
) -> Estimate:
    """A figure from one value per draw."""
    low, high = interval or (None, None)
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Estimate(value=float(np.mean(values)), low=low, high=high, draws_sd=spread, error=error)
