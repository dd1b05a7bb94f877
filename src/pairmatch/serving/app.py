"""The routes of the service."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, FastAPI, Path, Query, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import Response
from uvicorn.config import STARTUP_FAILURE

from pairmatch.core._version import __version__
from pairmatch.core.errors import PairmatchError
from pairmatch.core.text import has_surrogates
from pairmatch.serving import messages
from pairmatch.serving.bodies import PHOTO, REQUEST, read_body
from pairmatch.serving.explorer.routes import explorer_routes
from pairmatch.serving.guard import Guard
from pairmatch.serving.metrics import CONTENT_TYPE, Metrics
from pairmatch.serving.photos import PhotoDecoder
from pairmatch.serving.problems import MEDIA_TYPE, ProblemError, answer_error
from pairmatch.serving.settings import ServiceSettings

if TYPE_CHECKING:
    from pairmatch.serving.explorer.explorer import Explorer
    from pairmatch.serving.service import Service

_log = logging.getLogger("pairmatch.serving")
_THREADS = 32  # for searches and changes
_PHOTO_THREADS = 4  # for requests with photos, so that slow ones do not take all threads
_Result = TypeVar("_Result")
_HANDLED: tuple[type[Exception], ...] = (
    HTTPException,
    ProblemError,
    PairmatchError,
    RequestValidationError,
    Exception,
)
PersonId = Annotated[str, Path(max_length=1000, description="Id of a person.")]


class Running:
    """The parts of a running worker; the service is None until it is loaded.

    Args:
        settings: What the service was started with.
    """

    def __init__(self, settings: ServiceSettings) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self._service: Service | None = None
        self._explorer: Explorer | None = None
        self._decoder: PhotoDecoder | None = None
        self._threads = ThreadPoolExecutor(_THREADS, "pairmatch-serve")
        self._photo_threads = ThreadPoolExecutor(_PHOTO_THREADS, "pairmatch-photos")

    @property
    def service(self) -> Service:
        """The service.

        Raises:
            ProblemError: It is not loaded yet.
        """
        if self._service is None:
            raise ProblemError("loading", 503, "The service is loading: try again later.")
        return self._service

    @property
    def explorer(self) -> Explorer:
        """The explorer.

        Raises:
            ProblemError: It is not loaded yet.
        """
        if self._explorer is None:
            raise ProblemError("loading", 503, "The service is loading: try again later.")
        return self._explorer

    async def run(self, call: Callable[..., _Result], *arguments: Any) -> _Result:
        """Calls a function in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, call, *arguments)

    async def run_photos(self, call: Callable[..., _Result], *arguments: Any) -> _Result:
        """Calls a function that decodes photos, in a thread for that."""
        return await asyncio.get_running_loop().run_in_executor(
            self._photo_threads, call, *arguments
        )

    async def run_with_photos(
        self, call: Callable[..., _Result], request: Any, photos: list[bytes], *before: Any
    ) -> _Result:
        """Calls a function with decoded photos in a thread for that."""
        if not photos:
            return await self.run(call, *before, request, ())

        def decode_and_call() -> _Result:
            assert self._decoder is not None
            return call(*before, request, self._decoder.decode(photos))

        return await self.run_photos(decode_and_call)

    def load(self) -> None:
        """Loads matcher and galleries; ends the process if they cannot be used."""
        try:
            from pairmatch.serving.service import Service  # takes seconds to import

            limits = self.settings.limits
            self._decoder = PhotoDecoder(
                self.settings.decoders,
                most_pixels=limits.photo_pixels,
                seconds=limits.decode_seconds,
            )
            service = Service(self.settings)
            if self.settings.explorer is not None:
                from pairmatch.serving.explorer.explorer import Explorer

                self._explorer = Explorer(service, self.settings.explorer, self._decoder)
            self._service = service
        except Exception as error:  # nothing waits for this thread
            words = error if isinstance(error, PairmatchError) else type(error).__name__
            _log.error("The service cannot start: %s", words)
            logging.shutdown()
            os._exit(STARTUP_FAILURE)  # a supervisor does not try again
        else:
            # What the library warns of from now on quotes people
            logging.getLogger("pairmatch").setLevel(logging.CRITICAL)
            _log.setLevel(logging.INFO)
            _log.info("Ready")

    def close(self) -> None:
        """Finishes what was begun, and ends threads and processes."""
        self._threads.shutdown()
        self._photo_threads.shutdown()
        if self._explorer is not None:
            self._explorer.close()
        if self._service is not None:
            self._service.close()
        if self._decoder is not None:
            self._decoder.close()


