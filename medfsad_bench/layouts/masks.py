"""Which mask belongs to which image: by the folders and names of both, never by a bare name where folders say more.

A mask's name is an image's with a word for masks or a number put after or before it: `a0_mask_1`, `mask-a0`, `A0 (2)`.
Names are compared as they are, then without case and in one Unicode form, then without the words for images that some
names bear (`a0_image`, `case_0000`). An image of the same folder comes before one whose folders end alike.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from medfsad_bench.layouts.finding import Finding, first_of, within
from medfsad_bench.layouts.raw import stem

FAULT = "masks"  # what `--allow` names to go on without the masks in doubt
# Words for masks.
_WORD = r"(?:masks?|msk|seg|segm|segmentations?|gt|ground[ _.\-]?truth|labels?|labelmap|annotations?|anno|manual)"
_GAP = r"[ _.\-]*"
_MASK_FOLDER = re.compile(rf"^{_WORD}$", re.IGNORECASE)
_WORD_AFTER = re.compile(rf"{_GAP}{_WORD}{_GAP}\d*$", re.IGNORECASE)
_WORD_BEFORE = re.compile(rf"^{_WORD}(?=[\d _.\-]|$){_GAP}", re.IGNORECASE)
_NUMBER_AFTER = re.compile(r"(?:[ _.\-]+\d+| ?\(\d+\))$")
_IMAGE_FOLDER = re.compile(r"^(?:images?|imgs?)$", re.IGNORECASE)
_IMAGE_WORDS = re.compile(rf"^(?:images?|imgs?|im)(?=[\d _.\-]|$){_GAP}|{_GAP}(?:images?|img|im|orig|original|0000)$")
_NUMBERS = re.compile(r"[\d ()_.\-]+")


@dataclass(frozen=True)
class Located:
    """A file of a class, and where it lies below the class's folder or below that of the masks."""

    path: Path
    base: Path
    label: str  # its class; of a mask, the class that its folders name, or empty

    @cached_property
    def folder(self) -> tuple[str, ...]:
        """`folders` in one form, to be compared."""
        return tuple(map(unified, self.folders))

    @cached_property
    def folders(self) -> tuple[str, ...]:
        """Folders between `base` and the file, without those that only say `images` or `masks`."""
        parts = self.path.relative_to(self.base).parent.parts
        return tuple(part for part in parts if not _IMAGE_FOLDER.match(part) and not is_mask_folder(part))

    @cached_property
    def name(self) -> str:
        """The file's name without its suffix, in one Unicode form."""
        return unicodedata.normalize("NFC", stem(self.path))


def unified(text: str) -> str:
    """Text without case, in one Unicode form."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())


def is_mask_folder(name: str) -> bool:
    """Whether a folder's whole name is a word for masks."""
    return bool(_MASK_FOLDER.match(name))


def masks_beside(files: Sequence[Path], base: Path) -> set[Path]:
    """Which files of a class's folder are masks of others in it: `benign (1)_mask.png` beside `benign (1).png`.

    Files below a folder `masks` or the like are. So is a file whose name is that of another beside it with a word for
    masks, and then every file with such a word, whether or not its image is there.
    """
    below = {path for path in files if any(map(is_mask_folder, path.relative_to(base).parent.parts))}
    names: dict[Path, set[str]] = defaultdict(set)
    for path in files:
        if path not in below:
            names[path.parent] |= {unified(stem(path)), _core(unified(stem(path)))}
    worded = {path: _without_word(stem(path)) for path in files if path not in below}
    partnered = any({unified(form) for form in forms} & names[path.parent] for path, forms in worded.items())
    return below | {path for path, forms in worded.items() if forms and partnered}


