"""How one attribute becomes columns: a number, an age, or one column per frequent category.

Everything that an encoding keeps is a mean over at least 10 training people, on which the extreme
values of a few have no influence, so that no person can be read from a saved matcher.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, TypeAdapter

from pairmatch.core.text import replace_surrogates

#: Smallest number of people that a column must tell apart from at least as many others.
FEWEST_PEOPLE = 10
_MOST_OPTIONS = 100
_MOST_CHARACTERS = 100
_NEARLY_ALL = 0.9
_TAIL = 0.05  # share of people at each end who do not stretch the scale, and their smallest number
_FEWEST_IN_TAIL = 2
_FARTHEST = 3.0  # in standard deviations
_LARGEST = 1e100  # its square is finite
_DATE = re.compile(r"\d{4}-\d\d-\d\d(?=[T ]|\Z)")
_DAYS_PER_YEAR = 365.2425

_NUMBERS = (int, float, Decimal, np.integer, np.floating)
_Doubles = npt.NDArray[np.float64]
_Share = Annotated[float, Field(gt=0, lt=1)]


class _Encoding(BaseModel):
    """An attribute that training people have.

    Attributes:
        missing: Share of training people without a value; None if fewer than 10 have none, or fewer
            than 10 have one: there is no column for it then.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)
    missing: _Share | None

    def _with_missing(self, columns: _Doubles, known: npt.NDArray[np.bool_]) -> _Doubles:
        """The columns, 0 (the mean) for people without a value, and the column for these people."""
        columns = np.where(known[:, None], columns, 0.0)
        if self.missing is None:
            return columns
        return np.column_stack([columns, ~known - self.missing])


class NumberEncoding(_Encoding):
    """A number, or the age of a date in years, in standard deviations from the mean.

    Attributes:
        kind: `number` or `date`.
        mean: Mean over training people.
        scale: Standard deviation. The 5 % of people at each end, at least two, do not stretch it,
            and no one is farther than 3 from the mean.
    """

    kind: Literal["number", "date"]
    mean: FiniteFloat
    scale: Annotated[FiniteFloat, Field(gt=0)]

    @property
    def width(self) -> int:
        """Number of columns."""
        return 1 + (self.missing is not None)

    def encode(self, values: Sequence[Any]) -> _Doubles:
        """[N, width] columns for the values of N people."""
        numbers = _numbers(values, self.kind)
        with np.errstate(over="ignore"):
            distances = (numbers - self.mean) / self.scale
        known = ~np.isnan(numbers)
        return self._with_missing(np.clip(distances, -_FARTHEST, _FARTHEST)[:, None], known)


class ChoiceEncoding(_Encoding):
    """Categories, of which a person may have several: one column for each frequent one.

    Attributes:
        kind: `choice`.
        shares: Share of the people with a value who have a category, by category.
        other: Share of those who have any other category; None if there is no column for it.
    """

    kind: Literal["choice"]
    shares: dict[Annotated[str, Field(min_length=1)], _Share] = Field(max_length=_MOST_OPTIONS)
    other: _Share | None

    @property
    def width(self) -> int:
        """Number of columns."""
        return len(self.shares) + (self.other is not None) + (self.missing is not None)

    def encode(self, values: Sequence[Any]) -> _Doubles:
        """[N, width] columns for the values of N people; their variances add up to 1 at most."""
        chosen = [_choices(value) for value in values]
        names = sorted(self.shares)
        means = [self.shares[name] for name in names]
        columns = [[name in one for name in names] for one in chosen]
        if self.other is not None:
            means.append(self.other)
            for row, one in zip(columns, chosen, strict=True):
                row.append(not one <= self.shares.keys())
        p = np.array(means)
        centered = np.array(columns, np.float64).reshape(len(values), len(means)) - p
        scale = 1 / math.sqrt(max(1.0, float(np.sum(p * (1 - p)))))
        return self._with_missing(centered * scale, np.array([bool(one) for one in chosen], bool))


Encoding = Annotated[NumberEncoding | ChoiceEncoding, Field(discriminator="kind")]
#: Checks and reads the encodings of a saved matcher, by name of the attribute.
ENCODINGS: TypeAdapter[dict[str, NumberEncoding | ChoiceEncoding]] = TypeAdapter(
    dict[str, Encoding]
)


