"""What a method is trained on: images of other prepared sets on the device, without labels and names."""

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from medfsad_bench.runner.images import stored_images
from medfsad_bench.store import Dataset

_REFERENCE_NORMALS = 12  # per other set, whose scores help to set thresholds


class DeviceSource:
    """Normal training images of one set on the device: uint8 by index, without labels and names.

    Attributes:
        groups: An opaque number per image that its group shares, int64 (n,).
        digest: The prepared file's content digest.
    """

    def __init__(
        self, dataset: Dataset, device: torch.device, *, rows: Int64[np.ndarray, " n"] | None = None, digest: str = ""
    ) -> None:
        rows = dataset.indices("train") if rows is None else rows
        self._images = stored_images(dataset, rows, device)
        groups = np.unique(dataset.group_numbers[rows], return_inverse=True)[1]
        self.groups = torch.from_numpy(groups.astype(np.int64)).to(device)
        self.digest = digest or str(dataset.attributes["content_digest"])

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, indices: Int64[Tensor, " b"], /) -> UInt8[Tensor, "b 3 h w"]:
        return self._images[indices]


class LabelledDeviceSource(DeviceSource):
    """The same with the set's anomalous test images as `anomalies`, for methods that declare them."""

    def __init__(self, dataset: Dataset, device: torch.device) -> None:
        super().__init__(dataset, device)
        digest = f"{self.digest} anomalies"
        self.anomalies = DeviceSource(dataset, device, rows=dataset.anomalous_test, digest=digest)


def reference_rows(dataset: Dataset, shots: int) -> tuple[Int64[np.ndarray, " k"], Int64[np.ndarray, " m"]]:
    """Rows of another set's normals: K supports of its first draw, and the next ones of it, so no group twice."""
    first = next(iter(dataset.episodes), np.zeros(0, np.int64))
    support, normals = np.split(first[: shots + _REFERENCE_NORMALS], [shots])
    return support, normals
