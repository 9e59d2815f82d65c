"""Layouts of brain MRI with voxel masks, in which a slice is an image and its mask is its label.

`medfsad_bench.curation.slices` reads them and applies the manifest's slice rule.
"""

import re
from pathlib import Path

from medfsad_bench.layouts.raw import RawImage

_LGG_NAME = re.compile(r"^(TCGA_\w+_\d{8})_(\d+)$")
_BRATS_MODALITY = "flair"


def brats(root: Path) -> list[RawImage] | None:
    """BraTS 2020 (`.nii`) and 2021 (`.nii.gz`): `<patient>/<patient>_flair.nii.gz` with `<patient>_seg.nii.gz`.

    One raw image of label `volume` stands for a patient here; which slices take part shows once it has been read.
    """
    flairs = sorted(root.glob(f"*/*_{_BRATS_MODALITY}.nii*"))
    if not flairs:
        return None
    images = []
    for flair in flairs:
        patient, mask = flair.name.split(f"_{_BRATS_MODALITY}")[0], _brats_mask(flair)
        label = (
            "volume" if mask is not None else "unlabelled"
        )  # without a segmentation nobody knows which slices are normal
        images.append(RawImage(id=patient, path=flair, label=label, patient=patient, mask=mask))
    return images


def lgg(root: Path) -> list[RawImage] | None:
    """Kaggle mateuszbuda/lgg-mri-segmentation: `kaggle_3m/<patient>/<patient>_<n>.tif` with `_mask.tif`.

    The label is `slice`: whether it is normal shows once its mask has been read.
    """
    base = root / "kaggle_3m" if (root / "kaggle_3m").is_dir() else root
    images = [
        RawImage(
            id=path.stem,
            path=path,
            label="slice",
            patient=path.parent.name,
            mask=path.with_name(f"{path.stem}_mask.tif"),
        )
        for path in sorted(base.glob("TCGA_*/TCGA_*.tif"))
        if _LGG_NAME.match(path.stem)
    ]
    return images or None


def _brats_mask(flair: Path) -> Path | None:
    named = flair.parent.glob(flair.name.split(f"_{_BRATS_MODALITY}")[0] + "_seg.nii*")
    # BraTS 2020 kept one patient's original name: `W39_1998.09.19_Segm.nii`.
    candidates = sorted(named) or sorted(flair.parent.glob("*_Segm.nii*"))
    return candidates[0] if candidates else None
