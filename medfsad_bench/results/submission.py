"""Scores from elsewhere: bound to a prepared file by its membership digest, then the same code and the same lint.

A submitted file is a table (Parquet or CSV) with one line per draw and test image:

    membership_digest   of the prepared file that the scores are for, the same in every line
    draw                number of the support draw, from 0
    id                  of the test image
    score               higher is more anomalous

`medfsad export FILE --to episodes` writes what to score: the supports of every draw and the ids of all queries. Nothing
shows that a submitted score hangs on its image and the support alone, so such a row is marked and never ranked.
"""

import dataclasses
import hashlib
import json
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from medfsad_bench import __version__
from medfsad_bench.errors import ResultsError, StoreError
from medfsad_bench.estimates.of_run import estimates_of_run
from medfsad_bench.metrics.metric import BOX_METRICS, PIXEL_METRICS
from medfsad_bench.registry import installed_names
from medfsad_bench.results.protocol_checks import (
    check_episodes,
    check_reruns,
    check_scores,
    check_supports,
    check_target,
    partners_of,
)
from medfsad_bench.results.row import Row, target_facts, write_json, write_table
from medfsad_bench.store import Dataset

NEEDED = ("membership_digest", "draw", "id", "score")


@dataclass(frozen=True, slots=True)
class Submission:
    """What an author says of scores made elsewhere.

    Attributes:
        method: Name, of no installed method.
        version: Of the method.
        shots: K.
        seed: Training seed, and that of the bootstrap.
        hold_out: What no source shares with the target.
        knowledge: What the method is given beyond normal images.
        trained_on: Sets of the benchmark that it was trained on.
        has_seen: Public sets behind its weights.
    """

    method: str
    version: str
    shots: int
    seed: int = 0
    hold_out: Literal["dataset", "organ", "modality"] = "dataset"
    knowledge: str = "normals"
    trained_on: tuple[str, ...] = ()
    has_seen: tuple[str, ...] = ()


def submit(path: Path, about: Submission, *, data: Path, runs: Path) -> tuple[Row, Path]:
    """Make a run's folder of submitted scores.

    Args:
        path: Parquet or CSV file, see above.
        about: What is said of it.
        data: Where prepared files lie; the one of the file's digest is taken.
        runs: Where the run's folder goes.

    Returns:
        The row and its folder. The same submission gives the same folder.

    Raises:
        ResultsError: If the file lacks a column, a query or a draw or names an unknown image, or the method's name is
            taken.
        StoreError: If no prepared file has its digest.
    """
    _check_name(about.method)
    given = read_submitted(path)
    digest = str(given["membership_digest"].iloc[0])
    dataset = find_by_digest(data, digest)
    draws = _draws(path, given, dataset, about.shots)
    scores = _as_scores(path, given, dataset, draws)
    supports = _supports(dataset, draws, about.shots)
    run_id = f"{about.method}-{dataset.name}-{about.shots}shot-{_hash(scores, about, digest)[:12]}"
    probes = pd.DataFrame({"probe": [], "draw": [], "index": [], "score": []})
    row = _row(run_id, scores, supports, probes, about, dataset, draws)
    folder = runs / run_id
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", {"run_id": run_id, "submitted": path.name, **_plain(about)})
    write_table(folder / "scores.parquet", scores)
    write_table(folder / "calibration.parquet", supports)
    write_table(folder / "probes.parquet", probes)
    write_json(folder / "row.json", row.dump())
    return row, folder


def read_submitted(path: Path) -> pd.DataFrame:
    """Read a submitted file.

    Raises:
        ResultsError: If it can't be read, is empty, lacks a column, or is for several prepared files.
    """
    if not path.is_file():
        raise ResultsError(f"{path} doesn't exist. Expected a Parquet or CSV file of scores; --scores names it.")
    try:
        given = pd.read_csv(path, dtype={"id": str}) if path.suffix == ".csv" else pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise ResultsError(f"{path} can't be read ({error}). Expected Parquet, or CSV with the suffix .csv.") from error
    if missing := [name for name in NEEDED if name not in given.columns]:
        raise ResultsError(
            f"{path} has the columns {', '.join(map(str, given.columns))}; {', '.join(missing)} missing. "
            "`medfsad export FILE --to episodes` writes digest, draws and ids."
        )
    digests = set(given["membership_digest"].astype(str))
    if len(digests) != 1:
        raise ResultsError(
            f"{path} holds {len(digests)} membership digests; expected one, of the prepared "
            "file that was scored. Submit one file a data set."
        )
    if not pd.api.types.is_numeric_dtype(given["score"]) or not np.isfinite(given["score"].to_numpy(float)).all():
        raise ResultsError(f"{path}: a score is missing or not finite. Expected one number per draw and test image.")
    return given


def find_by_digest(data: Path, digest: str) -> Dataset:
    """The prepared file of a membership.

    Raises:
        StoreError: If there is none in `data` or one level below it.
    """
    files = [*sorted(data.glob("*.h5")), *sorted(data.glob("*/*.h5"))] if data.is_dir() else []
    sets = [Dataset(path) for path in files]
    for dataset in sets:
        if dataset.attributes["membership_digest"] == digest:
            return dataset
    there = ", ".join(f"{d.name} ({str(d.attributes['membership_digest'])[:12]}…)" for d in sets) or "none"
    raise StoreError(
        f"No prepared file in {data} has the membership digest {digest[:12]}… that the scores are bound to; there are "
        f"{there}. Prepare that version of the set, or score this one."
    )


