"""`medfsad score`: a folder of new images against a few normal ones.

    find images → read the supports → adapt, leave each one out → score block by block → tables and report

What is finished is kept beside `out` until all is done, so that the same command goes on where it was; then the folder
appears whole.
"""

import dataclasses
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from medfsad_bench import __version__
from medfsad_bench.curation.options import Watcher
from medfsad_bench.errors import CurationError, MetricError
from medfsad_bench.estimates.thresholds import LEVEL
from medfsad_bench.files import whole_folder, write_advice, write_json
from medfsad_bench.layouts import RawImage
from medfsad_bench.own_images.blocks import BlockOptions, Row, scored_rows
from medfsad_bench.own_images.dicom_maps import DicomForm, check_form, dicom_maps
from medfsad_bench.own_images.inputs import Inputs, LeftOut, SliceChoice, images_in, together
from medfsad_bench.own_images.labels import labelled_figures, labels_of
from medfsad_bench.own_images.reading import Reader, ReadingOptions
from medfsad_bench.own_images.report import write_report
from medfsad_bench.own_images.sources import check_sources, threshold_with_sources
from medfsad_bench.own_images.support import Support, read_supports, support_of
from medfsad_bench.own_images.table import SCORES, scores_table, write_tables
from medfsad_bench.own_images.trained import (
    DEFAULT_METHOD,
    MethodOptions,
    TrainedMethod,
    trained_method,
    without_supports,
)
from medfsad_bench.results.identity import digest_of
from medfsad_bench.runner.context import denormals_flushed
from medfsad_bench.store import Dataset

SETTINGS = "settings.json"
_MANY = 1000  # images beyond which the report's pictures are smaller
_THUMBNAIL_PX, _SMALL_THUMBNAIL_PX = 192, 112


@dataclass(frozen=True, slots=True)
class ScoreOptions:
    """What the user asked for.

    Attributes:
        support: Normal images, or folders of them.
        images: What is scored.
        out: Folder to write.
        method: Which one, and how it is set.
        reading: How pixels are made.
        slices: Of volumes.
        level: False-positive rate that is asked for.
        sources: Folder of prepared sets whose normals help to set the threshold.
        plain_maps: Whether to write maps as 16-bit PNG too.
        dicom_map: In which form the maps of DICOM images are handed over; None takes the usual one if it can be had.
        labels: CSV with the labels of images, where there are any.
        with_ids: Whether the patients of DICOM headers stand in table and report.
        command: As it was typed, for the report.
    """

    support: Sequence[Path]
    images: Sequence[Path]
    out: Path
    method: MethodOptions = field(default_factory=lambda: MethodOptions(DEFAULT_METHOD))
    reading: ReadingOptions = ReadingOptions()  # noqa: RUF009 - frozen
    slices: SliceChoice = SliceChoice()  # noqa: RUF009
    level: float = LEVEL
    sources: Path | None = None
    plain_maps: bool = False
    dicom_map: DicomForm | None = None
    labels: Path | None = None
    with_ids: bool = False
    command: str = ""


@dataclass(frozen=True)
class Outcome:
    """A folder that was scored.

    Attributes:
        table: One line per image, as `scores.csv` has it.
        left_out: What wasn't scored.
        settings: All that the scores depend on, and what the threshold promises.
        done_before: Whether it was there already.
    """

    table: pd.DataFrame
    left_out: list[LeftOut]
    settings: dict[str, Any]
    done_before: bool = False


def score_folder(options: ScoreOptions, watcher: Watcher) -> Outcome:
    """Score images against supports, and write scores, heat maps and a report into `options.out`.

    Raises:
        DownloadError: If there are no supports or no images.
        MethodError: If the method can't be had, or isn't for this.
        MetricError: If none of the images can be scored.
        CurationError: If `options.out` holds something else, or can't be written.
    """
    work = options.out.with_name(f".{options.out.name}.unfinished")
    try:
        with denormals_flushed():
            return _scored(options, watcher, work)
    except OSError as error:
        raise CurationError(
            f"--out {options.out}: can't be written ({error.strerror or error}). {write_advice(error)} What was scored "
            "is kept: the same command goes on from there."
        ) from error


