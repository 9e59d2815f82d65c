"""Near-duplicates block by block, in this process or as tasks: the pairs that comparing everything finds."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medfsad_bench.curation import comparing, duplicates
from medfsad_bench.curation.comparing import OnCluster
from medfsad_bench.curation.duplicates import near_duplicates, near_duplicates_across
from medfsad_bench.errors import CurationError


def some_prints(count: int, seed: int) -> list[np.ndarray]:
    """Noise of norm 1; some are earlier ones turned and with a little noise of their own."""
    rng = np.random.default_rng(seed)
    prints: list[np.ndarray] = []
    for number in range(count):
        values = rng.standard_normal((32, 32)).astype(np.float32)
        if number % 3 == 2:
            values = np.rot90(prints[int(rng.integers(number))], number) + 0.01 * values
        prints.append(values / np.linalg.norm(values))
    return prints


def pairs_by_hand(prints: Sequence[np.ndarray], others: Sequence[np.ndarray]) -> set[tuple[int, int]]:
    turned = [[np.rot90(flip, turn) for flip in (print_, print_[:, ::-1]) for turn in range(4)] for print_ in prints]
    return {
        (i, j)
        for i, turns in enumerate(turned)
        for j, other in enumerate(others)
        if max(float((turn * other).sum()) for turn in turns) >= duplicates.MIN_CORRELATION
    }


def tasks_one_by_one(function: Callable[[Any], Any], jobs: Sequence[Any]) -> Iterator[Any]:
    """What a cluster does, on none."""
    return map(function, jobs)


@settings(max_examples=15)
@given(count=st.integers(0, 23), other_count=st.integers(0, 9), block=st.integers(1, 30), seed=st.integers(0, 5))
def test_blocks_find_what_comparing_everything_finds(
    count: int, other_count: int, block: int, seed: int, tmp_path: Path
) -> None:
    prints, others = some_prints(count, seed), some_prints(other_count, seed)
    within = {(j, i) for i, j in pairs_by_hand(prints, prints) if j < i}
    across = pairs_by_hand(prints, others)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(duplicates, "_BLOCK", block)
        patch.setattr(comparing, "map_on_cluster", tasks_one_by_one)
        for compare in (duplicates.compared_here, OnCluster(tmp_path)):
            assert near_duplicates(prints, compare=compare).tolist() == sorted(map(list, within))
            assert near_duplicates_across(prints, others, compare=compare).tolist() == sorted(map(list, across))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_takes_no_files_is_told_in_one_paragraph(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CurationError, match=r"file: can't be written"):
        near_duplicates(some_prints(3, 0), compare=OnCluster(tmp_path / "file"))
