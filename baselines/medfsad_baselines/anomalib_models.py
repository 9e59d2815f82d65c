"""Models of the library anomalib under this protocol: `anomalib:patchcore`, `anomalib:padim`, … (extra `[anomalib]`).

anomalib's own code fits the model on the K support images and scores the test images; its post-processing, which would
need test images to set a threshold, is off. Models in `ON_CACHED_FEATURES` get their features from the run's cache,
as the native baselines do; others load what anomalib loads.
"""

import importlib.util
import logging
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from medfsad_baselines.parts.patches import FeatureConfig
from medfsad_bench.errors import MethodError, WeightsError, nearest
from medfsad_bench.info import MethodInfo
from medfsad_bench.method import Images, Method, RunContext, Scorer, Scores

_TIMM_NAMES = {f"efficientnet_lite{size}": f"tf_efficientnet_lite{size}" for size in range(3)}


@dataclass(frozen=True)
class PatchcoreConfig(FeatureConfig):
    """PatchCore on features from the run's cache.

    Attributes:
        coreset: Part of the bank that its selection keeps; anomalib's default is 0.1, the native baseline's 1.
    """

    coreset: float = 1.0


@dataclass(frozen=True)
class PadimConfig(FeatureConfig):
    """PaDiM on features from the run's cache.

    Attributes:
        channels: How many anomalib draws at random.
    """

    stages: tuple[int, ...] = (1, 2, 3)
    channels: int = 550


_QUICK: dict[str, dict[str, Any]] = {
    "patchcore": {"backbone": "efficientnet_lite0"},
    "padim": {"backbone": "efficientnet_lite0", "stages": (2, 3), "channels": 100},
}
ON_CACHED_FEATURES: dict[str, type[FeatureConfig]] = {"patchcore": PatchcoreConfig, "padim": PadimConfig}


@dataclass(frozen=True)
class OwnConfig:
    """A model that brings its own network and training.

    Attributes:
        epochs: Passes over the support; one for models that only collect.
        batch_size: Images per step.
    """

    epochs: int = 1
    batch_size: int = 8


class AnomalibModel(Method):
    """One of anomalib's image models, fitted anew to each support."""

    def __init__(self, model: str, config: FeatureConfig | OwnConfig) -> None:
        self.model = model
        self.config = config

    def adapt(self, support: Float[Tensor, "shots 3 h w"], context: RunContext) -> Scorer:
        """Let anomalib fit its model; what it draws from the global generator meanwhile starts from the run's seed."""
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a library's advice on loaders and loggers is of no use to our user
            torch.manual_seed(context.seed)
            module = _module(self.model, self.config, context)
            _fit(module, support, context, self.config)
        module.eval()

        def score(images: Images) -> Scores:
            with torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                results = [module(images[i : i + 1]) for i in range(len(images))]
            maps = [r.anomaly_map.reshape(r.anomaly_map.shape[-2:]) for r in results if r.anomaly_map is not None]
            image = [r.pred_score.reshape(()) for r in results if r.pred_score is not None]
            return Scores(image=torch.stack(image) if image else None, pixel=torch.stack(maps) if maps else None)

        return score


class CachedFeatures(nn.Module):
    """Stands in for anomalib's feature extractor and asks the run's cache."""

    def __init__(self, config: FeatureConfig, layers: Sequence[str], context: RunContext) -> None:
        super().__init__()
        self.backbone, self.layers, self.context = config.features, layers, context

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Feature maps by anomalib's layer names."""
        return dict(zip(self.layers, self.context.features(self.backbone, images), strict=True))


