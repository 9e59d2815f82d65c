"""A test whose class is of one group: every figure stands, without an interval and with the reason."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from medfsad_bench.estimates.lesion import lesion_estimates
from medfsad_bench.estimates.of_run import estimates_of_run
from medfsad_bench.estimates.pixel import measure_pixels, pixel_estimates

DRAWS, IMAGES = 3, 12


def scores_of(groups: list[str]) -> pd.DataFrame:
    rng = np.random.default_rng(7)
    frame = pd.DataFrame(
        {
            "draw": np.repeat(np.arange(DRAWS), IMAGES),
            "index": np.tile(np.arange(IMAGES), DRAWS),
            "id": [f"i{k}" for k in range(IMAGES)] * DRAWS,
            "group": groups * DRAWS,
            "anomalous": [k >= 6 for k in range(IMAGES)] * DRAWS,
            "disease": "",
        }
    )
    return frame.assign(score=rng.normal(size=len(frame)) + frame["anomalous"])


def calibration() -> pd.DataFrame:
    rows = [
        ("toy", draw, "support", shot, f"s{shot}", f"s{shot}", shot / 9) for draw in range(DRAWS) for shot in range(4)
    ]
    return pd.DataFrame(rows, columns=["set", "draw", "kind", "position", "id", "group", "score"])


MANY = [f"g{k}" for k in range(IMAGES)]
ONE_PATIENT = [f"g{k}" if k < 6 else "patient" for k in range(IMAGES)]


@pytest.mark.parametrize("groups", [ONE_PATIENT, ["all"] * IMAGES])
def test_figures_of_one_group_are_those_of_many_without_an_interval(groups: list[str]) -> None:
    of_many, of_one = (
        estimates_of_run(scores_of(names), (), calibration(), target="toy", seed=0, absent={})
        for names in (MANY, groups)
    )
    assert "interval" not in of_many["absent"]
    assert "an interval over groups needs two of each" in of_one["absent"]["interval"]
    for part in ("metrics", "secondary"):
        assert of_one[part].keys() == of_many[part].keys()
        for name, estimate in of_one[part].items():
            assert (estimate.low, estimate.high) == (None, None)
            assert estimate.value == pytest.approx(of_many[part][name].value)
    scores = scores_of(MANY)
    by_draw = [roc_auc_score(draw["anomalous"], draw["score"]) for _, draw in scores.groupby("draw")]
    assert of_one["metrics"]["image_auroc"].value == pytest.approx(np.mean(by_draw))
    assert of_one["thresholds"] == of_many["thresholds"] != {}


def test_pixel_and_lesion_figures_of_one_group_have_no_interval() -> None:
    rng = np.random.default_rng(5)
    masks = [np.zeros((16, 16), bool) for _ in range(IMAGES)]
    for mask in masks[6:]:
        mask[4:8, 4:9] = True
    draws = [measure_pixels([rng.random((16, 16), np.float32) + mask for mask in masks], masks) for _ in range(DRAWS)]
    groups = np.array([k if k < 6 else 6 for k in range(IMAGES)])
    of_many, by_size_of_many, _ = pixel_estimates(draws, np.arange(IMAGES))
    of_one, by_size, _ = pixel_estimates(draws, groups)
    assert of_one.keys() == of_many.keys()
    assert by_size.keys() == by_size_of_many.keys() != set()
    for name, estimate in (of_one | by_size).items():
        assert estimate.low is None
        assert estimate.value == pytest.approx((of_many | by_size_of_many)[name].value)
    boxes, _, _ = lesion_estimates([draw.lesions for draw in draws], groups, boxes=True)
    assert all(estimate.low is None for estimate in boxes.values())
