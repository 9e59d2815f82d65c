"""The way of a contributor: the example works, a new package works, a foreign package is found, the wheel is whole."""

import json
import re
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path
from types import ModuleType

import pytest
import torch

from medfsad_bench.errors import MethodError
from medfsad_bench.registry import configure
from medfsad_bench.runner.context import LocalContext
from medfsad_bench.scaffold import new_method
from medfsad_bench.testing import check_method, phantom_images

ROOT = Path(__file__).resolve().parent.parent


def test_the_example_in_contributing_is_a_working_method_of_thirty_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    written = [line for line in block.splitlines() if line.strip()]
    assert len([line for line in written if not line.startswith(("from", "import"))]) <= 30
    module = ModuleType("example")
    monkeypatch.setitem(sys.modules, "example", module)  # a dataclass looks its module up
    exec(compile(block, "CONTRIBUTING.md", "exec"), module.__dict__)  # noqa: S102 - our own text
    method = module.INFO.build(configure(module.INFO, preset="quick"))
    check_method(method)
    images = phantom_images(6)
    normal, strange = method.adapt(images[:4], LocalContext())(torch.stack([images[0], images[4]])).image
    assert normal < strange


def test_a_new_method_is_forty_lines_and_passes_the_test_that_comes_with_it(tmp_path: Path) -> None:
    folder = new_method("my_method", tmp_path)
    assert len((folder / "my_method" / "method.py").read_text("utf-8").splitlines()) <= 40
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", "tests"],
        cwd=folder,
        env={"PYTHONPATH": str(folder), "PATH": "", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["my_method"], "nothing is left of the writing"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("My-Method", "can't be the name of a method"),
        ("class", "can't be the name of a method"),
        ("patchcore", "is installed already"),
        ("there", "exists already"),
    ],
)
def test_a_name_that_is_taken_or_no_package_name_is_refused(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(MethodError, match=message):
        new_method(name, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def wheel_of(folder: Path, out: Path) -> Path:
    """Built without network: hatchling is here already."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    done = subprocess.run([*command, "--wheel-dir", str(out), str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return next(out.glob(f"{folder.name if folder != ROOT else 'medfsad'}-*.whl"))


@pytest.fixture(scope="module")
def own_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wheel_of(ROOT, tmp_path_factory.mktemp("wheels"))


@pytest.mark.slow
def test_the_wheel_holds_code_manifests_and_leaderboard_and_nothing_else(own_wheel: Path) -> None:
    names = zipfile.ZipFile(own_wheel).namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert tops == {"medfsad_bench", "medfsad_baselines", "d24fad"}
    for folder in ("data_manifests", "leaderboard"):  # the scores of accepted rows stay in the repository
        inside = {name.removeprefix("medfsad_bench/_data/") for name in names if f"/_data/{folder}/" in name}
        beside = {path.relative_to(ROOT).as_posix() for path in (ROOT / folder).rglob("*") if path.is_file()}
        beside = {name for name in beside if not name.startswith("leaderboard/results/runs/")}
        assert inside == beside
        assert inside
    assert {"medfsad_bench/py.typed", "medfsad_baselines/py.typed", "d24fad/py.typed"} <= set(names)
    templates = {name.removeprefix("medfsad_bench/templates/") for name in names if "/templates/" in name}
    assert templates == {
        *("pyproject.toml.jinja", "README.md.jinja", "tests/test_NAME.py.jinja"),
        *(f"NAME/{module}.py.jinja" for module in ("__init__", "info", "config", "method")),
    }
    assert [name for name in names if "test_" in name] == ["medfsad_bench/templates/tests/test_NAME.py.jinja"]


@pytest.mark.slow
def test_installed_from_wheels_alone_a_foreign_method_is_found_and_a_broken_one_hides_nobody(
    own_wheel: Path, tmp_path: Path
) -> None:
    """In a bare environment: our wheel, a toy's and a broken toy's; only third parties come from outside."""
    for name in ("toy", "broken_toy"):
        wheel_of(new_method(name, tmp_path), tmp_path / "wheels")
    venv.create(tmp_path / "venv", with_pip=False, symlinks=True)
    python = tmp_path / "venv" / "bin" / "python"
    site = next((tmp_path / "venv").glob("lib/python3*/site-packages"))
    for wheel in (own_wheel, *sorted((tmp_path / "wheels").glob("*.whl"))):
        zipfile.ZipFile(wheel).extractall(site)
    (site / "broken_toy" / "info.py").write_text("import no_such_package_here\n", "utf-8")
    # A plain path: the editable installation's own `.pth` beside the third parties isn't followed from here.
    (site / "third_parties.pth").write_text(sysconfig.get_path("purelib") + "\n", "utf-8")

    def medfsad(*arguments: str) -> "subprocess.CompletedProcess[str]":
        code = "from medfsad_bench.cli import main; main()"
        return subprocess.run(
            [python, "-c", code, *arguments],
            cwd=tmp_path,
            env={"COLUMNS": "200", "HOME": str(tmp_path), "PATH": ""},
            capture_output=True,
            text=True,
            check=False,
        )

    listed = medfsad("methods", "--json")
    assert listed.returncode == 0, listed.stderr
    methods = json.loads(listed.stdout)
    assert {"toy", "patchcore", "d24fad"} <= set(methods)
    assert "No module named 'no_such_package_here'" in methods["broken_toy"]["broken"]
    assert [name for name, info in methods.items() if "broken" in info] == ["broken_toy"]
    checked = medfsad("check", "toy")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "toy: keeps the contract" in checked.stdout
    refused = medfsad("check", "broken_toy")
    assert refused.returncode == 2
    assert "can't be imported: ModuleNotFoundError" in " ".join(refused.stderr.split())
    datasets = medfsad("datasets")
    assert datasets.returncode == 0, datasets.stderr
    assert "brain_tumor" in datasets.stdout
    code = "import medfsad_bench; print(medfsad_bench.__file__)"
    where = subprocess.run([python, "-c", code], env={}, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert str(site) in where.stdout, "the wheel's code ran, not the checkout's"
