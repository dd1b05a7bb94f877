"""The conformance check for metadata generators."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pairmatch.core.interfaces import MetadataGenerator
from pairmatch.core.types import Profile, Refusal
from pairmatch.testing.contract import check_fingerprint, check_stored_arguments


def check_metadata_generator(generator: MetadataGenerator, profiles: Sequence[Profile]) -> None:
    """Checks a metadata generator.

    It must return one outcome per profile, in order, each a pydantic model or a `Refusal`, report
    each outcome once, and have a stable fingerprint.

    Raises:
        AssertionError: A check fails.
    """
    from pydantic import BaseModel

    name = type(generator).__name__
    check_stored_arguments(generator)
    check_fingerprint(generator)
    assert isinstance(getattr(generator, "schema", None), type), (
        f"{name}.schema must be the pydantic model that it fills in"
    )
    reported: dict[int, Any] = {}
    outcomes = generator.generate(
        profiles, lambda index, outcome, cost: reported.update({index: outcome})
    )
    assert reported == dict(enumerate(outcomes)), (
        f"{name}.generate must call on_outcome once for every profile"
    )
    assert len(outcomes) == len(profiles), (
        f"{name}.generate returned {len(outcomes)} outcomes for {len(profiles)} profiles"
    )
    wrong = {
        type(outcome).__name__
        for outcome in outcomes
        if not isinstance(outcome, BaseModel | Refusal)
    }
    assert not wrong, (
        f"{name}.generate must return pydantic models or Refusal, got {', '.join(sorted(wrong))}"
    )
    assert generator.generate([], max_usd=1.0) == [], f"{name}.generate([]) must return []"
