"""Brain phantoms: one solid anatomy, cut into slices with a skull or sampled as a stripped volume.

Coordinates are u (left to right), v (front to back) and w (bottom to top); the brain is about the unit ball stretched
to (0.72, 0.9, 0.75). Tissue is a label per point, and a contrast turns labels into brightness.
"""

from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.random import Generator
from scipy.ndimage import gaussian_filter

from medfsad_bench.demo.texture import between, clouds, disease_of, plane

Contrast = Literal["t1", "t1ce", "t2", "flair"]
Tumour = Literal["notumor", "glioma", "meningioma", "pituitary"]

CONTRASTS: tuple[Contrast, ...] = ("flair", "t1", "t1ce", "t2")
_AIR, _CSF, _GREY, _WHITE, _BONE, _SCALP, _NECROSIS, _OEDEMA, _ENHANCING, _DENSE = range(10)
_BRIGHTNESS: dict[Contrast, tuple[float, ...]] = {  # by tissue, in the order above; arbitrary units, as MRI has
    "t1": (0.0, 0.14, 0.46, 0.66, 0.08, 0.74, 0.30, 0.42, 0.40, 0.44),
    "t1ce": (0.0, 0.14, 0.46, 0.64, 0.08, 0.76, 0.26, 0.44, 0.92, 0.86),
    "t2": (0.0, 0.92, 0.56, 0.40, 0.06, 0.50, 0.84, 0.76, 0.62, 0.58),
    "flair": (0.0, 0.10, 0.58, 0.46, 0.06, 0.54, 0.34, 0.72, 0.64, 0.64),
}
_BRATS_LABEL = {_NECROSIS: 1, _OEDEMA: 2, _ENHANCING: 4}  # BraTS 2021's own numbers; 3 was given up by its makers

_Field = Float[np.ndarray, "..."]
_Tissue = Int[np.ndarray, "..."]


def brain_phantom(
    rng: Generator, size_px: int, *, tumour: Tumour = "notumor", contrast: Contrast = "t2"
) -> tuple[Float[np.ndarray, "h w"], Bool[np.ndarray, "h w"]]:
    """A slice through a head: axial, or coronal in one case of five; pituitary tumours are always coronal.

    Args:
        rng: Draws anatomy, pose, tumour, coil shading and noise.
        size_px: Side of the image.
        tumour: The class, in the words of the Brain Tumor set.
        contrast: MRI sequence.

    Returns:
        Image in [0, 1] and the tumour's pixels (with oedema).
    """
    x, y = plane(size_px, size_px)
    disease = disease_of(rng)
    turn, zoom = between(rng, -0.16, 0.16), between(rng, 1.0, 1.22)
    across = zoom * (x * np.cos(turn) - y * np.sin(turn)) + between(rng, -0.05, 0.05)
    down = zoom * (x * np.sin(turn) + y * np.cos(turn)) + between(rng, -0.05, 0.05)
    coronal = rng.random() < 0.2 or tumour == "pituitary"
    level = between(rng, -0.1, 0.3) if not coronal else between(rng, -0.2, 0.15)
    cut = np.full_like(across, level)
    axes = (across, cut, -down) if coronal else (across, down, cut)
    tissue, lesion = _head(rng, *axes), np.zeros(across.shape, bool)
    if tumour != "notumor":
        radius = between(disease, 0.13, 0.24) if tumour == "glioma" else between(disease, 0.10, 0.19)
        tissue, lesion = _grow(disease, tissue, _depth(*axes), (across, down), tumour, radius=radius)
    return _expose(rng, tissue, contrast), lesion


