"""Images that two sets of a benchmark share: a target whose images a method has trained on is no target."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from medfsad_bench.curation.audit import Finding
from medfsad_bench.curation.duplicates import Fingerprint, fingerprint, near_duplicates
from medfsad_bench.curation.options import PrepareOptions
from medfsad_bench.manifest import OWN, Manifest, all_manifests
from medfsad_bench.store import Dataset, prepared_files


@dataclass
class OtherSets:
    """Fingerprints of the benchmark's other sets: of those prepared in this call and of those in the same folder."""

    options: PrepareOptions
    _prints: dict[str, Mapping[str, Fingerprint]] = field(default_factory=dict)

    def add(self, name: str, prints: Mapping[str, Fingerprint]) -> None:
        """Keep a set's fingerprints, by image id."""
        self._prints[name] = prints

    def findings(self, manifest: Manifest, prints: Mapping[str, Fingerprint]) -> list[Finding]:
        """Images of a set that the others hold as well; they stop it unless the two sets are held out together."""
        findings: list[Finding] = []
        for name in self._compared_with(manifest):
            together = name in manifest.held_out_with or manifest.name in all_manifests()[name].held_out_with
            findings += shared_findings(prints, name, self._prints[name], stops=not together)
        return findings

    def _compared_with(self, manifest: Manifest) -> list[str]:
        """Names of sets; a user's own folders may overlap as they like, and phantoms say nothing."""
        if manifest.name not in all_manifests() or self.options.benchmark in (OWN, "demo"):
            return []
        for path in prepared_files(self.options.out / self.options.benchmark):
            name = path.name.split("-")[0]
            if name != manifest.name and name in all_manifests() and name not in self._prints:
                dataset = Dataset(path)
                images = (dataset.images(np.array([index]))[0] for index in range(len(dataset.table)))
                self._prints[name] = dict(zip(dataset.table["id"], map(fingerprint, images), strict=True))
        return sorted(set(self._prints) - {manifest.name})


def shared_findings(
    prints: Mapping[str, Fingerprint], other: str, other_prints: Mapping[str, Fingerprint], *, stops: bool
) -> list[Finding]:
    """One finding for all images of a set that are near-duplicates of another set's.

    Args:
        prints: Fingerprints of the set, by image id.
        other: Name of the other set.
        other_prints: Its fingerprints.
        stops: Whether the set can't be written unless the user allows it.
    """
    ids, other_ids = list(prints), list(other_prints)
    shared: dict[str, str] = {}
    for i, j in near_duplicates([*prints.values(), *other_prints.values()]):
        if i < len(ids) <= j:
            shared.setdefault(ids[i], other_ids[j - len(ids)])
    if not shared:
        return []
    image_id, other_id = min(shared.items())
    what = f"{len(shared)} image(s) are near-duplicates of images of {other!r}" + (
        "" if stops else ", which is held out together with it"
    )
    where = f"{image_id} ~ {other}/{other_id}"
    return [Finding("shared-images", where, what, stops=stops, ids=tuple(sorted(shared)[:8]))]
