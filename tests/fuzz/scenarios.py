"""Works that are killed, and what must hold afterwards.

Each work starts from a copy of the same files. After the kill, everything on disk is whole; after
the work was done again, the result is that of an uninterrupted run.
"""

import hashlib
import json
import os
import sqlite3
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

from .people import crowd, fitted, pairs_of, vectors
from .verdicts import FaultError


def expect(holds: bool, message: str) -> None:
    """Ends the case unless a condition holds."""
    if not holds:
        raise FaultError("wrong", message)


class Scenario(ABC):
    """A work, and the invariants of its files."""

    name: ClassVar[str]
    weight: ClassVar[int] = 10
    needs_server: ClassVar[bool] = False
    imports: ClassVar[tuple[str, ...]] = ()  # slow ones, to be done once for all works

    @abstractmethod
    def prepare(self, folder: Path) -> None:
        """Writes the files that exist before the work; called once per run."""

    def load(self, folder: Path, url: str) -> Any:
        """What the work needs in memory; not part of what is killed."""
        return None

    @abstractmethod
    def work(self, folder: Path, loaded: Any) -> None:
        """The work, which may be done again after a kill."""

    @abstractmethod
    def check(self, folder: Path, done: Path) -> None:
        """Checks the files right after the kill.

        Args:
            folder: Files of the killed work.
            done: Files of an uninterrupted run.
        """

    @abstractmethod
    def compare(self, folder: Path, done: Path) -> None:
        """Checks the files after the work was done again."""


def check_database(path: Path) -> None:
    """Ends the case unless a database is absent or intact."""
    if path.exists():
        base = sqlite3.connect(path)
        (result,) = base.execute("PRAGMA integrity_check").fetchone()
        base.close()
        if result != "ok":
            raise FaultError("half-written", f"{path.name}: {result}")


def features_of(path: Path) -> dict[str, Any]:
    """Vectors and times of all features in a store, by key."""
    base = sqlite3.connect(path)
    rows = {key: rest for key, *rest in base.execute("SELECT key, vector, created FROM features")}
    base.close()
    return rows


class Annotate(Scenario):
    """Metadata from a server that counts what is paid."""

    name = "annotate"
    needs_server = True
    _people = 24
    _concurrency = 4

    def prepare(self, folder: Path) -> None:
        crowd(self._people, folder / "photos")

    def load(self, folder: Path, url: str) -> Any:
        from .api import generator

        return crowd(self._people, folder / "photos"), generator(url, concurrency=self._concurrency)

    def work(self, folder: Path, loaded: Any) -> None:
        from pairmatch.io.store import Store
        from pairmatch.metadata import annotate

        people, maker = loaded
        with Store(folder / "store.sqlite") as store:
            annotate(people, maker, store, allow_upload=True)

    def check(self, folder: Path, done: Path) -> None:
        check_database(folder / "store.sqlite")
        stored = _outcomes(folder)
        expected = _outcomes(done)
        expect(all(expected[key] == value for key, value in stored.items()), "another outcome")
        lost = len(_paid(folder)) - len(stored)
        expect(lost <= self._concurrency, f"{lost} paid answers are lost")
        (folder / "lost").write_text(str(lost))

    def compare(self, folder: Path, done: Path) -> None:
        expect(_outcomes(folder) == _outcomes(done), "other outcomes than an uninterrupted run")
        lost = int((folder / "lost").read_text())
        again = len(_paid(folder)) - self._people
        expect(again <= max(lost, 0), f"{again} photos were paid twice, {lost} were in flight")


def _outcomes(folder: Path) -> dict[str, Any]:
    """Stored outcomes by key."""
    path = folder / "store.sqlite"
    if not path.exists():
        return {}
    base = sqlite3.connect(path)
    tables = {name for (name,) in base.execute("SELECT name FROM sqlite_master")}
    rows = base.execute("SELECT key, outcome FROM metadata") if "metadata" in tables else ()
    outcomes = {key: json.loads(outcome) for key, outcome in rows}
    base.close()
    return outcomes


