"""A manifest for the user's own folder, made on the spot: half of the normals for training, the rest for testing."""

import re
from collections.abc import Sequence
from pathlib import Path

from medfsad_bench.curation.split import Candidate, choose_smaller
from medfsad_bench.layouts import RawImage
from medfsad_bench.manifest import OWN, IntensityRule, Labels, Manifest, SliceRule, Split

_VOLUMES = SliceRule(min_area=0.3, min_tumour_voxels=1, step=3)


def plain_manifest(root: Path, images: Sequence[RawImage], *, name: str = "") -> Manifest:
    """Describe a folder of a user's own.

    Where the download fixes sides (BMAD, MedIAnomaly) they are kept. Volumes become every third axial slice with at
    least 30 % of the largest slice's area, shown from the 0th to the 99.5th percentile of the volume's non-zero voxels;
    slices with a voxel of the mask are anomalous.

    Args:
        root: The folder.
        images: What lies in it; `own_split` counts them, once they were read.
        name: The set's; by default the folder's, see `reduced_name`.
    """
    volumes = any(image.slice_index is not None or image.label in ("volume", "unlabelled") for image in images)
    sided = all(image.split for image in images)
    intensity = IntensityRule()
    if volumes:
        reason = "volumes of unknown unit: the range is taken per volume, never per slice"
        intensity = IntensityRule(mapping="percentiles", low=0.0, high=99.5, reason=reason)
    return Manifest(
        name=name or reduced_name(root.resolve().name),
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
        mask_kind="voxel" if any(image.masks for image in images) else "none",
        join_near_duplicates=not volumes and not sided,
        labels=Labels(normal=("normal",), anomalous=("tumour",) if volumes else ("anomalous",)),
        slices=_VOLUMES if volumes else None,
        intensity=intensity,
        benchmarks={OWN: Split(train=1, test_normal=1, test_anomalous=1, upstream=sided)},
    )


def reduced_name(name: str) -> str:
    """A folder's name as a set's.

    >>> reduced_name("Ward 3 (new)")
    'ward_3_new'
    """
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") or OWN


def own_split(name: str, candidates: Sequence[Candidate], *, sided: bool) -> Split:
    """Counts of a user's own images: the download's sides, else half of the normals, or what whole groups can fill.

    Args:
        name: The set's.
        candidates: All that have a label and could be read, if they were read already.
        sided: Whether the download fixes the sides.
    """
    normal = [candidate for candidate in candidates if not candidate.anomalous]
    train = sum(candidate.side == "train" for candidate in normal) if sided else len(normal) // 2
    split = Split(
        train=max(1, train),
        test_normal=max(1, len(normal) - train),
        test_anomalous=max(1, len(candidates) - len(normal)),
        upstream=sided,
    )
    if sided or len({candidate.group for candidate in candidates}) == len(candidates):
        return split
    _, counts = choose_smaller(name, candidates, split)
    if not counts:
        return split
    return Split(train=counts["train", False], test_normal=counts["test", False], test_anomalous=counts["test", True])
