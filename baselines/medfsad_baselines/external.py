"""A detector that runs elsewhere: `external:NAME`, a process or an HTTP endpoint that speaks three messages of JSON.

For models that can't live in this process: other languages, other versions of torch, vision-language models behind a
server. NAME is the name of its rows. Images go out as PNG (base64, RGB, the prepared pixels exactly),
scores come back:

    → {"op": "info"}                                    ← {"model": "AnomalyGPT", "version": "1.2"}
    → {"op": "adapt", "seed": 0, "images": [PNG, …]}     ← {"support": any JSON value but null}
    → {"op": "score", "support": as given, "images": […]}  ← {"scores": [0.1, …]}, higher = more anomalous

A process (`command`) gets one message per line on stdin and answers with one line on stdout; stderr is its own. An
endpoint (`url`) gets each message as the body of a POST. An answer {"error": "…"} stops the run with that text. A
message that isn't read and answered within `timeout_s` is sent again, `retries` times, a process being started anew; so
an answer has to depend on the message alone, and `support` has to outlive the process (an embedding, say). Answers end
at 64 MiB. A score is a finite number that a double holds. Redirects aren't followed.

The version that answers is part of the result: it has to be stated as `model_version`, and is compared each time.
"""

import base64
import io
import math
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from medfsad_baselines.parts.json_client import HttpClient, JsonClient, ProcessClient, printable, shown
from medfsad_bench.errors import MethodError
from medfsad_bench.info import MethodInfo
from medfsad_bench.method import Images, Method, RunContext, Scorer, Scores

_LONGEST_S = 86_400
_CLIENTS: WeakValueDictionary[tuple[str, "Config"], JsonClient] = WeakValueDictionary()


@dataclass(frozen=True)
class Config:
    """Where it is, and how long to wait.

    Attributes:
        url: Of an HTTP endpoint.
        command: Of a process, split as a shell would; exactly one of the two.
        model_version: What `info` has to answer as `version`.
        timeout_s: Longest wait until a question is read and answered, at most a day.
        retries: How often a question without an answer is repeated.
    """

    url: str = ""
    command: str = ""
    model_version: str = ""
    timeout_s: float = 60.0
    retries: int = 2

    def __post_init__(self) -> None:
        if not 0 < self.timeout_s <= _LONGEST_S or self.retries < 0:
            raise ValueError(f"timeout_s has to be above 0 and at most {_LONGEST_S}, retries at least 0")


class External(Method):
    """Asks somebody else for scores, and takes nothing but one number per image."""

    def __init__(self, name: str, config: Config) -> None:
        self.name = name
        self.config = config
        self._client: JsonClient | None = None

    def adapt(self, support: Float[Tensor, "shots 3 h w"], context: RunContext) -> Scorer:
        """Show the support, in an order of its own, so that the order of drawing doesn't matter."""
        client = self._connected()
        images = sorted(as_png(image) for image in support)
        answer = client.ask({"op": "adapt", "seed": context.seed, "images": images})
        kept_support = answer.get("support")
        if kept_support is None:
            raise MethodError(f"{self.name}: the answer to 'adapt' is {shown(answer)}; expected {{'support': …}}.")

        def score(images: Images) -> Scores:
            # One image per message: a model elsewhere can't make a score depend on the other images of a batch.
            messages = ({"op": "score", "support": kept_support, "images": [as_png(image)]} for image in images)
            scores = [self._score(client.ask(message)) for message in messages]
            return Scores(image=torch.tensor(scores, dtype=torch.float64, device=images.device))

        return score

    def _connected(self) -> JsonClient:
        if self._client is None:
            self._client = _client_of(self.name, self.config)
            answer = self._client.ask({"op": "info"})
            stated = str(answer.get("version", ""))
            if not stated or stated != self.config.model_version:
                raise MethodError(
                    f"{self.name}: the model says it is {shown(answer.get('model'))}, version {shown(stated)}; "
                    f"expected version {self.config.model_version!r}. Name the version that answers, as it is part of "
                    f"the result: --set model_version={printable(stated) or 'VERSION'}."
                )
        return self._client

    def _score(self, answer: dict[str, Any]) -> float:
        scores = answer.get("scores")
        if isinstance(scores, list) and len(scores) == 1 and type(scores[0]) in (int, float):  # True is an int, too
            with suppress(OverflowError):
                if math.isfinite(scores[0]):
                    return float(scores[0])
        raise MethodError(
            f"{self.name}: the answer to 'score' is {shown(answer)}; expected one number per image, finite and no "
            "larger than a double holds."
        )


def as_png(image: Float[Tensor, "3 h w"]) -> str:
    """A prepared image as PNG in base64; the uint8 values that were prepared come out exactly."""
    pixels: UInt8[np.ndarray, "h w 3"] = (image * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return base64.b64encode(file.getvalue()).decode("ascii")


def _client_of(name: str, config: Config) -> JsonClient:
    """One for all detectors that ask the same: a model may be too large to be started twice for the protocol checks."""
    client = _CLIENTS.get((name, config)) or _new_client(name, config)
    _CLIENTS[name, config] = client
    return client


def _new_client(name: str, config: Config) -> JsonClient:
    if bool(config.url) == bool(config.command):
        raise MethodError(
            f"{name}: url is {config.url!r} and command {config.command!r}; expected one of the two, as in "
            "--set url=http://127.0.0.1:8000/ or --set command='python my_model.py'."
        )
    if config.url:
        return HttpClient(name, config.url, timeout_s=config.timeout_s, retries=config.retries)
    return ProcessClient(name, config.command, timeout_s=config.timeout_s, retries=config.retries)


def member(name: str) -> MethodInfo:
    """The record of `external:<name>`."""
    return replace(
        INFO,
        name=f"external:{name}",
        build=lambda config: External(f"external:{name}", config),
        summary="A detector behind a process or an HTTP endpoint",
        member=None,
        deviations=("neither what it was trained on nor how it scores is known here",),
    )


def _family(config: object) -> Method:
    raise MethodError(f"external is a family of methods; name yours, as in external:my_model ({config}).")


INFO = MethodInfo(
    name="external",
    version="1.1.0",
    config=Config,
    build=_family,
    summary="A detector behind a process or an HTTP endpoint, as in external:my_model",
    paper="",
    licence="unknown",
    knowledge="external model",
    member=member,
)
