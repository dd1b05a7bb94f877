"""What clients send and get, as pydantic models: checked before anything is done."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

if TYPE_CHECKING:
    from pairmatch.gallery import Recommendations

Id = Annotated[str, StringConstraints(min_length=1, max_length=1000)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=1000)]
Words = Annotated[str, StringConstraints(max_length=100_000)]
Text = Annotated[str, StringConstraints(max_length=10_000)]
Value = bool | int | Annotated[float, Field(allow_inf_nan=False)] | Text
Side = Literal["a", "b"]


class Request(BaseModel):
    """A body without unknown names."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Person(Request):
    """A person: photos are files named `photo` beside this part of a multipart body."""

    id: Id | None = Field(None, description="Id, for exclusions; never a candidate themselves.")
    side: Side | None = Field(None, description="Side of the person; may be left out if one fits.")
    text: Words = Field("", description="Profile text.")
    attributes: dict[Name, Value | None] = Field(
        default_factory=dict, max_length=1000, description="Attributes, for rules and backbones."
    )


class Embed(Person):
    """Person to embed."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"side": "a", "attributes": {"age": 30}}]}
    )


class Put(Request):
    """Person to add or to replace."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"side": "b", "attributes": {"age": 31}}]}
    )
    side: Side | None = Field(None, description="Side of the person; may be left out if one fits.")
    text: Words = Field("", description="Profile text.")
    attributes: dict[Name, Value | None] = Field(default_factory=dict, max_length=1000)


class Recommend(Request):
    """Query person, either by the id in a gallery or as a new person, and what to look for."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"id": "a0001", "k": 10, "where": ["age between 25 and 35"]},
                {"person": {"attributes": {"age": 30}}, "k": 5, "mutual": True},
            ]
        }
    )
    id: Id | None = Field(None, description="Id of a person in a gallery.")
    person: Person | None = Field(None, description="A new person, instead of an id.")
    side: Side | None = Field(None, description="Side of the person of `id`, if both have the id.")
    k: int = Field(20, ge=1, le=1000, description="Maximum number of candidates.")
    where: list[Text] = Field(
        default_factory=list, max_length=100, description="Rules that candidates must satisfy."
    )
    mutual: bool = Field(False, description="Rules must also hold with the roles swapped.")
    exclude: list[Id] = Field(
        default_factory=list, max_length=100_000, description="Ids that are not shown."
    )

    @model_validator(mode="after")
    def _names_one_person(self) -> Recommend:
        if (self.id is None) == (self.person is None):
            raise ValueError("give either `id` or `person`")
        return self


class Pair(Request):
    """A pair of people."""

    id: Id
    other: Id = Field(description="The person who is not shown to `id`.")


class ExclusionPairs(Request):
    """Pairs of people where the second is not shown to the first."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"pairs": [{"id": "a0001", "other": "b0007"}], "symmetric": True}]
        }
    )
    pairs: list[Pair] = Field(min_length=1, max_length=10_000)
    symmetric: bool = Field(False, description="Neither is shown to the other.")


class Candidate(BaseModel):
    """One candidate."""

    rank: int
    id: str
    score: float
    probability: float | None
    rerank_score: float | None = Field(
        None, description="Score by which a re-ranker has ordered the best candidates."
    )
    attributes: dict[str, Any]


class Answer(BaseModel):
    """Candidates, best first."""

    candidates: int = Field(description="Number of eligible candidates.")
    excluded_by: str | None = Field(description="Filter that removed the last candidate.")
    recommendations: list[Candidate]
    caveats: list[str] = Field(description="Why probabilities may not hold, or not order.")


class Embedding(BaseModel):
    """An embedding of unit length."""

    side: Side
    embedding: list[float]


class Added(BaseModel):
    """A person in a gallery."""

    id: str
    side: Side
    replaced: bool


class Erased(BaseModel):
    """What was erased of a person."""

    galleries: int
    exclusions: int
    features: int
    metadata: int


class Excluded(BaseModel):
    """Number of new pairs."""

    added: int


class Readmitted(BaseModel):
    """Number of pairs that were excluded until now."""

    removed: int


class State(BaseModel):
    """State of the service."""

    status: Literal["ok", "loading"]


class Problem(BaseModel):
    """A problem, as in RFC 9457."""

    type: str
    title: str
    status: int
    detail: str


def answer_of(ranking: Recommendations) -> Answer:
    """Recommendations as an answer; attributes that JSON cannot hold are left out."""
    return Answer(
        candidates=ranking.eligible,
        excluded_by=ranking.excluded_by,
        recommendations=[
            Candidate(
                rank=one.rank,
                id=one.profile.id,
                score=one.score,
                probability=one.probability,
                rerank_score=one.rerank_score,
                attributes={
                    name: value
                    for name, value in one.profile.attributes.items()
                    if not isinstance(value, float) or math.isfinite(value)
                },
            )
            for one in ranking
        ],
        caveats=list(ranking.caveats),
    )
