"""Training of D²4FAD: what an episode is, what breaks and how it goes on, and that options keep what they promise."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_runner import TOY, Toy, cell_of

from d24fad.config import Config
from d24fad.detector import D24FAD
from d24fad.episodes import epoch_episodes
from d24fad.networks import Networks, new_networks
from d24fad.training import Losses, episode_losses, training_losses
from medfsad_bench.errors import MethodError, WeightsError
from medfsad_bench.learning import SourceImages
from medfsad_bench.method import RunContext
from medfsad_bench.registry import method_info
from medfsad_bench.results.run_folder import RunFolder
from medfsad_bench.runner.context import LocalContext
from medfsad_bench.runner.rerun_checks import QUERIES
from medfsad_bench.runner.runner import Runner
from medfsad_bench.runner.sources import DeviceSource
from medfsad_bench.testing import check_method

CPU = torch.device("cpu")
SMALL = {"steps": 9, "size_px": 64, "batch_size": 4, "train_shots": 2}  # three steps an epoch


@dataclass
class Numbered:
    """Images of sources and groups without pixels."""

    source: np.ndarray
    group: np.ndarray

    def __len__(self) -> int:
        return len(self.source)


@given(
    sizes=st.lists(st.integers(5, 14), min_size=1, max_size=3),
    shots=st.integers(1, 3),
    batch=st.integers(1, 6),
    shared=st.booleans(),
    seed=st.integers(0, 99),
)
def test_every_image_is_a_query_once_and_supports_are_strangers_of_its_source(
    sizes: list[int], shots: int, batch: int, shared: bool, seed: int
) -> None:
    source = np.repeat(np.arange(len(sizes)), sizes)
    group = np.arange(len(source)) // 2 + 1000 * source  # pairs of images; at least two other groups a source
    images = Numbered(source, group)
    config = Config(batch_size=batch, train_shots=shots, shared_support=shared)
    episodes = list(epoch_episodes(images, config, seed=seed, epoch=0))
    assert sorted(np.concatenate([episode.queries for episode in episodes])) == list(range(len(source)))
    for episode in episodes:
        supports = np.broadcast_to(episode.supports, (len(episode.queries), shots))
        assert (source[supports] == source[episode.queries][:, None]).all()
        assert not (group[supports] == group[episode.queries][:, None]).any()
        assert all(len(set(row)) == shots for row in supports)
    again = list(epoch_episodes(images, config, seed=seed, epoch=0))
    assert all(
        (a.queries == b.queries).all() and (a.supports == b.supports).all()
        for a, b in zip(episodes, again, strict=True)
    )


def test_supports_are_drawn_once_or_redrawn_as_configured() -> None:
    images = Numbered(np.zeros(30, np.int64), np.arange(30))

    def supports(kind: str, epoch: int) -> dict[int, tuple[int, ...]]:
        config = Config(supports=kind, train_shots=2)  # type: ignore[arg-type]
        return {
            int(query): tuple(row)
            for episode in epoch_episodes(images, config, seed=1, epoch=epoch)
            for query, row in zip(episode.queries, episode.supports, strict=True)
        }

    assert supports("fixed", 0) == supports("fixed", 5)
    assert supports("redrawn", 0) != supports("redrawn", 5)


def test_a_source_of_one_group_is_refused_with_the_remedy() -> None:
    images = Numbered(np.zeros(6, np.int64), np.zeros(6, np.int64))
    for shared in (False, True):
        with pytest.raises(MethodError, match="train_shots"):
            list(epoch_episodes(images, Config(shared_support=shared), seed=0, epoch=0))


def test_a_loss_that_is_not_finite_stops_and_the_last_epoch_is_kept(
    own_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import d24fad.training as module

    calls = 0

    def diverging(*arguments: object) -> Losses:
        nonlocal calls
        calls += 1
        losses = training_losses(*arguments)  # type: ignore[arg-type]
        return losses._replace(total=losses.total * float("nan")) if calls == 5 else losses

    monkeypatch.setattr(module, "training_losses", diverging)
    cell = cell_of(method_info("d24fad"), own_data, tmp_path, settings=SMALL)
    with pytest.raises(MethodError, match=r"diverged by step 5 .*learning_rate"):
        Runner("cpu").run(cell)
    folder = tmp_path / "checkpoints" / cell.training_id
    record = json.loads((folder / "training.json").read_text("utf-8"))
    assert not record["finished"]
    assert (folder / record["state"]).is_file(), "the first epoch's"
    calls = 100
    row, _ = Runner("cpu").run(cell)
    assert np.isfinite(row.metrics["image_auroc"].value)


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError(), RuntimeError("can't allocate memory: 1 TB")]
)
def test_out_of_memory_says_what_to_lower(own_data: Path, tmp_path: Path, error: Exception) -> None:
    import dataclasses

    class Greedy(D24FAD):
        def pretrain(self, sources: object, context: RunContext) -> None:
            raise error

    info = dataclasses.replace(method_info("d24fad"), build=Greedy)
    with pytest.raises(MethodError, match=r"Out of memory on cpu .*--set batch_size=… \(now 4\)"):
        Runner("cpu").run(cell_of(info, own_data, tmp_path, settings=SMALL))


def test_another_runtime_error_keeps_its_traceback(own_data: Path, tmp_path: Path) -> None:
    import dataclasses

    class Faulty(Toy):
        def adapt(self, support: torch.Tensor, context: RunContext) -> object:  # type: ignore[override]
            raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        Runner("cpu").run(cell_of(dataclasses.replace(TOY, build=Faulty), own_data, tmp_path))


@pytest.mark.slow
def test_a_training_that_was_killed_goes_on_at_its_last_epoch_and_ends_the_same(own_data: Path, tmp_path: Path) -> None:
    """kill -9 as soon as the first checkpoint is there, then the same command again."""
    cell = cell_of(method_info("d24fad"), own_data, tmp_path / "whole", settings=SMALL)
    Runner("cpu").run(cell)
    settings = [part for name, value in SMALL.items() for part in ("--set", f"{name}={value}")]
    command = [
        sys.executable, "-c", "from medfsad_bench.cli import main; main()", "run", "d24fad", "--preset", "quick",
        "--data", str(own_data), "--runs", str(tmp_path / "killed"), "--target", "ward_a", "--shots", "2",
        "--draws", "3", *settings,
    ]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env={**os.environ})
    record = tmp_path / "killed" / "checkpoints" / cell.training_id / "training.json"
    for _ in range(2400):
        if record.is_file() or process.poll() is not None:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert record.is_file()
    Runner("cpu").run(cell_of(method_info("d24fad"), own_data, tmp_path / "killed", settings=SMALL))
    pd.testing.assert_frame_equal(
        RunFolder(tmp_path / "whole" / cell.run_id).scores(),
        RunFolder(tmp_path / "killed" / cell.run_id).scores(),
        check_exact=True,
    )


@pytest.fixture(scope="module")
def sources(own_data: Path) -> dict[str, DeviceSource]:
    from medfsad_bench.store.prepared import own_sets

    return {dataset.name: DeviceSource(dataset, CPU) for dataset in own_sets(own_data)}


def quick(**settings: object) -> Config:
    values = {"backbone": "efficientnet_lite0", "normalise": True, "size_px": 64, "batch_size": 4, "train_shots": 2}
    return Config(**{**values, **settings})  # type: ignore[arg-type]


def losses_of(config: Config, sources: dict[str, DeviceSource]) -> list[float]:
    """The first episode's losses, untrained."""
    images = SourceImages(sources, D24FAD(config)._backbone, LocalContext())
    networks = new_networks(images.stages(np.array([0])), config, seed=0).train()
    episode = next(epoch_episodes(images, config, seed=0, epoch=0))
    return [part.item() for part in episode_losses(networks, images, episode, config)]


