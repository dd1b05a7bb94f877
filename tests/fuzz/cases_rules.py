"""Rules: generated ones against SQLite and both kinds of gallery, and mutated texts."""

import random
import sqlite3
from pathlib import Path
from typing import Any

from .mutations import TEXTS, mutate_text
from .people import attributes, crowd, vectors
from .subject import Case, Subject

_PEOPLE = 40
_NUMBERS = ("age", "height", "income", "children")
_COMPARISONS = ("=", "==", "!=", "<>", "<", "<=", ">", ">=")
_QUERY = {"age": 33, "region": "north", "smoker": False, "height": 1.75}
_LANCE_SHARE = 0.1
_LONG = (
    " or ".join(["age = 1"] * 1100),
    " and ".join(["age > 1"] * 900),
    "age in (" + ", ".join(map(str, range(1500))) + ")",
    "(" * 300 + "age = 1" + ")" * 300,
    "not " * 200 + "smoker",
    "age > " + "1" * 400,
    "age > 1e",
    "age > 1e400",
    "age > 0x10",
    "age > .5.",
    "-" * 500 + "age > 1",
    "age" + " + 1" * 500 + " > 3",
    "abs(" * 90 + "age" + ")" * 90 + " > 1",
    "age > date '2026-13-45'",
    "region like '%'",
    "region = 'a' || 'b'",
    "case when age > 1 then true end",
    "age between 1 and 2 and 3",
    "cast(age as text) = '1'",
    "age::text = '1'",
    "`age` > 1 and [age] > 1",
    "select 1",
    "age > 1 -- comment",
    "age > /* x */ 1",
    "a.b > 1",
    "query.query.age > 1",
    '"embedding" is null',
    '"_distance" > 1',
    '"_rowid" = 1',
    "age > ?",
    "age > :x",
    "age = $1",
    "{{ age }} = 1",
)


class Rules(Subject):
    """Rules that select candidates; a valid rule selects what SQLite selects."""

    name = "rules"
    weight = 14

    def __init__(self) -> None:
        self._galleries: dict[str, Any] = {}

    def prepare(self, corpus: Path) -> None:
        from pairmatch import Gallery

        gallery = Gallery.of(crowd(_PEOPLE), vectors(_PEOPLE))
        gallery.save(corpus / "gallery")

    def write(self, case: Case) -> None:
        rng = case.rng
        act = rng.random()
        valid = _condition(rng, rng.choice((1, 2, 3)))
        text = valid if act < 0.5 else mutate_text(rng, valid)
        if act > 0.9:
            text = rng.choice((*_LONG, rng.choice(TEXTS), mutate_text(rng, rng.choice(_LONG))))
        (case.input / "rule.sql").write_bytes(text.encode("utf-8", "surrogatepass"))
        (case.input / "is-valid").write_text("yes" if act < 0.5 else "")

    def use(self, case: Case) -> None:
        from pairmatch.rules import parse_rule

        text = (case.input / "rule.sql").read_bytes().decode("utf-8", "surrogatepass")
        is_valid = bool((case.input / "is-valid").read_text())
        results = {}
        for name in ("memory", "folder", *(("lance",) if case.rng.random() < _LANCE_SHARE else ())):
            found = case.attempt(lambda name=name: self._search(case.corpus, name, text))
            results[name] = None if found is None else sorted(found)
        case.attempt(lambda: parse_rule([text, text]).clauses)
        shown = {name: found and found[:8] for name, found in results.items()}
        case.expect(len(set(map(str, results.values()))) == 1, f"{text[:300]!r}: {shown}")
        if is_valid:
            case.expect(
                results["memory"] == _selected_by_sqlite(text),
                f"{text!r}: {results['memory']}, SQLite {_selected_by_sqlite(text)}",
            )

    def _search(self, corpus: Path, name: str, text: str) -> list[str]:
        """Ids that a gallery selects by a rule."""
        result = self._gallery(corpus, name).search(
            vectors(1, seed=1), _PEOPLE, where=text, asking=[_QUERY]
        )
        return [person for person, _ in result.candidates(0)]

    def _gallery(self, corpus: Path, name: str) -> Any:
        from pairmatch import Gallery
        from pairmatch.gallery import LanceGallery

        if name not in self._galleries:
            if name == "folder":
                self._galleries[name] = Gallery.open(corpus / "gallery")
            else:
                people, embeddings = crowd(_PEOPLE), vectors(_PEOPLE)
                if name == "memory":
                    gallery = Gallery.of(people, embeddings)
                else:
                    # Outside of the case's own temporary folder
                    gallery = LanceGallery(Path.cwd() / f"lance-{id(self)}")
                    gallery.add(people, embeddings)
                self._galleries[name] = gallery
        return self._galleries[name]


def _selected_by_sqlite(text: str) -> list[str]:
    """Ids of the people for whom SQLite, with the same three-valued logic, says true."""
    names = ("age", "region", "smoker", "height", "income", "children")
    base = sqlite3.connect(":memory:")
    base.execute(f"CREATE TABLE people (id, {', '.join(names)})")
    rows = [
        (f"p{number}", *(attributes(number).get(name) for name in names))
        for number in range(_PEOPLE)
    ]
    base.executemany(f"INSERT INTO people VALUES (?{', ?' * len(names)})", rows)
    for name, value in _QUERY.items():
        bound = f"'{value}'" if isinstance(value, str) else str(value)
        text = text.replace(f"query.{name}", bound)
    # SQLite divides integers to integers
    text = text.replace(" / ", " * 1.0 / ")
    selected = base.execute(f"SELECT id FROM people WHERE {text}").fetchall()
    base.close()
    return sorted(person for (person,) in selected)


def _condition(rng: random.Random, depth: int) -> str:
    if depth and rng.random() < 0.7:
        first, second = (_condition(rng, depth - 1) for _ in range(2))
        return rng.choice(
            (f"({first} and {second})", f"({first} or {second})", f"not ({first})", f"{first}")
        )
    kind = rng.randrange(9)
    number = _number(rng, 2)
    if kind < 4:
        return f"{number} {rng.choice(_COMPARISONS)} {_number(rng, 1)}"
    if kind == 4:
        return f"{number} between {_number(rng, 0)} and {_number(rng, 0)}"
    if kind == 5:
        values = ", ".join(_literal(rng) for _ in range(rng.choice((1, 3))))
        return f"{number}{rng.choice((' not', ''))} in ({values})"
    if kind == 6:
        name = rng.choice((*_NUMBERS, "region", "smoker", "query.age"))
        return f"{name} is{rng.choice((' not', ''))} null"
    if kind == 7:
        texts = ("'north'", "'Da''ejeon'", "'대전'", "'o'", "''", "query.region", "region")
        return f"region {rng.choice(_COMPARISONS)} {rng.choice(texts)}"
    return rng.choice(("smoker", "not smoker", "smoker = true", "smoker != query.smoker"))


def _number(rng: random.Random, depth: int) -> str:
    if depth and rng.random() < 0.4:
        first, second = _number(rng, depth - 1), _number(rng, depth - 1)
        form = rng.choice(("({} {} {})", "abs({} {} {})"))
        return form.format(first, rng.choice(("+", "-", "*", "/")), second)
    if rng.random() < 0.6:
        return rng.choice((*_NUMBERS, '"age"', "query.age", "query.height"))
    return _literal(rng)


def _literal(rng: random.Random) -> str:
    return rng.choice(("0", "1", "30", "1.5", "1.75", "2000", "-1", "1e2", "0.5"))
