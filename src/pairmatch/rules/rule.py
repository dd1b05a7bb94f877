"""Eligibility in words: `age between 25 and 35 and region in ('Daejeon', 'Seoul') and abs(age - query.age) <= 5`.

A rule is one SQL expression over attributes, read by sqlglot and evaluated here on whole columns.
Only what this module names is understood: a rule can neither call anything nor read anything but
attributes. Logic is SQL's: an attribute that somebody does not have is unknown, and whoever a rule
is unknown for is not eligible.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import ClassVar

import numpy as np
import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from pairmatch.core.errors import ConfigurationError, unknown_name
from pairmatch.core.types import AttributeValue
from pairmatch.rules.columns import WORDS, Columns, Kind, Mask, kind_of
from pairmatch.rules.evaluation import ARITHMETIC, COMPARE, evaluate, literal

_LONGEST = 10_000  # characters of a rule


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule that was read; made by `parse_rule`.

    Attributes:
        text: As it was given.
        clauses: The parts that it joins with `and`, as text.
    """

    text: str
    clauses: tuple[str, ...]
    _parts: tuple[exp.Expr, ...] = field(repr=False, compare=False)

    @property
    def query_attributes(self) -> tuple[str, ...]:
        """Attributes of the person who asks that the rule compares with."""
        return tuple(sorted({column.name for column in _columns(self._parts) if column.table}))

    @property
    def attributes(self) -> tuple[str, ...]:
        """Attributes of candidates that the rule looks at."""
        return tuple(sorted({column.name for column in _columns(self._parts) if not column.table}))

    def first(self, count: int) -> Rule:
        """The rule of the first clauses alone."""
        return Rule(" and ".join(self.clauses[:count]), self.clauses[:count], self._parts[:count])

    def check(
        self, kinds: Mapping[str, Kind], query_kinds: Mapping[str, Kind] | None = None
    ) -> None:
        """Looks for attributes that nobody has and for comparisons that make no sense, all at once.

        Args:
            kinds: Of candidates' attributes, by name.
            query_kinds: Of the attributes of those who ask; those of candidates where it is None.

        Raises:
            ConfigurationError: Names each fault with its place in the text.
        """
        checker = _Checker(kinds, {**kinds, **(query_kinds or {})})
        for part in self._parts:
            if checker.kind(part) not in ("bool", None):
                checker.say(part, f"{part.sql()} is no condition: compare it with something")
        if checker.problems:
            raise _fault(self.text, checker.problems)

    def holds(self, own: Columns, query: Columns, count: int) -> list[Mask]:
        """Whom each clause holds for.

        Args:
            own: Columns that bare names mean, of `count` rows or of one.
            query: Columns that `query.…` means, of `count` rows or of one.
            count: Number of people n.

        Returns:
            One [n] bool per clause; a missing attribute is unknown, and unknown is False.
        """
        masks = []
        for part in self._parts:
            masks.append(np.broadcast_to(evaluate(part, own, query).true, (count,)))
        return masks

    def sql(self, query: Mapping[str, AttributeValue]) -> str:
        """The rule as SQL with the values of the person who asks put in, for engines that filter by themselves."""

        def bind(node: exp.Expr) -> exp.Expr:
            if isinstance(node, exp.Column):
                if node.table:
                    return exp.convert(query.get(node.name))
                return exp.column(exp.to_identifier(node.name, quoted=True))
            return node

        return " AND ".join(
            f"({part.copy().transform(bind).sql(dialect=_Backticks)})" for part in self._parts
        )


class _Backticks(sqlglot.Dialect):
    """SQL as DataFusion reads it in Lance: names in backticks."""

    class Tokenizer(sqlglot.Tokenizer):
        IDENTIFIERS: ClassVar[list[str | tuple[str, str]]] = ["`"]


def parse_rule(text: str | Iterable[str]) -> Rule:
    """Reads a rule; several texts must all hold.

    Understood: names of attributes (in double quotes where they are no plain word), `query.` before
    a name for the person who asks, numbers, 'texts', true, false, `= != < <= > >=`, `between … and
    …`, `in (…)`, `is null`, `and or not`, `+ - * /`, `abs(…)`, parentheses.

    Raises:
        ConfigurationError: Not such an expression; says where.
    """
    return _rule((text,) if isinstance(text, str) else tuple(text))


@lru_cache(256)
def _rule(texts: tuple[str, ...]) -> Rule:
    parts = [clause for one in texts for clause in _conjuncts(_parse(one))]
    return Rule(" and ".join(texts), tuple(part.sql() for part in parts), tuple(parts))


def _parse(text: str) -> exp.Expr:
    if len(text) > _LONGEST:
        raise ConfigurationError(f"A rule has at most {_LONGEST:,} characters, got {len(text):,}.")
    log = logging.getLogger("sqlglot")
    level = log.level
    try:
        log.setLevel(logging.ERROR)  # it warns of what is refused below anyhow
        found = sqlglot.parse(text)
        if len(found) != 1 or found[0] is None:
            raise _fault(text, [(None, "it needs one condition, such as age >= 25")])
        problems = list(_refused(found[0]))
    except (SqlglotError, RecursionError) as error:
        details = getattr(error, "errors", None) or [{}]
        place = details[0].get("col")
        near = details[0].get("highlight") or ""
        missing = "Required keyword" in str(error)
        said = (
            f"{near!r} is not expected here"
            if near and not missing
            else "something is missing here"
        )
        if "tokenizing" in str(error):
            said = "a quote is not closed, or a character cannot be read"
        elif isinstance(error, RecursionError):
            said = "it is nested too deeply"
        raise _fault(text, [(place, said)]) from None
    finally:
        log.setLevel(level)
    if problems:
        raise _fault(text, problems)
    return found[0]


