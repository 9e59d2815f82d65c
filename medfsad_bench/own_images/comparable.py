"""Whether an image shows the kind of thing that the supports show: another modality is no disease.

A picture's features are those of a small frozen network, pooled: they tell what kind of picture it is and hardly what
is wrong in it. Measured with four supports on five real sets (brain MRI, chest X-ray of children and of adults,
histology, fundus): diseased images of the same set lie at most 3.3 times as far from the nearest support as supports
lie from each other (99th percentile), images of other modalities 2 to 13 times (medians). So most images of another
kind are named, and not all: where supports differ much among themselves, little can be said.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float32

from medfsad_bench.method import Backbone
from medfsad_bench.own_images.reading import Pixels
from medfsad_bench.runner.context import LocalContext

FARTHEST = 3.5  # times the largest distance of a support to its nearest other one
_NETWORK = Backbone("efficientnet_lite0", stages=(1, 2, 3), size_px=128)


class Likeness:
    """What the supports look like."""

    def __init__(self, support: Pixels, context: LocalContext) -> None:
        """Look at K supports."""
        self._context = context
        self._features = self._pooled(support)
        between = 1 - self._features @ self._features.T
        np.fill_diagonal(between, np.inf)
        self._reach = float(between.min(1).max()) if len(support) > 1 else np.inf
        self._grey = not any(_coloured(support))

    def reasons(self, pixels: Pixels) -> list[str]:
        """Why each image can't be compared with the supports; empty if it can."""
        reasons = []
        distances = (1 - self._pooled(pixels) @ self._features.T).min(1)
        for distance, coloured in zip(distances, _coloured(pixels), strict=True):
            times = distance / max(self._reach, 1e-6)
            if coloured and self._grey:
                reasons.append("in colour, and all supports are grey")
            elif times > FARTHEST:
                reasons.append(f"looks unlike all supports: {times:.1f} times as far from them as they from each other")
            else:
                reasons.append("")
        return reasons

    def nearest(self, pixels: Pixels) -> list[int]:
        """Position of the support that looks most like each image."""
        return [int(position) for position in (self._pooled(pixels) @ self._features.T).argmax(1)]

    def _pooled(self, pixels: Pixels) -> Float32[np.ndarray, "n c"]:
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(self._context.device).float() / 255
        stages = self._context.features(_NETWORK, images)
        parts = [torch.cat([stage.mean((2, 3)), stage.std((2, 3))], 1) for stage in stages]
        joined = torch.cat([torch.nn.functional.normalize(part, dim=1) for part in parts], 1)
        return (joined / len(parts) ** 0.5).cpu().numpy()


def _coloured(pixels: Pixels) -> Sequence[bool]:
    """Whether channels differ by more than a camera's or JPEG's noise does on average."""
    spread = pixels.max(axis=3).astype(np.int16) - pixels.min(axis=3)
    return [bool(value) for value in spread.mean(axis=(1, 2)) > _GREY]


_GREY = 3.0  # of 255
