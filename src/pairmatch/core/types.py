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
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from PIL.Image import Image
    from pydantic import BaseModel
    from torch import Tensor

AttributeValue = str | int | float | bool
Side = Literal["a", "b"]


@dataclass(frozen=True, slots=True)
class Profile:
    """One person: photos, text and attributes.

    Attributes:
        id: Unique id of the person in the data set; never passed to a model.
        images: Photos as paths, encoded bytes or PIL images; may be empty.
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
    """Two people and the outcome.

    Attributes:
        a: Profile id on side a.
        b: Profile id on side b.
        outcome: `match`, or `rejected` if one of the two is known to have declined.
        group: Household, event or room; splits never separate pairs of one group.
    """

    a: str
    b: str
    outcome: Literal["match", "rejected"] = "match"
    group: str | None = None


@dataclass(frozen=True, slots=True)
class Item:
    """Input of a backbone for one person.

    Attributes:
        images: Photos as paths, encoded bytes or PIL images.
        text: Rendered prompt; empty for image-only backbones.
    """

    images: tuple[str | Path | bytes | Image, ...] = ()
    text: str = ""


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
