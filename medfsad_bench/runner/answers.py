"""What a method gives back, looked at before anything is made of it: an author's slip is told in one paragraph."""

import sys
import traceback
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from medfsad_bench.errors import MedfsadError, MethodError
from medfsad_bench.method import Images, Method, RunContext, Scorer, Scores

Answer = TypeVar("Answer")
_EXPECTED = {  # dimensions of each part of Scores, and what it holds
    "image": (1, "one number per image"),
    "pixel": (3, "one map per image"),
    "support": (2, "one row of weights per image"),
}


def scorer_of(method: Method, support: Float[Tensor, "shots 3 h w"], context: RunContext) -> Scorer:
    """The scorer that a method returns for a support.

    Raises:
        MethodError: If it returns something else.
    """
    scorer = method.adapt(support, context)
    if not callable(scorer):
        raise MethodError(
            f"adapt returned {_described(scorer)}. Expected a function from images to Scores: define it inside adapt, "
            "and end with `return` and its name."
        )
    return scorer


def scores_of(scorer: Scorer, images: Images) -> Scores:
    """The scores that a scorer gives for some images.

    Args:
        scorer: As `adapt` returned it.
        images: Float (n, 3, h, w) on the run's device.

    Raises:
        MethodError: If it returns no `Scores`, or empty ones, or they aren't one finite number, or map, per image: a
            floating-point tensor on the images' device, without gradient.
    """
    scores = scorer(images)
    if not isinstance(scores, Scores):
        raise MethodError(
            f"The scorer returned {_described(scores)}. Expected Scores: return Scores(image=…) with one number per "
            "image, Scores(pixel=…) with one anomaly map per image, or both in one."
        )
    if scores.image is None and scores.pixel is None:
        raise MethodError(
            "The scorer returned Scores with neither image scores nor anomaly maps. Expected Scores(image=…), "
            "Scores(pixel=…), or both in one."
        )
    for name, (dimensions, content) in _EXPECTED.items():
        values = getattr(scores, name)
        if values is None:
            continue
        if not isinstance(values, Tensor):
            raise MethodError(
                f"Scores({name}=…) is {_described(values)}. Expected a torch tensor on the run's device, as "
                "torch.from_numpy(…).to(context.device) makes of an array."
            )
        if values.requires_grad:
            raise MethodError(
                f"Scores({name}=…) requires a gradient, which scoring doesn't need and which keeps every batch in "
                "memory. Compute scores under `with torch.no_grad():`, or return them after `.detach()`."
            )
        if values.ndim != dimensions or len(values) != len(images):
            raise MethodError(
                f"Scores({name}=…) has the shape {tuple(values.shape)} for {len(images)} images. Expected {content}: "
                f"{dimensions} dimension(s), the first of {len(images)}; see where the images' axis is summed away."
            )
        if values.device.type != images.device.type:
            raise MethodError(
                f"Scores({name}=…) is on {values.device}, the images are on {images.device}. Expected scores where the "
                "images are: make new tensors with device=context.device."
            )
        if not values.is_floating_point():
            raise MethodError(
                f"Scores({name}=…) is of {values.dtype}. Expected floating point: return it after `.float()`."
            )
        if not bool(torch.isfinite(values).all()):
            raise MethodError(
                f"Scores({name}=…) holds a value that isn't finite. Look for a division by zero or an overflow."
            )
    return scores


def told(stage: str, method: Method, call: Callable[[], Answer]) -> Answer:
    """What a call of an author's code returns; what it raises is told in one paragraph, with the author's line.

    Args:
        stage: What is called, for the message.
        method: Whose code it is.
        call: The call.

    Raises:
        MethodError: In place of any exception that isn't the suite's own.
    """
    try:
        return call()
    except MedfsadError:
        raise
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        own_file = getattr(sys.modules.get(type(method).__module__), "__file__", None)
        frame = next((frame for frame in reversed(frames) if frame.filename == own_file), frames[-1])
        line = f": `{frame.line}`" if frame.line else ""
        raise MethodError(
            f"{stage} raised {type(error).__name__} ({' '.join(str(error).split())[:300]}) at {frame.filename}, line "
            f"{frame.lineno}{line}."
        ) from error


def _described(value: object) -> str:
    if value is None:
        return "nothing (None)"
    if isinstance(value, Tensor | np.ndarray):
        kind = "a torch tensor" if isinstance(value, Tensor) else "a NumPy array"
        return f"{kind} of shape {tuple(value.shape)}"
    return f"an object of type {type(value).__name__}"
