"""Schemas of metadata: the recipe's eight attributes per photo, or your own pydantic model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from pairmatch.core.errors import ConfigurationError
from pairmatch.io.files import expand_user
from pairmatch.io.store import content_key

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
_TYPES: dict[str, type] = {"string": str, "integer": int, "number": float, "boolean": bool}
_LIMITS = {
    "minimum": "ge",
    "maximum": "le",
    "exclusiveMinimum": "gt",
    "exclusiveMaximum": "lt",
    "minLength": "min_length",
    "maxLength": "max_length",
    "minItems": "min_length",
    "maxItems": "max_length",
    "pattern": "pattern",
}


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
    properties = {}
    for name, attribute in schema.model_json_schema().get("properties", {}).items():
        choices = [choice for choice in attribute.get("anyOf", []) if choice.get("type") != "null"]
        if len(choices) == 1:
            attribute = {
                **choices[0],
                **{key: attribute[key] for key in ("description",) if key in attribute},
            }
        plain = {key: value for key, value in attribute.items() if key not in ("default", "title")}
        if "$ref" in json.dumps(plain) or plain.get("type") == "object" or "anyOf" in plain:
            raise ConfigurationError(
                f"The attribute {name!r} of {schema.__name__} is not flat: use text, numbers, "
                "booleans, Literal, or lists of those."
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


def schema_key(schema: type[BaseModel]) -> str:
    """Digest of a schema; any change of names, types or descriptions changes it."""
    return content_key(json_schema(schema))


def write_schema(schema: type[BaseModel]) -> dict[str, Any]:
    """The JSON Schema with its name, as saved matchers hold it; `read_schema` reads it back."""
    return {"title": schema.__name__, **json_schema(schema)}


def read_schema(schema: SchemaSpec) -> type[BaseModel]:
    """The pydantic model of a schema.

    A model that is read from JSON has the same key, prompt and rendering as the original. Python
    validators are lost, because JSON Schema cannot hold them.

    Raises:
        ConfigurationError: The file cannot be read, or is not the JSON Schema of a flat object, or
            attributes have unsupported types. Lists all such attributes.
    """
    if isinstance(schema, type) and issubclass(schema, BaseModel):
        json_schema(schema)
        return schema
    origin = ""
    if isinstance(schema, str | Path):
        origin = f" in {schema}"
        try:
            schema = json.loads(expand_user(schema).read_bytes())
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or f"not valid JSON: {error}"
            raise ConfigurationError(f"The schema {schema} cannot be read: {reason}.") from error
    if not isinstance(schema, Mapping) or not isinstance(schema.get("properties"), Mapping):
        raise ConfigurationError(
            "A schema must be a pydantic model, or a JSON Schema with `properties`; got "
            f"{str(schema)[:100]}{origin}."
        )
    fields: dict[str, Any] = {}
    problems = []
    for name, attribute in schema["properties"].items():
        try:
            fields[name] = (
                _python_type(attribute) | None,
                Field(None, description=attribute.get("description")),
            )
        except (ConfigurationError, TypeError, AttributeError) as error:
            problems.append(f"{name!r}: {error}")
    if problems:
        raise ConfigurationError(
            f"The schema{origin} has unsupported attributes: {'; '.join(problems)}"
        )
    model = create_model(
        str(schema.get("title", "Attributes")), __config__=ConfigDict(extra="forbid"), **fields
    )
    json_schema(model)
    return model


def _python_type(attribute: Mapping[str, Any]) -> Any:
    """The Python type of an attribute of a JSON Schema, with its limits."""
    if "enum" in attribute or "const" in attribute:
        return Literal[tuple(attribute.get("enum", [attribute.get("const")]))]
    limits = {_LIMITS[key]: value for key, value in attribute.items() if key in _LIMITS}
    kind = attribute.get("type")
    if kind == "array":
        python_type: Any = list[_python_type(attribute.get("items", {}))]  # type: ignore[misc]
    elif kind in _TYPES:
        python_type = _TYPES[kind]
    else:
        raise ConfigurationError(
            f"its type is {kind!r}; use an enum, {', '.join(map(repr, _TYPES))}, or an 'array' "
            "of those."
        )
    return Annotated[python_type, Field(**limits)] if limits else python_type


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


def read_reply(schema: type[BaseModel], text: str) -> BaseModel | str:
    """The metadata in the JSON text of a reply, or what is wrong with it.

    Local models receive the problem in the request for a second answer.
    """
    try:
        reply = json.loads(text)
    except ValueError as error:
        return f"not valid JSON: {error}"
    if not isinstance(reply, Mapping):
        return "not a JSON object"
    missing = [name for name in schema.model_fields if reply.get(name) in (None, "")]
    if missing:
        return f"attributes are missing: {', '.join(missing)}"
    try:
        return schema.model_validate(reply)
    except ValidationError as error:
        return problems_of(error)


def problems_of(error: ValidationError) -> str:
    """The problems of a validation on one line, without the values, which may be long."""
    return "; ".join(
        f"{'.'.join(map(str, problem['loc'])) or 'the whole'}: {problem['msg']}"
        for problem in error.errors()
    )
