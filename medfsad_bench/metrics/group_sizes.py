"""What groups of unequal size can tell of a mean over images.

The mean is Σ hᵍ eᵍ, where hᵍ is the share of the images that group g holds and eᵍ their own mean. The images of a
group are taken to tell the same, so that every eᵍ varies alike: the case in which a large group does most harm. Then
the mean varies as Σ hᵍ², as if there were (Σ n)² / Σ n² groups of one size. The sum of squares over groups,
Σ hᵍ² (eᵍ - ē)², falls short of that, since a large group draws the mean ē towards itself; and it is as unsteady as a
χ² variable of fewer degrees of freedom than there are groups. Both follow from the shares alone. For m groups of one
size they are what every textbook has: a factor of (m - 1) / m, and m - 1 degrees of freedom.

Source: the effective number is Kish's (Survey Sampling, 1965); bias and degrees of freedom are Bell and McCaffrey's
(Survey Methodology 28, 2002), of a mean whose clusters are perfectly correlated, which Carter, Schnepel and Steigerwald
(Review of Economics and Statistics 99, 2017) take as the worst case.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Real


@dataclass(frozen=True, slots=True)
class GroupSizes:
    """The groups of one class of images.

    Attributes:
        shares: Share of the class's images that each group holds, of any order; a group without one holds 0.
    """

    shares: Float64[np.ndarray, " groups"]

    @classmethod
    def of(cls, images: Real[np.ndarray, " groups"]) -> "GroupSizes":
        """From the number of images of each group, which isn't 0 for all."""
        return cls(np.asarray(images / images.sum(), dtype=np.float64))

    @property
    def variance(self) -> float:
        """Of the mean over images, in units of a group's own: Σ h², one over the effective number of groups.

        >>> 1 / GroupSizes.of(np.array([4, 1, 1])).variance
        2.0
        """
        return float((self.shares**2).sum())

    @property
    def count(self) -> int:
        """Groups that hold an image of the class."""
        return int((self.shares > 0).sum())

    @property
    def correction(self) -> float:
        """What the sum of squares over groups has to be multiplied by so that its expectation is `variance`.

        >>> GroupSizes.of(np.array([3, 3, 3, 3])).correction  # 4 / 3
        1.3333333333333333
        """
        square, cube = self.variance, float((self.shares**3).sum())
        return square / (square - 2 * cube + square**2)

    @property
    def left_out(self) -> float:
        """Expected sum of squares of what the mean moves by as each group is left out, in units of a group's own.

        >>> GroupSizes.of(np.array([3, 3, 3, 3])).left_out  # the jackknife's 4 / 3 of `variance`
        0.3333333333333333
        """
        h = self.shares
        return float(((h / (1 - h)) ** 2 * (1 - 2 * h + self.variance)).sum())

    @property
    def unsteadiness(self) -> float:
        """Variance of the corrected sum of squares, halved: of a multiple of χ² it is `variance`² over its freedom."""
        h = self.shares
        k2, k3, k4, k5 = (float((h**power).sum()) for power in (2, 3, 4, 5))
        traced = k4 - 4 * k5 + 4 * k2 * k4 + 2 * k3**2 - 4 * k2**2 * k3 + k2**4  # tr (B'B)², B = diag(h) - h h'
        return self.correction**2 * traced


def freedom_of(classes: Sequence[GroupSizes]) -> float:
    """Degrees of freedom of a variance to which each class adds its corrected sum of squares; 1 at least.

    One fewer than the groups at most: what a group adds to two classes may be one effect.

    Args:
        classes: Of the same groups in the same order.

    >>> only_first, only_second = np.repeat([1, 0], 15), np.repeat([0, 1], 15)
    >>> round(freedom_of([GroupSizes.of(only_first), GroupSizes.of(only_second)]), 6)
    28.0
    """
    variance = sum(sizes.variance for sizes in classes)
    groups = int(np.any([sizes.shares > 0 for sizes in classes], axis=0).sum())
    return max(min(variance**2 / sum(sizes.unsteadiness for sizes in classes), groups - 1), 1.0)
