"""New images on their way from files to rows and pictures, block by block: what is done stays done.

read a block of files → score it → write its pictures → keep its rows
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8

from medfsad_bench.curation.staging import Loaded
from medfsad_bench.errors import DownloadError
from medfsad_bench.files import write_json
from medfsad_bench.layouts import RawImage
from medfsad_bench.own_images.detector import Answer, batch_size
from medfsad_bench.own_images.pictures import (
    in_proportion,
    overlay,
    plain_map,
    resized_map,
    save_png,
    thumbnail,
)
from medfsad_bench.own_images.reading import Reader
from medfsad_bench.own_images.support import BLANK, Support
from medfsad_bench.own_images.volumes import VolumeMap
from medfsad_bench.results.identity import digest_of

_BLOCK = 256  # images that are read before they are scored: so many lie on the disk meanwhile

Row = dict[str, Any]
Handover = Callable[[RawImage, np.ndarray, Path], str]
"""Writes an image's map in the form of its source below a folder, and says where; nothing where that isn't its form."""


@dataclass(frozen=True, slots=True)
class BlockOptions:
    """How images become rows.

    Attributes:
        plain_maps: Whether to write maps as 16-bit PNG too.
        thumbnail_px: Edge of the report's pictures.
        handover: Writes maps in the form of their source; None where nothing does.
    """

    plain_maps: bool
    thumbnail_px: int
    handover: Handover | None = None


def blocks_of(images: Sequence[RawImage]) -> list[list[RawImage]]:
    """Images of whole files, a block at a time: a volume is never parted."""
    blocks: list[list[RawImage]] = [[]]
    files: dict[Path, list[RawImage]] = {}
    for image in images:
        files.setdefault(image.path, []).append(image)
    for of_file in files.values():
        if blocks[-1] and len(blocks[-1]) + len(of_file) > _BLOCK:
            blocks.append([])
        blocks[-1] += of_file
    return blocks


def scored_rows(
    images: Sequence[RawImage],
    support: Support,
    reader: Reader,
    folder: Path,
    options: BlockOptions,
    on_done: Callable[[int], None],
) -> Iterator[Row]:
    """A row per image; pictures are in `folder/result` by then.

    Args:
        images: To score.
        support: What they are compared with.
        reader: Reads them.
        folder: Of work; blocks that were finished there aren't done again.
        options: How.
        on_done: Called with the number of images done since the last call.
    """
    supports = {facts.sha256: image.id for image, facts in zip(support.images, support.facts, strict=True)}
    for block in blocks_of(images):
        key = digest_of({image.id: _state(image.path) for image in block})
        kept = folder / "rows" / f"{key[:16]}.json"
        if kept.is_file():
            on_done(len(block))
            yield from json.loads(kept.read_text("utf-8"))["rows"]
            continue
        loaded = reader.read(block)
        rows = {image.id: _left_out_row(image, loaded[image.id], supports) for image in block}
        usable = [image for image in block if rows[image.id] is None]
        scored = _scored(usable, loaded, support, reader, folder / "result", options)
        finished = {row["id"]: row for row in _counted(scored, on_done)}
        on_done(len(block) - len(usable))
        ordered = [rows[image.id] or finished[image.id] for image in block]
        write_json(kept, {"rows": ordered})
        reader.forget()
        yield from ordered


def _state(path: Path) -> str:
    state = path.stat()
    return f"{path} {state.st_size} {state.st_mtime_ns}"


def _counted(rows: Iterator[Row], on_done: Callable[[int], None]) -> Iterator[Row]:
    for row in rows:
        on_done(1)
        yield row


def _left_out_row(image: RawImage, facts: Loaded, supports: Mapping[str, str]) -> Row | None:
    """Why an image isn't scored; None if it is."""
    reason = facts.problem
    if not reason and facts.sha256 in supports:
        reason = f"the same file as the support {supports[facts.sha256]}"
    if not reason and facts.contrast < BLANK:
        reason = "blank: hardly any contrast, so that nothing is seen in it"
    return {"id": image.id, "left_out": reason} if reason else None


