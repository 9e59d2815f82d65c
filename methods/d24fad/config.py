"""All that can be chosen; the defaults are the paper's values, or the reference implementation's where it is silent."""

from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Config:
    """Configuration of D²4FAD.

    Attributes:
        backbone: Frozen teacher with four stages.
        weights: Local file with its weights, in place of the hub.
        size_px: Edge of the images that the teacher sees.
        normalise: Whether to scale images as the teacher was trained with; the reference leaves them in [0, 1].
        batch_size: Queries per training step.
        epochs: Passes over the normal images of all sources; 0 leaves the student untrained (a control).
        steps: If set, training stops after so many steps, whatever the epochs.
        learning_rate: Of Adam, without a schedule.
        beta1: Of Adam.
        beta2: Of Adam.
        distillation_weight: λ, of the teacher–student loss beside the self-distillation.
        train_shots: Supports per query in training; None takes the evaluation's K.
        shots: The evaluation's K; set by the runner.
        supports: `fixed`: drawn once, as in the reference; `redrawn` every epoch.
        shared_support: Whether the queries of a batch, then of one source, share one support set, drawn anew for every
            batch: B + K student passes per step in place of B · (1 + K). A deviation from the paper, for speed.
        own_group: Whether a query's support may come from its own patient (an ablation: it shouldn't).
        self_distillation: Whether the student is distilled on the support (L_SSD).
        distillation: Whether it is distilled from the teacher (L_TSD).
        weighting: `learned`, `uniform`, or `nearest`: only the support most alike.
        compared: Whose features of query and support are compared: the `student`'s; or the `teacher`'s own, which
            leaves the student out (a control for what it adds; with weighting uniform or nearest, and epochs=0).
        residual: Whether the teacher–student residual is added to the map (the reference leaves it out).
        depths: Residual blocks of the student's three stages.
        half_features: Whether the teacher's features are kept as float16, in half the memory.
        precision: Of the student's arithmetic: `float32`, `tf32` (CUDA only) or `bfloat16` (autocast).
        channels_last: Whether the student's maps lie in memory channel by channel at each position.
        compile: torch.compile's mode for the student's training, `reduce-overhead` with CUDA graphs; or `no`.
    """

    backbone: str = "wide_resnet50_2.tv_in1k"
    weights: str | None = None
    size_px: int = 128
    normalise: bool = False
    batch_size: int = 16
    epochs: int = 70
    steps: int | None = None
    learning_rate: float = 1e-4
    beta1: float = 0.5
    beta2: float = 0.999
    distillation_weight: float = 0.1
    train_shots: int | None = None
    shots: int = 4
    supports: Literal["fixed", "redrawn"] = "fixed"
    shared_support: bool = False
    own_group: bool = False
    self_distillation: bool = True
    distillation: bool = True
    weighting: Literal["learned", "uniform", "nearest"] = "learned"
    compared: Literal["student", "teacher"] = "student"
    residual: bool = False
    depths: tuple[int, int, int] = (3, 4, 6)
    half_features: bool = False
    precision: Literal["float32", "tf32", "bfloat16"] = "float32"
    channels_last: bool = False
    compile: Literal["no", "default", "reduce-overhead"] = "no"

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.shots < 1 or (self.train_shots is not None and self.train_shots < 1):
            raise ValueError("batch_size, shots and train_shots have to be at least 1")
        if self.epochs < 0 or (self.steps is not None and self.steps < 0):
            raise ValueError("epochs and steps can't be negative")
        if self.shared_support and self.supports != "fixed":
            raise ValueError("shared_support draws every batch's support anew; supports=redrawn adds nothing to it")
        if self.compared == "teacher" and (self.weighting == "learned" or self.epochs > 0):
            raise ValueError(
                "compared=teacher needs no training and has no learned weights: set epochs=0 and weighting"
            )
        if not self.self_distillation and not self.distillation:
            raise ValueError("without both losses there is nothing to train; use epochs=0 for an untrained student")

    @property
    def training_shots(self) -> int:
        """Supports per query in training."""
        return self.train_shots or self.shots

    def training(self) -> dict[str, Any]:
        """What determines the trained weights: the evaluation's K only where training follows it."""
        values = vars(self) | {"train_shots": self.training_shots}
        return {k: v for k, v in values.items() if k not in ("shots", "residual", "compared")}


LAPTOP: dict[str, Any] = {"backbone": "efficientnet_lite0"}
QUICK: dict[str, Any] = {
    "backbone": "efficientnet_lite0",
    "normalise": True,
    "batch_size": 8,
    "steps": 600,
    "train_shots": 4,
}
