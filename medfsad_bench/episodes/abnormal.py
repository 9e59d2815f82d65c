"""Abnormal supports, for methods that declare them: a pool of anomalous test images that are no queries.

The pool is one image each of up to 16 groups, never more than a quarter of the target's anomalous groups. It is the
same for every K and draw, and all test images of its groups are left out of the queries, so that queries are the same
for every K and draw, too. Which images these are hangs on the set's name and their ids alone.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int64

from medfsad_bench.errors import MethodError
from medfsad_bench.info import ABNORMAL_SUPPORTS
from medfsad_bench.method import AbnormalShotMethod, Images, Method
from medfsad_bench.store import Dataset

GROUPS = 16


@dataclass(frozen=True)
class AbnormalPool:
    """Rows of a prepared set.

    Attributes:
        rows: The pool, one image a group.
        reserved: All test images of its groups, normal ones included: no queries.
        ids: Of `rows`.
    """

    rows: Int64[np.ndarray, " pool"]
    reserved: Int64[np.ndarray, " m"]
    ids: tuple[str, ...]

    def support(self, draw: int, shots: int) -> Int64[np.ndarray, " k"]:
        """The first `shots` of a draw; draws are nested as those of normal supports are."""
        order = sorted(range(len(self.rows)), key=lambda place: _rank(f"draw {draw}", self.ids[place]))
        return self.rows[order[:shots]]


def abnormal_pool(dataset: Dataset) -> AbnormalPool:
    """The pool of a target."""
    test = dataset.table.iloc[dataset.indices("test")]
    anomalous = test[test["label"] == 1]
    ids = anomalous["id"].astype(str)
    ranked = anomalous.assign(row=anomalous.index, rank=[_rank(dataset.name, one) for one in ids]).sort_values("rank")
    first = ranked.drop_duplicates("group")
    first = first[: min(GROUPS, len(first) // 4)]
    reserved = test.index[test["group"].isin(first["group"])].to_numpy(np.int64)
    return AbnormalPool(first["row"].to_numpy(np.int64), reserved, tuple(first["id"].astype(str)))


def of_draw(
    method: Method, dataset: Dataset, pool: AbnormalPool | None, device: torch.device, *, draw: int, shots: int
) -> Method:
    """The method with the draw's abnormal supports, or as it is where there is no pool, as none was declared.

    Raises:
        MethodError: If there is one and the method doesn't take such supports.
    """
    if pool is None:
        return method
    if not isinstance(method, AbnormalShotMethod):
        raise MethodError(
            f"{type(method).__name__} declares that it knows {ABNORMAL_SUPPORTS}, and takes none. Derive it from "
            "AbnormalShotMethod, or leave them out of its MethodInfo.knowledge."
        )
    pixels = torch.from_numpy(dataset.images(pool.support(draw, shots))).permute(0, 3, 1, 2)
    images: Images = pixels.contiguous().to(device).float() / 255
    return method.bound(images)


def _rank(salt: str, id_: str) -> str:
    return hashlib.sha256(f"medfsad/abnormal:{salt}:{id_}".encode()).hexdigest()
