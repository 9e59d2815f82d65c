"""An anomaly map as a DICOM parametric map: one frame of floating-point values, pixel on pixel over its source.

Source: DICOM PS3.3 A.75 (parametric map), C.7.6.16.2.11 (real world values).
"""

from typing import Any

import numpy as np
from jaxtyping import Float32
from pydicom import Dataset
from pydicom.uid import SecondaryCaptureImageStorage

from medfsad_bench import __version__
from medfsad_bench.errors import DownloadError
from medfsad_bench.own_images.pictures import MapScale

_PLACE = ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence")
_NEEDED = ("FrameOfReferenceUID", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness")


def parametric_map(
    source: Dataset,
    values: Float32[np.ndarray, "h w"],
    scale: MapScale,
    identity: dict[str, Any],
    *,
    frame: int | None,
) -> Dataset:
    """Make it; the header of the source is used up.

    Args:
        source: Its header.
        values: Of the map, at the source's size; NaN where there are none, as padding.
        scale: Its range of colours becomes the window that a viewer begins with.
        identity: UIDs and numbers of the new object.
        frame: Of the source, from 0; None where it has but one.

    Raises:
        DownloadError: If the header doesn't say where the image lies.
        Exception: Whatever else highdicom finds wrong with the header.
    """
    import highdicom
    from pydicom.sr.codedict import codes

    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    padding = np.float32(low - max(high - low, 1.0))
    sop_class = source.SOPClassUID
    _as_plane(source, frame or 0)
    made: Any = highdicom.pm.ParametricMap(
        [source],
        np.where(np.isnan(values), padding, values),
        manufacturer="MedFSAD",
        manufacturer_model_name="medfsad",
        software_versions=__version__,
        device_serial_number="none",
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[
            highdicom.pm.RealWorldValueMapping(
                lut_label="ANOMALY",
                lut_explanation="Higher is more anomalous; the method's own scale",
                unit=codes.UCUM.NoUnits,
                value_range=(low, high),
            )
        ],
        voi_lut_transformations=[
            highdicom.VOILUTTransformation(
                window_center=scale.high, window_width=2 * (scale.high - scale.low), voi_lut_function="LINEAR_EXACT"
            )
        ],
        content_label="ANOMALY_MAP",
        content_description="Few-shot anomaly map; derived, research use",
        **identity,
    )
    if np.isnan(values).any():
        made.FloatPixelPaddingValue = float(padding)
    if not source.get("SpacingBetweenSlices"):  # highdicom takes it for 1 mm
        del made.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SpacingBetweenSlices
    of_frame = made.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0].SourceImageSequence[0]
    if frame is not None:
        of_frame.ReferencedFrameNumber = frame + 1
    for reference in (of_frame, made.ReferencedSeriesSequence[0].ReferencedInstanceSequence[0]):
        reference.ReferencedSOPClassUID = sop_class
    return made


def _as_plane(source: Dataset, frame: int) -> None:
    """Make of a header that of a single plane, whatever the kind of its image: highdicom takes such a one.

    Raises:
        DownloadError: If it doesn't say where the plane lies, as a radiograph's or a photograph's doesn't.
    """
    shared, by_frame = (source.get(f"{part}FunctionalGroupsSequence") for part in ("Shared", "PerFrame"))
    groups = [*(shared or []), *(by_frame[frame : frame + 1] if by_frame else [])]
    for item in [item for group in groups for name in _PLACE for item in group.get(name, [])]:
        source.update(item)
    if missing := [name for name in _NEEDED if not source.get(name)]:
        raise DownloadError(
            f"a parametric map lies in the patient's space, and the header has no {', '.join(missing)}; the map is "
            "there as PNG, and --dicom-map capture asks less of the header"
        )
    source.SOPClassUID = SecondaryCaptureImageStorage
