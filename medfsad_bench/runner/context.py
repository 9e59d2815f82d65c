"""What the runner lends to a method: device, seed, cached features, and ears for its progress."""

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

from medfsad_bench.method import Backbone, Images, ImageSource
from medfsad_bench.runner.digests import chosen
from medfsad_bench.runner.features import FeatureCache

_LONE = 2  # rows of a pass for one image: itself and a copy, which compute as a batch does


class LocalContext:
    """A `RunContext` in this process.

    Attributes:
        device: Where tensors live.
        seed: The run's seed.
        cache: Of features; may be shared with other contexts.
        values: Of what the method computes by `cached` and `paired`; the same one unless the context stands apart.
        one_by_one: Whether each of these values is computed without any other image's company.
        on_epoch: Called at the end of every epoch of `pretrain`.
        on_progress: Called with steps done, steps in all, and named figures such as the loss.
    """

    def __init__(self, device: torch.device | None = None, seed: int = 0, cache: FeatureCache | None = None) -> None:
        self.device = device or torch.device("cpu")
        self.seed = seed
        self.cache = cache or FeatureCache(self.device)
        self.values = self.cache
        self.one_by_one = False
        self._backbones: set[Backbone] = set()  # that were asked for
        self.figures: dict[str, float] = {}  # that were shown last
        self.on_epoch: Callable[[int], None] | None = None
        self.on_progress: Callable[[int, int, dict[str, float]], None] | None = None

    def apart(self, *, one_by_one: bool = False) -> "LocalContext":
        """A context that knows nothing of what the method has computed so far; frozen networks' features are shared.

        Args:
            one_by_one: Whether `cached` and `paired` compute each value by itself.
        """
        context = LocalContext(self.device, self.seed, self.cache)
        context.one_by_one = one_by_one
        context.forget()
        return context

    def forget(self) -> None:
        """Begin with none of the method's values again, for the scorers that this context was lent to as well."""
        self.values = FeatureCache(self.device)

    def pass_ahead(self, images: Images) -> None:
        """Show images to the frozen networks that were asked for so far: together, before they are scored apart."""
        for backbone in tuple(self._backbones):
            self.features(backbone, images)

    def features(self, backbone: Backbone, images: Images) -> tuple[Float[Tensor, "n c fh fw"], ...]:
        """Feature maps of a frozen backbone, cached by the pixels' digest."""
        self._backbones.add(backbone)
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
        parts, chunk = (_singly(images), _LONE) if self.one_by_one else ([images], None)
        values = [self.values.cached(_of_method(key), part, compute, chunk=chunk) for part in parts]
        return values[0] if len(values) == 1 else tuple(map(torch.cat, zip(*values, strict=True)))

    def paired(
        self, key: Hashable, images: Images, others: Float[Tensor, "k 3 h w"], compute: Callable[[Images], Tensor]
    ) -> Shaped[Tensor, "n k *shape"]:
        """What `compute` makes of each image and each of some others, kept by `key` and both digests."""
        parts = _singly(others) if self.one_by_one else [others]
        return torch.cat([self.values.paired(_of_method(key), images, part, compute) for part in parts], dim=1)

    def epoch_end(self, epoch: int) -> None:
        """Epoch `epoch` of `pretrain` is over."""
        if self.on_epoch:
            self.on_epoch(epoch)

    def progress(self, done: int, total: int, **figures: float) -> None:
        """Some steps of the present stage are done."""
        self.figures = figures
        if self.on_progress:
            self.on_progress(done, total, figures)


def _singly(images: Images) -> list[Float[Tensor, "1 3 h w"]]:
    return [chosen(images, [position]) for position in range(len(images))]


def _of_method(key: Hashable) -> Hashable:
    """A method's own key; no method's value may pass for a frozen network's features, which are kept by their own."""
    return "of the method", key


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