def _scored(options: ScoreOptions, watcher: Watcher, work: Path) -> Outcome:
    check_form(options.dicom_map)
    support_inputs = _inputs(options.support, "--support", options, watcher, work / "unpacked-support")
    inputs = _inputs(options.images, "--images", options, watcher, work / "unpacked-images")
    labels = labels_of(options.labels, inputs.images) if options.labels else {}
    reader = Reader(support_inputs.images, options.reading, work / "staging-support")
    watcher.start("reading the supports", len(support_inputs.images))
    images, facts, unusable = read_supports(support_inputs.images, reader)
    pixels = reader.pixels(images)
    watcher.start("making the method ready", 0)
    trained = trained_method(options.method, shots=len(images), digests=[item.sha256 for item in facts])
    digests = [item.sha256 for item in facts]
    sources, holding = (
        without_supports(options.sources, options.method.benchmark, digests) if options.sources else ([], [])
    )
    check_sources(sources, options.reading.size_px)
    settings = _settings(options, trained, images, digests, inputs, reader, labels, sources)
    if (before := _done_before(options.out, settings)) is not None:
        shutil.rmtree(work, ignore_errors=True)
        return before
    folder = work / settings["key"][:16]
    with trained.memory_told():
        support = support_of(images, facts, pixels, trained.method, trained.context, level=options.level)
        if options.sources:
            threshold = threshold_with_sources(support.threshold, sources, trained, shots=len(images))
            support = dataclasses.replace(support, threshold=threshold)
        settings |= _said_of(support, reader, trained, [*support_inputs.left_out, *unusable])
        settings["notes"] += [f"{name} holds supports, so it doesn't help to set the threshold." for name in holding]
        trained.new_images_follow()
        watcher.start("scoring", len(inputs.images))
        new = Reader(support_inputs.images, options.reading, folder / "staging")
        thumbnail_px = _THUMBNAIL_PX if len(inputs.images) <= _MANY else _SMALL_THUMBNAIL_PX
        handover, said = dicom_maps(options.dicom_map, inputs.images, new, support.scale, settings["key"])
        settings["notes"] += said
        block_options = BlockOptions(options.plain_maps, thumbnail_px, handover)
        rows = list(scored_rows(inputs.images, support, new, folder, block_options, watcher.advance))
    if handover and (missing := sum("dicom" not in row for row in rows if not row["left_out"])):
        settings["notes"].append(f"{missing} maps couldn't be written as DICOM: the table's warnings say why.")
    outcome = _outcome(rows, support, inputs, settings, with_ids=options.with_ids)
    scored = [row for row in rows if not row["left_out"]]
    ids = [row["id"] for row in scored]
    patients = {image.id: image.patient for image in inputs.images}
    figures = labelled_figures(outcome.table, ids, labels, patients) if labels else []
    outcome.settings["figures"] = dict(figures)
    with whole_folder(options.out) as finished:
        write_tables(outcome.table, finished)
        write_report(
            finished / "report.html",
            outcome.table,
            scored,
            support,
            outcome.settings,
            outcome.left_out,
            figures,
            thumbnail_px=thumbnail_px,
        )
        write_json(finished / SETTINGS, outcome.settings)
        for part in ("overlays", "maps", "dicom"):
            if (folder / "result" / part).is_dir():
                shutil.move(folder / "result" / part, finished / part)
    shutil.rmtree(work, ignore_errors=True)
    return outcome


def _inputs(named: Sequence[Path], option: str, options: ScoreOptions, watcher: Watcher, unpack_to: Path) -> Inputs:
    return images_in(
        named,
        options.slices,
        option=option,
        unpack_to=unpack_to,
        on_start=watcher.start,
        on_done=watcher.advance,
    )