def _fault(text: str, problems: Sequence[tuple[int | None, str]]) -> ConfigurationError:
    listed = "; ".join(
        said if place is None else f"character {place}: {said}" for place, said in problems
    )
    return ConfigurationError(f"The rule {text!r} cannot be used: {listed}.")


def _place(node: exp.Expr) -> int | None:
    """Where a node stands, from 1: its first name; literals carry no place."""
    starts = [
        name.meta["start"] + 1 for name in node.find_all(exp.Identifier) if "start" in name.meta
    ]
    return min(starts, default=None)


def _conjuncts(node: exp.Expr) -> Iterator[exp.Expr]:
    if isinstance(node, exp.And):
        yield from _conjuncts(node.this)
        yield from _conjuncts(node.expression)
    elif isinstance(node, exp.Paren):
        yield from _conjuncts(node.this)
    else:
        yield node


def _columns(parts: Iterable[exp.Expr]) -> Iterator[exp.Column]:
    for part in parts:
        yield from part.find_all(exp.Column)


_ALLOWED = (
    *COMPARE,
    *ARITHMETIC,
    *(exp.And, exp.Or, exp.Not, exp.Paren, exp.Neg, exp.Abs, exp.Between, exp.In, exp.Is),
    *(exp.Column, exp.Identifier, exp.Literal, exp.Boolean, exp.Null),
)


def _refused(root: exp.Expr) -> Iterator[tuple[int | None, str]]:
    """What the parser reads and a rule may not hold."""
    for node in root.walk():
        if type(node) not in _ALLOWED:
            yield _place(node), f"{node.sql()!r} is not understood in a rule"
            return
        if isinstance(node, exp.Column) and (
            node.db or node.catalog or (node.table and node.table != "query")
        ):
            yield _place(node), f"{node.sql()!r}: only `query.` may stand before a name"
        elif isinstance(node, exp.Column) and not isinstance(node.this, exp.Identifier):
            yield _place(node), f"{node.sql()!r} is not understood in a rule"
        elif isinstance(node, exp.Null) and (
            node.arg_key == "this" or not isinstance(node.parent, exp.Is)
        ):
            yield _place(node.parent or node), "write `is null` or `is not null`"
        elif isinstance(node, exp.Is) and not isinstance(node.expression, exp.Null):
            yield _place(node), "`is` goes with null alone; compare with ="
        elif isinstance(node, exp.In) and not (
            node.expressions and all(literal(one) is not None for one in node.expressions)
        ):
            yield _place(node), "`in` needs a list of values in parentheses"


class _Checker:
    """The kind of every part of a rule, and what does not fit."""

    def __init__(self, kinds: Mapping[str, Kind], query_kinds: Mapping[str, Kind]) -> None:
        self.kinds, self.query_kinds = kinds, query_kinds
        self.problems: list[tuple[int | None, str]] = []

    def say(self, node: exp.Expr, text: str) -> None:
        self.problems.append((_place(node), text))

    def kind(self, node: exp.Expr) -> Kind | None:
        """`number`, `text`, `bool`, or None where a fault was noted below."""
        value = literal(node)
        if value is not None:
            return kind_of(value)
        if isinstance(node, exp.Column):
            known = self.query_kinds if node.table else self.kinds
            if node.name in known:
                return known[node.name]
            hint = "" if node.table else f" Texts stand in quotes: '{node.name}'."
            self.say(
                node,
                unknown_name("attribute", node.name, known)[:-1]
                + "." * bool(hint)
                + hint.rstrip("."),
            )
            return None
        if isinstance(node, exp.Paren):
            return self.kind(node.this)
        if isinstance(node, exp.And | exp.Or | exp.Not):
            for child in (node.this, node.args.get("expression")):
                if child is not None and self.kind(child) not in ("bool", None):
                    self.say(child, f"{child.sql()} is no condition: compare it with something")
            return "bool"
        if isinstance(node, exp.Neg | exp.Abs | exp.Add | exp.Sub | exp.Mul | exp.Div):
            for child in (node.this, node.args.get("expression")):
                found = None if child is None else self.kind(child)
                if child is not None and found not in ("number", None):
                    self.say(child, f"{child.sql()} is {WORDS[found]}, arithmetic needs numbers")
            return "number"
        if isinstance(node, exp.Is):
            self.kind(node.this)
            return "bool"
        if isinstance(node, exp.Between):
            others = [node.args["low"], node.args["high"]]
        else:
            others = node.expressions if isinstance(node, exp.In) else [node.expression]
        own = self.kind(node.this)
        for other in others:
            theirs = self.kind(other)
            if own and theirs and own != theirs:
                self.say(
                    node,
                    f"{node.this.sql()} is {WORDS[own]}, {other.sql()} is {WORDS[theirs]}",
                )
        if own == "bool" and not isinstance(node, exp.EQ | exp.NEQ | exp.In):
            self.say(node, f"{node.this.sql()} is true or false, which has no order")
        return "bool"
