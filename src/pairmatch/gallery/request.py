"""Search requests: validated queries, the rule to apply, and the candidates not to show."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pairmatch.core.arrays import Floats, Vectors, check_count, check_vectors
from pairmatch.core.errors import ConfigurationError
from pairmatch.core.ids import id_texts
from pairmatch.core.text import all_spellings
from pairmatch.gallery.attributes import Attributes, as_kind, plain_attributes
from pairmatch.rules import Kind, Rule, kind_of, parse_rule

Where = str | Iterable[str] | None


@dataclass(frozen=True, slots=True)
class QueryGroup:
    """Queries whose people have equal values in all attributes that the rule reads.

    Attributes:
        queries: Row numbers of the queries.
        person: Attributes of the query person.
    """

    queries: list[int]
    person: Attributes


@dataclass(frozen=True, slots=True, eq=False)
class SearchRequest:
    """One call of `Gallery.search`, with valid arguments.

    Attributes:
        queries: [Q, K] float32.
        k: Maximum number of candidates per query.
        rule: Rule for candidates; None if there is none.
        groups: All queries, grouped by what the rule reads of the query person.
        query_kinds: Kinds of the attributes of query persons.
        mutual: Whether the rule must also hold with the roles swapped.
        excluded: Ids that are not shown, per query.
        bonus: [N] float32, in the order of `Gallery.ids`.
        with_attributes: Whether the result has the attributes of the candidates.
    """

    queries: Vectors
    k: int
    rule: Rule | None
    groups: Sequence[QueryGroup]
    query_kinds: Mapping[str, Kind]
    mutual: bool
    excluded: Sequence[Collection[str]] | None
    bonus: Vectors | None
    with_attributes: bool = False

    @classmethod
    def of(
        cls,
        queries: Floats,
        k: int,
        *,
        where: Where,
        asking: Sequence[Attributes] | None,
        mutual: bool,
        excluded: Sequence[Collection[str]] | None,
        bonus: Floats | None,
    ) -> SearchRequest:
        """Validates the arguments of `Gallery.search`, except against the gallery.

        Raises:
            ConfigurationError: An argument is invalid.
        """
        check_vectors("queries", queries)
        count = len(queries)
        for name, argument in (("asking", asking), ("excluded", excluded)):
            if argument is not None and len(argument) != count:
                raise ConfigurationError(
                    f"`{name}` needs one entry per query, {count}, got {len(argument)}."
                )
        rule = None if where is None else parse_rule(where)
        if rule is not None and not rule.clauses:
            rule = None
        persons = [{}] * count if asking is None else [plain_attributes(row) for row in asking]
        return cls(
            queries=np.ascontiguousarray(queries, np.float32),
            k=check_count("search(k=...)", k),
            rule=rule,
            groups=_groups(persons, rule, mutual),
            query_kinds={} if rule is None else _kinds(persons),
            mutual=mutual,
            excluded=None if excluded is None else [_hidden(ids) for ids in excluded],
            bonus=None if bonus is None else _bonus(bonus),
        )

    @property
    def attributes(self) -> tuple[str, ...]:
        """Names of the candidates' attributes that the rule reads."""
        if self.rule is None:
            return ()
        names = {*self.rule.attributes, *(self.rule.query_attributes if self.mutual else ())}
        return tuple(sorted(names))

    @property
    def filters(self) -> tuple[str, ...]:
        """Names of the filters in the order they are applied, as `excluded_by` gives them."""
        clauses = () if self.rule is None else self.rule.clauses
        swapped = [f"{clause}, with the roles swapped" for clause in clauses if self.mutual]
        return ("no candidates", *clauses, *swapped)

    def fitted(
        self, width: int | None, kinds: Mapping[str, Kind], *, is_new: bool
    ) -> SearchRequest:
        """Checks the request against a gallery.

        Whole numbers of query persons become text where candidates have text.

        Args:
            width: K of the gallery's embeddings; None if none was ever added.
            kinds: Kinds of the candidates' attributes.
            is_new: Whether no candidate was ever added; all attributes are then unknown.

        Raises:
            ConfigurationError: Widths differ, or the rule cannot be used.
        """
        if width is not None and self.queries.shape[1] != width:
            raise ConfigurationError(
                f"The gallery's embeddings are {width} wide, the queries {self.queries.shape[1]}."
            )
        if self.rule is None:
            return self
        groups = [QueryGroup(group.queries, _fitted(group.person, kinds)) for group in self.groups]
        query_kinds = dict(self.query_kinds)
        for name, kind in query_kinds.items():
            values = [group.person[name] for group in groups if name in group.person]
            query_kinds[name] = kind_of(values[0]) if values else kind
        if not is_new:
            self.rule.check(kinds, query_kinds)
            if self.mutual:
                self.rule.check({**kinds, **query_kinds}, kinds)
        return dataclasses.replace(self, groups=groups, query_kinds=query_kinds)

    def checked_bonus(self, count: int) -> Vectors | None:
        """[N] float32: the bonus of N candidates.

        Raises:
            ConfigurationError: The shape does not fit, or values are not finite.
        """
        if self.bonus is not None and (
            self.bonus.shape != (count,) or not np.isfinite(self.bonus).all()
        ):
            raise ConfigurationError(
                f"`bonus` needs one finite number per candidate, [{count}], got "
                f"{list(self.bonus.shape)}."
            )
        return self.bonus

    def capped(self, people: int) -> SearchRequest:
        """The request for at most as many candidates as there are people."""
        return self if self.k <= people else dataclasses.replace(self, k=people)

    def of_group(self, group: QueryGroup) -> SearchRequest:
        """The request of some queries, whose people have equal values in what the rule reads."""
        rows = group.queries
        return dataclasses.replace(
            self,
            queries=self.queries[rows],
            groups=[QueryGroup(list(range(len(rows))), group.person)],
            excluded=None if self.excluded is None else [self.excluded[row] for row in rows],
        )

    def without_rule(self) -> SearchRequest:
        """The request without its rule, once the rule has been applied."""
        everyone = QueryGroup(list(range(len(self.queries))), {})
        return dataclasses.replace(self, rule=None, groups=[everyone], mutual=False)