def _check_name(method: str) -> None:
    if not re.fullmatch(r"[a-z0-9][a-z0-9_.-]*", method):
        raise ResultsError(f"--method {method!r}: expected small letters, digits, dots, dashes and underscores.")
    if method in installed_names():
        raise ResultsError(
            f"--method {method!r} is an installed method; `medfsad run` makes its rows. Choose another name."
        )


def _draws(path: Path, given: pd.DataFrame, dataset: Dataset, shots: int) -> int:
    found = sorted(set(given["draw"].tolist()))
    fewest = min(map(len, dataset.episodes), default=0)
    if found != list(range(len(found))) or len(found) > len(dataset.episodes):
        raise ResultsError(
            f"{path} holds the draws {found[:12]}; expected 0, 1, … of the {len(dataset.episodes)} that the file has."
        )
    if shots > fewest:
        raise ResultsError(f"--shots {shots}: {dataset.name} has draws of {fewest} supports. Give fewer.")
    return len(found)


def _as_scores(path: Path, given: pd.DataFrame, dataset: Dataset, draws: int) -> pd.DataFrame:
    """In the form that a run stores, in the order of the test rows."""
    rows = dataset.indices("test")
    known = dataset.table.iloc[rows]
    queries = pd.DataFrame(
        {
            "index": rows,
            "id": known["id"].to_numpy(str),
            "group": known["group"].to_numpy(str),
            "anomalous": known["label"].to_numpy(bool),
            "disease": known["disease"].to_numpy(str),
        }
    )
    ids = given["id"].astype(str)
    if unknown := sorted(set(ids) - set(queries["id"])):
        raise ResultsError(f"{path} scores {len(unknown)} images that are no test images, first {unknown[0]!r}.")
    if given.assign(id=ids).duplicated(["draw", "id"]).any():
        raise ResultsError(f"{path} scores an image twice in one draw. Expected one score per draw and test image.")
    if len(given) != draws * len(queries):
        raise ResultsError(
            f"{path} holds {len(given):,} scores; expected {draws} draws × {len(queries)} test images = "
            f"{draws * len(queries):,}. Score every query of every draw."
        )
    parts = []
    for draw in range(draws):
        part = given[given["draw"] == draw]
        values = dict(zip(part["id"].astype(str), part["score"].astype(float), strict=True))
        parts.append(queries.assign(draw=draw, score=[values[one] for one in queries["id"]]))
    columns = ["draw", *queries.columns, "score"]
    return pd.concat(parts, ignore_index=True)[columns]


def _supports(dataset: Dataset, draws: int, shots: int) -> pd.DataFrame:
    parts = []
    for draw in range(draws):
        known = dataset.table.iloc[dataset.episodes[draw][:shots]]
        parts.append(
            pd.DataFrame(
                {
                    "set": dataset.name,
                    "draw": draw,
                    "kind": "support",
                    "position": range(shots),
                    "id": known["id"].to_numpy(str),
                    "group": known["group"].to_numpy(str),
                    "score": np.nan,
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def _row(
    run_id: str,
    scores: pd.DataFrame,
    supports: pd.DataFrame,
    probes: pd.DataFrame,
    about: Submission,
    dataset: Dataset,
    draws: int,
) -> Row:
    names = BOX_METRICS if dataset.attributes["mask_kind"] == "box" else PIXEL_METRICS
    found = estimates_of_run(
        scores,
        [],
        supports,
        target=dataset.name,
        seed=about.seed,
        absent=dict.fromkeys(names, "image scores alone were submitted"),
    )
    rows = dataset.indices("test")
    partners = partners_of(dataset.name, json.loads(dataset.attributes["held_out_with"]))
    target = check_target(
        target=dataset.name,
        method=about.method,
        sources=about.trained_on,
        has_seen=about.has_seen,
        partners=partners,
    )
    lint = {
        **check_scores(scores, queries=len(rows), draws=draws, seed=about.seed),
        **check_reruns(probes, scores),
        **check_supports(supports["group"].tolist(), scores),
        **target,
        **check_episodes(dataset),
    }
    return Row(
        run_id=run_id,
        **target_facts(dataset, rows),
        protocol="strict",
        hold_out=about.hold_out,
        method=about.method,
        method_version=about.version,
        preset="submitted",
        config={},
        weights_digest="",
        knowledge=about.knowledge,
        contaminated=target["contamination"].startswith("flagged"),
        sources=dict.fromkeys(about.trained_on, "as declared"),
        shots=about.shots,
        draws=draws,
        seed=about.seed,
        **found.fields(),
        lint=lint,
        submitted=True,
        package_version=__version__,
        date=time.strftime("%Y-%m-%d", time.gmtime()),
    )


def _hash(scores: pd.DataFrame, about: Submission, digest: str) -> str:
    digested = hashlib.sha256(json.dumps([digest, _plain(about)], sort_keys=True).encode())
    digested.update(np.ascontiguousarray(scores["score"].to_numpy(np.float64)).tobytes())
    return digested.hexdigest()


def _plain(about: Submission) -> dict[str, Any]:
    values = dataclasses.asdict(about)
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
