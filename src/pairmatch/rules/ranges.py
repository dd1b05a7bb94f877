"""Arithmetic on one attribute, solved for the attribute: `abs(age - 34) <= 5` is 29 to 39.

Databases differ in what a division by zero, an overflow and rounding do. A range of the attribute
itself has one meaning everywhere, and indexes serve it. The bounds are exact: floating-point
addition, multiplication and division by a constant are monotonic, so that a bisection over all
floats finds the first and the last number that qualifies.
"""

from __future__ import annotations

import math
import struct
import sys
from collections.abc import Callable, Sequence

import numpy as np
from sqlglot import exp

from pairmatch.rules.evaluation import ARITHMETIC
from pairmatch.rules.person import QueryPerson

Interval = tuple[float, float]  # both ends belong to it
Intervals = list[Interval]

_MOST = sys.float_info.max
#: All finite numbers.
FINITE: Intervals = [(-_MOST, _MOST)]


def satisfying(operation: type[exp.Expr], bound: float) -> Intervals:
    """Finite numbers x for which `x operation bound` is true."""
    below = (-_MOST, math.nextafter(bound, -math.inf))
    above = (math.nextafter(bound, math.inf), _MOST)
    intervals: dict[type[exp.Expr], Intervals] = {
        exp.EQ: [(bound, bound)],
        exp.NEQ: [below, above],
        exp.LT: [below],
        exp.LTE: [(-_MOST, bound)],
        exp.GT: [above],
        exp.GTE: [(bound, _MOST)],
    }
    return _clipped(intervals[operation])


def solve(node: exp.Expr, wanted: Sequence[Interval], person: QueryPerson) -> Intervals | None:
    """Values of the one attribute in an expression for which its result lies in some intervals.

    Args:
        node: Numeric expression that is not constant.
        wanted: Intervals of results, ascending and disjoint; others are unknown or not wanted.
        person: The query person.

    Returns:
        Intervals of the attribute, ascending and disjoint; None if the expression reads more than
        one attribute, or one twice.
    """
    if isinstance(node, exp.Paren):
        return solve(node.this, wanted, person)
    if isinstance(node, exp.Column):
        return _clipped(wanted)
    if isinstance(node, exp.Neg):
        return solve(node.this, _negated(_clipped(wanted)), person)
    if isinstance(node, exp.Abs):
        positive = [(max(low, 0.0), high) for low, high in _clipped(wanted) if high >= 0]
        return solve(node.this, _union([*_negated(positive), *positive]), person)
    left, right = node.this, node.expression
    if not (person.is_constant(left) or person.is_constant(right)):
        return None
    is_first = person.is_constant(left)
    constant = person.value(left if is_first else right)
    if constant is None or isinstance(constant, str):
        return []
    inner = _inverted(type(node), float(constant), is_first, _clipped(wanted))
    return solve(right if is_first else left, inner, person)


def attribute_in(node: exp.Expr, person: QueryPerson) -> str | None:
    """The attribute of candidates that an expression reads, if it reads just one, once."""
    columns = [column for column in node.find_all(exp.Column) if person.attribute(column)]
    return columns[0].name if len(columns) == 1 else None


def edges(interval: Interval) -> list[tuple[type[exp.Expr], float]]:
    """The comparisons that an interval stands for, in the shortest form; none if all is in it."""
    low, high = interval
    bounds: list[tuple[type[exp.Expr], float]] = []
    if low > -_MOST:
        before = math.nextafter(low, -math.inf)
        shorter = len(repr(before)) < len(repr(low))
        bounds.append((exp.GT, before) if shorter else (exp.GTE, low))
    if high < _MOST:
        after = math.nextafter(high, math.inf)
        shorter = len(repr(after)) < len(repr(high))
        bounds.append((exp.LT, after) if shorter else (exp.LTE, high))
    return bounds


def complement(intervals: Sequence[Interval]) -> Intervals:
    """All finite numbers outside ascending, disjoint intervals."""
    outside: Intervals = []
    start = -_MOST
    for low, high in intervals:
        if low > start:
            outside.append((start, math.nextafter(low, -math.inf)))
        start = math.nextafter(high, math.inf)
    if start <= _MOST:
        outside.append((start, _MOST))
    return outside


def _inverted(
    operation: type[exp.Expr], constant: float, is_first: bool, wanted: Intervals
) -> Intervals:
    """The x for which `constant operation x`, or `x operation constant`, lies in intervals."""
    compute = ARITHMETIC[operation]

    def result(x: float) -> float:
        with np.errstate(all="ignore"):
            pair = (constant, x) if is_first else (x, constant)
            return float(compute(np.float64(pair[0]), np.float64(pair[1])))

    domains: Intervals = FINITE
    if operation is exp.Div and not is_first and constant == 0:
        domains = []
    elif operation is exp.Div and is_first:  # a division by zero is unknown
        tiny = math.nextafter(0.0, 1.0)
        domains = [(-_MOST, -tiny), (tiny, _MOST)]
    solved = [
        interval
        for low, high in domains
        for bounds in wanted
        if (interval := _preimage(result, low, high, bounds)) is not None
    ]
    return _union(solved)


def _preimage(
    result: Callable[[float], float], low: float, high: float, wanted: Interval
) -> Interval | None:
    """The x between two numbers for which a monotonic function lies in an interval."""
    first, last = result(low), result(high)
    if math.isnan(first) or math.isnan(last):  # of an infinite constant: never finite
        return None
    if first > last:
        flipped = _preimage(lambda x: result(-x), -high, -low, wanted)
        return None if flipped is None else (-flipped[1], -flipped[0])
    if last < wanted[0] or first > wanted[1]:
        return None
    start = _first(lambda x: result(x) >= wanted[0], low, high)
    beyond = result(high) <= wanted[1]
    end = high if beyond else _before(_first(lambda x: result(x) > wanted[1], low, high))
    return (start, end) if start <= end else None


def _first(qualifies: Callable[[float], bool], low: float, high: float) -> float:
    """The lowest float that qualifies; all above it do too, `high` among them."""
    start, end = _rank(low), _rank(high)
    while start < end:
        middle = (start + end) // 2
        if qualifies(_float(middle)):
            end = middle
        else:
            start = middle + 1
    return _float(start)


def _before(number: float) -> float:
    return math.nextafter(number, -math.inf)


def _rank(number: float) -> int:
    """Whole number with the same order as floats; both zeros have rank 0."""
    bits: int = struct.unpack("<q", struct.pack("<d", abs(number)))[0]
    return -bits if number < 0 else bits


def _float(rank: int) -> float:
    number: float = struct.unpack("<d", struct.pack("<q", abs(rank)))[0]
    return -number if rank < 0 else number


def _negated(intervals: Intervals) -> Intervals:
    return [(-high, -low) for low, high in reversed(intervals)]


def _clipped(intervals: Sequence[Interval]) -> Intervals:
    """Finite parts of intervals, without empty ones; a zero has no sign."""
    return [
        (max(low, -_MOST) + 0.0, min(high, _MOST) + 0.0)
        for low, high in intervals
        if max(low, -_MOST) <= min(high, _MOST)
    ]


def _union(intervals: Sequence[Interval]) -> Intervals:
    """Intervals in ascending order, those that touch or overlap merged."""
    merged: Intervals = []
    for low, high in sorted(intervals):
        if merged and low <= math.nextafter(merged[-1][1], math.inf):
            merged[-1] = (merged[-1][0], max(merged[-1][1], high))
        else:
            merged.append((low, high))
    return merged
