"""Eligibility rules: SQL logic on columns, and error messages with positions."""

import sqlite3

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pairmatch.core.errors import ConfigurationError
from pairmatch.rules import Column, parse_rule, person_columns

KINDS = {"age": "number", "region": "text", "smoker": "bool", "height": "number"}


def columns(**values):
    return {name: Column.of(column) for name, column in values.items()}


PEOPLE = columns(
    age=[30, 24, None, 41],
    region=["north", "Da'ejeon", "south", None],
    smoker=[False, True, None, False],
    height=[1.7, 1.8, 1.6, None],
)


def holds(text, query=None):
    rule = parse_rule(text)
    rule.check(KINDS)
    masks = rule.holds(PEOPLE, person_columns(query or {}), 4)
    return np.logical_and.reduce(masks).tolist()


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("age >= 30", "0 3"),
        ("age>30", "3"),
        ("age between 24 and 30 and smoker = false", "0"),
        ("region in ('north', 'Da''ejeon')", "0 1"),
        ("region not in ('north')", "1 2"),
        ("region = 'nowhere'", ""),
        ("not (age < 30 or region = 'south')", "0"),  # unknown or false for all others
        ("age is null", "2"),
        ("age is not null and height == 1.70", "0"),
        ("smoker != true or height < 1.65", "0 2 3"),
        ("smoker", "1"),
        ("abs(age - 32) <= 2", "0"),
        ("-age + 2 * 20 > age / 2", "1"),
        ("1 / (age - 30) > 0", "3"),  # a division by zero is unknown
        ("not (1 / (age - 30) < 0)", "3"),
        ("1 / (age - 30) is null", "0 2"),
        ("1 / (1 / (age - 30)) >= 0", "3"),
        ("age * 1e308 > 0", ""),  # an overflow is unknown
        ('"age" = 41', "3"),
        (["age > 20", "age < 30"], "1"),
        ("region > 'o'", "2"),
        ("'south' = region", "2"),
    ],
)
def test_rules(rule, expected):
    assert [str(row) for row, is_true in enumerate(holds(rule)) if is_true] == expected.split()


