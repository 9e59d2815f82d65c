"""Eight ways to get a better number than the images deserve: each is caught, or stands in the threat model."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from test_runner import TOY, ToyConfig, cell_of

from medfsad_bench.errors import MethodError
from medfsad_bench.method import Images, Method, RunContext, Scorer, Scores
from medfsad_bench.results.protocol_checks import PASSED, allowed_difference
from medfsad_bench.runner.context import LocalContext
from medfsad_bench.runner.features import FeatureCache
from medfsad_bench.runner.runner import Runner
from medfsad_bench.testing import check_method, phantom_images


class Honest(Method):
    """Mean distance to the nearest support, an image score."""

    spread = 0.05  # about that of its scores on phantoms and on the wards

    def __init__(self, config: ToyConfig) -> None:
        self.config = config

    def adapt(self, support: torch.Tensor, context: RunContext) -> Scorer:
        return lambda images: Scores(image=self.distances(images, support))

    def distances(self, images: Images, support: Images) -> torch.Tensor:
        return (images[:, None] - support).abs().mean((2, 3, 4)).amin(1)


class BatchMedian(Honest):
    def adapt(self, support: torch.Tensor, context: RunContext) -> Scorer:
        def score(images: Images) -> Scores:
            values = self.distances(images, support)
            return Scores(image=values - values.median())

        return score


class Position(Honest):
    """Adds 0.8 % of the scores' spread to the last image of a batch, nothing to the first."""

    def adapt(self, support: torch.Tensor, context: RunContext) -> Scorer:
        def score(images: Images) -> Scores:
            positions = torch.linspace(0, 1, len(images)) if len(images) > 1 else torch.zeros(1)
            return Scores(image=self.distances(images, support) + 0.008 * self.spread * positions)

        return score


class Counting(Honest):
    """Scores rise a little with every query that was seen."""

    def adapt(self, support: torch.Tensor, context: RunContext) -> Scorer:
        seen = 0

        def score(images: Images) -> Scores:
            nonlocal seen
            seen += len(images)
            return Scores(image=self.distances(images, support) + 0.001 * self.spread * seen)

        return score


class Remembering(Honest):
    """Takes the queries of earlier draws for normal: most of them are."""

    def __init__(self, config: ToyConfig) -> None:
        super().__init__(config)
        self.seen: list[torch.Tensor] = []

    def adapt(self, support: torch.Tensor, context: RunContext) -> Scorer:
        of_earlier_draws = torch.cat([support, *self.seen])

        def score(images: Images) -> Scores:
            self.seen.append(images.clone())
            return Scores(image=self.distances(images, of_earlier_draws.mean(0, keepdim=True)))

        return score


class LargeBatches(Honest):
    """Subtracts the median of batches above 16 only, which a check of a few images never shows it."""

    def adapt(self, support: torch.Tensor, context: RunContext) -> Scorer:
        def score(images: Images) -> Scores:
            values = self.distances(images, support)
            return Scores(image=values - values.median() if len(images) > 16 else values)

        return score


class SmoothingInCached(Honest):
    def adapt(self, support: torch.Tensor, context: RunContext) -> Scorer:
        def compute(images: Images) -> list[torch.Tensor]:
            values = self.distances(images, support)
            return [(values + values.mean()) / 2]

        return lambda images: Scores(image=context.cached(("smooth", support.sum().item()), images, compute)[0])


class SmoothingInPaired(Honest):
    def adapt(self, support: torch.Tensor, context: RunContext) -> Scorer:
        def score(images: Images) -> Scores:
            def compute(others: Images) -> torch.Tensor:
                values = (images[:, None] - others).abs().mean((2, 3, 4))
                return (values + values.mean(0)) / 2

            return Scores(image=context.paired("smooth", images, support, compute).amin(1))

        return score


class MixingSupports(Honest):
    """Smooths over the supports inside `paired`, so that a support's value depends on its neighbours."""

    def adapt(self, support: torch.Tensor, context: RunContext) -> Scorer:
        def score(images: Images) -> Scores:
            def compute(others: Images) -> torch.Tensor:
                values = (images[:, None] - others).abs().mean((2, 3, 4))
                return (values + values.mean(1, keepdim=True)) / 2

            return Scores(image=context.paired("mixed", images, support, compute).amin(1))

        return score


