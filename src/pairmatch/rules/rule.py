"""Rules such as `age between 25 and 35 and region in ('Daejeon', 'Seoul') and smoker = false`.

A rule is one SQL expression over attributes, parsed by sqlglot and evaluated on whole columns. It
cannot call functions (except `abs`) and reads nothing but attributes. Its logic is SQL's: a missing
attribute is unknown, and a candidate is eligible only if the rule is true. NaN is a missing value,
and the result of arithmetic that is not finite, such as a division by zero, is unknown. All
galleries evaluate rules here, so that no two of them can differ.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import sqlglot
from sqlglot import exp

from pairmatch.core.errors import ConfigurationError
from pairmatch.core.text import has_surrogates, printable
from pairmatch.rules.checking import KindChecker, Problem, syntax_problems
from pairmatch.rules.columns import Columns, Kind, Mask
from pairmatch.rules.evaluation import evaluate

_MAX_CHARACTERS = 10_000
_MAX_PARENTHESES = 100
_SHOWN_CHARACTERS = 200  # of a rule in an error message


@dataclass(frozen=True, slots=True)
class Rule:
    """A parsed rule; `parse_rule` creates it.

    Attributes:
        text: The rule as written.
        clauses: The conditions that the rule joins with `and`, as text.
    """

    text: str
    clauses: tuple[str, ...]
    _parts: tuple[exp.Expr, ...] = field(repr=False, compare=False)

    @property
    def parts(self) -> tuple[exp.Expr, ...]:
        """The conditions as parsed by sqlglot, in the order of `clauses`."""
        return self._parts

    @property
    def query_attributes(self) -> tuple[str, ...]:
        """Names of the attributes after `query.`, sorted."""
        return tuple(sorted({column.name for column in _columns(self._parts) if column.table}))

    @property
    def attributes(self) -> tuple[str, ...]:
        """Names of the attributes without `query.`, sorted."""
        return tuple(sorted({column.name for column in _columns(self._parts) if not column.table}))

    def check(
        self, kinds: Mapping[str, Kind], query_kinds: Mapping[str, Kind] | None = None
    ) -> None:
        """Checks that all attributes exist and that comparisons match in kind.

        Args:
            kinds: Kinds of the candidates' attributes, by name.
            query_kinds: Kinds of the query person's attributes, in addition to those of candidates.

        Raises:
            ConfigurationError: Lists all problems with their position in the text.
        """
        checker = KindChecker(kinds, {**kinds, **(query_kinds or {})})
        for part in self._parts:
            checker.check_condition(part)
        if checker.problems:
            raise _error(self.text, checker.problems)

    def holds(self, bare: Columns, query: Columns, count: int) -> list[Mask]:
        """Evaluates each clause.

        Args:
            bare: Columns for bare names, of `count` rows or of one.
            query: Columns for names after `query.`, of `count` rows or of one.
            count: Number of rows n.

        Returns:
            One [n] bool per clause, True if the clause is true, False if it is false or unknown.
        """
        return [np.broadcast_to(evaluate(part, bare, query).true, (count,)) for part in self._parts]


def parse_rule(text: str | Iterable[str]) -> Rule:
    """Parses a rule, or several that must all be true.

    Supported: attribute names (in double quotes unless they are plain words), `query.` before the
    name of an attribute of the query person, numbers, 'texts', true, false, `= != < <= > >=`,
    `between … and …`, `in (…)`, `is null`, `and or not`, `+ - * /`, `abs(…)`, parentheses.

    Raises:
        ConfigurationError: The text is not such an expression; gives the position of the fault.
    """
    if not isinstance(text, Iterable):
        raise ConfigurationError(f"A rule must be text, got {type(text).__name__}.")
    texts = (text,) if isinstance(text, str) else tuple(text)
    for part in texts:
        if not isinstance(part, str):
            raise ConfigurationError(f"A rule must be text, got {type(part).__name__}.")
    length = sum(map(len, texts))
    if length > _MAX_CHARACTERS:
        raise ConfigurationError(
            f"A rule must have at most {_MAX_CHARACTERS:,} characters, got {length:,}."
        )
    return _rule(texts)


@lru_cache(256)
def _rule(texts: tuple[str, ...]) -> Rule:
    parts = [clause for text in texts for clause in _conjuncts(_parse(text))]
    return Rule(" and ".join(texts), tuple(part.sql() for part in parts), tuple(parts))


def _parse(text: str) -> exp.Expr:
    problem = _unreadable(text)
    if problem is not None:
        raise _error(text, [problem])
    log = logging.getLogger("sqlglot")
    level = log.level
    try:
        log.setLevel(logging.ERROR)  # its warnings concern syntax that is refused below
        statements = sqlglot.parse(text)
    except Exception as error:  # on unusual texts, sqlglot raises more than its own errors
        raise _error(text, [_parser_problem(error)]) from None
    finally:
        log.setLevel(level)
    if len(statements) != 1 or statements[0] is None:
        raise _error(text, [(None, "it needs one condition, such as age >= 25")])
    problems = list(syntax_problems(statements[0]))
    if problems:
        raise _error(text, problems)
    return statements[0]


def _unreadable(text: str) -> Problem | None:
    """What keeps a text from the parser: characters that no attribute holds, and deep nesting."""
    if "\0" in text or has_surrogates(text):
        place = next(n for n, one in enumerate(text, 1) if one == "\0" or has_surrogates(one))
        return place, "this character is not allowed in a rule"
    depth = 0
    for place, character in enumerate(text, 1):
        depth += (character in "([{") - (character in ")]}")
        if depth > _MAX_PARENTHESES:
            return place, "it is nested too deeply"
    return None


def _parser_problem(error: Exception) -> Problem:
    details = getattr(error, "errors", None) or [{}]
    position = details[0].get("col")
    token = details[0].get("highlight") or ""
    if "tokenizing" in str(error):
        return position, "a quote is not closed, or a character is invalid"
    if isinstance(error, RecursionError):
        return position, "it is nested too deeply"
    if token and "Required keyword" not in str(error):
        return position, f"{token!r} is not expected here"
    return position, "something is missing here"


def _error(text: str, problems: Sequence[Problem]) -> ConfigurationError:
    listed = "; ".join(
        message if position is None else f"character {position}: {message}"
        for position, message in problems
    )
    shown = text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"
    return ConfigurationError(f"The rule {shown!r} cannot be used: {printable(listed)}.")


def _conjuncts(node: exp.Expr) -> Iterator[exp.Expr]:
    if isinstance(node, exp.And):
        for part in node.flatten():
            yield from _conjuncts(part)
    elif isinstance(node, exp.Paren):
        yield from _conjuncts(node.this)
    else:
        yield node


def _columns(parts: Iterable[exp.Expr]) -> Iterator[exp.Column]:
    for part in parts:
        yield from part.find_all(exp.Column)
