"""What is wrong with the images of a set, all of it at once: findings are collected, not raised."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import numpy as np
from jaxtyping import Int64

from medfsad_bench.curation.duplicates import Compare, Fingerprint, compared_here, near_duplicates_across
from medfsad_bench.curation.split import Candidate
from medfsad_bench.curation.staging import Loaded
from medfsad_bench.layouts import Finding, RawImage
from medfsad_bench.layouts.columns import is_placeholder
from medfsad_bench.layouts.finding import first_of
from medfsad_bench.manifest import Listed

CONSTANT_CONTRAST = 1.0  # grey levels of 255: below it there's nothing to see
_EMPTY_SHARE = 0.995  # of one grey level: a blank page with a speck
_TEXT_SHARE, _TEXT_LEVELS = 0.8, 24  # a page of text is mostly one level, and has few
_SMALLEST_PX = 64
_SIZE_FACTOR = 4  # between an image's shorter side and the set's median
_ASPECT = 3
_FULL_MASK = 0.95


def quarantine(loaded: Mapping[str, Loaded]) -> dict[str, str]:
    """Images that can't take part, with the reason."""
    bad = {}
    for image_id, item in sorted(loaded.items()):
        if item.problem:
            bad[image_id] = item.problem
        elif item.contrast < CONSTANT_CONTRAST:
            bad[image_id] = f"constant image (standard deviation {item.contrast:.2f} of 255)"
    return bad


def duplicate_findings(
    candidates: Sequence[Candidate],
    split: Mapping[str, str],
    loaded: Mapping[str, Loaded],
    near: Int64[np.ndarray, "m 2"],
) -> list[Finding]:
    """Duplicates in different groups, exact or near: they stop the set across the split, else they are noted.

    Args:
        candidates: Images that may take part.
        split: The sides of those that do.
        loaded: What is known of each.
        near: Pairs of near-duplicates among the candidates, as `near_duplicates` finds them.
    """
    chosen = [index for index, c in enumerate(candidates) if c.id in split]
    pairs = {(int(i), int(j)) for i, j in near} | _same_file(candidates, chosen, loaded)
    findings = []
    for first, second in sorted(pairs):
        a, b = candidates[first], candidates[second]
        if a.id in split and b.id in split and a.group != b.group:
            across = split[a.id] != split[b.id]
            exact = loaded[a.id].sha256 == loaded[b.id].sha256
            what = f"{'the same file' if exact else 'near-duplicates'} in two groups ({a.group}, {b.group})"
            what += ", on both sides of the split" if across else ""
            what += ", with different labels" if a.anomalous != b.anomalous else ""
            findings.append(Finding("near-duplicates", f"{a.id} ~ {b.id}", what, across, (a.id, b.id)))
    return findings


def label_findings(
    candidates: Sequence[Candidate],
    images: Mapping[str, RawImage],
    loaded: Mapping[str, Loaded],
    near: Int64[np.ndarray, "m 2"],
    *,
    stops: bool,
) -> list[Finding]:
    """The same picture under both labels, whether or not it takes part: one of the two is wrong.

    Neighbouring slices or frames of one patient may be near-duplicates and differ in their labels; of them only a
    picture that is the very same in two files is meant.

    Args:
        candidates: Images that may take part.
        images: What they were made from, by id.
        loaded: What is known of each.
        near: Pairs of near-duplicates among the candidates.
        stops: Whether it stops the set.
    """
    findings = []
    for first, second in near:
        a, b = candidates[int(first)], candidates[int(second)]
        same = np.array_equal(loaded[a.id].prints, loaded[b.id].prints) and images[a.id].path != images[b.id].path
        if a.anomalous != b.anomalous and (same or images[a.id].patient != images[b.id].patient):
            normal, anomalous = (b, a) if a.anomalous else (a, b)
            what = f"{'the same picture' if same else 'near-duplicates'} under both labels. Remove the wrong one"
            findings.append(
                Finding("both-labels", f"{normal.id} ~ {anomalous.id}", what, stops, (normal.id, anomalous.id))
            )
    return findings


def shared_findings(
    prints: Mapping[str, Fingerprint],
    other: str,
    other_prints: Mapping[str, Fingerprint],
    *,
    stops: bool,
    compare: Compare = compared_here,
) -> list[Finding]:
    """One finding for all images of a set that are near-duplicates of another set's.

    Args:
        prints: Fingerprints of the set, by image id.
        other: Name of the other set.
        other_prints: Its fingerprints.
        stops: Whether the set can't be written unless the user allows it.
        compare: Who compares the fingerprints.
    """
    ids, other_ids = list(prints), list(other_prints)
    shared: dict[str, str] = {}
    pairs = near_duplicates_across(list(prints.values()), list(other_prints.values()), compare=compare)
    for i, j in pairs:
        shared.setdefault(ids[i], other_ids[j])
    if not shared:
        return []
    image_id, other_id = min(shared.items())
    what = f"{len(shared)} image(s) are near-duplicates of images of {other!r}"
    what += "" if stops else ", which is held out together with it"
    return [Finding("shared-images", f"{image_id} ~ {other}/{other_id}", what, stops, tuple(sorted(shared)[:8]))]


