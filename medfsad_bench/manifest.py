"""What a data set is: one TOML file per set in `data_manifests/`, of a closed schema.

A typo in a field is an error, not a silently ignored line. Manifests are read by people first: a page each.
"""

import csv
import hashlib
import tomllib
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from medfsad_bench.errors import ManifestError
from medfsad_bench.files import cell_text
from medfsad_bench.resources import resource_dir

OWN = "own"  # the benchmark that a user's own folders go under: they never stand among a benchmark's sets
MaskKind = Literal["none", "box", "polygon", "voxel"]
PIXEL_TRUTH: frozenset[str] = frozenset({"polygon", "voxel"})  # boxes hold normal pixels too: no pixel metric on them


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class IntensityRule(_Closed):
    """How physical values become the 8 bits that are stored: the same for every image of a set.

    `channel` takes one channel (0-based) of pictures that hold several MRI sequences as colours. `crop = "fundus"`
    cuts to the square around the camera's field of view and centres it (`medfsad_bench.curation.field_of_view`).
    """

    channel: int | None = Field(ge=0, le=2, default=None)
    crop: Literal["none", "fundus"] = "none"
    mapping: Literal["display", "window", "percentiles"] = "display"
    low: float | None = None
    high: float | None = None
    reason: str = ""


class Labels(_Closed):
    """Which of the download's class names are normal and which anomalous; any other is left out."""

    normal: tuple[str, ...]
    anomalous: tuple[str, ...]


class SliceRule(_Closed):
    """Which axial slices of a patient take part.

    A slice counts if its brain area is at least `min_area` of the patient's largest and its height in the stack (0 the
    lowest, 1 the highest slice) lies in `heights`; otherwise the height in the head would tell the classes apart. It is
    a tumour slice from `min_tumour_voxels` on and normal without any; between the two it is left out. Of a run of
    slices every `step`-th is looked at.
    """

    min_area: float = Field(ge=0, le=1, default=0)
    heights: tuple[float, float] = (0, 1)
    min_tumour_voxels: int = Field(ge=1)
    step: int = Field(ge=1, default=1)


class Split(_Closed):
    """How many images a benchmark takes of the set, and from which committed list, if there is one.

    `upstream` keeps the split that the download brings along (MedIAnomaly's `data.json`), duplicates and all, so that
    old numbers can be scored again.
    """

    train: int = Field(ge=1)
    test_normal: int = Field(ge=1)
    test_anomalous: int = Field(ge=1)
    ids: str | None = None
    ids_sha256: str | None = None
    known_faults: tuple[str, ...] = ()  # of the committed list: reported, but nothing that its user could mend
    upstream: bool = False
    also_from: tuple[str, ...] = ()  # other layouts that hold the same images

    @property
    def counts(self) -> dict[tuple[str, bool], int]:
        """Images by (split, anomalous)."""
        return {("train", False): self.train, ("test", False): self.test_normal, ("test", True): self.test_anomalous}


class Manifest(_Closed):
    """One data set of the benchmark."""

    name: str = Field(pattern=r"^[a-z0-9_]+$")
    version: str = Field(pattern=r"^\d+\.\d+\.\d+$")
    title: str
    organ: str
    modality: str
    disease: str
    licence: str
    licensed: bool  # prepared files must not be passed on
    citation: str
    url: str
    obtain: str  # the steps to get the download
    rule: str  # labels, groups and membership, in words
    confound: str = ""  # what tells the classes apart without any disease, as the method `shortcut` measures it
    layout: str
    mask_kind: MaskKind
    labels: Labels
    intensity: IntensityRule = IntensityRule()
    slices: SliceRule | None = None
    groups: str | None = None  # committed CSV `id,group`, where names and tables tell no patient
    join_near_duplicates: bool = False  # before the split; otherwise a near-duplicate across it stops `prepare`
    held_out_with: tuple[str, ...] = ()  # sets that share images or patients with this one
    benchmarks: dict[str, Split]

    def split(self, benchmark: str) -> Split:
        """The counts for `benchmark`; the demo's are those of the set's first benchmark, scaled down later."""
        if benchmark == "demo":
            first = next(iter(self.benchmarks.values()))
            return first.model_copy(update={"ids": None, "ids_sha256": None, "upstream": False})
        if benchmark not in self.benchmarks:
            raise ManifestError(
                f"Data set {self.name!r} is no part of benchmark {benchmark!r}; "
                f"its manifest lists {', '.join(sorted(self.benchmarks))}. Choose one of these with --benchmark."
            )
        return self.benchmarks[benchmark]


