"""Asking a process or an HTTP endpoint for one JSON object, with a time-out and retries."""

import contextlib
import json
import queue
import shlex
import subprocess
import threading
import time
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from http.client import HTTPException
from typing import Any

from medfsad_bench.errors import MethodError

_PAUSE_S = 0.2  # before the first retry; doubled before each further one


class JsonClient(ABC):
    """Asks somebody who answers JSON with JSON."""

    def __init__(self, name: str, *, timeout_s: float, retries: int) -> None:
        self.name = name
        self.timeout_s = timeout_s
        self.retries = retries

    def ask(self, message: dict[str, Any]) -> dict[str, Any]:
        """The answer to a message.

        Raises:
            MethodError: If no answer came in time however often it was asked, or the answer is an error or no object.
        """
        reasons = []
        for attempt in range(self.retries + 1):
            if attempt:
                time.sleep(_PAUSE_S * 2 ** (attempt - 1))
            try:
                return self._checked(self._exchange(json.dumps(message)))
            except (OSError, HTTPException) as error:  # TimeoutError and URLError among them
                reasons.append(f"{type(error).__name__}: {error}")
        raise MethodError(
            f"{self.name}: no answer to {message['op']!r} in {self.retries + 1} attempts of {self.timeout_s:g} s; the "
            f"last ended with {reasons[-1]}. See whether it runs, or raise timeout_s and retries with --set."
        )

    @abstractmethod
    def _exchange(self, text: str) -> str:
        """Send a message, return the answer's text.

        Raises:
            OSError: If there was none in time; asking again may help.
        """

    def _checked(self, text: str) -> dict[str, Any]:
        try:
            answer = json.loads(text)
        except ValueError as error:
            raise MethodError(
                f"{self.name}: the answer {text[:200]!r} is no JSON ({error}). Expected an object."
            ) from error
        if not isinstance(answer, dict):
            raise MethodError(f"{self.name}: the answer {text[:200]!r} is no object. Expected one, as {{'scores': …}}.")
        if "error" in answer:
            raise MethodError(f"{self.name} answers with an error: {answer['error']}")
        return answer


class HttpClient(JsonClient):
    """An HTTP endpoint: each message is the body of a POST. Answers of 5xx are asked for again, of 4xx are not."""

    def __init__(self, name: str, url: str, *, timeout_s: float, retries: int) -> None:
        super().__init__(name, timeout_s=timeout_s, retries=retries)
        if not url.startswith(("http://", "https://")):
            raise MethodError(f"{name}: url {url!r} is no address. Expected http://… or https://….")
        self._url = url

    def _exchange(self, text: str) -> str:
        request = urllib.request.Request(  # noqa: S310 - the scheme is checked above
            self._url, data=text.encode(), headers={"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=self.timeout_s) as answer:  # noqa: S310
                return str(answer.read().decode("utf-8"))
        except urllib.error.HTTPError as error:
            with error:
                if error.code < 500:
                    raise MethodError(
                        f"{self.name}: {self._url} answers HTTP {error.code} ({error.reason}). Expected 200 with JSON."
                    ) from error
                raise ConnectionError(f"HTTP {error.code} ({error.reason})") from error


class ProcessClient(JsonClient):
    """A process: one message per line on its stdin, one answer per line on its stdout. Started anew after a silence."""

    def __init__(self, name: str, command: str, *, timeout_s: float, retries: int) -> None:
        super().__init__(name, timeout_s=timeout_s, retries=retries)
        self._command = shlex.split(command)
        self._process: subprocess.Popen[str] | None = None
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()

    def _exchange(self, text: str) -> str:
        try:
            return self._answer(text)
        except OSError:
            self.close()
            raise

    def _answer(self, text: str) -> str:
        process = self._running()
        if process.stdin is None:
            raise ConnectionError("its stdin is closed")
        process.stdin.write(text + "\n")
        process.stdin.flush()
        try:
            line = self._lines.get(timeout=self.timeout_s)
        except queue.Empty:
            raise TimeoutError(f"silent for {self.timeout_s:g} s") from None
        if not line:
            raise ConnectionError(f"the process ended with exit code {process.wait()}")
        return line

    def _running(self) -> "subprocess.Popen[str]":
        if self._process is None:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
            )
            self._lines = queue.SimpleQueue()
            threading.Thread(target=_read, args=(self._process, self._lines), daemon=True).start()
        return self._process

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            process, self._process = self._process, None
            process.kill()
            process.wait()
            if process.stdin is not None:
                with contextlib.suppress(OSError):  # what it never read is lost with it
                    process.stdin.close()

    def __del__(self) -> None:
        self.close()


def _read(process: "subprocess.Popen[str]", lines: "queue.SimpleQueue[str]") -> None:
    """Pass lines on; an empty one says that no more will come."""
    if process.stdout is not None:
        with process.stdout:
            for line in process.stdout:
                lines.put(line)
    lines.put("")
