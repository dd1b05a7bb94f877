"""The routes of the explorer. All but the sign-in are requests that read."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from fastapi import APIRouter, Request
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, RedirectResponse, Response

from pairmatch.core.errors import ImageError, PairmatchError
from pairmatch.core.text import has_surrogates
from pairmatch.core.types import Side
from pairmatch.serving.bodies import limited
from pairmatch.serving.explorer.computing import ComputingError
from pairmatch.serving.explorer.pages import HEADERS, asset, navigation, page
from pairmatch.serving.explorer.sessions import COOKIE, ROOT, SECONDS, new_session
from pairmatch.serving.problems import ProblemError, response_of

if TYPE_CHECKING:
    from pairmatch.serving.app import Running
    from pairmatch.serving.explorer.explorer import Explorer

_SIGN_IN_BYTES = 4096


def explorer_routes(running: Running) -> APIRouter:
    """The routes, which are no part of the description of the service."""
    router = APIRouter(prefix=ROOT, include_in_schema=False)

    def add(path: str, build: Callable[[Explorer, Mapping[str, str]], dict[str, Any]]) -> None:
        template = path.strip("/") or "slate"

        @router.get(path)
        async def show(request: Request) -> Response:
            return await _answer(running, request, template, path, build)

    from pairmatch.serving.explorer import views

    add("", views.slate_view)
    add("/compare", views.compare_view)
    add("/exposure", views.exposure_view)
    add("/pairs", views.pairs_view)

    @router.get("/people")
    async def people(request: Request) -> Response:
        side, prefix = _side(request.query_params), request.query_params.get("prefix", "")
        try:
            found = await running.run(running.explorer.suggestions, side, prefix[:1000])
        except (ComputingError, ProblemError):
            found = []
        return JSONResponse(found, headers=HEADERS)

    @router.get("/photo")
    async def photo(request: Request) -> Response:
        person = request.query_params.get("id", "")
        try:
            content = await running.run_photos(
                running.explorer.photo, person, _side(request.query_params)
            )
        except ImageError:
            return Response(status_code=404, headers=HEADERS)
        return Response(content, media_type="image/jpeg", headers=HEADERS)

    for name, kind in (("style.css", "text/css"), ("script.js", "text/javascript")):
        _add_asset(router, name, kind)
    if running.settings.token is not None:
        _add_sign_in(router, running.settings.token, running.settings.limits.body_seconds)
    return router


async def _answer(
    running: Running,
    request: Request,
    template: str,
    path: str,
    build: Callable[[Explorer, Mapping[str, str]], dict[str, Any]],
) -> Response:
    """A page, or one that says why there is none."""
    parameters = dict(request.query_params)
    shared = {
        "navigation": navigation(path, _shared(parameters)),
        "can_sign_out": running.settings.token is not None,
        "is_demo": running.settings.explorer is not None and running.settings.explorer.is_demo,
    }
    try:
        if has_surrogates("".join(parameters.values())) or "\0" in "".join(parameters.values()):
            raise ProblemError("malformed", 400, "The address is not valid Unicode.")
        values = await running.run(build, running.explorer, parameters)
        status = values.pop("status", 200)
        return page(template, status, refresh=values.get("is_computing", False), **shared, **values)
    except (ProblemError, PairmatchError) as error:
        status = response_of(error).status_code
        return page(
            "message",
            status,
            refresh=status == 503,
            title="Not available" if status != 503 else "Loading",
            text=str(error),
            **shared,
        )


def _shared(parameters: Mapping[str, str]) -> dict[str, str]:
    """What every page keeps of the address: the person and the rule."""
    names = ("side", "id", "k", "where", "mutual")
    return {name: parameters[name] for name in names if name in parameters}


def _side(parameters: Mapping[str, str]) -> Side | None:
    side = parameters.get("side")
    return "a" if side == "a" else "b" if side == "b" else None


def _add_asset(router: APIRouter, name: str, kind: str) -> None:
    @router.get(f"/{name}")
    async def show() -> Response:
        return Response(asset(name), media_type=kind, headers=HEADERS)


async def _token_of(request: Request, seconds: float) -> str:
    """The token that a form sent."""
    try:
        async with asyncio.timeout(seconds):
            body = b"".join([chunk async for chunk in limited(request, _SIGN_IN_BYTES)])
    except TimeoutError:
        raise ProblemError("slow-body", 408, "The form did not arrive in time.") from None
    except ClientDisconnect:
        raise ProblemError("disconnected", 400, "The client left.") from None
    return parse_qs(body.decode("ascii", "replace")).get("token", [""])[0].strip()


def _add_sign_in(router: APIRouter, token: str, seconds: float) -> None:
    digest = hashlib.sha256(token.encode()).digest()

    @router.get("/sign-in")
    async def form() -> Response:
        return page("sign-in", failed=False)

    @router.post("/sign-in")
    async def sign_in(request: Request) -> Response:
        given = await _token_of(request, seconds)
        given_digest = hashlib.sha256(given.encode("utf-8", "replace")).digest()
        if not hmac.compare_digest(given_digest, digest):
            return page("sign-in", 401, failed=True)
        answer = RedirectResponse(ROOT, 303, HEADERS)
        answer.set_cookie(
            COOKIE,
            new_session(token),
            max_age=SECONDS,
            path=ROOT,
            secure=request.headers.get("x-forwarded-proto") == "https",
            httponly=True,
            samesite="strict",
        )
        return answer

    @router.post("/sign-out")
    async def sign_out() -> Response:
        answer = RedirectResponse(f"{ROOT}/sign-in", 303, HEADERS)
        answer.delete_cookie(COOKIE, path=ROOT, httponly=True, samesite="strict")
        return answer
