"""Slates for all people of two galleries, streamed to Parquet files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from typing_extensions import Unpack

from pairmatch.core.arrays import Floats, Ints, check_count
from pairmatch.core.errors import ConfigurationError, DataError
from pairmatch.core.progress import track
from pairmatch.core.types import Side
from pairmatch.gallery.blocks import Chunk
from pairmatch.gallery.exclusions import Exclusions
from pairmatch.gallery.gallery import Gallery
from pairmatch.gallery.request import Where
from pairmatch.io.files import write_file

_SETTINGS = "slates.json"
_PEOPLE = 1024  # people per file
_SCHEMA = pa.schema(
    [("id", pa.string()), ("rank", pa.int32()), ("candidate", pa.string()), ("score", pa.float32())]
)


class Slates:
    """Saved slates: Parquet files with the columns `id`, `rank` (from 1), `candidate`, `score`.

    The files `a-00000.parquet` and so on hold the slates of people of side a, `b-…` those of side
    b.

    Args:
        folder: Folder that `recommend_all` wrote.

    Raises:
        DataError: The folder holds no slates.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not (self.folder / _SETTINGS).exists():
            raise DataError(f"{folder} holds no slates (no {_SETTINGS}).")

    def files(self, side: Side | None = None) -> list[Path]:
        """Paths to the Parquet files of one side or of both, in order."""
        return sorted(self.folder.glob(f"{side or '[ab]'}-*.parquet"))

    def table(self, side: Side = "a") -> pa.Table:
        """All slates of a side as one Arrow table."""
        return pa.concat_tables(
            [_SCHEMA.empty_table(), *(pq.read_table(file) for file in self.files(side))]
        )

    def of(self, person: str, side: Side = "a") -> list[tuple[str, float]]:
        """Candidates and scores of the slate of one person, best first."""
        slate: list[tuple[str, float]] = []
        for file in self.files(side):
            rows = pq.read_table(file, filters=[("id", "==", person)])
            slate += zip(rows["candidate"].to_pylist(), rows["score"].to_pylist(), strict=True)
        return slate

    def exposure(self, side: Side, candidates: Sequence[str]) -> Ints:
        """[candidates] int64: number of slates of a side that each candidate is in."""
        wanted = pa.array(candidates, pa.string())
        counts = np.zeros(len(candidates), np.int64)
        for file in self.files(side):
            shown = pq.read_table(file, columns=["candidate"])["candidate"]
            indices = pc.index_in(shown, value_set=wanted).drop_null().to_numpy()
            counts += np.bincount(indices, minlength=len(candidates))
        return counts

    def known(self, ids: Iterable[str]) -> set[str]:
        """Subset of the ids of people who have a slate or are in one."""
        wanted = pa.array(list(ids), pa.string())
        found: set[str] = set()
        for file in self.files():
            for name in ("id", "candidate"):
                shown = pq.read_table(file, columns=[name])[name]
                found.update(shown.filter(pc.is_in(shown, value_set=wanted)).to_pylist())
        return found

    def forget(self, ids: Iterable[str]) -> int:
        """Erases people: their own slates, and their rows in those of others.

        Returns:
            Number of rows erased.
        """
        erased = 0
        wanted = pa.array(list(ids), pa.string())
        for file in self.files():
            table = pq.read_table(file)
            matches = pc.or_(
                pc.is_in(table["id"], value_set=wanted),
                pc.is_in(table["candidate"], value_set=wanted),
            )
            kept = table.filter(pc.invert(matches))
            if len(kept) < len(table):
                erased += len(table) - len(kept)
                _write(file, kept)
        # A run that was killed while it wrote leaves an incomplete file
        for file in self.folder.glob(".[ab]-*.parquet.*"):
            file.unlink(missing_ok=True)
        return erased


class SlateOptions(TypedDict, total=False):
    """Optional arguments of `recommend_all`.

    Attributes:
        where: Rule for candidates, as in `Gallery.search`; `query.…` is the person whose slate it
            is, on either side.
        mutual: Whether the rule must also be true with the roles swapped.
        exclude: Pairs that are not shown.
        bonus_a: [N] added to the scores of people of side a as candidates, for example by
            `balance`.
        bonus_b: [M] the same for side b.
        progress: Whether to show a progress bar.
    """

    where: Where
    mutual: bool
    exclude: Exclusions | None
    bonus_a: Floats | None
    bonus_b: Floats | None
    progress: bool


