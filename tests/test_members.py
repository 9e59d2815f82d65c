"""Who takes part in a set: the state that the list or the rule, and then the images themselves, lead to."""

from pathlib import Path

import pytest
from conftest import Silent, write_own_folder

from medfsad_bench.curation.load import LoadPlan
from medfsad_bench.curation.members import Members
from medfsad_bench.curation.options import PrepareOptions
from medfsad_bench.curation.own_manifest import plain_manifest
from medfsad_bench.layouts import recognise
from medfsad_bench.manifest import Listed, Split, ids_digest
from medfsad_bench.readers import Intensity

SPLIT = Split(train=8, test_normal=6, test_anomalous=5)


def members(ward: Path, split: Split = SPLIT, listed: list[Listed] | None = None, **options: object) -> Members:
    (download,), _ = recognise(ward)
    manifest = plain_manifest(ward, download.images)
    ids = {image.id for image in listed or download.images}
    images = {image.id: image for image in download.images if image.id in ids}
    plan = LoadPlan(Intensity(), 64, ward.parent / "staging", keep_masks=False)
    asked = PrepareOptions(ward.parent, **options)  # type: ignore[arg-type]
    return Members(manifest, split, listed, images, "ward", asked, plan, Silent())


@pytest.fixture
def ward(tmp_path: Path) -> Path:
    write_own_folder(tmp_path / "ward", seed=5, masks=False)
    return tmp_path / "ward"


def test_another_image_takes_the_place_of_one_that_can_not_be_read(ward: Path) -> None:
    whole = members(ward)
    whole.choose()
    first = next(image_id for image_id, side in sorted(whole.chosen.items()) if side == "test")
    whole.images[first].path.write_bytes(b"no image")
    rest = members(ward)
    rest.choose_and_load()
    assert list(rest.quarantined) == [first]
    assert first not in rest.chosen
    assert rest.counts == SPLIT.counts
    assert rest.groups == {"train": 8, "test": 11}
    assert rest.spare == 34 - 1 - 19


def test_the_digest_of_the_final_choice_is_compared_with_the_one_that_the_manifest_states(ward: Path) -> None:
    tried = members(ward)
    tried.choose()
    tried.images[min(tried.chosen)].path.write_bytes(b"no image")
    final = members(ward)
    final.choose_and_load()
    digest = ids_digest((image_id, image_id, side) for image_id, side in final.chosen.items())
    for stated, faults in ((digest, []), ("0" * 64, ["other-files"])):
        audited = members(ward, SPLIT.model_copy(update={"ids_sha256": stated}))
        audited.choose_and_load()
        audited.audit()
        assert [finding.fault for finding in audited.findings if finding.stops] == faults


def test_a_fault_is_let_through_if_it_is_allowed_and_none_is_noted_while_another_stops_the_set(ward: Path) -> None:
    wrong = SPLIT.model_copy(update={"ids_sha256": "0" * 64})
    for allow, refused, allowed in ((set(), ["other-files"], set()), ({"other-files"}, [], {"other-files"})):
        audited = members(ward, wrong, allow=frozenset(allow))
        audited.choose_and_load()
        audited.audit()
        assert audited.let_through() == refused
        assert audited.allowed == allowed


def test_known_faults_of_a_committed_list_are_noted_and_stop_nothing(ward: Path) -> None:
    rows = [Listed(id=f"normal/case{k:02d}", group=str(k), split="train", sha256="0" * 64) for k in range(2)]
    for known_faults, stops in (((), True), (("other-files",), False)):
        listed = members(ward, SPLIT.model_copy(update={"known_faults": known_faults}), rows)
        listed.choose_and_load()
        listed.audit()
        assert [(finding.fault, finding.stops) for finding in listed.findings] == [("other-files", stops)] * 2
