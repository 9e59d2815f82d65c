"""Every manifest is whole, and a fault in one is named."""

import json
import shutil
from pathlib import Path

import pytest

from medfsad_bench.curation.split import Candidate, choose
from medfsad_bench.errors import ManifestError
from medfsad_bench.layouts import LAYOUTS
from medfsad_bench.layouts.tables import rsna_from_tables
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


@pytest.mark.shared
def test_the_rsna_list_is_the_rule_applied_to_the_real_tables(shared: Path) -> None:
    tables = shared / "indexes" / "rsna"
    images = rsna_from_tables(tables / "stage_2_train_labels.csv", tables / "stage_2_detailed_class_info.csv", tables)
    manifest = all_manifests()["rsna"]
    split = manifest.benchmarks["medfsad-13k"]
    kinds = {"Normal": False, "Lung Opacity": True}
    candidates = [Candidate(i.id, i.patient, kinds[i.label]) for i in images if i.label in kinds]
    assert len(candidates) == 8851 + 6012
    _is_the_rule(manifest, split, candidates)
    assert manifest.benchmarks["medfsad-pixel"].ids_sha256 == split.ids_sha256


@pytest.mark.shared
def test_the_lag_list_is_the_rule_applied_to_the_upstream_names(shared: Path) -> None:
    lists = json.loads((shared / "indexes" / "upstream_splits" / "LAG" / "data.json").read_text())
    unlabelled = lists["train"]["unlabeled"]
    normal = [*lists["train"]["0"], *unlabelled["0"], *lists["test"]["0"]]
    glaucoma = [*unlabelled["1"], *lists["test"]["1"]]
    assert (len(normal), len(glaucoma)) == (3143, 1711)
    candidates = [Candidate(Path(n).stem, Path(n).stem, n in set(glaucoma)) for n in (*normal, *glaucoma)]
    manifest = all_manifests()["lag"]
    _is_the_rule(manifest, manifest.benchmarks["medfsad-13k"], candidates)


@pytest.mark.shared
def test_the_his_list_is_the_rule_applied_to_the_real_coordinates(shared: Path) -> None:
    candidates = []
    for name in ("train_good", "valid_good", "test_good", "valid_bad", "test_bad"):
        for line in (shared / "indexes" / "his" / f"{name}.txt").read_text().split():
            slide = line.split(",")[0]
            side = "train" if slide.startswith("normal") else "test"
            candidates.append(Candidate(line.replace(",", "_"), slide, name.endswith("bad"), side))
    manifest = all_manifests()["his"]
    _is_the_rule(manifest, manifest.benchmarks["medfsad-13k"], candidates)
    slides = all_manifests()["his_slides"].benchmarks["medfsad-pixel"]
    assert slides.ids_sha256 == manifest.benchmarks["medfsad-13k"].ids_sha256


def _is_the_rule(manifest: Manifest, split: Split, candidates: list[Candidate]) -> None:
    chosen = choose(manifest.name, candidates, split.counts)
    groups = {c.id: c.group for c in candidates}
    listed = listed_ids(manifest, split)
    assert listed is not None
    assert {row.id: row.split for row in listed} == chosen
    assert split.ids_sha256 == ids_digest((i, groups[i], side) for i, side in chosen.items())


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
