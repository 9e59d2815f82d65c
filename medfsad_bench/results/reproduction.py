"""A run made again: how far its scores are from the first ones, and the mark that a maintainer leaves in the results.

`<results>/reproduced/<run id>.json` is such a mark. It names the scores that were reached by their SHA-256, so that it
says nothing of others.
"""

import time
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from medfsad_bench import __version__
from medfsad_bench.errors import ResultsError
from medfsad_bench.files import write_json
from medfsad_bench.results.run_folder import RunFolder


class Reproduction(BaseModel):
    """What came out when a run was made again.

    Attributes:
        run_id: Of the run.
        scores_sha256: Of its scores, see `RunFolder.scores_digest`.
        scores: How many were compared, queries times draws.
        largest_difference: Between two scores of one query and draw.
        tolerance: What may differ: 1 % of the scores' standard deviation, or one part in a million of the largest.
        device: Where it was made again.
        package_version: With which release.
        date: When.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    run_id: str
    scores_sha256: str
    scores: int
    largest_difference: float
    tolerance: float
    device: str
    package_version: str
    date: str

    @property
    def agrees(self) -> bool:
        """Whether every score was reached again within the tolerance."""
        return self.largest_difference <= self.tolerance


def compared_scores(first: RunFolder, again: RunFolder, *, device: str) -> Reproduction:
    """Compare the scores of two runs of one cell, query by query and draw by draw.

    Raises:
        ResultsError: If they aren't of the same queries, labels and draws.
    """
    columns = ["draw", "id", "anomalous", "group", "score"]
    scores, others = first.scores()[columns], again.scores()[columns]
    keys = columns[:-1]
    both = scores.merge(others, on=keys, suffixes=("", "_again"))
    if not len(both) == len(scores) == len(others) or scores.duplicated(["draw", "id"]).any():
        raise ResultsError(
            f"{first.path} holds {len(scores):,} scores, the run made again {len(others):,}, and {len(both):,} are of "
            "the same draw, query, label and group. Expected the same; so its row isn't of the set that it names."
        )
    apart = (both["score"] - both["score_again"]).abs().to_numpy(np.float64)
    return Reproduction(
        run_id=first.row().run_id,
        scores_sha256=first.scores_digest(),
        scores=len(both),
        largest_difference=float(apart.max()) if np.isfinite(apart).all() else float("inf"),
        tolerance=max(1e-2 * float(others["score"].std()), 1e-6 * float(others["score"].abs().max())),
        device=device,
        package_version=__version__,
        date=time.strftime("%Y-%m-%d", time.gmtime()),
    )


def write_mark(results: Path, reproduction: Reproduction) -> Path:
    """Leave the mark of a run that was reached again beside the accepted rows; returns its file."""
    path = _marks(results) / f"{reproduction.run_id}.json"
    write_json(path, reproduction.model_dump())
    return path


def read_marks(results: Path) -> dict[str, Reproduction]:
    """The marks in a folder of accepted rows, by run id.

    Raises:
        ResultsError: If one is damaged, isn't named as its run, or of a run that wasn't reached.
    """
    marks = {}
    for path in sorted(_marks(results).glob("*.json")):
        try:
            mark = Reproduction.model_validate_json(path.read_text("utf-8"))
        except (OSError, ValidationError, ValueError) as error:
            raise ResultsError(
                f"{path} is no mark of a run that was made again ({' '.join(str(error).split())[:200]}). "
                "`medfsad reproduce RUN --mark` writes them; delete it."
            ) from error
        if mark.run_id != path.stem or not mark.agrees:
            raise ResultsError(f"{path} is the mark of another run, or of one that wasn't reached again. Delete it.")
        marks[mark.run_id] = mark
    return marks


def _marks(results: Path) -> Path:
    return results / "reproduced"
