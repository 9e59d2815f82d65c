"""Layouts of brain MRI with voxel masks, in which a slice is an image and its mask is its label.

`medfsad_bench.curation.slices` reads them and applies the manifest's slice rule.
"""

import re
from pathlib import Path

from medfsad_bench.layouts.finding import Content, Finding
from medfsad_bench.layouts.raw import RawImage

_LGG_NAME = re.compile(r"^(TCGA_\w+_\d{8})_(\d+)$")


def brats(root: Path) -> Content | None:
    """BraTS 2020 (`.nii`) and 2021 (`.nii.gz`): `<patient>/<patient>_flair.nii.gz` with `<patient>_seg.nii.gz`.

    One raw image of label `volume` stands for a patient here; which slices take part shows once it has been read.
    """
    images, findings = [], []
    for flair in sorted(root.glob("*/*_flair.nii*")):
        patient = flair.name.split("_flair")[0]
        # BraTS 2020 kept one patient's original name: `W39_1998.09.19_Segm.nii`.
        masks = sorted(flair.parent.glob(f"{patient}_seg.nii*")) or sorted(flair.parent.glob("*_Segm.nii*"))
        if len(masks) > 1:
            what = (
                f"{len(masks)} segmentations ({masks[0].name}, {masks[1].name}); the first is taken. Keep the one meant"
            )
            findings.append(Finding("two-files", patient, what, stops=True))
        label = "volume" if masks else "unlabelled"  # without a mask nobody knows which slices are normal
        images.append(RawImage(patient, flair, label, patient, masks=tuple(masks[:1])))
    return Content(images, tuple(findings)) if images else None


def lgg(root: Path) -> Content | None:
    """Kaggle mateuszbuda/lgg-mri-segmentation: `kaggle_3m/<patient>/<patient>_<n>.tif` with `_mask.tif`.

    The label is `slice`: whether it is normal shows once its mask has been read.
    """
    base = root / "kaggle_3m" if (root / "kaggle_3m").is_dir() else root
    images = [
        RawImage(path.stem, path, "slice", patient=path.parent.name, masks=(path.with_name(f"{path.stem}_mask.tif"),))
        for path in sorted(base.glob("TCGA_*/TCGA_*.tif"))
        if _LGG_NAME.match(path.stem)
    ]
    return Content(images) if images else None
