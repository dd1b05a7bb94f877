"""Eligibility rules in words, such as `age >= 25`, over profile attributes. Nothing is ever evaluated as code."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from typing import Any

from pairmatch.errors import ConfigurationError
from pairmatch.types import Profile

_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "!=": operator.ne,
    "==": operator.eq,
    "=": operator.eq,
    ">": operator.gt,
    "<": operator.lt,
}
_RULE = re.compile(r"\s*([^\s<>=!]+)\s*(>=|<=|!=|==|=|>|<)\s*(.+?)\s*$")


def parse_rule(text: str) -> Callable[[Profile], bool]:
    """A test of one attribute: `age >= 25`, `region = north`, `smoker != true`.

    Numbers compare as numbers, everything else as text. Someone without the attribute is not eligible.

    Raises:
        ConfigurationError: Not a rule; or, when it is applied, an order (`<`, `>=`, …) between text and number.
    """
    found = _RULE.match(text)
    if not found:
        raise ConfigurationError(
            f"{text!r} is no rule: write an attribute, one of {' '.join(_OPERATORS)}, and a value."
        )
    name, sign, wanted = found.groups()
    value = wanted.strip("\"'")
    compare = _OPERATORS[sign]

    def rule(profile: Profile) -> bool:
        have = profile.attributes.get(name)
        if have is None:
            return False
        if isinstance(have, bool):
            return compare(str(have).lower(), value.lower())
        if isinstance(have, int | float):
            try:
                return compare(have, float(value))
            except ValueError:
                raise ConfigurationError(
                    f"The rule {text!r} compares {name!r}, which is a number, with {value!r}."
                ) from None
        return compare(str(have), value)

    return rule