def _paid(folder: Path) -> list[str]:
    """Photos that the server answered, in order; written by the server."""
    path = folder / "paid.log"
    return path.read_text().split() if path.exists() else []


class Batch(Annotate):
    """Metadata in batches: submitted, and collected in a second run."""

    name = "batch"
    weight = 5
    _people = 8

    def work(self, folder: Path, loaded: Any) -> None:
        from pairmatch.io.store import Store
        from pairmatch.metadata.batch import annotate_in_batches

        people, maker = loaded
        with Store(folder / "store.sqlite") as store:
            for _ in range(2):
                annotate_in_batches(people, maker, store, allow_upload=True)

    def check(self, folder: Path, done: Path) -> None:
        check_database(folder / "store.sqlite")
        (folder / "lost").write_text("0")  # no photo may be in two batches


class Embed(Scenario):
    """Features of people in a store."""

    name = "embed"
    weight = 8
    _people = 40

    def prepare(self, folder: Path) -> None:
        crowd(self._people, folder / "photos")

    def load(self, folder: Path, url: str) -> Any:
        from pairmatch import Matcher

        store = folder / "store.sqlite"
        matcher = Matcher(backbone="descriptor", metadata=None, store=store, device="cpu")
        return crowd(self._people, folder / "photos"), matcher

    def work(self, folder: Path, loaded: Any) -> None:
        people, matcher = loaded
        matcher.features(people)
        matcher.store.close()

    def check(self, folder: Path, done: Path) -> None:
        path = folder / "store.sqlite"
        check_database(path)
        kept = {}
        if path.exists():
            from pairmatch.io.store import Store

            Store(path).close()  # a store that was killed while it was made is completed
            kept = features_of(path)
        expected = features_of(done / "store.sqlite")
        expect(all(expected[key][0] == row[0] for key, row in kept.items()), "another feature")
        times = {key: row[1] for key, row in kept.items()}
        (folder / "kept.json").write_text(json.dumps(times))

    def compare(self, folder: Path, done: Path) -> None:
        rows = features_of(folder / "store.sqlite")
        expected = features_of(done / "store.sqlite")
        expect(
            {key: row[0] for key, row in rows.items()}
            == {key: row[0] for key, row in expected.items()},
            "other features than an uninterrupted run",
        )
        kept = json.loads((folder / "kept.json").read_text())
        expect(all(rows[key][1] == time for key, time in kept.items()), "extracted twice")


class Save(Scenario):
    """Two matchers that are saved in turn to the same folder."""

    name = "save"
    weight = 12
    _rounds = 3

    def prepare(self, folder: Path) -> None:
        people = crowd(48, folder / "photos")
        for name, learner in (("old", "whitened"), ("new", "metric")):
            matcher = fitted(pairs_of(people), folder / "store.sqlite", learner=learner)
            matcher.save(folder / name)
        fitted(pairs_of(people), folder / "store.sqlite").save(folder / "matcher")

    def load(self, folder: Path, url: str) -> Any:
        from pairmatch import Matcher

        return [Matcher.load(folder / name, device="cpu") for name in ("old", "new")]

    def work(self, folder: Path, loaded: Any) -> None:
        for _ in range(self._rounds):
            for matcher in loaded:
                matcher.save(folder / "matcher")

    def check(self, folder: Path, done: Path) -> None:
        loaded = _matcher(folder / "matcher")
        expect(
            loaded in (_matcher(folder / "old"), _matcher(folder / "new")),
            "a mixture of two matchers",
        )

    def compare(self, folder: Path, done: Path) -> None:
        files = [
            {file.name: file.read_bytes() for file in (folder / name).iterdir()}
            for name in ("matcher", "new")
        ]
        expect(files[0] == files[1], "other files than those of the last matcher")


def _matcher(folder: Path) -> tuple[Any, ...]:
    """What a loaded matcher consists of."""
    from pairmatch import Matcher

    matcher = Matcher.load(folder, device="cpu")
    weights = matcher.fitted_head.state_dict()
    values = {name: tensor.numpy().tobytes() for name, tensor in weights.items()}
    return matcher.summary(), values, matcher.history