def patient_findings(
    candidates: Sequence[Candidate], split: Mapping[str, str], loaded: Mapping[str, Loaded]
) -> list[Finding]:
    """One PatientID of the headers in several groups on both sides of the split.

    It stops the set, unless all share it: then it says nobody, as do words such as ANONYMOUS.
    """
    sides: dict[str, dict[str, str]] = defaultdict(dict)
    for c in candidates:
        if c.id in split and not is_placeholder(loaded[c.id].header_patient):
            sides[loaded[c.id].header_patient].setdefault(c.group, c.id)
    findings = []
    everybody = len(sides) == 1 and all(loaded[c.id].header_patient for c in candidates if c.id in split)
    for members in sides.values():  # the ID itself is nobody's business
        if len(members) > 1 and len({split[i] for i in members.values()}) > 1:
            ids = tuple(sorted(members.values()))
            what = f"{len(ids)} groups on both sides of the split have one PatientID in their headers"
            findings.append(Finding("one-patient", first_of(ids), what, stops=not everybody, ids=ids[:4]))
    return findings


def image_findings(
    candidates: Sequence[Candidate], split: Mapping[str, str], loaded: Mapping[str, Loaded], mask_kind: str
) -> list[Finding]:
    """Images that are blank, text, oddly sized, or have a mask that doesn't fit; headers that name the patient."""
    chosen = [c for c in candidates if c.id in split]
    shorter = [min(loaded[c.id].height, loaded[c.id].width) for c in chosen]
    usual = float(np.median(shorter)) if shorter else 0.0
    findings = [
        Finding(fault, c.id, what, stops=False, ids=(c.id,))
        for c in chosen
        for fault, what in _image_faults(loaded[c.id], c, usual, mask_kind)
    ]
    tags: dict[str, list[str]] = defaultdict(list)
    for c in chosen:
        for tag in loaded[c.id].privacy:
            tags[tag].append(c.id)
    for tag, ids in sorted(tags.items()):
        what = (
            f"{len(ids)} of {len(chosen)} headers: {tag}. Prepared files hold no header; burned-in text stays visible"
        )
        findings.append(Finding("personal-data", first_of(ids), what, stops=False, ids=tuple(ids[:4])))
    return findings


def listed_findings(listed: Sequence[Listed], loaded: Mapping[str, Loaded]) -> list[Finding]:
    """Files that aren't the ones that the committed list was made from."""
    findings = []
    for row in listed:
        item = loaded.get(row.id)
        if row.sha256 and item and not item.problem and item.sha256 != row.sha256:
            what = f"the file's SHA-256 is {item.sha256[:12]}…, the committed list has {row.sha256[:12]}…"
            findings.append(Finding("other-files", row.id, what, stops=True, ids=(row.id,)))
    return findings


def unlabelled_findings(ids: Sequence[str]) -> list[Finding]:
    """Images to which the download gives no label."""
    if not ids:
        return []
    return [Finding("no-label", first_of(ids), f"{len(ids)} without a label or segmentation; left out", stops=False)]


def _same_file(
    candidates: Sequence[Candidate], chosen: Sequence[int], loaded: Mapping[str, Loaded]
) -> set[tuple[int, int]]:
    """Neighbours among images of equal file digest; slices and patches of one file aren't meant."""
    by_digest: dict[str, list[int]] = defaultdict(list)
    for index in chosen:
        by_digest[loaded[candidates[index].id].sha256].append(index)
    neighbours = (pair for indices in by_digest.values() for pair in pairwise(indices))
    return {(a, b) for a, b in neighbours if candidates[a].group != candidates[b].group}


def _image_faults(item: Loaded, candidate: Candidate, usual_px: float, mask_kind: str) -> Iterable[tuple[str, str]]:
    if item.commonest >= _EMPTY_SHARE:
        yield "empty-image", f"{item.commonest:.1%} of its pixels have one grey level"
    elif item.commonest >= _TEXT_SHARE and item.levels <= _TEXT_LEVELS:
        yield "text-only", f"{item.levels} grey levels, {item.commonest:.0%} of the pixels of one: a page of text?"
    shorter, longer = sorted((item.height, item.width))
    if shorter < min(_SMALLEST_PX, usual_px) or shorter * _SIZE_FACTOR <= usual_px or longer > _ASPECT * shorter:
        yield "odd-size", f"{item.width} × {item.height} px; the set's usual shorter side is {usual_px:.0f} px"
    if mask_kind != "none" and candidate.anomalous:
        if item.mask_area < 0:
            yield "no-mask", "anomalous, but without a localisation truth"
        elif item.mask_area == 0:
            yield "empty-mask", "its mask marks no pixel"
    if item.mask_area >= _FULL_MASK:
        yield "full-mask", f"its mask covers {item.mask_area:.0%} of the image"
    if item.mask_area > 0 and not candidate.anomalous:
        yield "label-contradicts-mask", "labelled normal, but its mask marks pixels"