def match_masks(
    images: Sequence[Located], masks: Sequence[Located], root: Path
) -> tuple[dict[Path, tuple[Path, ...]], list[Finding]]:
    """Masks by image, sorted by name. Several of one image that differ in a number alone are all its own.

    An anomalous image comes before a normal one of the same right. Masks in doubt belong to nobody: a mask that several
    images could claim, masks of one image that differ in more than a number, as they may be two readers' or copies.

    Args:
        images: Of both classes.
        masks: All that lie there.
        root: Of the download, for messages.

    Returns:
        The masks by image, and findings: doubts stop the set, as do masks of which not one belongs to an image.
    """
    index = _Names(images)
    claims: dict[Path, list[Path]] = defaultdict(list)
    findings, unclaimed = [], []
    for mask in masks:
        claimants = index.claimants(mask)
        if len(claimants) == 1:
            claims[claimants[0].path].append(mask.path)
        elif claimants:
            names = first_of([within(image.path, root) for image in claimants])
            findings.append(_doubt(within(mask.path, root), f"could be of {names}. Put it below its image's folders"))
        else:
            unclaimed.append(within(mask.path, root))
    matched = {}
    for image, paths in sorted(claims.items()):
        if _one_truth(paths):
            matched[image] = tuple(sorted(paths))
        else:
            listed = ", ".join(within(path, root) for path in sorted(paths)[:4])
            text = f"has masks that differ in more than a number ({listed}): parts, readers or copies? Keep those meant"
            findings.append(_doubt(within(image, root), text))
    if unclaimed:
        text = f"{len(unclaimed)} of {len(masks)} masks belong to no image"
        text += (
            ". Expected an image's folders and name, with _mask, _seg, -1 or the like after it" if not matched else ""
        )
        findings.append(Finding(FAULT if not matched else "unused-masks", first_of(unclaimed), text, stops=not matched))
    return matched, findings


class _Names:
    """Images by their names, from the most to the least exact."""

    def __init__(self, images: Sequence[Located]) -> None:
        self._by_name: list[dict[str, list[Located]]] = [defaultdict(list) for _ in range(3)]
        for image in images:
            for names, name in zip(
                self._by_name, (image.name, unified(image.name), _core(unified(image.name))), strict=True
            ):
                names[name].append(image)

    def claimants(self, mask: Located) -> list[Located]:
        """Images of the best right to a mask; of equal right anomalous ones alone, where there are any."""
        forms = list(_forms(mask.name))
        for is_near in (_same_folder, _ends_alike):
            for anomalous in (True, False):
                for names, form in self._ways(forms):
                    near = [
                        image
                        for image in names.get(form, ())
                        if (image.label != "normal") == anomalous
                        and mask.label in ("", image.label)
                        and is_near(image.folder, mask.folder)
                    ]
                    if near:
                        return near
        return []

    def _ways(self, forms: Sequence[str]) -> Iterator[tuple[Mapping[str, list[Located]], str]]:
        exact, without_case, cores = self._by_name
        for form in forms:
            yield exact, form
            yield without_case, unified(form)
        for form in forms:
            yield cores, unified(form)


def _same_folder(image_folder: tuple[str, ...], mask_folder: tuple[str, ...]) -> bool:
    return image_folder == mask_folder


def _ends_alike(image_folder: tuple[str, ...], mask_folder: tuple[str, ...]) -> bool:
    """Whether one is the other's end; a flat folder is anybody's."""
    shared = min(len(image_folder), len(mask_folder))
    return image_folder[len(image_folder) - shared :] == mask_folder[len(mask_folder) - shared :]


def _forms(name: str) -> Iterator[str]:
    """A mask's name, then with one word or number taken away after or before it, then with two, and so on."""
    yield name
    yielded, forms = {name}, [name]
    for form in forms:
        for pattern in (_WORD_AFTER, _NUMBER_AFTER, _WORD_BEFORE):
            shorter = pattern.sub("", form)
            if shorter not in yielded:
                yielded.add(shorter)
                forms.append(shorter)
                yield shorter


def _without_word(name: str) -> list[str]:
    """Forms of a name from which a word for masks was taken away; empty where it has none."""
    with_word = (form for form in _forms(name) if _WORD_AFTER.search(form) or _WORD_BEFORE.search(form))
    return [
        pattern.sub("", form) for form in with_word for pattern in (_WORD_AFTER, _WORD_BEFORE) if pattern.search(form)
    ]


def _core(name: str) -> str:
    return _IMAGE_WORDS.sub("", name)


def _one_truth(paths: Sequence[Path]) -> bool:
    """Whether masks of one image lie in one folder, in one format, under names that differ in numbers alone."""
    kinds = {
        (path.parent, path.name.lower()[len(stem(path)) :], _NUMBERS.sub("", unified(stem(path)))) for path in paths
    }
    return len(kinds) == 1 and len({unified(stem(path)) for path in paths}) == len(paths)


def _doubt(where: str, what: str) -> Finding:
    return Finding(FAULT, where, f"{what}; it's left out if you allow that", stops=True)
