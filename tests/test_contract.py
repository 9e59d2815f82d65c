"""The contract refuses what would inflate a number, and every installed method keeps it."""

from collections.abc import Callable

import pytest
import torch
from scipy.ndimage import gaussian_filter

from medfsad_bench.errors import MethodError
from medfsad_bench.method import Images, Method, RunContext, Scorer, Scores
from medfsad_bench.registry import Broken, all_methods, configure, method_info
from medfsad_bench.runner.plan import learns_from_sources
from medfsad_bench.testing import check_method, shortened, training_contract

METHODS = [name for name, info in all_methods().items() if not isinstance(info, Broken) and not info.member]


class Toy(Method):
    """Distance to the mean support; `spoil` breaks one clause."""

    def __init__(self, spoil: Callable[[Images, torch.Tensor], torch.Tensor] = lambda _, maps: maps) -> None:
        self.spoil = spoil

    def adapt(self, support: torch.Tensor, context: RunContext) -> Scorer:
        mean = support.mean(0)
        return lambda images: Scores(pixel=self.spoil(images, (images - mean).abs().mean(1)))


def across_the_batch(images: Images, maps: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(gaussian_filter(maps.numpy(), sigma=4))


def scaled_by_the_batch(images: Images, maps: torch.Tensor) -> torch.Tensor:
    return (maps - maps.min()) / (maps.max() - maps.min())


def writing_into_the_input(images: Images, maps: torch.Tensor) -> torch.Tensor:
    images.mul_(0.5)
    return maps


def with_global_noise(images: Images, maps: torch.Tensor) -> torch.Tensor:
    return maps + torch.rand(())


def not_finite(images: Images, maps: torch.Tensor) -> torch.Tensor:
    return maps / 0


def constant(images: Images, maps: torch.Tensor) -> torch.Tensor:
    return torch.ones_like(maps)


def test_a_clean_method_passes() -> None:
    check_method(Toy())


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (across_the_batch, "order of the queries|batch"),
        (scaled_by_the_batch, "batch"),
        (writing_into_the_input, "wrote into its input"),
        (with_global_noise, "random numbers that aren't the run's"),
        (not_finite, "isn't finite"),
        (constant, "all scores of draw 0 are equal"),
    ],
)
def test_what_inflates_a_number_is_refused(spoil: Callable[[Images, torch.Tensor], torch.Tensor], message: str) -> None:
    with pytest.raises(MethodError, match=message):
        check_method(Toy(spoil))


def test_a_scorer_that_shares_state_with_a_later_adapt_is_refused() -> None:
    class Sharing(Method):
        def adapt(self, support: torch.Tensor, context: RunContext) -> Scorer:
            self.mean = support.mean(0)
            return lambda images: Scores(image=(images - self.mean).square().mean((1, 2, 3)))

    with pytest.raises(MethodError, match="later adapt"):
        check_method(Sharing())


@pytest.mark.parametrize("name", METHODS)
def test_every_installed_method_keeps_the_contract(name: str) -> None:
    info = method_info(name)
    preset = "tiny" if "tiny" in info.presets else "quick"  # of networks whose weights no package brings
    if preset == "tiny":
        pytest.importorskip("open_clip", reason="CLIP's network comes with the extra [clip]")
    check_method(info.build(configure(info, preset=preset)))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in METHODS if method_info(name).trains])
def test_every_installed_method_that_trains_can_be_kept_and_taken_up_again(name: str) -> None:
    info = method_info(name)
    if "tiny" in info.presets:
        pytest.importorskip("open_clip", reason="CLIP's network comes with the extra [clip]")
    config = configure(info, preset="tiny" if "tiny" in info.presets else "quick")
    if not learns_from_sources(info, config):
        pytest.skip("its preset trains on the support alone")
    clauses, _ = training_contract(lambda: info.build(shortened(config)))
    assert [clause for clause in clauses if clause.fault or clause.untried] == []
