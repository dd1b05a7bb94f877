"""The provider's client within limits: a deadline per request, a size per answer, one host."""

from __future__ import annotations

import socket
import sys
import threading
import time
import zlib
from contextlib import suppress
from functools import cache
from typing import Any

import openai

# The HTTP library that the client is built on: httpx or its successor
_HTTP: Any = sys.modules[openai.DefaultHttpxClient.__mro__[1].__module__.partition(".")[0]]
#: Its class of responses.
Response: Any = _HTTP.Response
_READING = threading.Lock()
#: Largest body of an answer.
MOST_ANSWER_BYTES = 4_000_000


class AnswerError(openai.OpenAIError):
    """The body of an answer cannot be used; the message says why."""


def connect(
    *,
    base_url: str | None,
    api_key: str,
    timeout_seconds: float,
    max_retries: int,
    most_bytes: int = MOST_ANSWER_BYTES,
    stopped: threading.Event | None = None,
) -> openai.OpenAI:
    """A client for the requests of one thread.

    Redirects are answers like any other, so that neither photos nor the key reach another host.

    Args:
        base_url: URL of the server; None for the provider's own.
        api_key: The key.
        timeout_seconds: Time for a whole request, its answer included.
        max_retries: Number of retries per request.
        most_bytes: Largest body of an answer.
        stopped: When it is set, nothing more is sent.
    """
    with _READING:  # threads that start together would all read the certificates
        certificates = _certificates()
    http = _LimitedClient(timeout=timeout_seconds, verify=certificates)
    http.most_bytes = most_bytes
    http.stopped = stopped
    return openai.OpenAI(
        api_key=api_key,
        base_url=base_url or "https://api.openai.com/v1",
        timeout=timeout_seconds,
        max_retries=max_retries,
        http_client=http,
    )


@cache
def _certificates() -> Any:
    """The authorities that sign certificates, which take long to read; shared by all threads."""
    return _HTTP.create_ssl_context()


class _LimitedClient(openai.DefaultHttpxClient):
    """Sends one request at a time, each within its deadline.

    The deadline is the read timeout of the request. When it passes, the connection is shut down,
    which ends every wait on it: for space to send, for headers, and for the body.
    """

    most_bytes = MOST_ANSWER_BYTES
    stopped: threading.Event | None = None
    _stream: Any = None  # of the connection, which the next request uses again

    def send(self, request: Any, *, stream: bool = False, **options: Any) -> Any:
        if self.stopped is not None and self.stopped.is_set():
            raise AnswerError("the run has ended")
        request.headers["Accept-Encoding"] = "identity"
        deadline = _Deadline(request.extensions["timeout"]["read"], self._stream)
        request.extensions["trace"] = deadline.watch
        try:
            with deadline:
                response = super().send(
                    request, stream=True, **{**options, "follow_redirects": False}
                )
                try:
                    body = self._read(response)
                finally:
                    response.close()
        except _HTTP.HTTPError:
            if deadline.has_passed:
                raise _HTTP.ReadTimeout("deadline", request=request) from None
            raise
        finally:
            self._stream = deadline.stream
        if deadline.has_passed:  # a connection that was shut down looks like the end of a body
            raise _HTTP.ReadTimeout("deadline", request=request)
        for name in ("content-encoding", "content-length", "transfer-encoding"):
            response.headers.pop(name, None)
        return Response(
            response.status_code, headers=response.headers, content=body, request=request
        )

    def _read(self, response: Any) -> bytes:
        """The body, decompressed within the limit of its size."""
        encoding = response.headers.get("content-encoding", "identity").strip().lower()
        inflate = None
        if encoding in ("gzip", "x-gzip", "deflate"):
            inflate = zlib.decompressobj(wbits=47)  # reads the headers of both formats
        elif encoding != "identity":
            raise AnswerError(f"the answer is compressed as {encoding[:20]!r}, which was not asked")
        body = bytearray()
        for chunk in response.iter_raw():
            if inflate is not None:
                try:
                    chunk = inflate.decompress(chunk, self.most_bytes + 1 - len(body))
                except zlib.error:
                    raise AnswerError("the answer is not compressed as it says") from None
            body += chunk
            if len(body) > self.most_bytes:
                raise AnswerError(f"the answer has more than {self.most_bytes:,} bytes")
        if inflate is not None and not inflate.eof:
            raise AnswerError("the answer is not compressed as it says")
        return bytes(body)

    def __del__(self) -> None:
        with suppress(Exception):
            self.close()


class _Deadline:
    """Shuts a connection down when a time has passed, unless the block has ended.

    Args:
        seconds: Time from the start of the block.
        stream: Connection of the last request, which the next one may use.
    """

    def __init__(self, seconds: float, stream: Any) -> None:
        self.stream = stream
        self.has_passed = False
        self.end = 0.0  # on the monotonic clock
        self._seconds = seconds
        self._has_ended = False
        self._lock = threading.Lock()

    def watch(self, event: str, info: dict[str, Any]) -> None:
        """Takes notice of connections that are opened; called by the client's transport."""
        opened = info.get("return_value")
        if hasattr(opened, "get_extra_info"):
            with self._lock:
                self.stream = opened
                if self.has_passed:
                    self._shut_down()

    def __enter__(self) -> None:
        self.end = time.monotonic() + self._seconds
        _CLOCK.add(self)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._has_ended = True
        _CLOCK.remove(self)

    def expire(self) -> None:
        """Ends the block's requests; called when the time has passed."""
        with self._lock:
            if not self._has_ended:
                self.has_passed = True
                self._shut_down()

    def _shut_down(self) -> None:
        connection = None if self.stream is None else self.stream.get_extra_info("socket")
        if isinstance(connection, socket.socket):
            with suppress(OSError):
                # Of the plain socket: that of TLS would wait for its peer
                socket.socket.shutdown(connection, socket.SHUT_RDWR)


class _Clock:
    """Expires the deadlines of all clients in one thread, which ends when there are none.

    A timer per request would start a thread per request, a tenth of the time of a small one.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._deadlines: set[_Deadline] = set()
        self._thread: threading.Thread | None = None
        self._wakes = 0.0

    def add(self, deadline: _Deadline) -> None:
        with self._changed:
            self._deadlines.add(deadline)
            # A fork does not take the thread with it
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(
                    target=self._run, name="pairmatch-deadlines", daemon=True
                )
                self._wakes = deadline.end
                self._thread.start()
            elif deadline.end < self._wakes:
                self._changed.notify()

    def remove(self, deadline: _Deadline) -> None:
        with self._changed:
            self._deadlines.discard(deadline)

    def _run(self) -> None:
        with self._changed:
            while self._deadlines:
                self._wakes = min(deadline.end for deadline in self._deadlines)
                self._changed.wait(max(0.0, self._wakes - time.monotonic()))
                now = time.monotonic()
                for deadline in [each for each in self._deadlines if each.end <= now]:
                    self._deadlines.discard(deadline)
                    deadline.expire()
            self._thread = None


_CLOCK = _Clock()
