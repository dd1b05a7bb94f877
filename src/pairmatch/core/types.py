"""The vocabulary of the library: people, pairs, what models read and return.

Letters in array shapes:

| letter | meaning |
| --- | --- |
| B | people in one batch |
| T | tokens in the longest sequence of a batch |
| D | width of a backbone's states and of a feature |
| P | width of a backbone's own pooled output; in data, number of pairs |
| K | width of an embedding |
| N, M | people on side a, people on side b |

A **feature** h is pooled and not normalized; an **embedding** e is the output of a head and has
unit length.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from PIL.Image import Image
    from pydantic import BaseModel
    from torch import Tensor

AttributeValue = str | int | float | bool
Side = Literal["a", "b"]
Outcome = Literal["match", "rejected", "open"]
#: What is predicted: that both say yes, or that one side does.
Target = Literal["match", "a_likes", "b_likes"]


@dataclass(frozen=True, slots=True)
class Profile:
    """One person: photos, text and attributes.

    Attributes:
        id: Unique id of the person in the data set; never passed to a model.
        images: Photos as paths, URLs of cloud storage, encoded bytes or PIL images; may be empty.
        text: Text that the person wrote.
        attributes: Facts for filters and slices, such as age or region. Those named in
            `prompt_attributes` of the [`Matcher`][pairmatch.matcher.matcher.Matcher] are also part
            of the prompt.
        metadata: Metadata that a generator derived from the photo, a pydantic model.
    """

    id: str
    images: tuple[str | Path | bytes | Image, ...] = ()
    text: str = ""
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict)
    metadata: BaseModel | None = None


@dataclass(frozen=True, slots=True)
class Pair:
    """Two people and what is known about them.

    Attributes:
        a: Profile id on side a.
        b: Profile id on side b.
        outcome: `match` if both said yes; `rejected` if one of the two is known to have declined;
            `open` if neither is known, for example after one yes without an answer. By default it
            follows from `a_likes` and `b_likes`, and is `match` if both are None.
        group: Household, event or room; splits never separate pairs of one group.
        a_likes: Whether a said yes to b; None if it is not known.
        b_likes: Whether b said yes to a; None if it is not known.
        time: When the pair was decided, with a time zone; a time without one is UTC.
        pool: Name of the pool in which the two could meet: an event, or a region and day.
    """

    a: str
    b: str
    outcome: Outcome = ""  # type: ignore[assignment]  # until __post_init__
    group: str | None = None
    a_likes: bool | None = field(default=None, kw_only=True)
    b_likes: bool | None = field(default=None, kw_only=True)
    time: datetime | None = field(default=None, kw_only=True)
    pool: str | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if not self.outcome:
            known = not (self.a_likes is None and self.b_likes is None)
            outcome = outcome_of(self.a_likes, self.b_likes) if known else "match"
            object.__setattr__(self, "outcome", outcome)
        if isinstance(self.time, datetime) and self.time.tzinfo is None:
            object.__setattr__(self, "time", self.time.replace(tzinfo=UTC))

    @property
    def likes(self) -> tuple[bool | None, bool | None]:
        """What a and b said, as far as it follows from the likes and the outcome.

        Both said yes in a match. If a pair is rejected and one is known to have said yes, the other
        said no.
        """
        if self.outcome == "match":
            return True, True
        if self.outcome == "rejected" and self.a_likes and self.b_likes is None:
            return True, False
        if self.outcome == "rejected" and self.b_likes and self.a_likes is None:
            return False, True
        return self.a_likes, self.b_likes


def outcome_of(a_likes: bool | None, b_likes: bool | None) -> Outcome:
    """The outcome of what both sides said: a match needs two yes, and one no is a rejection."""
    likes = (a_likes, b_likes)
    if any(like is not None and not like for like in likes):
        return "rejected"
    return "match" if all(likes) else "open"


@dataclass(frozen=True, slots=True)
class Item:
    """Input of a backbone for one person.

    Attributes:
        images: Photos as paths, URLs of cloud storage, encoded bytes or PIL images.
        text: Rendered prompt; empty for backbones that do not read text.
        attributes: Attributes that have a value; empty for backbones that do not read attributes.
    """

    images: tuple[str | Path | bytes | Image, ...] = ()
    text: str = ""
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenStates:
    """Output of a frozen backbone for a batch, before pooling.

    A backbone without token states (an ONNX encoder, classical descriptors) sets only `pooled`.

    Attributes:
        states: [B, T, D] floating point, the last hidden state after the final norm, or None.
        mask: [B, T] bool, True at real (non-padding) tokens; None if `states` is None.
        image_mask: [B, T] bool, True at tokens that represent image patches; None if the backbone
            does not mark them.
        end: [B] int64, position of the token that ends the sequence; None if there is no such
            token.
        pooled: [B, P] the backbone's own pooled output, or None.
        layers: Requested further layers by index (1 is the first block's output), each [B, T, D].
    """

    states: Tensor | None = None
    mask: Tensor | None = None
    image_mask: Tensor | None = None
    end: Tensor | None = None
    pooled: Tensor | None = None
    layers: Mapping[int, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Usage:
    """Cost of one response of a metadata generator.

    Attributes:
        input_tokens: Number of input tokens, cached ones included.
        cached_tokens: Number of input tokens that the provider had cached.
        output_tokens: Number of output tokens, reasoning included.
        usd: Cost by the generator's prices; None if they are unknown.
    """

    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    usd: float | None = 0.0


@dataclass(frozen=True, slots=True)
class Refusal:
    """Reason why a metadata generator returned no metadata; a result, not an exception.

    Attributes:
        kind: `refusal`, `truncated`, `content_filter`, `invalid` (not JSON, or JSON that violates
            the schema), `unreadable` (the photo), `error` (of the server), `stopped` (not
            requested, because of the cost cap), or `pending` (in a batch that has not finished).
        detail: Explanation.
    """

    kind: Literal[
        "refusal",
        "truncated",
        "content_filter",
        "invalid",
        "unreadable",
        "error",
        "stopped",
        "pending",
    ]
    detail: str = ""
