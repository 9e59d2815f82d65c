"""`medfsad.score`: images in memory or in files against a few normal ones, without writing anything."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float32

from medfsad_bench.errors import DownloadError
from medfsad_bench.estimates.thresholds import LEVEL
from medfsad_bench.layouts import RawImage
from medfsad_bench.own_images.detector import Detector
from medfsad_bench.own_images.inputs import LeftOut, SliceChoice, images_in
from medfsad_bench.own_images.reading import Pixels, Reader, ReadingOptions
from medfsad_bench.own_images.support import read_supports
from medfsad_bench.own_images.threshold import SupportThreshold, support_threshold
from medfsad_bench.own_images.trained import DEFAULT_METHOD, MethodOptions, trained_method
from medfsad_bench.readers import resize_square
from medfsad_bench.runner.context import denormals_flushed


@dataclass(frozen=True, slots=True, eq=False)
class ScoredImages:
    """What a method says of new images.

    Attributes:
        table: One line per image: image (path or number), score, percentile, flagged.
        maps: Float32 (n, size, size), smoothed; None where the method gives none.
        threshold: From the supports alone; its `promise` says what the level means.
        left_out: Why a file isn't scored, by its name.
    """

    table: pd.DataFrame
    maps: Float32[np.ndarray, "n s s"] | None
    threshold: SupportThreshold
    left_out: dict[str, str]


def score(
    method: str = DEFAULT_METHOD,
    support: Any = None,
    images: Any = None,
    *,
    size: int = 256,
    level: float = LEVEL,
    preset: str = "paper",
    settings: dict[str, Any] | None = None,
    device: str = "auto",
    seed: int = 0,
    checkpoint: str | Path | None = None,
) -> ScoredImages:
    """Score images against a few normal ones; research use, not a medical device.

    Args:
        method: A name of the registry.
        support: K normal images: paths (files, folders, zip files), arrays or tensors. Arrays are (h, w), (h, w, 3) or
            a stack of these, tensors (n, 3, h, w); of uint8, or of floating point in [0, 1].
        images: The images to score, in any of these forms.
        size: Edge to which images are squashed, px.
        level: Share of new normals that may be flagged; few supports raise it.
        preset: Of the method.
        settings: Fields of its config.
        device: auto, cpu, cuda or cuda:N.
        seed: Of what the method draws at random.
        checkpoint: Weights of a method that trains.

    Raises:
        DownloadError: If there are no images, or they aren't of such a form.
        MethodError: If the method can't be had.

    >>> rng = np.random.default_rng(0)
    >>> normal = rng.integers(90, 110, (4, 32, 32), dtype=np.uint8)
    >>> odd = normal[:1].copy()
    >>> odd[0, 8:16, 8:16] = 250
    >>> result = score("pixel_distance", normal, odd, size=32, device="cpu")
    >>> result.table["flagged"].tolist(), result.threshold.level
    ([True], 0.2)
    """
    with denormals_flushed(), tempfile.TemporaryDirectory() as folder:
        names, groups, pixels, _ = _pixels(support, "support", size, Path(folder), None)
        options = MethodOptions(
            method,
            preset=preset,
            settings=settings or {},
            device=device,
            seed=seed,
            checkpoint=None if checkpoint is None else Path(checkpoint),
        )
        trained = trained_method(options, shots=len(names))
        detector = Detector(trained.method, trained.context, pixels, groups)
        threshold = support_threshold(detector.left_out().scores, groups, level=level)
        names, _, pixels, left_out = _pixels(images, "images", size, Path(folder), support)
        answer = detector.answer(pixels)
    table = pd.DataFrame({"image": names, "score": answer.scores})
    table["percentile"] = threshold.percentiles(answer.scores)
    table["flagged"] = threshold.flags(answer.scores)
    return ScoredImages(table, answer.maps, threshold, left_out)


def _pixels(
    given: Any, what: str, size: int, folder: Path, support: Any
) -> tuple[list[str], list[str], Pixels, dict[str, str]]:
    """Names, groups and pixels of images, and why files are left out; `support` fixes how files are shown."""
    if given is None or (not isinstance(given, str | Path) and len(given) == 0):
        raise DownloadError(f"score: {what} holds no images. Expected paths, arrays or tensors of images.")
    paths = _paths(given)
    if paths is None:
        pixels = _from_arrays(given, what, size)
        names = [str(number) for number in range(len(pixels))]
        return names, names, pixels, {}
    inputs = images_in(paths, SliceChoice(), option=what, unpack_to=folder / f"zip-{what}")
    supports = _paths(support) if support is not None else None
    rule = (
        images_in(supports, SliceChoice(), option="support", unpack_to=folder / "zip-support") if supports else inputs
    )
    reader = Reader(rule.images, ReadingOptions(size), folder / what)
    usable, unusable = _usable(inputs.images, reader, is_support=what == "support")
    left_out = {item.name: item.reason for item in (*inputs.left_out, *unusable)}
    return [image.id for image in usable], [image.patient for image in usable], reader.pixels(usable), left_out


def _usable(images: Sequence[RawImage], reader: Reader, *, is_support: bool) -> tuple[list[RawImage], list[LeftOut]]:
    """Images that can be read, and why the others can't; of supports, copies are left out too."""
    if is_support:
        usable, _, unusable = read_supports(images, reader)
        return usable, unusable
    loaded = reader.read(images)
    return (
        [image for image in images if not loaded[image.id].problem],
        [LeftOut(image.id, loaded[image.id].problem) for image in images if loaded[image.id].problem],
    )


def _paths(given: Any) -> list[Path] | None:
    """The paths that were given; None for arrays."""
    if isinstance(given, str | Path):
        return [Path(given)]
    if isinstance(given, Sequence) and all(isinstance(item, str | Path) for item in given):
        return [Path(item) for item in given]
    return None


def _from_arrays(given: Any, what: str, size: int) -> Pixels:
    arrays = list(given) if isinstance(given, list | tuple) else _stack(_array(given), what)
    return np.stack([_squared(_array(array), what, size) for array in arrays])


def _stack(array: np.ndarray, what: str) -> list[np.ndarray]:
    """The images of a stack; a single image is a stack of one."""
    if array.ndim == 2 or (array.ndim == 3 and array.shape[-1] == 3 and array.shape[0] > 3):
        return [array]
    if array.ndim in (3, 4):
        return list(array)
    raise DownloadError(f"score: {what} is an array of shape {array.shape}. Expected images, or a stack of them.")


def _array(given: Any) -> np.ndarray:
    return given.detach().cpu().numpy() if hasattr(given, "detach") else np.asarray(given)


def _squared(array: np.ndarray, what: str, size: int) -> np.ndarray:
    if array.ndim == 3 and array.shape[0] in (1, 3) and array.shape[-1] != 3:
        array = array.transpose(1, 2, 0)  # as tensors have it
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[:, :, 0]
    if np.issubdtype(array.dtype, np.floating):
        if not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
            raise DownloadError(
                f"score: {what} has floating-point values beyond 0 and 1. Expected [0, 1]: scale them, or give uint8."
            )
        array = (array * 255 + 0.5).astype(np.uint8)
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[-1] != 3):
        raise DownloadError(
            f"score: {what} has an image of {array.dtype} and shape {array.shape}. Expected uint8, or floating point "
            "in [0, 1], of shape (h, w), (h, w, 3) or (3, h, w)."
        )
    squared = resize_square(np.ascontiguousarray(array), size)
    return np.repeat(squared[:, :, None], 3, axis=2) if squared.ndim == 2 else squared
