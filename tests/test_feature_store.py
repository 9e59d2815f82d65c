"""Features on disk: the same bits, computed once, found damaged, kept within a budget, never in the way."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_faults import files_up_to
from test_runner import cell_of
from typer.testing import CliRunner

from medfsad_bench import cli
from medfsad_bench.method import Backbone, Images
from medfsad_bench.registry import method_info
from medfsad_bench.runner.feature_file import About, Damaged, open_features, write_features
from medfsad_bench.runner.feature_store import FeatureStore
from medfsad_bench.runner.features import FeatureCache
from medfsad_bench.runner.frozen import Features
from medfsad_bench.runner.images import shown
from medfsad_bench.runner.opened import opened
from medfsad_bench.runner.plan import Cell
from medfsad_bench.runner.rerun_checks import QUERIES, calibration_table, rerun_table
from medfsad_bench.runner.runner import Runner
from medfsad_bench.runner.scoring import score_draw
from medfsad_bench.runner.stored_features import FileImages
from medfsad_bench.runner.training import train
from medfsad_bench.testing import phantom_images

CPU = torch.device("cpu")
BACKBONE = Backbone("efficientnet_lite0", (1, 3), 64)
ABOUT = About({"network": "net"}, (1,), "ward", "digest", 6)


def pictures(count: int = 11, *, seed: int = 0) -> FileImages:
    return FileImages(f"file{seed}", (phantom_images(count, seed=seed) * 255).byte())


def asked(
    store: FeatureStore | None, images: FileImages, backbone: Backbone = BACKBONE
) -> tuple[FeatureCache, tuple[torch.Tensor, ...]]:
    """A cache of another process, as it were, and the features in reversed order."""
    cache = FeatureCache(CPU, store=store)
    positions = torch.arange(len(images.stored)).flip(0)
    with cache.expecting({images.content_digest: "ward"}, lambda: [images], lambda *_: None):
        features = cache.features(backbone, shown(images.stored, positions))
    if store is not None:
        store.close()
    return cache, features


def files_in(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.arrow"))


def assert_equal(these: tuple[torch.Tensor, ...], those: tuple[torch.Tensor, ...]) -> None:
    for this, that in zip(these, those, strict=True):
        assert this.dtype == that.dtype == torch.float32
        assert torch.equal(this, that)


class Told(list[str]):
    """Lines that a store tells."""

    def __call__(self, line: str) -> None:
        self.append(line)


@pytest.mark.parametrize("backbone", [BACKBONE, dataclasses.replace(BACKBONE, half=True)], ids=["float32", "half"])
def test_what_is_read_is_what_would_be_computed_bit_for_bit(tmp_path: Path, backbone: Backbone) -> None:
    images, (_, expected) = pictures(), asked(None, pictures(), backbone)
    writing, written = asked(FeatureStore(tmp_path), images, backbone)
    reading, read = asked(FeatureStore(tmp_path), images, backbone)
    assert_equal(written, expected)
    assert_equal(read, expected)
    assert (writing.images_computed, reading.images_computed) == (11, 0)
    (path,) = files_in(tmp_path)
    values = 24 * 16 * 16 + 112 * 4 * 4
    assert path.stat().st_size == pytest.approx(11 * values * (2 if backbone.half else 4), rel=0.02), "half if asked"


def test_fewer_stages_and_more_images_of_a_file_take_what_is_there(tmp_path: Path) -> None:
    images = pictures()
    some = FileImages(images.content_digest, images.stored[:7])
    asked(FeatureStore(tmp_path), some)
    cache, features = asked(FeatureStore(tmp_path), images, dataclasses.replace(BACKBONE, stages=(3,)))
    assert cache.images_computed == 4, "the seven are there, with a stage more than is asked for"
    assert_equal(features, asked(None, images, dataclasses.replace(BACKBONE, stages=(3,)))[1])


@pytest.mark.parametrize(
    "change",
    [
        {"size_px": 32},
        {"normalise": False},
        {"half": True},
        {"name": "random:efficientnet_lite0"},
        {"stages": (2,)},
        {"threads": 2},
    ],
    ids=lambda change: next(iter(change)),
)
def test_nothing_is_read_that_another_pass_made(tmp_path: Path, change: dict[str, object]) -> None:
    """Another number of threads moves last bits, so it's another pass."""
    asked(FeatureStore(tmp_path), pictures(3))
    threads = torch.get_num_threads()
    torch.set_num_threads(change.pop("threads", threads))  # type: ignore[arg-type]
    try:
        cache, _ = asked(FeatureStore(tmp_path), pictures(3), dataclasses.replace(BACKBONE, **change))  # type: ignore[arg-type]
    finally:
        torch.set_num_threads(threads)
    assert cache.images_computed == 3
    assert len(files_in(tmp_path)) == 2