def brain_volume(
    rng: Generator, shape: tuple[int, int, int]
) -> tuple[dict[Contrast, Int[np.ndarray, "i j k"]], Int[np.ndarray, "i j k"]]:
    """A patient with a glioma in the form of BraTS: stripped of its skull, zero outside the brain, four sequences.

    Args:
        rng: Draws anatomy, tumour and scanner.
        shape: Voxels to the left, to the back and up.

    Returns:
        int16 voxels per sequence, in the scanner's own unit, and the labels: 0, 1 necrosis, 2 oedema, 4 enhancing.
    """
    disease = disease_of(rng)
    axes = [np.linspace(-1, 1, n) for n in shape]
    u, v, w = np.meshgrid(*axes, indexing="ij")
    turn, zoom, squeeze = between(rng, -0.1, 0.1), between(rng, 0.96, 1.3), between(rng, 0.92, 1.08)
    u, v = squeeze * u, v / squeeze
    u, v = zoom * (u * np.cos(turn) - v * np.sin(turn)), zoom * (u * np.sin(turn) + v * np.cos(turn))
    w = 0.8 * w + between(rng, 0.0, 0.1)
    tissue = _brain(rng, u, v, w)
    tissue, _ = _grow(disease, tissue, _depth(u, v, w), (u, v, 1.4 * w), "glioma", radius=between(disease, 0.13, 0.20))
    labels = np.zeros(tissue.shape, np.int16)
    for kind, number in _BRATS_LABEL.items():
        labels[tissue == kind] = number
    return {contrast: _scan(rng, tissue, contrast) for contrast in CONTRASTS}, labels


def _depth(u: _Field, v: _Field, w: _Field) -> _Field:
    """1 at the centre, 0 on the brain's surface, negative outside; the back of the head is wider than the front."""
    return 1 - np.sqrt((u / (0.70 + 0.07 * v)) ** 2 + (v / 0.90) ** 2 + (w / 0.78) ** 2)


def _brain(rng: Generator, u: _Field, v: _Field, w: _Field) -> _Tissue:
    scale = u.shape[0] / 2.4
    depth = _depth(u, v, w) + 0.02 * clouds(rng, u.shape, 0.5 * scale)
    fold = np.abs(clouds(rng, u.shape, 0.13 * scale))
    ribbon = between(rng, 0.17, 0.26)
    wide = between(rng, 0.10, 0.28)  # width of the furrows: narrow in the young, wide in the old
    tissue = np.full(u.shape, _WHITE)
    tissue[(depth < ribbon) & (fold < 0.55)] = _GREY
    tissue[depth < 0.05 + 0.02 * wide] = _GREY
    tissue[(depth < 0.8 * ribbon) & (fold < wide)] = _CSF
    tissue[_ganglia(rng, u, v, w)] = _GREY
    tissue[_ventricles(rng, u, v, w)] = _CSF
    tissue[(np.abs(u + 0.01 * np.sin(5 * v)) < 0.014) & ((np.abs(v) > 0.35) | (w > 0.35))] = _CSF
    if rng.random() < 0.35:  # spots of old age are no tumour
        tissue[(depth > 0.3) & (clouds(rng, u.shape, 0.09 * scale) > 2.3) & (tissue == _WHITE)] = _OEDEMA
    tissue[depth < 0] = _AIR
    return tissue


def _head(rng: Generator, u: _Field, v: _Field, w: _Field) -> _Tissue:
    tissue = _brain(rng, u, v, w)
    depth = _depth(u, v, w)
    fluid, bone, scalp = between(rng, 0.02, 0.05), between(rng, 0.05, 0.09), between(rng, 0.05, 0.11)
    outside = tissue == _AIR
    tissue[outside & (depth > -fluid - bone - scalp)] = _SCALP
    tissue[outside & (depth > -fluid - bone)] = _BONE
    tissue[outside & (depth > -fluid)] = _CSF
    return tissue


def _ventricles(rng: Generator, u: _Field, v: _Field, w: _Field) -> Bool[np.ndarray, "..."]:
    width, lean = between(rng, 0.035, 0.085), between(rng, -0.015, 0.015)
    spread = 0.02 + 0.30 * (v - 0.02) ** 2 + 0.9 * width
    lateral = ((np.abs(u + lean) - spread) / width) ** 2 + ((v + 0.02) / 0.40) ** 2 + ((w - 0.12) / 0.26) ** 2 < 1
    third = (u / (0.3 * width + 0.008)) ** 2 + ((v - 0.05) / 0.14) ** 2 + ((w + 0.05) / 0.16) ** 2 < 1
    return np.asarray(lateral | third)


