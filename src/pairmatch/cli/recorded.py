"""What a run file records about its run, checked when it is read."""

from __future__ import annotations

from pydantic import BaseModel, Field


class Circumstances(BaseModel):
    """What a result depends on beside the options.

    Attributes:
        versions: Version of Python, pairmatch and each library.
        machine: Kind of processor.
        device: Device that models ran on.
        threads: Number of threads of a calculation.
        seed: Seed.
        data: Digests of the data.
    """

    versions: dict[str, str] = Field(max_length=1000)
    machine: str
    device: str
    threads: int
    seed: int
    data: dict[str, str] = Field(max_length=100)


class Recorded(Circumstances):
    """The same, and the digests (SHA-256) of the head and the re-ranker of a saved matcher."""

    head: str | None = None
    reranker: str | None = None