def test_features_kept_as_float16_change_the_losses_by_less_than_a_thousandth(sources: dict[str, DeviceSource]) -> None:
    whole, half = losses_of(quick(), sources), losses_of(quick(half_features=True), sources)
    assert whole != half
    np.testing.assert_allclose(half, whole, rtol=1e-3)


@pytest.mark.parametrize(
    ("settings", "tolerance"),
    [({"channels_last": True}, 1e-4), ({"precision": "tf32"}, 1e-6), ({"precision": "bfloat16"}, 3e-2)],
)
def test_precision_and_layout_leave_the_losses_where_they_are(
    sources: dict[str, DeviceSource], settings: dict[str, object], tolerance: float
) -> None:
    np.testing.assert_allclose(losses_of(quick(**settings), sources), losses_of(quick(), sources), rtol=tolerance)
    assert not torch.backends.cuda.matmul.allow_tf32, "left as it was"


def test_a_student_to_be_compiled_has_the_state_of_any_other() -> None:
    stages = [torch.zeros(1, channels, edge, edge) for channels, edge in ((24, 16), (40, 8), (112, 4), (320, 2))]
    plain, compiled = (new_networks(stages, quick(compile=mode), seed=0).state_dict() for mode in ("no", "default"))
    assert plain.keys() == compiled.keys()
    assert all(torch.equal(value, compiled[name]) for name, value in plain.items())


