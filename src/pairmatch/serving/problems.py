"""Errors as answers: `application/problem+json` of RFC 9457, with the words of the library."""

from __future__ import annotations

import logging
import traceback

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from pairmatch.core.errors import (
    BackboneError,
    ConfigurationError,
    DataError,
    GeneratorError,
    ImageError,
    PairmatchError,
    StoreError,
    UploadError,
)
from pairmatch.core.text import printable
from pairmatch.serving.photos import BusyError

MEDIA_TYPE = "application/problem+json"
_log = logging.getLogger("pairmatch.serving")
_UNKNOWN_PATH = "There is no such path. Routes: /openapi.json; pages for a browser: /explore."
#: Name and status of what the library raises; the first class that fits counts.
_KINDS: tuple[tuple[type[Exception], str, int], ...] = (
    (BusyError, "busy", 503),
    (ImageError, "unreadable-photo", 422),
    (UploadError, "upload-not-allowed", 403),
    (ConfigurationError, "invalid-request", 422),
    (DataError, "invalid-request", 422),
    (StoreError, "storage", 503),
    (GeneratorError, "metadata", 502),
    (BackboneError, "backbone", 500),
    (PairmatchError, "invalid-request", 422),
)
_TITLES = {
    "backbone": "The model failed",
    "busy": "Too many requests",
    "invalid-request": "The request cannot be used",
    "metadata": "The metadata generator failed",
    "storage": "The gallery or the store cannot be used",
    "unreadable-photo": "A photo cannot be read",
    "upload-not-allowed": "Photos may not be sent to the metadata generator",
}


class ProblemError(Exception):
    """A problem that the service itself finds.

    Args:
        name: Name of the kind of problem.
        status: HTTP status.
        detail: What is wrong, and how to fix it.
    """

    def __init__(self, name: str, status: int, detail: str) -> None:
        super().__init__(detail)
        self.name = name
        self.status = status
        self.detail = detail


def problem(name: str, status: int, detail: str, title: str | None = None) -> Response:
    """The answer that describes a problem."""
    content = {
        "type": f"urn:pairmatch:problem:{name}",
        "title": title or _TITLES.get(name, name.replace("-", " ").capitalize()),
        "status": status,
        "detail": detail,
    }
    headers = {"Retry-After": "1"} if status == 503 else {}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(content, status, headers, media_type=MEDIA_TYPE)


async def answer_error(request: Request, error: Exception) -> Response:
    """The answer for any error of a request; those of the library keep their words."""
    return response_of(error)


def response_of(error: BaseException) -> Response:
    """The answer for an error; a bug is logged by where it happened, without any value."""
    if isinstance(error, ProblemError):
        return problem(error.name, error.status, error.detail)
    if isinstance(error, HTTPException):
        names = {404: "unknown-path", 405: "unknown-method"}
        detail = _UNKNOWN_PATH if error.status_code == 404 else error.detail
        answer = problem(names.get(error.status_code, "http"), error.status_code, detail)
        answer.headers.update(error.headers or {})
        return answer
    if isinstance(error, RequestValidationError):
        words = "; ".join(f"{fault['loc'][-1]}: {fault['msg']}" for fault in error.errors())
        return problem("invalid-request", 422, printable(words)[:1000])
    for kind, name, status in _KINDS:
        if isinstance(error, kind):
            return problem(name, status, str(error))
    frames = "".join(traceback.format_tb(error.__traceback__))
    _log.error("A bug: %s\n%s", type(error).__name__, frames)
    return problem("bug", 500, "The service failed; its log says where.", "A bug")