def _ganglia(rng: Generator, u: _Field, v: _Field, w: _Field) -> Bool[np.ndarray, "..."]:
    size = between(rng, 0.9, 1.15)
    thalamus = ((np.abs(u) - 0.12) / 0.10) ** 2 + ((v - 0.12) / 0.14) ** 2 + (w / 0.14) ** 2 < size
    putamen = ((np.abs(u) - 0.30) / 0.06) ** 2 + ((v + 0.06) / 0.20) ** 2 + (w / 0.16) ** 2 < size
    return np.asarray(thalamus | putamen)


def _grow(
    rng: Generator, tissue: _Tissue, depth: _Field, axes: tuple[_Field, ...], tumour: Tumour, *, radius: float
) -> tuple[_Tissue, Bool[np.ndarray, "..."]]:
    """Put a tumour of the kind into the tissue; returns the new tissue and all that is no longer healthy."""
    centre = _seat(rng, depth, axes, tumour)
    scale = tissue.shape[0] / 2.4
    rough = clouds(rng, tissue.shape, 0.16 * scale)
    distance = np.sqrt(np.sum([(axis - c) ** 2 for axis, c in zip(axes, centre, strict=True)], axis=0))
    inside = (depth > 0) if tumour == "glioma" else (depth > -0.04)
    grown = tissue.copy()
    if tumour == "glioma":
        swelling = inside & (distance < radius * (1.55 + 0.35 * rough)) & (tissue != _CSF)
        core = inside & (distance < radius * (0.85 + 0.16 * rough))
        grown[swelling] = _OEDEMA
        grown[core] = _ENHANCING
        grown[core & (distance < radius * (0.55 + 0.14 * rough))] = _NECROSIS
        return grown, swelling | core
    mass = inside & (distance < radius * (1 + 0.05 * rough))
    grown[inside & (distance < radius * (1.12 + 0.10 * rough)) & (tissue == _WHITE)] = _OEDEMA
    grown[mass] = _DENSE
    return grown, mass


def _seat(rng: Generator, depth: _Field, axes: tuple[_Field, ...], tumour: Tumour) -> tuple[float, ...]:
    """Where it starts: gliomas deep, meningiomas at the surface, pituitary tumours at the base, in the middle."""
    if tumour == "pituitary":
        return (between(rng, -0.03, 0.03), between(rng, 0.42, 0.5))
    low, high = (0.22, 0.65) if tumour == "glioma" else (0.05, 0.16)
    index = int(rng.choice(np.flatnonzero((depth > low) & (depth < high))))
    return tuple(float(axis.flat[index]) for axis in axes)


def _expose(rng: Generator, tissue: _Tissue, contrast: Contrast) -> Float[np.ndarray, "h w"]:
    clean = np.asarray(_BRIGHTNESS[contrast])[tissue]
    shaped = _shade(rng, clean, texture=0.035)
    shaped = gaussian_filter(shaped, between(rng, 0.6, 1.1)) * between(rng, 0.75, 1.1)
    noise = between(rng, 0.01, 0.04) * np.where(tissue == _AIR, 0.2, 1.0)  # scanners blank the air before they export
    measured = np.hypot(shaped + rng.normal(0, noise, shaped.shape), rng.normal(0, noise, shaped.shape))  # Rician
    return np.clip(measured, 0, 1) ** between(rng, 0.85, 1.2)


def _scan(rng: Generator, tissue: _Tissue, contrast: Contrast) -> Int[np.ndarray, "i j k"]:
    clean = np.asarray(_BRIGHTNESS[contrast])[tissue]
    shaped = gaussian_filter(_shade(rng, clean ** between(rng, 0.7, 1.4), texture=0.06), between(rng, 0.4, 0.7))
    noisy = shaped + rng.normal(0, 0.02, shaped.shape)
    voxels = np.clip(noisy * between(rng, 400, 1600), 1, 32767).astype(np.int16)
    return np.where(tissue == _AIR, np.int16(0), voxels)


def _shade(rng: Generator, clean: _Field, *, texture: float) -> _Field:
    coil = 1 + between(rng, 0.03, 0.09) * clouds(rng, clean.shape, 0.6 * clean.shape[0])
    return clean * coil * (1 + texture * clouds(rng, clean.shape, 3.0))
