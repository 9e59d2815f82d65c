"""Which pages the site has, and what each is given."""

import shlex
import shutil
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from medfsad_bench.board.answers import answers
from medfsad_bench.board.groups import Group
from medfsad_bench.board.labels import labels_of
from medfsad_bench.board.reported import WARNING, Source, grid_of
from medfsad_bench.board.significance import Evidence
from medfsad_bench.board.site import entries
from medfsad_bench.board.site.cells import command_of_study, facts_of
from medfsad_bench.board.site.curves import contamination_of, overlays, ranked_lines
from medfsad_bench.board.site.downloads import write_rows
from medfsad_bench.board.site.environment import asset, digest, environment, method_file, set_file
from medfsad_bench.board.site.history import BenchmarkVersion, benchmark_versions, changes, superseded
from medfsad_bench.board.site.payload import address_of, boards_of, confounded_of, payload, solved_by_shortcut
from medfsad_bench.board.site.pictures import Example, Pictures, may_be_shown
from medfsad_bench.errors import ResultsError
from medfsad_bench.files import whole_folder
from medfsad_bench.metrics.metric import RANKING, Metric
from medfsad_bench.results.habits import HabitStudy
from medfsad_bench.results.row import Row

_MARK = ".medfsad-site"  # in a folder that a site was written into, so that the next one may take its place
_FOLDERS = ("cells", "datasets", "methods", "versions")
_Page = tuple[str, str, dict[str, Any]]  # its address, its template, what that is given


def write_site(
    rows: Sequence[Row],
    evidence: Evidence,
    folder: Path,
    *,
    reproduced: Collection[str] = (),
    runs: Path | None = None,
    data: Path | None = None,
    reported: Sequence[Source] = (),
    studies: Sequence[HabitStudy] = (),
    documentation: Callable[[Path], int] | None = None,
) -> int:
    """Write the board as static pages, whole or not at all; an earlier site in the folder is replaced.

    Args:
        rows: Of the board.
        evidence: Scores by run id: with them methods are told apart in pairs, and cells show their draws.
        folder: To write; new, empty, or left by an earlier call.
        reproduced: Run ids of rows that a maintainer has re-run.
        runs: Folder that the rows are of; None for accepted ones. Pages show its name and not where it lies.
        data: Folder of prepared files, for contact sheets and example pictures.
        reported: Figures from papers, shown apart.
        studies: What each habit of the published protocol does.
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
    rows = sorted(rows, key=lambda row: (row.date, row.run_id), reverse=True)
    pictures = Pictures(data)
    with whole_folder(folder) as temporary:
        shared: dict[str, Any] = {
            "documented": documentation is not None,
            "rows": rows,
            "source": f"the runs in {runs.name}" if runs else "accepted rows",
        }
        for name in _FOLDERS:
            (temporary / name).mkdir()
        pages: list[_Page] = [("index.html", "empty", {})]
        if rows:
            solved = solved_by_shortcut(rows)
            boards = boards_of(rows, evidence, reproduced)
            board = boards.get(RANKING, [])
            versions = benchmark_versions(rows, evidence, reproduced, today=board)
            content = payload(rows, boards, evidence, reproduced, command=_terminal_command(runs))
            script = asset("board.js")
            front = {
                "answers": answers(board, evidence),
                "payload": content,
                "script": script,
                "digest": digest(script),
            }
            shared |= {
                "addresses": _addresses(content),
                "board": [(group, labels_of(group), confounded_of(group, solved)) for group in board],
                "changes": changes(rows, versions),
                "labels": _labels(rows, boards),
                "superseded": superseded(rows),
                "versions": versions,
            }
            pages = [
                ("index.html", "index", front),
                ("protocol.html", "protocol", _protocol(rows, studies, reported)),
                ("compare.html", "compare", _comparison(board, evidence)),
                ("changes.html", "changes", {}),
                ("feed.xml", "feed", {}),
                *((version.page, "version", _version(version, solved)) for version in versions),
                *_method_pages(rows, board, evidence, pictures),
                *_set_pages(rows, pictures),
                *_cell_pages(rows, evidence, temporary),
            ]
            write_rows(rows, temporary)
        for path, name, facts in pages:
            template = environment().get_template(f"{name}.{path.rpartition('.')[2]}.jinja")
            text = template.render(**shared, **facts, up="../" * path.count("/"))
            (temporary / path).write_text(text, "utf-8", newline="")  # the folder appears as a whole
        count = len(pages) + (documentation(temporary) if documentation else 0)
        (temporary / _MARK).touch()
        if folder.is_dir():
            shutil.rmtree(folder)
    return count


def _check_free(folder: Path) -> None:
    if folder.is_dir() and any(folder.iterdir()) and not (folder / _MARK).is_file():
        raise ResultsError(
            f"--out {folder} isn't empty and holds no site. Expected a new folder, or one that an earlier "
            "`--format html` wrote; choose another."
        )
    if folder.exists() and not folder.is_dir():
        raise ResultsError(f"--out {folder} is a file. Expected a folder; choose another name.")


def _terminal_command(runs: Path | None) -> str:
    return "medfsad leaderboard" if runs is None else f"medfsad leaderboard --runs {shlex.quote(runs.name)}"


def _addresses(content: Mapping[str, Any]) -> dict[str, str]:
    """By run id, what stands behind the # of the board's address where the run's track is shown."""
    return {
        content["rows"][number]["run"]: address
        for track in content["tracks"]
        for address in [address_of(track)]
        for shown in track["boards"].values()
        for line in shown[""]["lines"]
        for number in line["rows"].values()
    }


