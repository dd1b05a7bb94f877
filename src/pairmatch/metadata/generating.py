"""Generation of the outcomes that a store lacks, once for all runs that share the store."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pydantic import BaseModel

from pairmatch.core.types import Refusal, Usage
from pairmatch.io.claims import Claims
from pairmatch.io.store import Store
from pairmatch.metadata.outcomes import add_usage, is_uncounted, stored_outcome

if TYPE_CHECKING:
    from pairmatch.metadata.annotate import AnnotationPlan

_POLL_SECONDS = 0.2


@dataclass(slots=True)
class Spending:
    """What a run has submitted and spent.

    Attributes:
        max_usd: Cost limit, in USD; None for no limit.
        submitted: Number of photos.
        usage: Cost of the answers.
        uncounted: Number of answers of unknown cost.
    """

    max_usd: float | None = None
    submitted: int = 0
    usage: Usage = field(default_factory=Usage)
    uncounted: int = 0

    def add(self, usage: Usage) -> None:
        """Adds the cost of an answer."""
        self.usage = add_usage(self.usage, usage)
        self.uncounted += is_uncounted(usage)

    @property
    def left_usd(self) -> float | None:
        """What may still be spent; nothing if the cost so far is unknown."""
        if self.max_usd is None:
            return None
        return 0.0 if self.usage.usd is None else max(0.0, self.max_usd - self.usage.usd)


def generate(
    plan: AnnotationPlan,
    store: Store,
    *,
    max_usd: float | None,
    retry_refused: bool,
    advance: Callable[[], None],
) -> Spending:
    """Generates and stores the outcomes of all photos of a plan that no other run answers.

    Photos that other runs have claimed are waited for: they are answered when the run ends, or are
    claimed when it ends without an answer.

    Args:
        plan: The photos, and the outcomes so far, to which new ones are added.
        store: Store that receives each outcome as it arrives.
        max_usd: Cost limit, in USD; None for no limit.
        retry_refused: Whether to submit refused photos again.
        advance: Called after each outcome.
    """
    spending = Spending(max_usd)
    with store.claims() as claims:
        left = list(plan.to_submit)
        while left:
            mine = claims.take(left)
            # Another run may have answered, or submitted in a batch, since the plan was made
            work = plan.refresh(store, mine, retry_refused=retry_refused)
            claims.release(mine.difference(work))
            _generate(plan, work, store, claims, spending, advance)
            claims.release(work)
            left = [key for key in left if key not in mine]
            if left and not mine:
                time.sleep(_POLL_SECONDS)  # other runs are working on all that is left
    return spending


def _generate(
    plan: AnnotationPlan,
    keys: Sequence[str],
    store: Store,
    claims: Claims,
    spending: Spending,
    advance: Callable[[], None],
) -> None:
    """Generates and stores the outcomes of claimed keys."""
    generator = plan.generator

    def keep(index: int, outcome: BaseModel | Refusal, cost: Usage) -> None:
        record = stored_outcome(outcome, cost)
        store.put_metadata(
            {keys[index]: record}, model=getattr(generator, "model", None), claims=claims
        )
        plan.outcomes[keys[index]] = record
        spending.add(cost)
        spending.submitted += 1
        advance()

    if keys:
        profiles = [plan.to_submit[key] for key in keys]
        generator.generate(profiles, keep, max_usd=spending.left_usd)
