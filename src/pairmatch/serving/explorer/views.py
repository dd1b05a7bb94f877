"""What each page shows, from the parameters of its address."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pairmatch.core.errors import ConfigurationError, PairmatchError
from pairmatch.core.types import Side
from pairmatch.serving.explorer.computing import ComputingError
from pairmatch.serving.explorer.explorer import Explorer
from pairmatch.serving.explorer.slates import POLICIES, Question, Slate, Slates
from pairmatch.serving.problems import ProblemError, response_of

Parameters = Mapping[str, str]
_MOST_K = 60
_MOST_RULE = 10_000
_MOST_ID = 1_000
_MOST_NAMES = 40
_LISTED = 20
_SECOND = "second:"
_RIGHT = (f"{_SECOND}plain", "reciprocal", "balanced", "plain")  # the first that is offered


@dataclass(frozen=True, slots=True)
class Choice:
    """One of several values of a field.

    Attributes:
        value: Value in the address.
        label: What it is called.
        reason: Why it is not offered; empty if it is.
    """

    value: str
    label: str
    reason: str = ""


def question_of(parameters: Parameters) -> Question:
    """The question of an address; what cannot be understood has its default."""
    side = parameters.get("side")
    k = parameters.get("k", "")
    policy = parameters.get("policy", "plain")
    return Question(
        parameters.get("id", "").strip(),
        "a" if side == "a" else "b" if side == "b" else None,
        min(max(int(k), 1), _MOST_K) if k.isascii() and k.isdigit() and len(k) < 9 else 12,
        parameters.get("where", "").strip(),
        parameters.get("mutual", "") not in ("", "0"),
        policy if policy in POLICIES else "plain",
    )


def slate_view(explorer: Explorer, parameters: Parameters) -> dict[str, Any]:
    """A person, and their slate by one policy."""
    question = question_of(parameters)
    slates = explorer.slates[""]
    values = _common(explorer, question) | {"policies": _choices(slates), "slate": None}
    if not question.person:
        return values | _suggested(explorer, question)
    return values | _guarded(
        explorer, question, lambda: {"slate": slates.slate(_checked(question))}
    )


def compare_view(explorer: Explorer, parameters: Parameters) -> dict[str, Any]:
    """The slates of one person by two policies or two matchers, side by side."""
    question = question_of(parameters)
    choices = _choices(explorer.slates[""], explorer.names[""] if explorer.names else "")
    if "second" in explorer.slates:
        second = _choices(explorer.slates["second"], explorer.names["second"], _SECOND)
        choices = [*choices, *second]
    left, right = (
        _offered(parameters.get(name, ""), choices, defaults)
        for name, defaults in (("left", ["plain"]), ("right", _RIGHT))
    )
    values = _common(explorer, question) | {
        "choices": choices,
        "left": left,
        "right": right,
        "columns": [],
        "shared": 0,
    }
    if not question.person:
        return values | _suggested(explorer, question)

    def columns() -> dict[str, Any]:
        slates = [_slate_by(explorer, _checked(question), choice) for choice in (left, right)]
        ranks = [{card.id: card.rank for card in slate.cards} for slate in slates]
        labels = {choice.value: choice.label for choice in choices}
        return {
            "columns": [
                (labels[choice], slates[column], ranks[1 - column])
                for column, choice in enumerate((left, right))
            ],
            "shared": len(ranks[0].keys() & ranks[1].keys()),
        }

    return values | _guarded(explorer, question, columns)


def exposure_view(explorer: Explorer, parameters: Parameters) -> dict[str, Any]:
    """Who is shown too often, and who never."""
    question = question_of(parameters)
    side = next(iter(explorer.service.galleries)) if question.side is None else question.side
    values = _common(explorer, replace(question, side=side)) | {"found": None}

    def found() -> dict[str, Any]:
        explorer.gallery(side)
        exposure, age = explorer.exposure(side, question.k)
        gallery = explorer.gallery(exposure.target)
        present = gallery.present([*exposure.never, *(person for person, _ in exposure.most)])
        return {
            "found": exposure,
            "minutes": int(age // 60),
            "most": [entry for entry in exposure.most if entry[0] in present],
            "never": [person for person in exposure.never if person in present],
        }

    return values | _guarded(explorer, question, found)


def pairs_view(explorer: Explorer, parameters: Parameters) -> dict[str, Any]:
    """The test pairs, one after the other, from the best or from the worst."""
    question = question_of(parameters)
    order = "worst" if parameters.get("order") == "worst" else "best"
    values = _common(explorer, question) | {
        "order": order,
        "found": None,
        "has_pairs": explorer.settings.pairs is not None,
    }

    def found() -> dict[str, Any]:
        ranked = explorer.walk()
        if ranked is None:
            return {}
        result, age = ranked
        pairs = list(result.pairs) if order == "best" else list(reversed(result.pairs))
        at = parameters.get("at", "")
        position = int(at) if at.isascii() and at.isdigit() and len(at) < 9 else 1
        position = min(max(position, 1), len(pairs))
        first = max(0, min(position - _LISTED // 2, len(pairs) - _LISTED))
        pair = pairs[position - 1]
        side: Side = "a"
        if explorer.service.matcher.sides == 1:
            side = next(iter(explorer.service.galleries))
        try:
            shown: Slate | None = explorer.slates[""].pair(pair.a, side, pair.b)
        except ProblemError:
            shown = None
        return {
            "found": result,
            "minutes": int(age // 60),
            "position": position,
            "pair": pair,
            "slate": shown,
            "listed": list(enumerate(pairs[first : first + _LISTED], first + 1)),
        }

    return values | _guarded(explorer, question, found)


def _common(explorer: Explorer, question: Question) -> dict[str, Any]:
    """What all pages need."""
    service = explorer.service
    kinds: dict[str, str] = {}
    for gallery in service.galleries.values():
        kinds |= gallery.attribute_kinds
    return {
        "question": question,
        "sides": list(service.galleries),
        "people": service.people(),
        "attributes": sorted(kinds.items())[:_MOST_NAMES],
        "has_photo": explorer.has_photo,
        "suggested": [],
        "error": "",
        "rule_error": "",
        "is_computing": False,
    }


def _guarded(
    explorer: Explorer, question: Question, build: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """What `build` returns, or why it cannot."""
    try:
        return build()
    except ComputingError:
        return {"is_computing": True}
    except ProblemError as error:
        if error.name != "unknown-person":
            return {"error": str(error), "status": error.status}
        return {"error": str(error)} | _suggested(explorer, question)
    except ConfigurationError as error:
        name = "rule_error" if question.where else "error"
        return {name: str(error)}  # a form that was filled in wrongly is a page like any other
    except PairmatchError as error:
        return {"error": str(error), "status": response_of(error).status_code}


def _checked(question: Question) -> Question:
    """The question, if its texts are not too long."""
    if len(question.where) > _MOST_RULE:
        raise ConfigurationError(f"A rule has at most {_MOST_RULE:,} characters.")
    if len(question.person) > _MOST_ID:
        raise ProblemError("unknown-person", 404, "No id is that long.")
    return question


def _suggested(explorer: Explorer, question: Question) -> dict[str, Any]:
    """Ids that begin with what was typed."""
    side = question.side or next(iter(explorer.service.galleries))
    try:
        return {"suggested": explorer.suggestions(side, question.person[:_MOST_ID])}
    except ComputingError:
        return {"is_computing": True}


def _choices(slates: Slates, name: str = "", prefix: str = "") -> Sequence[Choice]:
    """The policies of a matcher, and why some are not offered."""
    reasons = slates.unavailable()
    return [
        Choice(
            f"{prefix}{policy}",
            f"{name}: {policy}" if name else policy,
            reasons.get(policy, ""),
        )
        for policy in POLICIES
    ]


def _offered(value: str, choices: Sequence[Choice], defaults: Sequence[str]) -> str:
    """The value, or the first default that is offered."""
    offered = [choice.value for choice in choices if not choice.reason]
    return next(choice for choice in (value, *defaults) if choice in offered)


def _slate_by(explorer: Explorer, question: Question, choice: str) -> Slate:
    """The slate of a choice of the page that compares."""
    slates = explorer.slates["second" if choice.startswith(_SECOND) else ""]
    return slates.slate(replace(question, policy=choice.removeprefix(_SECOND)))