def _hidden(ids: Collection[str]) -> Collection[str]:
    """Ids in all normal forms, so that none is shown because it is written differently."""
    return set(all_spellings(id_texts("excluded", ids)))


def _bonus(values: Floats) -> Vectors:
    try:
        with np.errstate(over="ignore"):  # what is too large is not finite, and refused below
            return np.asarray(values, np.float32)
    except (TypeError, ValueError):
        raise ConfigurationError("`bonus` needs one finite number per candidate.") from None


def _groups(persons: Sequence[Attributes], rule: Rule | None, mutual: bool) -> Sequence[QueryGroup]:
    if rule is None:
        return [QueryGroup(list(range(len(persons))), {})]
    names = (*rule.query_attributes, *(rule.attributes if mutual else ()))
    groups: dict[tuple[Any, ...], QueryGroup] = {}
    for query, person in enumerate(persons):
        key = tuple(person.get(name) for name in names)
        groups.setdefault(key, QueryGroup([], person)).queries.append(query)
    return list(groups.values())


def _fitted(person: Attributes, kinds: Mapping[str, Kind]) -> Attributes:
    return {name: as_kind(value, kinds.get(name)) for name, value in person.items()}


def _kinds(persons: Sequence[Attributes]) -> dict[str, Kind]:
    kinds: dict[str, Kind] = {}
    for person in persons:
        for name, value in person.items():
            if kinds.setdefault(name, kind_of(value)) != kind_of(value):
                raise ConfigurationError(
                    f"`asking` has the attribute {name!r} in two kinds: {value!r} is not "
                    f"{kinds[name]}, as in an earlier entry."
                )
    return kinds
