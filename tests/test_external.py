"""A detector elsewhere: it gets the prepared pixels, answers in time or is asked again, and says who it is."""

import base64
import contextlib
import io
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from medfsad_baselines.external import External, _client_of, as_png
from medfsad_bench.errors import MethodError
from medfsad_bench.method import Method
from medfsad_bench.registry import configure, method_info
from medfsad_bench.runner.context import LocalContext
from medfsad_bench.testing import check_method, phantom_images

Answer = Callable[[dict[str, Any]], dict[str, Any]]


def decoded(png: str) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(base64.b64decode(png))))


def brightness(message: dict[str, Any]) -> dict[str, Any]:
    """The whole of a model: distance of the mean brightness to the support's."""
    if message["op"] == "info":
        return {"model": "brightness", "version": "2.1"}
    means = [float(decoded(png).mean()) for png in message["images"]]
    if message["op"] == "adapt":
        return {"support": float(np.mean(means))}
    return {"scores": [abs(mean - message["support"]) for mean in means]}


class Server:
    """An HTTP endpoint on this machine that answers as `answer` does, and with HTTP 503 the next `broken` times."""

    def __init__(self) -> None:
        self.answer: Answer = brightness
        self.broken = 0
        self.status = 503
        self.asked: list[str] = []
        self.respond: Callable[[BaseHTTPRequestHandler], None] | None = None
        self.silence = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.asked.append(message["op"])
                if outer.broken:
                    outer.broken -= 1
                    self.send_error(outer.status)
                    return
                if outer.respond:
                    with contextlib.suppress(OSError):
                        outer.respond(self)
                    return
                body = json.dumps(outer.answer(message)).encode()
                self.send_response(200)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Quiet."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/"
        self.thread = threading.Thread(target=self.http.serve_forever, daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.silence.set()
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.close()


def external(**settings: object) -> Method:
    info = method_info("external:toy")
    return info.build(configure(info, settings={"model_version": "2.1", "timeout_s": 5, **settings}))


def test_an_image_arrives_exactly_as_it_was_prepared() -> None:
    pixels = torch.arange(3 * 16 * 16, dtype=torch.int64).remainder(256).view(3, 16, 16)
    assert np.array_equal(decoded(as_png(pixels.float() / 255)), pixels.permute(1, 2, 0).numpy())


def test_an_endpoint_keeps_the_contract_and_its_scores_come_through(server: Server) -> None:
    check_method(external(url=server.url))
    images = phantom_images(5)
    scores = external(url=server.url).adapt(images[:2], LocalContext())(images[2:]).image
    means = (images * 255).round().mean((1, 2, 3)).double()
    assert scores is not None
    assert scores.double() == pytest.approx((means[2:] - means[:2].mean()).abs(), abs=1e-3)


def test_a_process_is_started_once_for_detectors_that_ask_the_same() -> None:
    command = f"{sys.executable} -c 'import sys; [print(1) for line in sys.stdin]'"
    detectors = [external(command=command, retries=retries) for retries in (0, 0, 1)]
    first, second, other = (_client_of("toy", each.config) for each in detectors if isinstance(each, External))
    assert first is second
    assert first is not other


def test_a_server_error_is_asked_again_and_a_refusal_is_not(server: Server) -> None:
    server.broken = 2
    external(url=server.url).adapt(phantom_images(2), LocalContext())
    assert server.asked == ["info", "info", "info", "adapt"]
    server.broken, server.status = 1, 404
    with pytest.raises(MethodError, match="answers HTTP 404"):
        external(url=server.url).adapt(phantom_images(2), LocalContext())
    assert server.asked[4:] == ["info"]


def test_silence_ends_after_the_time_out_and_the_retries(server: Server) -> None:
    def silent(message: dict[str, Any]) -> dict[str, Any]:
        server.silence.wait(10)
        return brightness(message)

    server.answer = silent
    with pytest.raises(MethodError, match=r"no answer to 'info' in 2 attempts of 0.3 s.*raise timeout_s"):
        external(url=server.url, timeout_s=0.3, retries=1).adapt(phantom_images(2), LocalContext())
    assert server.asked == ["info", "info"]


def test_another_version_than_stated_stops_and_names_itself(server: Server) -> None:
    for stated in ("2.0", ""):
        with pytest.raises(MethodError, match=r"'brightness', version '2.1'.*--set model_version=2.1"):
            external(url=server.url, model_version=stated).adapt(phantom_images(2), LocalContext())


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"scores": [1.0, 2.0]}, "expected one number per image"),
        ({"scores": ["high"]}, "expected one number per image"),
        ({"scores": [True]}, "expected one number per image"),
        ({"scores": [10**400]}, "expected one number per image, finite"),
        ({"scores": [float("nan")]}, "expected one number per image, finite"),
        ({"scores": [1e999]}, "expected one number per image, finite"),
        ({"scores": [[1.0]]}, "expected one number per image"),
        (
            {"scores": [1.0], "error": "\x1b[31m[bold]red\u202e\n" + "x" * 10_000},
            r"error: '\\x1b\[31m\[bold\]red\\u202e\\nx",
        ),
        ({}, "expected one number per image"),
        ({"error": "out of memory"}, "answers with an error: 'out of memory'"),
    ],
)
def test_an_answer_that_is_no_score_stops(server: Server, answer: dict[str, Any], message: str) -> None:
    server.answer = lambda asked: answer if asked["op"] == "score" else brightness(asked)
    scorer = external(url=server.url).adapt(phantom_images(2), LocalContext())
    with pytest.raises(MethodError, match=message):
        scorer(phantom_images(1))


