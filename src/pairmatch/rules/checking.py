"""Finds the faults of a parsed rule: unsupported syntax, and kinds that do not match."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from sqlglot import exp

from pairmatch.core.errors import unknown_name
from pairmatch.rules.columns import KIND_LABELS, Kind, kind_of
from pairmatch.rules.evaluation import ARITHMETIC, COMPARE, literal

_ALLOWED = (
    *COMPARE,
    *ARITHMETIC,
    *(exp.And, exp.Or, exp.Not, exp.Paren, exp.Neg, exp.Abs, exp.Between, exp.In, exp.Is),
    *(exp.Column, exp.Identifier, exp.Literal, exp.Boolean, exp.Null),
)
# What nodes of these types may consist of; anything else is syntax that would change their meaning
_ARGUMENTS = {"this", "expression", "expressions", "low", "high", "quoted", "is_string"}
_ARGUMENTS_OF: dict[type[exp.Expr], set[str]] = {
    exp.Column: {"this", "table", "db", "catalog"},
    exp.In: {"this", "expressions", "query", "field", "unnest"},
}
_MAX_DEPTH = 100  # nested expressions; chains of `and` and `or` count once

Problem = tuple[int | None, str]


def syntax_problems(root: exp.Expr) -> Iterator[Problem]:
    """Yields what sqlglot parses but a rule must not contain, with its position."""
    if _is_too_deep(root):
        yield None, "it is nested too deeply"
        return
    for node in root.walk():
        if type(node) not in _ALLOWED:
            yield _position(node), f"{node.sql()!r} is not supported in a rule"
            return
        known = _ARGUMENTS_OF.get(type(node), _ARGUMENTS)
        if any(value for name, value in node.args.items() if name not in known):
            yield _position(node), f"{node.sql()!r} is not supported in a rule"
        elif isinstance(node, exp.Literal) and not node.is_string:
            yield from _number_problems(node)
        elif isinstance(node, exp.Column):
            if node.db or node.catalog or (node.table and node.table != "query"):
                yield _position(node), f"{node.sql()!r}: the only prefix of a name is `query.`"
            elif not isinstance(node.this, exp.Identifier):
                yield _position(node), f"{node.sql()!r} is not supported in a rule"
        elif isinstance(node, exp.Null):
            if node.arg_key == "this" or not isinstance(node.parent, exp.Is):
                yield _position(node.parent or node), "write `is null` or `is not null`"
        elif isinstance(node, exp.Is) and not isinstance(node.expression, exp.Null):
            yield _position(node), "`is` must be followed by null; compare with ="
        elif isinstance(node, exp.In):
            options = node.expressions
            if not options or any(literal(option) is None for option in options):
                yield _position(node), "`in` needs a list of values in parentheses"


class KindChecker:
    """Determines the kind of each part of a rule and collects mismatches.

    Args:
        kinds: Kinds of the attributes of bare names.
        query_kinds: Kinds of the attributes after `query.`.

    Attributes:
        problems: Position and description of each mismatch.
    """

    def __init__(self, kinds: Mapping[str, Kind], query_kinds: Mapping[str, Kind]) -> None:
        self._kinds = kinds
        self._query_kinds = query_kinds
        self.problems: list[Problem] = []

    def check_condition(self, node: exp.Expr) -> None:
        """Notes a problem unless the expression is true or false."""
        if self._kind(node) not in ("bool", None):
            self._note(node, f"{node.sql()} is not a condition: compare it with something")

    def _note(self, node: exp.Expr, text: str) -> None:
        self.problems.append((_position(node), text))

    def _kind(self, node: exp.Expr) -> Kind | None:
        """Returns the kind of an expression; None after a problem was noted."""
        value = literal(node)
        if value is not None:
            return kind_of(value)
        if isinstance(node, exp.Column):
            return self._attribute_kind(node)
        if isinstance(node, exp.Paren):
            return self._kind(node.this)
        if isinstance(node, exp.And | exp.Or | exp.Not):
            for part in [node.this] if isinstance(node, exp.Not) else node.flatten():
                self.check_condition(part)
            return "bool"
        if isinstance(node, exp.Neg | exp.Abs | exp.Add | exp.Sub | exp.Mul | exp.Div):
            second = node.args.get("expression")
            for operand in [node.this] if second is None else [node.this, second]:
                kind = self._kind(operand)
                if kind not in ("number", None):
                    label = KIND_LABELS[kind]
                    self._note(operand, f"{operand.sql()} is {label}, arithmetic needs numbers")
            return "number"
        if isinstance(node, exp.Is):
            self._kind(node.this)
            return "bool"
        self._check_comparison(node)
        return "bool"

    def _attribute_kind(self, node: exp.Column) -> Kind | None:
        kinds = self._query_kinds if node.table else self._kinds
        if node.name in kinds:
            return kinds[node.name]
        message = unknown_name("attribute", node.name, kinds).removesuffix(".")
        hint = "" if node.table else f". Put text in quotes: '{node.name}'"
        self._note(node, message + hint)
        return None

    def _check_comparison(self, node: exp.Expr) -> None:
        if isinstance(node, exp.Between):
            operands = [node.args["low"], node.args["high"]]
        elif isinstance(node, exp.In):
            operands = node.expressions
        else:
            operands = [node.expression]
        kind = self._kind(node.this)
        for operand in operands:
            operand_kind = self._kind(operand)
            if kind and operand_kind and kind != operand_kind:
                left = f"{node.this.sql()} is {KIND_LABELS[kind]}"
                right = f"{operand.sql()} is {KIND_LABELS[operand_kind]}"
                self._note(node, f"{left}, {right}{_quotes(kind, operand)}")
        if kind == "bool" and not isinstance(node, exp.EQ | exp.NEQ | exp.In):
            self._note(node, f"{node.this.sql()} is true or false, which has no order")


def _quotes(kind: Kind, operand: exp.Expr) -> str:
    """Advice for a number that is compared with text or the reverse, such as a postal code."""
    if not isinstance(operand, exp.Literal):
        return ""
    if kind == "text" and not operand.is_string:
        return f". Put text in quotes: '{operand.this}'"
    if kind == "number" and operand.is_string and _is_number(operand.this):
        return f". Write numbers without quotes: {operand.this}"
    return ""


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _position(node: exp.Expr) -> int | None:
    """Returns the position of the first name in a node, from 1; literals carry no position."""
    starts = [
        name.meta["start"] + 1 for name in node.find_all(exp.Identifier) if "start" in name.meta
    ]
    return min(starts, default=None)


def _number_problems(node: exp.Literal) -> Iterator[Problem]:
    try:
        number = float(node.this)
    except ValueError:
        yield None, f"{node.this!r} is not a number"
        return
    if not math.isfinite(number):
        shown = node.this if len(node.this) <= 20 else f"{node.this[:20]}…"
        yield None, f"the number {shown} is too large"


def _is_too_deep(root: exp.Expr) -> bool:
    pending = [(root, 0)]
    while pending:
        node, depth = pending.pop()
        if depth > _MAX_DEPTH:
            return True
        for child in node.iter_expressions():
            chained = type(child) is type(node) and isinstance(node, exp.And | exp.Or)
            pending.append((child, depth if chained else depth + 1))
    return False
