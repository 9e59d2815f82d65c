"""What is known of the supports before any new image is looked at: threshold, colour scale, and who is unlike the rest.

read → adapt → leave each one out → threshold, scale, audit
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from medfsad_bench.curation.staging import Loaded
from medfsad_bench.errors import DownloadError
from medfsad_bench.layouts import RawImage
from medfsad_bench.method import Method
from medfsad_bench.own_images.comparable import Likeness
from medfsad_bench.own_images.detector import MOST_LEFT_OUT, Detector
from medfsad_bench.own_images.inputs import LeftOut
from medfsad_bench.own_images.pictures import MapScale, map_scale
from medfsad_bench.own_images.reading import Pixels, Reader
from medfsad_bench.own_images.threshold import SupportThreshold, support_threshold
from medfsad_bench.runner.context import LocalContext

BLANK = 1.0  # contrast of 127.5 below which a picture shows nothing
_SIGNIFICANCE = 0.05  # of Grubbs' test
_FEWEST = 3  # supports that Grubbs' test takes


@dataclass(frozen=True)
class Support:
    """K normal images and all that follows from them alone.

    Attributes:
        images: Those that could be read.
        facts: What is known of each.
        pixels: Of each.
        detector: Adapted to them.
        left_out: Score of each by a detector of the others; NaN where it wasn't left out.
        threshold: Set from these scores.
        scale: Colours of maps; None where the method gives no maps.
        likeness: What they look like.
        notes: What a user should know of them.
        suspects: Why a support may not be normal, by its id.
    """

    images: list[RawImage]
    facts: list[Loaded]
    pixels: Pixels
    detector: Detector
    left_out: Float64[np.ndarray, " k"]
    threshold: SupportThreshold
    scale: MapScale | None
    likeness: Likeness
    notes: list[str]
    suspects: dict[str, str]


def read_supports(images: Sequence[RawImage], reader: Reader) -> tuple[list[RawImage], list[Loaded], list[LeftOut]]:
    """The supports that can be used, what is known of each, and why the others can't.

    A file that is there twice counts once: a copy left out would be scored by itself.

    Raises:
        DownloadError: If none can be used.
    """
    loaded = reader.read(images)
    left_out, usable, id_by_key = [], [], dict[tuple[str, int | None, int], str]()
    for image in images:
        facts = loaded[image.id]
        key = facts.sha256, image.slice_index, image.frame
        if facts.problem:
            left_out.append(LeftOut(image.id, facts.problem))
        elif facts.contrast < BLANK:
            left_out.append(LeftOut(image.id, "blank: hardly any contrast, so that nothing is seen in it"))
        elif key in id_by_key:
            left_out.append(LeftOut(image.id, f"the same file as {id_by_key[key]}, which counts once"))
        else:
            id_by_key[key] = image.id
            usable.append(image)
    if not usable:
        why = "; ".join(f"{item.name}: {item.reason}" for item in left_out[:3])
        raise DownloadError(
            f"--support: none of {len(images)} image(s) can be used ({why}). Name readable, normal ones."
        )
    return usable, [loaded[image.id] for image in usable], left_out


def support_of(
    images: list[RawImage],
    facts: list[Loaded],
    pixels: Pixels,
    method: Method,
    context: LocalContext,
    *,
    level: float,
) -> Support:
    """Adapt a method to supports and leave each one out.

    Args:
        images: The supports.
        facts: What is known of each.
        pixels: Of each.
        method: Trained, if it trains.
        context: Lent to it.
        level: False-positive rate that is asked for.
    """
    groups = [image.patient for image in images]
    detector = Detector(method, context, pixels, groups)
    left_out = detector.left_out()
    threshold = support_threshold(left_out.scores, groups, level=level)
    maps, source = left_out.maps, "supports, each left out once"
    if maps is None:
        maps, source = detector.answer(np.ascontiguousarray(pixels[:, :, ::-1])).maps, "the supports' mirror images"
    return Support(
        images,
        facts,
        pixels,
        detector,
        left_out.scores,
        threshold,
        None if maps is None else map_scale(maps, source),
        Likeness(pixels, context),
        _notes(images, facts),
        suspects(left_out.scores, [image.id for image in images]),
    )


def suspects(left_out: Float64[np.ndarray, " k"], ids: Sequence[str]) -> dict[str, str]:
    """Supports whose leave-one-out score stands out: they may not be normal.

    Source: Grubbs, "Sample criteria for testing outlying observations", 1950; one-sided, the highest score alone.

    >>> list(suspects(np.array([1.0, 1.1, 0.9, 1.0, 5.0]), list("abcde")))
    ['e']
    """
    kept = left_out[np.isfinite(left_out)]
    count = len(kept)
    spread = float(kept.std(ddof=1)) if count >= _FEWEST else 0.0
    if spread <= 0:
        return {}
    from scipy.stats import t as student

    quantile = float(student.ppf(1 - _SIGNIFICANCE / count, count - 2))
    limit = (count - 1) / count**0.5 * (quantile**2 / (count - 2 + quantile**2)) ** 0.5
    highest = int(np.nanargmax(left_out))
    stands_out = float((kept.max() - kept.mean()) / spread)
    if stands_out <= limit:
        return {}
    why = (
        f"look at this image: it may not be normal. By the others it scores {left_out[highest]:.4g}, they lie around "
        f"{np.median(kept):.4g} (Grubbs {stands_out:.2f}, beyond {limit:.2f} at 5 %)"
    )
    return {ids[highest]: why}


def _notes(images: Sequence[RawImage], facts: Sequence[Loaded]) -> list[str]:
    notes = []
    groups = len({image.patient for image in images})
    if len(images) == 1:
        notes.append("The support is one image: nothing tells how normal images differ. Take several.")
    elif groups == 1:
        notes.append(f"All {len(images)} supports are of one patient or volume. Take several patients.")
    if len({item.channels for item in facts}) > 1:
        coloured = sum(item.channels == 3 for item in facts)
        notes.append(f"{coloured} of {len(facts)} supports are in colour, the others grey. Expected one kind.")
    shapes = [item.width / item.height for item in facts]
    if max(shapes) > _SHAPES_DIFFER * min(shapes):
        notes.append(
            f"The supports differ in proportions ({min(shapes):.2f} to {max(shapes):.2f} wide per high); each is "
            "squashed to a square. Expected one kind of picture."
        )
    if len({item.transfer_syntax != "" for item in facts}) > 1:
        notes.append("Some supports are DICOM and some aren't: are all shown by the same window?")
    if groups > MOST_LEFT_OUT:
        notes.append(f"{MOST_LEFT_OUT} of {groups} supports (or patients, volumes) were left out once, the first ones.")
    return notes


_SHAPES_DIFFER = 1.5
