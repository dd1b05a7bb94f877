"""Schemas as JSON: a schema keeps its key in a saved matcher, or is refused when it is given."""

import datetime
import decimal
import enum
import json
import os
import uuid
from typing import Annotated, Any, Literal, Optional

import pytest
from pydantic import (
    AnyUrl,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    computed_field,
    create_model,
    field_serializer,
)

from pairmatch import Matcher, Profile, TrainingConfig
from pairmatch.core.errors import ConfigurationError
from pairmatch.features.prompt import render
from pairmatch.io.store import Store
from pairmatch.metadata.openai import OpenAIMetadata
from pairmatch.metadata.outcomes import generator_key, stored_outcome
from pairmatch.metadata.schema import (
    dump,
    instructions,
    json_schema,
    read_reply,
    read_schema,
    schema_key,
    write_schema,
)


class Everything(BaseModel):
    """A description of the model is no part of its key."""

    look: str = Field(examples=["casual", "smart"], description="The look.")
    day: datetime.date
    moment: datetime.datetime | None = Field(None, examples=[datetime.datetime(2020, 1, 1)])
    clock: datetime.time
    length: datetime.timedelta
    mark: uuid.UUID
    colours: set[str] = Field(min_length=1)
    shapes: frozenset[Literal["round", "square"]]
    half: float = Field(multiple_of=0.5)
    kind: Literal["a", "b"] | None = None
    only: Literal[True]
    numbers: list[Annotated[int, Field(ge=1)]] = Field(default_factory=list, max_length=3)
    steps: tuple[int, ...]
    note: str = Field(json_schema_extra={"x-note": 1}, deprecated=False)
    code: Optional[Annotated[str, StringConstraints(pattern="^a", max_length=3)]] = Field(  # noqa: UP045
        None, title="Code", description="The code.", examples=["a1"]
    )


VALID = {
    "look": "casual",
    "day": "2020-01-02",
    "moment": "2020-01-01T00:00:00Z",
    "clock": "10:30:00",
    "length": "P1DT2H",
    "mark": "6f9619ff-8b86-d011-b42d-00cf4fc964ff",
    "colours": ["red", "blue", "green"],
    "shapes": ["round"],
    "half": 1.5,
    "kind": "a",
    "only": True,
    "numbers": [1, 2],
    "steps": [3, 4],
    "note": "n",
    "code": "a1",
}


@pytest.fixture(params=["saved", "its own JSON Schema"])
def loaded(request):
    written = write_schema(Everything)
    return read_schema(written if request.param == "saved" else Everything.model_json_schema())


def test_a_schema_keeps_its_key_prompt_and_rendering(loaded):
    assert json_schema(loaded) == json_schema(Everything)
    assert schema_key(loaded) == schema_key(Everything)
    assert schema_key(read_schema(write_schema(loaded))) == schema_key(Everything)
    assert instructions(loaded) == instructions(Everything)
    replies = [read_reply(schema, json.dumps(VALID)) for schema in (Everything, loaded)]
    assert dump(replies[0]) == dump(replies[1])
    assert loaded.model_validate(dump(replies[0])) == replies[1]
    texts = [render(Profile("x", metadata=metadata)) for metadata in replies]
    assert texts[0] == texts[1]
    assert "colours: blue, green, red" in texts[0]


@pytest.mark.parametrize(
    "change",
    [
        {"day": "2020-13-01"},
        {"moment": "soon"},
        {"half": 1.3},
        {"colours": []},
        {"colours": 5},
        {"shapes": ["oval"]},
        {"only": False},
        {"numbers": [0]},
        {"numbers": [1, 2, 3, 4]},
        {"steps": ["x"]},
        {"code": "b"},
        {"mark": "x"},
    ],
)
def test_a_schema_from_json_checks_like_the_original(change, loaded):
    replies = [read_reply(schema, json.dumps(VALID | change)) for schema in (Everything, loaded)]
    assert isinstance(replies[0], str)
    # The items of tuples and sets of another kind are described in other words
    assert isinstance(replies[1], str)


def test_answers_are_found_after_a_matcher_was_saved_and_loaded(tmp_path, small_pairs):
    maker = OpenAIMetadata(model="x", schema=Everything)
    with Store(tmp_path / "store.sqlite") as store:
        matcher = Matcher(
            backbone="descriptor", metadata=maker, store=store, training=TrainingConfig(epochs=1)
        )
        folder = matcher.fit(small_pairs(4)).save(tmp_path / "saved")
        assert generator_key(Matcher.load(folder, store=store).metadata) == generator_key(maker)


