"""From a file to what a person would see: DICOM, NIfTI and rasters as 8-bit pictures, masks and volumes."""

from medfsad_bench.readers.nifti import axial_mask, axial_picture, display_range, read_volume, read_volume_mask
from medfsad_bench.readers.picture import Intensity, Picture, resize_square
from medfsad_bench.readers.raster import read_mask
from medfsad_bench.readers.slide import polygon_mask, read_patches
from medfsad_bench.readers.sniff import read_picture

__all__ = [
    "Intensity",
    "Picture",
    "axial_mask",
    "axial_picture",
    "display_range",
    "polygon_mask",
    "read_mask",
    "read_patches",
    "read_picture",
    "read_volume",
    "read_volume_mask",
    "resize_square",
]
