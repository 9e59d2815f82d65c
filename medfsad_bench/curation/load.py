"""From one raw file to stored pixels: read, map to 8 bits, resize, fingerprint. Runs in worker processes.

Each image is left in a staging folder as soon as it's done, so that a killed `prepare` goes on where it was and no
pixels travel between processes.
"""

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, fields, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from medfsad_bench.curation.duplicates import Fingerprint, fingerprint
from medfsad_bench.curation.field_of_view import cut_square, field_of_view
from medfsad_bench.errors import CurationError, DownloadError
from medfsad_bench.layouts import RawImage
from medfsad_bench.layouts.slides import read_holes, read_polygons
from medfsad_bench.readers import (
    Intensity,
    Picture,
    axial_mask,
    axial_picture,
    display_range,
    polygon_mask,
    read_mask,
    read_patches,
    read_picture,
    read_volume,
    read_volume_mask,
    resize_square,
)
from medfsad_bench.store.writer import Packed, packed_chunk


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """What is done to every image of a set."""

    intensity: Intensity
    size_px: int
    staging: Path
    keep_masks: bool
    channel: int | None = None  # of pictures that hold several sequences as colours
    crop: str = "none"  # or "fundus"


@dataclass(frozen=True, slots=True)
class Loaded:
    """What is known of an image once it has been read. Its pixels lie in the staging folder.

    `problem` is empty, or why the image is quarantined; then the other fields mean nothing.
    """

    id: str
    problem: str = ""
    sha256: str = ""
    height: int = 0
    width: int = 0
    channels: int = 1
    spacing_mm: tuple[float, float] | None = None
    window: str = ""
    transfer_syntax: str = ""
    header_patient: str = ""
    warnings: tuple[str, ...] = ()
    privacy: tuple[str, ...] = ()
    mask_area: float = -1.0  # share of the image; -1 where it has no mask
    commonest: float = 0.0  # share of the commonest grey level
    levels: int = 0  # grey levels that occur
    contrast: float = 0.0  # standard deviation of the stored pixels, 0…127.5
    prints: Fingerprint | None = None


def load_images(
    images: Sequence[RawImage], plan: LoadPlan, *, workers: int, on_done: Callable[[int], None]
) -> dict[str, Loaded]:
    """Read all images, with several processes if asked; the result is the same for any number of them.

    Args:
        images: Raw images; slices of one volume are read together.
        plan: What to do to each.
        workers: Number of processes; 1 reads in this one.
        on_done: Called with the number of images finished since the last call.
    """
    files: dict[Path, list[RawImage]] = defaultdict(list)
    for image in images:
        files[image.path].append(image)
    plan.staging.mkdir(parents=True, exist_ok=True)
    found: dict[str, Loaded] = {}
    for batch in _mapped(list(files.values()), plan, workers):
        found.update((item.id, item) for item in batch)
        on_done(len(batch))
    return found


def staged_pixels(
    plan: LoadPlan, image_id: str
) -> tuple[UInt8[np.ndarray, "h w c"], UInt8[np.ndarray, "mh mw"] | None]:
    """Pixels and mask of an image that was loaded."""
    with safe_open(_staged_path(plan, image_id), framework="np") as file:
        pixels = file.get_tensor("pixels")
        mask = file.get_tensor("mask") if "mask" in file.keys() else None  # noqa: SIM118 - it's no mapping
    return (pixels[:, :, None] if pixels.ndim == 2 else pixels), mask


def staged_chunks(plan: LoadPlan, image_id: str) -> Packed:
    """Pixels and mask of an image that was loaded, as the prepared file stores them."""
    with safe_open(_staged_path(plan, image_id), framework="np") as file:
        image = file.get_tensor("packed").tobytes()
        if "mask" not in file.keys():  # noqa: SIM118
            return Packed(image)
        height, width = file.get_slice("mask").get_shape()
        return Packed(image, file.get_tensor("packed_mask").tobytes(), (height, width))