def test_features_beyond_the_budget_are_computed_anew_and_the_same(sources: dict[str, DeviceSource]) -> None:
    from medfsad_bench.runner.features import FeatureCache

    config, stages = quick(), []
    for budget in (8 << 30, 1):
        context = LocalContext(cache=FeatureCache(CPU, budget_bytes=budget))
        stages.append(SourceImages(sources, D24FAD(config)._backbone, context).stages(np.array([0, 13, 5, 20])))
    assert all(torch.equal(a, b) for a, b in zip(*stages, strict=True))


def test_in_a_sweep_the_teacher_sees_each_image_once(own_data: Path, tmp_path: Path) -> None:
    """Two targets, each a source of the other, two shots, three draws, three epochs."""
    from medfsad_bench.store.prepared import own_sets

    runner = Runner("cpu")
    for target in ("ward_a", "ward_b"):
        for shots in (2, 4):
            runner.run(cell_of(method_info("d24fad"), own_data, tmp_path, target=target, shots=shots, settings=SMALL))
    pixels = {
        dataset.images(np.array([row])).tobytes()
        for dataset in own_sets(own_data)
        for row in (*dataset.indices("train"), *dataset.indices("test"))
    }
    moved = 2 * 2 * QUERIES  # of each target some, twice, with pixels moved by a rounding error
    assert runner.cache.images_computed == len(pixels) + moved


def test_the_teacher_alone_is_compared_without_a_student() -> None:
    """The map of one support is 1 − cos of the teacher's features, by hand at the coarsest scale's corner."""
    from medfsad_bench.testing import phantom_images

    config = quick(compared="teacher", weighting="uniform", epochs=0)
    method, context, images = D24FAD(config), LocalContext(), phantom_images(3)
    pixel = method.adapt(images[:1], context)(images[1:]).pixel
    assert pixel is not None
    stages = context.features(method._backbone, images)[:3]
    corner = [1 - torch.cosine_similarity(s[1:, :, 0, 0], s[:1, :, 0, 0]) for s in stages]
    torch.testing.assert_close(pixel[:, 0, 0], torch.stack(corner).sum(0))
    with pytest.raises(ValueError, match="epochs=0"):
        quick(compared="teacher")


def reference_checkpoint(path: Path, *, lost: str = "") -> Networks:
    """A checkpoint in the reference's form, for EfficientNet-Lite0 at 128 px."""
    networks = Networks([24, 40, 112, 320, 32, 16, 8, 4], quick(size_px=128))
    parts = {
        name: {key: value for key, value in module.state_dict().items() if f"{name}.{key}" != lost}
        for name, module in (("decoder", networks.decoder), ("weight", networks.weight))
    }
    torch.save(parts, path)
    return networks


