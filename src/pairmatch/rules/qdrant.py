"""Rules as filters of Qdrant, true for the same people as in galleries.

A filter of Qdrant has no unknown: a condition on a missing field is false, and its negation true.
Each part of a rule therefore becomes two filters, one for true and one for false.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, final

from sqlglot import exp

from pairmatch.core.errors import ConfigurationError
from pairmatch.core.types import AttributeValue
from pairmatch.rules.columns import Columns, Kind
from pairmatch.rules.evaluation import COMPARE
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

#: A filter in the JSON form of Qdrant; True or False if it holds for all people or for none.
Filter = dict[str, Any] | bool

_EDGES: dict[type[exp.Expr], str] = {
    exp.GT: "gt",
    exp.GTE: "gte",
    exp.LT: "lt",
    exp.LTE: "lte",
}
_NOTHING: dict[str, Any] = {"must": [{"has_id": []}]}


def to_qdrant(
    rule: Rule,
    keys: Mapping[str, str],
    kinds: Mapping[str, Kind],
    person: Columns,
    *,
    swapped: bool = False,
) -> dict[str, Any]:
    """Translates a checked rule.

    Args:
        rule: The rule.
        keys: Payload key of each attribute of the candidates, quoted where the syntax needs it.
        kinds: Kinds of these attributes.
        person: Attributes of the query person, as columns of length 1.
        swapped: Whether the roles of query person and candidate are swapped.

    Returns:
        A filter in the JSON form of Qdrant.

    Raises:
        ConfigurationError: Parts of the rule have no such form; the message names all of them.
    """
    translator = _Translator(keys, kinds, QueryPerson(person, kinds, swapped))
    result = _all([translator.true(part) for part in rule.parts])
    if translator.problems:
        listed = "; ".join(dict.fromkeys(translator.problems))
        raise ConfigurationError(
            f"The rule {rule.text[:200]!r} cannot be a filter of Qdrant: {listed}. Search in a "
            "gallery or in PostgreSQL, or store the result as an attribute of its own."
        )
    if result is False:
        return _NOTHING
    return {} if result is True else result


@final
class _Translator:
    """Translates the parts of rules.

    Attributes:
        problems: What has no form as a filter.
    """

    def __init__(
        self, keys: Mapping[str, str], kinds: Mapping[str, Kind], person: QueryPerson
    ) -> None:
        self._keys = keys
        self._kinds = kinds
        self._person = person
        self.problems: list[str] = []

    def true(self, node: exp.Expr) -> Filter:
        """Where a condition is true."""
        return self._where(node, True)

    def false(self, node: exp.Expr) -> Filter:
        """Where a condition is known to be false."""
        return self._where(node, False)

    def _where(self, node: exp.Expr, wanted: bool) -> Filter:
        if self._person.is_constant(node):
            return self._person.value(node) is wanted
        attribute = self._person.attribute(node)
        if attribute is not None:
            return self._match(attribute, wanted)
        if isinstance(node, exp.Paren):
            return self._where(node.this, wanted)
        if isinstance(node, exp.Not):
            return self._where(node.this, not wanted)
        if isinstance(node, exp.And | exp.Or):
            join = _all if isinstance(node, exp.And) == wanted else _any
            return join([self._where(part, wanted) for part in node.flatten()])
        if isinstance(node, exp.Is):
            return self._is_unknown(node.this, wanted)
        if isinstance(node, exp.Between):
            low = self._comparison(exp.GTE, node.this, node.args["low"], wanted)
            high = self._comparison(exp.LTE, node.this, node.args["high"], wanted)
            return _all([low, high]) if wanted else _any([low, high])
        if isinstance(node, exp.In):
            return self._is_one_of(node, wanted)
        return self._comparison(type(node), node.this, node.expression, wanted)

    def _is_unknown(self, node: exp.Expr, wanted: bool) -> Filter:
        attribute = self._person.attribute(node)
        if attribute is not None:
            known = self._known(attribute)
        elif isinstance(node, exp.Neg | exp.Abs | exp.Add | exp.Sub | exp.Mul | exp.Div):
            solved = self._solved(node, FINITE)
            known = False if solved is None else self._ranges(*solved)
        elif isinstance(node, exp.Paren):
            return self._is_unknown(node.this, wanted)
        else:
            known = _any([self.true(node), self.false(node)])
        return _none(known) if wanted else known

    def _is_one_of(self, node: exp.In, wanted: bool) -> Filter:
        attribute = self._person.attribute(node.this)
        if attribute is not None and self._kinds[attribute] == "text":
            texts = [self._person.value(option) for option in node.expressions]
            chosen: Filter = {"key": self._keys[attribute], "match": {"any": texts}}
            return chosen if wanted else _all([self._known(attribute), _none(chosen)])
        parts = [self._comparison(exp.EQ, node.this, option, wanted) for option in node.expressions]
        return _any(parts) if wanted else _all(parts)

    def _comparison(
        self, operation: type[exp.Expr], left: exp.Expr, right: exp.Expr, wanted: bool
    ) -> Filter:
        if self._person.is_constant(left):
            left, right = right, left
            operation = MIRRORED.get(operation, operation)
        if not self._person.is_constant(right):
            return self._of_two(operation, left, right, wanted)
        value = self._person.value(right)
        if self._person.is_constant(left):
            known = self._person.value(left)
            is_known = known is not None and value is not None
            return is_known and COMPARE[operation](known, value) is wanted
        if value is None:
            return False
        attribute = self._person.attribute(left)
        if isinstance(value, bool):
            is_equal = operation is exp.EQ
            return self._where(left, (value is is_equal) is wanted)
        if isinstance(value, str):
            if operation not in (exp.EQ, exp.NEQ) or attribute is None:
                self._refuse(left, right, "orders texts")
                return False
            chosen = self._match(attribute, value)
            if (operation is exp.EQ) is wanted:
                return chosen
            return _all([self._known(attribute), _none(chosen)])
        intervals = satisfying(operation, float(value))
        solved = self._solved(left, intervals if wanted else complement(intervals))
        return False if solved is None else self._ranges(*solved)

    def _of_two(
        self, operation: type[exp.Expr], left: exp.Expr, right: exp.Expr, wanted: bool
    ) -> Filter:
        """The comparison of two attributes: only those that are true or false have a form."""
        names = [self._person.attribute(node) for node in (left, right)]
        if any(name is None or self._kinds[name] != "bool" for name in names):
            self._refuse(left, right, "compares two attributes")
            return False
        is_equal = (operation is exp.EQ) is wanted
        first, second = names
        assert first is not None
        assert second is not None
        return _any(
            [
                _all([self._match(first, True), self._match(second, is_equal)]),
                _all([self._match(first, False), self._match(second, not is_equal)]),
            ]
        )

    def _solved(self, node: exp.Expr, wanted: Intervals) -> tuple[str, Intervals] | None:
        intervals = solve(node, wanted, self._person)
        name = attribute_in(node, self._person)
        if intervals is None or name is None:
            self.problems.append(f"{node.sql()!r} combines attributes")
            return None
        return name, intervals

    def _refuse(self, left: exp.Expr, right: exp.Expr, what: str) -> None:
        self.problems.append(f"{left.sql()!r} with {right.sql()!r}: it {what}")

    def _known(self, attribute: str) -> Filter:
        return _none({"is_empty": {"key": self._keys[attribute]}})

    def _match(self, attribute: str, value: AttributeValue) -> Filter:
        return {"key": self._keys[attribute], "match": {"value": value}}

    def _ranges(self, attribute: str, intervals: Intervals) -> Filter:
        if intervals == FINITE:
            return self._known(attribute)
        return _any(
            [
                {
                    "key": self._keys[attribute],
                    "range": {_EDGES[operation]: bound for operation, bound in edges(interval)},
                }
                for interval in intervals
            ]
        )


def _all(filters: Sequence[Filter]) -> Filter:
    """Where all filters hold."""
    if any(part is False for part in filters):
        return False
    parts = [part for part in filters if not isinstance(part, bool)]
    return {"must": parts} if parts else True


def _any(filters: Sequence[Filter]) -> Filter:
    """Where one of the filters holds."""
    if any(part is True for part in filters):
        return True
    parts = [part for part in filters if not isinstance(part, bool)]
    if len(parts) == 1:
        return parts[0]
    return {"should": parts} if parts else False


def _none(part: Filter) -> Filter:
    """Where a filter does not hold."""
    return (not part) if isinstance(part, bool) else {"must_not": [part]}
