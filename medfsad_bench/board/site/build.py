"""Which pages the site has, and what each is given."""

import shutil
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from medfsad_bench.board.groups import Group, groups
from medfsad_bench.board.labels import labels_of
from medfsad_bench.board.significance import Evidence
from medfsad_bench.board.site import entries
from medfsad_bench.board.site.cells import facts_of
from medfsad_bench.board.site.environment import asset, digest, environment, method_file, set_file
from medfsad_bench.board.site.payload import address_of, confounded_of, payload, solved_by_shortcut
from medfsad_bench.errors import ResultsError
from medfsad_bench.files import whole_folder, write_json, write_text
from medfsad_bench.results.row import Row

_MARK = ".medfsad-site"  # in a folder that a site was written into, so that the next one may take its place


def write_site(
    rows: Sequence[Row],
    evidence: Evidence,
    folder: Path,
    *,
    reproduced: Collection[str] = (),
    source: str = "",
    documentation: Callable[[Path], int] | None = None,
) -> int:
    """Write the board as static pages, whole or not at all; an earlier site in the folder is replaced.

    Args:
        rows: Of the board.
        evidence: Scores by run id: with them methods are told apart in pairs, and cells show their draws.
        folder: To write; new, empty, or left by an earlier call.
        reproduced: Run ids of rows that a maintainer has re-run.
        source: Where the rows are from, as the command names it.
        documentation: Writes further pages, `docs/start.html` among them, into the folder of the site before that
            takes its name, and says how many; with them a site needs no row.

    Returns:
        How many pages there are.

    Raises:
        ResultsError: If there is no row, the folder holds something else, or scores are damaged.
    """
    if not rows and documentation is None:
        raise ResultsError("There is no row to make a site of. `medfsad run` makes rows; --runs names their folder.")
    _check_free(folder)
    with whole_folder(folder) as temporary:
        shared = {"documented": documentation is not None, "source": source}
        pages = _write_pages(rows, evidence, temporary, reproduced, shared) if rows else _write_empty(temporary, shared)
        pages += documentation(temporary) if documentation else 0
        write_text(temporary / _MARK, "")
        if folder.is_dir():
            shutil.rmtree(folder)
    return pages


def _check_free(folder: Path) -> None:
    if folder.is_dir() and any(folder.iterdir()) and not (folder / _MARK).is_file():
        raise ResultsError(
            f"--out {folder} isn't empty and holds no site. Expected a new folder, or one that an earlier "
            "`--format html` wrote; choose another."
        )
    if folder.exists() and not folder.is_dir():
        raise ResultsError(f"--out {folder} is a file. Expected a folder; choose another name.")


def _write_pages(
    rows: Sequence[Row], evidence: Evidence, folder: Path, reproduced: Collection[str], shared: Mapping[str, Any]
) -> int:
    rows = sorted(rows, key=lambda row: (row.date, row.run_id), reverse=True)
    board = groups(rows, evidence, reproduced=reproduced)
    solved = solved_by_shortcut(rows)
    content = payload(rows, evidence, reproduced)
    shared = {
        **shared,
        "addresses": {
            content["rows"][number]["run"]: address_of(track)
            for track in content["tracks"]
            for shown in track["boards"].values()
            for line in shown[""]["lines"]
            for number in line["rows"].values()
        },
        "board": [(group, labels_of(group), confounded_of(group, solved)) for group in board],
        "rows": rows,
    }
    script = asset("board.js")
    pages: dict[str, tuple[str, dict[str, Any]]] = {
        "index.html": ("index.html.jinja", {"payload": content, "script": script, "digest": digest(script)}),
        "protocol.html": ("protocol.html.jinja", {"pairs": entries.published_beside_strict(rows)}),
        "compare.html": (
            "compare.html.jinja",
            {
                "matrices": [entries.matrix_of(group, evidence) for group in board if _ranked(group) > 1],
                "costs": [(group, labels_of(group), entries.cheapest(group.lines)) for group in board],
            },
        ),
        "changes.html": ("changes.html.jinja", {}),
        "feed.xml": ("feed.xml.jinja", {}),
    }
    facts: dict[str, Any]
    for name, of_method in _by(rows, "method").items():
        info = entries.method_record(name)
        facts = {"name": name, "info": info, "config": entries.config_of(info) if info else {}, "of": of_method}
        pages[f"methods/{method_file(name)}.html"] = ("method.html.jinja", facts)
    for name, of_set in _sets(rows).items():
        manifest, made_of, partners = entries.set_record(of_set)
        facts = {"name": of_set[0].target, "manifest": manifest, "made_of": made_of, "partners": partners, "of": of_set}
        pages[f"datasets/{name}.html"] = ("dataset.html.jinja", facts)
    for row in rows:
        path = f"cells/{row.run_id}"
        write_json(folder / f"{path}.json", row.dump())
        facts = {"row": row, "cell": facts_of(row, evidence.get(row.run_id), folder / f"{path}.csv")}
        pages[f"{path}.html"] = ("cell.html.jinja", facts)
    templates = environment()
    for path, (template, facts) in pages.items():
        up = "../" * path.count("/")
        write_text(folder / path, templates.get_template(template).render(**shared, **facts, up=up))
    return len(pages)


def _write_empty(folder: Path, shared: Mapping[str, Any]) -> int:
    """The board's page before there is a row."""
    write_text(folder / "index.html", environment().get_template("empty.html.jinja").render(**shared, rows=(), up=""))
    return 1


def _ranked(group: Group) -> int:
    return sum(line.rank is not None for line in group.lines)


def _by(rows: Sequence[Row], field: str) -> dict[str, list[Row]]:
    parts: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        parts[getattr(row, field)].append(row)
    return dict(sorted(parts.items()))


def _sets(rows: Sequence[Row]) -> Mapping[str, list[Row]]:
    parts: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        parts[set_file(row)].append(row)
    return dict(sorted(parts.items()))
