"""The anomaly map of a NIfTI volume, on the volume's own grid: a viewer lays it over the image."""

import gzip
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from medfsad_bench.files import whole
from medfsad_bench.own_images.pictures import MapScale, resized_map


class VolumeMap:
    """A map that is filled slice by slice; slices that weren't scored are 0."""

    def __init__(self, path: Path) -> None:
        """Take the grid of a NIfTI file."""
        import nibabel as nib

        loaded: Any = nib.load(path)
        self._loaded = loaded
        self._turn = nib.orientations.io_orientation(loaded.affine)
        shape = [0, 0, 0]
        for stored, axis in enumerate(self._turn[:, 0].astype(int)):
            shape[axis] = loaded.shape[stored]
        self._values = np.zeros(shape, np.float32)  # to the right, anterior, superior

    def fill(self, index: int, anomaly_map: Float32[np.ndarray, "s s"]) -> None:
        """Put the map of an axial slice into its place: `readers.axial_picture` turned it upright."""
        columns, rows, _ = self._values.shape
        upright = resized_map(anomaly_map, rows, columns)
        self._values[:, :, index] = upright[::-1, ::-1].T

    def save(self, path: Path, scale: MapScale) -> None:
        """Write it whole or not at all, with the image's grid, affine and units."""
        import nibabel as nib

        back = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), self._turn)
        values = nib.orientations.apply_orientation(self._values, back)
        image = nib.Nifti1Image(values, self._loaded.affine)
        header: Any = self._loaded.header
        image.header.set_xyzt_units(*header.get_xyzt_units())
        image.set_sform(self._loaded.affine, code=int(header["sform_code"]) or 1)
        image.set_qform(self._loaded.affine, code=int(header["qform_code"]))
        image.header["cal_min"], image.header["cal_max"] = scale.low, 2 * scale.high - scale.low
        image.header["descrip"] = b"anomaly map, derived, research use"
        with whole(path) as temporary:
            temporary.write_bytes(gzip.compress(image.to_bytes(), 6, mtime=0))
