"""NIfTI volumes, brought to RAS+ and shown the radiological way."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Float64

from medfsad_bench.errors import DownloadError
from medfsad_bench.readers.picture import Intensity, Picture, decoding, stated_range, to_8_bits

MAX_VOXELS = 100_000_000  # 11 times a BraTS volume; in memory 1.2 GB for a moment
_SAME_AFFINE_MM = 1e-2
_FLAT_MM3 = 1e-9  # volume of a voxel
_LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R BT.601


@dataclass(frozen=True, slots=True)
class Volume:
    """A scalar volume whose axes run to the patient's right, anterior and superior."""

    array: Float32[np.ndarray, "x y z"]  # physical values (slope and intercept applied)
    affine: Float64[np.ndarray, "4 4"]  # from voxel indices to millimetres (RAS+)
    spacing_mm: tuple[float, float, float]  # along the three axes
    warnings: tuple[str, ...]  # traps that were noticed
    name: str  # the file's, for messages
    display: tuple[float, float] | None = None  # values shown black and white where the file says so (colours)


def read_volume(path: Path) -> Volume:
    """Read a NIfTI file (`.nii`, `.nii.gz`, `.hdr` with `.img`).

    Of four dimensions the first volume is taken, of colours the luminance, and both are said in the warnings.

    Raises:
        DownloadError: If it can't be read, is larger than `MAX_VOXELS`, or holds neither numbers nor colours.
    """
    import nibabel as nib

    notes: list[str] = []
    with decoding(path.name, "no NIfTI volume that can be read"):
        loaded: Any = nib.load(path)
        _check_size(path, loaded.shape)
        image = nib.as_closest_canonical(nib.squeeze_image(loaded))
        if image.ndim == 4:
            notes.append(f"first of {image.shape[3]} volumes taken")
        values = np.asarray(image.dataobj[..., 0] if image.ndim == 4 else image.dataobj)
    display = None
    if values.dtype.names and {"R", "G", "B"} <= set(values.dtype.names):
        channels = np.stack([values[name] for name in "RGB"], axis=-1)
        values = channels.astype(np.float32) @ np.asarray(_LUMINANCE, np.float32)
        notes.append("colours shown as their luminance")
        display = (0.0, 255.0)
    if values.dtype.names or np.iscomplexobj(values) or values.ndim != 3:
        raise DownloadError(
            f"{path.name}: voxels of type {values.dtype} in {values.ndim} dimensions. Expected a scalar volume of "
            "three; convert it to grey values."
        )
    array = values.astype(np.float32)
    if not np.isfinite(array).all():
        notes.append("values that aren't numbers set to 0")
        array = np.nan_to_num(array, nan=0.0, posinf=0.0, neginf=0.0)
    x, y, z = (float(value) for value in np.linalg.norm(image.affine[:3, :3], axis=0))
    return Volume(array, np.asarray(image.affine, np.float64), (x, y, z), tuple(notes), path.name, display)


def read_volume_mask(path: Path, like: Volume) -> Bool[np.ndarray, "x y z"]:
    """Read a label volume on the grid of `like`; any label but zero is True.

    A mask of another grid is resampled (nearest neighbour, SimpleITK) if it overlaps.

    Raises:
        DownloadError: If it can't be read or doesn't overlap.
    """
    mask = read_volume(path)
    if mask.array.shape == like.array.shape and np.allclose(mask.affine, like.affine, atol=_SAME_AFFINE_MM):
        return np.asarray(mask.array != 0, bool)
    return _resampled(mask, like)


def display_range(volume: Volume, intensity: Intensity) -> tuple[float, float]:
    """Physical values shown black and white, for the whole volume.

    Raises:
        DownloadError: If the manifest states no range: NIfTI has no display window of its own.
    """
    if intensity.mapping != "display":
        return stated_range(volume.name, volume.array, intensity)
    if volume.display is not None:
        return volume.display
    raise DownloadError(
        f"{volume.name}: a NIfTI volume has no display window of its own. Expected mapping = 'window' or "
        "'percentiles' in the manifest."
    )


def axial_picture(
    volume: Volume, index: int, *, intensity: Intensity, range_: tuple[float, float] | None = None
) -> Picture:
    """An axial slice as radiologists look at it: anterior up, the patient's right on the left.

    Args:
        volume: RAS+.
        index: Of the slice, from inferior to superior.
        intensity: How values become 8 bits.
        range_: What `display_range` returned, so that it's computed once per volume.
    """
    low, high = range_ or display_range(volume, intensity)
    pixels = to_8_bits(_upright(volume.array[:, :, index]).astype(np.float64), low, high)
    window = f"{intensity.mapping} {low:g}/{high:g}"
    return Picture(pixels, (volume.spacing_mm[1], volume.spacing_mm[0]), window, warnings=volume.warnings)


def axial_mask(mask: Bool[np.ndarray, "x y z"], index: int) -> Bool[np.ndarray, "h w"]:
    """An axial slice of a mask, turned as `axial_picture` turns the image."""
    return _upright(mask[:, :, index])


def _check_size(path: Path, shape: tuple[int, ...]) -> None:
    if len(shape) < 3 or min(shape) < 1 or np.prod([float(length) for length in shape[:3]]) > MAX_VOXELS:
        raise DownloadError(
            f"{path.name}: {' × '.join(map(str, shape))} voxels. Expected a volume of three dimensions and at most "
            f"{MAX_VOXELS:,} voxels; convert it or leave it out."
        )


def _upright(plane: np.ndarray) -> np.ndarray:
    """(x to the right, y to the front) → rows from front to back, columns from the patient's right to left."""
    return np.ascontiguousarray(plane.T[::-1, ::-1])


def _resampled(mask: Volume, like: Volume) -> Bool[np.ndarray, "x y z"]:
    import SimpleITK as sitk

    resampler = sitk.ResampleImageFilter()
    resampler.SetInterpolator(sitk.sitkNearestNeighbor)
    resampler.SetDefaultPixelValue(-1)  # outside the mask's field of view
    for volume in (mask, like):
        if abs(np.linalg.det(volume.affine[:3, :3])) < _FLAT_MM3:
            raise DownloadError(
                f"{volume.name}: its affine is flat, so {mask.name} can't be brought to the grid of {like.name}. "
                "Expected an affine in millimetres; mend the header."
            )
    resampler.SetReferenceImage(_itk(like, sitk))
    labels = sitk.GetArrayFromImage(resampler.Execute(_itk(mask, sitk))).transpose(2, 1, 0)
    if (labels < 0).all():
        raise DownloadError(
            f"{mask.name}: the mask doesn't overlap with {like.name}. Expected the same patient and space; "
            "download both again."
        )
    return np.asarray(labels > 0, bool)


def _itk(volume: Volume, sitk: "object") -> "object":
    labels = (volume.array != 0).astype(np.float32)  # any label but zero, negative ones too
    image = sitk.GetImageFromArray(labels.transpose(2, 1, 0))  # type: ignore[attr-defined]
    lps = np.diag([-1.0, -1.0, 1.0]) @ volume.affine[:3, :]
    image.SetSpacing(volume.spacing_mm)
    image.SetOrigin(lps[:, 3].tolist())
    image.SetDirection((lps[:, :3] / np.asarray(volume.spacing_mm)).ravel().tolist())
    return image