def fit_encoding(values: Sequence[Any]) -> NumberEncoding | ChoiceEncoding | None:
    """The encoding of an attribute; None if no column tells 10 people from 10 others.

    An attribute is a number or a date if at least 90 % of its values are, and a choice otherwise.

    Args:
        values: One per training person; None if the person has none.
    """
    known = [value for value in values if _choices(value)]
    kinds = Counter(map(_kind, known))
    for kind in ("number", "date"):
        if kinds[kind] >= _NEARLY_ALL * len(known) > 0:
            return _fit_number(values, kind)
    return _fit_choice(values)


def _fit_number(values: Sequence[Any], kind: Literal["number", "date"]) -> NumberEncoding | None:
    numbers = _numbers(values, kind)
    known = numbers[~np.isnan(numbers)]
    distinct, counts = np.unique(known, return_counts=True)
    if len(known) - counts.max(initial=0) < FEWEST_PEOPLE:
        return None
    core = np.clip(known, *_bounds(known))
    if not core.std():  # nearly all people have the same value
        usual = distinct[counts.argmax()]
        low, high = _bounds(known[known != usual])
        core = np.clip(known, min(low, usual), max(high, usual))
    scale = float(core.std())
    if scale <= 0:  # differences that are too small for a float
        return None
    missing = _share(len(values) - len(known), len(values))
    return NumberEncoding(kind=kind, mean=float(core.mean()), scale=scale, missing=missing)


def _bounds(values: _Doubles) -> tuple[float, float]:
    """Values that at least 5 % of the people, and more than two of them, reach at either end."""
    tail = max(math.ceil(_TAIL * len(values)), _FEWEST_IN_TAIL)
    ordered = np.sort(values)
    return float(ordered[tail]), float(ordered[-1 - tail])


def _fit_choice(values: Sequence[Any]) -> ChoiceEncoding | None:
    chosen = [choices for choices in map(_choices, values) if choices]
    counts = Counter(choice for choices in chosen for choice in choices)
    frequent = sorted(counts, key=lambda choice: (-counts[choice], choice))
    shares: dict[str, float] = {}
    for choice in frequent:
        share = _share(counts[choice], len(chosen))
        if share is not None and len(shares) < _MOST_OPTIONS:
            shares[choice] = share
    other = _share(sum(not choices <= shares.keys() for choices in chosen), len(chosen))
    missing = _share(len(values) - len(chosen), len(values))
    if not shares and other is None and missing is None:
        return None
    return ChoiceEncoding(kind="choice", shares=shares, other=other, missing=missing)


def _share(count: int, people: int) -> float | None:
    """The share of `count`; None if fewer than 10 people are in it or outside of it."""
    is_told_apart = FEWEST_PEOPLE <= count <= people - FEWEST_PEOPLE
    return count / people if is_told_apart else None


def _kind(value: Any) -> str:
    if isinstance(value, _NUMBERS) and not isinstance(value, bool):
        return "number"
    return "choice" if _age(value) is None else "date"


def _numbers(values: Iterable[Any], kind: Literal["number", "date"]) -> _Doubles:
    """[N] numbers or ages; NaN where there is none."""
    read = _age if kind == "date" else _number
    return np.array([math.nan if (x := read(value)) is None else x for value in values], float)


def _number(value: Any) -> float | None:
    """A number, also if it is written as text; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (*_NUMBERS, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return min(max(number, -_LARGEST), _LARGEST) if math.isfinite(number) else None


def _age(value: Any) -> float | None:
    """Years from a date to 1970: people's ages on any one day differ from it by a constant."""
    if isinstance(value, datetime):
        value = value.date() if value == value else None  # not for the NaT of pandas
    if isinstance(value, str):
        match = _DATE.match(value.strip())
        try:
            value = date.fromisoformat(match[0]) if match else None
        except ValueError:  # such as the 31st of February
            return None
    if not isinstance(value, date):
        return None
    return (date(1970, 1, 1) - value).days / _DAYS_PER_YEAR


def _choices(value: Any) -> frozenset[str]:
    """The categories of a value, split at `;`; empty if there is no value."""
    if value is None:
        return frozenset()
    if isinstance(value, Collection) and not isinstance(value, str | bytes):
        return frozenset(choice for part in value for choice in _choices(part))
    if isinstance(value, bool | np.bool_):
        return frozenset(["true" if value else "false"])
    if isinstance(value, _NUMBERS):
        if _number(value) is None:
            return frozenset()
        return frozenset([str(int(value) if value == int(value) else value)])
    text = unicodedata.normalize("NFC", replace_surrogates(str(value))).casefold()
    words = (" ".join(part.split())[:_MOST_CHARACTERS] for part in text.split(";"))
    return frozenset(word for word in words if word)