def _scored(
    images: Sequence[RawImage],
    loaded: Mapping[str, Loaded],
    support: Support,
    reader: Reader,
    folder: Path,
    options: BlockOptions,
) -> Iterator[Row]:
    """Rows of images of whole files, one batch in memory at a time."""
    volume: tuple[Path, VolumeMap] | None = None
    step = batch_size(reader.options.size_px)
    for start in range(0, len(images), step):
        batch = images[start : start + step]
        pixels = reader.pixels(batch)
        answer = support.detector.answer(pixels)
        reasons, nearest = support.likeness.reasons(pixels), support.likeness.nearest(pixels)
        for number, image in enumerate(batch):
            row = _row(image, loaded[image.id], answer, number, reasons[number], nearest[number], support)
            anomaly_map = None if answer.maps is None else answer.maps[number]
            row |= _pictures(image, loaded[image.id], pixels[number], anomaly_map, support, folder, options)
            if anomaly_map is not None and image.slice_index is not None and support.scale is not None:
                if volume is None or volume[0] != image.path:
                    volume = image.path, VolumeMap(image.path)
                volume[1].fill(image.slice_index, anomaly_map)
                row["volume_map"] = f"maps/{_file_of(image)}_anomaly.nii.gz"
                if _is_last(image, images, start + number):
                    volume[1].save(folder / row["volume_map"], support.scale)
            yield row


def _is_last(image: RawImage, images: Sequence[RawImage], position: int) -> bool:
    """Whether an image is the last one of its file."""
    return position + 1 == len(images) or images[position + 1].path != image.path


def _file_of(image: RawImage) -> str:
    """A volume's name without `.nii.gz`."""
    return image.id.rpartition("#")[0].removesuffix(".gz").removesuffix(".nii")


def _row(
    image: RawImage, facts: Loaded, answer: Answer, number: int, reason: str, nearest: int, support: Support
) -> Row:
    weights = None if answer.weights is None else answer.weights[number]
    position = nearest if weights is None else int(weights.argmax())
    return {
        "id": image.id,
        "left_out": "",
        "file": image.id.rpartition("#")[0] if image.slice_index is not None or image.frames > 1 else image.id,
        "frame": image.frame if image.frames > 1 else None,
        "slice": image.slice_index,
        "patient": facts.header_patient,
        "score": float(answer.scores[number]),
        "not_comparable": reason,
        "nearest_support": support.images[position].id,
        "support_weight": None if weights is None else float(weights[position]),
        "warnings": "; ".join(facts.warnings),
        "sha256": facts.sha256,
    }


def _pictures(
    image: RawImage,
    facts: Loaded,
    pixels: UInt8[np.ndarray, "s s 3"],
    anomaly_map: Float32[np.ndarray, "s s"] | None,
    support: Support,
    folder: Path,
    options: BlockOptions,
) -> Row:
    """Write an image's pictures; returns their paths below `folder`, and small ones for the report."""
    size = facts.height, facts.width
    picture = in_proportion(pixels, *size, edge=len(pixels))
    written: Row = {"thumbnail": thumbnail(picture, options.thumbnail_px), "thumbnail_overlay": "", "overlay": ""}
    if anomaly_map is None or support.scale is None:
        return written
    covered = overlay(picture, resized_map(anomaly_map, *picture.shape[:2]), support.scale)
    written["overlay"] = f"overlays/{image.id.replace('#', '_')}.overlay.png"
    save_png(folder / written["overlay"], covered)
    written["thumbnail_overlay"] = thumbnail(covered, options.thumbnail_px)
    if options.plain_maps:
        written["map"] = f"maps/{image.id.replace('#', '_')}.map.png"
        save_png(folder / written["map"], plain_map(resized_map(anomaly_map, *size), support.scale))
    if options.handover is not None:
        try:
            written["dicom"] = options.handover(image, anomaly_map, folder)
        except DownloadError as error:
            written["warnings"] = "; ".join([*facts.warnings, str(error)])
    return written
