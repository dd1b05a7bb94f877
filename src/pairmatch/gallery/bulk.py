"""Everybody's slate at once, streamed to Parquet files, resumable."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.progress import track

from pairmatch.core.arrays import Ints
from pairmatch.core.errors import ConfigurationError, DataError
from pairmatch.core.types import Side
from pairmatch.gallery.exclusions import Exclusions
from pairmatch.gallery.gallery import Gallery
from pairmatch.gallery.selection import Where
from pairmatch.io.files import write_file

_SETTINGS = "slates.json"
_PEOPLE = 1024  # of one file
_SCHEMA = pa.schema(
    [("id", pa.string()), ("rank", pa.int32()), ("candidate", pa.string()), ("score", pa.float32())]
)


class Slates:
    """Saved slates: a folder of Parquet files with the columns `id`, `rank` (from 1), `candidate`, `score`.

    `a-00000.parquet` and so on hold what people of side a are shown, `b-…` the other way round.

    Args:
        folder: As `recommend_all` left it.

    Raises:
        DataError: There are no slates.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not (self.folder / _SETTINGS).exists():
            raise DataError(f"{folder} holds no slates (no {_SETTINGS}).")

    def files(self, side: Side | None = None) -> list[Path]:
        """The Parquet files, of one side or of both, in order."""
        return sorted(self.folder.glob(f"{side or '[ab]'}-*.parquet"))

    def table(self, side: Side = "a") -> pa.Table:
        """All slates of a side as one Arrow table."""
        return pa.concat_tables(
            [_SCHEMA.empty_table(), *(pq.read_table(file) for file in self.files(side))]
        )

    def of(self, person: str, side: Side = "a") -> list[tuple[str, float]]:
        """What one person is shown: candidates and scores, best first."""
        rows: list[tuple[str, float]] = []
        for file in self.files(side):
            found = pq.read_table(file, filters=[("id", "==", person)])
            rows += zip(found["candidate"].to_pylist(), found["score"].to_pylist(), strict=True)
        return rows

    def exposure(self, side: Side, candidates: Sequence[str]) -> Ints:
        """[candidates] int64: in how many slates of a side each candidate stands."""
        wanted = pa.array(candidates, pa.string())
        counts = np.zeros(len(candidates), np.int64)
        for file in self.files(side):
            place = pc.index_in(
                pq.read_table(file, columns=["candidate"])["candidate"], value_set=wanted
            )
            counts += np.bincount(place.drop_null().to_numpy(), minlength=len(candidates))
        return counts

    def forget(self, ids: Iterable[str]) -> int:
        """Erases people: their slates and their places in those of others.

        Returns:
            Number of rows that are gone.
        """
        gone = 0
        wanted = pa.array(list(ids), pa.string())
        for file in self.files():
            table = pq.read_table(file)
            hit = pc.or_(
                pc.is_in(table["id"], value_set=wanted),
                pc.is_in(table["candidate"], value_set=wanted),
            )
            kept = table.filter(pc.invert(hit))
            if len(kept) < len(table):
                gone += len(table) - len(kept)
                _write(file, kept)
        for file in self.folder.glob(
            ".[ab]-*.parquet.*"
        ):  # a run that was killed while it wrote left half of a file
            file.unlink(missing_ok=True)
        return gone


def recommend_all(
    people_a: Gallery,
    people_b: Gallery | None,
    folder: str | Path,
    k: int = 20,
    *,
    where: Where = None,
    mutual: bool = False,
    exclude: Exclusions | None = None,
    bonus_a: npt.NDArray[np.floating] | None = None,
    bonus_b: npt.NDArray[np.floating] | None = None,
    progress: bool = False,
) -> Slates:
    """Everybody's best candidates on the other side, both ways, a file for every 1,024 people.

    A run that was killed goes on where it stopped; with other people or settings the folder is
    refused.

    Args:
        people_a: Those of side a.
        people_b: Those of side b; None where anyone may match anyone in `people_a`.
        folder: Made where it is not there; private to its owner.
        k: Candidates per person, at least 1.
        where: Rule for candidates, as in `Gallery.search`; `query.…` is whoever asks, on either
            side.
        mutual: The rule must hold the other way round too.
        exclude: Who is not shown to whom.
        bonus_a: [N] added to the score of each of side a as a candidate, for example by `balance`.
        bonus_b: [M] the same of side b.
        progress: Shows a progress bar.

    Raises:
        ConfigurationError: The folder holds slates of other people or settings, or a rule cannot be
            used.
    """
    if k < 1:
        raise ConfigurationError(f"`recommend_all(k=...)` must be at least 1, got {k}.")
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True, mode=0o700)
    rules = [where] if isinstance(where, str) else list(where or ())
    settings: dict[str, Any] = {
        "k": k,
        "where": rules,
        "mutual": mutual,
        "exclusions": None if exclude is None else exclude.digest(),
        "sides": 1 if people_b is None else 2,
        "people_a": _digest(people_a, bonus_a),
        "people_b": None if people_b is None else _digest(people_b, bonus_b),
    }
    known = target / _SETTINGS
    if known.exists():
        before = json.loads(known.read_text())
        differing = [name for name, value in settings.items() if before.get(name) != value]
        if differing:
            raise ConfigurationError(
                f"{target} holds slates that differ in {', '.join(differing)}: name another folder, or remove this one."
            )
    else:
        write_file(known, (json.dumps(settings, indent=2) + "\n").encode(), private=True)
    directions: list[tuple[Side, Gallery, Gallery, npt.NDArray[np.floating] | None]] = [
        (
            "a",
            people_a,
            people_a if people_b is None else people_b,
            bonus_a if people_b is None else bonus_b,
        )
    ]
    if people_b is not None:
        directions.append(("b", people_b, people_a, bonus_a))
    for side, asking, candidates, bonus in directions:
        parts = -(-len(asking) // _PEOPLE)
        chunks = track(
            asking.chunks(_PEOPLE), f"Slates of side {side}", total=parts, disable=not progress
        )
        for number, (ids, attributes, vectors) in enumerate(chunks):
            file = target / f"{side}-{number:05}.parquet"
            if file.exists():
                continue
            hidden = [{person, *(exclude.of(person) if exclude else ())} for person in ids]
            found = candidates.search(
                vectors,
                k,
                where=rules or None,
                asking=attributes,
                mutual=mutual,
                excluded=hidden,
                bonus=bonus,
            )
            there = np.isfinite(found.scores)
            rank = np.broadcast_to(np.arange(1, k + 1, dtype=np.int32), there.shape)
            columns = [
                np.repeat(np.array(ids, object), there.sum(1)),
                rank[there],
                found.ids[there],
                found.scores[there],
            ]
            _write(
                file,
                pa.table(
                    dict(zip(_SCHEMA.names, map(pa.array, columns), strict=True)), schema=_SCHEMA
                ),
            )
    return Slates(target)


def _digest(gallery: Gallery, bonus: npt.NDArray[np.floating] | None) -> str:
    """Of people and their vectors, so that files of two galleries are never mixed."""
    digest = hashlib.blake2b(digest_size=16)
    for ids, attributes, vectors in gallery.chunks(65_536):
        digest.update(json.dumps([ids, attributes], sort_keys=True).encode())
        digest.update(np.ascontiguousarray(vectors).data)
    if bonus is not None:
        digest.update(np.ascontiguousarray(bonus, np.float32).data)
    return digest.hexdigest()


def _write(file: Path, table: pa.Table) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    write_file(file, sink.getvalue().to_pybytes(), private=True)
