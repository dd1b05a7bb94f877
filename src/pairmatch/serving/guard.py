"""What every request passes: the token, the host, the limit of requests, figures and the log."""

from __future__ import annotations

import hashlib
import hmac
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from starlette.responses import RedirectResponse

from pairmatch.serving.explorer.sessions import ROOT, SIGNED_OUT, is_explorer, is_session
from pairmatch.serving.metrics import Metrics
from pairmatch.serving.problems import problem
from pairmatch.serving.settings import ServiceSettings

_log = logging.getLogger("pairmatch.serving")
#: Paths that say nothing of anyone: probes of the machinery, and the description of the service.
OPEN = {"/health", "/ready", "/openapi.json"}
_LOCAL_HOSTS = {"localhost", "127.0.0.1", "[::1]"}

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Guard:
    """ASGI middleware around the application.

    Without a token, only this machine reaches the service, and its browsers could be made to send
    requests by any page: hosts of other names and requests of other origins are refused.

    The log has a line per request: method, route, status and time. Paths, which hold ids, and
    bodies are never logged.

    Args:
        app: The application.
        settings: Token and limits.
        metrics: Figures of the service.
    """

    def __init__(self, app: Any, settings: ServiceSettings, metrics: Metrics) -> None:
        self._app = app
        self._settings = settings
        self._metrics = metrics
        self._token = None if settings.token is None else _digest(settings.token.encode())
        self._open = OPEN if settings.explorer is None else OPEN | SIGNED_OUT
        self._in_work = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 500

        async def noting(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        refusal = self._refusal(scope)
        # Clients without a token must not be able to take the place of others
        admitted = refusal is None and scope["path"] not in OPEN
        self._in_work += admitted
        self._metrics.in_work.inc()
        try:
            await (refusal or self._app)(scope, receive, noting)
        finally:
            self._in_work -= admitted
            self._metrics.in_work.dec()
            seconds = time.perf_counter() - started
            route = getattr(scope.get("route"), "path", "other")
            method = scope["method"] if scope["method"] in _METHODS else "other"
            self._metrics.observe(method, route, status, seconds)
            _log.info("%s %s %d %.1f ms", method, route, status, 1000 * seconds)

    def _refusal(self, scope: Scope) -> Any:
        """The answer to a request that must not reach the application; None if it may."""
        headers = dict(scope["headers"])
        if self._token is None:
            host = headers.get(b"host", b"").decode("latin-1").lower()
            if host.rsplit(":", 1)[0] not in _LOCAL_HOSTS and host not in _LOCAL_HOSTS:
                return problem("host", 403, "Without a token, the service answers to localhost.")
            origin = headers.get(b"origin")
            if origin is not None and origin.decode("latin-1").lower() != f"http://{host}":
                return problem("origin", 403, "Without a token, other sites are not answered.")
        elif scope["path"] not in self._open and not self._has_token(headers):
            is_page = self._settings.explorer is not None and is_explorer(scope["path"])
            if not is_page:
                return problem(
                    "token", 401, "Send the token of the service: `Authorization: Bearer …`."
                )
            if scope["method"] not in ("GET", "HEAD") or not self._has_session(headers):
                return RedirectResponse(f"{ROOT}/sign-in", 303)
        if self._in_work >= self._settings.limits.waiting and scope["path"] not in OPEN:
            return problem("busy", 503, "The service has too many requests: try again later.")
        return None

    def _has_token(self, headers: Mapping[bytes, bytes]) -> bool:
        given = headers.get(b"authorization", b"")
        is_bearer = given[:7].lower() == b"bearer "
        return hmac.compare_digest(_digest(given[7:]), self._token or b"") and is_bearer

    def _has_session(self, headers: Mapping[bytes, bytes]) -> bool:
        """Whether a browser signed in, which lets it read the explorer and nothing else."""
        cookies = headers.get(b"cookie", b"").decode("latin-1")
        return is_session(self._settings.token or "", cookies)


_METHODS = {"GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"}


def _digest(token: bytes) -> bytes:
    """A digest, so that the time of a comparison tells nothing, not even the length."""
    return hashlib.sha256(token).digest()
