"""Every manifest is whole, and a fault in one is named."""

from pathlib import Path

import pytest

from medfsad_bench.errors import ManifestError
from medfsad_bench.manifest import all_manifests, benchmark_names, ids_digest, known_groups, listed_ids, load_manifest
from medfsad_bench.sources import LAYOUTS

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
    assert all(len(found) == 1 for found in sides.values())


def test_committed_groups_cover_every_listed_image() -> None:
    for manifest in MANIFESTS:
        groups = known_groups(manifest)
        for split in manifest.benchmarks.values():
            rows = listed_ids(manifest, split) or []
            if groups and rows:
                assert all(groups[row.id] == row.group for row in rows)


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
