"""Who takes part in one set, as it becomes clear: list or rule, then what reading the images shows."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

from medfsad_bench.curation.audit import (
    Finding,
    duplicate_findings,
    image_findings,
    listed_findings,
    patient_findings,
    quarantine,
)
from medfsad_bench.curation.duplicates import joined_groups, near_duplicates
from medfsad_bench.curation.load import Loaded, LoadPlan, load_images
from medfsad_bench.curation.report import PrepareOptions, SetReport, Watcher, split_key
from medfsad_bench.curation.split import Candidate, choose, choose_smaller, tally
from medfsad_bench.errors import CurationError
from medfsad_bench.layouts import RawImage
from medfsad_bench.manifest import Listed, Manifest, Split, ids_digest, known_groups


@dataclass(slots=True)
class Members:
    """The images of one set, what is known of each, and who is chosen.

    Attributes:
        manifest: The set's.
        split: Of the benchmark.
        listed: The committed membership, or None where the rule decides.
        images: By id, those that may take part.
        options: What the user asked for.
        report: Filled on the way.
        loaded: What reading has shown, by id.
        findings: All that was found, collected.
    """

    manifest: Manifest
    split: Split
    listed: list[Listed] | None
    images: dict[str, RawImage]
    options: PrepareOptions
    report: SetReport
    loaded: dict[str, Loaded] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    _left_out: dict[str, str] = field(default_factory=dict)
    _grouped: tuple[list[str], dict[str, str]] | None = None  # the last answer: comparing all pairs takes its time

    def leave_out(self, problems: dict[str, str]) -> None:
        """Quarantine images before they are read."""
        self._left_out |= problems
        self.report.quarantined = dict(sorted(self._left_out.items()))

    def load(self, plan: LoadPlan, ids: Sequence[str], watcher: Watcher) -> None:
        """Read images that weren't yet."""
        missing = [self.images[i] for i in ids if i not in self.loaded and i not in self._left_out]
        if missing:
            watcher.start(f"{self.manifest.name}: reading", len(missing))
            self.loaded |= load_images(missing, plan, workers=self.options.workers, on_done=watcher.advance)
        self.report.quarantined = dict(sorted({**self._left_out, **quarantine(self.loaded)}.items()))

    def candidates(self) -> list[Candidate]:
        """Images that aren't quarantined, with their groups and sides."""
        ids = [i for i in self.images if i not in self.report.quarantined]
        groups = self._groups(ids)
        normal = set(self.manifest.labels.normal)
        return [Candidate(i, groups[i], self.images[i].label not in normal, self.images[i].split) for i in ids]

    def choose(self) -> dict[str, str]:
        """Apply list or rule.

        Raises:
            CurationError: If the source holds too few and `--allow smaller` isn't given.
        """
        candidates = self.candidates()
        chosen = self._listed_choice() if self.listed is not None else self._ruled_choice(candidates)
        found = tally(candidates, chosen)
        self.report.counts = {split_key(*key): found.get(key, 0) for key in self.split.counts}
        self.report.groups = {
            side: len({c.group for c in candidates if chosen.get(c.id) == side}) for side in ("train", "test")
        }
        self.report.spare = len(candidates) - len(chosen)
        return chosen

    def audit(self, chosen: dict[str, str]) -> None:
        """Collect all that is wrong with the images that take part."""
        candidates = self.candidates()
        self.findings += duplicate_findings(candidates, chosen, self.loaded)
        self.findings += patient_findings(candidates, chosen, self.loaded)
        self.findings += image_findings(candidates, chosen, self.loaded, self.manifest.mask_kind)
        if self.listed is not None:
            self.findings += listed_findings(self.listed, self.loaded)

    def stop_or_allow(self, offenders: Path) -> None:
        """Stop on faults that nobody allowed, all of them at once.

        Args:
            offenders: Report that holds every finding, named in the message.

        Raises:
            CurationError: With the kinds and the first few.
        """
        if self.listed is not None:
            known = self.split.known_faults
            self.findings = [replace(f, stops=False) if f.fault in known else f for f in self.findings]
        self.report.findings = [asdict(finding) for finding in self.findings]
        stopping = [finding for finding in self.findings if finding.stops]
        faults = sorted({finding.fault for finding in stopping})
        refused = [fault for fault in faults if fault not in self.options.allow]
        if refused:
            lines = "; ".join(f"{finding.where}: {finding.what}" for finding in stopping[:5])
            raise CurationError(
                f"{self.manifest.name}: {len(stopping)} fault(s) of kind {', '.join(refused)} ({lines}"
                f"{'; …' if len(stopping) > 5 else ''}). Expected none; all are listed in {offenders}, with a picture "
                f"beside it. Report it, or write the file all the same with "
                f"{' '.join(f'--allow {fault}' for fault in refused)}; the file will say so."
            )
        for fault in faults:
            self.report.note(fault)

    def _groups(self, ids: Sequence[str]) -> dict[str, str]:
        if self.listed is not None:
            by_id = {row.id: row.group for row in self.listed}
            return {i: by_id[i] for i in ids}
        wanted = list(ids)
        joins = self.manifest.join_near_duplicates and not self.split.upstream and all(i in self.loaded for i in ids)
        if self._grouped is not None and self._grouped[0] == wanted:
            return self._grouped[1]
        known = known_groups(self.manifest)
        groups = [known.get(i, self.images[i].patient) for i in ids]
        if joins:
            prints = [item.prints for i in ids if (item := self.loaded[i]).prints is not None]
            pairs = [(a, b) for a, b in near_duplicates(prints) if not (ids[a] in known and ids[b] in known)]
            groups = joined_groups(groups, np.array(pairs, np.int64).reshape(-1, 2))
        found = dict(zip(ids, groups, strict=True))
        self._grouped = (wanted, found) if joins else None
        return found

    def _listed_choice(self) -> dict[str, str]:
        rows = self.listed or []
        chosen = {r.id: r.split for r in rows if r.id in self.images and r.id not in self.report.quarantined}
        if len(chosen) < len(rows):
            first = next(r.id for r in rows if r.id not in chosen)
            self._too_few(f"{len(chosen)} of the {len(rows)} listed images (first missing: {first})")
        return dict(chosen)

    def _ruled_choice(self, candidates: list[Candidate]) -> dict[str, str]:
        name = self.manifest.name
        chosen = choose(name, candidates, self.split.counts)
        found = tally(candidates, chosen)
        if found == self.split.counts:
            self._compare_digest(candidates, chosen)
            return chosen
        short = [
            f"{found.get(k, 0)} of {n} {split_key(*k)}" for k, n in self.split.counts.items() if found.get(k, 0) < n
        ]
        self._too_few(", ".join(short))
        chosen, _ = choose_smaller(name, candidates, self.split)
        if not chosen:
            raise CurationError(
                f"{name}: the source {self.report.source!r} can't fill even one image a class on each side "
                f"({', '.join(short)}; {len(self.report.quarantined)} quarantined). Complete the download."
            )
        return chosen

    def _compare_digest(self, candidates: list[Candidate], chosen: dict[str, str]) -> None:
        """Where the manifest states the list's digest without the list, the rule has to lead to it."""
        expected = self.split.ids_sha256
        if expected is None:
            return
        found = ids_digest((c.id, c.group, chosen[c.id]) for c in candidates if c.id in chosen)
        where = Finding(
            "other-files", self.manifest.name, f"the list's digest is {found}, the manifest has {expected}", stops=True
        )
        if found != expected and where not in self.findings:
            self.findings.append(where)

    def _too_few(self, what: str) -> None:
        if "smaller" not in self.options.allow and self.options.benchmark != "demo":
            bad = self.report.quarantined
            detail = f"; {len(bad)} image(s) can't be read, first {next(iter(bad.items()))}" if bad else ""
            raise CurationError(
                f"{self.manifest.name}: the source {self.report.source!r} holds {what}{detail}. Benchmark "
                f"{self.options.benchmark!r} needs all of them. Complete the download (`medfsad datasets "
                f"{self.manifest.name}` has the steps), or pass --allow smaller for a scaled-down file that isn't the "
                "benchmark and says so in its name and in every row."
            )
        self.report.note("smaller")
