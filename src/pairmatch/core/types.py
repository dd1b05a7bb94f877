"""The words of the library.

Letters used for shapes everywhere:

| letter | meaning |
| --- | --- |
| B | people in one batch |
| T | tokens in the longest sequence of a batch |
| D | width of a backbone's states and of a feature |
| P | width of a backbone's own pooled output; in data, the number of pairs |
| K | width of an embedding |
| N, M | people on side a, people on side b |

A **feature** h is pooled and not normalised; an **embedding** e has gone through a head and has
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
        id: Unique name of the person in the data set; it never reaches a model.
        images: Photos as paths, encoded bytes or PIL images; may be empty.
        text: What the person wrote.
        attributes: Facts for filters and slices, such as age or region. Those named in
            `prompt_attributes` of the [`Matcher`][pairmatch.matcher.matcher.Matcher] also go into
            the prompt.
        metadata: What a metadata generator wrote from the photo, a pydantic model.
    """

    id: str
    images: tuple[str | Path | bytes | Image, ...] = ()
    text: str = ""
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict)
    metadata: BaseModel | None = None


@dataclass(frozen=True, slots=True)
class Pair:
    """Two people and how it went.

    Attributes:
        a: Profile id on side a.
        b: Profile id on side b.
        outcome: `match`, or `rejected` where the app knows that one of the two said no.
        group: Household, event or room; pairs of one group stay on one side of every split.
    """

    a: str
    b: str
    outcome: Literal["match", "rejected"] = "match"
    group: str | None = None


@dataclass(frozen=True, slots=True)
class Item:
    """What a backbone reads for one person.

    Photos, and the rendered prompt text (empty for image-only backbones).
    """

    images: tuple[str | Path | bytes | Image, ...] = ()
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenStates:
    """What a frozen backbone gives for a batch, before pooling.

    A backbone without token states (an ONNX encoder, classical descriptors) gives `pooled` alone.

    Attributes:
        states: [B, T, D] floating point, the last hidden state after the final norm, or None.
        mask: [B, T] bool, True at real (non-padding) tokens, or None where `states` is None.
        image_mask: [B, T] bool, True at tokens that stand for image patches; None where the
            backbone does not tell.
        end: [B] int64, position of the token that ends the sequence; None where the backbone has
            none.
        pooled: [B, P] the backbone's own pooled output, or None.
        layers: Further layers by index (1 is the first block's output), each [B, T, D], where they
            were asked for.
    """

    states: Tensor | None = None
    mask: Tensor | None = None
    image_mask: Tensor | None = None
    end: Tensor | None = None
    pooled: Tensor | None = None
    layers: Mapping[int, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Usage:
    """What one answer of a metadata generator cost.

    Attributes:
        input_tokens: All input tokens, cached ones included.
        cached_tokens: Those that the provider had cached.
        output_tokens: Reasoning included.
        usd: By the generator's prices; None where they are not known.
    """

    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    usd: float | None = 0.0


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a metadata generator has nothing to say about a photo; a result, not an exception.

    Attributes:
        kind: `refusal`, `truncated`, `content_filter`, `invalid` (no JSON, or JSON that misses the
            schema), `unreadable` (the photo), `error` (the server's), `stopped` (not asked, because
            of the cost cap), or `pending` (in a batch that is under way).
        detail: The reason in words.
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
