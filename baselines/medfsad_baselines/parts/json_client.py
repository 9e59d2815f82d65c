"""Asking a process or an HTTP endpoint for one JSON object: with a deadline, a bound on the answer, and retries.

Whatever the other side does, a question ends: it's written and answered before its deadline or the attempt is over.
"""

import json
import os
import reprlib
import selectors
import shlex
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request
import weakref
from abc import ABC, abstractmethod
from concurrent.futures import Future
from contextlib import suppress
from http.client import HTTPException
from typing import IO, Any
from urllib.parse import urlsplit

from medfsad_bench.errors import MethodError

LARGEST_ANSWER = 64 << 20  # bytes
_PAUSE_S = 0.2  # before the first retry; doubled before each further one
_PIECE = 1 << 16  # bytes that are written or read at a time
_SHORT = reprlib.Repr()  # for what somebody else says in a message of ours
_SHORT.maxstring = _SHORT.maxother = 200


class JsonClient(ABC):
    """Asks somebody who answers JSON with JSON."""

    def __init__(self, name: str, *, timeout_s: float, retries: int) -> None:
        self.name = name
        self.timeout_s = timeout_s
        self.retries = retries

    def ask(self, message: dict[str, Any]) -> dict[str, Any]:
        """The answer to a message.

        Raises:
            MethodError: If no answer came in time however often it was asked, or the answer is an error, too long or
                no object.
        """
        question, reasons = json.dumps(message).encode(), []
        for attempt in range(self.retries + 1):
            if attempt:
                time.sleep(_PAUSE_S * 2 ** (attempt - 1))
            try:
                return self._checked(self._exchange(question, time.monotonic() + self.timeout_s))
            except (OSError, HTTPException) as error:  # TimeoutError and URLError among them
                reasons.append(f"{type(error).__name__}: {printable(str(error))}")
        raise MethodError(
            f"{self.name}: no answer to {message['op']!r} in {self.retries + 1} attempts of {self.timeout_s:g} s; the "
            f"last ended with {reasons[-1]}. See whether it runs, or raise timeout_s and retries with --set."
        )

    @abstractmethod
    def _exchange(self, question: bytes, deadline: float) -> bytes:
        """Send a message, return the answer's bytes, before a moment of `time.monotonic`.

        Raises:
            OSError: If there was none in time; asking again may help.
            MethodError: If asking again can't help.
        """

    def _checked(self, text: bytes) -> dict[str, Any]:
        try:
            answer = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise MethodError(
                f"{self.name}: the answer {shown(text)} is no JSON ({printable(str(error))}). Expected an object."
            ) from error
        if not isinstance(answer, dict):
            raise MethodError(
                f"{self.name}: the answer {shown(answer)} is no object. Expected one, as {{'scores': …}}."
            )
        if "error" in answer:
            raise MethodError(f"{self.name} answers with an error: {shown(answer['error'])}.")
        return answer

    def _too_long(self) -> MethodError:
        return MethodError(
            f"{self.name}: an answer is longer than {LARGEST_ANSWER >> 20} MiB. Expected one JSON object, of which "
            "only `support` may be large; keep what is larger on the other side, and answer with a key to it."
        )


def shown(value: object) -> str:
    """What somebody else sent, for a message: short, and without any character that a terminal would obey."""
    if isinstance(value, bytes):
        return shown(value[: 2 * _SHORT.maxstring].decode("utf-8", "replace"))
    return _SHORT.repr(value)


def printable(text: str) -> str:
    """The same of a text that needs no quotes."""
    return shown(text).strip("'\"")


class HttpClient(JsonClient):
    """An HTTP endpoint: each message is the body of a POST. Answers of 5xx are asked for again, of 3xx, 4xx not."""

    def __init__(self, name: str, url: str, *, timeout_s: float, retries: int) -> None:
        super().__init__(name, timeout_s=timeout_s, retries=retries)
        if not _is_address(url):
            raise MethodError(f"{name}: url {url!r} is no address. Expected http://… or https://….")
        self._url = url
        self._opener = urllib.request.build_opener(_NoRedirects)

    def _exchange(self, question: bytes, deadline: float) -> bytes:
        """In a thread, as a look-up of the host or a header that comes byte by byte have no time-out of their own."""
        answer: Future[bytes] = Future()
        threading.Thread(target=self._post, args=(question, deadline, answer), daemon=True).start()
        try:
            return answer.result(deadline - time.monotonic())
        except TimeoutError:
            raise TimeoutError(f"no whole answer for {self.timeout_s:g} s") from None

    def _post(self, question: bytes, deadline: float, answer: "Future[bytes]") -> None:
        try:
            answer.set_result(self._posted(question, deadline))
        except Exception as error:  # noqa: BLE001 - it is raised where the answer is waited for
            answer.set_exception(error)

    def _posted(self, question: bytes, deadline: float) -> bytes:
        request = urllib.request.Request(  # noqa: S310 - the scheme is checked above
            self._url, data=question, headers={"Content-Type": "application/json"}
        )
        try:
            with self._opener.open(request, timeout=self.timeout_s) as response:
                return self._body(response, deadline)
        except urllib.error.HTTPError as error:
            with error:
                reason = f"HTTP {error.code} ({printable(str(error.reason))})"
                if error.code >= 500:
                    raise ConnectionError(reason) from error
                redirect = " A redirect isn't followed: name the address itself with --set url=…."
                raise MethodError(
                    f"{self.name}: {self._url} answers {reason}. Expected 200 with JSON."
                    f"{redirect if error.code < 400 else ''}"
                ) from error

    def _body(self, response: Any, deadline: float) -> bytes:
        body = bytearray()
        while piece := response.read1(_PIECE):
            body += piece
            if len(body) > LARGEST_ANSWER:
                raise self._too_long()
            if time.monotonic() > deadline:
                raise TimeoutError
        return bytes(body)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        """A model that was named is asked, and nobody else."""


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


