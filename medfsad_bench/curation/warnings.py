"""What readers noticed while they made pixels: one finding of each kind, with the number of images."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from medfsad_bench.curation.staging import Loaded
from medfsad_bench.layouts.finding import Finding, first_of


def warning_findings(ids: Sequence[str], loaded: Mapping[str, Loaded]) -> list[Finding]:
    """One finding for each kind of warning; what stands in brackets at its end differs between images of one kind.

    Args:
        ids: Images that take part.
        loaded: What is known of each.
    """
    images: dict[str, list[str]] = defaultdict(list)
    for image_id in ids:
        for kind in {_kind(warning) for warning in loaded[image_id].warnings}:
            images[kind].append(image_id)
    findings = []
    for kind, of_kind in sorted(images.items()):
        first = next(warning for warning in loaded[of_kind[0]].warnings if _kind(warning) == kind)
        what = f"{len(of_kind)} of {len(ids)} images: {first}"
        findings.append(Finding("pixels", first_of(of_kind), what, stops=False, ids=tuple(of_kind[:4])))
    return findings


def _kind(warning: str) -> str:
    return warning.split(" (", maxsplit=1)[0]
