"""Galleries on disk, their journals, and slates."""

import contextlib
import json
import random
import shutil
import sqlite3
from pathlib import Path
from typing import Any

from .mutations import TEXTS, hostile_value, json_bytes, mutate_bytes, mutate_json
from .people import crowd, vectors
from .subject import Case, Subject, copy

_PEOPLE = 40
_FOREIGN = "notes-of-somebody-else.arrow"


def use_gallery(case: Case, folder: Path) -> None:
    """Reads, searches and changes a gallery; every step is done or refused."""
    from pairmatch import Gallery, Profile

    gallery = Gallery.open(folder)
    with contextlib.suppress(TypeError):  # only a gallery with people knows its width
        width = gallery.width or 8
    queries = vectors(2, seed=3, width=width)
    newcomer = Profile("new", attributes={"age": 30})
    steps: list[Any] = [
        lambda: gallery.ids,
        lambda: gallery.embeddings.sum(),
        lambda: list(gallery),
        lambda: gallery.search(queries, 5).candidates(0),
        lambda: gallery.search(queries, 5, where="age > 30 and region = 'north'").candidates(1),
        lambda: gallery.add([newcomer], queries[:1]),
        lambda: gallery.remove(["p3"]),
        lambda: gallery.profiles(gallery.ids[:3]),
        lambda: gallery.save(),
        lambda: gallery.forget(["p4"]),
    ]
    for step in steps:
        case.attempt(step)


class Galleries(Subject):
    """Galleries whose files are damaged: Arrow files, SQLite files, and folders of LanceDB."""

    name = "galleries"
    weight = 12

    def prepare(self, corpus: Path) -> None:
        from pairmatch import Gallery
        from pairmatch.gallery import LanceGallery

        Gallery.of(crowd(_PEOPLE), vectors(_PEOPLE)).save(corpus / "folder")
        opened = Gallery.open(corpus / "folder")
        opened.add(crowd(5, prefix="later"), vectors(5, seed=2))
        opened.remove(["p7"])
        lance = LanceGallery(corpus / "lance")
        lance.add(crowd(_PEOPLE), vectors(_PEOPLE))

    def write(self, case: Case) -> None:
        rng = case.rng
        kind = "lance" if rng.random() < 0.12 else "folder"
        copy(case.corpus / kind, case.output / "g")
        files = sorted(file for file in (case.output / "g").rglob("*") if file.is_file())
        for _ in range(rng.choice((1, 1, 2))):
            file = rng.choice(files)
            act = rng.randrange(10)
            if act == 0:
                file.unlink(missing_ok=True)
            elif act == 1 and file.suffix == ".arrow":
                file.write_bytes(_arrow(rng))
            elif act == 2:
                copy(rng.choice(files), file.with_name(f"{rng.randrange(9)}.arrow"))
            elif file.exists():
                file.write_bytes(mutate_bytes(rng, file.read_bytes()))
        if kind == "folder" and rng.random() < 0.3:
            (case.output / "g" / _FOREIGN).write_bytes(b"not ours")

    def use(self, case: Case) -> None:
        foreign = case.output / "g" / _FOREIGN
        was_there = foreign.exists()
        try:
            use_gallery(case, case.output / "g")
        finally:
            case.expect(not was_there or foreign.exists(), "a file of somebody else was deleted")


def _arrow(rng: random.Random) -> bytes:
    """A valid Arrow file that is not one of a gallery."""
    import pyarrow as pa

    vector = rng.choice((vectors(5).tolist(), [[1.0]] * 5, [None] * 5, ["x"] * 5, [[]] * 5))
    columns = {
        "id": rng.choice(([f"p{n}" for n in range(5)], [None] * 5, ["p1"] * 5, [1] * 5)),
        "embedding": vector,
        rng.choice(("age", "id", "embedding", "a.b")): [rng.choice((1, {}, b""))] * 5,
    }
    table = pa.table(columns)
    if rng.random() < 0.3:
        table = table.drop_columns([rng.choice(table.column_names)])
    if rng.random() < 0.3:
        values = pa.array([float("nan")] * 40, pa.float32())
        fixed = pa.FixedSizeListArray.from_arrays(values, 8)
        table = pa.table({"id": columns["id"], "embedding": fixed})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


class Journals(Subject):
    """Galleries whose journal is a valid database with hostile rows."""

    name = "journals"
    weight = 8

    def prepare(self, corpus: Path) -> None:
        Galleries().prepare(corpus)
        shutil.rmtree(corpus / "lance")

    def write(self, case: Case) -> None:
        copy(case.corpus / "folder", case.output / "g")
        mutate_database(case.rng, case.output / "g" / "gallery.sqlite")

    def use(self, case: Case) -> None:
        use_gallery(case, case.output / "g")


