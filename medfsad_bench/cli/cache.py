"""`medfsad cache`: what lies in a store of features; and which store the options of a command mean."""

import datetime
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medfsad_bench.cli import options as opt
from medfsad_bench.cli.console import err, folded, out, print_json, printable, table_of, unfolded
from medfsad_bench.errors import StoreError, nearest

if TYPE_CHECKING:
    from medfsad_bench.runner.feature_file import About
    from medfsad_bench.runner.feature_store import FeatureStore


def cache(
    features: opt.Features = None,
    runs: opt.Runs = opt.RUNS,
    of: Annotated[list[str] | None, typer.Option(help="Only of this network or set; repeatable.")] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Prove every byte. Exit 1 if one was changed.")] = False,
    clear: Annotated[bool, typer.Option("--clear", help="Remove them, but for those that a process reads.")] = False,
    json_: opt.Json = False,
) -> None:
    """List the features of networks that runs keep on disk, verify or clear them; rows don't depend on them."""
    from medfsad_bench.files import sweep
    from medfsad_bench.runner.store_choice import NONE, features_folder

    if features == NONE:
        raise StoreError("--features none is no folder. Expected the folder of features to look at.")
    folder = features_folder(features, runs)
    entries = _chosen(_entries(folder), of)
    faults = _verified(entries) if verify else {}
    kept = _cleared(entries) if clear else entries
    if clear:
        sweep(folder)
    if json_:
        print_json({"folder": printable(folder), "files": [entry.dump(faults) for entry in kept]})
    else:
        _print(folder, kept)
        if verify:
            out.print(f"{len(entries) - len(faults)} of {len(entries)} files are what was written.")
        if clear:
            removed = sum(entry.size_bytes for entry in entries) - sum(entry.size_bytes for entry in kept)
            out.print(f"Removed {removed / 1e9:.3g} GB{', not what a process reads' if kept else ''}.")
    for path, fault in faults.items():
        err.print(f"{path}: {fault}. The next run that needs it makes it anew.", markup=False, soft_wrap=True)
    if faults:
        raise typer.Exit(1)


def feature_store(features: str | None, features_gb: float | None, runs: Path, device: str) -> "FeatureStore | None":
    """The store that --features means, see `runner.store_choice`; what it can't read or write is told on stderr."""
    from medfsad_bench.runner.store_choice import chosen_store

    def tell(line: str) -> None:
        err.print(line, markup=False, soft_wrap=True)

    return chosen_store(features, features_gb, runs, device, tell=tell)


@dataclass(frozen=True, slots=True)
class _Entry:
    """A file, and what it says that it holds; None where it says nothing."""

    path: Path
    size_bytes: int
    used: float
    about: "About | None"

    @property
    def names(self) -> tuple[str, str]:
        """Of network and set."""
        return (str(self.about.facts.get("network")), self.about.set_name) if self.about else ("?", "?")

    def dump(self, faults: dict[Path, str]) -> dict[str, Any]:
        """As JSON takes it."""
        about = asdict(self.about) if self.about else {}
        used = datetime.datetime.fromtimestamp(self.used, datetime.UTC).isoformat(timespec="seconds")
        fault = {"fault": faults[self.path]} if self.path in faults else {}
        return {"path": printable(self.path), "size_bytes": self.size_bytes, "used": used, **about, **fault}


def _entries(folder: Path) -> list[_Entry]:
    from medfsad_bench.runner.feature_file import Damaged, read_about
    from medfsad_bench.runner.feature_store import listed

    entries = []
    for file in listed(folder):
        try:
            about = read_about(file.path)
        except (Damaged, OSError):
            about = None
        entries.append(_Entry(file.path, file.size_bytes, file.used, about))
    return entries


def _chosen(entries: Sequence[_Entry], of: Sequence[str] | None) -> list[_Entry]:
    there = {name for entry in entries for name in entry.names}
    for name in of or []:
        if name not in there:
            raise StoreError(
                f"--of {name!r} has no features there.{nearest(name, there)} There are those of "
                f"{', '.join(sorted(there)) or 'nothing'}."
            )
    return [entry for entry in entries if not of or not set(of).isdisjoint(entry.names)]


def _verified(entries: Sequence[_Entry]) -> dict[Path, str]:
    """What is wrong, by file."""
    from medfsad_bench.runner.feature_file import Damaged, open_features

    faults = {}
    for entry in entries:
        try:
            if file := open_features(entry.path):
                file.close()
        except FileNotFoundError:
            continue
        except Damaged as damage:
            faults[entry.path] = f"damaged ({damage})"
        except OSError as error:
            faults[entry.path] = f"can't be read ({error.strerror})"
    return faults


def _cleared(entries: Sequence[_Entry]) -> list[_Entry]:
    """Remove files; returns those that are in use."""
    from medfsad_bench.runner.feature_file import remove_unused

    return [entry for entry in entries if not remove_unused(entry.path)]


def _print(folder: Path, entries: Sequence[_Entry]) -> None:
    if not entries:
        out.print(f"{printable(folder)} holds no features.", markup=False, soft_wrap=True)
        return
    groups: dict[tuple[str, ...], list[_Entry]] = {}
    for entry in entries:
        groups.setdefault(_group(entry), []).append(entry)
    rows = (
        (
            *group,
            f"{sum(entry.about.images for entry in files if entry.about):,}",
            f"{sum(entry.size_bytes for entry in files) / 1e6:,.0f}",
            datetime.datetime.fromtimestamp(max(entry.used for entry in files)).strftime("%d %b %H:%M"),
        )
        for group, files in sorted(groups.items())
    )
    columns = [*folded("network", "stages", "set"), *unfolded("by", "images", "MB", "last used")]
    out.print(table_of(columns, rows, box=None, padding=(0, 1, 0, 0)))
    total = sum(entry.size_bytes for entry in entries)
    out.print(f"{total / 1e9:.3g} GB in {len(entries)} files in {printable(folder)}", markup=False, soft_wrap=True)


def _group(entry: _Entry) -> tuple[str, str, str, str]:
    if entry.about is None:
        return ("not readable", "", entry.path.name, "")
    facts = entry.about.facts
    threads = facts.get("threads")
    by = f"CPU, {threads} thread{'s' if threads != 1 else ''}" if threads else "GPU"
    return (entry.names[0], " ".join(map(str, entry.about.stages)), entry.names[1], by)
