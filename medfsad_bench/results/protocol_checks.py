"""Protocol checks: what has to hold of every run before its row may stand on a board. Needs no torch and no method.

    count, finite, not constant      one usable score per query and draw
    shuffled labels                  the metric itself gives 0.5 where labels say nothing
    order, batch, alone, duplicates  some queries scored again in other company keep their scores
    memory                           so they do when a method that was built anew scores the last draw
    supports                         no support shares a group with a query
    unseen                           the target, and what shares images with it, wasn't trained on; where it is behind
                                     the method's weights the row is flagged, not failed: shown, and never ranked
    episodes                         the target's file holds the membership that its digest states

The outcome of a check is "passed", "not checked: why", "flagged: why", or the fault in one line.
"""

import json
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from medfsad_bench.manifest import OWN, all_manifests
from medfsad_bench.metrics.curve import Ranking, auroc
from medfsad_bench.store import Dataset
from medfsad_bench.store.integrity import membership_digest

PASSED = "passed"
RERUNS = {  # by check, what a score must not depend on
    "order": "the order of the queries",
    "batch": "the other images of the batch, or how many they are",
    "alone": "company: alone they differ",
    "duplicates": "duplicates among the queries",
    "memory": "what the method remembers of earlier queries and draws",
}
PERTURBED = "perturbed"  # queries whose pixels were moved by a rounding error, beside those of `alone`
NOT_STRICT = dict.fromkeys(RERUNS, "not checked: protocol published")
_SPREAD, _AMPLIFIED, _FLOAT = 5e-3, 10.0, 1e-6  # see `allowed_difference`
_SHUFFLES = 200


def check_scores(scores: pd.DataFrame, *, queries: int, draws: int, seed: int = 0) -> dict[str, str]:
    """Checks of the scores alone.

    Args:
        scores: Columns draw, index, score and anomalous.
        queries: Number of test images.
        draws: Number of support draws.
        seed: Of the shuffles.
    """
    outcomes = {"count": PASSED}
    counts = scores.groupby("draw")["index"].agg(["size", "nunique"])
    wrong = counts[(counts["size"] != queries) | (counts["nunique"] != queries)]
    if len(counts) != draws:
        outcomes["count"] = f"scores of {len(counts)} draws, expected {draws}"
    elif len(wrong):
        scored, unique = wrong.iloc[0]
        outcomes["count"] = f"draw {wrong.index[0]}: {scored} scores of {unique} queries, expected {queries} of each"
    values = scores["score"].to_numpy(float)
    bad = int((~np.isfinite(values)).sum())
    outcomes["finite"] = f"{bad} of {len(values)} scores aren't finite" if bad else PASSED
    distinct = scores.groupby("draw")["score"].nunique()
    constant = distinct.index[distinct < 2].tolist()
    outcomes["not constant"] = f"all scores of draw {constant[0]} are equal" if constant else PASSED
    if bad or scores["anomalous"].nunique() < 2:
        reason = "the scores are no numbers" if bad else "a class is missing"
        return outcomes | {"shuffled labels": f"not checked: {reason}"}
    first = scores[scores["draw"] == scores["draw"].min()]
    values, labels = first["score"].to_numpy(float), first["anomalous"].to_numpy(bool)
    rng = np.random.default_rng([seed, 40])
    shuffled = np.stack([rng.permutation(labels) for _ in range(_SHUFFLES)], axis=1).astype(np.float32)
    twice = Ranking.of(np.tile(values, 2), np.repeat([True, False], len(values)))  # each as both; its label weighs it
    mean = float(np.mean(auroc(twice.curve(np.concatenate([shuffled, 1 - shuffled])))))
    pairs = int(labels.sum()) * int((~labels).sum())
    allowed = 5 * np.sqrt((len(labels) + 1) / (12 * pairs) / _SHUFFLES)
    fault = f"shuffled labels give an AUROC of {mean:.3f}, expected 0.5 ± {allowed:.3f}"
    return outcomes | {"shuffled labels": fault if abs(mean - 0.5) > allowed else PASSED}


def check_reruns(reruns: pd.DataFrame, scores: pd.DataFrame) -> dict[str, str]:
    """Whether queries that were scored again kept their scores.

    Args:
        reruns: Columns rerun (a name of `RERUNS`, or `PERTURBED`), draw, index and score; may be empty.
        scores: The run's scores.
    """
    if not len(reruns):
        return dict.fromkeys(RERUNS, "not checked: the method isn't at hand, only its scores")
    allowed = allowed_difference(scores["score"].to_numpy(float), _responses(reruns))
    both = reruns.merge(scores[["draw", "index", "score"]], on=["draw", "index"], suffixes=("", "_first"))
    distances = (both["score"] - both["score_first"]).abs()
    expected, outcomes = reruns["rerun"].value_counts(), {}
    for rerun, company in RERUNS.items():
        apart = distances[both["rerun"].to_numpy(object) == rerun]
        if not len(apart) or len(apart) != expected[rerun]:
            outcomes[rerun] = (
                "no query was scored again, so nothing shows that scores don't depend on each other: the run is of an "
                "earlier version, or damaged; delete its folder and run the cell again"
            )
        elif bool((apart <= allowed).all()):
            outcomes[rerun] = PASSED
        else:
            outcomes[rerun] = (
                f"scores depend on {company}: of {len(apart)} scored again {int((apart > allowed).sum())} "
                f"differ, by up to {apart.max():.3g} (allowed {allowed:.1g})"
            )
    return outcomes


