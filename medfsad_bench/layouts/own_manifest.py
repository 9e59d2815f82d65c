"""A manifest for the user's own folder, made on the spot: half of the normals for training, the rest for testing."""

import re
from collections.abc import Sequence
from pathlib import Path

from medfsad_bench.layouts.raw import RawImage
from medfsad_bench.manifest import OWN, IntensityRule, Labels, Manifest, SliceRule, Split

_VOLUMES = SliceRule(min_area=0.3, min_tumour_voxels=1, step=3)


def plain_manifest(root: Path, images: Sequence[RawImage]) -> Manifest:
    """Describe a folder of a user's own.

    Where the download fixes sides (BMAD, MedIAnomaly) they are kept. Volumes become every third axial slice with at
    least 30 % of the largest slice's area, shown from the 0th to the 99.5th percentile of the volume's non-zero voxels;
    slices with a voxel of the mask are anomalous.

    Args:
        root: The folder; its name, reduced to a–z, 0–9 and _, becomes the set's.
        images: What lies in it; volumes are counted once they have become slices.
    """
    volumes = any(image.slice_index is not None or image.label in ("volume", "unlabelled") for image in images)
    name = re.sub(r"[^a-z0-9]+", "_", root.resolve().name.lower()).strip("_") or "own"
    sided = all(image.split for image in images)
    intensity = IntensityRule()
    if volumes:
        reason = "volumes of unknown unit: the range is taken per volume, never per slice"
        intensity = IntensityRule(mapping="percentiles", low=0.0, high=99.5, reason=reason)
    return Manifest(
        name=name,
        version="0.0.0",
        title=f"own folder {root.resolve().name}",
        organ="not stated",
        modality="not stated",
        disease="anomaly",
        licence="not stated",
        licensed=True,
        citation="",
        url="",
        obtain="",
        rule="The download's own sides."
        if sided
        else "Half of the normal images for training; groups as the download names them, joined with near-duplicates.",
        layout="plain",
        mask_kind="voxel" if any(image.mask for image in images) else "none",
        join_near_duplicates=not volumes and not sided,
        labels=Labels(normal=("normal",), anomalous=("tumour",) if volumes else ("anomalous",)),
        slices=_VOLUMES if volumes else None,
        intensity=intensity,
        benchmarks={OWN: own_split(images, sided=sided)},
    )


def own_split(images: Sequence[RawImage], *, sided: bool) -> Split:
    """Counts of a user's own images, by the sides that the download fixes or half and half."""
    normal = sum(image.label == "normal" for image in images)
    anomalous = sum(image.label in ("anomalous", "tumour") for image in images)
    if sided:
        train = sum(image.label == "normal" and image.split == "train" for image in images)
        return Split(
            train=max(1, train),
            test_normal=max(1, normal - train),
            test_anomalous=max(1, anomalous),
            upstream=True,
        )
    return Split(train=max(1, normal // 2), test_normal=max(1, normal - normal // 2), test_anomalous=max(1, anomalous))
