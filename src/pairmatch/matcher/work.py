"""What a run would do before it learns: the types that `Matcher.plan` returns."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from pairmatch.features.plan import format_duration
from pairmatch.metadata.annotate import Estimate


@dataclass(frozen=True, slots=True)
class MetadataWork:
    """Metadata to generate.

    Attributes:
        generator: Name of the generator.
        estimate: Number of photos, and their cost.
        seconds: Estimated time on one device, in seconds; None if a server sets the pace, or
            if it is unknown.
    """

    generator: str
    estimate: Estimate
    seconds: float | None

    def __str__(self) -> str:
        estimate = replace(self.estimate, notice=None)
        text = f"{self.generator}: {str(estimate).removesuffix('.')}"
        if not estimate.photos:
            return f"{text}."
        if estimate.host is not None:
            text += "; the server sets the pace"
        elif self.seconds is None:
            text += "; the time is unknown, because it cannot run here"
        else:
            text += f", about {format_duration(self.seconds)} on one device"
        notice = self.estimate.notice
        return f"{text}.{f' {notice}' if notice else ''}"


@dataclass(frozen=True, slots=True)
class BackbonePass:
    """One pass of a backbone over people.

    Attributes:
        backbone: Name of the backbone.
        inputs: Number of distinct inputs.
        new: Number of distinct inputs whose features are not in the store.
        tried: How many of them a trial has extracted by now.
        seconds: Estimated time for the rest on one device, in seconds; None if unknown.
        basis: What the estimate rests on, in words.
    """

    backbone: str
    inputs: int
    new: int
    tried: int
    seconds: float | None
    basis: str

    def __str__(self) -> str:
        inputs = "1 distinct input" if self.inputs == 1 else f"{self.inputs} distinct inputs"
        text = f"{self.backbone}: {inputs}, {self.inputs - self.new} in the store, {self.new} new"
        if self.seconds is not None and self.new:
            text += f", about {format_duration(self.seconds)} on one device"
        return f"{text}{f' ({self.basis})' if self.basis else ''}."


@dataclass(frozen=True, slots=True)
class WorkPlan:
    """What a run would do before it learns: metadata to generate, photos to read, time and cost.

    Made by [`Matcher.plan`][pairmatch.matcher.matcher.Matcher.plan]; `print` shows it in a few
    lines.

    Attributes:
        people: Number of distinct people.
        metadata: Metadata to generate, per generator.
        passes: Passes of backbones over the people.
        gpus: Number of devices that share the work.
        usd_per_hour: Price of one device, in US dollars per hour; None if it is not known.
    """

    people: int
    metadata: tuple[MetadataWork, ...]
    passes: tuple[BackbonePass, ...]
    gpus: int = 1
    usd_per_hour: float | None = None

    @property
    def new(self) -> int:
        """Number of inputs to extract, over all passes."""
        return sum(part.new for part in self.passes)

    @property
    def seconds(self) -> float | None:
        """Estimated time on all devices, in seconds, without waiting for servers; None: unknown."""
        parts = [part.seconds for part in self.metadata if part.estimate.host is None]
        parts += [part.seconds for part in self.passes]
        known = [seconds for seconds in parts if seconds is not None]
        return sum(known) / self.gpus if len(known) == len(parts) else None

    @property
    def usd(self) -> float | None:
        """Estimated cost of metadata and devices, in US dollars; None if a part is unknown."""
        known = 0.0
        for part in self.metadata:
            if part.estimate.photos and part.estimate.host is not None:
                usage = part.estimate.usage
                if usage is None or usage.usd is None:
                    return None
                known += usage.usd
        if self.usd_per_hour is None:
            return known if self.seconds == 0 else None
        if self.seconds is None:
            return None
        return known + self.seconds * self.gpus / 3600 * self.usd_per_hour

    def to_dict(self) -> dict[str, Any]:
        """JSON values: the attributes, and the totals `new`, `seconds` and `usd`."""
        totals = {"new": self.new, "seconds": self.seconds, "usd": self.usd}
        return {**asdict(self), **totals}

    def __str__(self) -> str:
        people = "1 person" if self.people == 1 else f"{self.people} people"
        return "\n".join([f"{people}.", *map(str, (*self.metadata, *self.passes)), self._total()])

    def _total(self) -> str:
        parts = []
        if self.seconds is None:
            parts.append("the time is unknown")
        elif self.seconds or self.passes:
            devices = "1 device" if self.gpus == 1 else f"{self.gpus} devices"
            price = (
                "" if self.usd_per_hour is None else f" at ${self.usd_per_hour:.2f} an hour each"
            )
            parts.append(f"about {format_duration(self.seconds)} on {devices}{price}")
        if self.usd:
            parts.append("less than $0.01" if self.usd < 0.01 else f"about ${self.usd:.2f}")
        return f"In total: {', '.join(parts) or 'nothing to do'}."
