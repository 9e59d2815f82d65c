"""From files to the pixels that a method sees: the readers, the intensity rules and the resizing of `prepare`."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import UInt8

from medfsad_bench.curation.intensity import own_intensity
from medfsad_bench.curation.load import LoadPlan, load_images
from medfsad_bench.curation.options import IntensityChoice
from medfsad_bench.curation.own_manifest import plain_manifest
from medfsad_bench.curation.staging import Loaded, staged_pixels
from medfsad_bench.layouts import RawImage
from medfsad_bench.readers import Intensity
from medfsad_bench.results.identity import digest_of

Crop = Literal["none", "fundus"]
Kind = Literal["volume", "picture"]  # a slice of one, or a picture or frame of its own
Pixels = UInt8[np.ndarray, "n s s 3"]


@dataclass(frozen=True, slots=True)
class ReadingOptions:
    """How pixels are made.

    Attributes:
        size_px: Edge of the square images.
        intensity: For 16-bit files without a window, as in `prepare`.
        crop: `fundus` cuts to the square around the field of view.
        workers: Processes that read.
    """

    size_px: int = 256
    intensity: IntensityChoice | None = None
    crop: Crop = "none"
    workers: int = 1


class Reader:
    """Reads images by rules that the supports alone fix, so that no image's pixels depend on another new image.

    Attributes:
        notes: What was chosen by what the supports hold.
    """

    def __init__(self, support: Sequence[RawImage], options: ReadingOptions, staging: Path) -> None:
        """Fix the rules.

        Args:
            support: Images that fix them.
            options: What the user asked for.
            staging: Folder that pixels pass through.

        Raises:
            CurationError: If an intensity is asked for that volumes don't have.
        """
        self.options = options
        self.notes: list[str] = []
        rules = [asdict(options), [str(image.path) for image in support]]
        self._staging = staging / digest_of(rules)[:12]  # what was read for other options isn't taken up
        volumes, pictures = ([image for image in support if kind_of(image) == kind] for kind in ("volume", "picture"))
        self._plans: dict[Kind, LoadPlan] = {
            "volume": self._plan(volumes or _ANY_VOLUME, given=bool(volumes)),
            "picture": self._plan(pictures, given=bool(pictures)),
        }

    def read(self, images: Sequence[RawImage], on_done: Callable[[int], None] = lambda _: None) -> dict[str, Loaded]:
        """What is known of each image by id; its pixels wait to be taken, or `problem` says why there are none."""
        loaded: dict[str, Loaded] = {}
        for kind, plan in self._plans.items():
            of_kind = [image for image in images if kind_of(image) == kind]
            loaded |= load_images(of_kind, plan, workers=self.options.workers, on_done=on_done)
        return loaded

    def pixels(self, images: Sequence[RawImage]) -> Pixels:
        """Pixels of images that were read, grey repeated to three channels."""
        size = self.options.size_px
        pixels = np.empty((len(images), size, size, 3), np.uint8)
        for row, image in enumerate(images):
            pixels[row] = staged_pixels(self._staging, image.id, channels=3)[0]
        return pixels

    def forget(self) -> None:
        """Remove the pixels of all that was read."""
        shutil.rmtree(self._staging, ignore_errors=True)

    def intensity(self, image: RawImage) -> Intensity:
        """How the values of an image become 8 bits."""
        return self._plans[kind_of(image)].intensity

    @property
    def rules(self) -> dict[str, str]:
        """How values become 8 bits, in words, by kind of file."""
        return {kind: _in_words(plan.intensity) for kind, plan in self._plans.items()}

    def _plan(self, images: Sequence[RawImage], *, given: bool) -> LoadPlan:
        manifest = plain_manifest(Path("own_images"), images, name="own_images")
        rule, findings = own_intensity(manifest, images, self.options.intensity) if given else (manifest.intensity, [])
        self.notes += [f"{finding.where}: {finding.what}" for finding in findings]
        return LoadPlan(
            intensity=Intensity(rule.mapping, rule.low, rule.high),
            size_px=self.options.size_px,
            staging=self._staging,
            keep_masks=False,
            crop=self.options.crop,
        )


def kind_of(image: RawImage) -> Kind:
    """What an image is a part of."""
    return "picture" if image.slice_index is None else "volume"


_ANY_VOLUME = (RawImage(id="", path=Path(), label="", patient="", slice_index=0),)


def _in_words(intensity: Intensity) -> str:
    if intensity.mapping == "percentiles":
        return f"from the {intensity.low:g}th to the {intensity.high:g}th percentile of the non-zero values"
    if intensity.low is not None and intensity.high is not None:
        return f"from {intensity.low:g} to {intensity.high:g}"
    return "8 bits as they are, DICOM through its own window, more bits by their full range"