def _module(model: str, config: FeatureConfig | OwnConfig, context: RunContext) -> Any:
    from anomalib import LearningType
    from anomalib.models import get_model

    quiet = {"evaluator": False, "visualizer": False, "post_processor": False}
    if isinstance(config, OwnConfig):
        try:
            module = get_model(model, **quiet)
        except ImportError as error:
            raise MethodError(f"anomalib's {model} needs more of anomalib than is installed: {error}.") from error
        except OSError as error:
            reason = f"{type(error).__name__}: {str(error).splitlines()[0]}"
            raise WeightsError(
                f"anomalib's {model} can't load its own weights ({reason}). Expected them in the hub's cache, filled "
                "on a machine with network access; anomalib:patchcore and anomalib:padim take ours, with --backbone "
                "efficientnet_lite0."
            ) from error
        if module.learning_type is not LearningType.ONE_CLASS:
            raise MethodError(
                f"anomalib's {model} takes its references from anomalib's own data module, so it can't be given a "
                "support here. Expected a model that learns from normal images, as anomalib:stfpm."
            )
        return module
    network = _TIMM_NAMES.get(config.backbone, config.backbone)
    import timm

    bare: Any = timm.create_model(network, pretrained=False, features_only=True)
    layers = [bare.feature_info.module_name()[stage] for stage in config.stages]
    own: dict[str, Any] = {}
    if isinstance(config, PatchcoreConfig):
        own = {"coreset_sampling_ratio": config.coreset}
    elif isinstance(config, PadimConfig):
        own = {"n_features": config.channels}
    module = get_model(model, backbone=network, layers=layers, pre_trained=False, pre_processor=False, **own, **quiet)
    module.model.feature_extractor = CachedFeatures(config, layers, context)
    if own.get("coreset_sampling_ratio") == 1:
        module.model.subsample_embedding = lambda _: _keep_all(module.model)  # it would choose all, one by one
    return module


def _keep_all(model: Any) -> None:
    model.memory_bank = torch.vstack(model.embedding_store)
    model.embedding_store.clear()


def _fit(module: Any, support: Images, context: RunContext, config: FeatureConfig | OwnConfig) -> None:
    from anomalib.data import ImageBatch
    from lightning.pytorch import Trainer

    for name in ("lightning.pytorch", "lightning.pytorch.utilities.rank_zero", "anomalib"):
        logging.getLogger(name).setLevel(logging.ERROR)

    def collated(batch: list[Tensor]) -> Any:
        return ImageBatch(image=torch.stack(batch), gt_label=torch.zeros(len(batch), dtype=torch.bool))

    images = sorted(support.cpu(), key=lambda image: image.numpy().tobytes())  # the support's order must not matter
    own = config if isinstance(config, OwnConfig) else OwnConfig()
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            default_root_dir=folder,
            max_epochs=own.epochs,
            accelerator="gpu" if context.device.type == "cuda" else "cpu",
            devices=1,
            logger=False,
            enable_progress_bar=False,
            enable_checkpointing=False,
            enable_model_summary=False,
        )
        loader: Any = torch.utils.data.DataLoader(images, own.batch_size, collate_fn=collated)  # type: ignore[arg-type]
        trainer.fit(module, loader)
    module.to(context.device)


def member(model: str) -> MethodInfo:
    """The record of `anomalib:<model>`.

    Raises:
        MethodError: If anomalib isn't installed or has no such model.
    """
    if importlib.util.find_spec("anomalib") is None:
        raise MethodError(
            f"'anomalib:{model}' runs a model of the library anomalib, which isn't installed. Expected the extra: "
            "pip install 'medfsad[anomalib]'."
        )
    from anomalib.models import list_models

    names = {name.replace("_", ""): name for name in list_models()}  # it has names such as `anomaly_d_i_n_o`
    if model.replace("_", "") not in names:
        raise MethodError(
            f"anomalib has no model {model!r}.{nearest(model, names)} There are {', '.join(sorted(names))}."
        )
    internal = names[model.replace("_", "")]
    return replace(
        INFO,
        name=f"anomalib:{model}",
        version=f"1.0.0+anomalib.{version('anomalib')}",
        config=ON_CACHED_FEATURES.get(model, OwnConfig),
        build=lambda config: AnomalibModel(internal, config),
        summary=f"anomalib's {model}",
        paper="",
        presets={"quick": _QUICK[model]} if model in _QUICK else {},
        member=None,
    )


def _family(config: OwnConfig) -> Method:
    raise MethodError(f"anomalib is a family of methods; name one, as in anomalib:padim ({config}).")


INFO = MethodInfo(
    name="anomalib",
    version="1.0.0",
    config=OwnConfig,
    build=_family,
    summary="A model of the library anomalib on our episodes, as in anomalib:padim",
    paper="Akcay et al., ICIP 2022",
    licence="Apache-2.0",
    has_seen=("imagenet-1k",),
    member=member,
)
