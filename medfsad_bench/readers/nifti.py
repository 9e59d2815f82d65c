"""NIfTI volumes, brought to RAS+ and shown the radiological way."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Float64

from medfsad_bench.errors import DownloadError
from medfsad_bench.readers.picture import Intensity, Picture, decoding, stated_range, to_8_bits

MAX_VOXELS = 100_000_000  # 11 times a BraTS volume; in memory 1.2 GB for a moment
_MILLIMETRES = {"meter": 1000.0, "micron": 0.001}
_LARGEST_VOXEL_MM = 50.0
_FLAT = 1e-6  # determinant of the axes' directions
_BACKGROUND_SHARE = 0.1  # of voxels that are exactly 0
_LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R BT.601


@dataclass(frozen=True, slots=True)
class Volume:
    """A scalar volume whose axes run to the patient's right, anterior and superior."""

    array: Float32[np.ndarray, "x y z"]  # physical values (slope and intercept applied)
    affine: Float64[np.ndarray, "4 4"]  # from voxel indices to millimetres (RAS+)
    spacing_mm: tuple[float, float, float]  # along the three axes
    warnings: tuple[str, ...]  # traps that were noticed
    name: str  # the file's, for messages
    stored_affine: Float64[np.ndarray, "4 4"]  # of the axes as they are in the file, in millimetres
    stored_shape: tuple[int, ...]  # their lengths, three
    display: tuple[float, float] | None = None  # values shown black and white where the file says so (colours)


def read_volume(path: Path) -> Volume:
    """Read a NIfTI file (`.nii`, `.nii.gz`, `.hdr` with `.img`).

    Of four dimensions the first volume is taken, of colours the luminance, and both are said in the warnings. Metres
    and microns become millimetres.

    Raises:
        DownloadError: If it can't be read, is larger than `MAX_VOXELS`, or holds neither numbers nor colours.
    """
    stored = read_stored_volume(path, volumes=1)
    values, notes, display = stored.values[..., 0], list(stored.notes), None
    if stored.volumes > 1:
        notes.append(f"first of several volumes taken ({stored.volumes})")
    if values.dtype.names and {"R", "G", "B"} <= set(values.dtype.names):
        channels = np.stack([values[name] for name in "RGB"], axis=-1)
        values = channels.astype(np.float32) @ np.asarray(_LUMINANCE, np.float32)
        notes.append("colours shown as their luminance")
        display = (0.0, 255.0)
    if values.dtype.names or np.iscomplexobj(values):
        raise DownloadError(
            f"{path.name}: voxels of type {values.dtype}. Expected a scalar volume; convert it to grey values."
        )
    array, affine = in_ras(path.name, values.astype(np.float32), stored.affine)
    if not np.isfinite(array).all():
        notes.append("values that aren't numbers set to 0")
        array = np.nan_to_num(array, nan=0.0, posinf=0.0, neginf=0.0)
    x, y, z = (float(value) for value in np.linalg.norm(affine[:3, :3], axis=0))
    return Volume(array, affine, (x, y, z), tuple(notes), path.name, stored.affine, values.shape, display)


@dataclass(frozen=True, slots=True)
class StoredVolume:
    """What a NIfTI file holds, its axes as they are in the file."""

    values: np.ndarray  # (x, y, z, n) of n volumes or channels; slope and intercept applied
    affine: Float64[np.ndarray, "4 4"]  # to millimetres
    volumes: int  # that the file holds
    notes: tuple[str, ...]


def read_stored_volume(path: Path, *, volumes: int | None = None) -> StoredVolume:
    """Read a NIfTI file as it is.

    Args:
        path: The file.
        volumes: How many to read at most; all of them without it.

    Raises:
        DownloadError: If it can't be read, its affine isn't of numbers, or what is to be read is larger than
            `MAX_VOXELS`.
    """
    import nibabel as nib

    notes: tuple[str, ...] = ()
    with decoding(path.name, "no NIfTI volume that can be read"):
        loaded: Any = nib.load(path)
        count = int(np.prod(loaded.shape[3:], dtype=float))
        taken = min(count, volumes or count)
        _check_size(path, loaded.shape, taken)
        unit = loaded.header.get_xyzt_units()[0] if hasattr(loaded.header, "get_xyzt_units") else "mm"
        affine = np.diag([_MILLIMETRES.get(unit, 1.0)] * 3 + [1.0]) @ np.asarray(loaded.affine, np.float64)
        if taken == 1:
            values = np.asarray(loaded.dataobj[(slice(None),) * 3 + (0,) * (len(loaded.shape) - 3)])
        else:
            values = np.asarray(loaded.dataobj)
        values = values.reshape(*values.shape[:3], -1)[..., :taken]
    with np.errstate(over="ignore"):
        largest = float(np.linalg.norm(affine[:3, :3], axis=0).max())
    if not (np.isfinite(affine).all() and np.isfinite(largest)):
        raise DownloadError(f"{path.name}: its affine holds what is no number. Expected millimetres; mend the header.")
    if largest > _LARGEST_VOXEL_MM:
        notes = (f"voxels larger than any scanner's: is the header's unit right? ({largest:g} mm, unit {unit})",)
    return StoredVolume(values, affine, count, notes)


