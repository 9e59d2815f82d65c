"""What each habit of the published protocol does to one cell, as `medfsad protocols` left it for the board's pages.

<runs>/protocols/<cell>/habits.json        beside what it was computed from
"""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from medfsad_bench.errors import ResultsError
from medfsad_bench.estimates.estimate import Estimate
from medfsad_bench.files import write_text

FOLDER, _FILE = "protocols", "habits.json"


class HabitStudy(BaseModel):
    """One method on one target under both protocols, and with each habit changed alone.

    Attributes:
        method: Its name.
        method_version: Its version.
        preset: Of its settings.
        config: Its settings.
        target: The target's name.
        target_version: Its version.
        benchmark: The target's.
        shots: K.
        draws: Support draws of the strict lines.
        seed: Of training.
        figures: Image AUROC by line: `published` first, `strict` last.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: str
    method_version: str
    preset: str
    config: dict[str, object]
    target: str
    target_version: str
    benchmark: str
    shots: int
    draws: int
    seed: int
    figures: dict[str, Estimate]


def write_study(folder: Path, study: HabitStudy) -> None:
    """Keep a study in the folder of its cell."""
    write_text(folder / _FILE, study.model_dump_json(indent=1) + "\n")


def studies_in(runs: Path) -> list[HabitStudy]:
    """All studies below a folder of runs, or of accepted results.

    Raises:
        ResultsError: If one is damaged.
    """
    studies = []
    for path in sorted((runs / FOLDER).glob(f"*/{_FILE}")):
        try:
            studies.append(HabitStudy.model_validate_json(path.read_text("utf-8")))
        except (OSError, ValidationError, ValueError) as error:
            raise ResultsError(
                f"{path}: no study of protocols ({str(error).splitlines()[0]}). Expected what `medfsad protocols` "
                "writes; remove the file, or run the command again."
            ) from error
    return studies
