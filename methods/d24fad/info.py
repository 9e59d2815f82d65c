"""The record of D²4FAD. Imports no torch."""

from typing import TYPE_CHECKING

from d24fad.config import LAPTOP, QUICK, Config
from medfsad_bench.info import MethodInfo

if TYPE_CHECKING:
    from medfsad_bench.method import Method


def build(config: Config) -> "Method":
    """The detector for a configuration."""
    from d24fad.detector import D24FAD

    return D24FAD(config)


INFO = MethodInfo(
    name="d24fad",
    version="1.2.0",
    config=Config,
    build=build,
    summary="Dual distillation: a student decoder that follows a frozen teacher, and itself on the support",
    paper="Dong et al., ICLR 2026",
    licence="Apache-2.0",
    presets={"quick": QUICK, "laptop": LAPTOP},
    has_seen=("imagenet-1k",),
    trains=True,
    file_px={"paper": 128, "laptop": 128},
    controls={"teacher alone": {"compared": "teacher", "weighting": "uniform", "epochs": 0, "steps": None}},
    deviations=(
        "training supports come from other groups than the query's; the reference draws from the whole set",
        "a query's training supports are K different images; the reference draws them with replacement",
        "the last batch of an epoch is trained on, however small; the reference drops it",
        "prepared at another size than 128 px, images are resized twice (to the file's size, then bilinear to 128 px); "
        "the reference resizes the original once (Lanczos), as prepare --size 128 does",
        "one training at K = 4 serves every K in the quick preset",
        "the map is smoothed image by image, every test image is scored, and the last epoch is used (protocol strict)",
    ),
)