def recommend_all(
    people_a: Gallery,
    people_b: Gallery | None,
    folder: str | Path,
    k: int = 20,
    **options: Unpack[SlateOptions],
) -> Slates:
    """Writes the best candidates of each person in both directions, one file per 1,024 people.

    A run that was killed resumes after the last complete file. A folder with slates of other people
    or settings is refused.

    Args:
        people_a: People of side a.
        people_b: People of side b; None if all people of `people_a` may match each other.
        folder: Folder, created if it is missing; private to its owner.
        k: Maximum number of candidates per person, at least 1.
        options: Optional arguments, as in `SlateOptions`: `where`, `mutual`, `exclude`, `bonus_a`,
            `bonus_b`, `progress`.

    Raises:
        ConfigurationError: The folder holds slates of other people or settings, or a rule cannot be
            used.
    """
    unknown = [name for name in options if name not in SlateOptions.__annotations__]
    if unknown:
        raise TypeError(f"recommend_all() got an unexpected keyword argument {unknown[0]!r}")
    k = check_count("recommend_all(k=...)", k)
    where = options.get("where")
    rules = [where] if isinstance(where, str) else list(where or ())
    mutual = options.get("mutual", False)
    exclude = options.get("exclude")
    bonus_a = options.get("bonus_a")
    bonus_b = options.get("bonus_b")
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True, mode=0o700)
    settings: dict[str, Any] = {
        "k": k,
        "where": rules,
        "mutual": mutual,
        "exclusions": None if exclude is None else exclude.digest(),
        "sides": 1 if people_b is None else 2,
        "people_a": _digest(people_a, bonus_a),
        "people_b": None if people_b is None else _digest(people_b, bonus_b),
    }
    _claim(target, settings)
    for direction in _directions(people_a, people_b, bonus_a, bonus_b):
        total = -(-len(direction.people) // _PEOPLE)
        label = f"Slates of side {direction.side}"
        shown = options.get("progress", False)
        chunks = track(direction.people.chunks(_PEOPLE), label, total, shown=shown)
        for number, chunk in enumerate(chunks):
            file = target / f"{direction.side}-{number:05}.parquet"
            if not file.exists():
                _write(file, direction.slates(chunk, k, rules, mutual, exclude))
    return Slates(target)


@dataclass(frozen=True, slots=True, eq=False)
class _Direction:
    """People of one side and the candidates that they are shown."""

    side: Side
    people: Gallery
    candidates: Gallery
    bonus: Floats | None

    def slates(
        self, chunk: Chunk, k: int, rules: list[str], mutual: bool, exclude: Exclusions | None
    ) -> pa.Table:
        """The slates of a chunk of people as rows of a file."""
        ids, attributes, vectors = chunk
        result = self.candidates.search(
            vectors,
            k,
            where=rules or None,
            asking=attributes,
            mutual=mutual,
            excluded=[{person, *(exclude.of(person) if exclude else ())} for person in ids],
            bonus=self.bonus,
        )
        filled = np.isfinite(result.scores)
        rank = np.broadcast_to(np.arange(1, filled.shape[1] + 1, dtype=np.int32), filled.shape)
        columns = [
            np.repeat(np.array(ids, object), filled.sum(1)),
            rank[filled],
            result.ids[filled],
            result.scores[filled],
        ]
        arrays = dict(zip(_SCHEMA.names, map(pa.array, columns), strict=True))
        return pa.table(arrays, schema=_SCHEMA)


def _directions(
    people_a: Gallery, people_b: Gallery | None, bonus_a: Floats | None, bonus_b: Floats | None
) -> list[_Direction]:
    if people_b is None:
        return [_Direction("a", people_a, people_a, bonus_a)]
    return [
        _Direction("a", people_a, people_b, bonus_b),
        _Direction("b", people_b, people_a, bonus_a),
    ]


def _claim(folder: Path, settings: dict[str, Any]) -> None:
    """Records the settings of a new folder, or compares them with those recorded."""
    file = folder / _SETTINGS
    if not file.exists():
        write_file(file, (json.dumps(settings, indent=2) + "\n").encode(), private=True)
        return
    recorded = json.loads(file.read_text())
    differing = [name for name, value in settings.items() if recorded.get(name) != value]
    if differing:
        raise ConfigurationError(
            f"{folder} holds slates that differ in {', '.join(differing)}: use another folder, or "
            "remove this one."
        )


def _digest(gallery: Gallery, bonus: Floats | None) -> str:
    """Returns a hash of people and vectors, so that files of two galleries are never mixed."""
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