def test_query_refers_to_the_query_person():
    assert holds("abs(age - query.age) <= 6", {"age": 35}) == [True, False, False, True]
    assert holds("region = query.region", {"region": "south"}) == [False, False, True, False]
    assert holds("region = query.region", {}) == [False] * 4
    rule = parse_rule("age >= query.age and region = 'north'")
    assert rule.query_attributes == ("age",)
    assert rule.attributes == ("age", "region")
    assert rule.clauses == ("age >= query.age", "region = 'north'")
    # With the roles swapped, the query person is the row and the candidates are `query`
    person = person_columns({"age": 30, "region": "north"})
    assert rule.holds(person, PEOPLE, 4)[0].tolist() == [True, True, False, False]


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("age >", "character 5: something is missing here"),
        ("age ~ 3", "character 5: '~' is not expected here"),
        (">= 3", "something is missing here"),
        ("region = 'north", "a quote is not closed"),
        ("", "it needs one condition"),
        ("age", "character 1: age is not a condition"),
        ("age = 1; drop table people", "it needs one condition"),
        ("(select 1) = age", "is not supported"),
        ("age in (select 1)", "needs a list of values"),
        ("__import__('os')", "is not supported"),
        ("read_csv('x') = 1", "is not supported"),
        ("lower(region) = 'x'", "is not supported"),
        ("age = null", "write `is null`"),
        ("null is null", "write `is null`"),
        ("other.age = 3", "the only prefix of a name is `query.`"),
        (
            "agee > 3",
            "character 1: Unknown attribute 'agee'. Did you mean 'age'? "
            "Known: age, height, region, smoker",
        ),
        ("region = north", "Put text in quotes: 'north'"),
        ("query.agee > 3", "Did you mean 'age'?"),
        ("age > 'old'", "character 1: age is a number, 'old' is text"),
        ("age + region > 3", "character 7: region is text, arithmetic needs numbers"),
        ("smoker > true", "has no order"),
        ("age in (1, 'x')", "'x' is text"),
        ("region = 1234", "1234 is a number. Put text in quotes: '1234'"),
        ("region in ('a', 54321)", "Put text in quotes: '54321'"),
        ("region between 1 and 'b'", "Put text in quotes: '1'"),
        ("age = '31'", "'31' is text. Write numbers without quotes: 31"),
        ("age > 1 or height", "character 12: height is not a condition"),
        ("(" * 4000 + "age = 1" + ")" * 4000, "nested too deeply"),
        ("age" + " + age" * 1000 + " > 1", "nested too deeply"),
        ("not " * 500 + "smoker", "nested too deeply"),
        ("age = 1 or " * 1000 + "age = 2", "at most 10,000 characters"),
    ],
)
def test_errors_have_positions(rule, message):
    with pytest.raises(ConfigurationError) as error:
        parse_rule(rule).check(KINDS)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("age > 1e", "'1e' is not a number"),
        ("age > 1_e5", "is not"),
        ("age > " + "9" * 400, "the number 99999999999999999999… is too large"),
        ("age in (1, -1e999)", "the number 1e999 is too large"),
        ("age > date '9999-99-99'", "is not supported"),
        ("age > interval '1' year", "is not supported"),
        ("age between symmetric 50 and 1", "is not supported"),
        ("age > '2024-13-45'", "age is a number, '2024-13-45' is text"),
        ("(" * 120 + "age = 1" + ")" * 120, "character 101: it is nested too deeply"),
        ("age = 1 or (" * 400 + "age = 1" + ")" * 400, "nested too deeply"),
        ("[" * 5000, "nested too deeply"),
        ("abs(" * 300 + "age" + ")" * 300 + " > 1", "nested too deeply"),
        ("- " * 3000 + "age > 1", "nested too deeply"),
        ("case " * 1500, "cannot be used"),
        ("age > 1\0", "character 8: this character is not allowed"),
        ("region = '\ud800'", "character 11: this character is not allowed"),
        ('region = "a', "a quote is not closed"),
        ("age > 1 or" + " age > 1 or" * 20 + " aeg > 1", "Did you mean 'age'?"),
        ("\u202eagee > 1", "cannot be used"),
        (["age > 1"] * 2000, "at most 10,000 characters, got 14,000"),
        ([5], "A rule must be text, got int"),
        (b"age > 1", "A rule must be text, got int"),
    ],
)
def test_hostile_rules_are_one_error(rule, message):
    with pytest.raises(ConfigurationError) as error:
        parse_rule(rule).check(KINDS)
    assert message in str(error.value)
    assert len(str(error.value)) < 1500
    assert "\ud800" not in str(error.value)
    assert "\u202e" not in str(error.value)


TOKENS = [
    *("age", "region", "smoker", "query.age", "1", "1e", "-1e309", "'x'", "'", '"', "`", "(", ")"),
    *("[", "]", "{", "}", ",", ".", ";", ":", "?", "@", "$", "%", "^", "&", "|", "--", "/*", "*/"),
    *("and", "or", "not", "in", "is", "null", "between", "=", "!=", "<>", "<", ">=", "+", "*", "/"),
    *("||", "::", "abs", "case", "when", "then", "end", "select", "from", "date", "cast", "as"),
    *("like", "true", "\\", "é", "나", "{{", "}}", "{%", "\0", "\ud800", ""),
]


@settings(deadline=None, max_examples=300)
@given(
    st.lists(
        st.sampled_from(TOKENS),
        max_size=14,
    ).map(" ".join)
)
def test_any_text_is_a_rule_or_one_error(text):
    try:
        rule = parse_rule(text)
        rule.check(KINDS)
    except ConfigurationError:
        return
    assert [len(mask) for mask in rule.holds(PEOPLE, {}, 4)] == [4] * len(rule.clauses)