def test_images_of_no_prepared_file_never_come_on_a_disk(tmp_path: Path) -> None:
    """Own images of `medfsad score`, rotated supports, queries moved by a rounding error."""
    cache, images = FeatureCache(CPU, store=FeatureStore(tmp_path)), pictures(3)
    with cache.expecting({}, lambda: [images], lambda *_: None):
        cache.features(BACKBONE, phantom_images(2, seed=5))
        cache.features(BACKBONE, shown(images.stored, torch.arange(3)).flip(3))
        cache.cached(BACKBONE, phantom_images(2, seed=6), lambda batch: [batch])
    cache.features(BACKBONE, phantom_images(2, seed=7))
    assert list(tmp_path.iterdir()) == []


def test_what_a_method_plants_is_not_what_a_network_sees(tmp_path: Path) -> None:
    from medfsad_bench.runner.context import LocalContext

    images, cache = pictures(3), FeatureCache(CPU, store=FeatureStore(tmp_path))
    context = LocalContext(cache=cache)
    with cache.expecting({"file0": "ward"}, lambda: [images], lambda *_: None):
        batch = shown(images.stored, torch.arange(3))
        context.cached(BACKBONE, batch, lambda some: [torch.zeros(len(some), 1, 2, 2)])
        context.features(BACKBONE, batch)
    assert_equal(asked(FeatureStore(tmp_path), images)[1], asked(None, images)[1])


Tables = list[pd.DataFrame]


def scored(runner: Runner, cell: Cell) -> Tables:
    """All that a run measures, without its figures' intervals."""
    with opened(cell, CPU, runner.cache, runner.progress) as run:
        train(run)
        draws = [score_draw(run, draw) for draw in range(cell.options.draws)]
        tables = [pd.DataFrame(draw.columns) for draw in draws]
        return [*tables, calibration_table(run), rerun_table(run)]


def sweep(data: Path, runs: Path, store: FeatureStore | None) -> tuple[list[Tables], int]:
    """Two methods on one target by a runner of its own; and how often the network was called."""
    runner, calls = Runner("cpu", store=store), 0
    inner = Features.forward

    def counting(self: Features, images: Images) -> list[torch.Tensor]:
        nonlocal calls
        calls += 1
        return inner(self, images)

    names = ("mean_distance", "patchcore")
    plan = [cell_of(method_info(name), data, runs, target="ward_b", draws=2) for name in names]
    runner.announce(plan)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Features, "forward", counting)
        return [scored(runner, cell) for cell in plan], calls


def assert_same_tables(these: Tables, those: Tables) -> None:
    for this, that in zip(these, those, strict=True):
        pd.testing.assert_frame_equal(this, that, check_exact=True)


@pytest.mark.slow
def test_the_second_process_of_a_sweep_computes_no_feature_and_its_rows_are_the_same(
    own_data: Path, tmp_path: Path
) -> None:
    plain, _ = sweep(own_data, tmp_path / "plain", None)
    first, calls = sweep(own_data, tmp_path / "first", FeatureStore(tmp_path / "features"))
    second, calls_again = sweep(own_data, tmp_path / "second", FeatureStore(tmp_path / "features"))
    assert calls_again == 2 * QUERIES // 8, (
        "eight at a time, with pixels moved by a rounding error: in no prepared file"
    )
    assert calls > calls_again
    for of_method in zip(plain, first, second, strict=True):
        assert_same_tables(of_method[0], of_method[1])
        assert_same_tables(of_method[0], of_method[2])


@pytest.mark.slow
def test_a_trained_method_finds_its_sources_features(own_data: Path, tmp_path: Path) -> None:
    """And a source on disk gives the batches of a source in memory."""
    small = {"steps": 3, "size_px": 64, "batch_size": 4, "train_shots": 2}
    tables, computed = [], []
    for name, store in {"plain": None, "a": FeatureStore(tmp_path / "f"), "b": FeatureStore(tmp_path / "f")}.items():
        cell = cell_of(method_info("d24fad"), own_data, tmp_path / name, target="ward_b", settings=small, draws=1)
        runner = Runner("cpu", store=store)
        tables.append(scored(runner, cell))
        computed.append(runner.cache.images_computed)
    assert_same_tables(tables[0], tables[1])
    assert_same_tables(tables[0], tables[2])
    assert computed[2] == 2 * QUERIES