def allowed_difference(scores: Float[np.ndarray, " n"], responses: Float[np.ndarray, " m"]) -> float:
    """By how much two scores of one image may differ and still pass for rounding.

    Another batch or order is another order of summation, whose effect on a score is that of pixels moved by a rounding
    error, or smaller: both go through the same arithmetic. So what the method itself makes of such pixels, times
    `_AMPLIFIED`, is allowed, but never more than `_SPREAD` of the scores' standard deviation: a shift of normally
    distributed scores by that part moves an AUROC by less than 0.0015. One part in a million is always allowed.

    Args:
        scores: As they were first.
        responses: By how much scores of some images changed with their pixels; may be empty.
    """
    rounding = _FLOAT * float(np.abs(scores).max())
    return max(rounding, min(_SPREAD * float(np.std(scores)), _AMPLIFIED * float(responses.max(initial=0))))


def _responses(reruns: pd.DataFrame) -> Float[np.ndarray, " m"]:
    kinds = reruns["rerun"].to_numpy(object)
    alone = reruns.loc[kinds == "alone", ["draw", "index", "score"]]
    moved = reruns[kinds == PERTURBED].merge(alone, on=["draw", "index"], suffixes=("", "_alone"))
    return (moved["score"] - moved["score_alone"]).abs().to_numpy(float)


def check_supports(support_groups: Sequence[str], query_groups: Collection[str]) -> dict[str, str]:
    """Whether supports and queries share a group."""
    if not len(support_groups):
        return {"supports": "not checked: the supports aren't recorded"}
    shared = sorted(set(map(str, support_groups)) & set(map(str, query_groups)))
    return {"supports": f"{len(shared)} group(s) are both support and query, first {shared[0]!r}" if shared else PASSED}


def check_target(
    *,
    target: str,
    method: str,
    sources: Sequence[str],
    chosen_on: Sequence[str] = (),
    has_seen: Sequence[str],
    partners: Sequence[str],
    unknown: str = "",
) -> dict[str, str]:
    """Whether the method has seen the target.

    Args:
        target: The target's name.
        method: The method's name.
        sources: Sets that it was trained on here.
        chosen_on: Sets that its settings were chosen on.
        has_seen: Public sets behind its weights, as it declares.
        partners: Sets that share images or patients with the target.
        unknown: Why it can't be known what it was trained on; empty if it can.
    """
    trained = sorted(set(sources) & {target, *partners})
    seen = sorted(set(has_seen) & {target, *partners})
    if tuned := sorted(set(chosen_on) & {target, *partners}):
        return {"unseen": f"settings were chosen on {', '.join(tuned)}, which the target {target} must not share"}
    if trained:
        return {"unseen": f"trained on {', '.join(trained)}, which the target {target} must not share"}
    if seen:
        return {"unseen": f"flagged: weights or training of {method} have seen {', '.join(seen)}"}
    return {"unseen": f"not checked: {unknown}" if unknown else PASSED}


def check_episodes(dataset: Dataset) -> dict[str, str]:
    """Whether ids, labels, groups, splits and episodes are those that the file's digest states.

    Whether they are those of the set's manifest decides which benchmark the row is of: `store.proof.benchmark_of`.
    """
    digest = membership_digest(dataset.table, [draw.tolist() for draw in dataset.episodes])
    if digest != dataset.attributes["membership_digest"]:
        return {"episodes": f"the membership of {dataset.path.name} isn't the one its digest states"}
    return {"episodes": PASSED}


def seen_facts(target: Dataset, has_seen: Sequence[str], unknown: str) -> dict[str, Any]:
    """What `check_target` has to know of a target beside the method's sources.

    The name of a user's own folder says nothing of the public set that is called the same.

    Args:
        target: The target.
        has_seen: Public sets behind the method's weights, as it declares.
        unknown: Why it can't be known what it was trained on; empty if it can.
    """
    own = target.attributes["benchmark"] == OWN
    seen = [name for name in has_seen if not own or name not in all_manifests()]
    return {"has_seen": seen, "partners": list(partners(target)), "unknown": unknown}


def partners(target: Dataset) -> tuple[str, ...]:
    """Sets that share images or patients with a target; what a user's own folder is called says nothing of them."""
    declared = json.loads(target.attributes["held_out_with"])
    return tuple(sorted(declared)) if target.attributes["benchmark"] == OWN else partners_of(target.name, declared)


def partners_of(target: str, declared: Sequence[str] = ()) -> tuple[str, ...]:
    """Sets that share images or patients with the target, by the manifests and by its own file."""
    manifests = all_manifests()
    own = manifests[target].held_out_with if target in manifests else ()
    others = (name for name, manifest in manifests.items() if target in manifest.held_out_with)
    return tuple(sorted({*declared, *own, *others} - {target}))
