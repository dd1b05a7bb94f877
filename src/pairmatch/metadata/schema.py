"""Schemas of metadata: the recipe's eight attributes per photo, or your own pydantic model."""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic.errors import PydanticUserError

from pairmatch.core.errors import ConfigurationError
from pairmatch.core.text import printable
from pairmatch.io.files import expand_user, parse_json, read_file
from pairmatch.io.store import content_key
from pairmatch.metadata.outside import OutsideText
from pairmatch.metadata.schema_types import python_type

Level = Literal["low", "medium", "high"]
#: A pydantic model, or its JSON Schema: an object, or the path to a file.
SchemaSpec = type[BaseModel] | Mapping[str, Any] | str | Path
#: Prompt of every model; the descriptions of the schema follow. Any change makes all stored
#: outcomes useless.
INSTRUCTIONS = (
    "You describe profile photos for a matching service. Fill in every attribute from what is "
    "plainly visible, in English, kindly and without guessing at ethnicity, health, religion, "
    "orientation or income."
)
_MOST_SCHEMA_BYTES = 1_000_000
_MOST_REPLY = 100_000  # characters of an answer; a caption has a few hundred


class Metadata(BaseModel):
    """The recipe's eight attributes; None means unknown.

    The descriptions are part of the prompt, and of the keys of stored outcomes.
    """

    model_config = ConfigDict(extra="forbid")

    appearance_type: (
        Literal["classic", "natural", "sporty", "artistic", "glamorous", "edgy", "cute", "mature"]
        | None
    ) = Field(None, description="The kind of appearance that the person presents.")
    style_vibe: (
        Literal[
            "casual",
            "smart",
            "elegant",
            "streetwear",
            "outdoorsy",
            "vintage",
            "minimal",
            "alternative",
        ]
        | None
    ) = Field(None, description="The style of the clothes and of the whole photo.")
    personality_impression: str | None = Field(
        None,
        description="The impression that the photo is meant to give, in two or three words, "
        "without judgement.",
    )
    grooming_level: Level | None = Field(None, description="How much care hair and clothes show.")
    photo_style: (
        Literal[
            "selfie",
            "mirror selfie",
            "portrait",
            "full body",
            "action",
            "travel",
            "group",
            "professional",
        ]
        | None
    ) = Field(None, description="The kind of photo.")
    image_quality: Level | None = Field(
        None, description="Sharpness and light of the photo itself."
    )
    physical_features: str | None = Field(
        None,
        description="What is plainly visible of hair, glasses, beard and clothes, in a few words.",
    )
    caption: str | None = Field(None, description="One sentence that says what the photo shows.")


def json_schema(schema: type[BaseModel]) -> dict[str, Any]:
    """The JSON Schema that the API requires: all attributes required, none null, no others.

    Raises:
        ConfigurationError: The model is not flat (an attribute is itself an object) or is empty.
    """
    try:
        written = schema.model_json_schema()
    except PydanticUserError as error:
        raise ConfigurationError(
            f"{schema.__name__} cannot be written as JSON Schema: {error.message}"
        ) from error
    properties = {}
    for name, attribute in written.get("properties", {}).items():
        plain = _plain_attribute(attribute)
        if "$ref" in json.dumps(plain) or plain.get("type") == "object" or "anyOf" in plain:
            raise ConfigurationError(
                f"The attribute {name!r} of {schema.__name__} is not flat: use text, numbers, "
                "dates, booleans, Literal, or lists of those."
            )
        properties[name] = plain
    if not properties:
        raise ConfigurationError(f"{schema.__name__} has no attributes.")
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _plain_attribute(attribute: Mapping[str, Any]) -> dict[str, Any]:
    """An attribute as the API requires it: not null, without a title and a default."""
    choices = [choice for choice in attribute.get("anyOf", []) if choice.get("type") != "null"]
    if len(choices) == 1:
        kept = {key: attribute[key] for key in ("description",) if key in attribute}
        attribute = {**choices[0], **kept}
    return {key: value for key, value in attribute.items() if key not in ("default", "title")}


def schema_key(schema: type[BaseModel]) -> str:
    """Digest of a schema; any change of names, types or descriptions changes it."""
    return content_key(json_schema(schema))


def write_schema(schema: type[BaseModel]) -> dict[str, Any]:
    """The JSON Schema with its name, as saved matchers hold it; `read_schema` reads it back."""
    return {"title": schema.__name__, **json_schema(schema)}


def read_schema(schema: SchemaSpec) -> type[BaseModel]:
    """The pydantic model of a schema.

    A model that is read from JSON has the same key, prompt and rendering as the original. Python
    validators are lost, because JSON Schema cannot hold them. A pydantic model that JSON cannot
    hold is refused, so that no answer is paid for that a loaded matcher would not find.

    Raises:
        ConfigurationError: The file cannot be read, or is not the JSON Schema of a flat object, or
            attributes have unsupported types, or an alias. Lists all such attributes.
    """
    if isinstance(schema, type) and issubclass(schema, BaseModel):
        _check_fields(schema)
        _model(write_schema(schema), f" {schema.__name__}")
        return schema
    origin = ""
    if isinstance(schema, str | Path):
        named = printable(str(schema))
        origin = f" in {named}"
        path = expand_user(schema)
        try:
            schema = parse_json(read_file(path, most_bytes=_MOST_SCHEMA_BYTES))
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or f"not valid JSON: {error}"
            raise ConfigurationError(f"The schema {named} cannot be read: {reason}.") from error
    if not isinstance(schema, Mapping) or not isinstance(schema.get("properties"), Mapping):
        raise ConfigurationError(
            "A schema must be a pydantic model, or a JSON Schema with `properties`; got "
            f"{printable(str(schema))[:100]}{origin}."
        )
    return _model(schema, origin)