def test_a_checkpoint_in_the_references_form_is_loaded_without_loss(own_data: Path, tmp_path: Path) -> None:
    networks = reference_checkpoint(tmp_path / "ours.pth")
    method = D24FAD(quick(size_px=128))
    method.load_reference(tmp_path / "ours.pth")
    state = method.state()
    assert all(torch.equal(state[f"network.{name}"], value) for name, value in networks.state_dict().items())
    cell = cell_of(
        method_info("d24fad"), own_data, tmp_path, checkpoint=tmp_path / "ours.pth", draws=1
    )  # fmt: skip
    row, _ = Runner("cpu").run(cell)
    assert row.pretrain_s == 0
    assert any("trained on" in warning for warning in row.warnings), "nothing tells what it has seen"
    assert not row.ranks


def test_a_state_with_the_names_of_earlier_versions_is_taken_up(sources: dict[str, DeviceSource]) -> None:
    trained, again = D24FAD(quick(steps=2)), D24FAD(quick(steps=2))
    trained.pretrain(sources, LocalContext())
    earlier = {"network.": "networks.", "counters": "training.counters", "moment.": "training.adam."}
    state = {}
    for name, value in trained.state().items():
        prefix = next((prefix for prefix in earlier if name.startswith(prefix)), "")
        state[earlier.get(prefix, "") + name.removeprefix(prefix)] = value
    assert "training.adam.0.exp_avg" in state
    again.load_state(state)
    assert again.state().keys() == trained.state().keys()
    assert all(torch.equal(value, trained.state()[name]) for name, value in again.state().items())


def test_a_wrong_checkpoint_is_refused_by_its_first_keys(tmp_path: Path) -> None:
    reference_checkpoint(tmp_path / "lossy.pth", lost="decoder.layer2.0.bn1.weight")
    with pytest.raises(WeightsError, match=r"1 tensors missing .*decoder\.layer2\.0\.bn1\.weight"):
        D24FAD(quick(size_px=128)).load_reference(tmp_path / "lossy.pth")
    torch.save({"model": {}}, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match=r"'model'.*'decoder' and 'weight'"):
        D24FAD(quick()).load_reference(tmp_path / "other.pth")
    (tmp_path / "text.pth").write_text("no checkpoint", "utf-8")
    with pytest.raises(WeightsError, match="can't be read"):
        D24FAD(quick()).load_reference(tmp_path / "text.pth")


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path) -> None:
    import pickle

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {tmp_path / 'owned'}",)

    (tmp_path / "evil.pth").write_bytes(pickle.dumps({"decoder": Evil(), "weight": {}}))
    with pytest.raises(WeightsError, match="can't be read"):
        D24FAD(quick()).load_reference(tmp_path / "evil.pth")
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_lite0", "convnext_atto", "swin_tiny_patch4_window7_224"])
def test_any_network_of_four_stages_is_a_teacher(name: str) -> None:
    """Whether timm counts a stem (ResNet) or not (ConvNeXt), and whatever the order of its axes (Swin)."""
    config = Config(backbone=f"random:{name}", size_px=64, depths=(1, 1, 1))
    method = D24FAD(config)
    stages = LocalContext().features(method._backbone, torch.rand(1, 3, 64, 64))
    assert [stage.shape[2:] for stage in stages] == [(16, 16), (8, 8), (4, 4), (2, 2)]
    assert all(low.shape[1] < high.shape[1] for low, high in pairwise(stages)), "channels come second"
    check_method(method)


def test_a_network_that_takes_another_size_alone_says_so() -> None:
    method = D24FAD(Config(backbone="random:swinv2_tiny_window8_256", size_px=64))
    with pytest.raises(WeightsError, match="refuses images of 64 px"):
        method.adapt(torch.rand(2, 3, 64, 64), LocalContext())
