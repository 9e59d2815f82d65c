"""The membership rule: groups stay whole, order doesn't matter, supports are nested."""

import hashlib
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from medfsad_bench.curation.split import Candidate, choose, choose_smaller, chosen_counts, draw_supports, rank
from medfsad_bench.manifest import Split

candidate_lists = st.lists(
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
    assert rank("rsna", "0004cfab") == hashlib.sha256(b"medfsad/1:rsna:0004cfab").hexdigest()


@given(candidate_lists)
def test_no_group_is_on_both_sides(candidates: list[Candidate]) -> None:
    chosen = choose("toy", candidates, COUNTS)
    sides: dict[str, set[str]] = {}
    for candidate in candidates:
        if candidate.id in chosen:
            sides.setdefault(candidate.group, set()).add(chosen[candidate.id])
    assert all(len(on) == 1 for on in sides.values())


@given(candidate_lists, st.randoms())
def test_membership_does_not_depend_on_file_order(candidates: list[Candidate], random: Random) -> None:
    shuffled = list(candidates)
    random.shuffle(shuffled)
    assert choose("toy", candidates, COUNTS) == choose("toy", shuffled, COUNTS)


@given(candidate_lists)
def test_counts_are_never_exceeded_and_train_is_normal(candidates: list[Candidate]) -> None:
    counts = chosen_counts(candidates, choose("toy", candidates, COUNTS))
    assert all(count <= COUNTS.get(key, 0) for key, count in counts.items())


def test_a_hand_worked_case() -> None:
    candidates = [Candidate(f"i{number}", f"g{number // 2}", number % 4 == 3) for number in range(12)]
    by_rank = sorted(
        {c.group for c in candidates}, key=lambda g: min(rank("toy", c.id) for c in candidates if c.group == g)
    )
    chosen = choose("toy", candidates, {("test", False): 2, ("test", True): 1, ("train", False): 3})
    missing_normal, missing_anomalous, test_groups = 2, 1, []
    for group in by_rank:  # the rule, walked by hand
        normal = sum(c.group == group and not c.anomalous for c in candidates)
        anomalous = sum(c.group == group and c.anomalous for c in candidates)
        if (missing_normal and normal) or (missing_anomalous and anomalous):
            missing_normal -= min(missing_normal, normal)
            missing_anomalous -= min(missing_anomalous, anomalous)
            test_groups.append(group)
    assert {c.group for c in candidates if chosen.get(c.id) == "test"} == set(test_groups)


def test_slides_of_a_fixed_side_stay_there() -> None:
    candidates = [Candidate(f"n{i}", f"normal_{i}", False, side="train") for i in range(5)]
    candidates += [Candidate(f"t{i}", f"test_{i // 2}", i % 2 == 1, side="test") for i in range(8)]
    chosen = choose("his", candidates, {("train", False): 4, ("test", False): 3, ("test", True): 3})
    assert chosen_counts(candidates, chosen) == {("train", False): 4, ("test", False): 3, ("test", True): 3}
    assert all((chosen[c.id] == c.side) for c in candidates if c.id in chosen)


def test_a_smaller_download_is_scaled_down_in_proportion() -> None:
    candidates = [Candidate(f"n{i}", f"n{i}", False) for i in range(30)] + [
        Candidate(f"a{i}", f"a{i}", True) for i in range(9)
    ]
    chosen, counts = choose_smaller("toy", candidates, Split(train=1000, test_normal=500, test_anomalous=500))
    assert counts == chosen_counts(candidates, chosen)
    assert counts["train", False] in range(17, 20)
    assert abs(counts["train", False] - 2 * counts["test", True]) <= 2


@given(candidate_lists)
def test_supports_are_one_per_group_nested_and_independent_of_order(candidates: list[Candidate]) -> None:
    draws = draw_supports("toy", candidates, draws=3)
    assert draws == draw_supports("toy", candidates[::-1], draws=3)
    group = {c.id: c.group for c in candidates}
    for draw in draws:
        assert len({group[i] for i in draw}) == len(draw) == len(set(group.values()))
