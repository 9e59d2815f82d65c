"""What a report says in words: protocol checks, operating points, time and memory."""

from collections.abc import Iterator

from medfsad_bench.estimates.estimate import Estimate
from medfsad_bench.results.row import Row

CHECKS = {
    "count": "Every test image has one score in every draw.",
    "finite": "Every score is a number.",
    "not constant": "Scores differ between images.",
    "shuffled labels": "With shuffled labels the metric says chance, so it sees nothing but the scores.",
    "order": "A score doesn't depend on the order of the test images.",
    "batch": "A score doesn't depend on the other images of its batch.",
    "alone": "An image alone gets the score that it has in company.",
    "duplicates": "A copy of an image among the test images changes no score.",
    "memory": "A method that was built anew gives the same scores: nothing is remembered of earlier images.",
    "supports": "No support shares a patient (group) with a test image.",
    "unseen": "The target, and what shares images with it, was not trained on.",
    "episodes": "The prepared file holds the images, groups and splits that its digest states.",
}
POINTS = {
    "operating_support": "from the supports alone",
    "operating_sources": "helped by other sets' normals",
}


def checks_in_words(row: Row) -> list[tuple[str, str, str]]:
    """Of each check what it asserts, its outcome (`passed`, `failed`, `open`), and the reason where there is one."""
    return [(CHECKS.get(name, name), *_outcome(text)) for name, text in row.checks.items()]


def points_of(row: Row) -> Iterator[tuple[str, dict[str, Estimate]]]:
    """Operating points of a row: what each is set from, with its rates by name."""
    for name, words in POINTS.items():
        rates = {
            key.removeprefix(f"{name}_"): estimate
            for key, estimate in row.secondary.items()
            if key.startswith(f"{name}_")
        }
        if rates:
            threshold = row.thresholds[name.removeprefix("operating_")]
            yield f"{words}, at a level of {100 * threshold.level:.3g} %", rates


def costs_of(row: Row) -> list[tuple[str, str]]:
    """Time and memory in words."""
    costs = []
    if row.pretrain_s:
        costs.append(("training", f"{row.pretrain_s:,.1f} s"))
    if row.adapt_s is not None:
        costs.append(("adapting to the supports (median of the draws)", f"{row.adapt_s:.2f} s"))
    if row.score_ms_per_image is not None:
        costs.append(("scoring", f"{row.score_ms_per_image:.1f} ms per image"))
    if row.peak_memory_mb is not None:
        costs.append(("highest memory of the process", f"{row.peak_memory_mb:,.0f} MB"))
    threads = f", {'/'.join(map(str, row.threads))} thread{'' if row.threads == (1,) else 's'}" if row.threads else ""
    costs.append(("made on", f"{row.device or 'a device that is not told'}{threads}, {row.date}"))
    return costs


def _outcome(text: str) -> tuple[str, str]:
    if text == "passed":
        return "passed", ""
    kind, _, reason = text.partition(": ")
    return ("open", reason or kind) if kind in ("not checked", "flagged") else ("failed", text)
