"""What the runner lends to a method: device, seed, cached features, and ears for its progress."""

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

from medfsad_bench.method import Backbone, Images, ImageSource
from medfsad_bench.runner.features import FeatureCache


class LocalContext:
    """A `RunContext` in this process.

    Attributes:
        device: Where tensors live.
        seed: The run's seed.
        cache: Of features; may be shared with other contexts.
        on_epoch: Called at the end of every epoch of `pretrain`.
        on_progress: Called with steps done, steps in all, and named figures such as the loss.
    """

    def __init__(self, device: torch.device | None = None, seed: int = 0, cache: FeatureCache | None = None) -> None:
        self.device = device or torch.device("cpu")
        self.seed = seed
        self.cache = cache or FeatureCache(self.device)
        self.on_epoch: Callable[[int], None] | None = None
        self.on_progress: Callable[[int, int, dict[str, float]], None] | None = None

    def features(self, backbone: Backbone, images: Images) -> tuple[Float[Tensor, "n c fh fw"], ...]:
        """Feature maps of a frozen backbone, cached by the pixels' digest."""
        return self.cache.features(backbone, images)

    def source_features(
        self, backbone: Backbone, source: ImageSource, indices: Int64[Tensor, " b"], stages: Sequence[int] | None = None
    ) -> tuple[Float[Tensor, "b c fh fw"], ...]:
        """Feature maps of a source's images, computed once a source."""
        return self.cache.source_features(backbone, source, indices, stages, on_done=self.progress)

    def cached(
        self, key: Hashable, images: Images, compute: Callable[[Images], Sequence[Tensor]]
    ) -> tuple[Tensor, ...]:
        """What `compute` makes of each image, kept by `key` and the pixels' digest."""
        return self.cache.cached(key, images, compute)

    def paired(
        self, key: Hashable, images: Images, others: Float[Tensor, "k 3 h w"], compute: Callable[[Images], Tensor]
    ) -> Shaped[Tensor, "n k *shape"]:
        """What `compute` makes of each image and each of some others, kept by `key` and both digests."""
        return self.cache.paired(key, images, others, compute)

    def epoch_end(self, epoch: int) -> None:
        """Epoch `epoch` of `pretrain` is over."""
        if self.on_epoch:
            self.on_epoch(epoch)

    def progress(self, done: int, total: int, **figures: float) -> None:
        """Some steps of the present stage are done."""
        if self.on_progress:
            self.on_progress(done, total, figures)


@contextmanager
def denormals_flushed() -> Iterator[None]:
    """Numbers too small for a normal float count as 0 meanwhile: a trained student's slow a CPU down many times.

    Only where networks compute: the figures of a run have to be those of a process that never knew a network.
    """
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
