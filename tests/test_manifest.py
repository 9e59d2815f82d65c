"""Every manifest is whole, and a fault in one is named."""

import shutil
from pathlib import Path

import pytest
from test_membership_rule import Rule, his_candidates, lag_candidates, members_by_rule_1, rsna_candidates

from medfsad_bench.curation.slices import expand_slices
from medfsad_bench.curation.split import Candidate, choose
from medfsad_bench.errors import ManifestError
from medfsad_bench.layouts import LAYOUTS, recognise
from medfsad_bench.manifest import (
    Manifest,
    Split,
    all_manifests,
    benchmark_names,
    committed_groups,
    ids_digest,
    listed_ids,
    load_manifest,
    version_note,
)
from medfsad_bench.resources import resource_dir

MANIFESTS = sorted(all_manifests().values(), key=lambda manifest: manifest.name)


def test_the_benchmark_is_the_published_total() -> None:
    """13,084 images in five sets: the one figure of the composition that its authors published."""
    parts = [m.benchmarks["medfsad-13k"] for m in MANIFESTS if "medfsad-13k" in m.benchmarks]
    assert len(parts) == 5
    assert sum(sum(split.counts.values()) for split in parts) == 13_084


def test_the_full_benchmark_is_the_sum_of_the_upstream_splits() -> None:
    parts = [m.benchmarks["medfsad-full"] for m in MANIFESTS if "medfsad-full" in m.benchmarks]
    assert sum(sum(split.counts.values()) for split in parts) == 22_156


def test_the_benchmarks_are_those_of_the_design() -> None:
    assert benchmark_names() == ["medfsad-13k", "medfsad-full", "medfsad-open", "medfsad-pixel"]


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda m: m.name)
def test_manifest_is_whole(manifest: object) -> None:
    from medfsad_bench.manifest import Manifest

    assert isinstance(manifest, Manifest)
    assert manifest.layout in LAYOUTS
    assert set(manifest.labels.normal).isdisjoint(manifest.labels.anomalous)
    assert set(manifest.held_out_with) <= set(all_manifests())
    assert all(
        text.strip() for text in (manifest.licence, manifest.citation, manifest.url, manifest.obtain, manifest.rule)
    )


@pytest.mark.parametrize(
    ("manifest", "benchmark"),
    [(m, b) for m in MANIFESTS for b, split in m.benchmarks.items() if split.ids],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_a_committed_list_has_the_counts_and_whole_groups(manifest: object, benchmark: str) -> None:
    from medfsad_bench.manifest import Manifest

    assert isinstance(manifest, Manifest)
    split = manifest.benchmarks[benchmark]
    listed = listed_ids(manifest, split)
    assert listed is not None
    assert len(listed) == sum(split.counts.values())
    assert sum(row.split == "train" for row in listed) == split.train
    sides: dict[str, set[str]] = {}
    for row in listed:
        sides.setdefault(row.group, set()).add(row.split)
    assert all(len(on) == 1 for on in sides.values())


def test_committed_groups_cover_every_listed_image() -> None:
    for manifest in MANIFESTS:
        groups = committed_groups(manifest)
        for split in manifest.benchmarks.values():
            rows = listed_ids(manifest, split) or []
            if groups and rows:
                assert all(groups[row.id] == row.group for row in rows)


POOLS = {"rsna": rsna_candidates, "lag": lag_candidates, "his": his_candidates}


def pool_of(name: str, shared: Path) -> list[Candidate]:
    """What the set's committed list was chosen from: names and tables, or the sample of the open set."""
    if name in POOLS:
        return POOLS[name](shared)
    manifest = all_manifests()[name]
    (download,) = [d for d in recognise(shared / "data")[0] if d.layout == manifest.layout]
    images = download.images
    if manifest.slices is not None:
        images = expand_slices(images, manifest.slices, on_done=lambda _: None).images
    groups, labels = committed_groups(manifest), manifest.labels
    return [
        Candidate(image.id, groups.get(image.id, image.patient), image.label in labels.anomalous, image.split)
        for image in images
        if image.label in (*labels.normal, *labels.anomalous)
    ]


@pytest.mark.shared
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "images"),
    [
        ("his", 7_344), ("brain_tumor", 3_296), ("chest_child", 700), ("chest_nih", 124), ("lgg", 547),
        ("odir_dr", 320), ("odir_glaucoma", 290),
    ],
)  # fmt: skip
def test_a_list_of_version_2_is_rule_2_applied_to_names_tables_or_sample(shared: Path, name: str, images: int) -> None:
    manifest, candidates = all_manifests()[name], pool_of(name, shared)
    assert manifest.version.startswith("2.")
    assert len(candidates) == images
    _is_the_rule(manifest, candidates, choose)


