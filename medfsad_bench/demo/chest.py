"""Chest X-ray phantoms: everything adds up along the beam, from lungs and ribs to a consolidation."""

from typing import Literal

import numpy as np
from jaxtyping import Bool, Float
from numpy.random import Generator
from scipy.ndimage import gaussian_filter

from medfsad_bench.demo.texture import between, clouds, disease_of, edge, plane

Finding = Literal["Normal", "Lung Opacity", "No Lung Opacity / Not Normal"]

_Field = Float[np.ndarray, "h w"]


def chest_phantom(
    rng: Generator, size_px: int, *, finding: Finding = "Normal"
) -> tuple[Float[np.ndarray, "h w"], list[Bool[np.ndarray, "h w"]]]:
    """A frontal chest X-ray; the class without opacity that isn't normal has a large heart or a tube.

    Args:
        rng: Draws build, breath, pose, exposure, opacities and noise.
        size_px: Side of the image.
        finding: The class, in RSNA's words.

    Returns:
        Image in [0, 1], bone bright, and one mask per opacity (none unless `Lung Opacity`).
    """
    x, y = plane(size_px, size_px)
    disease = disease_of(rng)
    turn, zoom, slim = between(rng, -0.09, 0.09), between(rng, 0.92, 1.2), between(rng, 0.92, 1.1)
    x, y = (
        zoom * slim * (x * np.cos(turn) - y * np.sin(turn)) + between(rng, -0.09, 0.09),
        zoom / slim * (x * np.sin(turn) + y * np.cos(turn)) + between(rng, -0.10, 0.10),
    )
    large = finding == "No Lung Opacity / Not Normal" and disease.random() < 0.6
    lungs = _lungs(rng, x, y)
    heart = _heart(rng, x, y, width=between(rng, 0.24, 0.33) + 0.15 * large)
    density = _body(rng, x, y) - between(rng, 0.38, 0.48) * lungs * (1 - 0.85 * heart)
    density += _vessels(rng, x, y) * lungs + _bones(rng, x, y)
    opacities = _opacities(disease, lungs * (heart < 0.3)) if finding == "Lung Opacity" else []
    for mask, cloud in opacities:
        density += cloud * gaussian_filter(mask.astype(float), 0.012 * size_px)
    density += _devices(rng, x, y)
    if finding == "No Lung Opacity / Not Normal" and not large:
        density += _tube(disease, x, y)
    return _expose(rng, density), [mask for mask, _ in opacities]


def _body(rng: Generator, x: _Field, y: _Field) -> _Field:
    shoulder = between(rng, 0.82, 1.02) - 0.45 * edge(-y - between(rng, 0.72, 0.85), 0.1)
    soft = edge(shoulder - np.abs(x), 0.05) * between(rng, 0.60, 0.70)
    spine = np.exp(-((x / 0.10) ** 2)) * (0.16 + 0.03 * np.cos(between(rng, 20, 26) * y))
    belly = 0.12 * edge(y - 0.55, 0.2)
    fat = 0.035 * clouds(rng, x.shape, x.shape[0] / 9) + 0.02 * clouds(rng, x.shape, x.shape[0] / 20)
    stomach = 0.14 * edge(1 - ((x - between(rng, 0.25, 0.45)) / 0.16) ** 2 - ((y - 0.78) / 0.09) ** 2, 0.3)
    return soft * (1 + fat) + spine + belly - between(rng, 0, 1) * stomach


def _lungs(rng: Generator, x: _Field, y: _Field) -> _Field:
    top, gap = between(rng, -0.80, -0.66), between(rng, 0.09, 0.13)
    both = np.zeros_like(x)
    for side, dome in ((-1.0, between(rng, 0.40, 0.56)), (1.0, between(rng, 0.46, 0.62))):
        across = side * x  # from the spine outwards
        reach = between(rng, 0.66, 0.76)
        height = np.clip((y - top) / (dome - top), 0, 1)
        outer = reach * np.clip(height, 0, 1) ** 0.38 * (1 - 0.05 * height)
        diaphragm = dome + 0.9 * (across - 0.36) ** 2
        inside = np.minimum.reduce([across - gap, outer - across, diaphragm - y, y - top])
        both += edge(inside, 0.018)
    return both


def _heart(rng: Generator, x: _Field, y: _Field, *, width: float) -> _Field:
    centre = between(rng, 0.08, 0.15)
    lean = (x - centre) - 0.35 * (y - 0.25)
    heart = edge(1 - (lean / width) ** 2 - ((y - 0.28) / 0.34) ** 2, 0.12)
    aorta = edge(1 - ((x - 0.08) / 0.11) ** 2 - ((y + 0.28) / 0.16) ** 2, 0.25)
    return np.asarray(np.maximum(heart, 0.8 * aorta))


