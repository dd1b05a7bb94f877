"""Runs the service: one process, or several workers that share a port and the galleries."""

from __future__ import annotations

import functools
import logging
import multiprocessing
import multiprocessing.connection
import os
import signal
import socket
import sys
import tempfile
import threading
from asyncio import TimerHandle, Transport
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.supervisors import Multiprocess

from pairmatch.core.errors import ConfigurationError
from pairmatch.serving.app import create_app
from pairmatch.serving.metrics import SHARED
from pairmatch.serving.settings import ServiceSettings

_GRACEFUL_SECONDS = 30
_HEALTH_SECONDS = 60  # importing and loading hold the interpreter for seconds
_LOG = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"format": "%(asctime)s %(levelname)s %(message)s"}},
    "handlers": {
        "out": {
            "class": "logging.StreamHandler",
            "formatter": "plain",
            "stream": "ext://sys.stderr",
        }
    },
    "loggers": {
        "pairmatch": {"handlers": ["out"], "level": "WARNING", "propagate": False},
        "pairmatch.serving": {"handlers": ["out"], "level": "INFO", "propagate": False},
        "uvicorn.error": {"handlers": ["out"], "level": "WARNING", "propagate": False},
    },
}


class _Protocol(H11Protocol):
    """HTTP/1.1 that closes connections whose headers do not arrive, or that take no answer."""

    def __init__(self, *arguments: Any, header_seconds: float, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.header_seconds = header_seconds
        self._deadline: TimerHandle | None = None
        self._write_deadline: TimerHandle | None = None

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._deadline = self.loop.call_later(self.header_seconds, self._close_if_idle)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        is_waiting = self.cycle is None or self.cycle.response_complete
        if self._deadline is not None and not is_waiting:
            self._deadline.cancel()
            self._deadline = None
        elif self._deadline is None and is_waiting:
            self._deadline = self.loop.call_later(self.header_seconds, self._close_if_idle)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._abort_later()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._keep()

    def connection_lost(self, exc: Exception | None) -> None:
        self._keep()
        super().connection_lost(exc)

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._abort_later()  # a closed connection stays until its last answer is taken

    def _close_if_idle(self) -> None:
        self._deadline = None
        is_waiting = self.cycle is None or self.cycle.response_complete
        if is_waiting and not self.transport.is_closing():
            self.transport.abort()

    def _abort_later(self) -> None:
        if self._write_deadline is None:
            self._write_deadline = self.loop.call_later(self.header_seconds, self.transport.abort)

    def _keep(self) -> None:
        if self._write_deadline is not None:
            self._write_deadline.cancel()
            self._write_deadline = None


def serve(settings: ServiceSettings, *, host: str, port: int, workers: int = 1) -> None:
    """Serves until the process is asked to stop; finishes the requests in work then.

    Args:
        settings: What the service needs.
        host: Address to listen on.
        port: Port; 0 takes a free one.
        workers: Number of processes.

    Raises:
        ConfigurationError: The address cannot be used.
    """
    listener = _listener(host, port)
    shown = f"[{host}]" if ":" in host else host
    config = uvicorn.Config(
        functools.partial(create_app if workers == 1 else _worker, settings),
        factory=True,
        http=functools.partial(_Protocol, header_seconds=settings.limits.header_seconds),  # type: ignore[arg-type]
        ws="none",
        loop="asyncio",
        lifespan="on",
        access_log=False,
        log_config=_LOG,
        server_header=False,
        proxy_headers=False,
        timeout_worker_healthcheck=_HEALTH_SECONDS,
        timeout_graceful_shutdown=_GRACEFUL_SECONDS,
        workers=workers,
    )
    logging.getLogger("pairmatch.serving").info(
        "Serving at http://%s:%d", shown, listener.getsockname()[1]
    )
    # After a graceful stop, uvicorn raises the signals again, which would end the process by them
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(0))
    if workers == 1:
        uvicorn.Server(config).run([listener])
        return
    with tempfile.TemporaryDirectory(prefix="pairmatch-metrics-") as folder:
        os.environ[SHARED] = folder  # prometheus_client of the workers reads it when it is imported
        try:
            Multiprocess(config, [listener]).run()
        finally:
            del os.environ[SHARED]


def _worker(settings: ServiceSettings) -> Any:
    """The application of a worker, which ends with the process that started it.

    A worker that outlives it, after SIGKILL, would keep the port and answer from old galleries.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=end, name="pairmatch-parent", daemon=True).start()
    return create_app(settings)


def _listener(host: str, port: int) -> socket.socket:
    try:
        family: Any = socket.AF_INET6 if ":" in host else socket.AF_INET
        # asyncio switches off the delay of small packets only for sockets that say TCP
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigurationError(
            f"The service cannot listen on {host} port {port} ({reason}): choose another with "
            "--host and --port."
        ) from error
    listener.listen(1024)
    listener.set_inheritable(True)
    return listener
