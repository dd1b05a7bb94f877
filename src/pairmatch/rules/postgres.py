"""Rules as conditions of PostgreSQL, true for the same people as in galleries.

Both have SQL's three-valued logic. They differ in arithmetic: PostgreSQL stops at a division by
zero, an overflow or an underflow, which galleries call unknown (or zero). Arithmetic on one
attribute becomes a range of it, and other arithmetic is guarded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

from sqlglot import exp

from pairmatch.core.types import AttributeValue
from pairmatch.rules.columns import Columns, Kind, kind_of
from pairmatch.rules.evaluation import ARITHMETIC, COMPARE
from pairmatch.rules.person import MIRRORED, QueryPerson
from pairmatch.rules.ranges import (
    FINITE,
    Intervals,
    attribute_in,
    complement,
    edges,
    satisfying,
    solve,
)
from pairmatch.rules.rule import Rule

_SIGNS: dict[type[exp.Expr], str] = {
    exp.EQ: "=",
    exp.NEQ: "<>",
    exp.LT: "<",
    exp.LTE: "<=",
    exp.GT: ">",
    exp.GTE: ">=",
}
_UNKNOWN = "NULL::boolean"
# Powers of two, exact in float8: products with them only change the exponent
_HALF_MOST = "8.98846567431158e+307::float8"
_TINY = "1.1102230246251565e-16::float8"
_DOWN = f"{2.0**-512!r}::float8"
_UP = f"{2.0**512!r}::float8"
_LEAST = f"{2.0**-540!r}::float8"
_SMALL = f"{2.0**-500!r}::float8"
# Each gives the float8 result of two finite numbers l and r, NULL instead of an infinite one, and 0
# instead of an underflow; the scaled results show which it would be
_GUARDED: dict[type[exp.Expr], str] = {
    exp.Add: "CASE WHEN least(abs(l), abs(r)) < 1 THEN l + r "
    f"WHEN abs(l * 0.5 + r * 0.5) < {_HALF_MOST} THEN l + r END",
    exp.Sub: "CASE WHEN least(abs(l), abs(r)) < 1 THEN l - r "
    f"WHEN abs(l * 0.5 - r * 0.5) < {_HALF_MOST} THEN l - r END",
    exp.Mul: "CASE WHEN l = 0 OR r = 0 THEN l * r "
    "WHEN (abs(l) >= 1) <> (abs(r) >= 1) THEN l * r "
    f"WHEN abs(l) >= 1 THEN CASE WHEN abs((l * {_DOWN}) * (r * {_DOWN})) < 1 THEN l * r END "
    f"WHEN greatest(abs(l), abs(r)) < {_LEAST} THEN 0 "
    f"WHEN abs((l * {_UP}) * (r * {_UP})) <= {_TINY} * 4 THEN 0 ELSE l * r END",
    exp.Div: "CASE WHEN r = 0 THEN NULL WHEN l = 0 THEN 0 "
    "WHEN abs(l) >= 1 AND abs(r) >= 1 THEN l / r "
    f"WHEN abs(l) >= 1 THEN CASE WHEN abs(l * {_DOWN}) >= abs(r * {_UP}) THEN NULL "
    f"WHEN abs((l * {_DOWN}) / (r * {_UP})) < 1 THEN l / r END "
    f"WHEN abs(r) >= 1 THEN CASE WHEN abs((l * {_UP}) / (r * {_DOWN})) <= {_TINY} * 4 THEN 0 "
    "ELSE l / r END "
    f"WHEN abs(l) < {_SMALL} THEN l / r "
    f"WHEN abs((l * {_UP}) / (r * {_UP} * {_UP})) < {_UP} THEN l / r END",
}


def to_postgres(
    rule: Rule,
    columns: Mapping[str, str],
    kinds: Mapping[str, Kind],
    person: Columns,
    *,
    swapped: bool = False,
) -> str:
    """Translates a checked rule.

    Numbers are in columns of the type `double precision`, and finite.

    Args:
        rule: The rule.
        columns: Column of each attribute of the candidates, without quotes.
        kinds: Kinds of these attributes.
        person: Attributes of the query person, as columns of length 1.
        swapped: Whether the roles of query person and candidate are swapped.

    Returns:
        A condition without parameters.
    """
    translator = _Translator(columns, kinds, QueryPerson(person, kinds, swapped))
    return " AND ".join(f"({translator.condition(part)})" for part in rule.parts) or "TRUE"


def quoted(name: str) -> str:
    """A name as an identifier of SQL."""
    return '"' + name.replace('"', '""') + '"'


def quoted_text(text: str) -> str:
    """A text as a literal of SQL, whatever the setting `standard_conforming_strings` is."""
    doubled = text.replace("'", "''")
    return f"E'{doubled.replace(chr(92), chr(92) * 2)}'" if "\\" in text else f"'{doubled}'"


@final
class _Translator:
    def __init__(
        self, columns: Mapping[str, str], kinds: Mapping[str, Kind], person: QueryPerson
    ) -> None:
        self._columns = columns
        self._kinds = kinds
        self._person = person

    def condition(self, node: exp.Expr) -> str:
        """A condition that is true, false or NULL as the node is true, false or unknown."""
        if self._person.is_constant(node):
            return _literal(self._person.value(node)) or _UNKNOWN
        attribute = self._person.attribute(node)
        if attribute is not None:
            return quoted(self._columns[attribute])
        if isinstance(node, exp.Paren):
            return self.condition(node.this)
        if isinstance(node, exp.And | exp.Or):
            word = " AND " if isinstance(node, exp.And) else " OR "
            return word.join(f"({self.condition(part)})" for part in node.flatten())
        if isinstance(node, exp.Not):
            return f"NOT ({self.condition(node.this)})"
        if isinstance(node, exp.Is):
            return self._is_unknown(node.this)
        if isinstance(node, exp.Between):
            low = self._comparison(exp.GTE, node.this, node.args["low"])
            high = self._comparison(exp.LTE, node.this, node.args["high"])
            return f"({low}) AND ({high})"
        if isinstance(node, exp.In):
            return self._is_one_of(node)
        return self._comparison(type(node), node.this, node.expression)

    def _is_unknown(self, node: exp.Expr) -> str:
        attribute = self._person.attribute(node)
        if attribute is not None:
            return f"{quoted(self._columns[attribute])} IS NULL"
        if self._kind(node) != "number":
            return f"({self.condition(node)}) IS NULL"
        return f"({self._number(node)}) IS NULL"

    def _is_one_of(self, node: exp.In) -> str:
        attribute = self._person.attribute(node.this)
        if attribute is None:
            options = [self._comparison(exp.EQ, node.this, option) for option in node.expressions]
            return " OR ".join(f"({option})" for option in options)
        literals = [_literal(self._person.value(option)) for option in node.expressions]
        return f"{quoted(self._columns[attribute])} IN ({', '.join(filter(None, literals))})"

    def _comparison(self, operation: type[exp.Expr], left: exp.Expr, right: exp.Expr) -> str:
        if self._person.is_constant(left) and not self._person.is_constant(right):
            left, right = right, left
            operation = MIRRORED.get(operation, operation)
        kind = self._kind(left)
        if self._person.is_constant(right):
            value = self._person.value(right)
            if value is None or self._person.is_constant(left):
                known = None if value is None else self._person.value(left)
                if known is None:
                    return _UNKNOWN
                return _literal(bool(COMPARE[operation](known, value))) or _UNKNOWN
            if kind == "number":
                return self._in_range(operation, left, float(value))
        return self._operands(operation, left, right, kind)

    def _in_range(self, operation: type[exp.Expr], node: exp.Expr, bound: float) -> str:
        """The comparison of an expression with a number."""
        attribute = self._person.attribute(node)
        if attribute is not None:
            return f"{quoted(self._columns[attribute])} {_SIGNS[operation]} {_number(bound)}"
        wanted = satisfying(operation, bound)
        true = solve(node, wanted, self._person)
        false = solve(node, complement(wanted), self._person)
        name = attribute_in(node, self._person)
        if true is None or false is None or name is None:
            return f"{self._number(node)} {_SIGNS[operation]} {_number(bound)}"
        column = quoted(self._columns[name])
        if complement(true) == false:  # known wherever the attribute is
            return _ranges(column, true)
        return (
            f"CASE WHEN {_ranges(column, true)} THEN TRUE "
            f"WHEN {_ranges(column, false)} THEN FALSE END"
        )

    def _operands(
        self, operation: type[exp.Expr], left: exp.Expr, right: exp.Expr, kind: Kind
    ) -> str:
        sides = []
        for node in (left, right):
            if kind == "bool":
                sides.append(f"({self.condition(node)})")
            elif kind == "number":
                sides.append(self._number(node))
            else:
                attribute = self._person.attribute(node)
                sides.append(
                    str(_literal(self._person.value(node)))
                    if attribute is None
                    else quoted(self._columns[attribute])
                )
        # Texts are ordered by code points, as in Python, whatever the database's language is
        order = ' COLLATE "C"' if kind == "text" and operation not in (exp.EQ, exp.NEQ) else ""
        return f"{sides[0]} {_SIGNS[operation]} {sides[1]}{order}"

    def _number(self, node: exp.Expr) -> str:
        """A number; NULL if it is unknown."""
        if self._person.is_constant(node):
            value = self._person.value(node)
            return f"{'NULL' if value is None else _number(float(value))}::float8"
        attribute = self._person.attribute(node)
        if attribute is not None:
            return quoted(self._columns[attribute])
        if isinstance(node, exp.Paren):
            return self._number(node.this)
        if isinstance(node, exp.Neg):
            return f"(-{self._number(node.this)})"
        if isinstance(node, exp.Abs):
            return f"abs({self._number(node.this)})"
        left, right = self._number(node.this), self._number(node.expression)
        # OFFSET 0 keeps the planner from computing both sides several times, or too early
        values = f"SELECT {left} AS l, {right} AS r OFFSET 0"
        # Of unknown operands, no condition of the guard holds: its last branch may overflow
        known = f"CASE WHEN l IS NOT NULL AND r IS NOT NULL THEN {_GUARDED[type(node)]} END"
        return f"(SELECT {known} FROM ({values}) AS operands)"

    def _kind(self, node: exp.Expr) -> Kind:
        """Kind of an expression of a checked rule."""
        attribute = self._person.attribute(node)
        if attribute is not None:
            return self._kinds[attribute]
        if isinstance(node, exp.Paren):
            return self._kind(node.this)
        if type(node) in ARITHMETIC or isinstance(node, exp.Neg | exp.Abs):
            return "number"
        if self._person.is_constant(node):
            value = self._person.value(node)
            return "number" if value is None else kind_of(value)
        return "bool"


def _ranges(column: str, intervals: Intervals) -> str:
    """Whether a column lies in one of some intervals; NULL if the column is."""
    if not intervals:
        return f"{column} <> {column}"
    if intervals == FINITE:
        return f"{column} = {column}"
    return " OR ".join(
        f"{column} = {_number(low)}"
        if low == high
        else " AND ".join(
            f"{column} {_SIGNS[operation]} {_number(bound)}"
            for operation, bound in edges((low, high))
        )
        for low, high in intervals
    )


def _literal(value: AttributeValue | None) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    return quoted_text(value) if isinstance(value, str) else _number(float(value))


def _number(value: float) -> str:
    if value in (float("inf"), float("-inf")):
        return "'Infinity'" if value > 0 else "'-Infinity'"
    return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
