"""Which store of features the user means: by `--features` on the command line, `features=` in Python."""

from collections.abc import Callable
from pathlib import Path

from medfsad_bench.errors import StoreError
from medfsad_bench.runner.feature_store import BUDGET_GB, FOLDER, FeatureStore

NONE = "none"


def chosen_store(
    features: str | None,
    features_gb: float | None,
    runs: Path,
    device: str,
    *,
    tell: Callable[[str], None] = lambda _: None,
) -> FeatureStore | None:
    """The store that is meant; None if none is to be used.

    Args:
        features: A folder or `none`; None takes the one in the folder of runs, on a CPU.
        features_gb: How much it may hold; None takes `BUDGET_GB`.
        runs: Folder of runs.
        device: As `--device` names it.
        tell: Told what can't be read or written.

    Raises:
        StoreError: If it's a file, or a budget is given for none.
    """
    from medfsad_bench.runner.runner import choose_device  # needs torch, which takes its time

    if features == NONE and features_gb is not None:
        raise StoreError(f"--features-gb {features_gb:g} is given beside --features none. Leave one of them out.")
    if features == NONE:
        return None
    if features is None and features_gb is None and choose_device(device).type != "cpu":
        return None
    budget_gb = BUDGET_GB if features_gb is None else features_gb
    return FeatureStore(features_folder(features, runs), budget_bytes=round(budget_gb * 1e9), tell=tell)


def features_folder(features: str | None, runs: Path) -> Path:
    """The folder that is meant, there or not.

    Raises:
        StoreError: If it's a file.
    """
    folder = runs / FOLDER if features is None else Path(features)
    if folder.exists() and not folder.is_dir():
        raise StoreError(f"--features {folder} is a file. Expected a folder, there or to be made, or `none`.")
    return folder
