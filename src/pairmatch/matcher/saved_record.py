"""What `matcher.json` may hold: every value is checked before any of it is used."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from pairmatch.core.errors import SavedMatcherError
from pairmatch.core.text import has_surrogates, printable

#: Format of a matcher that all versions with this format serve completely.
FORMAT = 2
#: Format of one with a second stage, which versions that know format 2 alone would leave out.
FORMAT_RERANKED = 3
_LISTED = 50

_Name = Annotated[str, Field(min_length=1, max_length=200)]
_Words = Annotated[str, Field(max_length=100_000)]
_Count = Annotated[int, Field(ge=0, lt=2**63)]
_Share = Annotated[float, Field(ge=0, le=1)]
_Shares = Annotated[list[_Share], Field(min_length=2, max_length=2)]
_Rank = Annotated[float, Field(ge=1, lt=1e15)]
_K = Annotated[str, Field(pattern=r"^[1-9][0-9]{0,17}$")]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")


class _Use(_Part):
    kind: _Name
    name: _Name
    distribution: _Words | None
    version: _Words | None


class _SavedPart(_Part):
    name: _Name
    options: dict[_Name, JsonValue]
    distribution: _Words | None
    version: _Words | None


class _SavedBackbone(_SavedPart):
    learned: dict[_Name, JsonValue] = Field(default_factory=dict)
    adapter: dict[_Name, JsonValue] | None = None


class _SavedLearner(_SavedPart):
    uses: list[_Use] = Field(default_factory=list, max_length=100)


class _Parts(_Part):
    backbones: list[_SavedBackbone] = Field(min_length=1, max_length=100)
    poolers: list[_SavedPart] = Field(min_length=1, max_length=100)
    metadata: _SavedPart | None
    learner: _SavedLearner
    head: _SavedPart
    reranker: _SavedPart | None = None


class _Data(_Part):
    pairs: _Count
    people: _Count


class _TrainingPeople(_Part):
    salt: _Words
    size: int = Field(ge=1, lt=2**40)
    bits: str = Field(pattern=r"^[A-Za-z0-9+/]*={0,2}$")


class _Histogram(_Part):
    counts: list[_Count] = Field(min_length=1, max_length=1000)
    edges: list[float] = Field(max_length=1000)
    categories: list[_Words] = Field(max_length=1000)

    @model_validator(mode="after")
    def _has_a_count_per_bin(self) -> _Histogram:
        if len(self.counts) != len(self.edges) + len(self.categories) + 2:
            raise ValueError(f"{len(self.counts)} counts for its bins")
        if self.edges != sorted(self.edges) or bool(self.edges) == bool(self.categories):
            raise ValueError("a histogram needs ascending edges, or categories")
        return self


class _Reference(_Part):
    variables: dict[_Words, _Histogram] = Field(max_length=10_000)
    auc: _Share | None
    auc_error: Annotated[float, Field(ge=0, lt=1)] | None


class _Probabilities(_Part):
    kind: Literal["platt", "isotonic"]
    base_rate: Annotated[float, Field(gt=0, lt=1)]
    x: list[float] = Field(min_length=2, max_length=100_000)
    y: list[_Share] = Field(max_length=100_000)
    candidates: int = Field(ge=1, lt=2**63)
    scores: _Histogram | None

    @model_validator(mode="after")
    def _has_the_numbers_of_its_kind(self) -> _Probabilities:
        if self.kind == "platt" and (len(self.x) != 2 or self.y):
            raise ValueError("Platt scaling has a slope and an intercept")
        if self.kind == "isotonic" and (len(self.x) != len(self.y) or self.x != sorted(self.x)):
            raise ValueError("isotonic regression has ascending scores, each with a probability")
        return self


class _Intervals(_Part):
    recall: dict[_K, _Shares]
    mrr: _Shares
    median_rank: Annotated[list[_Rank], Field(min_length=2, max_length=2)]


class _Figures(_Part):
    recall: dict[_K, _Share] = Field(min_length=1)
    mrr: _Share
    median_rank: _Rank
    intervals: _Intervals | None = None


class _Frozen(_Part):
    both: _Figures


class _Metrics(_Part):
    queries: _Count
    confidence: _Share
    both: _Figures
    chance: _Figures
    frozen: _Frozen | None = None

    @model_validator(mode="after")
    def _has_equal_ks(self) -> _Metrics:
        frozen = [] if self.frozen is None else [self.frozen.both]
        if any(rows.recall.keys() != self.both.recall.keys() for rows in (self.chance, *frozen)):
            raise ValueError("both, chance and frozen have recall at different K")
        return self


class _Reranking(_Part):
    first_mrr: _Share
    second_mrr: _Share
    error: Annotated[float, Field(ge=0, lt=1)]
    chance_mrr: _Share
    chance_error: Annotated[float, Field(ge=0, lt=1)]
    queries: _Count


class _Record(_Part):
    format: Literal[2, 3]
    pairmatch: _Name
    created: _Name
    dim: int = Field(ge=1, le=10**7)
    parts: _Parts
    evidence: dict[_Words, _Share] = Field(default_factory=dict, max_length=1000)
    fingerprints: list[dict[_Words, JsonValue]] | None
    weights: list[Annotated[float, Field(gt=0, lt=1e30)]] | None
    prompt: _Words | None
    prompt_attributes: list[_Words]
    store_dtype: Literal["float32", "float16"]
    head_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    reranker_sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")
    sides: Literal[1, 2] | None
    seed: int = Field(ge=0, lt=2**63)
    data: _Data | None
    notes: list[_Words] = Field(max_length=10_000)
    metrics: _Metrics | None
    training_people: _TrainingPeople | None = None
    reference: _Reference | None = None
    probabilities: _Probabilities | None = None
    reranking: _Reranking | None = None

    @model_validator(mode="after")
    def _has_equal_lengths(self) -> _Record:
        backbones = len(self.parts.backbones)
        if self.fingerprints is not None and len(self.fingerprints) != backbones:
            raise ValueError(f"{len(self.fingerprints)} fingerprints for {backbones} backbones")
        if len(self.parts.poolers) not in (1, backbones):
            raise ValueError(f"{len(self.parts.poolers)} poolers for {backbones} backbones")
        return self

    @model_validator(mode="after")
    def _has_a_whole_second_stage(self) -> _Record:
        if self.reranker_sha256 is not None and self.parts.reranker is None:
            raise ValueError("the state of a re-ranker, and no re-ranker among the parts")
        if (self.reranker_sha256 is not None) != (self.format == FORMAT_RERANKED):
            raise ValueError(
                f"format {FORMAT_RERANKED} is for matchers with the state of a re-ranker "
                f"(reranker_sha256), and format {FORMAT} for those without"
            )
        return self


def checked_record(value: Any, path: Path) -> dict[str, Any]:
    """The record of a saved matcher, with those of format 1 converted to format 2.

    Args:
        value: A JSON value.
        path: Path to the file it comes from.

    Raises:
        SavedMatcherError: Lists all values that `save` does not write.
    """
    named = printable(str(path))
    version = value.get("format") if isinstance(value, dict) else None
    if not isinstance(version, int) or isinstance(version, bool):
        raise SavedMatcherError(f"{named} is not a saved matcher: it has no format version.")
    if not 1 <= version <= FORMAT_RERANKED:
        raise SavedMatcherError(
            f"{named} has format {version}, this pairmatch reads formats 1 to {FORMAT_RERANKED}: "
            "upgrade pairmatch, or fit again."
        )
    problems = _values_problems(value)
    record: dict[str, Any] = value
    if not problems and version == 1:
        try:
            record = _converted(value)
        except (KeyError, TypeError, AttributeError) as error:
            problems.append(f"a part of format 1 is missing or of another type: {error}")
    if not problems:
        try:
            _Record.model_validate(record)
        except ValidationError as error:
            problems = [
                f"{'.'.join(map(str, item['loc'])) or 'the record'}: {item['msg']}"
                for item in error.errors(include_url=False, include_input=False)
            ]
    if problems:
        lines = [f"  - {printable(problem)[:300]}" for problem in problems[:_LISTED]]
        more = [f"  - … and {len(problems) - _LISTED} more"] if len(problems) > _LISTED else []
        raise SavedMatcherError("\n".join([f"{named} was not written by `save`:", *lines, *more]))
    return record


def _values_problems(value: Any) -> list[str]:
    """Values that no JSON file of ours holds: NaN, infinity, and text that is not Unicode."""
    problems = []
    if has_surrogates(json.dumps(value, ensure_ascii=False)):
        problems.append("some text holds lone surrogates, which are not Unicode")
    level = [value]
    while level:
        if any(isinstance(item, float) and not math.isfinite(item) for item in level):
            problems.append("some numbers are not finite")
            break
        level = [
            child
            for item in level
            if isinstance(item, dict | list)
            for child in (item.values() if isinstance(item, dict) else item)
        ]
    return problems


def _converted(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record of format 1, which named head, loss, method and training apart, as format 2."""
    parts = dict(record["parts"])
    loss = parts.pop("loss")
    method = parts.pop("method")
    training = record["training"]
    contrastive = {
        "head": [parts["head"]["name"], dict(parts["head"]["options"])],
        "loss": [loss["name"], dict(loss["options"])],
        "training": training,
    }
    parts["learner"] = method or {
        "name": "contrastive",
        "options": contrastive,
        "distribution": "pairmatch",
        "version": record["pairmatch"],
        "uses": [{"kind": "losses", **loss}],
    }
    return {**record, "format": FORMAT, "parts": parts, "seed": training["seed"]}