@pytest.mark.shared
@pytest.mark.slow
@pytest.mark.parametrize(("name", "images"), [("rsna", 8_851 + 6_012), ("lag", 3_143 + 1_711), ("histology_lung", 369)])
def test_a_list_without_groups_keeps_the_sides_of_rule_1(shared: Path, name: str, images: int) -> None:
    """Its version starts with 1; rule 2 chooses the same images, and the same ones as anomalies."""
    manifest, candidates = all_manifests()[name], pool_of(name, shared)
    assert manifest.version.startswith("1.")
    assert len(candidates) == len({candidate.group for candidate in candidates}) == images
    split = _is_the_rule(manifest, candidates, members_by_rule_1)
    by_rule_2 = choose(name, candidates, split.counts)
    listed = {row.id: row.split for row in listed_ids(manifest, split) or []}
    assert by_rule_2.keys() == listed.keys()
    anomalous = {candidate.id for candidate in candidates if candidate.anomalous}
    assert all(by_rule_2[i] == listed[i] == "test" for i in anomalous & listed.keys())


def test_sets_of_the_same_images_have_the_same_list() -> None:
    pixel = {name: all_manifests()[name].benchmarks["medfsad-pixel"].ids_sha256 for name in ("rsna", "his_slides")}
    assert pixel == {
        "rsna": all_manifests()["rsna"].benchmarks["medfsad-13k"].ids_sha256,
        "his_slides": all_manifests()["his"].benchmarks["medfsad-13k"].ids_sha256,
    }


def _is_the_rule(manifest: Manifest, candidates: list[Candidate], rule: Rule) -> Split:
    """The set's first committed list is the rule applied to the candidates."""
    split = next(split for split in manifest.benchmarks.values() if split.ids)
    chosen = rule(manifest.name, candidates, split.counts)
    groups = {c.id: c.group for c in candidates}
    listed = listed_ids(manifest, split)
    assert listed is not None
    assert {row.id: row.split for row in listed} == chosen
    assert {row.id: row.group for row in listed} == {i: groups[i] for i in chosen}
    anomalous = {c.id for c in candidates if c.anomalous}
    normal = {"", "normal", *manifest.labels.normal}
    assert all((row.label in normal) != (row.id in anomalous) for row in listed if row.label)
    return split


def test_every_list_is_small_enough_to_be_read() -> None:
    folder = resource_dir("data_manifests")
    assert max(path.stat().st_size for path in folder.iterdir()) < 200_000


def test_an_edited_list_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(resource_dir("data_manifests"), tmp_path / "m")
    path = tmp_path / "m" / "rsna.ids.csv"
    path.write_text(path.read_text().replace(",test", ",train", 1))
    monkeypatch.setattr("medfsad_bench.manifest.resource_dir", lambda _: tmp_path / "m")
    manifest = all_manifests()["rsna"]
    with pytest.raises(ManifestError, match="One of the two was edited"):
        listed_ids(manifest, manifest.benchmarks["medfsad-13k"])


def test_a_file_of_an_older_version_says_so() -> None:
    assert version_note({"name": "rsna", "version": all_manifests()["rsna"].version}) == ""
    assert "made from version 1.0.0" in version_note({"name": "rsna", "version": "1.0.0"})
    assert version_note({"name": "my_ward", "version": "0.0.0"}) == ""


def test_every_manifest_gives_exact_steps_to_get_the_download() -> None:
    for manifest in MANIFESTS:
        steps = manifest.obtain.strip().splitlines()
        assert steps[0].startswith("1. ")
        assert any("`medfsad prepare --source <that folder>" in step for step in steps), manifest.name


def test_the_digest_of_a_list_is_independent_of_its_order() -> None:
    rows = [("b", "g", "test"), ("a", "g", "train")]
    assert ids_digest(rows) == ids_digest(rows[::-1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("organ =", "orgen ="), "orgen"),
        (lambda text: text.replace('mask_kind = "box"', 'mask_kind = "boxes"'), "mask_kind"),
        (lambda text: text + "\n[", "not a TOML file"),
        (lambda text: text.replace('name = "rsna"', 'name = "other"'), "file's name must be"),
    ],
)
def test_a_fault_in_a_manifest_is_named(tmp_path: Path, change: object, message: str) -> None:
    assert callable(change)
    from medfsad_bench.manifest import manifest_text

    path = tmp_path / "rsna.toml"
    path.write_text(change(manifest_text("rsna")), "utf-8")
    with pytest.raises(ManifestError, match=message):
        load_manifest(path)
