"""From one raw file to stored pixels: read, map to 8 bits, resize, fingerprint. Runs in worker processes."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from medfsad_bench.curation.duplicates import fingerprint
from medfsad_bench.curation.field_of_view import cut_square, field_of_view
from medfsad_bench.curation.staging import Loaded, stage, staged
from medfsad_bench.curation.workers import map_in_workers, map_on_cluster
from medfsad_bench.errors import DownloadError
from medfsad_bench.layouts import RawImage
from medfsad_bench.layouts.slides import read_polygons
from medfsad_bench.readers import (
    Intensity,
    Mask,
    Picture,
    axial_mask,
    axial_picture,
    display_range,
    polygon_mask,
    read_masks,
    read_patches,
    read_picture,
    read_volume,
    read_volume_masks,
    resize_square,
    turned,
)

_QUARTER_TURNS = (5, 6, 7, 8)  # of EXIF's orientations
_Marked = Bool[np.ndarray, "h w"]
_WithMask = tuple[RawImage, Picture, _Marked | None]


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """What is done to every image of a set."""

    intensity: Intensity
    size_px: int
    staging: Path
    keep_masks: bool
    channel: int | None = None  # of pictures that hold several sequences as colours
    crop: str = "none"  # or "fundus"
    one_to_one: bool = False  # masks of their volume's shape are taken voxel by voxel, whatever their affine says


def load_images(
    images: Sequence[RawImage],
    plan: LoadPlan,
    *,
    workers: int,
    on_cluster: bool = False,
    on_done: Callable[[int], None],
) -> dict[str, Loaded]:
    """Read all images into the staging folder, with several processes if asked; their number changes nothing.

    Args:
        images: Raw images; slices of one volume are read together.
        plan: What to do to each.
        workers: Number of processes; 1 reads in this one.
        on_cluster: Whether those of the joined cluster read instead.
        on_done: Called with the number of images finished since the last call.
    """
    files: dict[Path, list[RawImage]] = defaultdict(list)
    for image in images:
        files[image.path].append(image)
    loaded: dict[str, Loaded] = {}
    read = partial(_load_file, plan=plan)
    jobs = list(files.values())
    batches = (
        map_on_cluster(read, jobs) if on_cluster else map_in_workers(read, jobs, workers=workers, preload=__name__)
    )
    for batch in batches:
        loaded.update((item.id, item) for item in batch)
        on_done(len(batch))
    return loaded


def _load_file(images: list[RawImage], plan: LoadPlan) -> list[Loaded]:
    """All images of one file; if it can't be read, each of them is quarantined."""
    try:
        sha256 = _file_digest(images[0])
        earlier = {image.id: staged(plan.staging, image.id, sha256) for image in images}
        missing = [image for image in images if earlier[image.id] is None]
        pictures = _pictures(missing, plan, several=len(images) > 1)
        finished = [_finish(image, picture, mask, sha256, plan) for image, picture, mask in pictures]
        return [item for item in earlier.values() if item is not None] + finished
    except DownloadError as error:
        return [Loaded(image.id, problem=str(error)) for image in images]
    except OSError as error:
        return [Loaded(image.id, problem=f"{image.path.name}: can't be read ({error})") for image in images]


def _file_digest(image: RawImage) -> str:
    """SHA-256 of the image's file, of file and masks where there are any: what the stored pixels come from."""
    with image.path.open("rb") as file:  # in pieces: a slide has gigabytes
        digest = hashlib.file_digest(file, "sha256")
    for mask in image.masks:
        with mask.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _pictures(images: list[RawImage], plan: LoadPlan, *, several: bool) -> Iterator[_WithMask]:
    """Pictures and masks of the images of one file, which are all of one kind; `several` where these are its frames."""
    if images and images[0].region is not None:
        return _patches(images, plan)
    if images and images[0].slice_index is not None:
        return _slices(images, plan)
    return ((image, *_picture(image, plan, several=several)) for image in images)


def _patches(images: list[RawImage], plan: LoadPlan) -> Iterator[_WithMask]:
    outlines = next((mask for image in images for mask in image.masks), None)
    polygons, holes = read_polygons(outlines) if outlines else ([], [])
    regions = [image.region for image in images if image.region is not None]
    for image, region, picture in zip(images, regions, read_patches(images[0].path, regions), strict=True):
        wanted = plan.keep_masks and bool(image.masks)
        yield image, picture, polygon_mask(polygons, holes, region) if wanted else None


