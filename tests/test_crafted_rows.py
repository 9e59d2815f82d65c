"""Rows that come from somebody who means no good: names as paths, texts as commands, figures and facts made up."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_cli import Medfsad, medfsad  # noqa: F401 - a fixture
from test_runner import TOY, cell_of

from medfsad_bench.board.accepted import accept, board_of_results, check, rows_in_results
from medfsad_bench.board.groups import groups
from medfsad_bench.board.pages import as_markdown
from medfsad_bench.board.terminal import as_tables
from medfsad_bench.cli.console import SafeConsole
from medfsad_bench.display import markdown_text, visible
from medfsad_bench.errors import ResultsError
from medfsad_bench.registry import method_info
from medfsad_bench.results.assembly import reassembled
from medfsad_bench.results.row import parse_row
from medfsad_bench.results.run_folder import RunFolder
from medfsad_bench.runner.runner import Runner

EVIL = "x\x1b[2K\x1b]0;owned\x07\u202e[bold red]1.000[/] | <img src=x> ![a](http://e) `b` :bomb:"


@pytest.fixture(scope="module")
def made(own_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a sound run with pixel figures."""
    cell = cell_of(TOY, own_data, tmp_path_factory.mktemp("runs"))
    Runner("cpu").run(cell)
    return cell.options.runs / cell.run_id


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / made.name))


def put(part: str, name: str, value: Any, row: dict[str, Any]) -> None:
    row[part][name] = value


def changed(run: Path, change: Callable[[dict[str, Any]], object], name: str = "row.json") -> None:
    content = json.loads((run / name).read_text("utf-8"))
    change(content)
    (run / name).write_text(json.dumps(content), "utf-8")


@pytest.mark.parametrize("field", ["run_id", "method", "target", "benchmark"])
@pytest.mark.parametrize("name", ["../../x", "/etc/x", "a/b", "..", "", ".hidden", "x\n", "a b", "x\x1b[2K", "é" * 9])
def test_names_that_would_leave_their_folder_are_no_names(run: Path, field: str, name: str) -> None:
    row = RunFolder(run).row().dump()
    with pytest.raises(ResultsError, match=f"not a result row.*{field}"):
        parse_row(json.dumps(row | {field: name}), where="here")


def test_a_row_with_a_path_for_a_name_writes_nothing(run: Path, tmp_path: Path) -> None:
    changed(run, lambda row: row.update(method="../../../evil", run_id="../evil"))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ResultsError, match="not a result row"):
        accept(run, tmp_path / "board" / "results")
    assert sorted(tmp_path.rglob("*")) == before


FORGED: dict[str, Any] = {
    "method": "other",
    "method_version": "9",
    "preset": "paper",
    "config": {"k": 1},
    "weights_digest": "0" * 64,
    "knowledge": "text",
    "target": "ward_c",
    "target_version": "9.9.9",
    "organ": "brain",
    "modality": "CT",
    "benchmark": "medfsad-13k",
    "allowed": ["smaller"],
    "size_px": 256,
    "membership_digest": "0" * 64,
    "content_digest": "0" * 64,
    "sources": {"ward_b": "0" * 64},
    "shots": 8,
    "hold_out": "organ",
    "seed": 1,
    "run_id": "toy-ward_a-2shot-000000000000",
    "contaminated_supports": 1,
    "has_seen_target": True,
    "n_normal": 999,
    "n_anomalous": 999,
    "n_groups": 999,
    "effective_groups": {"normal": 99.0, "anomalous": 99.0},
    "draws": 2,
    "submitted": True,
    "pixel_mode": "streamed",
}


@pytest.mark.parametrize("field", FORGED)
def test_a_row_that_says_anything_else_than_its_run_is_not_accepted(run: Path, tmp_path: Path, field: str) -> None:
    changed(run, lambda row: row.update({field: FORGED[field]}))
    with pytest.raises(ResultsError, match=r"isn't the one of this run|can't be recomputed"):
        accept(run, tmp_path / "results")
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("metric", "end"), [("image_auroc", "value"), ("image_average_precision", "low"), ("aupro_fpr30_conn8", "high")]
)
def test_neither_figures_nor_intervals_can_be_made_up(run: Path, tmp_path: Path, metric: str, end: str) -> None:
    changed(run, lambda row: row["metrics"][metric].update({end: 0.999}))
    with pytest.raises(ResultsError, match=f"{metric} of its row can't be recomputed"):
        accept(run, tmp_path / "results")


