"""`medfsad report`: a run as one page, for whoever has to judge it and has neither the run nor this program."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medfsad_bench.board.report import cases, figures
from medfsad_bench.board.report.page import rendered, write_page
from medfsad_bench.board.report.words import POINTS, checks_in_words, costs_of, points_of
from medfsad_bench.board.run_picture import check_made_with, drawn
from medfsad_bench.board.site.cells import command_of
from medfsad_bench.estimates.curves import froc_curve, precision_recall_curve, roc_curve
from medfsad_bench.estimates.estimate import Estimate
from medfsad_bench.estimates.image import ScoreMatrix, score_matrix
from medfsad_bench.estimates.thresholds import limits_of
from medfsad_bench.manifest import Manifest, all_manifests
from medfsad_bench.metrics.metric import BOX_METRICS, IMAGE_AUROC, IMAGE_METRICS, PIXEL_METRICS
from medfsad_bench.results.row import Row
from medfsad_bench.results.run_folder import RunFolder
from medfsad_bench.store import Dataset


@dataclass(frozen=True, slots=True)
class Images:
    """The prepared file that a run was made with, or why there is none at hand.

    Attributes:
        dataset: The file; None leaves pictures of images out.
        missing: Why there is none.
    """

    dataset: Dataset | None
    missing: str = ""


def write_run_report(run: Path, images: Images, path: Path) -> None:
    """Write the report whole or not at all.

    Args:
        run: Folder of a finished run.
        images: Of its target.
        path: HTML to write.

    Raises:
        ResultsError: If the run is unfinished or damaged, or was made with another prepared file.
        MetricError: If its scores allow no figure.
    """
    folder = RunFolder(run)
    row, matrix = folder.row(), score_matrix(folder.scores())
    aurocs = [IMAGE_AUROC.score(draw, matrix.anomalous) for draw in matrix.scores]
    typical = int(np.abs(np.array(aurocs) - np.mean(aurocs)).argmin())
    manifest = all_manifests().get(row.target) if row.benchmark != "own" else None
    html = rendered(
        "run.html.jinja",
        row=row,
        pictures=_pictures(folder, row, matrix, aurocs, typical),
        points=list(points_of(row)),
        checks=checks_in_words(row),
        costs=costs_of(row),
        of_images={name: value for name, value in row.metrics.items() if name in IMAGE_METRICS},
        lesions=_lesion_figures(row),
        strata=_strata(row),
        cases=_cases(folder, images, matrix, typical),
        typical=typical,
        draws=aurocs,
        data=_data_facts(row, manifest),
        licensed=manifest.licensed if manifest else True,
        missing=images.missing,
        command=command_of(row),
    )
    write_page(path, html)


def _pictures(
    folder: RunFolder, row: Row, matrix: ScoreMatrix, aurocs: list[float], typical: int
) -> dict[str, figures.Picture]:
    auroc = row.metrics[IMAGE_AUROC.name]
    share = float(matrix.anomalous.mean())
    limits = limits_of(folder.calibration(), target=row.target, draws=len(matrix.scores))[0]
    name = f"{row.method} on {row.target}"
    pictures = {
        "roc": figures.curve_picture(
            roc_curve(matrix, seed=row.seed),
            _operating_marks(row),
            axes=("false-positive rate (1 − specificity)", "sensitivity"),
            chance=((0, 0), (1, 1)),
            text=f"ROC curve of {name} with its 95 % band and operating points; image AUROC {auroc.value:.3f}",
        ),
        "precision": figures.curve_picture(
            precision_recall_curve(matrix, seed=row.seed),
            {},
            axes=("recall (sensitivity)", "precision"),
            chance=((0, share), (1, share)),
            text=f"Precision-recall curve of {name} with its 95 % band; chance is {share:.3f}",
        ),
        "histogram": figures.histogram_picture(
            matrix.scores[typical],
            matrix.anomalous,
            {f"threshold {POINTS[key]}": float(values[typical]) for key, values in limits.items()},
            text=f"Histogram of the image scores of draw {typical} by class, with the thresholds of that draw",
        ),
        "draws": figures.draws_picture(
            {row.method: aurocs},
            {row.method: auroc},
            text=f"Image AUROC of each of {len(aurocs)} support draws, and their mean with its 95 % interval",
        ),
    }
    if pixels := folder.pixels():
        points = froc_curve([draw.lesions for draw in pixels], matrix.groups, seed=row.seed)
        pictures["froc"] = figures.froc_picture(
            points, text="Share of lesions found at 1/4, 1/2, 1, 2, 4 and 8 false detections per image"
        )
    if strata := _strata(row):
        pictures["strata"] = figures.estimates_picture(
            {IMAGE_AUROC.title: auroc, **strata},
            label="image AUROC",
            neutral=0.5,
            text="Image AUROC by disease and by the size of the lesions, each against the normal images",
        )
    return pictures


def _operating_marks(row: Row) -> dict[str, tuple[Estimate, Estimate]]:
    """False-positive rate and sensitivity of the thresholds that were set without anomalies."""
    marks = {}
    for name, words in POINTS.items():
        if f"{name}_sensitivity" in row.secondary:
            of_normals = row.secondary[f"{name}_specificity"]
            low, high = (None if end is None else 1 - end for end in (of_normals.high, of_normals.low))
            marks[f"threshold {words}"] = (
                Estimate(value=1 - of_normals.value, low=low, high=high),
                row.secondary[f"{name}_sensitivity"],
            )
    return marks


def _lesion_figures(row: Row) -> dict[str, Estimate]:
    """All figures of where the anomaly is: of pixels, lesions and boxes, and by the size of the lesions."""
    names = {*PIXEL_METRICS, *BOX_METRICS}
    of_row = {name: estimate for name, estimate in row.metrics.items() if name in names}
    return of_row | {name: estimate for name, estimate in row.secondary.items() if name.partition("[")[0] in names}


def _strata(row: Row) -> dict[str, Estimate]:
    """AUROC by disease and lesion size."""
    prefix = f"{IMAGE_AUROC.name}["
    return {
        name.removeprefix(prefix).removesuffix("]"): estimate
        for name, estimate in row.secondary.items()
        if name.startswith(prefix)
    }


def _cases(folder: RunFolder, images: Images, matrix: ScoreMatrix, draw: int) -> list[Mapping[str, Any]]:
    """Misses and false alarms, each with a picture where the images are at hand."""
    chosen = {
        "Worst misses": (cases.worst_misses(matrix), "anomalous images that rank lowest, one per group"),
        "Worst false alarms": (cases.worst_false_alarms(matrix), "normal images that rank highest, one per group"),
    }
    shown: list[Mapping[str, Any]] = []
    for heading, (queries, words) in chosen.items():
        picture = None
        if images.dataset is not None:
            check_made_with(folder, images.dataset)
            ids = [query.id for query in queries]
            figure = drawn(folder, images.dataset, ids, draw=draw, with_maps=folder.has_maps(draw))
            picture = figures.png_picture(figure, text=f"{heading}: {', '.join(ids)}, each beside the supports")
        shown.append({"heading": heading, "words": words, "queries": queries, "picture": picture})
    return shown


def _data_facts(row: Row, manifest: Manifest | None) -> dict[str, str]:
    """Where the images come from, and on which terms."""
    if manifest is None:
        return {"data set": f"{row.target} {row.target_version}, the user's own; no licence or citation is stated"}
    return {
        "data set": f"{manifest.title} ({row.target} {row.target_version})",
        "licence": manifest.licence,
        "cite as": manifest.citation,
        "from": manifest.url,
    }
