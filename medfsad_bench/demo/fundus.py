"""Fundus photograph phantoms: healthy, with the lesions of diabetic retinopathy, or with the cup of glaucoma.

Lengths are in radii of the round field of view; the optic disc lies about 0.5 to one side of the middle, the fovea
near it to the other.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from numpy.random import Generator
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter

from medfsad_bench.demo.texture import between, clouds, disease_of, edge

_Field = Float[np.ndarray, "h w"]
_Mask = Bool[np.ndarray, "h w"]
_OVERSAMPLING = 2  # vessels are drawn larger and shrunk, so that their edges are soft


@dataclass(frozen=True, slots=True)
class _Eye:
    """Where things lie in one photograph, in pixels; `side` is -1 where the disc is on the left."""

    shape: tuple[int, int]
    centre: tuple[float, float]
    radius: float
    side: float
    disc: tuple[float, float]
    fovea: tuple[float, float]

    def distance(self, point: tuple[float, float]) -> _Field:
        rows, columns = np.ogrid[: self.shape[0], : self.shape[1]]
        return np.hypot(columns - point[0], rows - point[1]) / self.radius


def retinopathy_phantom(
    rng: Generator, shape: tuple[int, int], *, grade: int
) -> tuple[Float[np.ndarray, "h w 3"], _Mask]:
    """A fundus with diabetic retinopathy of a grade from 0 (none) to 4 (proliferative), as APTOS grades it.

    Grade 1 has microaneurysms, 2 small haemorrhages too, 3 hard exudates and larger haemorrhages, 4 more of all and
    cotton-wool spots.

    Returns:
        Image in [0, 1] with a black border, and the lesions' pixels.
    """
    disease = disease_of(rng)
    eye = _eye(rng, shape, fill=between(rng, 0.90, 1.08))
    image = _retina(rng, eye, cup_ratio=between(rng, 0.25, 0.5))
    lesions = np.zeros(shape, bool)
    for count, size, colour in _lesion_plan(disease, grade):
        weight = _spots(disease, eye, count, size)
        image += weight[..., None] * (np.asarray(colour) * image.max(axis=(0, 1)) - image)
        lesions |= weight > 0.25
    return _photograph(rng, eye, image), lesions & (eye.distance(eye.centre) < 1)


def glaucoma_phantom(
    rng: Generator, shape: tuple[int, int], *, cup_ratio: float
) -> tuple[Float[np.ndarray, "h w 3"], _Mask]:
    """A fundus whose optic cup has `cup_ratio` of the disc's diameter: healthy about 0.2–0.5, glaucoma 0.6–0.9.

    Returns:
        Image in [0, 1] with a black border, and the optic disc's pixels.
    """
    eye = _eye(rng, shape, fill=between(rng, 0.96, 1.12))
    image = _retina(rng, eye, cup_ratio=cup_ratio)
    return _photograph(rng, eye, image), eye.distance(eye.disc) < 0.15


def _eye(rng: Generator, shape: tuple[int, int], *, fill: float) -> _Eye:
    radius = 0.5 * min(shape) * fill
    centre = (shape[1] / 2 + between(rng, -4, 4), shape[0] / 2 + between(rng, -4, 4))
    side = float(rng.choice([-1.0, 1.0]))
    away, tilt = between(rng, 0.38, 0.66), between(rng, -0.12, 0.12)
    disc = (centre[0] + side * away * radius, centre[1] + tilt * radius)
    gap = between(rng, 0.48, 0.60)
    fovea = (disc[0] - side * gap * radius, disc[1] + between(rng, -0.02, 0.10) * radius)
    return _Eye(shape, centre, radius, side, disc, fovea)


def _retina(rng: Generator, eye: _Eye, *, cup_ratio: float) -> Float[np.ndarray, "h w 3"]:
    red, green, blue = between(rng, 0.55, 0.85), between(rng, 0.26, 0.44), between(rng, 0.06, 0.20)
    size = eye.radius
    light = 1 - between(rng, 0.15, 0.45) * eye.distance(eye.centre) ** 2
    light = light + 0.07 * clouds(rng, eye.shape, 0.7 * size)
    choroid = 0.05 * clouds(rng, eye.shape, 0.10 * size) + 0.03 * clouds(rng, eye.shape, 0.03 * size)
    macula = between(rng, 0.15, 0.4) * np.exp(-((eye.distance(eye.fovea) / between(rng, 0.09, 0.16)) ** 2))
    shade = light * (1 + choroid) * (1 - macula)
    image = shade[..., None] * np.array([red, green, blue])
    image = _add_disc(rng, eye, image, cup_ratio)
    vessels, depth = _vessels(rng, eye), between(rng, 0.35, 0.6)
    return np.asarray(image * (1 - vessels[..., None] * depth * np.array([0.5, 1.0, 1.0])))


def _add_disc(
    rng: Generator, eye: _Eye, image: Float[np.ndarray, "h w 3"], cup_ratio: float
) -> Float[np.ndarray, "h w 3"]:
    radius, oval = between(rng, 0.105, 0.14), between(rng, 0.86, 1.0)
    rows, columns = np.ogrid[: eye.shape[0], : eye.shape[1]]
    across = (columns - eye.disc[0]) / (eye.radius * radius * oval)
    down = (rows - eye.disc[1]) / (eye.radius * radius)
    away = np.hypot(across, down) * (1 + 0.03 * clouds(rng, eye.shape, 0.1 * eye.radius))
    shift = between(rng, -0.08, 0.08)
    cup = np.hypot(across - shift, 0.95 * (down - between(rng, -0.05, 0.05))) / cup_ratio
    glow = np.exp(-((away / 2.2) ** 2)) * between(rng, 0.0, 0.18)
    image = image * (1 + glow[..., None])
    peak = between(rng, 0.9, 1.25)
    rim_colour = peak * np.array([0.88, 0.56, 0.26])
    cup_colour = peak * np.array([0.96, 0.82, 0.55]) * between(rng, 0.92, 1.05)
    image = image + edge(1 - away, 0.10)[..., None] * (rim_colour - image)
    within = edge(1 - cup, 0.18) * edge(1 - away, 0.10)
    return np.asarray(image + within[..., None] * (cup_colour - image))


def _vessels(rng: Generator, eye: _Eye) -> _Field:
    """Two arcades round the macula and two nasal trunks, an artery and a vein each, with branches."""
    large = (eye.shape[1] * _OVERSAMPLING, eye.shape[0] * _OVERSAMPLING)
    canvas = Image.new("L", large)
    brush = ImageDraw.Draw(canvas)
    for up in (-1.0, 1.0):
        for kind in (0, 1):
            temporal = np.pi / 2 * up + eye.side * up * between(rng, 0.05, 0.45)
            _grow_vessel(rng, eye, brush, eye.disc, temporal, bend=eye.side * up * between(rng, 0.9, 1.3), kind=kind)
            nasal = np.pi / 2 * up - eye.side * up * between(rng, 0.5, 1.1)
            _grow_vessel(rng, eye, brush, eye.disc, nasal, bend=between(rng, -0.3, 0.3), kind=kind, length=0.8)
    drawn = np.asarray(canvas.resize((eye.shape[1], eye.shape[0]), Image.Resampling.BOX), np.float64) / 255
    return gaussian_filter(drawn, 0.6)


def _grow_vessel(
    rng: Generator,
    eye: _Eye,
    brush: ImageDraw.ImageDraw,
    start: tuple[float, float],
    heading: float,
    *,
    bend: float,
    kind: int,
    length: float = 1.5,
    width: float | None = None,
) -> None:
    """Walk along a vessel in short steps, thinner all the way, and let go of branches."""
    width = (between(rng, 0.030, 0.040) if kind else between(rng, 0.021, 0.029)) if width is None else width
    steps = max(3, int(length / 0.035))
    point, wiggle = start, between(rng, 0.05, 0.16)
    for step in range(steps):
        heading += bend * 0.035 + rng.normal(0, wiggle)
        start, stride = point, 0.035 * eye.radius
        point = (start[0] + stride * np.cos(heading), start[1] + stride * np.sin(heading))
        thick = width * (1 - 0.75 * step / steps) * eye.radius * _OVERSAMPLING
        line = [(x * _OVERSAMPLING, y * _OVERSAMPLING) for x, y in (start, point)]
        brush.line(line, fill=255 if kind else 170, width=max(1, round(thick)))
        if width > 0.009 and step > 4 and rng.random() < 0.16:
            fork = heading + float(rng.choice([-1, 1])) * between(rng, 0.4, 0.9)
            rest = length * (1 - step / steps) * between(rng, 0.5, 0.9)
            thin = 0.55 * width * (1 - 0.5 * step / steps)
            _grow_vessel(rng, eye, brush, point, fork, bend=between(rng, -0.6, 0.6), kind=kind, length=rest, width=thin)


def _lesion_plan(rng: Generator, grade: int) -> list[tuple[int, tuple[float, float], tuple[float, float, float]]]:
    """Count, size range (radii) and colour (relative to the retina's) of each kind of spot at a grade."""
    dark, blood, fat, wool = (0.42, 0.20, 0.20), (0.38, 0.14, 0.14), (1.0, 1.0, 0.75), (0.98, 0.95, 0.95)
    plan = [
        (int(rng.integers(4, 12)) * min(grade, 3), (0.008, 0.016), dark),
        (int(rng.integers(2, 7)) * max(grade - 1, 0), (0.02, 0.05), blood),
        (int(rng.integers(5, 14)) * max(grade - 2, 0) + int(grade == 2) * int(rng.integers(0, 5)), (0.010, 0.028), fat),
        (int(rng.integers(1, 4)) * max(grade - 3, 0), (0.05, 0.08), wool),
    ]
    return [kind for kind in plan if kind[0]]


def _spots(rng: Generator, eye: _Eye, count: int, size: tuple[float, float]) -> _Field:
    """Weight of irregular spots, in loose clusters, between the disc and the edge of the field."""
    weight = np.zeros(eye.shape)
    cluster = (0.0, 0.0)
    for number in range(count):
        if number % 6 == 0:
            turn, away = between(rng, 0, 2 * np.pi), between(rng, 0.12, 0.72)
            cluster = (away * np.cos(turn), away * np.sin(turn))
        column = eye.centre[0] + eye.radius * (cluster[0] + rng.normal(0, 0.13))
        row = eye.centre[1] + eye.radius * (cluster[1] + rng.normal(0, 0.13))
        extent = max(1.0, between(rng, *size) * eye.radius)
        reach = int(3 * extent) + 2
        top, left = max(0, int(row) - reach), max(0, int(column) - reach)
        window = weight[top : int(row) + reach + 1, left : int(column) + reach + 1]
        if window.size == 0 or np.hypot(column - eye.disc[0], row - eye.disc[1]) < 0.17 * eye.radius:
            continue
        rows, columns = np.ogrid[top : top + window.shape[0], left : left + window.shape[1]]
        angle = np.arctan2(rows - row, columns - column)
        lobes = 1 + 0.15 * np.sin(2 * angle + between(rng, 0, 6)) + 0.10 * np.sin(3 * angle + between(rng, 0, 6))
        np.maximum(window, edge(1 - np.hypot(rows - row, columns - column) / (extent * lobes), 0.35), out=window)
    return 0.85 * weight


def _photograph(rng: Generator, eye: _Eye, image: Float[np.ndarray, "h w 3"]) -> Float[np.ndarray, "h w 3"]:
    blur = between(rng, 0.4, 1.3)
    image = gaussian_filter(image, (blur, blur, 0)) * between(rng, 0.75, 1.1)
    image = image + rng.normal(0, between(rng, 0.006, 0.016), (*eye.shape, 1))
    border = edge(1 - eye.distance(eye.centre), 1.5 / eye.radius)
    return np.asarray(np.clip(image * border[..., None], 0, 1))
