"""`medfsad report` and `compare --out`: pages to hand over, as whoever reads them meets them."""

import re
import shutil
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_curve as sklearn_roc
from test_cli import Medfsad, medfsad  # noqa: F401 - a fixture
from test_runner import TOY, cell_of
from test_site_browser import CHROMIUM, Tab, browser  # noqa: F401 - a fixture

from medfsad_bench.board.report import cases
from medfsad_bench.board.report.words import CHECKS
from medfsad_bench.estimates.curves import precision_recall_curve, roc_curve
from medfsad_bench.estimates.image import score_matrix
from medfsad_bench.metrics.curve import precision_at_recall, score_curve
from medfsad_bench.registry import method_info
from medfsad_bench.results.run_folder import RunFolder
from medfsad_bench.runner.runner import Runner


@pytest.fixture(scope="module")
def runs(own_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A method of maps with masks, on two sets, and one of image scores."""
    folder = tmp_path_factory.mktemp("runs")
    runner = Runner("cpu")
    paths = {}
    for name, info, target in (
        ("maps", TOY, "ward_a"),
        ("no masks", TOY, "ward_b"),
        ("images", method_info("mean_distance"), "ward_a"),
        ("images, no masks", method_info("mean_distance"), "ward_b"),
    ):
        cell = cell_of(info, own_data, folder, target=target, save_maps=info is TOY)
        runner.run(cell)
        paths[name] = folder / cell.run_id
    return paths


def text_of(page: Path) -> str:
    html = page.read_text("utf-8")
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", html[html.index("</style>") :])).split())


@pytest.fixture
def report(medfsad: Medfsad, runs: dict[str, Path], own_data: Path) -> Any:  # noqa: F811
    def made(name: str, *options: object) -> tuple[Path, str]:
        code, out, err = medfsad("report", runs[name], "--data", own_data, *options)
        assert code == 0, err
        return Path(f"reports/{runs[name].name}.html"), out + err

    return made


def test_a_report_says_what_whoever_judges_a_run_asks(report: Any, runs: dict[str, Path]) -> None:
    page, printed = report("maps")
    row, text = RunFolder(runs["maps"]).row(), text_of(page)
    assert f"wrote {page}" in printed
    auroc = row.metrics["image_auroc"]
    for part in (
        f"{auroc.value:.3f} [{auroc.low:.3f}, {auroc.high:.3f}]",
        row.membership_digest,
        row.content_digest,
        "medfsad run toy --target ward_a --shots 2 --preset quick --draws 3 --seed 0",
        "ms per image",
        "Worst misses",
        "FROC, mean of six rates",
        "They may show patients",
        "no licence or citation is stated",
        *(CHECKS[name] for name in row.checks),
    ):
        assert part in text
    html = page.read_text("utf-8")
    assert html.count("data:image/svg+xml") == 6, "ROC, PR, histogram, draws, FROC, strata"
    assert html.count("data:image/png") == 2
    assert not re.search(r"(?:src|href)=[\"'](?!data:|#)", html)


def test_every_check_has_words(runs: dict[str, Path]) -> None:
    assert set(CHECKS) == set(RunFolder(runs["maps"]).row().checks)


def test_a_report_needs_neither_maps_nor_masks_nor_images(report: Any, tmp_path: Path) -> None:
    page, _ = report("images, no masks")
    assert "Lesions" not in text_of(page)
    assert page.read_text("utf-8").count("data:image/png") == 2, "images are there, maps aren't"
    page, printed = report("images, no masks", "--no-pictures")
    assert "data:image/png" not in page.read_text("utf-8")
    assert "They may show patients" not in text_of(page)
    assert "on request" not in printed
    page, printed = report("maps", "--data", tmp_path / "elsewhere")
    assert "data:image/png" not in page.read_text("utf-8")
    for said in (printed, text_of(page)):
        assert "No pictures of images are inside" in " ".join(said.split())


def test_misses_are_anomalies_of_low_rank_one_per_group(runs: dict[str, Path]) -> None:
    matrix = score_matrix(RunFolder(runs["maps"]).scores())
    for chosen, anomalous, lowest in (
        (cases.worst_misses(matrix), True, True),
        (cases.worst_false_alarms(matrix), False, False),
    ):
        table = matrix.queries[matrix.anomalous == anomalous].assign(
            rank=cases.mean_ranks(matrix)[matrix.anomalous == anomalous]
        )
        assert len({case.group for case in chosen}) == len(chosen) == cases.EACH
        extreme = table["rank"].min() if lowest else table["rank"].max()
        assert chosen[0].rank == extreme
    assert (cases.mean_ranks(matrix).min(), cases.mean_ranks(matrix).max()) >= (0, 0)


def test_a_name_that_is_markup_stays_a_name(report: Any, runs: dict[str, Path], tmp_path: Path) -> None:
    odd = tmp_path / "odd"
    shutil.copytree(runs["images"], odd)
    scores = pd.read_parquet(odd / "scores.parquet")
    scores["id"] = "<script>alert(1)</script>" + scores["id"].astype(str)
    scores.to_parquet(odd / "scores.parquet", index=False)
    runs["odd"] = odd
    shutil.move(odd, odd := tmp_path / runs["images"].name)
    runs["odd"] = odd
    page, _ = report("odd", "--no-pictures")
    assert "<script" not in page.read_text("utf-8")


@pytest.mark.parametrize("wrong", ["nowhere", "unwritable"])
def test_what_cannot_be_reported_is_one_paragraph(
    medfsad: Medfsad,  # noqa: F811
    runs: dict[str, Path],
    tmp_path: Path,
    wrong: str,
) -> None:
    (tmp_path / "file").write_text("in the way", "utf-8")
    given = {"nowhere": ("nowhere",), "unwritable": (runs["images"], "--out", "file", "--no-pictures")}[wrong]
    code, _, err = medfsad("report", *given)
    assert code == 2
    assert err.startswith("Error: ")
    assert len(err.strip().split("\n\n")) == 1


def test_a_comparison_is_a_page_of_both_targets(medfsad: Medfsad, runs: dict[str, Path]) -> None:  # noqa: F811
    pair = runs["maps"], runs["images"]
    code, out, err = medfsad("compare", *pair, "--out", "pair.html")
    assert code == 0, err
    assert "toy (quick) minus mean_distance (quick)" in out
    text = text_of(Path("pair.html"))
    assert "Images that the two see most differently" in text
    assert text.count("medfsad run ") == 2
    folder = runs["maps"].parent
    code, _, err = medfsad("compare", "toy", "mean_distance", "--runs", folder, "--shots", 2, "--out", "all.html")
    assert code == 0, err
    text = text_of(Path("all.html"))
    assert "Mean, for other targets like these" in text
    assert text.count("Images that the two see most differently") == 2


@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=4, max_size=40))
def test_curves_are_exact_at_their_rates(items: list[tuple[int, bool]]) -> None:
    """ROC against scikit-learn's, precision against a loop over thresholds."""
    scores, labels = np.array([item[0] for item in items], float), np.array([item[1] for item in items])
    if labels.all() or not labels.any():
        return
    table = pd.DataFrame(
        {"draw": 0, "index": range(len(items)), "id": range(len(items)), "group": range(len(items)), "disease": ""}
    ).assign(anomalous=labels, score=scores)
    matrix = score_matrix(table)
    fpr, tpr, _ = sklearn_roc(labels, scores, drop_intermediate=False)
    for point in roc_curve(matrix):
        assert point.estimate.value == pytest.approx(tpr[fpr <= point.at + 1e-9].max())
    for point in precision_recall_curve(matrix):
        reached = [t for t in np.unique(scores)[::-1] if (scores[labels] >= t).mean() >= point.at - 1e-9]
        assert point.estimate.value == pytest.approx(labels[scores >= reached[0]].mean())


def test_precision_at_recall_by_hand() -> None:
    curve = score_curve(np.array([4.0, 3.0, 2.0, 1.0]), anomalous=np.array([True, False, True, False]))
    assert float(precision_at_recall(curve, recall=0.5)) == 1.0
    assert float(precision_at_recall(curve, recall=0.51)) == pytest.approx(2 / 3)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_pages_open_without_a_fault_for_everybody(
    report: Any,
    medfsad: Medfsad,  # noqa: F811
    runs: dict[str, Path],
    browser: Any,  # noqa: F811
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python")
    medfsad("compare", runs["maps"], runs["images"], "--out", "pair.html")
    for page in (report("maps")[0], Path("pair.html")):
        backgrounds = set()
        for scheme, width in (("light", 1280), ("dark", 360)):
            options = {"color_scheme": scheme, "viewport": {"width": width, "height": 800}}
            tab = Tab(browser, page.resolve().as_uri(), **options)
            violations = axe.Axe().run(tab.page).response["violations"]
            assert [v["id"] for v in violations if v["impact"] in ("serious", "critical")] == []
            assert tab.faults == []
            assert tab.page.evaluate("document.documentElement.scrollWidth") <= width
            assert tab.page.evaluate("[...document.images].every((image) => image.naturalWidth > 0)")
            backgrounds.add(tab.page.evaluate("getComputedStyle(document.body).backgroundColor"))
        assert len(backgrounds) == 2
        tab.page.keyboard.press("Tab")
        assert tab.page.evaluate("document.activeElement.className") == "skip"
        summary = tab.page.locator("summary").first
        summary.focus()
        tab.page.keyboard.press("Enter")
        assert tab.page.locator("details").first.get_attribute("open") is not None
        tab.page.emulate_media(media="print")
        assert tab.page.locator("h1").is_visible()
