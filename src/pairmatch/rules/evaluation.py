"""Evaluates a checked expression on columns, by SQL's logic of three values."""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np
from sqlglot import exp

from pairmatch.core.types import AttributeValue
from pairmatch.rules.columns import Column, Columns

COMPARE: dict[type[exp.Expr], Callable[[Any, Any], Any]] = {
    exp.EQ: operator.eq,
    exp.NEQ: operator.ne,
    exp.LT: operator.lt,
    exp.LTE: operator.le,
    exp.GT: operator.gt,
    exp.GTE: operator.ge,
}
ARITHMETIC: dict[type[exp.Expr], Callable[[Any, Any], Any]] = {
    exp.Add: operator.add,
    exp.Sub: operator.sub,
    exp.Mul: operator.mul,
    exp.Div: operator.truediv,
}


def literal(node: exp.Expr) -> AttributeValue | None:
    """The value of a literal; None of anything else."""
    if isinstance(node, exp.Boolean):
        return bool(node.this)
    if isinstance(node, exp.Literal):
        return str(node.this) if node.is_string else float(node.this)
    if isinstance(node, exp.Neg) and isinstance(node.this, exp.Literal) and not node.this.is_string:
        return -float(node.this.this)
    return None


def evaluate(node: exp.Expr, own: Columns, query: Columns) -> Column:
    """The value of a checked expression for everybody; conditions are `bool` columns."""
    value = literal(node)
    if value is not None:
        return Column.of([value])
    if isinstance(node, exp.Column):
        column = (query if node.table else own).get(node.name)
        return column or Column("number", np.zeros(1), np.zeros(1, bool))  # nobody has it: unknown
    if isinstance(node, exp.Paren):
        return evaluate(node.this, own, query)
    left = evaluate(node.this, own, query)
    if isinstance(node, exp.Is):
        return Column("bool", ~left.known, np.ones(len(left.known), bool))
    if isinstance(node, exp.Not):
        return Column("bool", left.false, left.known)
    if isinstance(node, exp.Neg | exp.Abs):
        return Column(
            "number", -left.values if isinstance(node, exp.Neg) else np.abs(left.values), left.known
        )
    if isinstance(node, exp.Between):
        low, high = (evaluate(node.args[name], own, query) for name in ("low", "high"))
        return _and(_compared(left, low, operator.ge), _compared(left, high, operator.le))
    if isinstance(node, exp.In):
        return reduce(
            _or,
            (_compared(left, evaluate(one, own, query), operator.eq) for one in node.expressions),
        )
    right = evaluate(node.expression, own, query)
    if isinstance(node, exp.And):
        return _and(left, right)
    if isinstance(node, exp.Or):
        return _or(left, right)
    if type(node) in ARITHMETIC:
        with np.errstate(divide="ignore", invalid="ignore"):
            result = ARITHMETIC[type(node)](left.values, right.values)
        return Column("number", result, left.known & right.known & np.isfinite(result))
    return _compared(left, right, COMPARE[type(node)])


def _compared(left: Column, right: Column, compare: Callable[[Any, Any], Any]) -> Column:
    known = left.known & right.known
    if left.kind != "text" or right.kind != "text":
        return Column("bool", np.asarray(compare(left.values, right.values), bool), known)
    if len(right.values) == 1:  # one text with many: each distinct text is compared once
        other = right.categories[right.values[0]] if right.known[0] else ""
        table = np.array([compare(text, other) for text in left.categories] or [False], bool)
        return Column("bool", table[left.values], known)
    if len(left.values) == 1:
        other = left.categories[left.values[0]] if left.known[0] else ""
        table = np.array([compare(other, text) for text in right.categories] or [False], bool)
        return Column("bool", table[right.values], known)
    texts = [
        np.array(column.categories or ("",), object)[column.values] for column in (left, right)
    ]
    return Column("bool", np.asarray(compare(*texts), bool), known)


def _and(left: Column, right: Column) -> Column:
    """SQL's `and`: false where one is false, whatever the other."""
    true, false = left.true & right.true, left.false | right.false
    return Column("bool", true, true | false)


def _or(left: Column, right: Column) -> Column:
    true, false = left.true | right.true, left.false & right.false
    return Column("bool", true, true | false)
