"""The catalogue of metrics: complete, documented as it is, and true of what rows and pages hold."""

import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from board_rows import row_of

import medfsad_bench.metrics
from medfsad_bench.board.groups import groups
from medfsad_bench.board.pages import as_json, as_markdown
from medfsad_bench.board.terminal import as_tables
from medfsad_bench.estimates.estimate import Estimate
from medfsad_bench.metrics.metric import IMAGE_METRICS, METRICS, PIXEL_CURVE_METRICS, RANKING, Metric
from medfsad_bench.metrics.pixel import pixel_metrics
from medfsad_bench.metrics.ranks import pixel_ranks
from medfsad_bench.metrics.streaming import TOLERANCE
from medfsad_bench.results.row import Row

every_metric = pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS.keys())


@every_metric
def test_every_metric_has_bounds_a_direction_a_title_and_a_source(metric: Metric) -> None:
    assert -np.inf < metric.low < metric.high < np.inf
    assert isinstance(metric.higher_is_better, bool)
    assert metric.title
    assert metric.source
    assert METRICS[metric.name] is metric


@every_metric
def test_the_public_function_of_every_metric_has_a_doctest(metric: Metric) -> None:
    function = metric.score.func if isinstance(metric.score, partial) else metric.score
    assert function.__doc__ is not None
    assert ">>> " + function.__name__ in function.__doc__


@every_metric
def test_an_effect_size_is_of_an_area_under_a_roc_curve(metric: Metric) -> None:
    assert metric.has_effect_size == metric.name.endswith("_auroc")
    assert metric.smooth >= metric.has_effect_size


@pytest.mark.parametrize("metric", IMAGE_METRICS.values(), ids=IMAGE_METRICS.keys())
def test_direction_and_bounds_are_those_of_the_best_and_the_worst_detector(metric: Metric) -> None:
    """The best detector reaches the bound that the direction calls better; none leaves the bounds."""
    anomalous = np.arange(200) < 100
    best, worst = metric.score(1.0 * anomalous, anomalous), metric.score(-1.0 * anomalous, anomalous)
    assert best == (metric.high if metric.higher_is_better else metric.low)
    assert metric.low <= worst <= metric.high
    assert (best > worst) == metric.higher_is_better


def test_pixel_metrics_are_those_of_the_catalogue() -> None:
    maps, masks = np.random.default_rng(0).random((2, 8, 8)), np.zeros((2, 8, 8), dtype=bool)
    masks[0, 2:5, 2:4] = True
    values = pixel_metrics(pixel_ranks(maps, masks))
    assert list(values) == list(PIXEL_CURVE_METRICS) == list(TOLERANCE)
    assert values == {name: metric.score(maps, masks) for name, metric in PIXEL_CURVE_METRICS.items()}


def test_the_readme_lists_the_catalogue() -> None:
    """Paste the table from the failure's message where it is stale."""
    lines = ["| metric | in a row | bounds | better | source |", "|---|---|---|---|---|"]
    for metric in METRICS.values():
        better = "higher" if metric.higher_is_better else "lower"
        bounds = f"{metric.low:g} to {metric.high:g}"
        lines.append(f"| {metric.title} | `{metric.name}` | {bounds} | {better} | {metric.source} |")
    readme = (Path(medfsad_bench.metrics.__file__).parent / "README.md").read_text("utf-8")
    table = "\n".join(lines)
    assert table in readme, table


def test_the_readme_names_no_metric_that_is_not_in_the_catalogue() -> None:
    readme = (Path(medfsad_bench.metrics.__file__).parent / "README.md").read_text("utf-8")
    named = set(re.findall(r"`((?:image|pixel|aupro|aupimo|dice|froc|lesion|box|pointing)_[\w-]+)`", readme))
    assert {name for name in named if name not in METRICS} <= {"aupimo_scores", "image_fpr05"}


def row_with(method: str, target: str, **values: float) -> Row:
    """A row of a strict run with these metrics."""
    metrics = {name: Estimate(value=value, low=value - 0.01, high=value + 0.01) for name, value in values.items()}
    return row_of(method, target, 0.5, metrics=metrics)


@pytest.mark.parametrize(
    ("name", "order"), [("image_auroc", ["a", "b"]), ("image_fpr_at_tpr95", ["b", "a"]), ("pixel_auroc", ["b", "a"])]
)
def test_the_board_ranks_by_any_metric_in_its_direction(name: str, order: list[str]) -> None:
    """A set without the metric leaves its mean out, and the method unranked."""
    rows = [
        row_with("a", "x", image_auroc=0.9, image_fpr_at_tpr95=0.4, pixel_auroc=0.5),
        row_with("a", "y", image_auroc=0.8, image_fpr_at_tpr95=0.4),
        row_with("b", "x", image_auroc=0.7, image_fpr_at_tpr95=0.2, pixel_auroc=0.6),
        row_with("b", "y", image_auroc=0.8, image_fpr_at_tpr95=0.3, pixel_auroc=0.7),
    ]
    metric = METRICS[name]
    (board,) = groups(rows, metric=metric)
    assert [line.method for line in board.lines] == order
    assert board.lines[0].mean == pytest.approx(
        np.mean([row.metrics[name].value for row in rows if row.method == order[0]])
    )
    assert [line.rank for line in board.lines] == [1, None if name == "pixel_auroc" else 2]
    page = as_markdown([board], metric=metric)
    assert metric.title in page.lower().replace("auroc", "AUROC").replace("fpr at tpr", "FPR at TPR")
    assert ("–" in page) == (name == "pixel_auroc")
    assert metric.title in str(as_tables([board])[0].title)
    assert f'"mean_{name}"' in as_json([], [board])


def test_auroc_ranks() -> None:
    assert RANKING.name == "image_auroc"
    assert RANKING.title == "image AUROC"
