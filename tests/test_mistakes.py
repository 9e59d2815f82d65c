"""What an author is told by `medfsad check`: every clause with its result, a common mistake in one paragraph."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

MISTAKES = """
import json
import numpy as np, torch
from medfsad_bench.errors import WeightsError
from medfsad_bench.method import Method, Scores
from medfsad_bench.testing import contract, training_contract

def distances(images, support):
    return (images - support.mean(0)).abs().mean((1, 2, 3))

class Mistaken(Method):
    def __init__(self, score): self.score = score
    def adapt(self, support, context): return lambda images: self.score(distances(images, support))

class NoReturn(Method):
    def adapt(self, support, context): pass

class Typo(Method):
    def adapt(self, support, context): return lambda images: Scores(image=images.maen(1))

class RandomProjection(Method):
    def adapt(self, support, context):
        weights = torch.rand(3)
        return lambda images: Scores(image=(images.mean((2, 3)) @ weights))

class Trained(Method):
    def __init__(self, keep=True, tell=True, strict=False):
        self.keep, self.tell, self.strict, self.weight = keep, tell, strict, torch.zeros(1)
    def pretrain(self, sources, context):
        images = next(iter(sources.values()))
        self.weight = images[torch.arange(len(images))].float().mean().reshape(1)
        if self.tell: context.epoch_end(1)
    def adapt(self, support, context):
        return lambda images: Scores(image=distances(images, support) * self.weight)
    def state(self): return {"weight": self.weight} if self.keep else {}
    def load_state(self, state):
        if self.strict and "weight" not in state: raise WeightsError("no weight")
        self.weight = state["weight"]

scorers = {
    "a tensor": lambda d: d,
    "nothing": lambda d: None,
    "empty": lambda d: Scores(support=d[:, None]),
    "numpy": lambda d: Scores(image=d.numpy()),
    "gradient": lambda d: Scores(image=d * torch.ones(1, requires_grad=True)),
    "0-d": lambda d: Scores(image=d.mean()),
    "device": lambda d: Scores(image=d.to("meta")),
    "integers": lambda d: Scores(image=(1000 * d).long()),
    "not finite": lambda d: Scores(image=d / 0),
    "numpy random": lambda d: Scores(image=d + float(np.random.rand())),
    "unseeded": lambda d: Scores(image=d + float(np.random.default_rng().random())),
}
methods = {name: Mistaken(score) for name, score in scorers.items()}
methods |= {"no return": NoReturn(), "typo": Typo(), "projection": RandomProjection()}
told = {name: contract(method) for name, method in methods.items()}
told["no state"] = training_contract(lambda: Trained(keep=False))[0]
told["key error"] = training_contract(Trained)[0]
told["silent"] = training_contract(lambda: Trained(tell=False, strict=True))[0]
print(json.dumps({name: [(c.name, c.fault, c.untried) for c in clauses] for name, clauses in told.items()}))
"""


@pytest.fixture(scope="module")
def told() -> dict[str, list[list[str]]]:
    """By mistake the clauses; in a process of its own, where nothing but the suite looks at types."""
    done = subprocess.run([sys.executable, "-c", MISTAKES], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.mark.parametrize(
    ("mistake", "clause", "words"),
    [
        ("a tensor", "answer", "returned a torch tensor of shape (40,). Expected Scores"),
        ("nothing", "answer", "The scorer returned nothing (None)"),
        ("empty", "answer", "returned Scores with neither image scores nor anomaly maps"),
        ("no return", "answer", "adapt returned nothing (None)"),
        ("numpy", "answer", "Scores(image=…) is a NumPy array of shape (40,). Expected a torch tensor"),
        ("gradient", "answer", "requires a gradient"),
        ("0-d", "answer", "has the shape () for 40 images"),
        ("device", "answer", "is on meta, the images are on cpu"),
        ("integers", "answer", "is of torch.int64. Expected floating point"),
        ("not finite", "answer", "holds a value that isn't finite"),
        ("typo", "answer", "the scorer raised AttributeError ('Tensor' object has no attribute 'maen'"),
        ("numpy random", "repeat", "draws random numbers that aren't the run's"),
        ("projection", "repeat", "draws random numbers that aren't the run's"),
        ("unseeded", "repeat", "or draws random numbers that nobody seeds"),
        ("no state", "state", "state() returned {} after training"),
        ("key error", "foreign state", "load_state raised KeyError ('weight')"),
        ("silent", "epoch_end", "pretrain never called context.epoch_end"),
    ],
)
def test_a_common_mistake_is_told_in_one_paragraph(
    told: dict[str, list[list[str]]], mistake: str, clause: str, words: str
) -> None:
    faults = {name: fault for name, fault, _ in told[mistake] if fault}
    assert list(faults) == [clause], "and only its own clause is said to be broken"
    assert words in faults[clause]
    assert len(faults[clause].splitlines()) == 1


def test_what_cannot_be_tried_is_said_to_be_untried(told: dict[str, list[list[str]]]) -> None:
    untried = {name: reason for name, _, reason in told["nothing"] if reason}
    assert set(untried.values()) == {"there are no scores"}
    assert {"order", "batch", "alone", "memory"} < set(untried)


LEAKY = """
from dataclasses import dataclass
from medfsad_bench.info import MethodInfo
from medfsad_bench.method import Method, Scores