def axial_count(path: Path) -> int:
    """How many axial slices `read_volume` will have, from the header alone.

    Raises:
        DownloadError: If it is no volume.
    """
    import nibabel as nib

    with decoding(path.name, "no NIfTI volume that can be read"):
        loaded: Any = nib.load(path)
        axes = nib.orientations.io_orientation(loaded.affine)[:, 0].tolist()
        _check_size(path, loaded.shape, 1)
        return int(loaded.shape[axes.index(2)])


def in_ras(
    name: str, values: np.ndarray, affine: Float64[np.ndarray, "4 4"]
) -> tuple[np.ndarray, Float64[np.ndarray, "4 4"]]:
    """Axes flipped and swapped so that they run to the right, anterior and superior as nearly as they can.

    Raises:
        DownloadError: If the affine is flat, so that two axes are one.
    """
    import nibabel as nib

    edges = np.linalg.norm(affine[:3, :3], axis=0)
    if not edges.all() or abs(np.linalg.det(affine[:3, :3] / edges)) < _FLAT:
        raise DownloadError(f"{name}: its affine is flat, so where its voxels lie can't be known. Mend the header.")
    turn = nib.orientations.io_orientation(affine)
    turned = nib.orientations.apply_orientation(values, turn)
    return turned, affine @ nib.orientations.inv_ornt_aff(turn, values.shape[:3])


def display_range(volume: Volume, intensity: Intensity) -> tuple[float, float, tuple[str, ...]]:
    """Physical values shown black and white, for the whole volume, and what to note of them.

    Raises:
        DownloadError: If the manifest states no range: NIfTI has no display window of its own.
    """
    if intensity.mapping != "display":
        low, high, notes = stated_range(volume.name, volume.array, intensity)
        zeros = np.count_nonzero(volume.array == 0) / volume.array.size
        if intensity.mapping == "percentiles" and low < 0 < high and zeros >= _BACKGROUND_SHARE:
            notes += ("zero background amid the values (z-scores?) is shown grey",)
        return low, high, notes
    if volume.display is not None:
        return *volume.display, ()
    raise DownloadError(
        f"{volume.name}: a NIfTI volume has no display window of its own. Expected mapping = 'window' or "
        "'percentiles' in the manifest."
    )


def axial_picture(
    volume: Volume,
    index: int,
    *,
    intensity: Intensity,
    range_: tuple[float, float, tuple[str, ...]] | None = None,
) -> Picture:
    """An axial slice as radiologists look at it: anterior up, the patient's right on the left.

    Args:
        volume: RAS+.
        index: Of the slice, from inferior to superior.
        intensity: How values become 8 bits.
        range_: What `display_range` returned, so that it's computed once per volume.
    """
    low, high, notes = range_ or display_range(volume, intensity)
    pixels = to_8_bits(_upright(volume.array[:, :, index]).astype(np.float64), low, high)
    window = f"{intensity.mapping} {low:g}/{high:g}"
    return Picture(pixels, (volume.spacing_mm[1], volume.spacing_mm[0]), window, warnings=volume.warnings + notes)


def axial_mask(mask: Bool[np.ndarray, "x y z"], index: int) -> Bool[np.ndarray, "h w"]:
    """An axial slice of a mask, turned as `axial_picture` turns the image."""
    return _upright(mask[:, :, index])


def _check_size(path: Path, shape: tuple[int, ...], volumes: int) -> None:
    if len(shape) < 3 or min(shape) < 1 or volumes * np.prod(shape[:3], dtype=float) > MAX_VOXELS:
        raise DownloadError(
            f"{path.name}: {' × '.join(map(str, shape))} voxels. Expected a volume of three dimensions and at most "
            f"{MAX_VOXELS:,} voxels; convert it or leave it out."
        )


def _upright(plane: np.ndarray) -> np.ndarray:
    """(x to the right, y to the front) → rows from front to back, columns from the patient's right to left."""
    return np.ascontiguousarray(plane.T[::-1, ::-1])
