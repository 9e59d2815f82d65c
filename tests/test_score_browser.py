"""`report.html` of `medfsad score` in a browser, at a few images and at 5,000."""

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import Silent, write_own_folder
from test_site_browser import CHROMIUM, Tab, browser  # noqa: F401 - a fixture

from medfsad_bench.own_images.folder import ScoreOptions, score_folder
from medfsad_bench.own_images.reading import ReadingOptions
from medfsad_bench.own_images.trained import MethodOptions

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
CARDS = re.compile(r'(?<=id="cards">).*?(?=</script>)', re.DOTALL)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scored")
    write_own_folder(root, seed=5, masks=False, normal=6, anomalous=4)
    method = MethodOptions("pixel_distance", device="cpu")
    score_folder(
        ScoreOptions([root / "normal"], [root / "anomalous"], root / "out", method, ReadingOptions(64)), Silent()
    )
    return root / "out" / "report.html"


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 380)])
def test_the_report_is_readable_for_everybody(report: Path, browser: Any, scheme: str, width: int) -> None:  # noqa: F811
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python")
    tab = Tab(browser, report.as_uri(), color_scheme=scheme, viewport={"width": width, "height": 800})
    assert tab.faults == []
    assert [violation["id"] for violation in axe.Axe().run(tab.page).response["violations"]] == []
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= width
    tab.page.locator("#order").focus()
    tab.page.keyboard.press("ArrowDown")
    shown = tab.page.locator(".card .name").all_inner_texts()
    cards = json.loads(CARDS.search(report.read_text("utf-8"))[0])  # type: ignore[index]
    assert shown == [card["f"] for card in sorted(cards, key=lambda card: float(card["s"]))]


def test_on_paper_it_is_dark_on_light_and_has_no_controls(report: Path, browser: Any) -> None:  # noqa: F811
    tab = Tab(browser, report.as_uri(), color_scheme="dark")
    tab.page.emulate_media(media="print", color_scheme="dark")
    assert tab.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not tab.page.locator("form").first.is_visible()
    assert tab.page.locator(".card").first.is_visible()


def test_five_thousand_images_open_and_are_found(report: Path, browser: Any, tmp_path: Path) -> None:  # noqa: F811
    html = report.read_text("utf-8")
    few = json.loads(CARDS.search(html)[0])  # type: ignore[index]
    many = [{**few[number % 4], "f": f"image {number:04d}", "s": number / 5000} for number in range(5000)]
    page = tmp_path / "many.html"
    page.write_text(CARDS.sub(lambda _: json.dumps(many).replace("<", "\\u003c"), html), "utf-8")
    started = time.monotonic()
    tab = Tab(browser, page.as_uri())
    assert tab.page.inner_text("#count") == "5000 of 5000"
    assert tab.page.inner_text("#page") == "page 1 of 105"
    assert tab.page.locator(".card").count() == 48
    assert tab.page.locator(".card .name").first.inner_text() == "image 4999"
    tab.page.fill("#name", "image 0012")
    assert tab.page.locator(".card .name").all_inner_texts() == ["image 0012"]
    assert time.monotonic() - started < 30
    assert tab.faults == []