class Fit(Scenario):
    """A matcher that is fitted and saved over an earlier one."""

    name = "fit"
    weight = 6
    imports = ("torch._dynamo",)  # by optimizers
    _options: ClassVar[dict[str, Any]] = {
        "learner": "contrastive",
        "head": ("mlp", {"width": 4, "hidden": 4}),
        "training": {"epochs": 2},
    }

    def prepare(self, folder: Path) -> None:
        people = crowd(48, folder / "photos")
        fitted(pairs_of(people[:40]), folder / "other.sqlite").save(folder / "matcher")
        fitted(pairs_of(people[:40]), folder / "other.sqlite").save(folder / "old")

    def load(self, folder: Path, url: str) -> Any:
        return pairs_of(crowd(48, folder / "photos"))

    def work(self, folder: Path, loaded: Any) -> None:
        matcher = fitted(loaded, folder / "store.sqlite", **self._options)
        matcher.evaluate(loaded, resamples=10)
        matcher.save(folder / "matcher")
        matcher.store.close()

    def check(self, folder: Path, done: Path) -> None:
        check_database(folder / "store.sqlite")
        loaded = _matcher(folder / "matcher")
        expect(
            loaded in (_matcher(folder / "old"), _matcher(done / "matcher")),
            "a mixture of two matchers",
        )

    def compare(self, folder: Path, done: Path) -> None:
        expect(
            _matcher(folder / "matcher") == _matcher(done / "matcher"),
            "another matcher than an uninterrupted run",
        )


class Command(Scenario):
    """The command `fit`, into a new folder, with a report."""

    name = "command"
    weight = 2

    def prepare(self, folder: Path) -> None:
        people = crowd(80, folder / "photos")
        rows = [
            f"{a.id},{a.id}.png,{b.id},{b.id}.png"
            for a, b in zip(people[:40], people[40:], strict=True)
        ]
        (folder / "pairs.csv").write_text("id_a,image_a,id_b,image_b\n" + "\n".join(rows) + "\n")

    def work(self, folder: Path, loaded: Any) -> None:
        from typer.testing import CliRunner

        from pairmatch.cli import app

        arguments: list[Any] = ["fit", folder / "pairs.csv", "--images", folder / "photos"]
        arguments += ["--backbone", "descriptor", "--metadata", "none", "--learner", "whitened"]
        arguments += ["--store", folder / "store.sqlite", "-o", folder / "matcher"]
        arguments += ["--no-learning-curve", "--quiet", "--device", "cpu"]
        result = CliRunner().invoke(app, list(map(str, arguments)))
        expect(result.exit_code == 0, result.output)

    def check(self, folder: Path, done: Path) -> None:
        from pairmatch import Matcher

        check_database(folder / "store.sqlite")
        if any((folder / "matcher").rglob("matcher.json")):
            Matcher.load(folder / "matcher", device="cpu")
        report = folder / "matcher" / "report.html"
        if report.exists() and "</html>" not in report.read_text():
            raise FaultError("half-written", "report.html")

    def compare(self, folder: Path, done: Path) -> None:
        expect(
            _matcher(folder / "matcher") == _matcher(done / "matcher"),
            "another matcher than an uninterrupted run",
        )
        reports = [(at / "matcher" / "report.html").exists() for at in (folder, done)]
        expect(all(reports), "no report")