def mutate_database(rng: random.Random, path: Path) -> None:
    """Changes cells, rows, tables and settings of an SQLite file through SQL."""
    base = sqlite3.connect(path)
    base.execute("PRAGMA journal_mode = DELETE")
    query = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'"
    tables = sorted(name for (name,) in base.execute(query))
    for _ in range(rng.choice((1, 1, 2, 3))):
        table = rng.choice(tables)
        columns = [row[1] for row in base.execute(f"PRAGMA table_info({table})")]
        if not columns:
            continue
        act = rng.randrange(12)
        condition = "random() % 4 = 0" if rng.random() < 0.5 else "true"
        with contextlib.suppress(sqlite3.IntegrityError, sqlite3.OperationalError):
            if act == 0:
                base.execute(f"DELETE FROM {table} WHERE {condition}")
            elif act == 1:
                base.execute(f"DROP TABLE {table}")
            elif act == 2:
                base.execute(f"ALTER TABLE {table} RENAME COLUMN {rng.choice(columns)} TO other")
            elif act == 3:
                setting = rng.choice(("user_version", "application_id"))
                base.execute(f"PRAGMA {setting} = {rng.choice((0, 1, 2, -1, 2**31 - 1))}")
            elif act == 4:
                names = ", ".join(columns)
                cells = [_cell(rng) for _ in columns]
                marks = ", ".join("?" for _ in columns)
                base.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", cells)
            else:
                column = rng.choice(columns)
                statement = f"UPDATE {table} SET {column} = ? WHERE {condition}"
                base.execute(statement, (_cell(rng),))
        base.commit()
    base.close()


def _cell(rng: random.Random) -> Any:
    value = rng.choice(
        (
            None,
            rng.choice(TEXTS),
            rng.choice(("add", "remove", "file", "../../etc/passwd", "x.arrow")),
            b"\xff\x00\x01",
            bytes(32),
            b"\x00\x00\xc0\x7f" * 8,
            0,
            -1,
            2**62,
            1e308,
            json_bytes(hostile_value(rng)).decode(),
            json_bytes({"age": hostile_value(rng)}).decode(),
        )
    )
    return value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value


class SlateFolders(Subject):
    """Slates whose Parquet files or settings are damaged."""

    name = "slates"
    weight = 8

    def prepare(self, corpus: Path) -> None:
        from pairmatch import Gallery
        from pairmatch.gallery import recommend_all

        for side in ("a", "b"):
            people = crowd(_PEOPLE, prefix=side)
            Gallery.of(people, vectors(_PEOPLE), side=side).save(corpus / side)
        recommend_all(Gallery.open(corpus / "a"), Gallery.open(corpus / "b"), corpus / "slates", 5)

    def write(self, case: Case) -> None:
        rng = case.rng
        target = case.output / "slates"
        copy(case.corpus / "slates", target)
        for name in ("a", "b"):
            copy(case.corpus / name, case.output / name)
        settings = target / "slates.json"
        if rng.random() < 0.4:
            value = json.loads(settings.read_text())
            settings.write_bytes(json_bytes(mutate_json(rng, value)))
            return
        file = rng.choice(sorted(target.iterdir()))
        act = rng.randrange(8)
        if act == 0:
            file.unlink()
        elif act < 3 and file.suffix == ".parquet":
            file.write_bytes(_parquet(rng))
        else:
            file.write_bytes(mutate_bytes(rng, file.read_bytes()))

    def use(self, case: Case) -> None:
        from pairmatch import Gallery
        from pairmatch.gallery import Slates, recommend_all

        a, b = Gallery.open(case.output / "a"), Gallery.open(case.output / "b")
        folder = case.output / "slates"
        slates = case.attempt(lambda: Slates(folder))
        if slates is not None:
            for step in (
                lambda: slates.table("a").num_rows,
                lambda: slates.table("b").num_rows,
                lambda: slates.of("a1"),
                lambda: slates.exposure("a", b.ids),
                lambda: slates.forget(["a2", "b3"]),
            ):
                case.attempt(step)
        case.attempt(lambda: recommend_all(a, b, folder, 5))


def _parquet(rng: random.Random) -> bytes:
    """A valid Parquet file that is not one of slates."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {
        "id": rng.choice((["a1", "a1"], [None, None], [1, 2], [b"\xff", b"a"])),
        "rank": rng.choice(([1, 2], [None, -1], ["x", "y"], [1e30, float("nan")])),
        "candidate": rng.choice((["b1", "b2"], [None, "b1"], [1, 2], [["b1"], []])),
        "score": rng.choice(([0.5, 0.4], [float("nan"), 1.0], ["x", "y"], [None, None])),
    }
    table = pa.table(columns)
    if rng.random() < 0.3:
        table = table.drop_columns([rng.choice(table.column_names)])
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return sink.getvalue().to_pybytes()