def create_app(settings: ServiceSettings) -> Any:
    """The ASGI application of a worker."""
    running = Running(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        loading = asyncio.get_running_loop().run_in_executor(None, running.load)
        yield
        await loading
        await asyncio.get_running_loop().run_in_executor(None, running.close)

    app = FastAPI(
        title="pairmatch",
        version=__version__,
        description="Ranks candidates for people.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        exception_handlers=dict.fromkeys(_HANDLED, answer_error),
        responses=_problems(),
    )
    app.openapi = _describe(app)  # type: ignore[method-assign]
    _add_people_routes(app, running)
    _add_change_routes(app, running)
    _add_state_routes(app, running)
    if settings.explorer is not None:
        app.include_router(explorer_routes(running))
    return Guard(_Caught(app), settings, running.metrics)


class _Caught:
    """Keeps bugs from the server, whose log would quote values; they were answered and logged."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await self._app(scope, receive, send)
        except Exception:
            if scope["type"] != "http":
                raise


def _body(model: type[BaseModel], *, photos: bool = False) -> dict[str, Any]:
    """The description of a body, which is read by `read_body` and not by FastAPI."""
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    examples = {
        f"example {number}": {"value": value}
        for number, value in enumerate(model.model_json_schema()["examples"], 1)
    }
    content: dict[str, Any] = {"application/json": {"schema": schema, "examples": examples}}
    if photos:
        file = {"type": "string", "contentMediaType": "application/octet-stream"}
        content["multipart/form-data"] = {
            "schema": {
                "type": "object",
                "properties": {REQUEST: schema, PHOTO: {"type": "array", "items": file}},
                "additionalProperties": False,
            },
            "encoding": {REQUEST: {"contentType": "application/json"}},
        }
    return {"requestBody": {"required": True, "content": content}}


def _problems() -> dict[int | str, dict[str, Any]]:
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        status: {"description": words, "content": content}
        for status, words in (
            ("4XX", "The request cannot be used."),
            ("5XX", "The service cannot answer."),
        )
    }


def _describe(app: FastAPI) -> Callable[[], dict[str, Any]]:
    """The OpenAPI description, with the models of bodies that FastAPI does not read."""
    default = app.openapi
    bodies = (messages.Recommend, messages.Embed, messages.Put, messages.ExclusionPairs)

    @functools.cache
    def describe() -> dict[str, Any]:
        description = default()
        schemas = description.setdefault("components", {}).setdefault("schemas", {})
        for model in (*bodies, messages.Problem):
            schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas.update(schema.pop("$defs", {}))
            schemas[model.__name__] = schema
        for path in description["paths"].values():
            for operation in path.values():
                operation["responses"].pop("422", None)
        return description

    return describe


def _add_people_routes(app: FastAPI, running: Running) -> None:
    limits = running.settings.limits

    @app.post("/recommend", openapi_extra=_body(messages.Recommend, photos=True))
    async def recommend(request: Request) -> messages.Answer:
        """The best candidates for a person of a gallery, or for a new person."""
        body, photos = await read_body(request, messages.Recommend, limits, photos=True)
        if photos and body.person is None:
            raise ProblemError("invalid-request", 422, "Photos need `person` instead of `id`.")
        service = running.service
        ranking = await running.run_with_photos(service.recommend, body, photos)
        return messages.answer_of(ranking)

    @app.post("/embed", openapi_extra=_body(messages.Embed, photos=True))
    async def embed(request: Request) -> messages.Embedding:
        """The embedding of a person, who is in no gallery afterwards."""
        body, photos = await read_body(request, messages.Embed, limits, photos=True)
        side, vector = await running.run_with_photos(running.service.embed, body, photos)
        return messages.Embedding(side=side, embedding=vector.tolist())


def _add_change_routes(app: FastAPI, running: Running) -> None:
    limits = running.settings.limits

    async def check_writable() -> None:
        if running.settings.read_only:
            raise ProblemError("read-only", 403, "This service is read-only.")

    router = APIRouter(dependencies=[Depends(check_writable)])

    @router.put("/people/{person:path}", openapi_extra=_body(messages.Put, photos=True))
    async def put(person: PersonId, request: Request) -> messages.Added:
        """Adds a person to a gallery; a person with the same id is replaced."""
        body, photos = await read_body(request, messages.Put, limits, photos=True)
        _check_id(person)
        service = running.service
        side, replaced = await running.run_with_photos(service.put, body, photos, person)
        return messages.Added(id=person, side=side, replaced=replaced)

    @router.delete("/people/{person:path}")
    async def delete(
        person: PersonId,
        erase: Annotated[
            bool, Query(description="Erase at once; else the next erasure does it.")
        ] = True,
    ) -> messages.Erased:
        """Erases a person from galleries, exclusions and the store; no file keeps a trace."""
        _check_id(person)
        if not erase:
            await running.run(running.service.remove, person)
            return messages.Erased(galleries=1, exclusions=0, features=0, metadata=0)
        erased = await running.run(running.service.erase, person)
        store = erased.store
        return messages.Erased(
            galleries=sum(erased.galleries.values()),
            exclusions=sum(erased.exclusions.values()),
            features=0 if store is None else store.features,
            metadata=0 if store is None else store.metadata,
        )

    @router.post("/exclusions", openapi_extra=_body(messages.ExclusionPairs))
    async def exclusions(request: Request) -> messages.Excluded:
        """Adds pairs of people where the second is not shown to the first."""
        body, _ = await read_body(request, messages.ExclusionPairs, limits)
        return messages.Excluded(added=await running.run(running.service.exclude, body))

    @router.delete("/exclusions", openapi_extra=_body(messages.ExclusionPairs))
    async def readmit(request: Request) -> messages.Readmitted:
        """Takes exclusions back; pairs that are not excluded are ignored."""
        body, _ = await read_body(request, messages.ExclusionPairs, limits)
        return messages.Readmitted(removed=await running.run(running.service.readmit, body))

    app.include_router(router)


def _add_state_routes(app: FastAPI, running: Running) -> None:
    @app.get("/health")
    async def health() -> messages.State:
        """Whether the process answers."""
        return messages.State(status="ok")

    @app.get("/ready")
    async def ready() -> messages.State:
        """Whether matcher and galleries are loaded."""
        await running.run(running.service.people)
        return messages.State(status="ok")

    @app.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """Figures for Prometheus."""
        people = await running.run(running.service.people)
        return Response(running.metrics.text(people), media_type=CONTENT_TYPE)


def _check_id(person: str) -> None:
    if not person.strip() or has_surrogates(person) or "\0" in person:
        raise ProblemError("invalid-request", 422, "The path needs an id of valid Unicode.")