def test_a_division_by_zero_and_nan_are_unknown():
    people = columns(
        income=[50, 50, 0, float("nan"), 50],
        children=[0, 2, 0, 1, None],
    )
    for rule, expected in (
        ("income / children > 20", [False, True, False, False, False]),
        ("not (income / children > 20)", [False] * 5),
        ("income / children is null", [True, False, True, True, True]),
        ("income / children != 1", [False, True, False, False, False]),
        ("income / children > 20 or income >= 0", [True, True, True, False, True]),
    ):
        assert parse_rule(rule).holds(people, {}, 5)[0].tolist() == expected


def test_all_errors_are_reported_at_once():
    with pytest.raises(ConfigurationError) as error:
        parse_rule("agee > 3 and region > 2 and smoker = 1").check(KINDS)
    assert str(error.value).count("character") == 3


def test_long_chains_are_not_nested():
    for word, expected in (("and", []), ("or", [0])):
        rule = f" {word} ".join(["age=30", *["age=1"] * 900])
        assert [row for row, is_true in enumerate(holds(rule)) if is_true] == expected


def test_nan_is_a_missing_value():
    people = columns(age=[float("nan"), 30.0])
    for rule in ("age > 1", "age != 1", "not (age = 1)"):
        assert parse_rule(rule).holds(people, {}, 2)[0].tolist() == [False, True]
    assert parse_rule("age is null").holds(people, {}, 2)[0].tolist() == [True, False]


def test_attributes_of_mixed_kinds_are_errors():
    with pytest.raises(ConfigurationError, match="a number and text"):
        Column.of([1, "x"])
    with pytest.raises(ConfigurationError, match="got list"):
        Column.of([[]])


# Oracle: SQLite evaluates the same text on the same rows.
numbers = st.sampled_from(
    ["age", "height", "3", "30", "1.5", "abs(age - 31)", "age + height", "-height"]
)
simple = st.one_of(
    st.tuples(numbers, st.sampled_from(["=", "!=", "<", "<=", ">", ">="]), numbers).map(" ".join),
    st.tuples(numbers, numbers, numbers).map(lambda t: "{} between {} and {}".format(*t)),
    st.sampled_from(
        [
            "age in (24, 30, 41)",
            "height not in (1.5)",
            "age is null",
            "smoker = true",
            "smoker",
            "not smoker",
        ]
    ),
    st.sampled_from(
        ["region = 'north'", "region < 'o'", "region in ('south', 'x')", "region is not null"]
    ),
)
conditions = st.recursive(
    simple,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(
            lambda t: "({} {} {})".format(*t)
        ),
        inner.map("not ({})".format),
    ),
    max_leaves=8,
)
people = st.lists(
    st.tuples(
        st.one_of(st.none(), st.integers(20, 45)),
        st.one_of(st.none(), st.sampled_from(["north", "south", "x"])),
        st.one_of(st.none(), st.booleans()),
        st.one_of(st.none(), st.sampled_from([1.5, 1.75])),
    ),
    min_size=1,
    max_size=12,
)


@settings(deadline=None, max_examples=200)
@given(text=conditions, rows=people)
def test_rules_agree_with_sqlite(text, rows):
    base = sqlite3.connect(":memory:")
    base.execute("CREATE TABLE people (age, region, smoker, height)")
    base.executemany("INSERT INTO people VALUES (?, ?, ?, ?)", rows)
    expected = {row - 1 for (row,) in base.execute(f"SELECT rowid FROM people WHERE {text}")}
    base.close()
    candidates = columns(
        **dict(
            zip(
                ["age", "region", "smoker", "height"],
                map(list, zip(*rows, strict=True)),
                strict=True,
            )
        )
    )
    masks = parse_rule(text).holds(candidates, {}, len(rows))
    assert set(np.flatnonzero(np.logical_and.reduce(masks)).tolist()) == expected
