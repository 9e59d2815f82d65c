"""Membership rule 2: who is dealt to which side, that every reachable count is reached, and that size plays no part."""

import csv
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medfsad_bench.curation.split import Candidate, choose, choose_smaller, chosen_counts
from medfsad_bench.layouts.tables import rsna_from_tables
from medfsad_bench.manifest import Split, all_manifests, committed_groups
from medfsad_bench.store.composition import compositions
from medfsad_bench.store.ranking import rank

_RULE = "medfsad/1"

Counts = dict[tuple[str, bool], int]
Rule = Callable[[str, Sequence[Candidate], Counts], dict[str, str]]
Shape = tuple[int, int, str]  # normal images, anomalous images, the side that the source fixes or ""

shapes = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 3), st.sampled_from(["", "", "", "train", "test"])).filter(
        lambda shape: shape[0] + shape[1] > 0
    ),
    min_size=1,
    max_size=7,
)


def counts_of(train: int, test_normal: int, test_anomalous: int) -> Counts:
    return {("train", False): train, ("test", False): test_normal, ("test", True): test_anomalous}


some_counts = st.builds(counts_of, st.integers(1, 8), st.integers(1, 6), st.integers(1, 5))


def pool_of(shapes: Sequence[Shape]) -> list[Candidate]:
    """One group per shape."""
    return [
        Candidate(f"g{number}-{'a' if anomalous else 'n'}{image}", f"g{number}", anomalous, side)
        for number, (normal, abnormal, side) in enumerate(shapes)
        for anomalous, images in ((False, normal), (True, abnormal))
        for image in range(images)
    ]


def shapes_in_order(name: str, shapes: Sequence[Shape]) -> list[Candidate]:
    """One group per shape, dealt in the order given; the groups are named 0, 1, 2, ..."""
    first_ids = sorted((f"a{number}" for number in range(len(shapes))), key=lambda id_: rank(_RULE, name, id_))
    pool = []
    for number, (normal, anomalous, side) in enumerate(shapes):
        labels = [False] * normal + [True] * anomalous
        ids = [first_ids[number], *(f"b{number}-{image}" for image in range(1, len(labels)))]
        pool += [Candidate(i, str(number), label, side) for i, label in zip(ids, labels, strict=True)]
    return pool


def groups_on(side: str, pool: Iterable[Candidate], chosen: Mapping[str, str]) -> set[str]:
    return {c.group for c in pool if chosen.get(c.id) == side}


def test_a_hand_worked_case() -> None:
    shapes = [(3, 0, ""), (1, 0, ""), (1, 1, ""), (0, 1, ""), (2, 0, ""), (2, 0, ""), (1, 1, "")]
    pool = shapes_in_order("toy", shapes)
    # Fills before each group (test: normal of 2, anomalous of 1; train: normal of 4) and where it goes:
    #   0: test 0/2, train 0/4: a tie, test       1: test 3/2, train 0/4: train
    #   2: test min(3/2, 0/1), train 1/4: test     3: no normal image: test
    #   4: test 4/2, train 1/4: train              5: test 4/2, train 3/4: train
    #   6: test min(4/2, 2/1), train 5/4: train
    chosen = choose("toy", pool, counts_of(4, 2, 1))
    assert groups_on("train", pool, chosen) == {"1", "4", "5", "6"}  # one image of each, though 4 and 5 hold two
    assert groups_on("test", pool, chosen) <= {"0", "2", "3"}
    best_of = {g: min((c.id for c in pool if c.group == g), key=lambda i: rank(_RULE, "toy", i)) for g in "0145"}
    assert all(best_of[g] in chosen for g in "0145")
    assert chosen_counts(pool, chosen) == counts_of(4, 2, 1)


def test_no_second_image_of_a_group_before_a_first_of_every_other() -> None:
    pool = shapes_in_order("toy", [(5, 0, "train"), (1, 0, "train"), (3, 0, "train"), (1, 1, "test")])
    chosen = choose("toy", pool, counts_of(6, 1, 1))
    assert Counter(c.group for c in pool if chosen.get(c.id) == "train") == {"0": 3, "1": 1, "2": 2}


def test_the_rank_of_a_group_says_nothing_about_its_size() -> None:
    """Further members with later names change no other group's place, however well they rank."""
    pool = shapes_in_order("toy", [(1, 0, "")] * 20 + [(0, 1, "")])
    more = [*pool, *(Candidate(f"c{number}", "19", False) for number in range(500))]
    counts = counts_of(6, 6, 1)
    assert groups_on("train", pool, choose("toy", pool, counts)) == groups_on(
        "train", more, choose("toy", more, counts)
    )