def test_a_name_changed_in_row_and_config_alike_changes_the_run_id(run: Path, tmp_path: Path) -> None:
    """The forgery that ranked first: every word of `toy` replaced, and the id left as it was."""
    for name in ("row.json", "config.json"):
        path = run / name
        path.write_text(path.read_text("utf-8").replace('"toy"', '"best"'), "utf-8")
    with pytest.raises(ResultsError, match=r"run_id \(the config gives best-ward_a-2shot-"):
        accept(run, tmp_path / "results")


def test_checks_that_were_left_out_keep_a_row_off_the_board(run: Path, tmp_path: Path) -> None:
    """Rerun scores deleted, and the row changed to say so."""
    empty = RunFolder(run).reruns().iloc[:0]
    empty.to_parquet(run / "reruns.parquet", index=False)
    left_out = dict.fromkeys(("order", "batch", "duplicates"), "not checked: the method isn't at hand, only its scores")
    changed(run, lambda row: row["checks"].update(left_out))
    with pytest.raises(ResultsError, match="the check order, which was left out"):
        accept(run, tmp_path / "results")


def test_a_method_that_is_installed_is_held_to_its_record(own_data: Path, tmp_path: Path) -> None:
    cell = cell_of(method_info("chance"), own_data, tmp_path / "runs", target="ward_b")
    Runner("cpu").run(cell)
    folder = tmp_path / "runs" / cell.run_id
    changed(folder, lambda row: row.update(knowledge="text"))
    changed(folder, lambda config: config["states"].update(knowledge="text"), "config.json")
    with pytest.raises(ResultsError, match=r"isn't the one of this run: knowledge\."):
        accept(folder, tmp_path / "results")


def test_check_recomputes_every_figure_of_accepted_rows(run: Path, tmp_path: Path) -> None:
    results = tmp_path / "board" / "results"
    row = accept(run, results)
    page = tmp_path / "board" / "LEADERBOARD.md"
    page.write_text(as_markdown(board_of_results(results)), "utf-8")
    assert check(results) == []
    (lines,) = results.glob("*.jsonl")
    sound = lines.read_text("utf-8")

    def faults(change: Callable[[dict[str, Any]], object]) -> str:
        content = json.loads(sound)
        change(content)
        lines.write_text(json.dumps(content) + "\n", "utf-8")
        return " ".join(check(results))

    for name, end in (("image_auroc", "high"), ("image_average_precision", "value"), ("image_fpr_at_tpr95", "low")):
        made_up = {**row.dump()["metrics"][name], end: 0.1}
        assert f"differs from its run in {name}" in faults(partial(put, "metrics", name, made_up))
    secondary = next(name for name in row.secondary if name.startswith("image_auroc_pooled"))
    assert secondary in faults(partial(put, "secondary", secondary, made_up))
    assert "differs from its run in knowledge" in faults(lambda content: content.update(knowledge="text"))
    lines.write_text(sound, "utf-8")
    kept = results / "runs" / row.run_id / "scores.parquet"
    table = pd.read_parquet(kept)
    table.assign(score=-table["score"]).to_parquet(kept, index=False)
    assert "image_auroc, which its scores don't give" in " ".join(check(results))
    kept.unlink()
    assert "scores.parquet can't be read (there is none). Restore it from version control" in " ".join(check(results))


def evil_board(run: Path) -> list[Any]:
    row = RunFolder(run).row()
    told = {"preset": EVIL, "knowledge": EVIL, "warnings": (EVIL,)}
    return groups([row.model_copy(update=told), row])


def test_a_rows_texts_are_shown_and_do_nothing_in_a_terminal(run: Path) -> None:
    for console in (SafeConsole(width=200, force_terminal=True), SafeConsole(width=200)):
        with console.capture() as capture:
            for table in as_tables(evil_board(run)):
                console.print(table)
        shown = capture.get()
        assert "\\u001b[2K" in shown
        assert "\x1b]0;" not in shown
        assert "\x07" not in shown
        assert "\u202e" not in shown
        assert "[bold red]" in shown, "markup is text"
        assert "💣" not in shown


