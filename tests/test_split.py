"""The membership rule: groups stay whole, order doesn't matter, supports are nested."""

import hashlib
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from medfsad_bench.curation.split import Candidate, choose, choose_smaller, chosen_counts, draw_supports
from medfsad_bench.manifest import Split
from medfsad_bench.store.ranking import rank

pools = st.lists(
    st.builds(
        Candidate,
        id=st.uuids().map(str),
        group=st.integers(0, 12).map(str),
        anomalous=st.booleans(),
    ),
    min_size=6,
    max_size=60,
    unique_by=lambda c: c.id,
)
COUNTS = {("train", False): 4, ("test", False): 3, ("test", True): 3}


def test_rank_is_the_hash_that_the_rule_states() -> None:
    assert rank("medfsad/1", "rsna", "0004cfab") == hashlib.sha256(b"medfsad/1:rsna:0004cfab").hexdigest()


@given(pools)
def test_no_group_is_on_both_sides(pool: list[Candidate]) -> None:
    chosen = choose("toy", pool, COUNTS)
    sides: dict[str, set[str]] = {}
    for candidate in pool:
        if candidate.id in chosen:
            sides.setdefault(candidate.group, set()).add(chosen[candidate.id])
    assert all(len(of_group) == 1 for of_group in sides.values())


@given(pools, st.randoms())
def test_membership_does_not_depend_on_file_order(pool: list[Candidate], random: Random) -> None:
    shuffled = list(pool)
    random.shuffle(shuffled)
    assert choose("toy", pool, COUNTS) == choose("toy", shuffled, COUNTS)


@given(pools)
def test_counts_are_never_exceeded_and_train_is_normal(pool: list[Candidate]) -> None:
    images = chosen_counts(pool, choose("toy", pool, COUNTS))
    assert all(count <= COUNTS.get(key, 0) for key, count in images.items())


def test_slides_of_a_fixed_side_stay_there() -> None:
    pool = [Candidate(f"n{i}", f"normal_{i}", False, side="train") for i in range(5)]
    pool += [Candidate(f"t{i}", f"test_{i // 2}", i % 2 == 1, side="test") for i in range(8)]
    chosen = choose("his", pool, {("train", False): 4, ("test", False): 3, ("test", True): 3})
    assert chosen_counts(pool, chosen) == {("train", False): 4, ("test", False): 3, ("test", True): 3}
    assert all((chosen[c.id] == c.side) for c in pool if c.id in chosen)


def test_a_smaller_source_is_scaled_down_in_proportion() -> None:
    pool = [Candidate(f"n{i}", f"n{i}", False) for i in range(30)] + [
        Candidate(f"a{i}", f"a{i}", True) for i in range(9)
    ]
    chosen, counts = choose_smaller("toy", pool, Split(train=1000, test_normal=500, test_anomalous=500))
    assert counts == chosen_counts(pool, chosen)
    assert counts["train", False] in range(17, 20)
    assert abs(counts["train", False] - 2 * counts["test", True]) <= 2


@given(pools)
def test_supports_are_one_per_group_nested_and_independent_of_order(pool: list[Candidate]) -> None:
    draws = draw_supports("toy", pool, draws=3)
    assert draws == draw_supports("toy", pool[::-1], draws=3)
    group = {c.id: c.group for c in pool}
    for draw in draws:
        assert len({group[i] for i in draw}) == len(draw) == len(set(group.values()))
