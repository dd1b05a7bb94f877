"""Evaluates a checked expression on columns with SQL's three-valued logic."""

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
    """Returns the value of a literal; None for any other expression."""
    if isinstance(node, exp.Boolean):
        return bool(node.this)
    if isinstance(node, exp.Literal):
        return str(node.this) if node.is_string else float(node.this)
    if isinstance(node, exp.Neg) and isinstance(node.this, exp.Literal) and not node.this.is_string:
        return -float(node.this.this)
    return None


def evaluate(node: exp.Expr, bare: Columns, query: Columns) -> Column:
    """Evaluates a checked expression on all rows; a condition is a `bool` column.

    The result of arithmetic that is not finite, such as a division by zero, is unknown.

    Args:
        node: Expression to evaluate.
        bare: Columns for bare names.
        query: Columns for names after `query.`.
    """
    value = literal(node)
    if value is not None:
        return Column.of([value])
    if isinstance(node, exp.Column):
        column = (query if node.table else bare).get(node.name)
        return column or Column("number", np.zeros(1), np.zeros(1, bool))  # missing: unknown
    if isinstance(node, exp.Paren):
        return evaluate(node.this, bare, query)
    if isinstance(node, exp.And | exp.Or):
        combine = _and if isinstance(node, exp.And) else _or
        return reduce(combine, (evaluate(part, bare, query) for part in node.flatten()))
    left = evaluate(node.this, bare, query)
    if isinstance(node, exp.Is):
        return Column("bool", ~left.known, np.ones(len(left.known), bool))
    if isinstance(node, exp.Not):
        return Column("bool", left.false, left.known)
    if isinstance(node, exp.Neg):
        return Column("number", -left.values, left.known)
    if isinstance(node, exp.Abs):
        return Column("number", np.abs(left.values), left.known)
    if isinstance(node, exp.Between):
        low = evaluate(node.args["low"], bare, query)
        high = evaluate(node.args["high"], bare, query)
        return _and(_compare(left, low, operator.ge), _compare(left, high, operator.le))
    if isinstance(node, exp.In):
        options = (evaluate(option, bare, query) for option in node.expressions)
        return reduce(_or, (_compare(left, option, operator.eq) for option in options))
    right = evaluate(node.expression, bare, query)
    if type(node) in ARITHMETIC:
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            result = ARITHMETIC[type(node)](left.values, right.values)
        return Column("number", result, left.known & right.known & np.isfinite(result))
    return _compare(left, right, COMPARE[type(node)])


def _compare(left: Column, right: Column, compare: Callable[[Any, Any], Any]) -> Column:
    known = left.known & right.known
    if left.kind != "text" or right.kind != "text":
        return Column("bool", np.asarray(compare(left.values, right.values), bool), known)
    if len(right.values) == 1:  # compare each distinct text with the single text once
        text = right.categories[right.values[0]] if right.known[0] else ""
        outcomes = [compare(category, text) for category in left.categories]
        return Column("bool", np.array(outcomes or [False], bool)[left.values], known)
    if len(left.values) == 1:
        text = left.categories[left.values[0]] if left.known[0] else ""
        outcomes = [compare(text, category) for category in right.categories]
        return Column("bool", np.array(outcomes or [False], bool)[right.values], known)
    texts = [
        np.array(column.categories or ("",), object)[column.values] for column in (left, right)
    ]
    return Column("bool", np.asarray(compare(*texts), bool), known)


def _and(left: Column, right: Column) -> Column:
    """SQL's `and`: false if either side is false, even if the other is unknown."""
    true = left.true & right.true
    false = left.false | right.false
    return Column("bool", true, true | false)


def _or(left: Column, right: Column) -> Column:
    """SQL's `or`: true if either side is true, even if the other is unknown."""
    true = left.true | right.true
    false = left.false & right.false
    return Column("bool", true, true | false)
