"""What an error of OpenAI's API is about: a policy, the photo, the request, or the server."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

#: `policy` and `photo` are final for a photo, `request` affects all photos, and `server` passes.
Subject = Literal["policy", "photo", "request", "server"]

_POLICY = re.compile(
    r"content_?filter|content_?policy|policy_?violation|moderation|invalid_prompt|responsible_?ai"
    r"|safety|data_inspection"
)
_POLICY_WORDS = re.compile(
    r"safety system|content (management )?polic|usage polic|content filter|was flagged", re.I
)
_REQUEST = re.compile(
    r"json_schema|parameter|unsupported|unknown_|not_supported|invalid_(type|value|api_key|model)"
    r"|missing_|_above_max|_below_min|model_not|quota|billing|deactivated|permission|terminated"
    r"|authentication|payment"
)
_REQUEST_WORDS = re.compile(
    r"\b(unsupported|unknown|unrecognized|missing|required|extra)\b.*"
    r"\b(parameter|argument|field|value|input|property|key)"
    r"|invalid (schema|parameter|value|type)|does not exist|is not supported",
    re.I,
)
# Statuses that do not depend on the photo: redirects, the key, the account, the address
_REQUEST_STATUSES = frozenset({*range(300, 400), 401, 402, 403, 404, 405, 415, 501})
# Statuses of a request that was read and rejected
_REJECTED = frozenset({400, 422})


def subject_of(status: int | None, error: Mapping[str, Any]) -> Subject:
    """What an error is about.

    Args:
        status: HTTP status; None for an error inside a response.
        error: The server's error object.
    """
    names = _names(error)
    message = error.get("message")
    words = message if isinstance(message, str) else ""
    if status is None or 400 <= status < 500:
        if any(_POLICY.search(name) for name in names):
            return "policy"
        if status in (403, *_REJECTED) and _POLICY_WORDS.search(words):
            return "policy"
        if any("image" in name and "not_supported" not in name for name in names):
            return "photo"
    if status in _REQUEST_STATUSES or any(_REQUEST.search(name) for name in names):
        return "request" if status is None or status < 500 or status == 501 else "server"
    if status in _REJECTED:
        param = error.get("param")
        if isinstance(param, str) and param and not param.startswith("input"):
            return "request"
        if _REQUEST_WORDS.search(words) and "image" not in words.lower():
            return "request"
    return "server"


def _names(error: Mapping[str, Any]) -> list[str]:
    """Code and type of an error, and the code of an inner error, in lower case."""
    inner = error.get("innererror")
    values = [
        error.get("code"),
        error.get("type"),
        inner.get("code") if isinstance(inner, Mapping) else None,
    ]
    return [value.lower() for value in values if isinstance(value, str)]
