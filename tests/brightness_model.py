"""A detector behind a process: how far an image's mean brightness lies from that of the supports."""

import base64
import io
import json
import sys

import numpy as np
from PIL import Image


def main() -> None:
    """Answer each line."""
    for line in sys.stdin:
        sys.stdout.write(json.dumps(answer(json.loads(line))) + "\n")
        sys.stdout.flush()


def answer(message: dict[str, object]) -> dict[str, object]:
    """What is asked for: who it is, what it keeps of the supports, or scores."""
    if message["op"] == "info":
        return {"model": "brightness", "version": "1"}
    means = [float(np.array(Image.open(io.BytesIO(base64.b64decode(png)))).mean()) for png in message["images"]]  # type: ignore[attr-defined]
    if message["op"] == "adapt":
        return {"support": float(np.mean(means))}
    return {"scores": [abs(mean - message["support"]) for mean in means]}  # type: ignore[operator]


if __name__ == "__main__":
    main()
