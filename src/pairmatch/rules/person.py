"""One person's side of a rule: which names are known values, and which are columns."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from sqlglot import exp

from pairmatch.core.types import AttributeValue
from pairmatch.rules.columns import Column, Columns
from pairmatch.rules.evaluation import evaluate

#: The comparison with its sides swapped, where it is another one.
MIRRORED: dict[type[exp.Expr], type[exp.Expr]] = {
    exp.LT: exp.GT,
    exp.LTE: exp.GTE,
    exp.GT: exp.LT,
    exp.GTE: exp.LTE,
}


@dataclass(frozen=True, slots=True)
class QueryPerson:
    """The person that a rule is translated for: everything about this person is a constant.

    Attributes:
        columns: Attributes of the person, as columns of length 1.
        known: Names of the candidates' attributes; others are unknown for all candidates.
        swapped: Whether bare names are the person's attributes, and `query.` names the candidates'.
    """

    columns: Columns
    known: Collection[str]
    swapped: bool = False

    def attribute(self, node: exp.Expr) -> str | None:
        """The attribute of candidates that an expression is; None for any other expression."""
        while isinstance(node, exp.Paren):
            node = node.this
        is_candidates = isinstance(node, exp.Column) and bool(node.table) == self.swapped
        return node.name if is_candidates and node.name in self.known else None

    def is_constant(self, node: exp.Expr) -> bool:
        """Whether an expression reads no attribute of candidates."""
        return all(self.attribute(column) is None for column in node.find_all(exp.Column))

    def value(self, node: exp.Expr) -> AttributeValue | None:
        """The value of a constant expression, as galleries compute it; None if it is unknown."""
        nothing: Mapping[str, Column] = {}
        bare, query = (self.columns, nothing) if self.swapped else (nothing, self.columns)
        result = evaluate(node, bare, query)
        if not result.known[0]:
            return None
        if result.kind == "text":
            return result.categories[int(result.values[0])]
        value = result.values[0]
        return bool(value) if result.kind == "bool" else float(value)
