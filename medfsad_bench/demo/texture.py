"""Random fields and soft edges: the material of every phantom.

A phantom draws its disease from a generator of its own (`disease_of`). So the same seed with and without disease shows
the same body, and the two pictures differ where the disease is.
"""

import numpy as np
from jaxtyping import Float
from numpy.random import Generator


def plane(height_px: int, width_px: int) -> tuple[Float[np.ndarray, "h w"], Float[np.ndarray, "h w"]]:
    """Coordinates x (to the right) and y (down), both from -1 to 1 over the whole image.

    >>> x, y = plane(3, 3)
    >>> x[0].tolist(), y[:, 0].tolist()
    ([-1.0, 0.0, 1.0], [-1.0, 0.0, 1.0])
    """
    y, x = np.meshgrid(np.linspace(-1, 1, height_px), np.linspace(-1, 1, width_px), indexing="ij")
    return x, y


def clouds(rng: Generator, shape: tuple[int, ...], size_px: float) -> Float[np.ndarray, "..."]:
    """Smooth noise of zero mean and unit deviation whose lumps are about `size_px` wide, in two or three dimensions.

    A coarse grid of random numbers, interpolated by cubic B-splines along one axis after the other.
    """
    field = rng.normal(size=tuple(int(np.ceil(n / size_px)) + 4 for n in shape))
    for axis, length in enumerate(shape):
        weights = _spline(np.arange(length) / size_px + rng.uniform(1, 2), field.shape[axis])
        field = np.moveaxis(np.tensordot(weights, field, (1, axis)), 0, axis)
    return np.asarray((field - field.mean()) / (field.std() + 1e-9))


def edge(inside: Float[np.ndarray, "..."], width: float) -> Float[np.ndarray, "..."]:
    """Weight from 0 to 1 that rises where `inside` passes zero, over about `width`.

    >>> edge(np.array([-9.0, 0.0, 9.0]), 1.0).round(2).tolist()
    [0.0, 0.5, 1.0]
    """
    ramp = np.clip(0.5 + inside / (3 * width), 0, 1)
    return np.asarray(ramp * ramp * (3 - 2 * ramp))


def disease_of(rng: Generator) -> Generator:
    """The generator of the disease in a body; the numbers of `rng`, who draws the body, stay the same."""
    return rng.spawn(1)[0]


def between(rng: Generator, low: float, high: float) -> float:
    """One draw, uniform from `low` to `high`."""
    return float(rng.uniform(low, high))


def _spline(positions: Float[np.ndarray, " n"], knots: int) -> Float[np.ndarray, "n k"]:
    """Weight of every knot 0, 1, 2, … at every position: the cubic B-spline."""
    away = np.abs(positions[:, None] - np.arange(knots))
    near, far = 2 / 3 - away**2 + away**3 / 2, np.clip(2 - away, 0, None) ** 3 / 6
    return np.where(away < 1, near, far)
