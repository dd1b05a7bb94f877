"""Renders rules as SQL for LanceDB, which evaluates filters with DataFusion.

The SQL selects the same candidates as [`evaluate`][pairmatch.rules.evaluation.evaluate]: divisions
are floating-point, and arithmetic that is not finite is null. DataFusion orders floats totally
(−0 < 0 < NaN), so the SQL replaces NaN and negative zero in results.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from sqlglot import exp

from pairmatch.core.types import AttributeValue
from pairmatch.rules.evaluation import ARITHMETIC, COMPARE, literal

_INFINITY = "CAST('Infinity' AS DOUBLE)"
_OPERATORS: dict[type[exp.Expr], str] = {
    exp.EQ: "=",
    exp.NEQ: "<>",
    exp.LT: "<",
    exp.LTE: "<=",
    exp.GT: ">",
    exp.GTE: ">=",
    exp.Add: "+",
    exp.Sub: "-",
    exp.Mul: "*",
    exp.Div: "/",
}
# Binding strength of operators: an operand that binds less tightly needs parentheses. Superfluous
# ones are avoided, because the parser refuses deep nesting.
_OR, _AND, _NOT, _COMPARISON, _SUM, _PRODUCT, _ATOM = range(7)


@dataclass(frozen=True, slots=True)
class _Fragment:
    sql: str
    strength: int = _ATOM

    def within(self, strength: int) -> str:
        """The SQL as an operand of an operator."""
        return self.sql if self.strength >= strength else f"({self.sql})"


_UNKNOWN = _Fragment("CAST(NULL AS BOOLEAN)")


def quote_text(text: str) -> str:
    """Quotes a text as an SQL string."""
    return "'" + text.replace("'", "''") + "'"


def quote_name(name: str) -> str:
    """Quotes a column name in backticks."""
    return "`" + name.replace("`", "``") + "`"


class Renderer:
    """Renders expressions, with the attributes of one person bound as values.

    Args:
        columns: Returns the SQL of an attribute of candidates; None if no candidate has it.
        person: Attributes of the query person.
        swapped: Whether bare names mean the query person and `query.` the candidates.
    """

    def __init__(
        self,
        columns: Callable[[str], str | None],
        person: Mapping[str, AttributeValue],
        *,
        swapped: bool = False,
    ) -> None:
        self._columns = columns
        self._person = person
        self._swapped = swapped

    def condition(self, node: exp.Expr) -> str:
        """Renders a condition."""
        return self._condition(node).sql

    def _condition(self, node: exp.Expr) -> _Fragment:
        if isinstance(node, exp.Paren):
            return self._condition(node.this)
        if isinstance(node, exp.And | exp.Or):
            word, strength = ("AND", _AND) if isinstance(node, exp.And) else ("OR", _OR)
            parts = [self._condition(part).within(strength + 1) for part in node.flatten()]
            return _Fragment(f" {word} ".join(parts), strength)
        if isinstance(node, exp.Not):
            return _Fragment(f"NOT {self._condition(node.this).within(_COMPARISON)}", _NOT)
        if isinstance(node, exp.Is):
            operand = self._operand(node.this)
            return _Fragment("TRUE") if operand is None else _chain(operand, "IS NULL")
        if isinstance(node, exp.Between):
            return self._between(node)
        if isinstance(node, exp.In):
            operand = self._operand(node.this)
            options = ", ".join(
                fragment.sql
                for option in node.expressions
                if (fragment := self._operand(option)) is not None
            )
            return _UNKNOWN if operand is None else _chain(operand, f"IN ({options})")
        if type(node) in COMPARE:
            return self._comparison(node.this, _OPERATORS[type(node)], node.expression)
        return self._value(node) or _UNKNOWN  # a literal or an attribute

    def _between(self, node: exp.Between) -> _Fragment:
        low = self._comparison(node.this, ">=", node.args["low"])
        high = self._comparison(node.this, "<=", node.args["high"])
        return _Fragment(f"{low.within(_COMPARISON)} AND {high.within(_COMPARISON)}", _AND)

    def _comparison(self, left: exp.Expr, operator: str, right: exp.Expr) -> _Fragment:
        left_operand = self._operand(left)
        right_operand = self._operand(right)
        if left_operand is None or right_operand is None:
            return _UNKNOWN
        return _chain(left_operand, f"{operator} {right_operand.within(_SUM)}")

    def _operand(self, node: exp.Expr) -> _Fragment | None:
        """Renders a side of a comparison; None if it is unknown for all candidates."""
        fragment = self._value(node)
        if fragment is None or not _computed(node):
            return fragment
        positive = f"NULLIF(NANVL({fragment.sql}, NULL), {_INFINITY})"
        return _Fragment(f"NULLIF({positive}, -{_INFINITY}) + 0.0", _SUM)

    def _value(self, node: exp.Expr) -> _Fragment | None:
        value = literal(node)
        if value is not None:
            return _constant(value)
        if isinstance(node, exp.Paren):
            return self._value(node.this)
        if isinstance(node, exp.Column):
            if bool(node.table) != self._swapped:
                return _constant(self._person.get(node.name))
            column = self._columns(node.name)
            return None if column is None else _Fragment(column)
        if isinstance(node, exp.Neg | exp.Abs):
            inner = self._value(node.this)
            if inner is None:
                return None
            if isinstance(node, exp.Abs):
                return _Fragment(f"ABS({inner.sql})")
            return _Fragment(f"0.0 - {inner.within(_PRODUCT)}", _SUM)
        if type(node) not in ARITHMETIC:
            return self._condition(node)
        left = self._value(node.this)
        # Not finite stays not finite under + - *, but not as a divisor: 1 / infinity is 0
        right = (self._operand if isinstance(node, exp.Div) else self._value)(node.expression)
        if left is None or right is None:
            return None
        strength = _SUM if isinstance(node, exp.Add | exp.Sub) else _PRODUCT
        operator = _OPERATORS[type(node)]
        sql = f"{left.within(strength)} {operator} {right.within(strength + 1)}"
        return _Fragment(sql, strength)


def render(
    parts: Sequence[exp.Expr],
    person: Mapping[str, AttributeValue],
    columns: Mapping[str, str] | None = None,
    *,
    swapped: bool = False,
) -> list[str]:
    """Renders the clauses of a rule, one SQL condition each.

    Args:
        parts: Clauses.
        person: Attributes of the query person.
        columns: SQL of each attribute that candidates have; by default the quoted name.
        swapped: Whether bare names mean the query person and `query.` the candidates.
    """
    renderer = Renderer(quote_name if columns is None else columns.get, person, swapped=swapped)
    return [renderer.condition(part) for part in parts]


def _chain(operand: _Fragment, rest: str) -> _Fragment:
    return _Fragment(f"{operand.within(_SUM)} {rest}", _COMPARISON)


def _constant(value: AttributeValue | None) -> _Fragment | None:
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or value != value:  # NaN
        return None
    if isinstance(value, str):
        return _Fragment(quote_text(value))
    if isinstance(value, bool):
        return _Fragment("TRUE" if value else "FALSE")
    number = float(value) + 0.0
    sql = _INFINITY if math.isinf(number) else repr(abs(number))
    return _Fragment(sql) if number >= 0 else _Fragment(f"(-{sql})")


def _computed(node: exp.Expr) -> bool:
    """Whether an expression is a number that arithmetic can make infinite."""
    kind = type(node.unnest())
    arithmetic = kind in ARITHMETIC or kind in (exp.Neg, exp.Abs)
    return arithmetic and any(type(part) in ARITHMETIC for part in node.walk())
