"""The prompts of WinCLIP (Jeong et al., CVPR 2023, section 3.2), and scores by them.

States of a normal and of an abnormal thing in many phrasings are averaged to one embedding each. Other baselines that
are built on CLIP ask with the same prompts.
"""

from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor

from medfsad_baselines.parts.clip import Clip, ensemble

NORMAL_STATES = ("{}", "flawless {}", "perfect {}", "unblemished {}", "{} without flaw", "{} without damage")
ABNORMAL_STATES = ("damaged {}", "{} with flaw", "{} with defect", "{} with damage")
_STATES = (NORMAL_STATES, ABNORMAL_STATES)
_PHOTOS = ("photo", "cropped photo", "close-up photo", "bright photo", "dark photo", "blurry photo", "good photo")
TEMPLATES = tuple(f"a {photo} of {article} {{}}" for photo in _PHOTOS for article in ("a", "the"))


def state_embeddings(clip: Clip, subject: str) -> Float[Tensor, "2 d"]:
    """One embedding for all phrasings of a normal thing, and one for all of an abnormal one; computed once."""
    return _state_embeddings(clip, subject).to(clip.mean.device)


@cache
def _state_embeddings(clip: Clip, subject: str) -> Float[Tensor, "2 d"]:
    lists = ([photo.format(state.format(subject)) for photo in TEMPLATES for state in states] for states in _STATES)
    return torch.stack([ensemble(clip, prompts) for prompts in lists])


def text_scores(embeddings: Float[Tensor, "*n d"], text: Float[Tensor, "2 d"], scale: float) -> Float[Tensor, "*n"]:
    """Softmax over the two states, on the abnormal one."""
    return (scale * embeddings @ text.T).softmax(-1)[..., 1]