@dataclass(frozen=True)
class Config:
    pass

class Leaky(Method):
    def __init__(self, config): pass
    def adapt(self, support, context):
        def score(images):
            values = (images - support.mean(0)).abs().mean((1, 2, 3))
            return Scores(image=values / values.max())
        return score

INFO = MethodInfo("leaky", "1.0.0", Config, Leaky, "", "", "")
"""


@dataclass
class Asked:
    """What a user saw."""

    code: int
    out: str
    err: str


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A folder on the path that holds the package of a method which scales by the batch's largest score."""
    record = tmp_path / "leaky-1.0.0.dist-info"
    record.mkdir()
    (tmp_path / "leaky.py").write_text(LEAKY, "utf-8")
    (record / "METADATA").write_text("Metadata-Version: 2.1\nName: leaky\nVersion: 1.0.0\n", "utf-8")
    (record / "entry_points.txt").write_text("[medfsad.methods]\nleaky = leaky:INFO\n", "utf-8")
    return tmp_path


def asked(*words: object, cwd: Path) -> Asked:
    """A command in a process and a terminal of 80 columns of its own."""
    code = "import sys; from medfsad_bench.cli import main; main()"
    path = os.pathsep.join([str(cwd), *filter(None, sys.path)])
    environment = {**os.environ, "COLUMNS": "80", "PYTHONPATH": path}
    command = [sys.executable, "-c", code, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, check=False)
    return Asked(done.returncode, done.stdout, done.stderr)


def test_check_lists_every_clause_within_80_columns_and_exits_1(installed: Path) -> None:
    shown = asked("check", "leaky", cwd=installed)
    assert (shown.code, shown.err) == (1, "")
    assert max(map(len, shown.out.splitlines())) <= 80
    results = [line.split()[:2] for line in shown.out.splitlines() if line.startswith(("kept", "broken"))]
    assert ["kept", "repeat"] in results
    assert ["broken", "batch"] in results
    assert len(results) == 11
    assert shown.out.splitlines()[-1] == "leaky: breaks the contract: batch, alone"


def test_run_says_at_once_that_a_check_failed_and_exits_1(installed: Path, own_data: Path) -> None:
    words = ("--data", own_data, "--target", "ward_a", "--shots", 2, "--draws", 2, "--json")
    shown = asked("run", "leaky", *words, cwd=installed)
    assert shown.code == 1
    message = " ".join(shown.err.split())
    assert "fails the check alone, so it never ranks: scores depend on company: alone they differ" in message
    (row,) = json.loads(shown.out)
    assert {"batch", "alone"} <= set(row["checks"])


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (("run", "d24fad", "--device", "gpu"), "cuda"),
        (("run", "d24fda"), "d24fad"),
        (("plan", "chance", "d24fda"), "d24fad"),
    ],
)
def test_a_word_that_is_wrong_is_told_before_anything_is_loaded(
    words: tuple[str, ...], meant: str, tmp_path: Path
) -> None:
    code = (
        "import sys\nfrom medfsad_bench.cli import main\ntry: main()\n"
        "except SystemExit as end: print(end.code, 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    assert done.stdout.split() == ["2", "False"]
    assert f"Did you mean {meant!r}?" in " ".join(done.stderr.split())


def test_the_paper_preset_says_what_files_it_is_meant_for(own_data: Path) -> None:
    from medfsad_bench.cli.cells import _second_resizings
    from medfsad_bench.registry import method_info
    from medfsad_bench.store.prepared import prepared_sets

    infos, sets = [method_info("d24fad"), method_info("patchcore")], prepared_sets(own_data)
    (note,) = _second_resizings(infos, sets, "paper")
    assert "`medfsad prepare --size 128`. With ward_a (64 px), ward_b (64 px) images are resized a second time" in note
    assert list(_second_resizings(infos, sets, "quick")) == []


def test_an_unknown_network_is_answered_with_the_nearest_without_asking_the_hub() -> None:
    from medfsad_bench.errors import WeightsError
    from medfsad_bench.method import Backbone
    from medfsad_bench.runner.weights import weights_digest

    with pytest.raises(WeightsError, match=r"Did you mean 'efficientnet_lite0'\?"):
        weights_digest(Backbone("efficientnet_lit0"))