class Colour(enum.Enum):
    RED = "red"


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (decimal.Decimal, "not flat"),
        (bytes, "its format is 'binary'"),
        (AnyUrl, "its format is 'uri'"),
        (tuple[int, str], "prefixItems"),
        (dict[str, int], "not flat"),
        (Colour, "not flat"),
        (Any, "its type is None"),
        (int | str, "not flat"),
        (object, "cannot be written as JSON Schema|its type is None"),
        (Annotated[str, Field(alias="other")], "alias.*: value"),
        (Annotated[str, Field(validation_alias="other")], "alias.*: value"),
        (Annotated[str, Field(serialization_alias="other")], "alias.*: value"),
        (Annotated[str, Field(exclude=True)], "excluded: value"),
    ],
)
def test_what_json_cannot_hold_is_refused_when_it_is_given(kind, words):
    schema = create_model("Given", value=(kind, ...))
    with pytest.raises(ConfigurationError, match=words):
        OpenAIMetadata(model="x", schema=schema)


def test_aliases_of_a_generator_are_refused():
    class Renamed(BaseModel):
        model_config = ConfigDict(alias_generator=str.upper)
        hair: str

    with pytest.raises(ConfigurationError, match=r"Renamed has attributes with an alias.*: hair"):
        OpenAIMetadata(model="x", schema=Renamed)


@pytest.mark.parametrize(
    "attribute",
    [
        {"type": "string", "pattern": "("},
        {"enum": [["list"]]},
        {"type": "integer", "minimum": "x"},
        {"type": ["string", "null"]},
        {"type": "string", "description": "\ud800"},
        {"anyOf": [5, {"type": "null"}]},
        {"type": "array", "items": 5},
        {"type": "number", "maximum": float("inf")},
        {"allOf": [{"type": "string"}]},
        "string",
        None,
    ],
)
def test_json_schemas_that_cannot_be_used_are_explained(attribute):
    with pytest.raises(ConfigurationError, match="The schema"):
        read_schema({"title": "Given", "properties": {"value": attribute}})


@pytest.mark.parametrize(
    "name", ["", "_hidden", "__base__", "__config__", "model_dump", "model_fields"]
)
def test_names_that_pydantic_keeps_for_itself_are_refused(name):
    with pytest.raises(ConfigurationError, match="unsupported attributes"):
        read_schema({"properties": {name: {"type": "string"}}})


@pytest.mark.parametrize("name", ["copy", "json", "schema", "model_year", "hair colour"])
def test_names_that_pydantic_allows_are_read(name):
    schema = read_schema({"properties": {name: {"type": "string"}}})
    metadata = read_reply(schema, json.dumps({name: "x"}))
    assert dump(metadata) == {name: "x"}


def test_a_schema_is_read_from_regular_files_only(tmp_path):
    pipe = tmp_path / "pipe.json"
    os.mkfifo(pipe)
    (tmp_path / "deep.json").write_text("[" * 100_000)
    (tmp_path / "large.json").write_text(" " * 2_000_000)
    for path, words in (
        (pipe, "not a regular file"),
        (tmp_path, "directory"),
        (tmp_path / "deep.json", "nested"),
        (tmp_path / "large.json", "2,000,000 bytes"),
        ("/dev/zero", "not a regular file"),
    ):
        with pytest.raises(ConfigurationError, match=f"cannot be read: .*{words}"):
            read_schema(path)


class Derived(BaseModel):
    value: str

    @computed_field
    @property
    def twice(self) -> str:
        return 2 * self.value


class Lossy(BaseModel):
    value: int

    @field_serializer("value")
    def as_words(self, value: int) -> str:
        return f"about {value}"


def test_computed_attributes_are_not_stored():
    assert stored_outcome(Derived(value="x"), _usage())["metadata"] == {"value": "x"}


def test_metadata_that_could_not_be_read_again_are_not_stored():
    assert "cannot be stored" in read_reply(Lossy, '{"value": 5}')
    broken = Derived.model_construct(value="\ud800")
    for metadata in (Lossy(value=5), broken):
        assert stored_outcome(metadata, _usage())["refusal"] == "invalid"


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999", "-1e999"])
def test_numbers_that_json_cannot_hold_are_invalid(number):
    schema = create_model("Given", value=(float, ...))
    assert isinstance(read_reply(schema, f'{{"value": {number}}}'), str)


def _usage():
    from pairmatch.core.types import Usage

    return Usage()
