"""Bodies of requests: JSON, or a multipart form with photos, within limits of size and time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from pairmatch.core.text import has_surrogates, printable
from pairmatch.serving.problems import ProblemError
from pairmatch.serving.settings import Limits

Model = TypeVar("Model", bound=BaseModel)
PHOTO = "photo"
REQUEST = "request"
_LISTED = 20


class _InMemory(MultiPartParser):
    """A parser that writes no photo to the disk; the size of the body is limited before it."""

    spool_max_size = 2**62


async def read_body(
    request: Request, model: type[Model], limits: Limits, *, photos: bool = False
) -> tuple[Model, list[bytes]]:
    """The body of a request, and its photos.

    Args:
        request: The request.
        model: What the JSON must be.
        limits: Limits of size, number and time.
        photos: Whether the body may be a form with photos.

    Raises:
        ProblemError: The body is too large or too slow, has another type, or cannot be used.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        async with asyncio.timeout(limits.body_seconds):
            if kind == "application/json":
                chunks = [chunk async for chunk in limited(request, limits.body_bytes)]
                return _parsed(b"".join(chunks), model), []
            if photos and kind == "multipart/form-data":
                return await _read_form(request, model, limits)
    except TimeoutError:
        raise ProblemError(
            "slow-body",
            408,
            f"The body did not arrive within {limits.body_seconds:g} seconds.",
        ) from None
    except ClientDisconnect:
        raise ProblemError("disconnected", 400, "The client left.") from None
    kinds = "application/json" + (" or multipart/form-data" if photos else "")
    raise ProblemError("media-type", 415, f"The Content-Type must be {kinds}.")


async def _read_form(
    request: Request, model: type[Model], limits: Limits
) -> tuple[Model, list[bytes]]:
    """The part `request` of a form as JSON, and its files `photo`."""
    parser = _InMemory(
        request.headers,
        limited(request, limits.body_bytes),
        max_files=limits.photos + 1,
        max_fields=1,
        max_part_size=1_000_000,
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise ProblemError("invalid-form", 400, f"The form cannot be read: {error}") from None
    except (KeyError, ValueError, LookupError) as error:
        words = printable(str(error))[:200]
        raise ProblemError("invalid-form", 400, f"The form cannot be read: {words}") from None
    async with _closing(form):
        content, photos = b"{}", []
        for name, value in form.multi_items():
            data = await value.read() if isinstance(value, UploadFile) else value.encode()
            if name == REQUEST:
                content = data
            elif name == PHOTO and isinstance(value, UploadFile):
                photos.append(data)
            else:
                raise ProblemError(
                    "invalid-form",
                    400,
                    f"A form has a part `{REQUEST}` with JSON, and files `{PHOTO}`; got "
                    f"{printable(name)[:100]!r}.",
                )
    if len(photos) > limits.photos:
        raise ProblemError("too-large", 413, f"At most {limits.photos} photos are read.")
    return _parsed(content, model), photos


class _closing:  # noqa: N801
    """Closes the files of a form."""

    def __init__(self, form: object) -> None:
        self._form = form

    async def __aenter__(self) -> None:
        return None

    async def __aexit__(self, *_: object) -> None:
        await self._form.close()  # type: ignore[attr-defined]


async def limited(request: Request, most_bytes: int) -> AsyncGenerator[bytes, None]:
    """The body, cut off at the limit."""
    count = 0
    too_large = ProblemError("too-large", 413, f"The body has more than {most_bytes:,} bytes.")
    declared = request.headers.get("content-length", "0")
    if declared.isdigit() and int(declared[:20]) > most_bytes:
        raise too_large
    async for chunk in request.stream():
        count += len(chunk)
        if count > most_bytes:
            raise too_large
        yield chunk


def _parsed(content: bytes, model: type[Model]) -> Model:
    try:
        value = model.model_validate_json(content)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_input=False)
        if faults[0]["type"] == "json_invalid":
            raise ProblemError("malformed", 400, f"{faults[0]['msg']}.") from None
        lines = [
            f"{'.'.join(map(str, fault['loc'])) or 'the request'}: {fault['msg']}"
            for fault in faults[:_LISTED]
        ]
        more = f"; and {len(faults) - _LISTED} more" if len(faults) > _LISTED else ""
        raise ProblemError(
            "invalid-request", 422, printable("; ".join(lines))[:4000] + more
        ) from None
    if has_surrogates(repr(value.model_dump())):
        raise ProblemError("malformed", 400, "The text is not valid Unicode.")
    return value
