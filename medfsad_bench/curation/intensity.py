"""How the pixels of a user's own folder become 8 bits where its files leave that open: one choice for the whole set.

Files of 16 bits don't say how many of these a camera used. Shown by their full range, 12 used bits become 16 grey
levels; stretched image by image, exposure and disease would trade places. So the range of the bits that are in use in
the whole set is taken.
"""

from collections.abc import Sequence

from medfsad_bench.curation.options import IntensityChoice
from medfsad_bench.errors import CurationError, DownloadError
from medfsad_bench.layouts import Finding, RawImage
from medfsad_bench.layouts.finding import first_of
from medfsad_bench.manifest import IntensityRule, Manifest
from medfsad_bench.readers import extremes, is_dicom, range_in_use

_PERCENTILES = 0.0, 99.5


def own_intensity(
    manifest: Manifest, images: Sequence[RawImage], choice: IntensityChoice | None
) -> tuple[IntensityRule, list[Finding]]:
    """The rule for a user's own folder, and a finding where it was chosen by what the files hold.

    Args:
        manifest: The folder's, with the rule for what it holds otherwise.
        images: All that may take part.
        choice: `full`: by all bits that the files store. `used`: by the bits in use in the whole set. `percentiles`:
            each image from the 0th to the 99.5th of its non-zero values. None: `used` for PNG and TIFF; `full` where
            there is DICOM, whose BitsStored is meant to say it.

    Raises:
        CurationError: If `full` or `used` are asked of volumes.
    """
    if choice == "percentiles":
        low, high = _PERCENTILES
        return IntensityRule(mapping="percentiles", low=low, high=high, reason="--intensity percentiles"), []
    if manifest.slices is not None:
        if choice is None:
            return manifest.intensity, []
        raise CurationError(
            f"{manifest.name}: --intensity {choice} is for files that store bits; NIfTI volumes have no range of their "
            "own. Leave it out (each volume from the 0th to the 99.5th percentile of its non-zero voxels)."
        )
    if choice == "full":
        return manifest.intensity, []
    return _by_bits_in_use(manifest, images, choice)


def _by_bits_in_use(
    manifest: Manifest, images: Sequence[RawImage], choice: IntensityChoice | None
) -> tuple[IntensityRule, list[Finding]]:
    ids, lows, highs = [], [], []
    for path, image_id in {image.path: image.id for image in reversed(images)}.items():
        try:
            if choice is None and is_dicom(path):
                return manifest.intensity, []
            if ends := extremes(path):
                ids.append(image_id)
                lows.append(ends[0])
                highs.append(ends[1])
        except (DownloadError, OSError):  # it is quarantined once it's read
            continue
    if not ids:
        what = "no image has 16 bits and no window, so --intensity used changed nothing"
        return manifest.intensity, [Finding("intensity", manifest.name, what, stops=False)] if choice else []
    low, high = range_in_use(min(lows), max(highs))
    if choice is None and high == 65535:
        return manifest.intensity, []
    what = (
        f"{len(ids)} file(s) of 16 bits or more: all are shown from {low:g} to {high:g}, the range of the bits in use "
        "in the whole set; --intensity full or percentiles chooses otherwise"
    )
    rule = IntensityRule(low=low, high=high, reason="the bits in use in the whole set")
    return rule, [Finding("intensity", first_of(sorted(ids)), what, stops=False, ids=tuple(sorted(ids)[:4]))]
