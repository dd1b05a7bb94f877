"""Qdrant as a target of exports: a server, or a folder in local mode."""

from __future__ import annotations

import os
import re
import uuid
import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, final
from urllib.parse import urlsplit

from pairmatch.core.arrays import Vectors
from pairmatch.core.errors import ConfigurationError, PairmatchError, StoreError, missing_extra
from pairmatch.gallery.attributes import Attributes
from pairmatch.gallery.export.target import Contents, ExportTarget, batches, merged_kinds
from pairmatch.gallery.request import SearchRequest
from pairmatch.rules import Kind, person_columns
from pairmatch.rules.qdrant import to_qdrant

#: Namespace of the UUIDs (version 5) that stand for ids; part of the format.
NAMESPACE = uuid.UUID("7b1d7a2e-5c0f-5c8e-9d57-2f1f6f0d8a11")
_VARIABLE = "QDRANT_API_KEY"
_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_CODED = "attribute_"
_INDEX_TYPES: dict[Kind, str] = {"number": "float", "text": "keyword", "bool": "bool"}


@final
class QdrantTarget(ExportTarget):
    """A collection whose points hold `id` and the attributes in their payload.

    The id of a point is the UUID (version 5) of the person's id. Missing attributes are absent from
    the payload. An API key comes from the environment variable `QDRANT_API_KEY`.

    Args:
        place: URL of a server, or path to a folder for the local mode, which one process at a time
            may open.
        collection: Name of the collection.

    Raises:
        MissingExtraError: qdrant-client is not installed.
        ConfigurationError: The URL holds a user or a password.
        StoreError: The server cannot be reached.
    """

    def __init__(self, place: str | Path, collection: str = "people") -> None:
        try:
            import qdrant_client
        except ImportError as error:
            raise missing_extra("QdrantTarget", "qdrant-client", "qdrant") from error
        self._collection = collection
        is_url = str(place).startswith(("http://", "https://"))
        if is_url and (urlsplit(str(place)).username or urlsplit(str(place)).query):
            raise ConfigurationError(
                f"The address of Qdrant must hold no key: leave it out, and set {_VARIABLE}."
            )
        resolved = str(place) if is_url else str(Path(place).expanduser().resolve())
        super().__init__(f"{'' if is_url else 'qdrant:'}{resolved}#{collection}")
        self._is_local = not is_url
        with self._errors():
            self._client = (
                qdrant_client.QdrantClient(
                    url=resolved, api_key=os.environ.get(_VARIABLE), check_compatibility=False
                )
                if is_url
                else qdrant_client.QdrantClient(path=resolved)
            )

    @property
    def contents(self) -> Contents | None:
        with self._errors():
            if not self._client.collection_exists(self._collection):
                return None
            about = self._client.get_collection(self._collection).config.metadata or {}
        return Contents.from_json(about.get("pairmatch"), self.address)

    def prepare(self, contents: Contents) -> None:
        from qdrant_client import models

        existing = self.contents
        known = {} if existing is None else existing.kinds
        if existing is not None:
            existing.check_same(contents, self.address)
        kinds = merged_kinds(known, contents.kinds, self.address)
        made_by = contents.made_by if existing is None else existing.made_by or contents.made_by
        about = Contents(contents.width, contents.side, made_by, kinds)
        metadata = {"pairmatch": about.to_json()}
        with self._errors():
            if existing is None:
                self._client.create_collection(
                    self._collection,
                    vectors_config=models.VectorParams(
                        size=contents.width, distance=models.Distance.DOT
                    ),
                    metadata=metadata,
                )
            else:
                self._client.update_collection(self._collection, metadata=metadata)
            for name, kind in kinds.items():
                if name not in known and not self._is_local:  # the local mode has no indexes
                    self._client.create_payload_index(
                        self._collection, _key(name), field_schema=_INDEX_TYPES[kind]
                    )

    def upsert(self, ids: Sequence[str], attributes: Sequence[Attributes], vectors: Vectors) -> int:
        from qdrant_client import models

        points = [
            models.PointStruct(
                id=point_id(person),
                vector=vector.tolist(),
                payload={"id": person, **{_key(name): value for name, value in row.items()}},
            )
            for person, row, vector in zip(ids, attributes, vectors, strict=True)
        ]
        with self._errors():
            self._client.upsert(self._collection, points, wait=True)
        return len(points)

    def delete(self, ids: Sequence[str]) -> int:
        known = self.known(ids)
        for part in batches(sorted(known)):
            with self._errors():
                points = [point_id(person) for person in part]
                self._client.delete(self._collection, points, wait=True)
        return len(known)

    def known(self, ids: Collection[str]) -> set[str]:
        found: set[str] = set()
        for part in batches(ids):
            with self._errors():
                records = self._client.retrieve(
                    self._collection, [point_id(person) for person in part], with_payload=["id"]
                )
            found |= {record.payload["id"] for record in records if record.payload}
        return found

    def ids(self) -> Iterator[list[str]]:
        offset = None
        while True:
            with self._errors():
                records, offset = self._client.scroll(
                    self._collection, limit=1000, offset=offset, with_payload=["id"]
                )
            yield [record.payload["id"] for record in records if record.payload]
            if offset is None:
                return

    def build_index(self) -> None:
        """Does nothing: Qdrant builds and maintains an HNSW index by itself."""

    def _filter(
        self, request: SearchRequest, contents: Contents, person: Attributes
    ) -> dict[str, Any] | None:
        if request.rule is None:
            return None
        keys = {name: _key(name) for name in contents.kinds}
        parts = [
            to_qdrant(request.rule, keys, contents.kinds, person_columns(person), swapped=swapped)
            for swapped in ([False, True] if request.mutual else [False])
        ]
        return {"must": parts} if len(parts) > 1 else parts[0]

    def _nearest(
        self, query: Vectors, k: int, condition: Any, exact: bool
    ) -> list[tuple[str, float]]:
        from qdrant_client import models

        with self._errors():
            response = self._client.query_points(
                self._collection,
                query=query.tolist(),
                query_filter=None if condition is None else models.Filter(**condition),
                search_params=None if self._is_local else models.SearchParams(exact=exact),
                limit=k,
                with_payload=["id"],
            )
        return [(point.payload["id"], point.score) for point in response.points if point.payload]

    def close(self) -> None:
        self._client.close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Errors of the client become those of pairmatch."""
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Local mode")  # its speed, for many points
                yield
        except PairmatchError:
            raise
        except Exception as error:  # of httpx, grpc, portalocker and of the client itself
            words = " ".join(str(error).split()) or type(error).__name__
            raise StoreError(f"{self.address} cannot be used: {words[:500]}") from error


def point_id(person: str) -> str:
    """UUID of the point of a person."""
    return str(uuid.uuid5(NAMESPACE, person))


def _key(name: str) -> str:
    """Key of an attribute in payloads; names that the syntax of keys does not hold are coded."""
    if _PLAIN_KEY.fullmatch(name) and name != "id" and not name.startswith(_CODED):
        return name
    return _CODED + name.encode().hex()