@pytest.mark.parametrize("size", [0, 3_000, 300_000])
def test_a_full_disk_is_one_line_and_the_run_goes_on(tmp_path: Path, size: int) -> None:
    told, images = Told(), pictures()
    store = FeatureStore(tmp_path, tell=told)
    with files_up_to(size):
        _, features = asked(store, images)
        asked(store, pictures(seed=1))
    assert_equal(features, asked(None, images)[1])
    assert len(told) == 1
    assert "takes no features (File too large), so they are computed and not kept" in told[0]
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_folder_that_takes_nothing_is_one_line_and_the_run_goes_on() -> None:
    told = Told()
    _, features = asked(FeatureStore(Path("/proc/features"), tell=told), pictures())
    assert_equal(features, asked(None, pictures())[1])
    assert len(told) == 1


def test_a_damaged_file_is_said_and_made_anew(tmp_path: Path) -> None:
    images, told = pictures(), Told()
    _, expected = asked(FeatureStore(tmp_path), images)
    (path,) = files_in(tmp_path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    cache, features = asked(FeatureStore(tmp_path, tell=told), images)
    assert told == [f"{path} is damaged (its digest differs), so its features are computed anew."]
    assert cache.images_computed == 11
    assert_equal(features, expected)
    assert asked(FeatureStore(tmp_path, tell=told), images)[0].images_computed == 0


@pytest.fixture(scope="module")
def whole_file(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("file") / "a.arrow"
    rng = np.random.default_rng(0)
    digests = [bytes([number]) * 32 for number in range(6)]
    stages = rng.random((6, 2, 3, 3), np.float32)
    write_features(path, ABOUT, [(digests[:4], [stages[:4]]), (digests[4:], [stages[4:]])])
    opened = open_features(path)
    assert opened is not None
    assert opened.about == ABOUT
    read = [batch.to_numpy_ndarray() for _, of_stage in opened.batches for batch in of_stage.values()]
    np.testing.assert_array_equal(np.concatenate(read), stages)
    assert [digest for keys, _ in opened.batches for digest in keys] == digests
    return path.read_bytes()


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_no_changed_byte_and_no_missing_end_goes_unnoticed(
    whole_file: bytes, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = bytearray(whole_file)
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path = tmp_path_factory.getbasetemp() / "changed.arrow"
    path.write_bytes(content)
    with pytest.raises(Damaged):
        open_features(path)


def test_what_was_used_least_recently_goes_when_the_budget_is_used_up(tmp_path: Path) -> None:
    asked(FeatureStore(tmp_path), pictures(seed=0))
    size = files_in(tmp_path)[0].stat().st_size
    asked(FeatureStore(tmp_path), pictures(seed=1))
    for age, path in enumerate(sorted(files_in(tmp_path), key=lambda path: path.stat().st_mtime_ns)):
        os.utime(path, (0, 1000 + age))
    asked(FeatureStore(tmp_path), pictures(seed=0))  # which is a use
    asked(FeatureStore(tmp_path, budget_bytes=round(2.5 * size)), pictures(seed=2))
    assert len(files_in(tmp_path)) == 2
    computed = {seed: asked(FeatureStore(tmp_path), pictures(seed=seed))[0].images_computed for seed in (0, 2, 1)}
    assert computed == {0: 0, 2: 0, 1: 11}


def test_a_set_that_fits_no_budget_is_said_and_computed(tmp_path: Path) -> None:
    told = Told()
    cache, features = asked(FeatureStore(tmp_path, budget_bytes=1000, tell=told), pictures())
    assert_equal(features, asked(None, pictures())[1])
    assert told == [
        "The features of ward (0.000349 GB) don't fit the budget of 1e-06 GB beside those in use, so they aren't kept. "
        "Raise --features-gb, free disk space, or name another --features."
    ]
    assert cache.images_computed <= 11 + 8, "a few to know their size"


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    for seed in (0, 1):
        asked(FeatureStore(tmp_path / ".features"), pictures(seed=seed))
    return tmp_path


def test_cache_lists_verifies_and_clears(stored: Path) -> None:
    def said(*arguments: str, code: int = 0) -> str:
        outcome = CliRunner().invoke(cli.app, ["cache", "--runs", str(stored), *arguments], env={"COLUMNS": "80"})
        assert outcome.exit_code == code, outcome.output
        return outcome.output

    assert "efficientnet_lite0 1 3    ward CPU" in " ".join(said().split("\n"))
    assert "2 of 2 files are what was written" in said("--verify")
    path = files_in(stored)[0]
    path.write_bytes(path.read_bytes()[:-1])
    assert "1 of 2 files are what was written" in said("--verify", code=1)
    assert "Removed" in said("--clear", "--of", "efficientnet_lite0")
    assert "not readable" in said()
    assert "Removed" in said("--clear")
    assert "holds no features" in said()
