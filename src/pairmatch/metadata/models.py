"""What is known of the models of the API that metadata comes from: one small table, and its date.

Prices are of 2026-11-23, in USD for a million tokens, from secondary sources: check your provider's
page, and override them with `input_usd=` and `output_usd=`.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass

TABLE_DATE = datetime.date(2026, 11, 23)
#: Tokens of a photo of 512 × 512 pixels, for estimates alone (a third party's figure).
PHOTO_TOKENS = 630
WARNING_DAYS = 60
#: What the Batch API takes of these prices.
BATCH_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """One model.

    Attributes:
        input_usd: For a million input tokens.
        cached_usd: For a million input tokens that the provider had cached.
        output_usd: For a million output tokens.
        effort: Least reasoning effort that it takes, or None.
        verbosity: Least verbosity, or None.
        ends: Day on which the provider shuts it down, or None.
        successor: Model to take then.
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


def end_notice(model: str, today: datetime.date) -> tuple[bool, str] | None:
    """Whether the model is past its end, and what to do about it.

    None where nothing is known to end soon.
    """
    facts = MODELS.get(model)
    if facts is None or facts.ends is None or (facts.ends - today).days > WARNING_DAYS:
        return None
    mend = (
        f"its successor is {facts.successor}: metadata='openai' with model={facts.successor!r} (--metadata openai "
        f"--set metadata.model={facts.successor}). Metadata of different models is kept apart."
    )
    if today >= facts.ends:
        return True, f"The provider shut {model} down on {facts.ends.isoformat()}; {mend}"
    return False, f"The provider shuts {model} down on {facts.ends.isoformat()}; {mend}"