def test_a_rows_texts_break_no_markdown(run: Path) -> None:
    page = as_markdown(evil_board(run))
    table = [line for line in page.splitlines() if line.startswith("|")]
    bars = {line.replace("\\|", "").count("|") for line in table}
    assert len(bars) == 1, "no cell opens another column"
    assert "<img" not in page.replace("\\<img", "")
    assert "](http" not in page.replace("\\](http", "")
    assert page.isprintable() or all(char == "\n" or char.isprintable() for char in page)


@given(st.text())
def test_what_is_visible_is_printable_and_means_the_same_in_json(text: str) -> None:
    shown = visible(text)
    assert all(char in "\n\t" or char.isprintable() for char in shown)
    try:
        text.encode()
    except UnicodeEncodeError:
        return  # half of a pair, which no file of JSON holds
    assert json.loads(visible(json.dumps(text, ensure_ascii=False))) == text


@given(st.text(st.sampled_from("ab|<>[](`*_~\\&!#:\n \x1b\u202e")))
def test_markdown_text_is_one_line_and_opens_no_cell(text: str) -> None:
    shown = markdown_text(text)
    assert "\n" not in shown
    bare = shown.replace("\\\\", "")
    assert bare.count("|") == bare.count("\\|")
    assert bare.count("<") == bare.count("\\<")


def test_an_external_detectors_error_is_text_and_nothing_else(
    medfsad: Medfsad,  # noqa: F811
    own_data: Path,
    tmp_path: Path,
) -> None:
    program = tmp_path / "liar.py"
    program.write_text(
        "import json, sys\n"
        f"answer = json.dumps({{'error': {EVIL!r}}})\n"
        "for _ in sys.stdin:\n    print(answer, flush=True)\n"
    )
    command = f"command=python3 {program}"
    options = ("--target", "ward_a", "--set", command, "--set", "model_version=1")
    code, _, err = medfsad("run", "external:liar", "--data", own_data, *options)
    assert code == 2
    assert "\\x1b[2K" in "".join(err.split()), "wherever the line was folded"
    assert "\x1b]" not in err
    assert "\u202e" not in err
    assert "[boldred]" in "".join(err.split())


def test_an_unranked_unknown_is_told_apart_from_a_seen_target(run: Path) -> None:
    row = RunFolder(run).row()
    (board,) = groups([row.model_copy(update={"has_seen_target": "unknown", "warnings": ("nobody knows",)})])
    assert [(line.rank, line.note) for line in board.lines] == [(None, "nobody knows")]


def test_rescore_prints_every_figure_with_its_name_in_brackets(medfsad: Medfsad, run: Path) -> None:  # noqa: F811
    code, out, _ = medfsad("rescore", run)
    assert code == 0
    row = RunFolder(run).row()
    for name in ("image_auroc", "image_average_precision", "aupro_fpr30_conn8", *row.secondary):
        assert name in out
    assert any("[" in name for name in row.secondary), "of lesions' sizes"
    assert f"{row.metrics['image_auroc'].value:.3f} [" in out


def test_rows_that_were_accepted_stand_in_their_methods_file(run: Path, tmp_path: Path) -> None:
    row = accept(run, tmp_path / "results")
    assert rows_in_results(tmp_path / "results") == [row]
    kept = {path.name for path in (tmp_path / "results" / "runs" / row.run_id).iterdir()}
    assert kept == {"config.json", "scores.parquet", "calibration.parquet", "reruns.parquet"}
    with pytest.raises(ResultsError, match="among the results already"):
        accept(run, tmp_path / "results")


def test_what_is_kept_of_a_run_is_smaller_and_gives_its_figures_to_the_last_bit(run: Path, tmp_path: Path) -> None:
    row, whole = RunFolder(run).row(), RunFolder(run).measurements()
    assert {"score_mean", "score_top1"} <= set(whole.scores)
    RunFolder(run).copy_measured(tmp_path / "kept")
    kept = RunFolder(tmp_path / "kept").measurements()
    assert reassembled(row, replace(kept, pixels=whole.pixels)).dump() == reassembled(row, whole).dump()
    assert RunFolder(tmp_path / "kept").scores_digest() == RunFolder(run).scores_digest()
    assert kept.calibration.equals(whole.calibration)
    assert kept.reruns.equals(whole.reruns)
    for column in ("draw", "index", "id", "group", "anomalous", "score"):
        assert kept.scores[column].equals(whole.scores[column])
    RunFolder(tmp_path / "kept").copy_measured(tmp_path / "again")
    assert RunFolder(tmp_path / "again").scores().equals(kept.scores)