class ProcessClient(JsonClient):
    """A process: one message per line on its stdin, one answer per line on its stdout. Started anew after a silence."""

    def __init__(self, name: str, command: str, *, timeout_s: float, retries: int) -> None:
        super().__init__(name, timeout_s=timeout_s, retries=retries)
        try:
            self._command = shlex.split(command)
        except ValueError as error:
            raise MethodError(f"{name}: command {command!r} can't be split ({error}). Expected shell words.") from error
        self._process: subprocess.Popen[bytes] | None = None
        self._end: Any = None  # of the process, and of what it started

    def _exchange(self, question: bytes, deadline: float) -> bytes:
        try:
            stdin, stdout = self._running()
            self._write(question + b"\n", stdin, stdout, deadline)
            return self._line(stdout, deadline)
        except BaseException:
            self.close()  # in the middle of an answer, perhaps, that would be taken for the next one
            raise

    def _write(self, data: bytes, stdin: IO[bytes], stdout: IO[bytes], deadline: float) -> None:
        """Write as fast as it reads; whatever it says before it was asked is no answer.

        Raises:
            MethodError: If it said something.
        """
        rest = memoryview(data)
        with selectors.DefaultSelector() as ready:
            ready.register(stdin, selectors.EVENT_WRITE)
            ready.register(stdout, selectors.EVENT_READ)
            while rest:
                events = ready.select(max(deadline - time.monotonic(), 0))
                if not events:
                    raise TimeoutError(f"read nothing for {self.timeout_s:g} s")
                if any(key.fileobj is stdout for key, _ in events):
                    said = os.read(stdout.fileno(), _PIECE)
                    if not said:
                        raise ConnectionError(self._ending())
                    raise MethodError(
                        f"{self.name}: the process says {shown(said)} before it was asked. Expected one line per "
                        "message on its stdout; what is meant for people belongs on stderr."
                    )
                rest = rest[os.write(stdin.fileno(), rest[:_PIECE]) :]

    def _line(self, stdout: IO[bytes], deadline: float) -> bytes:
        """One line.

        Raises:
            MethodError: If there is more behind it.
        """
        line = bytearray()
        with selectors.DefaultSelector() as ready:
            ready.register(stdout, selectors.EVENT_READ)
            while not line.endswith(b"\n"):
                if not ready.select(max(deadline - time.monotonic(), 0)):
                    raise TimeoutError(f"silent for {self.timeout_s:g} s")
                piece = os.read(stdout.fileno(), _PIECE)
                if not piece:
                    raise ConnectionError(self._ending())
                line += piece
                if len(line) > LARGEST_ANSWER:
                    raise self._too_long()
                if b"\n" in piece[:-1]:
                    raise MethodError(
                        f"{self.name}: the process says {shown(bytes(line))} to one message. Expected one line per "
                        "message on its stdout; what is meant for people belongs on stderr."
                    )
        return bytes(line)

    def _running(self) -> tuple[IO[bytes], IO[bytes]]:
        if self._process is None:
            pipe = subprocess.PIPE
            self._process = subprocess.Popen(self._command, stdin=pipe, stdout=pipe, bufsize=0, process_group=0)
            self._end = weakref.finalize(self, _end, self._process)
            if self._process.stdin:
                os.set_blocking(self._process.stdin.fileno(), False)
        if self._process.stdin is None or self._process.stdout is None:
            raise ConnectionError("its pipes are closed")
        return self._process.stdin, self._process.stdout

    def _ending(self) -> str:
        if self._process is None:
            return "the process isn't there"
        with suppress(subprocess.TimeoutExpired):
            return f"the process ended with exit code {self._process.wait(1)}"
        return "the process closed its stdout"

    def close(self) -> None:
        """End the process, and what it started."""
        if self._process is not None:
            self._process = None
            self._end()


def _end(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with suppress(OSError):  # what it never read is lost with it
                stream.close()
