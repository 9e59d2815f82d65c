"""A command that sweeps on a Ray cluster, for tests that kill it: `python ray_driver.py ADDRESS DATA RUNS`.

With `--ship` the data are sent to the nodes, and then taken away; with `--classes` a method of every class is swept,
with `--hoard` a cell that takes all memory and others beside it, each begun again once.
Prints one line per task that ended and per task that was begun again.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from engine_cells import one_of_each_class, sweep_of, troubled

from medfsad_bench.cluster import joined
from medfsad_bench.runner.engine.graph import Task, tasks_of, unfinished
from medfsad_bench.runner.engine.jobs import Workplace
from medfsad_bench.runner.engine.nodes import FilesOfSweep, Resources
from medfsad_bench.runner.engine.ray_engine import RayEngine
from medfsad_bench.runner.engine.sweep import RETRIES, sweep
from medfsad_bench.runner.engine.worker import Outcome
from medfsad_bench.runner.plan import Cell


class Printed:
    """A watcher that prints."""

    def ended(self, task: Task, outcome: Outcome) -> None:
        say(outcome.state, task.id, outcome.message)

    def again(self, task: Task, outcome: Outcome) -> None:
        say("again", task.id, outcome.message)

    def look(self, running: Sequence[Task], waiting: int) -> None:
        pass


def wanted(data: Path, runs: Path) -> list[Cell]:
    """The sweep: one cell's worker dies once, as when memory runs out; one takes its time."""
    out_of_memory = troubled(data, runs, "dies", runs / "died")
    slow = troubled(data, runs, "slow", runs / "slow")
    refused = troubled(data, runs, "refuses", target="ward_a")
    return [out_of_memory, refused, slow, *sweep_of(data, runs)]


def beside_a_hoarder(data: Path, runs: Path) -> list[Cell]:
    """Two cells that are done at the same time, of which one takes all memory, and one that comes after."""
    hoards = troubled(data, runs, "hoards", runs / "hoarded")
    slow = troubled(data, runs, "slow", runs / "slow")
    return [hoards, slow, *(cell for cell in sweep_of(data, runs) if cell.info.name == "pixel_distance")]


def say(*words: str) -> None:
    """One line, at once."""
    sys.stdout.write(" ".join(words).replace("\n", " ") + "\n")
    sys.stdout.flush()


def main() -> None:
    """Sweep, and say how each task ended."""
    address, data, runs = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    sweeps = {"--classes": one_of_each_class, "--hoard": beside_a_hoarder}
    cells = next((sweeps[word] for word in sys.argv if word in sweeps), wanted)(data, runs)
    sets = {set_.path: set_ for cell in cells for set_ in (cell.target, *cell.sources, *cell.references)}
    files = FilesOfSweep({path: str(set_.attributes["content_digest"]) for path, set_ in sets.items()}, runs)
    runs.mkdir(exist_ok=True)
    blocked = runs / "no folder" / "store"
    blocked.parent.write_text("features can't be kept here, as on a full disk")
    workplace = Workplace(Path.cwd(), "cpu", threads=1, cache_bytes=1 << 30, store=blocked, store_bytes=1 << 30)
    with joined(address):
        engine = RayEngine(Resources(), workplace, files, ship_data="--ship" in sys.argv)
        for note in engine.check_nodes():
            say("note", note)
        tasks = unfinished(tasks_of(cells))
        if "--ship" in sys.argv:
            data.rename(data.with_name("gone"))  # the nodes have their own by now
        sweep(tasks, engine, Printed(), retries=1 if "--hoard" in sys.argv else RETRIES)


if __name__ == "__main__":
    main()
