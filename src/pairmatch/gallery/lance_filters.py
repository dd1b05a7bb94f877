"""The filters of a search as SQL conditions of LanceDB."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pairmatch.gallery.attributes import Attributes
from pairmatch.gallery.ranking import first_empty
from pairmatch.gallery.request import SearchRequest
from pairmatch.rules.sql import quote_text

_MAX_NESTING = 20  # parentheses; the parser of LanceDB fails at about twice as many


class LanceFilters:
    """Conditions for the query persons of a request.

    Args:
        table: The LanceDB table.
        request: Request with the rule.
        columns: SQL of each attribute.
    """

    def __init__(self, table: Any, request: SearchRequest, columns: Mapping[str, str]) -> None:
        self._table = table
        self._request = request
        self._columns = columns

    def is_supported(self) -> bool:
        """Whether LanceDB can parse the conditions of all query persons."""
        return all(
            _nesting(clause) <= _MAX_NESTING
            for group in self._request.groups
            for clause in self._clauses(group.person)
        )

    def condition(self, person: Attributes, excluded: Iterable[str] = ()) -> str | None:
        """The condition for one query person; None if all candidates pass."""
        clauses = self._clauses(person)
        hidden = sorted(excluded)
        if hidden:
            clauses.append(f"NOT {one_of(hidden)}")
        return " AND ".join(clauses) or None

    def excluded_by(self, person: Attributes) -> str:
        """The filter that removes the last candidate; `exclusions` if the rule leaves some."""
        clauses = self._clauses(person)
        remaining = (
            self._table.count_rows(" AND ".join(clauses[:count]) or None)
            for count in range(len(clauses) + 1)
        )
        return first_empty(self._request.filters, remaining)

    def _clauses(self, person: Attributes) -> list[str]:
        rule = self._request.rule
        if rule is None:
            return []
        clauses = rule.sql_clauses(person, self._columns)
        if self._request.mutual:
            clauses += rule.sql_clauses(person, self._columns, swapped=True)
        return clauses


def one_of(ids: Iterable[str]) -> str:
    """The condition that a person has one of the ids."""
    return f"id IN ({', '.join(map(quote_text, ids))})"


def _nesting(sql: str) -> int:
    """Depth of parentheses; those in quoted texts count too, which is harmless."""
    depth = 0
    deepest = 0
    for character in sql:
        depth += (character == "(") - (character == ")")
        deepest = max(deepest, depth)
    return deepest