def _mapped(jobs: list[list[RawImage]], plan: LoadPlan, workers: int) -> Iterator[list[Loaded]]:
    if workers <= 1 or len(jobs) < 2 * workers:
        yield from (_load_file(job, plan) for job in jobs)
        return
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        size = max(1, min(32, len(jobs) // (4 * workers)))
        chunks = [jobs[start : start + size] for start in range(0, len(jobs), size)]
        for future in as_completed([pool.submit(_load_files, chunk, plan) for chunk in chunks]):
            yield from future.result()


def _load_files(jobs: list[list[RawImage]], plan: LoadPlan) -> list[list[Loaded]]:
    return [_load_file(job, plan) for job in jobs]


def _load_file(images: list[RawImage], plan: LoadPlan) -> list[Loaded]:
    """All images of one file; a file that can't be read is one quarantined line an image."""
    try:
        key = _source_key(images[0])
        if images[0].region is not None:
            return _load_patches(images, key, plan)
        if images[0].slice_index is None:
            return [_load_picture(image, key, plan) for image in images]
        return _load_slices(images, key, plan)
    except DownloadError as error:
        return [Loaded(image.id, problem=str(error)) for image in images]
    except OSError as error:
        return [Loaded(image.id, problem=f"{image.path.name}: can't be read ({error})") for image in images]


def _load_picture(image: RawImage, key: str, plan: LoadPlan) -> Loaded:
    staged = _staged(plan, image, key)
    if staged:
        return staged
    picture = _one_channel(read_picture(image.path, intensity=plan.intensity, frame=image.frame), plan)
    mask = _mask(image, picture, plan)
    square = field_of_view(picture.pixels) if plan.crop == "fundus" else None
    if square is not None:
        picture = replace(picture, pixels=cut_square(picture.pixels, square))
        mask = cut_square(mask, square) if mask is not None else None
    return _finish(image, picture, mask, key, plan)


def _one_channel(picture: Picture, plan: LoadPlan) -> Picture:
    if plan.channel is None or picture.pixels.ndim == 2:
        return picture
    return replace(picture, pixels=np.ascontiguousarray(picture.pixels[:, :, plan.channel]))


def _load_slices(images: list[RawImage], key: str, plan: LoadPlan) -> list[Loaded]:
    staged = [_staged(plan, image, key) for image in images]
    if all(staged):
        return [item for item in staged if item]
    volume = read_volume(images[0].path)
    range_ = display_range(volume, plan.intensity)
    truth = read_volume_mask(images[0].mask, volume) if images[0].mask and plan.keep_masks else None
    done = []
    for image in images:
        index = image.slice_index or 0
        picture = axial_picture(volume, index, intensity=plan.intensity, range_=range_)
        mask = axial_mask(truth, index) if truth is not None else None
        done.append(_finish(image, picture, mask.astype(np.uint8) if mask is not None else None, key, plan))
    return done


def _load_patches(images: list[RawImage], key: str, plan: LoadPlan) -> list[Loaded]:
    staged = [_staged(plan, image, key) for image in images]
    if all(staged):
        return [item for item in staged if item]
    outlines = next((image.mask for image in images if image.mask is not None), None)
    polygons, holes = (read_polygons(outlines), read_holes(outlines)) if outlines else ([], [])
    regions = [image.region for image in images if image.region is not None]
    done = []
    for image, region, picture in zip(images, regions, read_patches(images[0].path, regions), strict=True):
        wanted = plan.keep_masks and image.mask is not None
        mask = polygon_mask(polygons, holes, region).astype(np.uint8) if wanted else None
        done.append(_finish(image, picture, mask, key, plan))
    return done


def _mask(image: RawImage, picture: Picture, plan: LoadPlan) -> UInt8[np.ndarray, "h w"] | None:
    if not plan.keep_masks:
        return None
    if image.boxes:
        return _filled_boxes(image, picture.pixels.shape[:2])
    if image.mask is None:
        return None
    mask = read_mask(image.mask)
    if mask.shape != picture.pixels.shape[:2]:
        raise DownloadError(
            f"{image.mask.name}: the mask is {mask.shape[1]} × {mask.shape[0]} px, its image "
            f"{picture.pixels.shape[1]} × {picture.pixels.shape[0]}. Expected the same size; download both again."
        )
    return mask.astype(np.uint8)


def _filled_boxes(image: RawImage, shape: tuple[int, ...]) -> UInt8[np.ndarray, "h w"]:
    mask = np.zeros(shape, np.uint8)
    height, width = shape
    for box in image.boxes:
        if box.x < -1 or box.y < -1 or box.x + box.width > width + 1 or box.y + box.height > height + 1:
            raise DownloadError(
                f"{image.path.name}: a box reaches from {box.x:g}, {box.y:g} to {box.x + box.width:g}, "
                f"{box.y + box.height:g}, beyond the {width} × {height} px of the image. Expected the original size; "
                "download the image again."
            )
        top, left = max(0, round(box.y)), max(0, round(box.x))
        mask[top : max(0, round(box.y + box.height)), left : max(0, round(box.x + box.width))] = 1
    return mask


def _finish(
    image: RawImage, picture: Picture, mask: UInt8[np.ndarray, "h w"] | None, key: str, plan: LoadPlan
) -> Loaded:
    pixels = resize_square(picture.pixels, plan.size_px)
    histogram = np.bincount((pixels if pixels.ndim == 2 else pixels[:, :, 1]).ravel(), minlength=256)
    loaded = Loaded(
        id=image.id,
        sha256=key,
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
    _stage(plan, loaded, pixels, mask if mask is not None and mask.any() else None)
    return loaded


def _source_key(image: RawImage) -> str:
    """SHA-256 of the image's file, of file and mask where there is one: what the stored pixels come from."""
    with image.path.open("rb") as file:  # in pieces: a slide has gigabytes
        digest = hashlib.file_digest(file, "sha256")
    if image.mask is not None:
        with image.mask.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _stage(plan: LoadPlan, loaded: Loaded, pixels: np.ndarray, mask: np.ndarray | None) -> None:
    known: dict[str, Any] = {k: v for k, v in asdict(loaded).items() if k != "prints"}
    # Packed here, where there are several of us.
    arrays = {"pixels": pixels, "packed": np.frombuffer(packed_chunk(pixels), np.uint8)}
    if mask is not None:
        arrays |= {"mask": mask, "packed_mask": np.frombuffer(packed_chunk(mask), np.uint8)}
    if loaded.prints is not None:
        arrays |= {f"print_{name}": np.asarray(value) for name, value in asdict(loaded.prints).items()}
    content = save({name: np.ascontiguousarray(array) for name, array in arrays.items()}, {"known": json.dumps(known)})
    path = _staged_path(plan, loaded.id)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:  # of our disk, not of the image: it must not end in quarantine
        raise CurationError(
            f"{plan.staging}: can't be written to ({error.strerror or error}). Expected room for about "
            f"{len(content) / 2**20:.1f} MiB an image; free some and run the same command again, it goes on."
        ) from error


def _staged(plan: LoadPlan, image: RawImage, key: str) -> Loaded | None:
    path = _staged_path(plan, image.id)
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="np") as file:
            known = json.loads((file.metadata() or {})["known"])
            prints = {name[6:]: file.get_tensor(name) for name in file.keys() if name.startswith("print_")}  # noqa: SIM118
    except (OSError, ValueError, KeyError, SafetensorError):  # torn by a crash of the machine
        return None
    if known.get("sha256") != key or set(prints) != {field.name for field in fields(Fingerprint)}:
        return None
    if {*known, "prints"} != {field.name for field in fields(Loaded)}:  # left by another version
        return None
    known["spacing_mm"] = tuple(known["spacing_mm"]) if known["spacing_mm"] else None
    known["warnings"], known["privacy"] = tuple(known["warnings"]), tuple(known["privacy"])
    return Loaded(**known, prints=Fingerprint(**prints))


def _staged_path(plan: LoadPlan, image_id: str) -> Path:
    return plan.staging / f"{hashlib.sha256(image_id.encode()).hexdigest()[:32]}.safetensors"