def _vessels(rng: Generator, x: _Field, y: _Field) -> _Field:
    """Bronchovascular markings: strands that fan out from the hila and fade towards the edge of the lungs."""
    strands = np.zeros_like(x)
    size = x.shape[0]
    for side in (-1.0, 1.0):
        across, down = side * x - 0.16, y + 0.02
        reach = np.hypot(across, down)
        angle = np.arctan2(down, across) + 0.25 * clouds(rng, x.shape, size / 9)
        fan = sum(edge(np.cos(angle * n + between(rng, 0, 6.3)) - 0.9, 0.08) for n in (8, 12, 18, 26))
        strands += (across > -0.1) * fan * np.exp(-reach / between(rng, 0.14, 0.20))
    return 0.10 * strands + 0.012 * clouds(rng, x.shape, size / 60) + 0.012 * clouds(rng, x.shape, size / 25)


def _bones(rng: Generator, x: _Field, y: _Field) -> _Field:
    bones = np.zeros_like(x)
    pitch, first, bend = between(rng, 0.140, 0.195), between(rng, -0.90, -0.76), between(rng, 0.15, 0.6)
    reach = np.abs(x)
    chest_wall, sternum = edge(0.80 - reach, 0.03), edge(reach - 0.30, 0.06)
    back = y - first + 0.16 * (1 - reach) - bend * (reach - 0.35) ** 2
    front = y - first - 0.10 - 0.30 * (0.75 - reach)
    for arc, half_width, density in ((back, 0.034, 0.075 * chest_wall), (front, 0.038, 0.030 * chest_wall * sternum)):
        nearest = np.clip(np.round(arc / pitch), 0, 8)  # nine pairs of ribs are on the film
        bones += density * _strut(arc - pitch * nearest, half_width)
    tilt = between(rng, 0.05, 0.3)
    clavicle = y - (first + 0.10 - tilt * (reach - 0.3))
    bones += 0.12 * _strut(clavicle, 0.03) * edge(reach - 0.08, 0.02) * edge(0.78 - reach, 0.03)
    return bones


def _strut(distance: _Field, half_width: float) -> _Field:
    """A long bone: its rim is denser than its core."""
    flat = edge(half_width - np.abs(distance), 0.008)
    rim = np.exp(-(((np.abs(distance) - half_width) / 0.008) ** 2))
    return np.asarray(0.75 * flat + 0.45 * rim)


def _opacities(rng: Generator, room: _Field) -> list[tuple[Bool[np.ndarray, "h w"], _Field]]:
    """One to three cloudy patches inside the lungs, each with its added density."""
    size = room.shape[0]
    opacities = []
    for _ in range(int(rng.choice([1, 1, 2, 2, 3]))):
        row, column = divmod(int(rng.choice(np.flatnonzero(room > 0.9))), room.shape[1])
        rows, columns = np.ogrid[: room.shape[0], : room.shape[1]]
        tall, wide = between(rng, 0.08, 0.20) * size, between(rng, 0.07, 0.13) * size
        distance = np.hypot((rows - row) / tall, (columns - column) / wide)
        mask = (distance < 1 + 0.25 * clouds(rng, room.shape, size / 12)) & (room > 0.5)
        patchy = 1 + 0.45 * clouds(rng, room.shape, size / 22) + 0.25 * clouds(rng, room.shape, size / 70)
        opacities.append((mask, between(rng, 0.10, 0.22) * np.clip(patchy, 0, 2)))
    return opacities


def _devices(rng: Generator, x: _Field, y: _Field) -> _Field:
    """What is on many films whatever the finding: side marker and electrode leads."""
    devices = np.zeros_like(x)
    if rng.random() < 0.6:
        left, top = between(rng, 0.78, 0.88), between(rng, -0.9, -0.75)
        upright = (np.abs(x - left) < 0.010) & (np.abs(y - top) < 0.05)
        foot = (np.abs(x - left - 0.02) < 0.028) & (np.abs(y - top - 0.05) < 0.010)
        devices[upright | foot] = 0.5
    if rng.random() < 0.3:
        for _ in range(2):
            lead = y - between(rng, -0.5, 0.5) - between(rng, -0.8, 0.8) * x - 0.1 * np.sin(4 * x + between(rng, 0, 6))
            devices += 0.13 * (np.abs(lead) < 0.007)
    return devices


def _tube(rng: Generator, x: _Field, y: _Field) -> _Field:
    course = x - 0.05 * np.sin(3 * y + between(rng, 0, 6)) - between(rng, -0.12, 0.12)
    return 0.2 * (np.abs(np.abs(course) - 0.012) < 0.005) * (y < between(rng, -0.1, 0.4))


def _expose(rng: Generator, density: _Field) -> _Field:
    size = density.shape[0]
    light = between(rng, 0.85, 1.15) * density + between(rng, -0.04, 0.08)
    light = light + 0.02 * clouds(rng, density.shape, size / 3)
    light = gaussian_filter(light, between(rng, 0.5, 1.2) * size / 512)
    light = light + rng.normal(0, between(rng, 0.008, 0.022), density.shape)
    return np.clip(light, 0, 1) ** between(rng, 0.8, 1.25)
