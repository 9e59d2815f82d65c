"""What a set lacks without being faulty: files that a table names and nobody downloaded, groups to give an interval."""

from collections.abc import Mapping, Sequence

from medfsad_bench.layouts import Finding, RawImage
from medfsad_bench.store.composition import Composition


def missing_file_findings(missing: Sequence[RawImage], ids: set[str] | None, labels: Sequence[str]) -> list[Finding]:
    """One finding for all files that aren't there and would have taken part.

    Args:
        missing: Images that the download names without holding their files.
        ids: Those of the committed list, or None where the rule decides.
        labels: Of the manifest.
    """
    wanted = [image.id for image in missing if (image.label in labels if ids is None else image.id in ids)]
    if not wanted:
        return []
    what = f"{len(wanted):,} image(s) are named by the download, but their files aren't there"
    where = wanted[0] if len(wanted) == 1 else f"{wanted[0]} and {len(wanted) - 1:,} more"
    return [Finding("missing-files", where, what, stops=False)]


def one_group_findings(made_of: Mapping[str, Composition]) -> list[Finding]:
    """A finding per class of the test that is of one group: what is measured on it has no interval."""
    return [
        Finding(
            "one-group", key, f"all {part.images} images are of one group, so no figure has an interval", stops=False
        )
        for key, part in made_of.items()
        if key.startswith("test ") and part.groups == 1
    ]
