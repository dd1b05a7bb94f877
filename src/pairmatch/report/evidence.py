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


_SOURCES = (
    "How much each kind of features (backbone and pooler) moves the scores of candidates: what "
    "changes in the ranking if all people have the same features of this kind."
)


def evidence_sections(head: ProjectionHead) -> list[Section]:
    """The kinds of evidence of a stacked head, and its kinds of features if there are several.

    Empty for other heads.
    """
    evidence = evidence_of(head)
    if not evidence:
        return []
    bars = [
        Bar(
            item.kind[:1].upper() + item.kind[1:],
            item.share,
            "; ".join(f"{label}: {100 * share:.0f} %" for label, share in item.learners.items()),
        )
        for item in evidence
    ]
    data = [dataclasses.asdict(item) for item in evidence]
    sections = [Section("What the ranking is based on", [_TEXT], bars=bars, data=data)]
    sources: dict[str, float] = getattr(head, "block_shares", {})
    if sources:
        ordered = sorted(sources.items(), key=lambda item: -item[1])
        bars = [Bar(name, share) for name, share in ordered]
        data = [{"source": name, "share": share} for name, share in ordered]
        sections.append(Section("Features that the ranking uses", [_SOURCES], bars=bars, data=data))
    return sections
