"""What the runner does to maps: the same as the slow way, image by image."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from medfsad_bench.runner.maps import pooled, smooth_maps


@pytest.mark.parametrize(("shape", "size_px"), [((8, 8), 64), ((128, 128), 128), ((128, 128), 256), ((7, 19), 96)])
def test_smoothing_is_enlarging_and_then_a_gaussian_of_each_map_by_itself(shape: tuple[int, int], size_px: int) -> None:
    maps = torch.from_numpy(np.random.default_rng(3).random((5, *shape), np.float32))
    large = torch.nn.functional.interpolate(maps[:, None], (size_px, size_px), mode="bilinear")[:, 0].numpy()
    slow = np.stack([gaussian_filter(map_, 4 * size_px / 128) for map_ in large])
    np.testing.assert_allclose(smooth_maps(maps, size_px).numpy(), slow, rtol=1e-5, atol=1e-6)


@given(st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_no_map_hangs_on_another(count: int, seed: int) -> None:
    maps = torch.from_numpy(np.random.default_rng(seed).random((count, 16, 16), np.float32))
    alone = torch.cat([smooth_maps(map_[None], 32) for map_ in maps])
    torch.testing.assert_close(smooth_maps(maps, 32), alone, rtol=1e-6, atol=1e-7)


def test_pooling_by_hand() -> None:
    maps = np.zeros((1, 20, 20), np.float32)
    maps[0, 0, :4] = (4, 3, 3, 2)
    scores = pooled(maps)
    assert scores["score"][0] == 4
    assert scores["score_mean"][0] == pytest.approx(12 / 400)
    assert scores["score_top1"][0] == 3, "1 % of 400 pixels are the four highest"