@pytest.mark.shared
@pytest.mark.parametrize("name", ["his", "brain_tumor"])
def test_the_members_are_those_of_another_program(shared: Path, name: str) -> None:
    with (shared / "oracle" / "membership" / f"{name}.csv").open(newline="") as file:
        expected = {row["id"]: row["split"] for row in csv.DictReader(file)}
    candidates = his_candidates(shared) if name == "his" else brain_tumor_candidates()
    assert choose(name, candidates, all_manifests()[name].benchmarks["medfsad-13k"].counts) == expected


@pytest.mark.shared
def test_the_composition_is_that_of_another_program(shared: Path) -> None:
    """The figures of the table beside the expected members."""
    pool = his_candidates(shared)
    counts = all_manifests()["his"].benchmarks["medfsad-13k"].counts
    chosen = choose("his", pool, counts)
    made_of = compositions((chosen[c.id], c.anomalous, c.group) for c in pool if c.id in chosen)
    assert {key: (c.images, c.groups, c.largest_group) for key, c in made_of.items()} == {
        "train normal": (1000, 159, 7),
        "test normal": (550, 125, 6),
        "test anomalous": (550, 48, 14),
    }
    assert [round(c.effective_groups, 1) for c in made_of.values()] == [158.2, 104.1, 46.9]


def his_candidates(shared: Path) -> list[Candidate]:
    candidates = []
    for path in sorted((shared / "indexes" / "his").glob("*.txt")):
        for line in path.read_text().split():
            slide = line.split(",")[0]
            side = "train" if slide.startswith("normal") else "test"
            candidates.append(Candidate(line.replace(",", "_"), slide, path.stem.endswith("bad"), side))
    return candidates


def brain_tumor_candidates() -> list[Candidate]:
    kinds = {"notumor": False, "glioma": True, "meningioma": True}
    groups = committed_groups(all_manifests()["brain_tumor"])
    return [Candidate(i, group, kinds[kind]) for i, group in groups.items() if (kind := i.split("/")[1]) in kinds]


@given(shapes, some_counts, st.randoms())
def test_file_order_plays_no_part(shapes: list[Shape], counts: Counts, random: Random) -> None:
    pool = pool_of(shapes)
    shuffled = random.sample(pool, len(pool))
    assert choose("toy", pool, counts) == choose("toy", shuffled, counts)


@given(shapes, some_counts)
def test_sides_are_disjoint_by_group_and_no_count_is_exceeded(shapes: list[Shape], counts: Counts) -> None:
    pool = pool_of(shapes)
    chosen = choose("toy", pool, counts)
    assert groups_on("train", pool, chosen).isdisjoint(groups_on("test", pool, chosen))
    assert all(images <= counts.get(key, 0) for key, images in chosen_counts(pool, chosen).items())
    assert all(c.side in ("", chosen[c.id]) for c in pool if c.id in chosen)


def can_be_reached(shapes: Sequence[Shape], counts: Mapping[tuple[str, bool], int]) -> bool:
    """Try every way to deal the groups."""
    for sides in product(*[(side,) if side else ("train", "test") for _, _, side in shapes]):
        dealt: Counter[tuple[str, bool]] = Counter()
        for (normal, anomalous, _), side in zip(shapes, sides, strict=True):
            dealt.update({(side, False): normal, (side, True): anomalous})
        if all(dealt[key] >= count for key, count in counts.items()):
            return True
    return False


@settings(max_examples=200)
@given(shapes, some_counts)
def test_counts_are_reached_wherever_they_can_be(shapes: list[Shape], counts: Counts) -> None:
    pool = pool_of(shapes)
    reached = chosen_counts(pool, choose("toy", pool, counts)) == {key: count for key, count in counts.items() if count}
    assert reached == can_be_reached(shapes, counts)


@settings(max_examples=200)
@given(shapes, st.data())
def test_counts_without_slack_are_reached(shapes: list[Shape], data: st.DataObject) -> None:
    """Some way to deal the groups is drawn, and all that it has is asked for."""
    sides = [side or data.draw(st.sampled_from(["train", "test"])) for _, _, side in shapes]
    dealt: Counter[tuple[str, bool]] = Counter()
    for (normal, anomalous, _), side in zip(shapes, sides, strict=True):
        dealt.update({(side, False): normal, ("test", True): anomalous if side == "test" else 0})
    counts = {key: count for key, count in dealt.items() if count}
    pool = pool_of(shapes)
    assert chosen_counts(pool, choose("toy", pool, counts)) == counts


def test_a_group_goes_to_the_other_side_only_where_a_count_would_be_missed() -> None:
    pool = shapes_in_order("toy", [(3, 0, ""), (2, 0, ""), (3, 0, ""), (0, 1, "")])
    # By fill: a tie, test; test 3/5 and train 0/2, train; test 3/5 and train 2/2, test.
    assert groups_on("train", pool, choose("toy", pool, counts_of(2, 5, 1))) == {"1"}
    # For 3 and 5 the same dealing would leave train one short, or test with 3, so the second group goes to test.
    assert groups_on("train", pool, choose("toy", pool, counts_of(3, 5, 1))) == {"2"}