PROGRAM = """
import json, pathlib, sys
for line in sys.stdin:
    message = json.loads(line)
    if message["op"] == "score" and not pathlib.Path({flag!r}).exists():
        pathlib.Path({flag!r}).touch()
        {misbehave}
    answer = {{"info": {{"model": "length", "version": "2.1"}}, "adapt": {{"support": len(message.get("images", []))}}}}
    print(json.dumps(answer.get(message["op"]) or {{"scores": [message["support"] + 0.5]}}), flush=True)
"""


@pytest.mark.parametrize(
    "misbehave",
    ["pass", "sys.exit(3)", "__import__('time').sleep(60)", "sys.stdout.close(); __import__('time').sleep(60)"],
)
def test_a_process_that_ends_or_falls_silent_is_started_anew(tmp_path: Path, misbehave: str) -> None:
    program = tmp_path / "model.py"
    program.write_text(PROGRAM.format(flag=str(tmp_path / "flag"), misbehave=misbehave), "utf-8")
    method = external(command=f"{sys.executable} {program}", timeout_s=1.5)
    scores = method.adapt(phantom_images(3), LocalContext())(phantom_images(2)).image
    assert scores is not None
    assert scores.tolist() == [3.5, 3.5]


def test_a_process_that_can_not_be_started_is_named() -> None:
    with pytest.raises(MethodError, match=r"no answer to 'info'.*FileNotFoundError"):
        external(command="no-such-program-here", retries=0).adapt(phantom_images(2), LocalContext())


@pytest.fixture
def program(tmp_path: Path) -> Callable[[str], str]:
    """Write a program in Python; the command that runs it."""

    def command(code: str) -> str:
        (tmp_path / "model.py").write_text(f"import json, os, subprocess, sys, time\n{code}", "utf-8")
        return f"{sys.executable} {tmp_path / 'model.py'}"

    return command


