"""From a file to what a person would see: DICOM, NIfTI and rasters as 8-bit pictures, masks and volumes."""

from medfsad_bench.readers.mask import Mask, read_mask, read_masks
from medfsad_bench.readers.nifti import axial_mask, axial_picture, display_range, read_volume
from medfsad_bench.readers.nifti_mask import VolumeMask, read_volume_mask, read_volume_masks
from medfsad_bench.readers.picture import Intensity, Picture, range_in_use, resize_square, turned
from medfsad_bench.readers.slide import polygon_mask, read_patches
from medfsad_bench.readers.sniff import extremes, frame_count, is_dicom, read_picture

__all__ = [
    "Intensity",
    "Mask",
    "Picture",
    "VolumeMask",
    "axial_mask",
    "axial_picture",
    "display_range",
    "extremes",
    "frame_count",
    "is_dicom",
    "polygon_mask",
    "range_in_use",
    "read_mask",
    "read_masks",
    "read_patches",
    "read_picture",
    "read_volume",
    "read_volume_mask",
    "read_volume_masks",
    "resize_square",
    "turned",
]
