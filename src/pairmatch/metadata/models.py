"""Facts about the API's models: prices, options and shutdown dates.

Prices are as of 2026-11-23, in USD per million tokens, from secondary sources. Check your
provider's page, and override them with `input_usd=` and `output_usd=`.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass

from pairmatch.core.config import PartSpec

TABLE_DATE = datetime.date(2026, 11, 23)
#: Number of tokens of a photo of 512 × 512 pixels, for estimates only (a third party's figure).
PHOTO_TOKENS = 630
#: Number of days before a shutdown at which runs start to warn of it.
WARNING_DAYS = 60
#: Price of a request in the Batch API, as a share of the listed price.
BATCH_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """Facts about one model.

    Attributes:
        input_usd: Price per million input tokens.
        cached_usd: Price per million input tokens in the provider's cache.
        output_usd: Price per million output tokens.
        effort: Lowest reasoning effort that the model supports, or None.
        verbosity: Lowest verbosity that the model supports, or None.
        ends: Date on which the provider shuts the model down, or None.
        successor: Name of the model that replaces it, or None.
    """

    input_usd: float
    cached_usd: float
    output_usd: float
    effort: str | None = None
    verbosity: str | None = None
    ends: datetime.date | None = None
    successor: str | None = None


MODELS = {
    "gpt-5-nano": ModelFacts(
        0.05,
        0.005,
        0.40,
        effort="minimal",
        verbosity="low",
        ends=datetime.date(2026, 12, 11),
        successor="gpt-6-luna",
    ),
    "gpt-6-luna": ModelFacts(0.10, 0.01, 0.50, effort="none", verbosity="low"),
    "gpt-5.6-luna": ModelFacts(0.20, 0.02, 1.20, effort="none", verbosity="low"),
}


@dataclass(frozen=True, slots=True)
class Pricing:
    """Prices of a model: those of the table, unless overridden.

    Attributes:
        model: Name of the model.
        input_usd: Price per million input tokens, cached ones included; None for the table's.
        output_usd: Price per million output tokens; None for the table's.
    """

    model: str
    input_usd: float | None = None
    output_usd: float | None = None

    def usd(
        self, input_tokens: int, cached_tokens: int, output_tokens: int, *, batch: bool = False
    ) -> float | None:
        """Cost in USD, or None if a price is unknown.

        Args:
            input_tokens: Number of input tokens, cached ones included.
            cached_tokens: Number of input tokens in the provider's cache.
            output_tokens: Number of output tokens, reasoning included.
            batch: Whether the Batch API is used, at half the price.
        """
        facts = MODELS.get(self.model)
        input_usd = self.input_usd
        cached_usd = self.input_usd
        output_usd = self.output_usd
        if facts is not None and input_usd is None:
            input_usd = facts.input_usd
            cached_usd = facts.cached_usd
        if facts is not None and output_usd is None:
            output_usd = facts.output_usd
        if input_usd is None or cached_usd is None or output_usd is None:
            return None
        uncached_tokens = input_tokens - cached_tokens
        total = (
            uncached_tokens * input_usd + cached_tokens * cached_usd + output_tokens * output_usd
        ) / 1e6
        return total * BATCH_SHARE if batch else total


def generator_in_service(name: str, today: datetime.date | None = None) -> PartSpec:
    """The generator that a default stands for: itself, or its model's successor after its end.

    A generator that the user names is not replaced: metadata of different models differ.

    Args:
        name: Name of the default generator, which is also that of its model.
        today: Date; None for today's, in UTC.
    """
    facts = MODELS.get(name)
    today = today or datetime.datetime.now(datetime.UTC).date()
    if facts is None or facts.ends is None or facts.successor is None or today < facts.ends:
        return name
    return "openai", {"model": facts.successor}


def succession(model: str, today: datetime.date | None = None) -> str:
    """`gpt-6-luna, the successor of gpt-5-nano`, if that has been shut down; else the model."""
    today = today or datetime.datetime.now(datetime.UTC).date()
    ended = [
        name
        for name, facts in MODELS.items()
        if facts.successor == model and facts.ends is not None and today >= facts.ends
    ]
    return f"{model}, the successor of {ended[0]}" if ended else model


def end_notice(model: str, today: datetime.date) -> tuple[bool, str] | None:
    """Whether the model has been shut down, and a message that names its successor.

    None if no shutdown is known within the next `WARNING_DAYS` days.
    """
    facts = MODELS.get(model)
    if facts is None or facts.ends is None or (facts.ends - today).days > WARNING_DAYS:
        return None
    remedy = (
        f"its successor is {facts.successor}: metadata='openai' with model={facts.successor!r} "
        f"(--metadata openai --set metadata.model={facts.successor}). Metadata of different "
        "models is stored separately."
    )
    if today >= facts.ends:
        return True, f"The provider shut {model} down on {facts.ends.isoformat()}; {remedy}"
    return False, f"The provider shuts {model} down on {facts.ends.isoformat()}; {remedy}"
