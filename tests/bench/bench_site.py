"""How long a site of many rows takes, what its first page weighs, and how long a choice in its filters lasts.

Rows are made up, without scores. Goals: 200 methods on 12 targets at 3 K with 8 metrics in less than 20 s, a choice in
less than 100 ms (in Chromium, where it and playwright are there); the board of 25 methods in 1.5 MB.

    PYTHONPATH=tests python tests/bench/bench_site.py [--methods 200] [--profile]
"""

import argparse
import cProfile
import pstats
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from board_rows import row_of

from medfsad_bench.board.site.build import write_site
from medfsad_bench.manifest import all_manifests
from medfsad_bench.metrics.metric import METRICS
from medfsad_bench.registry import all_methods
from medfsad_bench.results.row import Row

TARGETS, SHOTS, COUNTED = 12, (2, 4, 8), 8
GOAL_S, GOAL_MS, GOAL_MB = 20, 100, 1.5


def main() -> None:
    """Print seconds, megabytes and milliseconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", type=int, default=200)
    parser.add_argument("--profile", action="store_true", help="print where the time goes")
    options = parser.parse_args()
    rows = rows_of(options.methods)
    list(all_methods().values())  # PyTorch is loaded with them, whatever the number of rows
    with tempfile.TemporaryDirectory() as scratch:
        site = Path(scratch) / "site"
        profile = cProfile.Profile()
        started, worked = time.perf_counter(), time.process_time()
        if options.profile:
            profile.enable()
        pages = write_site(rows, {}, site)
        profile.disable()
        spent, worked = time.perf_counter() - started, time.process_time() - worked
        weight = (site / "index.html").stat().st_size / 1e6
        print(
            f"{options.methods} methods, {len(rows):,} rows: {pages:,} pages in {spent:.1f} s (goal {GOAL_S} for 200)"
        )
        print(f"of these {worked:.1f} s of one core")
        print(f"index.html: {weight:.2f} MB (goal {GOAL_MB} for 25 methods)")
        if options.profile:
            pstats.Stats(profile).sort_stats("cumulative").print_stats(35)
        for name, took in in_chromium(site / "index.html").items():
            print(f"{name}: {took:.0f} ms (goal {GOAL_MS})")


def rows_of(methods: int) -> list[Row]:
    """Rows of that many methods on `TARGETS` targets; a method is as good as its number says, and noisy."""
    rng = np.random.default_rng(0)
    metrics = [metric for metric in METRICS.values() if metric.high == 1 and metric.low == 0][:COUNTED]
    targets = list(all_manifests())[:TARGETS]
    rows = []
    for method in range(methods):
        for target in targets:
            for shots in SHOTS:
                values = np.clip(0.55 + 0.35 * method / methods + 0.05 * rng.normal(size=COUNTED), 0.06, 0.94)
                figures = {
                    metric.name: {"value": value, "low": value - 0.05, "high": value + 0.05, "draws_sd": 0.01}
                    for metric, value in zip(metrics, values.tolist(), strict=True)
                }
                name = f"method_{method:03d}"
                run = f"{name}-{target}-{shots}shot"
                rows.append(row_of(name, target, 0.5, shots=shots, run_id=run, metrics=figures))
    return rows


def in_chromium(page: Path) -> dict[str, float]:
    """`choices` in a browser of its own; empty where there is none."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return {}
    if chromium is None:
        return {}
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        took = choices(page, browser)
        browser.close()
    return took


def choices(page: Path, browser: Any) -> dict[str, float]:
    """Milliseconds of each kind of choice, median of five, from the event until the page is laid out anew.

    By the clock, and of the page's thread, which other work on the machine doesn't lengthen.
    """
    tab = browser.new_page()
    tab.goto(page.as_uri())
    session = tab.context.new_cdp_session(tab)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def spent_s() -> float:
        measured = {each["name"]: each["value"] for each in session.send("Performance.getMetrics")["metrics"]}
        return sum(measured[f"{part}Duration"] for part in ("Script", "RecalcStyle", "Layout"))

    values = {
        name: tab.eval_on_selector_all(f"select[name={name}] option", "all => all.map(one => one.value)")
        for name in ("shots", "metric")
    }
    timed = """([name, value]) => {
      const select = document.querySelector(`select[name=${name}]`);
      select.value = value;
      const started = performance.now();
      select.dispatchEvent(new Event("change", { bubbles: true }));
      document.body.getBoundingClientRect();
      return performance.now() - started;
    }"""
    took = {}
    for name, offered in values.items():
        by_clock, of_thread = [], []
        for number in range(5):
            before = spent_s()
            by_clock.append(tab.evaluate(timed, [name, offered[number % len(offered)]]))
            of_thread.append(1000 * (spent_s() - before))
        took[f"a choice of {name}, by the clock"] = statistics.median(by_clock)
        took[f"a choice of {name}, of the page's thread"] = statistics.median(of_thread)
    return took


if __name__ == "__main__":
    main()
