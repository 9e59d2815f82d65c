"""Label volumes on the grid of their image: which channel is the background, and where the voxels lie."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64, Shaped

from medfsad_bench.errors import DownloadError
from medfsad_bench.readers.mask_values import StoredMask, anomalous
from medfsad_bench.readers.nifti import Volume, in_ras, read_stored_volume

_SAME_GRID_VOXELS = 0.5  # largest shift of a corner within which voxels lie on each other one to one
_OUTSIDE_SHARE = 0.01  # of the image's voxels that the mask doesn't reach, from which that is noted
_LOST_SHARE = 0.5  # of the lesion's volume
_OUTSIDE = -1.0


@dataclass(frozen=True, slots=True)
class VolumeMask:
    """Which voxels of a volume are anomalous."""

    voxels: Bool[np.ndarray, "x y z"]
    warnings: tuple[str, ...] = ()
    contradiction: str = ""  # of a mask with the image's shape and another affine: both of these


def read_volume_masks(paths: Sequence[Path], like: Volume, *, one_to_one: bool = False) -> VolumeMask:
    """Read the label volumes of one image on its grid, united.

    Args:
        paths: One file or several.
        like: The image.
        one_to_one: Whether a mask of the image's shape is taken voxel by voxel where its affine says otherwise.

    Raises:
        DownloadError: As `read_volume_mask`.
    """
    masks = [read_volume_mask(path, like, one_to_one=one_to_one) for path in paths]
    warnings = dict.fromkeys(note for mask in masks for note in mask.warnings)
    contradictions = [mask.contradiction for mask in masks if mask.contradiction]
    return VolumeMask(np.logical_or.reduce([mask.voxels for mask in masks]), tuple(warnings), "; ".join(contradictions))


def read_volume_mask(path: Path, like: Volume, *, one_to_one: bool = False) -> VolumeMask:
    """Read one label volume on the grid of `like`; `medfsad_bench.readers.mask_values` says what its values mean.

    A mask of another grid is resampled (nearest neighbour, SimpleITK) as its affine says. Of several channels the first
    is the background where each voxel belongs to exactly one; where some belong to none, no channel is the background.

    Raises:
        DownloadError: If it can't be read, doesn't overlap, or its values or channels are of no kind that is known.
    """
    stored = read_stored_volume(path)
    labels, notes = _labels(path.name, stored.values)
    notes = (*stored.notes, *notes)
    affine, contradiction = stored.affine, ""
    turned, turned_affine = in_ras(path.name, labels, affine)
    if turned.shape == like.array.shape and _same_grid(turned_affine, like.affine, turned.shape):
        return VolumeMask(turned, notes)
    if labels.shape == like.stored_shape:
        contradiction = (
            f"the mask {path.name} has its image's shape, but the affine {_in_one_line(affine)}; the image's is "
            f"{_in_one_line(like.stored_affine)}. --allow mask-grid takes voxels one to one"
        )
        if one_to_one:
            turned, _ = in_ras(path.name, labels, like.stored_affine)
            return VolumeMask(turned, (*notes, "mask taken voxel by voxel, against its affine"), contradiction)
    resampled, more = _resampled(turned, turned_affine, like)
    if resampled is None and not contradiction:
        raise DownloadError(
            f"{path.name}: the mask doesn't overlap with {like.name}. Expected the same patient and space; download "
            "both again."
        )
    voxels = np.zeros(like.array.shape, bool) if resampled is None else resampled
    return VolumeMask(voxels, notes + more, contradiction)


def _labels(name: str, values: Shaped[np.ndarray, "x y z n"]) -> tuple[Bool[np.ndarray, "x y z"], tuple[str, ...]]:
    if values.dtype.names:
        if not {"R", "G", "B"} <= set(values.dtype.names):
            raise DownloadError(f"{name}: a mask of voxels of type {values.dtype}. Expected numbers or colours.")
        values = np.stack([values[channel] for channel in "RGB"], axis=-1).max(axis=-1)
    if np.iscomplexobj(values):
        raise DownloadError(f"{name}: a mask of complex numbers. Expected 0 and a label.")
    notes: tuple[str, ...] = ()
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
        notes = ("values that aren't numbers set to 0",)
    several = values.shape[3] > 1
    labels, more = _of_channels(name, values) if several else anomalous(name, StoredMask(values[..., 0]))
    return labels, notes + more


def _of_channels(name: str, values: Shaped[np.ndarray, "x y z n"]) -> tuple[Bool[np.ndarray, "x y z"], tuple[str, ...]]:
    """One channel per label: with a background channel (one-hot, softmax) or without."""
    count = values.shape[3]
    if values.min() < -1e-3 or values.max() > 1 + 1e-3:
        raise DownloadError(
            f"{name}: a mask of {count} volumes with values from {values.min():g} to {values.max():g}. Expected one "
            "volume of labels, or a channel per label with values from 0 to 1; write it so."
        )
    in_channel = values >= 0.5
    claims = np.count_nonzero(in_channel, axis=3)
    if (claims == 0).any():  # a background channel would claim these
        return claims > 0, (f"channels of a mask without background united ({count})",)
    sizes = np.count_nonzero(in_channel, axis=(0, 1, 2))
    if (claims != 1).any() or sizes[0] != sizes.max():
        raise DownloadError(
            f"{name}: a mask of {count} channels of which none can be told to be the background ({sizes.tolist()} "
            "voxels). Expected the background first, or no channel for it; write one volume of labels."
        )
    return ~in_channel[..., 0], (f"first channel of a mask taken as its background (of {count})",)


def _same_grid(affine: Float64[np.ndarray, "4 4"], other: Float64[np.ndarray, "4 4"], shape: tuple[int, ...]) -> bool:
    """Whether no corner of the volume lies further off than half of the smallest edge of a voxel."""
    ends = np.array([[0, length - 1] for length in shape])
    corners = np.array(np.meshgrid(*ends)).reshape(3, -1)
    shifts = np.linalg.norm((affine - other)[:3] @ np.vstack([corners, np.ones(8)]), axis=0)
    return bool(shifts.max() <= _SAME_GRID_VOXELS * np.linalg.norm(other[:3, :3], axis=0).min())


def _in_one_line(affine: Float64[np.ndarray, "4 4"]) -> str:
    return "[" + "; ".join(" ".join(f"{value:g}" for value in row) for row in affine[:3]) + "]"


def _resampled(
    mask: Bool[np.ndarray, "mx my mz"], affine: Float64[np.ndarray, "4 4"], like: Volume
) -> tuple[Bool[np.ndarray, "x y z"] | None, tuple[str, ...]]:
    """The mask on the image's grid, None where they don't overlap, and notes."""
    import SimpleITK as sitk

    voxels_mm3 = [abs(float(np.linalg.det(grid[:3, :3]))) for grid in (affine, like.affine)]
    resampler = sitk.ResampleImageFilter()
    resampler.SetInterpolator(sitk.sitkNearestNeighbor)
    resampler.SetDefaultPixelValue(_OUTSIDE)
    resampler.SetReferenceImage(_itk(np.zeros(like.array.shape, bool), like.affine, sitk))
    labels = sitk.GetArrayFromImage(resampler.Execute(_itk(mask, affine, sitk))).transpose(2, 1, 0)
    outside = float(np.mean(labels == _OUTSIDE))
    if outside == 1:
        return None, ()
    notes: tuple[str, ...] = ("mask resampled to the image's grid",)
    if outside > _OUTSIDE_SHARE:
        notes += (f"mask doesn't reach all of its image; what it leaves counts as normal ({outside:.0%})",)
    volumes_mm3 = mask.sum() * voxels_mm3[0], (labels > 0).sum() * voxels_mm3[1]
    if volumes_mm3[1] < _LOST_SHARE * volumes_mm3[0]:
        notes += (
            f"lesion of the mask lies mostly outside of the image ({volumes_mm3[1]:.0f} of {volumes_mm3[0]:.0f} mm³)",
        )
    return np.asarray(labels > 0, bool), notes


def _itk(voxels: Bool[np.ndarray, "x y z"], affine: Float64[np.ndarray, "4 4"], sitk: "object") -> "object":
    image = sitk.GetImageFromArray(voxels.astype(np.float32).transpose(2, 1, 0))  # type: ignore[attr-defined]
    lps = np.diag([-1.0, -1.0, 1.0]) @ affine[:3, :]
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(lps[:, 3].tolist())
    image.SetDirection((lps[:, :3] / spacing).ravel().tolist())
    return image
