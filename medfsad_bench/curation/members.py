"""Who takes part in one set, as it becomes clear: by list or rule, then by what reading the images shows."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Int64

from medfsad_bench.curation.audit import (
    duplicate_findings,
    image_findings,
    label_findings,
    listed_findings,
    patient_findings,
    quarantine,
)
from medfsad_bench.curation.comparing import OnCluster
from medfsad_bench.curation.duplicates import Compare, Fingerprint, compared_here, joined_groups, near_duplicates
from medfsad_bench.curation.load import LoadPlan, load_images
from medfsad_bench.curation.options import PrepareOptions, Watcher
from medfsad_bench.curation.own_manifest import own_split
from medfsad_bench.curation.own_sets import what_to_add
from medfsad_bench.curation.split import Candidate, choose, choose_smaller, chosen_counts
from medfsad_bench.curation.staging import Loaded
from medfsad_bench.curation.warnings import warning_findings
from medfsad_bench.errors import CurationError
from medfsad_bench.layouts import Finding, RawImage
from medfsad_bench.manifest import OWN, Listed, Manifest, Split, committed_groups, ids_digest
from medfsad_bench.store.composition import Composition, compositions, split_key


@dataclass(slots=True)
class Members:
    """The images of one set, what is known of each, and who is chosen; mappings are by image id."""

    manifest: Manifest
    split: Split  # of the benchmark
    listed: list[Listed] | None  # the committed membership, or None where the rule decides
    images: dict[str, RawImage]  # those that may take part
    download: str  # name of its folder, for messages
    options: PrepareOptions
    plan: LoadPlan
    watcher: Watcher
    origin: str = ""  # digest of where an own set's images came from
    held_out_with: tuple[str, ...] = ()  # sets that share images with this one
    loaded: dict[str, Loaded] = field(default_factory=dict)
    quarantined: dict[str, str] = field(default_factory=dict)  # why an image can't take part; sorted
    chosen: dict[str, str] = field(default_factory=dict)  # sides
    findings: list[Finding] = field(default_factory=list)
    allowed: set[str] = field(default_factory=set)  # faults that the user let through
    _compared: tuple[list[str], Int64[np.ndarray, "m 2"]] | None = None  # the last ids and pairs: it takes its time
    _joined: tuple[list[str], dict[str, str]] | None = None  # the last ids and groups

    @property
    def is_own(self) -> bool:
        """Whether the set is a folder of the user's own, with the counts that it can fill."""
        return self.options.benchmark == OWN

    @property
    def joins_near_duplicates(self) -> bool:
        """Whether groups are joined with near-duplicates, for which all images have to be read first."""
        return self.listed is None and self.manifest.join_near_duplicates and not self.split.upstream

    @property
    def candidates(self) -> list[Candidate]:
        """Images that aren't quarantined, with their groups and sides."""
        ids = [i for i in self.images if i not in self.quarantined]
        groups = self._groups(ids)
        normal = set(self.manifest.labels.normal)
        return [Candidate(i, groups[i], self.images[i].label not in normal, self.images[i].split) for i in ids]

    @property
    def counts(self) -> dict[tuple[str, bool], int]:
        """Chosen images by (split, anomalous), in the order of the split's counts."""
        counts = chosen_counts(self.candidates, self.chosen)
        return {key: counts.get(key, 0) for key in self.split.counts}

    @property
    def groups(self) -> dict[str, int]:
        """How many groups stand on each side."""
        sides = {(self.chosen[c.id], c.group) for c in self.candidates if c.id in self.chosen}
        return {side: sum(side == other for other, _ in sides) for side in ("train", "test")}

    @property
    def composition(self) -> dict[str, Composition]:
        """What each class on each side is made up of."""
        return compositions((self.chosen[c.id], c.anomalous, c.group) for c in self.candidates if c.id in self.chosen)

    @property
    def spare(self) -> int:
        """Candidates that are on neither side."""
        return len(self.images.keys() - self.quarantined.keys()) - len(self.chosen)

    @property
    def prints(self) -> dict[str, Fingerprint]:
        """Fingerprints of the chosen images, by id."""
        return {image_id: self.loaded[image_id].prints for image_id in self.chosen}

    @property
    def compare(self) -> Compare:
        """Who compares fingerprints."""
        return OnCluster(self.plan.staging) if self.options.on_cluster else compared_here

    @property
    def _unread(self) -> str:
        """How many images can't be read and why, for messages."""
        bad = list(self.quarantined.values())
        return f"; {len(bad)} more can't be read, first {bad[0].rstrip('.')}" if bad else ""

    def leave_out(self, problems: dict[str, str]) -> None:
        """Quarantine images, by the reason."""
        self.quarantined = dict(sorted({**self.quarantined, **problems}.items()))

    def load(self, ids: Iterable[str]) -> None:
        """Read images that weren't yet, and quarantine those that can't be."""
        missing = [self.images[i] for i in ids if i not in self.loaded and i not in self.quarantined]
        if missing:
            self.watcher.start(f"{self.manifest.name}: reading", len(missing))
            workers, on_cluster = self.options.workers, self.options.on_cluster
            loaded = load_images(
                missing, self.plan, workers=workers, on_cluster=on_cluster, on_done=self.watcher.advance
            )
            self.loaded |= loaded
            self.leave_out(quarantine(loaded))

    def choose(self) -> None:
        """Apply list or rule; a user's own images are counted anew, as it shows only now which of them can be read.

        Raises:
            CurationError: If there are too few and `--allow smaller` isn't given.
        """
        if self.is_own:
            self.split = own_split(self.manifest.name, self.candidates, sided=self.split.upstream)
            self.manifest = self.manifest.model_copy(update={"benchmarks": {OWN: self.split}})
        self.chosen = self._chosen_by_rule() if self.listed is None else self._chosen_by_list(self.listed)

    def choose_and_load(self) -> None:
        """Choose and read until all that are chosen could be read: each turn quarantines at least one more."""
        if self.joins_near_duplicates or self.is_own:
            self.load(self.images)
        while True:
            self.choose()
            self.load(self.chosen)
            if not self.chosen.keys() & self.quarantined.keys():
                return

    def note(self, findings: Sequence[Finding]) -> None:
        """Collect findings. Nobody can mend the known faults of a committed list, so these don't stop the set."""
        known_faults = () if self.listed is None else self.split.known_faults
        self.findings += [replace(f, stops=f.stops and f.fault not in known_faults) for f in findings]

    def audit(self) -> None:
        """Collect all that is wrong with the images that take part."""
        candidates = self.candidates
        if self.listed is None:
            self.note(self._digest_findings(candidates))
        read = [c for c in candidates if c.id in self.loaded]
        near = self._near_duplicates([c.id for c in read])
        self.note(duplicate_findings(read, self.chosen, self.loaded, near))
        self.note(label_findings(read, self.images, self.loaded, near, stops=self.is_own))
        self.note(patient_findings(candidates, self.chosen, self.loaded))
        self.note(image_findings(candidates, self.chosen, self.loaded, self.manifest.mask_kind))
        self.note(listed_findings(self.listed or [], self.loaded))
        self.note(warning_findings(sorted(self.chosen), self.loaded))

    def let_through(self) -> list[str]:
        """Note the faults that the user allowed; returns those that stop the set, in which case none is noted."""
        stopping = {finding.fault for finding in self.findings if finding.stops}
        refused = sorted(stopping - self.options.allow)
        self.allowed |= set() if refused else stopping
        return refused

    def _groups(self, ids: list[str]) -> dict[str, str]:
        if self.listed is not None:
            by_id = {row.id: row.group for row in self.listed}
            return {i: by_id[i] for i in ids}
        committed = committed_groups(self.manifest)
        groups = [committed.get(i, self.images[i].patient) for i in ids]
        if not self.joins_near_duplicates or any(i not in self.loaded for i in ids):
            return dict(zip(ids, groups, strict=True))
        if self._joined is None or self._joined[0] != ids:
            near = self._near_duplicates(ids)
            pairs = [(a, b) for a, b in near if not (ids[a] in committed and ids[b] in committed)]
            joined = joined_groups(groups, np.array(pairs, np.int64).reshape(-1, 2))
            self._joined = ids, dict(zip(ids, joined, strict=True))
        return self._joined[1]

    def _near_duplicates(self, ids: list[str]) -> Int64[np.ndarray, "m 2"]:
        if self._compared is None or self._compared[0] != ids:
            self._compared = ids, near_duplicates([self.loaded[i].prints for i in ids], compare=self.compare)
        return self._compared[1]

    def _chosen_by_list(self, listed: list[Listed]) -> dict[str, str]:
        chosen = {row.id: row.split for row in listed if row.id in self.images and row.id not in self.quarantined}
        self._refuse_other_files(listed, chosen)
        if len(chosen) < len(listed):
            first = next(row.id for row in listed if row.id not in chosen)
            self._allow_smaller(f"{len(chosen)} of the {len(listed)} listed images (first missing: {first})")
        return dict(chosen)

    def _refuse_other_files(self, listed: Sequence[Listed], chosen: Mapping[str, str]) -> None:
        """Refuse files that only bear listed ids, and a download in which a listed class is missing on a side.

        Raises:
            CurationError: If so, as not even a smaller set can be made of it.
        """
        name, labels = self.manifest.name, self.manifest.labels
        remedy = (
            f"Take the download that `medfsad datasets {name}` describes; what `medfsad demo` generated takes "
            "--benchmark demo, and other images are a set of your own (--normal DIR --anomalous DIR)."
        )
        stated = {"normal": "normal", "anomalous": "anomalous"}
        stated |= {**dict.fromkeys(labels.normal, "normal"), **dict.fromkeys(labels.anomalous, "anomalous")}
        expected = {row.id: "normal" if row.split == "train" else stated.get(row.label, "") for row in listed}
        held = {i: stated[self.images[i].label] for i in chosen}
        if wrong := [i for i in held if expected[i] not in ("", held[i])]:
            first = ", ".join(f"{i} is {held[i]}" for i in wrong[:3]) + (", …" if len(wrong) > 3 else "")
            raise CurationError(
                f"{name}: {len(wrong)} of the {len(held)} listed images in {self.download!r} have another label than "
                f"the committed list gives them ({first}). Expected the files that the list was made from. {remedy}"
            )
        there = {f"{side} {held[i]}" for i, side in chosen.items()}
        lacking = [key for key in ("train normal", "test normal", "test anomalous") if key not in there]
        if len(chosen) < len(listed) and lacking:
            raise CurationError(
                f"{name}: {self.download!r} holds {len(chosen)} of the {len(listed)} listed images, none of them "
                f"{', '.join(lacking)}{self._unread}. Expected some of each, even for a smaller file. {remedy}"
            )

    def _chosen_by_rule(self) -> dict[str, str]:
        name, candidates = self.manifest.name, self.candidates
        chosen = choose(name, candidates, self.split.counts)
        counts = chosen_counts(candidates, chosen)
        if counts == self.split.counts:
            return chosen
        short = ", ".join(
            f"{counts.get(key, 0)} of {wanted} {split_key(*key)}"
            for key, wanted in self.split.counts.items()
            if counts.get(key, 0) < wanted
        )
        if self.is_own:
            raise CurationError(self._too_few(candidates))
        self._allow_smaller(short)
        chosen, _ = choose_smaller(name, candidates, self.split)
        if not chosen:
            raise CurationError(
                f"{name}: the download {self.download!r} can't fill even one image per class on each side "
                f"({short}; {len(self.quarantined)} quarantined). Complete the download."
            )
        return chosen

    def _too_few(self, candidates: Sequence[Candidate]) -> str:
        """Why a user's own folder is no set."""
        by_class = [[c.group for c in candidates if c.anomalous == anomalous] for anomalous in (False, True)]
        normal, anomalous = (f"{len(groups)} image(s) of {len(set(groups))} group(s)" for groups in by_class)
        sides = " on the sides that it fixes" if self.split.upstream else ""
        return (
            f"{self.manifest.name}: your folder {self.download!r} holds {normal} that are normal and {anomalous} that "
            f"are anomalous{self._unread}. Expected normal images of two groups (patients, joined with near-"
            f"duplicates) or more, one to train and one to test on, and an anomalous image to test on{sides}. "
            f"{what_to_add([c for c in candidates if not c.anomalous], self.images)}"
        )

    def _allow_smaller(self, what: str) -> None:
        """Note that the set is smaller than its benchmark.

        Raises:
            CurationError: If nobody allowed that.
        """
        if "smaller" not in self.options.allow and self.options.benchmark != "demo":
            raise CurationError(
                f"{self.manifest.name}: the download {self.download!r} holds {what}{self._unread}. Benchmark "
                f"{self.options.benchmark!r} needs all of them. Complete the download (`medfsad datasets "
                f"{self.manifest.name}` has the steps), or pass --allow smaller for a scaled-down file that isn't the "
                "benchmark and says so in its name and in every row."
            )
        self.allowed.add("smaller")

    def _digest_findings(self, candidates: list[Candidate]) -> list[Finding]:
        """Where the manifest states the list's digest without the list, the rule has to lead to it."""
        expected = self.split.ids_sha256
        if expected is None or self.counts != self.split.counts:
            return []
        digest = ids_digest((c.id, c.group, self.chosen[c.id]) for c in candidates if c.id in self.chosen)
        what = f"the list's digest is {digest}, the manifest has {expected}"
        return [] if digest == expected else [Finding("other-files", self.manifest.name, what, stops=True)]
