"""Figures where a table gives labels: the suite's, with intervals, one score per file."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from medfsad_bench.errors import DownloadError
from medfsad_bench.estimates.estimate import REPLICATES, Estimate
from medfsad_bench.estimates.image import image_estimates, score_matrix
from medfsad_bench.layouts import RawImage
from medfsad_bench.layouts.columns import columns_of
from medfsad_bench.layouts.own_table import WORDS, described_files
from medfsad_bench.layouts.table_file import read_table
from medfsad_bench.metrics.metric import IMAGE_METRICS
from medfsad_bench.metrics.resample import resampling


def labels_of(path: Path, images: Sequence[RawImage]) -> dict[str, str]:
    """Class (`normal` or `anomalous`) of each image by its id, as a table says; a volume's slices have that of it.

    Args:
        path: CSV with a column of files and one of labels.
        images: That are scored.

    Raises:
        DownloadError: If a column is missing, a label is unknown or contradicts another, or it names none of the files.
    """
    table = read_table(path)
    headers = columns_of(table)
    if missing := [what for what in ("path", "label") if what not in headers]:
        raise DownloadError(
            f"--labels {path}: no column tells the {' and the '.join(missing)}; it has "
            f"{', '.join(table.header) or 'no header'}. Expected columns `file` and `label`."
        )
    words = {line: row[headers["label"][0]] for line, row in table.rows.items()}
    if unknown := [line for line, word in words.items() if word.lower() not in WORDS]:
        raise DownloadError(
            f"--labels {path}, line {unknown[0]}: the label is {words[unknown[0]]!r}. Expected normal or anomalous "
            "(or 0 or 1, no or yes) in every row; rows of files without a label are left out of the table."
        )
    files = list(dict.fromkeys(image.path.absolute() for image in images))
    root = Path(os.path.commonpath([file.parent for file in files]))
    described, _ = described_files(table, root, files)
    labels = {image.id: described[path].label for image in images if (path := image.path.absolute()) in described}
    if not labels:
        raise DownloadError(
            f"--labels {path}: none of its {len(table.rows)} row(s) names one of the {len(files)} file(s) that are "
            "scored. Expected the files' names, or their paths below --images."
        )
    return labels


def labelled_figures(
    table: pd.DataFrame, ids: Sequence[str], labels: Mapping[str, str], patients: Mapping[str, str]
) -> list[tuple[str, str]]:
    """What the scores are worth by the labels, in words: names and values.

    The score of a file is the highest of its slices or frames, as its label is that of the whole; images that aren't
    comparable count too, by their scores.

    Args:
        table: See `scores_table`.
        ids: Of its images.
        labels: Class of an image, where it is known.
        patients: What images share that aren't independent.
    """
    labelled = table.assign(
        label=[labels.get(id_, "") for id_ in ids], group=[patients[id_] for id_ in ids], disease=""
    ).query("label != ''")
    by_file = labelled.groupby("file", sort=False)
    files = by_file.agg({"score": "max", "flagged": "any", "label": "first", "group": "first", "disease": "first"})
    scores = files.reset_index().assign(anomalous=files["label"].to_numpy() == "anomalous", draw=0)
    scores["index"] = np.arange(len(scores))
    anomalous = scores["anomalous"].to_numpy(bool)
    figures = [("Files with a label", f"{int((~anomalous).sum())} normal, {int(anomalous.sum())} anomalous")]
    if not anomalous.any() or anomalous.all():
        return [*figures, ("No figures", "they take normal and anomalous files")]
    matrix = score_matrix(scores)
    resampled = resampling(matrix.groups, matrix.anomalous, replicates=REPLICATES, seed=0)
    primary, _ = image_estimates(matrix, resampled)
    figures += [(IMAGE_METRICS[name].title, _in_words(estimate)) for name, estimate in primary.items()]
    flagged = scores["flagged"].to_numpy(bool)
    for name, of_class, correct in (
        ("Sensitivity at the threshold", anomalous, flagged),
        ("Specificity at the threshold", ~anomalous, ~flagged),
    ):
        figures.append((name, _share(int(correct[of_class].sum()), int(of_class.sum()))))
    return figures


def _in_words(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return f"{estimate.text} (too few patients or files for an interval)"
    return estimate.text


def _share(count: int, total: int) -> str:
    """A share with its Wilson interval, over files."""
    from scipy.stats import binomtest

    interval = binomtest(count, total).proportion_ci(0.95, "wilson")
    return f"{count / total:.3f} [{interval.low:.3f}, {interval.high:.3f}] ({count} of {total} files)"
