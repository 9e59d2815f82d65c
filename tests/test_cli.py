"""The command line as a user meets it: what it prints, and that a wrong use costs one paragraph and exit code 2."""

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tampering import altered, stating

from medfsad_bench import cli
from medfsad_bench.manifest import all_manifests

Medfsad = Callable[..., tuple[int, str, str]]


@pytest.fixture
def medfsad(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Medfsad:
    """Runs a command in an empty folder; returns exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["medfsad", *map(str, arguments)])
        capsys.readouterr()
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


WRONG: dict[str, list[tuple[str, ...]]] = {
    "demo": [("--out", "{text}"), ("--out", "{full}")],
    "prepare": [
        ("--source", "nowhere"),
        ("--source", "{full}", "--benchmark", "medfsad-14k"),
        ("--source", "{full}", "--allow", "anything"),
        ("--source", "{full}", "--dataset", "rsna"),
    ],
    "verify": [("nowhere.h5",), ("{text}",)],
    "inspect": [("nowhere.h5",), ("{text}",)],
    "export": [
        ("nowhere.h5", "--out", "x.csv"),
        ("{store}", "--out", "x", "--to", "docx"),
        ("{store}", "--out", "{full}"),
    ],
    "run": [
        ("chance", "--data", "{data}", "--features", "{text}"),
        ("chance", "--data", "{data}", "--features", "none", "--features-gb", "3"),
        ("patchcoer",),
        ("chance", "patchcoer"),
        ("external", "--data", "{data}"),
        ("chance", "--data", "nowhere"),
        ("chance", "--data", "{data}", "--target", "kidney"),
        ("chance", "--data", "{data}", "--preset", "fast"),
        ("patchcore", "--data", "{data}", "--preset", "quick", "--set", "neighbors=3"),
        ("patchcore", "--data", "{data}", "--preset", "quick", "--set", "neighbours=many"),
        ("patchcore", "--data", "{data}", "--weights", "nowhere.pth"),
        ("chance", "--data", "{data}", "--device", "tpu"),
        ("chance", "--data", "{data}", "--shots", "200"),
        ("d24fad", "--data", "{data}", "--preset", "quick", "--checkpoint", "nowhere.safetensors"),
        ("chance", "--data", "{data}", "--protocol", "loose"),
        ("chance", "--data", "{data}", "--protocol", "published", "--shots", "2"),
        ("patchcore", "--data", "{data}", "--preset", "quick", "--protocol", "published", "--draws", "5"),
        ("chance", "--data", "{data}", "--shots", "2", "--contaminated", "2"),
        ("shortcut", "--data", "{data}", "--shots", "2", "--contaminated", "1", "--protocol", "published"),
    ],
    "protocols": [
        ("chance", "--data", "{data}", "--shots", "2"),
        ("d24fad", "--data", "{data}", "--target", "kidney"),
        ("d24fad", "--data", "{data}", "--draws", "1"),
        ("d24fad", "--data", "{data}", "--format", "docx"),
    ],
    "show": [("nowhere",), ("{full}", "--draw", "0")],
    "robustness": [
        ("chance", "--data", "{data}", "--shots", "2", "--contaminated", "2"),
        ("chance", "--data", "{data}", "--target", "kidney"),
        ("chance", "--data", "{data}", "--format", "docx"),
    ],
    "influence": [
        ("chance", "--data", "{data}", "--target", "all"),
        ("chance", "--data", "{data}", "--target", "ward_a", "--shots", "90"),
        ("chance", "--data", "{data}", "--target", "ward_a", "--contaminated", "4"),
    ],
    "score": [
        ("--images", "{full}"),
        ("--support", "nowhere", "--images", "{full}"),
        ("--support", "{full}", "--images", "{full}", "--slices", "some"),
        ("patchcoer", "--support", "{text}", "--images", "{text}"),
    ],
    "rescore": [("nowhere",), ("{full}",)],
    "report": [("nowhere",), ("{full}",)],
    "reproduce": [("nowhere",), ("{full}", "--data", "{data}"), ("{full}", "--device", "tpu")],
    "compare": [
        ("nowhere/run", "{full}/run"),
        ("chance", "patchcore", "--runs", "nowhere"),
        ("chance", "chance", "--runs", "{full}"),
    ],
    "submit": [
        ("--scores", "nowhere.csv", "--method", "mine"),
        ("--scores", "{text}", "--method", "mine"),
        ("--scores", "{text}", "--method", "chance"),
        ("--scores", "{text}", "--method", "mine", "--hold-out", "all"),
    ],
    "leaderboard": [
        ("--runs", "nowhere"),
        ("--runs", "{full}"),
        ("--format", "docx"),
        ("--accept", "nowhere"),
        ("--page", "{text}"),
        ("--write", "--runs", "{full}"),
        ("--check", "--page", "nowhere.md"),
    ],
    "tune": [
        ("patchcoer",),
        ("chance", "--data", "{data}"),
        ("multistage", "--data", "{data}", "--grid", "stages"),
        ("multistage", "--data", "{data}", "--preset", "quick", "--grid", "stages=many|few"),
        ("multistage", "--data", "{data}", "--preset", "quick", "--set", "stages=4"),
        ("multistage", "--data", "{data}", "--preset", "quick", "--grid", "stages=4|3", "--shots", "200"),
        ("rd4ad", "--data", "{data}", "--preset", "quick", "--grid", "steps=1|2", "--target", "ward_a"),
    ],
    "curve": [
        ("patchcoer",),
        ("chance", "--data", "{data}", "--shots", "2"),
        ("d24fad", "--data", "{data}", "--every", "0"),
        ("d24fad", "--data", "{data}", "--into", "nowhere.md"),
    ],
    "cache": [("--features", "{text}"), ("--features", "none"), ("--runs", "{full}", "--of", "kidney"), ("surplus",)],
    "methods": [("--jsn",), ("surplus",)],
    "datasets": [("kidney",), ("--jsn",)],
    "check": [("patchcoer",), ("chance", "--preset", "fast")],
    "new-method": [("My-Method",), ("chance",), ("fine", "--out", "nowhere")],
    "doctor": [("--jsn",), ("surplus",)],
    "plan": [("patchcoer",), ("chance", "--data", "nowhere"), ("chance", "--data", "{data}", "--shots", "0")],
    "status": [("--runs", "nowhere"), ("surplus",)],
}
CASES = [(command, case) for command, cases in WRONG.items() for case in cases]


@pytest.mark.parametrize(
    ("command", "case"), CASES, ids=lambda value: value if isinstance(value, str) else " ".join(value)
)
def test_a_wrong_use_is_one_clear_paragraph_and_exit_code_2(
    medfsad: Medfsad, own_data: Path, tmp_path: Path, command: str, case: tuple[str, ...]
) -> None:
    full, text = tmp_path / "full", tmp_path / "notes.txt"
    full.mkdir()
    (full / "diary.txt").write_text("nothing for you", "utf-8")
    text.write_text("nothing for you", "utf-8")
    places = {"full": full, "text": text, "data": own_data, "store": own_data / "own" / "ward_a-0.0.0-64px.h5"}
    code, out, err = medfsad(command, *(part.format(**places) for part in case))
    assert code == 2, out + err
    assert "Traceback" not in out + err
    message = err.split("Error:", 1)[-1] if "Error:" in err else err
    assert len(re.findall(r"\w+", message)) >= 5, "says what was found and what to do"
    assert (full / "diary.txt").read_text("utf-8") == "nothing for you"


def test_every_command_has_its_wrong_uses_tried() -> None:
    commands = {command.name or command.callback.__name__.replace("_", "-") for command in cli.app.registered_commands}  # type: ignore[union-attr]
    assert commands == set(WRONG)
    assert all(len(cases) >= 2 for cases in WRONG.values())


def test_an_unknown_method_is_answered_with_the_nearest_names(medfsad: Medfsad) -> None:
    _, _, err = medfsad("run", "patchcoer")
    assert "Did you mean 'patchcore'?" in " ".join(err.split())


def test_the_path_from_folder_to_board(medfsad: Medfsad, own_source: Path, tmp_path: Path) -> None:
    code, out, _ = medfsad("prepare", "--source", own_source, "--size", 64)
    assert code == 0
    assert "ward_a" in out
    store = tmp_path / "medfsad-data" / "own" / "ward_a-0.0.0-64px.h5"
    assert medfsad("verify", store) == (0, f"{store.name}: sound\n", "")
    for method in ("chance", "shortcut"):
        code, out, _ = medfsad("run", method, "--preset", "quick", "--shots", 2, "--json")
        assert code == 0
        assert {row["target"] for row in json.loads(out)} == {"ward_a", "ward_b"}
    code, out, _ = medfsad("leaderboard", "--runs", "medfsad-runs", "--format", "json")
    board = json.loads(out)
    assert len(board["rows"]) == 4
    assert [line["rank"] for line in board["groups"][0]["lines"]] == [1, 2]
    code, out, _ = medfsad("leaderboard", "--runs", "medfsad-runs", "--format", "md")
    assert out.count("\n| ") >= 3
    folders = [path.parent for path in (tmp_path / "medfsad-runs").glob("*/row.json")]
    code, out, _ = medfsad("rescore", *folders)
    assert code == 0
    assert out.count("agree") == 4


def test_a_row_that_was_touched_is_found_by_rescore_and_not_accepted(
    medfsad: Medfsad, own_data: Path, tmp_path: Path
) -> None:
    medfsad("run", "chance", "--data", own_data, "--target", "ward_b", "--shots", 2)
    folder = next((tmp_path / "medfsad-runs").glob("chance-*"))
    assert medfsad("leaderboard", "--accept", folder, "--results", tmp_path / "results")[0] == 0
    row = json.loads((folder / "row.json").read_text("utf-8"))
    row["metrics"]["image_auroc"]["value"] = 0.99
    (folder / "row.json").write_text(json.dumps(row), "utf-8")
    code, out, _ = medfsad("rescore", folder)
    assert code == 1
    assert "image_auroc" in out
    code, _, err = medfsad("leaderboard", "--accept", folder, "--results", tmp_path / "other")
    assert code == 2
    assert "can't be recomputed" in " ".join(err.split())
    assert not (tmp_path / "other").exists()


def test_compare_submit_and_breakdown_as_a_user_meets_them(medfsad: Medfsad, own_data: Path, tmp_path: Path) -> None:
    for method in ("chance", "shortcut"):
        medfsad("run", method, "--data", own_data, "--preset", "quick", "--shots", 2, "--draws", 3)
    code, out, _ = medfsad("compare", "shortcut", "chance", "--shots", 2)
    assert code == 0
    assert "mean over 2 targets" in out
    first, second = (next((tmp_path / "medfsad-runs").glob(f"{name}-ward_b-*")) for name in ("shortcut", "chance"))
    code, out, _ = medfsad("compare", first, second, "--json")
    assert set(json.loads(out)["targets"]["ward_b"]["differences"]) >= {"image_auroc", "image_f1_max_oracle"}
    store = own_data / "own" / "ward_b-0.0.0-64px.h5"
    assert medfsad("export", store, "--out", "episodes.csv", "--to", "episodes")[0] == 0
    episodes = pd.read_csv("episodes.csv", dtype={"id": str})
    queries = episodes[episodes["role"] == "query"][["membership_digest", "id"]]
    scores = pd.concat([queries.assign(draw=draw, score=range(len(queries))) for draw in range(3)])
    scores.to_csv("mine.csv", index=False)
    code, out, _ = medfsad("submit", "--scores", "mine.csv", "--method", "mine", "--shots", 2, "--data", own_data)
    assert code == 0
    assert "batch: not checked" in out
    medfsad("export", store, "--out", "table.csv")
    code, out, _ = medfsad("rescore", first, "--by", "split", "--table", "table.csv")
    assert code == 0
    assert "image_auroc[split test]" in out
    code, _, err = medfsad("rescore", first, "--by", "site")
    assert code == 2
    assert "no column 'site'" in err


def test_export_writes_what_the_file_holds(medfsad: Medfsad, own_data: Path, tmp_path: Path) -> None:
    store = own_data / "own" / "ward_a-0.0.0-64px.h5"
    assert medfsad("export", store, "--out", "table.csv")[0] == 0
    assert len((tmp_path / "table.csv").read_text("utf-8").splitlines()) == 35
    _, out, _ = medfsad("export", store, "--out", "ids.csv", "--to", "ids")
    assert re.search('ids_sha256 = "[0-9a-f]{64}"', out)
    assert medfsad("export", store, "--out", "png", "--to", "png")[0] == 0
    assert len(list((tmp_path / "png" / "test" / "anomalous").glob("*.png"))) == 10
    assert len(list((tmp_path / "png" / "masks").glob("*.png"))) == 10


def test_inspect_draws_the_contact_sheet(medfsad: Medfsad, own_data: Path, tmp_path: Path) -> None:
    code, out, _ = medfsad("inspect", own_data / "own" / "ward_a-0.0.0-64px.h5", "--out", "sheet.png", "--json")
    assert code == 0
    assert json.loads(out)["counts"]["test anomalous"] == [10, 10]
    assert (tmp_path / "sheet.png").read_bytes().startswith(b"\x89PNG")


def test_compositions_are_stated_and_small_sets_marked(medfsad: Medfsad, own_source: Path, tmp_path: Path) -> None:
    _, out, _ = medfsad("prepare", "--source", own_source, "--size", 64)
    assert out.count("10.0 ‡") == out.count("12.0 ‡") == 2, "ward_a and ward_b, of one image per patient"
    assert "‡ small: a class of the test counts as fewer than 15 groups" in " ".join(out.split())
    store = tmp_path / "medfsad-data" / "own" / "ward_a-0.0.0-64px.h5"
    _, out, _ = medfsad("inspect", store)
    assert "10.0 ‡" in out
    _, out, _ = medfsad("inspect", store, "--json")
    assert json.loads(out)["composition"]["test anomalous"]["effective_groups"] == 10
    _, out, _ = medfsad("datasets", "his")
    assert "158/104/47" in out
    _, out, _ = medfsad("datasets", "his", "--json")
    assert json.loads(out)[0]["composition"]["medfsad-13k"]["test anomalous"]["groups"] == 48


def test_a_file_of_an_older_version_says_so_wherever_it_is_used(
    medfsad: Medfsad, own_data: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "data" / "medfsad-open"
    folder.mkdir(parents=True)
    for name, version in (("lgg", "1.0.0"), ("odir_dr", all_manifests()["odir_dr"].version)):
        path = folder / f"{name}-{version}-64px.h5"
        shutil.copy(own_data / "own" / "ward_a-0.0.0-64px.h5", path)
        altered(path, stating(name=name, version=version, benchmark="medfsad-open"), sealed=True)
    note = "made from version 1.0.0 of lgg (membership rule 1), this release has 2.0.0 (rule 2)"
    _, out, _ = medfsad("inspect", folder / "lgg-1.0.0-64px.h5", "--json")
    assert json.loads(out)["note"].startswith(note)
    _, _, err = medfsad("run", "chance", "--data", "data", "--target", "all", "--shots", 2, "--draws", 2)
    assert note in " ".join(err.split())
    assert err.count("made from version") == 1


def test_show_draws_queries_with_maps_and_weighted_supports(medfsad: Medfsad, own_data: Path, tmp_path: Path) -> None:
    quick = ("--preset", "quick", "--set", "steps=2", "--set", "size_px=64", "--set", "train_shots=2")
    code, _, err = medfsad(
        "run", "d24fad", *quick, "--data", own_data, "--target", "ward_a", "--shots", 2, "--draws", 2, "--save-maps"
    )
    assert code == 0, err
    folder = next((tmp_path / "medfsad-runs").glob("d24fad-*"))
    code, out, _ = medfsad("show", folder, "--data", own_data, "--draw", 1, "--json")
    assert code == 0
    assert len(json.loads(out)["queries"]) == 8
    assert (tmp_path / "run.png").read_bytes().startswith(b"\x89PNG")
    with np.load(folder / "support.npz") as file:
        assert file["weights"].shape == (2, 22, 2)
        np.testing.assert_allclose(file["weights"].sum(-1), 1, atol=1e-5)
    assert medfsad("show", folder, "--data", own_data, "--query", "nobody")[0] == 2


def test_robustness_and_influence_as_a_user_meets_them(medfsad: Medfsad, own_data: Path, tmp_path: Path) -> None:
    asked = ("--data", own_data, "--preset", "quick", "--target", "ward_b")
    code, out, err = medfsad("robustness", "pixel_distance", *asked, "--draws", 2, "--shots", 3, "--json")
    assert code == 0, err
    (point,) = json.loads(out)
    assert (point["method"], point["contaminated"], point["shots"]) == ("pixel_distance", 1, 3)
    assert point["difference"]["value"] == pytest.approx(point["spoilt"]["value"] - point["clean"]["value"])
    assert (tmp_path / "robustness.png").read_bytes().startswith(b"\x89PNG")
    code, out, err = medfsad("robustness", "pixel_distance", *asked, "--draws", 2, "--shots", 3, "--format", "md")
    assert " ".join(err.split()).count("done before") == 2
    assert "| pixel_distance | ward_b | 1 of 3 |" in out
    code, out, _ = medfsad("leaderboard", "--runs", "medfsad-runs", "--format", "md")
    assert "## own: ward_b, 3 shots, of them 1 contaminated" in out.replace("\\", "")
    code, out, _ = medfsad(
        "influence", "pixel_distance", *asked, "--shots", 3, "--draw", 1, "--contaminated", 1, "--json"
    )
    assert code == 0
    assert [(influence["draw"], influence["anomalous"]) for influence in json.loads(out)].count((1, True)) == 1
    assert (tmp_path / "influence.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("command", ["methods", "datasets", "doctor"])
def test_json_is_json_and_nothing_else(medfsad: Medfsad, command: str) -> None:
    code, out, _ = medfsad(command, "--json")
    assert code == 0
    assert json.loads(out)


def test_methods_takes_one_line_of_80_columns_per_method_and_shows_one_in_full(
    medfsad: Medfsad, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = medfsad("methods")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    assert "…" not in out.replace(":…", ""), "nothing is cut off"
    first_words = [line.split()[0] for line in out.splitlines() if line.strip()]
    names = list(json.loads(medfsad("methods", "--json")[1]))
    assert [word.removesuffix(":…") for word in first_words if word.removesuffix(":…") in names] == names
    code, out, _ = medfsad("methods", "d24fad")
    assert "paper: Dong et al., ICLR 2026" in out
    assert "train_shots=" in out.replace("\n", "")
    (facts,) = json.loads(medfsad("methods", "d24fad", "--json")[1]).values()
    assert facts["trains"]
    assert facts["presets"] == ["paper", "quick", "laptop"]


def test_check_answers_with_the_contract(medfsad: Medfsad) -> None:
    code, out, err = medfsad("check", "chance")
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == "chance: keeps the contract"
    assert len([line for line in out.splitlines() if line.startswith("kept")]) == 11


def test_doctor_lists_prepared_files_but_none_that_is_being_written(medfsad: Medfsad, tmp_path: Path) -> None:
    (tmp_path / "data" / "own").mkdir(parents=True)
    for name in ("ward-128.h5", ".ward-256.7.h5"):
        (tmp_path / "data" / "own" / name).touch()
    facts = json.loads(medfsad("doctor", "--data", "data", "--json")[1])
    assert facts["prepared sets"] == "own/ward-128.h5"


def test_help_needs_no_torch() -> None:
    """`--help`, `prepare`, `verify` and `leaderboard` have to start fast."""
    import subprocess

    modules = ("cli", "store", "board.accepted", "curation.stage")
    imports = "; ".join(f"import medfsad_bench.{name}" for name in modules)
    code = f"import sys; {imports}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_planning_needs_no_timm_and_recomputing_no_statistics() -> None:
    """Either takes seconds to import, and every command that runs a method would wait for it."""
    import subprocess

    code = (
        "import sys, medfsad_bench.runner.runner, medfsad_bench.board.accepted\n"
        "from medfsad_bench.registry import all_methods\n"
        "list(all_methods().values())\n"
        "print({'timm', 'torchvision', 'torch._dynamo', 'scipy.stats', 'sklearn'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
