"""A manifest for the user's own folder, made on the spot: half of the normals for training, the rest for testing."""

import re
from collections.abc import Sequence
from pathlib import Path

from medfsad_bench.manifest import Labels, Manifest, Split
from medfsad_bench.sources.raw import RawImage

OWN = "own"  # the benchmark that such files go under, so that they never stand among a benchmark's own sets


def plain_manifest(root: Path, images: Sequence[RawImage]) -> Manifest:
    """Describe a folder with `normal/` and `anomalous/`.

    Args:
        root: The folder; its name, reduced to a–z, 0–9 and _, becomes the set's.
        images: What lies in it.
    """
    normal = sum(image.label == "normal" for image in images)
    anomalous = len(images) - normal
    name = re.sub(r"[^a-z0-9]+", "_", root.resolve().name.lower()).strip("_") or "own"
    counts = Split(
        train=max(1, normal // 2), test_normal=max(1, normal - normal // 2), test_anomalous=max(1, anomalous)
    )
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
        rule="Half of the normal images for training; groups are near-duplicates, as the folder names no patients.",
        layout="plain",
        mask_kind="voxel" if any(image.mask for image in images) else "none",
        join_near_duplicates=True,
        labels=Labels(normal=("normal",), anomalous=("anomalous",)),
        benchmarks={OWN: counts},
    )
