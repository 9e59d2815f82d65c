"""Scores from elsewhere: bound to a prepared file by its membership digest, then the same code and the same checks.

A submitted file is a table (Parquet or CSV) with one line per draw and test image:

    membership_digest   of the prepared file that the scores are for, the same in every line
    draw                number of the support draw, from 0
    id                  of the test image
    score               higher is more anomalous

`medfsad export FILE --to episodes` writes what to score: the supports of every draw and the ids of all queries. Nothing
shows that a submitted score depends on its image and the support alone, so such a row is marked and never ranked.
"""

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from medfsad_bench.episodes import Episodes
from medfsad_bench.errors import ResultsError
from medfsad_bench.files import cell_text
from medfsad_bench.info import HoldOut
from medfsad_bench.registry import installed_names
from medfsad_bench.results.assembly import assemble_row, facts_of_target, stated_fields
from medfsad_bench.results.identity import RUN_ID, SEEN, STATES, submission_id_of
from medfsad_bench.results.protocol_checks import seen_facts
from medfsad_bench.results.row import Row
from medfsad_bench.results.run_folder import Measurements, RunFolder
from medfsad_bench.results.tables import DrawScores, normals_table, scores_table
from medfsad_bench.store.prepared import find_by_digest
from medfsad_bench.store.proof import prove

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
    hold_out: HoldOut = "dataset"
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
        StoreError: If no prepared file has its digest, files of several sizes have it, or it isn't sound.
    """
    _check_name(about.method)
    given = read_submitted(path)
    digest = str(given["membership_digest"].iloc[0])
    dataset = find_by_digest(data, digest)
    prove(dataset)
    episodes = Episodes(dataset, about.shots)
    draws = _draws(path, given, episodes)
    scores = _scores_table(path, given, episodes, draws)
    supports = [normals_table(dataset, draw, "support", episodes.support(draw)) for draw in range(draws)]
    reruns = pd.DataFrame({"rerun": [], "draw": [], "index": [], "score": []})
    measured = Measurements(scores, pd.concat(supports, ignore_index=True), reruns)
    run_id = submission_id_of(dataclasses.asdict(about), dataset.name, digest, scores)
    stated = {
        **facts_of_target(dataset),
        "run_id": run_id,
        "protocol": "strict",
        "hold_out": about.hold_out,
        "method": about.method,
        "method_version": about.version,
        "preset": "submitted",
        "config": {},
        "weights_digest": "",
        "knowledge": about.knowledge,
        "sources": dict.fromkeys(about.trained_on, "as declared"),
        "shots": about.shots,
        "draws": draws,
        "seed": about.seed,
        "submitted": True,
    }
    row = assemble_row(
        measured,
        stated_fields(dataset, no_pixels="image scores alone were submitted", has_seen=about.has_seen, **stated),
    )
    folder = RunFolder(runs / run_id)
    seen = seen_facts(dataset, about.has_seen, "")
    folder.begin({RUN_ID: run_id, "submitted": path.name, **dataclasses.asdict(about), STATES: stated, SEEN: seen})
    folder.write(measured, [])
    folder.write_row(row)
    return row, folder.path


def read_submitted(path: Path) -> pd.DataFrame:
    """Read a submitted file.

    Raises:
        ResultsError: If it can't be read, is empty, lacks a column, or is for several prepared files.
    """
    if not path.is_file():
        raise ResultsError(f"{path} doesn't exist. Expected a Parquet or CSV file of scores; --scores names it.")
    try:
        given = pd.read_csv(path, converters={"id": cell_text}) if path.suffix == ".csv" else pd.read_parquet(path)
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


def _check_name(method: str) -> None:
    if not re.fullmatch(r"[a-z0-9][a-z0-9_.-]*", method):
        raise ResultsError(f"--method {method!r}: expected small letters, digits, dots, dashes and underscores.")
    if method in installed_names():
        raise ResultsError(
            f"--method {method!r} is an installed method; `medfsad run` makes its rows. Choose another name."
        )


def _draws(path: Path, given: pd.DataFrame, episodes: Episodes) -> int:
    numbers, stored = sorted(set(given["draw"].tolist())), episodes.dataset.episodes
    if numbers != list(range(len(numbers))) or len(numbers) > len(stored):
        raise ResultsError(
            f"{path} holds the draws {numbers[:12]}; expected 0, 1, … of the {len(stored)} that the file has."
        )
    if why_absent := episodes.why_absent(len(numbers)):
        raise ResultsError(f"--shots {episodes.shots}: {why_absent}. Give fewer.")
    return len(numbers)


def _scores_table(path: Path, given: pd.DataFrame, episodes: Episodes, draws: int) -> pd.DataFrame:
    """In the form that a run stores, in the order of the queries."""
    query_ids = episodes.dataset.table["id"].iloc[episodes.queries].astype(str).tolist()
    given = given.assign(id=given["id"].astype(str))
    if unknown := sorted(set(given["id"]) - set(query_ids)):
        raise ResultsError(f"{path} scores {len(unknown)} images that are no test images, first {unknown[0]!r}.")
    if given.duplicated(["draw", "id"]).any():
        raise ResultsError(f"{path} scores an image twice in one draw. Expected one score per draw and test image.")
    if len(given) != draws * len(query_ids):
        raise ResultsError(
            f"{path} holds {len(given):,} scores; expected {draws} draws × {len(query_ids)} test images = "
            f"{draws * len(query_ids):,}. Score every query of every draw."
        )
    by_id = [of_draw.set_index("id")["score"].astype(float) for _, of_draw in given.groupby("draw")]
    by_draw = [DrawScores({"score": scores.loc[query_ids].to_numpy()}) for scores in by_id]
    return scores_table(episodes.dataset, episodes.queries, by_draw)