def _settings(
    options: ScoreOptions,
    trained: TrainedMethod,
    support: Sequence[RawImage],
    digests: Sequence[str],
    inputs: Inputs,
    reader: Reader,
    labels: Mapping[str, str],
    sources: Sequence[Dataset],
) -> dict[str, Any]:
    """All that determines the scores and pictures, and a key made of it."""
    states = {image.id: f"{image.path.stat().st_size} {image.path.stat().st_mtime_ns}" for image in inputs.images}
    determining = {
        "medfsad": __version__,
        "method": trained.identity,
        "supports": {image.id: digest for image, digest in zip(support, digests, strict=True)},
        "size_px": options.reading.size_px,
        "crop": options.reading.crop,
        "intensity": reader.rules,
        "slices": dataclasses.asdict(options.slices),
        "level": options.level,
        **({"sources": {source.name: source.attributes["content_digest"] for source in sources}} if sources else {}),
        "maps": options.plain_maps,
        **({"dicom_map": options.dicom_map} if options.dicom_map else {}),
        "with_ids": options.with_ids,
        "labels": labels,
    }
    key = digest_of([determining, states])
    return {"key": key, "command": options.command, "images_found": len(inputs.images), **determining}


def _done_before(out: Path, settings: Mapping[str, Any]) -> Outcome | None:
    """What lies in the folder if the same command made it; None if it is empty or isn't there.

    Raises:
        CurationError: If it holds something else.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    try:
        stored = json.loads((out / SETTINGS).read_text("utf-8"))
        if stored["key"] == settings["key"]:
            left_out = [LeftOut(**item) for item in stored["left_out"]]
            return Outcome(pd.read_parquet((out / SCORES).with_suffix(".parquet")), left_out, stored, done_before=True)
        what = "the scores of other images or settings"
    except (OSError, ValueError, KeyError, TypeError):
        what = "something else"
    raise CurationError(
        f"--out {out} holds {what}. Expected a new or empty folder, so that nothing is lost; name another one, or "
        "remove that one first."
    )


def _said_of(support: Support, reader: Reader, trained: TrainedMethod, unusable: Sequence[LeftOut]) -> dict[str, Any]:
    """What the settings say beside what determines the scores."""
    threshold = support.threshold
    return {
        "trained_on": trained.trained_on,
        "threshold": threshold.value,
        "level": threshold.level,
        "promise": threshold.promise,
        "left_out_scores": [None if np.isnan(score) else float(score) for score in support.left_out],
        "map_colours": support.scale.words if support.scale else "the method gives no maps",
        "map_png": _png_words(support),
        "notes": [*reader.notes, *support.notes, *trained.notes],
        "suspects": support.suspects,
        "unusable_supports": [dataclasses.asdict(item) for item in together(unusable)],
    }


def _png_words(support: Support) -> str:
    if support.scale is None:
        return ""
    low, high = support.scale.png_range
    return f"16-bit maps: 0 is {low:.6g}, 65535 is {high:.6g}, linear between; what lies beyond is clipped"


def _outcome(
    rows: Sequence[Row], support: Support, inputs: Inputs, settings: dict[str, Any], *, with_ids: bool
) -> Outcome:
    unscored = [LeftOut(row["id"], row["left_out"]) for row in rows if row["left_out"]]
    left_out = together([*inputs.left_out, *unscored])
    said = [dataclasses.asdict(item) for item in left_out]
    scored = [row for row in rows if not row["left_out"]]
    if not scored:
        why = "; ".join(f"{item.name}: {item.reason}" for item in left_out[:3])
        raise MetricError(f"--images: none of {len(rows)} image(s) can be scored ({why}). Name readable images.")
    table = scores_table(scored, support.threshold, with_ids=with_ids)
    return Outcome(table, left_out, settings | {"n_left_out": len(inputs.left_out) + len(unscored), "left_out": said})
