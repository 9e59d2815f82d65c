"""Metrics that can be trusted: exact rank statistics of scores and maps, their intervals and comparisons.

Functions take NumPy arrays of any real type, scores or maps first, labels or masks second, and return a float. A
missing class is a `MetricError`, never 0. `README.md` in this folder says which metric answers which question.

>>> import numpy as np
>>> import medfsad_bench as medfsad
>>> scores, anomalous = np.array([10, 40, 35, 80], np.uint8), np.array([0, 0, 1, 1])
>>> medfsad.metrics.auroc_score(scores, anomalous)
0.75
>>> medfsad.metrics.average_precision_score(scores.astype(np.float16), anomalous)
0.8333333333333333
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medfsad_bench.metrics.aupimo import aupimo_score as aupimo_score
    from medfsad_bench.metrics.image import auroc_score as auroc_score
    from medfsad_bench.metrics.image import average_precision_score as average_precision_score
    from medfsad_bench.metrics.image import balanced_accuracy_max_score as balanced_accuracy_max_score
    from medfsad_bench.metrics.image import f1_max_score as f1_max_score
    from medfsad_bench.metrics.image import fpr_at_tpr_error as fpr_at_tpr_error
    from medfsad_bench.metrics.image import sensitivity_at_specificity_score as sensitivity_at_specificity_score
    from medfsad_bench.metrics.lesion import froc_score as froc_score
    from medfsad_bench.metrics.lesion import lesion_sensitivity_score as lesion_sensitivity_score
    from medfsad_bench.metrics.lesion import pointing_game_score as pointing_game_score
    from medfsad_bench.metrics.pixel import aupro_score as aupro_score
    from medfsad_bench.metrics.pixel import dice_max_score as dice_max_score
    from medfsad_bench.metrics.pixel import pixel_auroc_score as pixel_auroc_score
    from medfsad_bench.metrics.pixel import pixel_average_precision_score as pixel_average_precision_score

_HOMES = {
    "aupimo_score": "aupimo",
    "aupro_score": "pixel",
    "auroc_score": "image",
    "average_precision_score": "image",
    "balanced_accuracy_max_score": "image",
    "dice_max_score": "pixel",
    "f1_max_score": "image",
    "fpr_at_tpr_error": "image",
    "froc_score": "lesion",
    "lesion_sensitivity_score": "lesion",
    "pixel_auroc_score": "pixel",
    "pixel_average_precision_score": "pixel",
    "pointing_game_score": "lesion",
    "sensitivity_at_specificity_score": "image",
}
__all__ = [
    "aupimo_score",
    "aupro_score",
    "auroc_score",
    "average_precision_score",
    "balanced_accuracy_max_score",
    "dice_max_score",
    "f1_max_score",
    "fpr_at_tpr_error",
    "froc_score",
    "lesion_sensitivity_score",
    "pixel_auroc_score",
    "pixel_average_precision_score",
    "pointing_game_score",
    "sensitivity_at_specificity_score",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; there are {', '.join(__all__)}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
