"""The script that compares native baselines with anomalib's."""

import dataclasses
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch
from test_runner import TOY, Toy, ToyConfig, cell_of

from medfsad_bench.method import RunContext, Scorer, Scores
from medfsad_bench.registry import configure, method_info
from medfsad_bench.runner.context import LocalContext
from medfsad_bench.runner.runner import Runner
from medfsad_bench.testing import phantom_images

SCRIPT = Path(__file__).parent.parent / "baselines" / "agreement.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("agreement", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Backwards(Toy):
    """The toy's score upside down."""

    def __init__(self, config: ToyConfig) -> None:
        super().__init__(config)

    def adapt(self, support: torch.Tensor, context: RunContext) -> Scorer:
        mean = support.mean(0)
        return lambda images: Scores(pixel=1 - (images - mean).abs().mean(1))


def test_the_table_tells_equal_methods_from_opposite_ones(script: ModuleType, own_data: Path, tmp_path: Path) -> None:
    other, opposite = (dataclasses.replace(TOY, name=f"anomalib:{name}") for name in ("toy", "second"))
    second = dataclasses.replace(TOY, name="second")
    for info in (TOY, other, second, dataclasses.replace(opposite, build=Backwards)):
        Runner("cpu").run(cell_of(info, own_data, tmp_path, target="ward_b", draws=2))
    lines = script.table([tmp_path]).splitlines()[2:]
    assert [line.split("|")[1].strip() for line in lines] == ["`second`", "`toy`"]
    assert " yes | +0.000 [+0.000, +0.000] | 0.000 |" in lines[1]
    assert " no | " in lines[0]


def test_native_padim_with_anomalibs_channels_and_covariance_is_anomalibs_but_for_the_smoothing(
    script: ModuleType,
) -> None:
    if importlib.util.find_spec("anomalib") is None:
        pytest.skip("needs the extra [anomalib]")
    from anomalib.models.components import GaussianBlur2d

    from medfsad_baselines.anomalib_models import _module

    config, own = (configure(method_info(name), preset="quick") for name in ("padim", "anomalib:padim"))
    images, context = phantom_images(8, size_px=128), LocalContext()
    theirs = method_info("anomalib:padim").build(own).adapt(images[:4], context)(images[4:]).pixel
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        channels = _module("padim", own, context).model.idx
    ours = script._Unshrunk(config, channels).adapt(images[:4], context)(images[4:]).pixel
    large = torch.nn.functional.interpolate(ours[:, None].float(), (128, 128), mode="bilinear")
    smooth = GaussianBlur2d(kernel_size=(33, 33), sigma=(4.0, 4.0), channels=1)(large)[:, 0]
    assert theirs is not None
    assert float((smooth - theirs).abs().max()) < 0.01 * float(theirs.max())
