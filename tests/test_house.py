"""What keeps the house in order: where things lie, how long a module may be, and what is written in one place alone."""

import ast
import inspect
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.models import ParameterInfo

from medfsad_bench import cli, info
from medfsad_bench.cli import options

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "medfsad_bench"
MODULES = sorted(PACKAGE.rglob("*.py"))
ALL_MODULES = sorted([*MODULES, *(ROOT / "baselines").rglob("*.py"), *(ROOT / "methods").rglob("*.py")])

AUTHORS = {"method", "info", "registry", "scaffold", "learning"}
GROUND = {"__init__", "errors", "files", "resources", "processes", "cluster", "display", "manifest", "interface"}
FOLDERS = {
    *("readers", "layouts", "curation", "store", "episodes", "runner"),
    *("metrics", "estimates", "results", "board", "cli", "demo", "testing", "templates", "own_images"),
}
RUN_FILES = {
    *("config.json", "environment.json", "log.jsonl", "row.json"),
    *("scores.parquet", "calibration.parquet", "reruns.parquet", "pixels.npz", "support.npz", "maps.h5"),
}

DEFAULT_FOLDERS = ("medfsad-data", "medfsad-runs")
OWN_MEANING = {  # options of one command that share a name with those of others and ask for something else
    *(
        ("benchmark", "prepare"),
        ("seed", "demo"),
        ("out_png", "inspect"),
        ("runs", "leaderboard"),
        ("data", "leaderboard"),
        ("format_", "leaderboard"),
        ("runs", "reproduce"),
        ("preset", "compare"),
    ),
    *(("contaminated", "robustness"), ("draws", "protocols"), ("target", "influence"), ("method", "submit")),
}


def test_the_root_of_the_package_holds_what_authors_import_and_the_ground() -> None:
    inside = [path for path in PACKAGE.iterdir() if path.name != "__pycache__"]
    modules = {path.stem for path in inside if path.suffix == ".py"}
    assert modules <= AUTHORS | GROUND
    assert {path.name for path in inside if path.is_dir()} == FOLDERS
    assert {path.name for path in inside if path.is_file() and path.suffix != ".py"} == {"py.typed"}


def test_no_folder_bears_the_name_of_a_function_of_the_python_interface() -> None:
    assert not FOLDERS & {"prepare", "run", "score", "load"}


def test_no_module_is_longer_than_300_lines() -> None:
    lengths = {within(path): len(path.read_text("utf-8").splitlines()) for path in MODULES}
    assert {name: length for name, length in lengths.items() if length > 300} == {}


@pytest.mark.parametrize("sign", [".tmp", ".partial", "os.getpid"])
def test_temporary_names_are_given_in_files_alone(sign: str) -> None:
    """Whatever appears whole or not at all goes through `files.whole`."""
    users = [within(path) for path in ALL_MODULES if sign in path.read_text("utf-8")]
    assert [name for name in users if name != "medfsad_bench/files.py"] == []


def test_the_files_of_a_run_are_named_in_one_module() -> None:
    naming = {
        (within(path), text)
        for path in MODULES
        for text in strings(path)
        if any(name in text for name in RUN_FILES) and within(path) != "medfsad_bench/results/run_folder.py"
    }
    assert naming == set()


@pytest.mark.parametrize("choices", [typing.get_args(info.HoldOut), typing.get_args(info.Protocol)], ids=str)
def test_hold_outs_and_protocols_are_listed_in_one_module(choices: tuple[str, ...]) -> None:
    listing = [within(path) for path in ALL_MODULES if any(set(choices) <= listed for listed in lists(path))]
    assert listing == ["medfsad_bench/info.py"]


def test_an_option_that_commands_share_is_written_once() -> None:
    """`--device` has the same words, type and range in every command: those of cli/options.py."""
    shared = {getattr(options, name) for name in dir(options) if is_option(getattr(options, name))}
    annotations = {
        (name, command.callback.__name__): parameter.annotation
        for command in cli.app.registered_commands
        if command.callback is not None
        for name, parameter in inspect.signature(command.callback).parameters.items()
    }
    names = {name for (name, _), annotation in annotations.items() if annotation in shared}
    own = {key for key, annotation in annotations.items() if key[0] in names and annotation not in shared}
    assert own == OWN_MEANING


def test_the_default_folders_are_written_once() -> None:
    writing = {within(path) for path in ALL_MODULES for text in strings(path) if text in DEFAULT_FOLDERS}
    assert writing == {"medfsad_bench/cli/options.py"}


def within(path: Path) -> str:
    """A path as it is named from the root of the repository."""
    return path.relative_to(ROOT).as_posix()


def strings(path: Path) -> Iterator[str]:
    """All texts of a module but its docstrings."""
    tree = ast.parse(path.read_text("utf-8"))
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    statements = [node.body[0] for node in ast.walk(tree) if isinstance(node, documented) and node.body]
    docstrings = {statement.value for statement in statements if isinstance(statement, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in docstrings:
            yield node.value


def lists(path: Path) -> Iterator[set[str]]:
    """The texts of each tuple, list, set and `Literal` of a module."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Tuple | ast.List | ast.Set):
            yield {part.value for part in node.elts if isinstance(part, ast.Constant) and isinstance(part.value, str)}


def is_option(value: object) -> bool:
    """Whether a name of a module is an annotated option or argument."""
    return any(isinstance(part, ParameterInfo) for part in getattr(value, "__metadata__", ()))
