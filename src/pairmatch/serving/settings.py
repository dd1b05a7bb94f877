"""What a service is started with."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pairmatch.core.errors import ConfigurationError

_LEAST_TOKEN = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits on what a client may send, and on how long it may take.

    Attributes:
        body_bytes: Size of a request's body.
        photos: Number of photos per request.
        photo_pixels: Number of pixels of a photo.
        body_seconds: Time for the whole body to arrive.
        header_seconds: Time for the headers of a request to arrive.
        decode_seconds: Time to decode one photo.
        waiting: Number of requests that are in work at once; more are refused.
    """

    body_bytes: int = 32_000_000
    photos: int = 8
    photo_pixels: int = 50_000_000
    body_seconds: float = 30.0
    header_seconds: float = 10.0
    decode_seconds: float = 10.0
    waiting: int = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplorerSettings:
    """What the explorer shows besides the people of the galleries.

    Attributes:
        photos: Folder of photos named by id, or a profiles file; None shows no photos.
        pairs: Pairs file with the test pairs to walk through; None for none.
        matcher: Folder of a second matcher to compare with; None for none.
        galleries: Folder of the second matcher's gallery of each side.
        is_demo: Whether people are drawn, which the pages say.
    """

    photos: Path | None = None
    pairs: Path | None = None
    matcher: Path | None = None
    galleries: Mapping[str, Path] = field(default_factory=dict)
    is_demo: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSettings:
    """What every worker of a service needs to know; it can be pickled.

    Attributes:
        matcher: Folder of a saved matcher.
        galleries: Folder of the gallery of each side, `a` or `b`.
        options: Arguments of `Matcher.load`, such as `store` and `allow_upload`.
        store: Path to the store that people are erased from.
        exclusions: File that `POST /exclusions` writes to; None if it is not offered.
        token: Token that clients send; None if none is required.
        limits: Limits on requests.
        decoders: Number of processes per worker that decode photos.
        explorer: What `/explore` shows; None if it is not offered.
        read_only: Whether routes that change anything are refused.
    """

    matcher: Path
    galleries: Mapping[str, Path]
    options: Mapping[str, Any] = field(default_factory=dict)
    store: Path | None = None
    exclusions: Path | None = None
    token: str | None = field(default=None, repr=False)
    limits: Limits = field(default_factory=Limits)
    decoders: int = 1
    explorer: ExplorerSettings | None = None
    read_only: bool = False


def check_token(token: str | None, host: str) -> None:
    """Checks that a token protects a service that other machines can reach.

    Raises:
        ConfigurationError: There is none and the host is no loopback address, or it is short.
    """
    if not token and not is_loopback(host):
        raise ConfigurationError(
            f"--host {host} can be reached from other machines: set PAIRMATCH_TOKEN to a secret "
            "that clients send as `Authorization: Bearer …`, or leave --host out."
        )
    if token and (len(token) < _LEAST_TOKEN or not token.isascii() or not token.isprintable()):
        raise ConfigurationError(
            f"PAIRMATCH_TOKEN needs at least {_LEAST_TOKEN} printable ASCII characters: make one "
            "with `openssl rand -hex 32`."
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a host."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
