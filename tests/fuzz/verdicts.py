"""What a case ended with, and the summary of a run."""

import json
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

#: Verdicts without a fault: a result, and an error that pairmatch raises on purpose.
GOOD = ("ok", "refused")
FAULTS = ("traceback", "hang", "crash", "half-written", "wrong")


class FaultError(Exception):
    """A case that ended badly although nothing was raised."""

    def __init__(self, verdict: str, message: str) -> None:
        super().__init__(message)
        self.verdict = verdict


@dataclass(frozen=True)
class Result:
    """The end of one case.

    Attributes:
        kind: Kind of input, or of work that was killed.
        number: Number of the case.
        verdict: One of `GOOD` and `FAULTS`.
        summary: What a fault is, in one line; equal for faults of the same kind if possible.
        detail: Traceback, or the message of a refusal.
        seconds: Time that the case took.
    """

    kind: str
    number: int
    verdict: str
    summary: str = ""
    detail: str = ""
    seconds: float = 0.0

    @property
    def is_fault(self) -> bool:
        return self.verdict not in GOOD


def report(
    results: list[Result], title: str, console: Console, *, seconds: float, json_file: Path | None
) -> int:
    """Prints a table of the verdicts and the faults; returns the exit code."""
    counts = Counter((result.kind, result.verdict) for result in results)
    kinds = list(dict.fromkeys(sorted(result.kind for result in results)))
    table = Table(title=title)
    table.add_column("")
    for heading in ("cases", *GOOD, *FAULTS):
        table.add_column(heading, justify="right")
    for kind in [*kinds, "all"]:
        row = [
            sum(n for (k, v), n in counts.items() if kind in (k, "all") and v == verdict)
            for verdict in (*GOOD, *FAULTS)
        ]
        table.add_row(kind, *(f"{count:,}" for count in (sum(row), *row)))
    console.print(table)
    faults = [result for result in results if result.is_fault]
    for (kind, _), same in _alike(faults).items():
        numbers = ", ".join(str(result.number) for result in same[:5])
        line = f"{kind} {same[0].verdict} ×{len(same)} (case {numbers}): {same[0].summary}"
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    slowest = max(results, key=lambda result: result.seconds)
    console.print(
        f"{len(results):,} cases, {len(faults)} faults, {seconds:.0f} s; the slowest, "
        f"{slowest.kind} case {slowest.number}, took {slowest.seconds:.1f} s.",
        highlight=False,
        soft_wrap=True,
    )
    if json_file is not None:
        summary = {
            "title": title,
            "seconds": round(seconds, 1),
            "cases": len(results),
            "faults": [asdict(result) for result in faults],
            "counts": {kind: {v: counts[kind, v] for v in (*GOOD, *FAULTS)} for kind in kinds},
        }
        json_file.write_text(json.dumps(summary, indent=2) + "\n")
    return 1 if faults else 0


def _alike(faults: list[Result]) -> dict[tuple[str, str], list[Result]]:
    """Faults of the same kind in the same place, most frequent first."""
    groups: dict[tuple[str, str], list[Result]] = {}
    for fault in faults:
        place = fault.summary.partition(": ")[0] if " in " in fault.summary else fault.summary
        groups.setdefault((fault.kind, place), []).append(fault)
    return dict(sorted(groups.items(), key=lambda item: -len(item[1])))