class Listed(_Closed):
    """One line of a committed id list."""

    id: str
    group: str  # the id itself where the file has no such column
    split: Literal["train", "test"]
    sha256: str = ""  # empty where the list was made from names, or from re-encoded files
    label: str = ""  # `normal` or `anomalous`, or the download's class where the list is all that says it


def load_manifest(path: Path) -> Manifest:
    """Read one manifest.

    Raises:
        ManifestError: If it isn't TOML or doesn't fit the schema; the message names every field that is off.
    """
    try:
        manifest = Manifest.model_validate(tomllib.loads(path.read_text("utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ManifestError(f"{path.name}: not a TOML file ({error}). Mend it there.") from error
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ManifestError(f"{path.name}: the manifest's fields don't fit the schema: {faults}.") from error
    if manifest.name != path.stem:
        raise ManifestError(f"{path.name}: the file's name must be the set's name, which is {manifest.name!r}.")
    return manifest


@cache
def all_manifests() -> dict[str, Manifest]:
    """Every set that comes with the package, by name."""
    return {path.stem: load_manifest(path) for path in sorted(resource_dir("data_manifests").glob("*.toml"))}


def manifest_text(name: str) -> str:
    """The manifest as it is written, for the attributes of a prepared file."""
    return (resource_dir("data_manifests") / f"{name}.toml").read_text("utf-8")


def benchmark_names() -> list[str]:
    """All benchmarks that some manifest takes part in, sorted."""
    return sorted({name for manifest in all_manifests().values() for name in manifest.benchmarks})


def listed_ids(manifest: Manifest, split: Split) -> list[Listed] | None:
    """The committed membership of a benchmark, or None where the rule decides.

    Raises:
        ManifestError: If the list's digest isn't the one in the manifest.
    """
    if split.ids is None:
        return None
    rows = _read_table(split.ids)
    listed = [Listed.model_validate({"group": row["id"], **row}) for row in rows]
    digest = ids_digest((row.id, row.group, row.split) for row in listed)
    if split.ids_sha256 != digest:
        raise ManifestError(
            f"data_manifests/{split.ids}: the list's digest is {digest}, but {manifest.name}.toml expects "
            f"{split.ids_sha256}. One of the two was edited; restore the released files."
        )
    return listed


def committed_groups(manifest: Manifest) -> dict[str, str]:
    """The committed groups by image id; empty where names and tables tell the patient."""
    if manifest.groups is None:
        return {}
    return {row["id"]: row["group"] for row in _read_table(manifest.groups)}


def version_note(attributes: Mapping[str, object]) -> str:
    """What a prepared file's user should know of its version: empty if the set's manifest is the one it was made from.

    A file of another version stays readable. A version's first number is the membership rule that chose the images.
    """
    name, version = str(attributes.get("name")), str(attributes.get("version"))
    if attributes.get("benchmark") == OWN or is_current(name, version):
        return ""
    current = all_manifests()[name].version
    return (
        f"made from version {version} of {name} (membership rule {version.split('.')[0]}), this release has {current} "
        f"(rule {current.split('.')[0]}): still readable, but its rows don't rank with those of {current}; prepare it "
        "anew to compare"
    )


def is_current(name: str, version: str) -> bool:
    """Whether a version is that of the set's manifest; of a set that isn't among ours, yes."""
    manifest = all_manifests().get(name)
    return manifest is None or manifest.version == version


@cache
def slide_coordinates() -> tuple[tuple[str, int, int, str], ...]:
    """Slide, left, top (pixels of level 0) and class of Camelyon16's patches, from the committed list of `his`."""
    parts = ((row["id"].rsplit("_", 2), row["label"]) for row in _read_table("his.ids.csv"))
    return tuple((slide, int(x), int(y), label) for (slide, x, y), label in parts)


def ids_digest(rows: Iterable[tuple[str, str, str]]) -> str:
    """SHA-256 of the sorted lines `id,group,split`: the digest of a membership, whatever tool wrote the file."""
    lines = sorted(",".join(row) for row in rows)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _read_table(name: str) -> list[dict[str, str]]:
    path = resource_dir("data_manifests") / name
    if not path.is_file():
        raise ManifestError(f"data_manifests/{name} is missing from this installation; reinstall medfsad.")
    with path.open(newline="", encoding="utf-8") as file:
        return [{name: cell_text(cell) for name, cell in row.items()} for row in csv.DictReader(file)]