def test_an_unreachable_count_leaves_the_dealing_as_it_is() -> None:
    pool = shapes_in_order("toy", [(2, 0, ""), (2, 0, ""), (0, 1, "")])
    chosen = choose("toy", pool, counts_of(3, 1, 1))
    assert chosen_counts(pool, chosen) == {("train", False): 2, ("test", False): 1, ("test", True): 1}


def test_a_group_on_both_of_the_sources_sides_is_tested() -> None:
    pool = [Candidate("a", "g", False, "train"), Candidate("b", "g", False, "test"), Candidate("c", "g", True, "test")]
    assert choose("toy", pool, counts_of(1, 1, 1)) == {"b": "test", "c": "test"}


@settings(max_examples=15)
@given(shapes.filter(lambda s: sum(n for n, _, _ in s) > 1 and any(a for _, a, _ in s)))
def test_a_smaller_split_is_whole(shapes: list[Shape]) -> None:
    pool = pool_of(shapes)
    chosen, counts = choose_smaller("toy", pool, Split(train=40, test_normal=20, test_anomalous=20))
    assert chosen_counts(pool, chosen) == counts


def members_by_rule_1(name: str, candidates: Sequence[Candidate], counts: Counts) -> dict[str, str]:
    """Rule 1: test first, groups in the order of their best-ranked member, all images that are missing from each."""
    groups: dict[str, list[Candidate]] = defaultdict(list)
    for candidate in sorted(candidates, key=lambda c: rank(_RULE, name, c.id)):
        groups[candidate.group].append(candidate)
    chosen: dict[str, str] = {}
    taken: set[str] = set()
    for split in ("test", "train"):
        missing = {label: count for (side, label), count in counts.items() if side == split}
        for group, members in groups.items():
            if group in taken:
                continue
            for member in members:
                if member.side in ("", split) and missing.get(member.anomalous, 0) > 0:
                    missing[member.anomalous] -= 1
                    chosen[member.id] = split
                    taken.add(group)
    return chosen


@given(st.lists(st.booleans(), min_size=8, max_size=80), some_counts)
def test_a_set_without_groups_keeps_the_members_of_rule_1(labels: list[bool], counts: Counts) -> None:
    """The images, not their sides: rule 1 filled test before train, rule 2 fills both at a time."""
    pool = [Candidate(f"i{number}", f"i{number}", label) for number, label in enumerate(labels)]
    assert set(choose("toy", pool, counts)) == set(members_by_rule_1("toy", pool, counts))


def rsna_candidates(shared: Path) -> list[Candidate]:
    tables = shared / "indexes" / "rsna"
    images = rsna_from_tables(tables / "stage_2_train_labels.csv", tables / "stage_2_detailed_class_info.csv", tables)
    kinds = {"Normal": False, "Lung Opacity": True}
    return [Candidate(i.id, i.patient, kinds[i.label]) for i in images if i.label in kinds]


def lag_candidates(shared: Path) -> list[Candidate]:
    lists = json.loads((shared / "indexes" / "upstream_splits" / "LAG" / "data.json").read_text())
    pool = lists["train"]["unlabeled"]
    by_label = {
        False: [*lists["train"]["0"], *pool["0"], *lists["test"]["0"]],
        True: [*pool["1"], *lists["test"]["1"]],
    }
    return [Candidate(Path(n).stem, Path(n).stem, label) for label, names in by_label.items() for n in names]


@pytest.mark.slow
@pytest.mark.parametrize("rule", [members_by_rule_1, choose])
def test_a_groups_chance_to_be_chosen_does_not_depend_on_its_size(rule: Rule) -> None:
    """Of 110 groups of 1, 3 or 9 images, over 200 names of the set, each a fresh order.

    Tolerance: two sizes' shares may differ by 0.03 on either side. A share of 200 x 30 groups and more has a standard
    error of at most 0.0065, a difference of two of at most 0.0085. With rule 1 the largest are chosen thrice as often.
    """
    shapes = [(1, 0, "")] * 50 + [(3, 0, "")] * 30 + [(9, 0, "")] * 30 + [(0, 1, "")] * 10
    pool = pool_of(shapes)
    size = Counter(candidate.group for candidate in pool if not candidate.anomalous)
    groups_of_size = Counter(size.values())
    repeats = 200
    chosen_of_size: dict[str, Counter[int]] = {"train": Counter(), "test": Counter()}
    for repeat in range(repeats):
        chosen = rule(f"salt{repeat}", pool, counts_of(30, 20, 5))
        for side, of_size in chosen_of_size.items():
            of_size.update(size[group] for group in groups_on(side, pool, chosen) if group in size)
    for of_size in chosen_of_size.values():
        shares = [of_size[images] / (repeats * groups) for images, groups in groups_of_size.items()]
        if rule is choose:
            assert max(shares) - min(shares) < 0.03
        else:
            assert max(shares) > 3 * min(shares)