def _labels(rows: Sequence[Row], boards: Mapping[Metric, Sequence[Group]]) -> dict[str, str]:
    """What a row's line is called, by run id; the board of the metric that ranks comes last."""
    labels = {row.run_id: row.method for row in rows}
    for metric in sorted(boards, key=lambda metric: metric is RANKING):
        for group in boards[metric]:
            for label, line in zip(labels_of(group), group.lines, strict=True):
                labels |= {row.run_id: label for row in line.rows.values()}
    return labels


def _protocol(rows: Sequence[Row], studies: Sequence[HabitStudy], reported: Sequence[Source]) -> dict[str, Any]:
    commands = [command_of_study(study) for study in studies]
    return {
        "pairs": entries.published_beside_strict(rows),
        "studies": list(zip(studies, commands, strict=True)),
        "reported": [(each, *grid_of(each)) for each in reported],
        "reported_warning": WARNING,
    }


def _comparison(board: Sequence[Group], evidence: Evidence) -> dict[str, Any]:
    ranked = [group for group in board if sum(line.rank is not None for line in group.lines) > 1]
    return {
        "overlays": overlays(board),
        "matrices": [entries.matrix_of(group, evidence) for group in ranked],
        "costs": [(group, entries.costs_of(group)) for group in board],
        "MATRIX_LIMIT": entries.MATRIX_LIMIT,
    }


def _version(version: BenchmarkVersion, solved: Collection[tuple[str, int, int]]) -> dict[str, Any]:
    tracks = [(group, labels_of(group), confounded_of(group, solved)) for group in version.board]
    return {"version": version, "tracks": tracks}


def _method_pages(
    rows: Sequence[Row], board: Sequence[Group], evidence: Evidence, pictures: Pictures
) -> Iterator[_Page]:
    spoilt, ranked = contamination_of(rows, evidence), ranked_lines(board)
    for name, of_method in _by(rows, lambda row: row.method).items():
        info = entries.method_record(name)
        facts = {
            "name": name,
            "info": info,
            "config": entries.config_of(info) if info else {},
            "of": of_method,
            "ranked": ranked.get(name, {}),
            "spoilt": spoilt.get(name, []),
            "examples": _examples(of_method, evidence, pictures),
        }
        yield f"methods/{method_file(name)}.html", "method", facts


def _examples(rows: Sequence[Row], evidence: Evidence, pictures: Pictures) -> list[tuple[Row, tuple[Example, ...]]]:
    """Of each target, the ranked run nearest to 4 shots that kept its maps."""
    shown = []
    by_target = _by([row for row in rows if row.ranks and not row.contaminated_supports], lambda row: row.target)
    for of_target in by_target.values():
        for row in sorted(of_target, key=lambda row: (abs(row.shots - 4), row.run_id)):
            if examples := pictures.examples(row, evidence.get(row.run_id)):
                shown.append((row, examples))
                break
    return shown


def _set_pages(rows: Sequence[Row], pictures: Pictures) -> Iterator[_Page]:
    for name, of_set in _by(rows, set_file).items():
        manifest, made_of, partners = entries.set_record(of_set)
        sheets = (pictures.sheet(row) for row in of_set)
        facts = {
            "name": of_set[0].target,
            "manifest": manifest,
            "made_of": made_of,
            "partners": partners,
            "of": of_set,
            "reached": entries.reached(of_set),
            "sheet": next(filter(None, sheets), ""),
            "may_be_shown": may_be_shown(of_set[0]),
        }
        yield f"datasets/{name}.html", "dataset", facts


def _cell_pages(rows: Sequence[Row], evidence: Evidence, folder: Path) -> Iterator[_Page]:
    for row in rows:
        path = f"cells/{row.run_id}"
        yield f"{path}.html", "cell", {"row": row, "cell": facts_of(row, evidence.get(row.run_id), folder / path)}


def _by(rows: Sequence[Row], key: Callable[[Row], str]) -> dict[str, list[Row]]:
    parts: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        parts[key(row)].append(row)
    return dict(sorted(parts.items()))
