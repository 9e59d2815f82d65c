"""A user's own sets: what they are called, whether they can be a target at all, and whose file may be written anew."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from medfsad_bench.curation.own_manifest import reduced_name
from medfsad_bench.curation.split import Candidate
from medfsad_bench.errors import CurationError, DownloadError
from medfsad_bench.layouts import Download, RawImage
from medfsad_bench.layouts.class_folders import OWN_FORMS
from medfsad_bench.manifest import OWN, all_manifests
from medfsad_bench.store import Dataset, prepared_files
from medfsad_bench.store.prepared import origin_digest

_NAME = re.compile(r"^[a-z0-9_]+$")
_WHO_IS_WHO = (
    "put a CSV table with the columns `path` and `patient` beside the folders of the classes, or the column `patient` "
    "into the table that gives the labels."
)


def own_names(downloads: Sequence[Download], given: str | None) -> list[str]:
    """A name for each own download: its folder's, reduced to a–z, 0–9 and _.

    Where two would have one name, the folder above says which is which; one that a set of the benchmarks has gets
    `own_` before it, so that a name never stands for two sets.

    Args:
        downloads: The own downloads.
        given: What `--name` says.

    Raises:
        DownloadError: If `given` is no name, is taken by a set of ours, or there isn't exactly one own download.
    """
    if given is not None:
        if not _NAME.match(given) or given in all_manifests():
            taken = ", which is the name of a set of the benchmarks" if given in all_manifests() else ""
            alike = f"own_{reduced_name(given)}"
            raise DownloadError(f"--name {given!r}{taken}: expected another name of a–z, 0–9 and _, such as {alike}.")
        if len(downloads) != 1:
            there = ", ".join(str(download.origin) for download in downloads) or "none"
            remedy = "Name one of them alone with --source." if downloads else OWN_FORMS
            raise DownloadError(f"--name {given!r} names one own set; there are {len(downloads)} ({there}). {remedy}")
        return [given]
    names = [reduced_name(download.root.name) for download in downloads]
    shared = {name for name, count in Counter(names).items() if count > 1}
    longer = [
        f"{reduced_name(download.origin.parent.name)}_{name}" if name in shared else name
        for name, download in zip(names, downloads, strict=True)
    ]
    return [f"own_{name}" if name in all_manifests() else name for name in longer]


def check_own(name: str, images: Sequence[RawImage]) -> None:
    """Refuse own images that can't be a target, before any of them is read.

    Raises:
        CurationError: If a class is missing, or the normal images are of one group.
    """
    unlabelled = [image for image in images if image.label == "unlabelled"]
    if unlabelled and not any(image.masks for image in images):
        raise CurationError(
            f"{name}: no mask for any of its {len(unlabelled)} anomalous volume(s), first {unlabelled[0].path.name}. A "
            "volume holds normal slices too, so its masks say which slices are anomalous; put them into masks/ under "
            "the names of the volumes, or name their folder with --masks."
        )
    normal = [image for image in images if image.label == "normal" or (image.label == "volume" and not image.masks)]
    anomalous = [image for image in images if image.label == "anomalous" or image.masks]
    for label, of_class in (("normal", normal), ("anomalous", anomalous)):
        if not of_class and not (label == "normal" and anomalous and anomalous[0].label == "volume"):
            raise CurationError(
                f"{name}: holds no {label} images, of {len(images)} in all. A target needs normal and anomalous ones; "
                "add them, or score images without labels against a few normal ones with `medfsad score`."
            )
    groups = {image.patient for image in normal}
    sided = all(image.split for image in images)
    if len(groups) == 1 and not sided and not any(image.label == "volume" for image in images):
        raise CurationError(
            f"{name}: all {len(normal)} normal images are of one group ({normal[0].patient}), and a group stands on "
            "one side: as support or as query. Expected normal images of two patients or more; add some, or, if the "
            f"grouping is wrong, {_WHO_IS_WHO}"
        )


def what_to_add(normal: Sequence[Candidate], images: Mapping[str, RawImage]) -> str:
    """What would make a set of own images that were read: it depends on what joins the normal ones to one group.

    Args:
        normal: Those that could be read, with their groups.
        images: All images by id.
    """
    of_normal = [images[candidate.id] for candidate in normal]
    patients, files = {image.patient for image in of_normal}, {image.path for image in of_normal}
    one_group = len({candidate.group for candidate in normal}) == 1
    if one_group and len(patients) > 1:
        return (
            f"The normal images are of {len(patients)} patients and near-duplicates of each other, which makes them "
            "one group; add normal images that differ."
        )
    if one_group and len(files) > 1:
        return f"Add normal images of other patients, or, if these are of several, {_WHO_IS_WHO}"
    return "Add images, or mend those that can't be read."


def refuse_other_origin(name: str, download: Download, out: Path) -> None:
    """Refuse to write over the prepared file of another folder that has the same name.

    Raises:
        CurationError: If there is one.
    """
    for path in prepared_files(out / OWN):
        dataset = Dataset(path)
        if dataset.name == name and dataset.attributes.get("origin") != origin_digest(download.origin):
            raise CurationError(
                f"{download.origin}: its name {name!r} is that of {path}, which was prepared from another folder. "
                "Nothing was written. Give it another name with --name, or remove that file if this folder replaces it."
            )