def _slices(images: list[RawImage], plan: LoadPlan) -> Iterator[_WithMask]:
    volume = read_volume(images[0].path)
    range_ = display_range(volume, plan.intensity)
    truth = None
    if images[0].masks and plan.keep_masks:
        truth = read_volume_masks(images[0].masks, volume, one_to_one=plan.one_to_one)
    for image in images:
        index = image.slice_index or 0
        picture = axial_picture(volume, index, intensity=plan.intensity, range_=range_)
        if truth is None:
            yield image, picture, None
        else:
            yield image, _noted(picture, truth.warnings), axial_mask(truth.voxels, index)


def _picture(image: RawImage, plan: LoadPlan, *, several: bool) -> tuple[Picture, _Marked | None]:
    picture = read_picture(image.path, intensity=plan.intensity, frame=image.frame if several else None)
    if plan.channel is not None and picture.pixels.ndim == 3:
        picture = replace(picture, pixels=np.ascontiguousarray(picture.pixels[:, :, plan.channel]))
    marked = None
    if plan.keep_masks and image.boxes:
        marked = _filled_boxes(image, picture.pixels.shape[:2])
    elif plan.keep_masks and image.masks:
        mask = _mask(image.masks, image, picture)
        picture, marked = _noted(picture, mask.warnings), mask.pixels
    square = field_of_view(picture.pixels) if plan.crop == "fundus" else None
    if square is None:
        return picture, marked
    cut = replace(picture, pixels=cut_square(picture.pixels, square))
    return cut, cut_square(marked, square) if marked is not None else None


def _mask(paths: Sequence[Path], image: RawImage, picture: Picture) -> Mask:
    """The masks of an image, united, the way up that the picture is."""
    mask = read_masks(paths, frame=image.frame, frames=picture.frames)
    shape = picture.pixels.shape[:2]
    if picture.orientation != 1 and mask.pixels.shape == shape:
        note = "image turned upright as EXIF says: whether its mask was drawn before can't be known; compare them"
        return replace(mask, warnings=(*mask.warnings, note))
    if mask.pixels.shape != shape and mask.pixels.shape == shape[::-1] and picture.orientation in _QUARTER_TURNS:
        note = "mask turned with its image, as EXIF says and its size shows"
        return Mask(turned(mask.pixels, picture.orientation), (*mask.warnings, note))
    if mask.pixels.shape != shape:
        raise DownloadError(
            f"{paths[0].name}: the mask is {mask.pixels.shape[1]} × {mask.pixels.shape[0]} px, its image "
            f"{shape[1]} × {shape[0]}. Expected the same size; mend or remove one of the two."
        )
    return mask


def _noted(picture: Picture, notes: tuple[str, ...]) -> Picture:
    return replace(picture, warnings=picture.warnings + notes) if notes else picture


def _filled_boxes(image: RawImage, shape: tuple[int, ...]) -> _Marked:
    mask = np.zeros(shape, bool)
    height, width = shape
    for box in image.boxes:
        left, top, right, bottom = box.x, box.y, box.x + box.width, box.y + box.height
        if left < -1 or top < -1 or right > width + 1 or bottom > height + 1:
            raise DownloadError(
                f"{image.path.name}: a box reaches from {left:g}, {top:g} to {right:g}, {bottom:g}, beyond the {width} "
                f"× {height} px of the image. Expected the original size; download the image again."
            )
        left, top, right, bottom = (max(0, round(end)) for end in (left, top, right, bottom))
        mask[top:bottom, left:right] = True
    return mask


def _finish(image: RawImage, picture: Picture, mask: _Marked | None, sha256: str, plan: LoadPlan) -> Loaded:
    """Resize, measure and stage."""
    pixels = resize_square(picture.pixels, plan.size_px)
    histogram = np.bincount((pixels if pixels.ndim == 2 else pixels[:, :, 1]).ravel(), minlength=256)
    loaded = Loaded(
        id=image.id,
        sha256=sha256,
        height=picture.pixels.shape[0],
        width=picture.pixels.shape[1],
        channels=1 if pixels.ndim == 2 else 3,
        spacing_mm=picture.spacing_mm,
        window=picture.window,
        transfer_syntax=picture.transfer_syntax,
        header_patient=picture.patient,
        warnings=picture.warnings,
        privacy=picture.privacy,
        mask_area=float(mask.mean()) if mask is not None else -1.0,
        contrast=float(pixels.std()),
        commonest=float(histogram.max() / histogram.sum()),
        levels=int((histogram > 0).sum()),
        prints=fingerprint(picture.pixels),
    )
    stage(plan.staging, loaded, pixels, mask.astype(np.uint8) if mask is not None and mask.any() else None)
    return loaded