CHEATS: list[type[Honest]] = [
    *(BatchMedian, Position, Counting, Remembering, LargeBatches),
    *(SmoothingInCached, SmoothingInPaired, MixingSupports),
]


def test_an_honest_method_passes_check_and_run(own_data: Path, tmp_path: Path) -> None:
    check_method(Honest(ToyConfig()))
    row, _ = Runner("cpu").run(cell_of(dataclasses.replace(TOY, build=Honest), own_data, tmp_path))
    assert set(row.checks.values()) == {PASSED}


@pytest.mark.parametrize("cheat", CHEATS)
def test_check_refuses(cheat: type[Honest]) -> None:
    with pytest.raises(MethodError, match=r"Contract broken: (scores depend|the same call gives other scores)"):
        check_method(cheat(ToyConfig()))


@pytest.mark.parametrize("cheat", [SmoothingInCached, SmoothingInPaired])
def test_check_refuses_with_a_context_that_holds_what_batches_made(cheat: type[Honest]) -> None:
    context, images = LocalContext(), phantom_images(43)
    cheat(ToyConfig()).adapt(images[:3], context)(images[3:])
    with pytest.raises(MethodError):
        check_method(cheat(ToyConfig()), images=images, context=context)


@pytest.mark.parametrize("cheat", CHEATS)
def test_a_run_finds_it_and_its_row_does_not_rank(cheat: type[Honest], own_data: Path, tmp_path: Path) -> None:
    info = dataclasses.replace(TOY, name="cheat", build=cheat)
    row, _ = Runner("cpu").run(cell_of(info, own_data, tmp_path, shots=3))
    assert any("scores depend on" in outcome for outcome in row.failed_checks.values()), row.checks
    assert not row.ranks


def test_memory_that_never_shows_in_draw_0_is_found_in_the_last(own_data: Path, tmp_path: Path) -> None:
    class Patient(Remembering):
        """Knows the first draw's support again, and is honest with it."""

        first: torch.Tensor | None = None

        def adapt(self, support: torch.Tensor, context: RunContext) -> Scorer:
            if self.first is None:
                self.first = support.clone()
            honest = Honest.adapt(self, support, context)
            remembering = super().adapt(support, context)
            is_first = torch.equal(support, self.first)

            def score(images: Images) -> Scores:
                scores = remembering(images)
                return honest(images) if is_first else scores

            return score

    info = dataclasses.replace(TOY, name="patient", build=Patient)
    row, _ = Runner("cpu").run(cell_of(info, own_data, tmp_path))
    assert list(row.failed_checks) == ["memory"]


def test_labels_read_from_the_prepared_file_are_not_found() -> None:
    """The eighth: code in the same process can look for the file, whose path nothing tells it. See THREATS.md."""
    told = {name for name in dir(LocalContext()) if not name.startswith("_")}
    public = {name for name in dir(RunContext) if not name.startswith("_")}
    assert public == {
        *("device", "seed", "features", "source_features", "cached", "paired", "epoch_end", "progress"),
    }
    assert not {name for name in told if "path" in name or "data" in name or "label" in name}


def test_a_value_of_a_method_never_passes_for_a_networks_features() -> None:
    """A key that is a backbone would else plant smoothed features where checks look for true ones."""
    from medfsad_bench.method import Backbone

    backbone, images = Backbone(stages=(1,)), phantom_images(2)
    context = LocalContext(cache=FeatureCache(torch.device("cpu")))
    context.cached(backbone, images, lambda batch: [torch.zeros(len(batch), 1, 2, 2)])
    assert context.features(backbone, images)[0].abs().max() > 0


def test_what_is_allowed_follows_the_methods_own_rounding() -> None:
    """Between a millionth of the scores' size and half a hundredth of their spread."""
    scores = np.random.default_rng(0).normal(0, 1, 1000)
    size, spread = np.abs(scores).max(), scores.std()
    assert allowed_difference(scores, np.zeros(0)) == pytest.approx(1e-6 * size)
    assert allowed_difference(scores, np.array([1e-5, 2e-5])) == pytest.approx(2e-4)
    assert allowed_difference(scores, np.array([1.0])) == pytest.approx(5e-3 * spread)
