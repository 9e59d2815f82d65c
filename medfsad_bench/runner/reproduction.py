"""A finished run made again from its folder: the same cell, planned anew from what its files say, and its scores."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medfsad_bench.errors import ResultsError
from medfsad_bench.registry import method_info
from medfsad_bench.results.reproduction import Reproduction, compared_scores
from medfsad_bench.results.row import Row
from medfsad_bench.results.run_folder import RunFolder
from medfsad_bench.runner.opened import Progress
from medfsad_bench.runner.plan import Cell, RunOptions, cells
from medfsad_bench.runner.runner import Runner
from medfsad_bench.store import Dataset
from medfsad_bench.store.prepared import sets_below


def reproduce(
    run: Path, *, data: Path, runs: Path, device: str, checkpoint: Path | None = None, progress: Progress
) -> Reproduction:
    """Make a run again and compare its scores.

    Args:
        run: Folder of a finished run, of whoever made it.
        data: Where the prepared files lie that it was made with.
        runs: Where the new run goes; trained weights are made anew there, too.
        device: To compute on.
        checkpoint: The weights that the run was given, if it was.
        progress: Told of training and scoring.

    Raises:
        ResultsError: If the run holds submitted scores, isn't finished, can't be planned as its files say, or one lies
            finished where it would go.
    """
    folder = RunFolder(run)
    row, config = folder.row(), folder.config()
    if row.submitted:
        raise ResultsError(
            f"{run} holds scores that were submitted; nothing here made them, so nothing here can make them again. "
            "Expected the folder of a run that `medfsad run` made."
        )
    cell = planned_again(row, config, data=data, runs=runs, checkpoint=checkpoint, where=run)
    again = RunFolder(runs / cell.run_id)
    if again.path.resolve() == run.resolve():
        raise ResultsError(
            f"--runs {runs} is where {run} itself lies, which would be taken as it is. Name another folder with --runs."
        )
    if again.finished:
        raise ResultsError(
            f"{again.path} is there already, so nothing would be made again. Expected a folder of your own that holds "
            "no run of this cell; delete that one, or name another folder with --runs."
        )
    runner = Runner(device, progress=progress)
    runner.announce([cell])
    runner.run(cell)
    return compared_scores(folder, again, device=str(runner.device))


def planned_again(
    row: Row, config: dict[str, Any], *, data: Path, runs: Path, checkpoint: Path | None, where: Path
) -> Cell:
    """The cell of a run, from its row and config.

    Raises:
        ResultsError: If what is at hand here gives another cell; the message names in what.
    """
    info = method_info(row.method)
    sets = _sets(config, sets_below(data), where=where, data=data)
    options = RunOptions(
        runs,
        draws=row.draws,
        seed=row.seed,
        protocol=row.protocol,
        hold_out=row.hold_out,
        preset=row.preset if row.preset in info.presets else "paper",
        settings=row.config,
        checkpoint=checkpoint,
        contaminated=row.contaminated_supports,
        chosen=config.get("chosen", {}),
    )
    (cell,) = cells(info, sets[:1], sets[1:], [row.shots], options)
    cell = dataclasses.replace(cell, options=dataclasses.replace(options, preset=row.preset))
    if cell.absent:
        raise ResultsError(f"{where} can't be made again: {cell.absent}.")
    stated = {
        name: value for name, value in config.items() if name in cell.identity or name in ("contaminated", "chosen")
    }
    present = json.loads(json.dumps(cell.identity, default=str))
    if stated.get("checkpoint") and checkpoint is None:
        raise ResultsError(
            f"{where} was given trained weights (SHA-256 {stated['checkpoint'][:12]}…). Name that file with "
            "--checkpoint; nothing was run."
        )
    if differ := sorted(_different("", stated, present)):
        raise ResultsError(
            f"{where} can't be made again as it says: what is at hand here differs in {'; '.join(differ[:4])}. "
            "Expected the same method, version, settings, weights and prepared files; nothing was run."
        )
    return cell


def _sets(config: dict[str, Any], at_hand: Sequence[Dataset], *, where: Path, data: Path) -> list[Dataset]:
    """The target, then every set that the run had beside it, by the digest of their content."""
    by_digest = {str(dataset.attributes["content_digest"]): dataset for dataset in at_hand}
    try:
        wanted = {config["content_digest"]: config["target"]}
        others = {**config["training"]["sources"], **config["references"]}
        wanted |= {digest: name for name, digest in others.items() if digest not in wanted}
    except (KeyError, TypeError, AttributeError) as error:
        raise ResultsError(f"{where}: its config isn't that of a run ({error!r}). Nothing was run.") from error
    if missing := [f"{name} ({digest[:12]}…)" for digest, name in wanted.items() if digest not in by_digest]:
        raise ResultsError(
            f"{where} was made with prepared files that {data} doesn't hold: {', '.join(missing)}. Expected files of "
            "the same content; prepare these sets, or name another folder with --data."
        )
    return [by_digest[digest] for digest in wanted]


def _different(prefix: str, stated: Any, present: Any) -> list[str]:
    """Names of the entries in which two nested tables differ, with both values."""
    if isinstance(stated, dict) and isinstance(present, dict):
        names = sorted({*stated, *present})
        return [what for name in names for what in _different(f"{prefix}{name}.", stated.get(name), present.get(name))]
    return [] if stated == present else [f"{prefix.rstrip('.')} ({stated!s:.60}; here {present!s:.60})"]