INFO_ANSWER = '{\\"model\\": \\"m\\", \\"version\\": \\"2.1\\"}'
INFO = f'sys.stdin.readline(); print("{INFO_ANSWER}", flush=True)'


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (f"{INFO}; time.sleep(60)", "TimeoutError: read nothing for 1 s"),  # of a message larger than the pipe
        ("while True: sys.stdout.write(' '); sys.stdout.flush(); time.sleep(0.05)", "TimeoutError: silent for 1 s"),
        ("subprocess.Popen(['sleep', '60']).wait()", "TimeoutError: silent for 1 s"),  # a child has its pipes, too
        ("while True: sys.stdout.write(' ' * 2**20)", "longer than 64 MiB"),
        (
            f"{INFO}; print('loading…', flush=True); sys.stdin.readline()",
            "says .*loading….*(before it was asked|to one message)",
        ),
        (f'sys.stdin.readline(); print("{INFO_ANSWER}\\n{INFO_ANSWER}", flush=True)', "to one message"),
        ("sys.stdin.readline(); print('[' * 10**6, flush=True)", "is no JSON"),
        ("sys.stdin.readline(); os.write(1, bytes([255, 10])); time.sleep(60)", "is no JSON"),
    ],
)
def test_a_process_that_does_not_keep_to_the_rules_ends_the_run_in_time(
    program: Callable[[str], str], code: str, message: str
) -> None:
    method = external(command=program(code), timeout_s=1, retries=0)
    started = time.monotonic()
    with pytest.raises(MethodError, match=message):
        method.adapt(phantom_images(2, size_px=256), LocalContext())
    assert time.monotonic() - started < 10


def test_the_process_and_its_children_end_with_the_method(program: Callable[[str], str], tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    code = (
        f"child = subprocess.Popen(['sleep', '60'])\nopen({str(pids)!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}')\n"
    )
    method = external(command=program(f"{code}{INFO}\nsys.stdin.read()"), timeout_s=1.5, retries=0)
    with pytest.raises(MethodError, match="silent"):
        method.adapt(phantom_images(2), LocalContext())
    processes = [int(pid) for pid in pids.read_text().split()]
    deadline = time.monotonic() + 5
    while any(runs(pid) for pid in processes) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(runs(pid) for pid in processes)


def runs(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2][:3]
    except OSError:
        return False


def test_an_endpoint_is_held_to_the_deadline_the_bound_and_its_own_address(server: Server) -> None:
    def trickle(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        while not server.silence.wait(0.05):
            handler.wfile.write(b" ")

    def endless(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        for _ in range(70):
            handler.wfile.write(bytes(2**20))

    def redirect(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(302, "\x1b[31mmoved")
        handler.send_header("Location", server.url)
        handler.end_headers()

    for respond, message in (
        (trickle, "no answer to 'info' in 1 attempts of 0.5 s.*no whole answer for 0.5 s"),
        (endless, "longer than 64 MiB"),
        (redirect, r"answers HTTP 302 \(\\x1b\[31mmoved\).*name the address itself"),
    ):
        server.respond = respond
        timeout_s = 0.5 if respond is trickle else 20
        with pytest.raises(MethodError, match=message):
            external(url=server.url, timeout_s=timeout_s, retries=0).adapt(phantom_images(2), LocalContext())
    assert server.asked == ["info"] * 3


def test_scores_are_kept_as_they_are_given(server: Server) -> None:
    close = [0.1 + 1e-12, 0.1]
    left = close.copy()
    server.answer = lambda asked: {"scores": [left.pop(0)]} if asked["op"] == "score" else brightness(asked)
    scores = external(url=server.url).adapt(phantom_images(2), LocalContext())(phantom_images(2)).image
    assert scores is not None
    assert scores.tolist() == close


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("external", {}, "'external' names none of them"),
        ("external:My Model", {}, "names none of them"),
        ("chance:loud", {}, "one method and not a family"),
        ("external:toy", {}, "expected one of the two"),
        ("external:toy", {"url": "ftp://x"}, "no address"),
        ("external:toy", {"url": "http://[::1"}, "no address"),
        ("external:toy", {"command": "python 'model.py"}, "can't be split"),
        ("external:toy", {"timeout_s": "0"}, "timeout_s has to be above 0"),
        ("external:toy", {"timeout_s": "nan"}, "timeout_s has to be above 0"),
        ("external:toy", {"timeout_s": "inf"}, "at most 86400"),
    ],
)
def test_a_wrong_use_is_named(name: str, settings: dict[str, str], message: str) -> None:
    def used() -> None:
        info = method_info(name)
        info.build(configure(info, settings=settings)).adapt(phantom_images(2), LocalContext())

    with pytest.raises(MethodError, match=message):
        used()
