"""H&E patches of a lymph node: small round lymphocytes in fibres, and nests of large irregular tumour cells.

Colours come from optical density: each dye takes its own share of red, green and blue, and the densities add up
(Ruifrok and Johnston 2001, "Quantification of histochemical staining by color deconvolution").
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from numpy.random import Generator
from scipy.ndimage import gaussian_filter

from medfsad_bench.demo.texture import between, clouds, disease_of, edge, plane

_HAEMATOXYLIN = np.array([0.650, 0.704, 0.286])  # density per red, green, blue, of Ruifrok and Johnston
_EOSIN = np.array([0.072, 0.990, 0.105])

_Field = Float[np.ndarray, "h w"]


@dataclass(frozen=True, slots=True)
class Stain:
    """How a slide was stained and scanned; the same for all of its patches."""

    haematoxylin: float
    eosin: float
    light: tuple[float, float, float]
    focus_px: float


def draw_stain(rng: Generator) -> Stain:
    """A laboratory's colours and a scanner's focus."""
    light = (between(rng, 0.93, 1.0), between(rng, 0.91, 0.98), between(rng, 0.94, 1.0))
    return Stain(between(rng, 0.85, 1.25), between(rng, 0.75, 1.30), light, between(rng, 0.4, 1.1))


def histology_phantom(
    rng: Generator, size_px: int, *, anomalous: bool, stain: Stain
) -> tuple[Float[np.ndarray, "h w 3"], Bool[np.ndarray, "h w"]]:
    """A patch at about 0.25 µm per pixel, with or without metastasis.

    Args:
        rng: Draws tissue, cells and noise.
        size_px: Side of the patch.
        anomalous: Whether tumour nests cover a part of it.
        stain: The slide's.

    Returns:
        Image in [0, 1] and the tumour's pixels.
    """
    shape = (size_px, size_px)
    x, y = plane(*shape)
    disease = disease_of(rng)
    eosin = _stroma(rng, x, y)
    gaps = edge(clouds(rng, shape, 60) - between(rng, 1.0, 2.2), 0.08)  # sinuses and fat: nothing takes the dye
    tumour = _nests(disease, x, y) if anomalous else np.zeros(shape)
    tumour = tumour * (1 - gaps)
    haematoxylin = 0.10 + 0.05 * clouds(rng, shape, 20)
    crowd = edge(clouds(rng, shape, 45) + between(rng, -1.0, 1.2), 0.3) * (1 - gaps)
    cells = _cells(rng, crowd * (1 - tumour), pitch_px=between(rng, 10.5, 12.5), radius_px=(3.6, 5.2), ragged=0.05)
    apart = (1 - crowd) * (1 - tumour) * (1 - gaps)
    spindles = _cells(rng, apart, pitch_px=26, radius_px=(3.2, 4.6), ragged=0.08, slim=2.4)
    large = _cells(disease, tumour, pitch_px=between(rng, 18, 23), radius_px=(5.5, 9.5), ragged=0.16, hollow=0.55)
    large = 0.86 * large * (1 + 0.22 * clouds(disease, shape, 2.5))
    haematoxylin = haematoxylin + np.maximum.reduce([cells, spindles, large])
    eosin = eosin * (1 - 0.45 * tumour) + 0.10 * tumour
    return _scan(rng, haematoxylin * (1 - gaps), eosin * (1 - gaps), stain), tumour > 0.5


def _stroma(rng: Generator, x: _Field, y: _Field) -> _Field:
    """Wavy collagen: stripes along a slowly turning direction."""
    turn = between(rng, 0, np.pi)
    along = x * np.cos(turn) + y * np.sin(turn) + 0.16 * clouds(rng, x.shape, 55)
    fibres = np.sin(between(rng, 28, 46) * along + 2.2 * clouds(rng, x.shape, 24))
    return np.asarray(np.clip(0.34 + 0.10 * fibres + 0.06 * clouds(rng, x.shape, 8), 0.02, 1))


def _nests(rng: Generator, x: _Field, y: _Field) -> _Field:
    """Where the metastasis is: a front that crosses the patch, or an island in it."""
    turn = between(rng, 0, 2 * np.pi)
    front = x * np.cos(turn) + y * np.sin(turn) + between(rng, -0.1, 0.5)
    island = between(rng, 0.45, 0.8) - np.hypot(x - between(rng, -0.4, 0.4), y - between(rng, -0.4, 0.4))
    inside = front if rng.random() < 0.5 else island
    return edge(inside + 0.16 * clouds(rng, x.shape, 40), 0.05)


def _cells(
    rng: Generator,
    density: _Field,
    *,
    pitch_px: float,
    radius_px: tuple[float, float],
    ragged: float,
    slim: float = 1.0,
    hollow: float = 0.15,
) -> _Field:
    """Nuclei where `density` lets them be: one in each cell of a jittered grid, darker at the rim where `hollow`."""
    size = density.shape[0]
    ticks = np.arange(0, size + pitch_px, pitch_px)
    rows, columns = (grid.ravel() for grid in np.meshgrid(ticks, ticks, indexing="ij"))
    columns = columns + 0.5 * pitch_px * (np.arange(rows.size) // ticks.size % 2)
    at = np.stack([rows, columns], axis=1) + rng.normal(0, 0.22 * pitch_px, (rows.size, 2))
    near = np.clip(at, 0, size - 1).astype(int)
    luck = rng.random(rows.size)
    looks = rng.random((rows.size, 8))  # of every place, also of the empty ones: see `disease_of`
    painted = np.zeros(density.shape)
    for index in np.flatnonzero(luck < density[near[:, 0], near[:, 1]]):
        radius = radius_px[0] + (radius_px[1] - radius_px[0]) * looks[index, 0]
        _nucleus(painted, at[index], looks[index, 1:], radius=radius, ragged=ragged, slim=slim, hollow=hollow)
    return painted


def _nucleus(
    painted: _Field,
    at: Float[np.ndarray, "2"],
    looks: Float[np.ndarray, "7"],
    *,
    radius: float,
    ragged: float,
    slim: float,
    hollow: float,
) -> None:
    """Paint one nucleus; `looks` are seven numbers from 0 to 1 that make it an individual."""
    reach = int(radius * slim * 1.6) + 2
    top, left = max(0, int(at[0]) - reach), max(0, int(at[1]) - reach)
    window = painted[top : max(0, int(at[0]) + reach + 1), left : max(0, int(at[1]) + reach + 1)]
    if window.size == 0:
        return
    rows, columns = np.ogrid[top : top + window.shape[0], left : left + window.shape[1]]
    turn, long = np.pi * looks[0], slim * (1 + 0.25 * looks[1])
    across = (columns - at[1]) * np.cos(turn) + (rows - at[0]) * np.sin(turn)
    down = (rows - at[0]) * np.cos(turn) - (columns - at[1]) * np.sin(turn)
    angle = np.arctan2(down, across)
    outline = 1 + ragged * (np.sin(2 * angle + 6.3 * looks[2]) + np.sin(3 * angle + 6.3 * looks[3]))
    away = np.hypot(across / long, down) / (radius * outline)
    core = np.hypot(across / radius - 0.6 * (looks[4] - 0.5), down / radius - 0.6 * (looks[5] - 0.5))
    chromatin = 1 - hollow * np.exp(-((away / 0.75) ** 2)) + hollow * 1.3 * np.exp(-((core / 0.22) ** 2))
    np.maximum(window, (0.75 + 0.35 * looks[6]) * edge(1 - away, 0.18) * chromatin, out=window)


def _scan(rng: Generator, haematoxylin: _Field, eosin: _Field, stain: Stain) -> Float[np.ndarray, "h w 3"]:
    density = (
        stain.haematoxylin * np.clip(haematoxylin, 0, None)[..., None] * _HAEMATOXYLIN
        + stain.eosin * np.clip(eosin, 0, None)[..., None] * _EOSIN
    )
    image = np.exp(-density) * np.array(stain.light)
    image = gaussian_filter(image, (stain.focus_px, stain.focus_px, 0))
    return np.clip(image + rng.normal(0, 0.012, image.shape), 0, 1)