def _check_fields(schema: type[BaseModel]) -> None:
    """Refuses attributes that are stored under another name than they are read, or not at all."""
    renamed = [
        name
        for name, info in schema.model_fields.items()
        if info.alias or info.validation_alias or info.serialization_alias or info.exclude
    ]
    if renamed:
        raise ConfigurationError(
            f"{schema.__name__} has attributes with an alias, or that are excluded: "
            f"{', '.join(renamed)}. Answers are stored and read back under the names of "
            "attributes: rename the attributes themselves, and exclude none."
        )


def _model(schema: Mapping[str, Any], origin: str) -> type[BaseModel]:
    """A pydantic model whose JSON Schema has exactly these attributes."""
    title = str(schema.get("title", "Attributes"))
    properties: dict[str, Any] = {}
    fields: dict[str, Any] = {}
    problems = []
    for name, written in schema["properties"].items():
        try:
            _check_name(name)
            properties[name] = attribute = _plain_attribute(written)
            fields[name] = (
                python_type(attribute) | None,
                Field(None, description=attribute.get("description")),
            )
        except (ConfigurationError, TypeError, AttributeError) as error:
            problems.append(f"{name!r}: {error}")
    if problems:
        raise ConfigurationError(
            f"The schema{origin} has unsupported attributes: {'; '.join(problems)}"
        )

    def keep_original(json_schema: dict[str, Any]) -> None:
        json_schema["properties"] = copy.deepcopy(properties)

    config = ConfigDict(extra="forbid", json_schema_extra=keep_original)
    try:
        with warnings.catch_warnings():  # an attribute may have the name of a pydantic method
            warnings.simplefilter("ignore")
            model = create_model(title, __config__=config, **fields)
        schema_key(model)
    except ConfigurationError:
        raise
    except Exception as error:  # pydantic has many: limits of another type, invalid patterns, …
        raise ConfigurationError(f"The schema{origin} cannot be used: {error}.") from error
    return model


def _check_name(name: object) -> None:
    if not isinstance(name, str) or not name or name.startswith("_"):
        raise ConfigurationError("names must not be empty or begin with an underscore.")
    if name.startswith("model_") and hasattr(BaseModel, name):
        raise ConfigurationError("pydantic uses this name itself: choose another one.")


def instructions(schema: type[BaseModel]) -> str:
    """The whole prompt with one line per attribute, for models that receive no separate schema."""
    lines = [
        INSTRUCTIONS,
        "Answer with one JSON object and nothing else. It has exactly these attributes, none of "
        "them empty:",
    ]
    for name, attribute in json_schema(schema)["properties"].items():
        description = attribute.get("description", name.replace("_", " "))
        lines.append(f'- "{name}" ({_type_phrase(attribute)}): {description}')
    return "\n".join(lines)


def _type_phrase(attribute: Mapping[str, Any]) -> str:
    """The type of an attribute, as the prompt states it."""
    if "enum" in attribute or "const" in attribute:
        choices = attribute.get("enum", [attribute.get("const")])
        return f"one of {', '.join(json.dumps(choice, ensure_ascii=False) for choice in choices)}"
    if attribute.get("type") == "array":
        return f"a list, each {_type_phrase(attribute.get('items', {}))}"
    phrases = {
        "string": "text",
        "integer": "a whole number",
        "number": "a number",
        "boolean": "true or false",
    }
    return phrases.get(str(attribute.get("type")), "text")


def read_reply(
    schema: type[BaseModel], text: str, texts: OutsideText | None = None
) -> BaseModel | str:
    """The metadata in the JSON text of a reply, or what is wrong with it.

    Local models receive the problem in the request for a second answer.

    Args:
        schema: Pydantic model of the metadata.
        text: The reply.
        texts: Filter of the texts in it; None for one that knows no key.
    """
    if len(text) > _MOST_REPLY:
        return f"the answer has {len(text):,} characters, more than {_MOST_REPLY:,}"
    try:
        reply = parse_json(text)
    except ValueError as error:
        return f"not valid JSON: {error}"
    if not isinstance(reply, Mapping):
        return "not a JSON object"
    reply = (texts or OutsideText()).clean_json(reply)
    missing = [name for name in schema.model_fields if reply.get(name) in (None, "")]
    if missing:
        return f"attributes are missing: {', '.join(missing)}"
    try:
        metadata = schema.model_validate(reply)
        return metadata if is_storable(metadata) else "holds values that cannot be stored"
    except ValidationError as error:
        return problems_of(error)


def dump(metadata: BaseModel) -> dict[str, Any]:
    """The attributes of metadata as JSON values, as the store holds them."""
    values = metadata.model_dump(mode="json", include=set(type(metadata).model_fields))
    for name in values:
        if isinstance(getattr(metadata, name), set | frozenset):
            values[name] = sorted(values[name], key=json.dumps)
    return values


def is_storable(metadata: BaseModel) -> bool:
    """Whether the stored form can be written as JSON and is valid again."""
    try:
        text = json.dumps(dump(metadata), ensure_ascii=False, allow_nan=False)
        type(metadata).model_validate(json.loads(text.encode()))
    except (ValueError, TypeError):  # ValidationError is a ValueError
        return False
    return True


def problems_of(error: ValidationError) -> str:
    """The problems of a validation on one line, without the values, which may be long."""
    return "; ".join(
        f"{'.'.join(map(str, problem['loc'])) or 'the whole'}: {problem['msg']}"
        for problem in error.errors()
    )
