"""The section of the report that says which evidence the matcher ranks by."""

from __future__ import annotations

import dataclasses

from pairmatch.core.interfaces import ProjectionHead
from pairmatch.learning.evidence import evidence_of
from pairmatch.report.content import Bar, Section

_TEXT = (
    "The matcher joins several learners, and held-out pairs decide how much each of them counts. "
    "The bars show how much each kind of evidence moves the scores of candidates; below each are "
    "the learners that it comes from."
)


def evidence_section(head: ProjectionHead) -> Section | None:
    """The kinds of evidence of a stacked head, as bars; None for other heads."""
    evidence = evidence_of(head)
    if not evidence:
        return None
    bars = [
        Bar(
            item.kind[:1].upper() + item.kind[1:],
            item.share,
            "; ".join(f"{label}: {100 * share:.0f} %" for label, share in item.learners.items()),
        )
        for item in evidence
    ]
    data = [dataclasses.asdict(item) for item in evidence]
    return Section("What the ranking is based on", [_TEXT], bars=bars, data=data)