class Append(Scenario):
    """People who are added to a gallery and removed, with saves in between."""

    name = "gallery"
    weight = 12
    _rounds = 40

    def prepare(self, folder: Path) -> None:
        from pairmatch import Gallery

        Gallery.of(crowd(60), vectors(60)).save(folder / "g")

    def load(self, folder: Path, url: str) -> Any:
        from pairmatch import Gallery

        return Gallery.open(folder / "g")

    def work(self, folder: Path, loaded: Any) -> None:
        log = os.open(folder / "confirmed.log", os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
        for number in range(self._rounds):
            loaded.add(crowd(3, prefix=f"new{number}-"), vectors(3, seed=number))
            os.write(log, f"add {number}\n".encode())
            if number % 3 == 2:
                loaded.remove([f"new{number - 1}-{n}" for n in range(3)])
                os.write(log, f"remove {number - 1}\n".encode())
            if number % 8 == 7:
                loaded.save()
        loaded.save()

    def check(self, folder: Path, done: Path) -> None:
        from pairmatch import Gallery

        check_database(folder / "g" / "gallery.sqlite")
        gallery = Gallery.open(folder / "g")
        ids = gallery.ids
        log = folder / "confirmed.log"
        lines = [line.split() for line in log.read_text().splitlines()] if log.exists() else []
        added = {int(number) for act, number in lines if act == "add"}
        removed = {int(number) for act, number in lines if act == "remove"}
        expect(len(ids) == len(set(ids)), "a person twice")
        expect({f"p{n}" for n in range(60)} <= set(ids), "people are lost")
        groups: dict[int, int] = {}
        for person in ids:
            if person.startswith("new"):
                number = int(person[3:].partition("-")[0])
                groups[number] = groups.get(number, 0) + 1
        expect(set(groups.values()) <= {3}, "a part of an addition")
        last = max(added, default=-1)  # the next addition or removal was in flight
        lost = added - removed - groups.keys() - {last - 1}
        expect(not lost, f"confirmed additions are lost: {lost}")
        more = groups.keys() - (added - removed) - {last + 1}
        expect(not more, f"removed people are back: {more}")
        gallery.search(vectors(2, seed=9), 5)

    def compare(self, folder: Path, done: Path) -> None:
        from pairmatch import Gallery

        first, second = (Gallery.open(at / "g") for at in (folder, done))
        expect(set(first.ids) == set(second.ids), "other people than an uninterrupted run")
        rows = [dict(zip(g.ids, g.embeddings.tolist(), strict=True)) for g in (first, second)]
        expect(rows[0] == rows[1], "other vectors than an uninterrupted run")
        expect(len(list((folder / "g").glob("*.arrow"))) == 1, "an unused file is left")


class Build(Scenario):
    """Two galleries that are saved in turn to the same folder."""

    name = "build"
    weight = 8
    _rounds = 6

    def prepare(self, folder: Path) -> None:
        for loaded in self.load(folder, "")[:1]:
            loaded.save(folder / "g")

    def load(self, folder: Path, url: str) -> Any:
        from pairmatch import Gallery

        return [
            Gallery.of(crowd(n, prefix=prefix), vectors(n, seed=n))
            for prefix, n in (("old", 700), ("new", 900))
        ]

    def work(self, folder: Path, loaded: Any) -> None:
        for _ in range(self._rounds):
            for gallery in loaded:
                gallery.save(folder / "g")

    def check(self, folder: Path, done: Path) -> None:
        from pairmatch import Gallery

        check_database(folder / "g" / "gallery.sqlite")
        ids = Gallery.open(folder / "g").ids
        wanted = [[f"{prefix}{k}" for k in range(n)] for prefix, n in (("old", 700), ("new", 900))]
        expect(ids in wanted, f"a mixture of two galleries: {len(ids)} people")

    def compare(self, folder: Path, done: Path) -> None:
        from pairmatch import Gallery

        expect(len(Gallery.open(folder / "g")) == 900, "another gallery than the last one")
        expect(len(list((folder / "g").glob("*.arrow"))) == 1, "an unused file is left")


class Slate(Scenario):
    """Slates of all people of two galleries."""

    name = "slates"
    _people: ClassVar[dict[str, int]] = {"a": 3300, "b": 200}

    def prepare(self, folder: Path) -> None:
        from pairmatch import Gallery

        for side, count in self._people.items():
            people = [f"{side}{number}" for number in range(count)]
            Gallery.of(people, vectors(count, seed=count), side=side).save(folder / side)

    def load(self, folder: Path, url: str) -> Any:
        from pairmatch import Gallery

        return [Gallery.open(folder / side) for side in self._people]

    def work(self, folder: Path, loaded: Any) -> None:
        from pairmatch.gallery import recommend_all

        recommend_all(*loaded, folder / "slates", 10)

    def check(self, folder: Path, done: Path) -> None:
        import pyarrow.parquet as pq

        for file in sorted((folder / "slates").glob("*.parquet")):
            try:
                table = pq.read_table(file)
            except Exception as error:
                raise FaultError("half-written", f"{file.name}: {error!r}") from error
            expected = pq.read_table(done / "slates" / file.name)
            expect(table.equals(expected), f"{file.name} differs from an uninterrupted run")

    def compare(self, folder: Path, done: Path) -> None:
        files = [sorted(f.name for f in (at / "slates").iterdir()) for at in (folder, done)]
        expect(files[0] == files[1], f"files {files[0]} instead of {files[1]}")
        self.check(folder, done)


class Forget(Scenario):
    """People who are erased from a store, a gallery and slates."""

    name = "forget"
    weight = 12
    _erased: ClassVar[list[str]] = ["zoe-secret-5", "zoe-secret-17"]

    def prepare(self, folder: Path) -> None:
        from pairmatch import Gallery
        from pairmatch.gallery import recommend_all
        from pairmatch.io.store import Store

        people = crowd(60, prefix="zoe-secret-")
        keys = [hashlib.sha256(person.id.encode()).hexdigest() for person in people]
        with Store(folder / "store.sqlite") as store:
            store.put_features(dict(zip(keys, vectors(60, seed=7, width=300), strict=True)))
            store.link([(person.id, key) for person, key in zip(people, keys, strict=True)])
            store.put_metadata({key: {"metadata": {"caption": f"seen {key}"}} for key in keys})
            store.put_corrections({person.id: {"caption": person.id} for person in people})
        gallery = Gallery.of(people, vectors(60, seed=8))
        gallery.save(folder / "g")
        recommend_all(gallery, None, folder / "slates", 10)

    def work(self, folder: Path, loaded: Any) -> None:
        from pairmatch.gallery import forget
        from pairmatch.io.store import Store

        with Store(folder / "store.sqlite") as store:
            galleries, slates = [folder / "g"], [folder / "slates"]
            forget(self._erased, store=store, galleries=galleries, slates=slates)

    def check(self, folder: Path, done: Path) -> None:
        from pairmatch import Gallery
        from pairmatch.gallery import Slates
        from pairmatch.io.store import Store

        check_database(folder / "store.sqlite")
        check_database(folder / "g" / "gallery.sqlite")
        with Store(folder / "store.sqlite") as store:
            people = store.counts()["people"]
        expect(people in (60, 58), f"{people} people in the store")
        count = len(Gallery.open(folder / "g"))
        expect(count in (60, 58), f"{count} people in the gallery")
        expect(Slates(folder / "slates").table().num_rows >= 400, "slates are lost")

    def compare(self, folder: Path, done: Path) -> None:
        from pairmatch import Gallery

        expect(len(Gallery.open(folder / "g")) == 58, "other people are lost")
        needles = [f"{person}{end}".encode() for person in self._erased for end in ("\0", '"', "z")]
        needles += [hashlib.sha256(person.encode()).hexdigest().encode() for person in self._erased]
        needles += [vectors(60, seed=8)[int(p.rpartition("-")[2])].tobytes() for p in self._erased]
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                content = path.read_bytes()
                found = [needle for needle in needles if needle in content]
                expect(not found, f"{found} in {path.name}")


def scenarios() -> dict[str, Scenario]:
    """All works, by name."""
    kinds: tuple[Scenario, ...] = (
        Annotate(),
        Batch(),
        Embed(),
        Fit(),
        Command(),
        Save(),
        Append(),
        Build(),
        Slate(),
        Forget(),
    )
    return {kind.name: kind for kind in kinds}
