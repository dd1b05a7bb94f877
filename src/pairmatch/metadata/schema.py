"""The schema of metadata: eight attributes per photo, or a pydantic model of your own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from pairmatch.core.errors import ConfigurationError
from pairmatch.io.store import content_key

Level = Literal["low", "medium", "high"]
#: A pydantic model, or a JSON Schema of one: an object, or the path of a file that holds it.
SchemaSpec = type[BaseModel] | Mapping[str, Any] | str | Path
#: What every generating model is told; the schema's descriptions follow.
INSTRUCTIONS = (
    "You describe profile photos for a matching service. Fill in every attribute from what is plainly visible, in "
    "English, kindly and without guessing at ethnicity, health, religion, orientation or income."
)
_KINDS: dict[str, type] = {"string": str, "integer": int, "number": float, "boolean": bool}
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
    """The recipe's eight attributes.

    Descriptions are part of the prompt; None means that nobody has said anything.
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
        description="The impression that the photo is meant to give, in two or three words, without judgement.",
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
    """The schema as the API takes it: every attribute required and not null, nothing else allowed.

    Raises:
        ConfigurationError: A model that is not flat (attributes that are objects themselves).
    """
    found = schema.model_json_schema()
    properties = {}
    for name, attribute in found.get("properties", {}).items():
        choices = [one for one in attribute.get("anyOf", []) if one.get("type") != "null"]
        if len(choices) == 1:
            attribute = {
                **choices[0],
                **{key: attribute[key] for key in ("description",) if key in attribute},
            }
        plain = {key: value for key, value in attribute.items() if key not in ("default", "title")}
        if "$ref" in json.dumps(plain) or plain.get("type") == "object" or "anyOf" in plain:
            raise ConfigurationError(
                f"The attribute {name!r} of {schema.__name__} is not flat: use text, numbers, booleans, Literal, or "
                "lists of those."
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
    """Digest of a schema: whatever changes in names, kinds or descriptions changes it."""
    return content_key(json_schema(schema))


def write_schema(schema: type[BaseModel]) -> dict[str, Any]:
    """The schema as plain JSON with its name, which `read_schema` turns into an equal one.

    For saved matchers.
    """
    return {"title": schema.__name__, **json_schema(schema)}


def read_schema(schema: SchemaSpec) -> type[BaseModel]:
    """The pydantic model of a schema.

    One that is read from JSON has the same key, prompt and rendering as the model it was written
    from; validators in Python are not part of JSON and are gone.

    Raises:
        ConfigurationError: No such file, no JSON Schema of a flat object, or an attribute of an
            unknown kind: all of them at once.
    """
    if isinstance(schema, type) and issubclass(schema, BaseModel):
        json_schema(schema)
        return schema
    origin = ""
    if isinstance(schema, str | Path):
        origin = f" in {schema}"
        try:
            schema = json.loads(Path(schema).expanduser().read_bytes())
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or f"not valid JSON: {error}"
            raise ConfigurationError(f"The schema {schema} cannot be read: {reason}.") from error
    if not isinstance(schema, Mapping) or not isinstance(schema.get("properties"), Mapping):
        raise ConfigurationError(
            f"A schema is a pydantic model, or a JSON Schema with `properties`; got {str(schema)[:100]}{origin}."
        )
    fields: dict[str, Any] = {}
    problems = []
    for name, attribute in schema["properties"].items():
        try:
            fields[name] = (
                _kind(attribute) | None,
                Field(None, description=attribute.get("description")),
            )
        except (ConfigurationError, TypeError, AttributeError) as error:
            problems.append(f"{name!r}: {error}")
    if problems:
        raise ConfigurationError(
            f"The schema{origin} has attributes that cannot be used: {'; '.join(problems)}"
        )
    found = create_model(
        str(schema.get("title", "Attributes")), __config__=ConfigDict(extra="forbid"), **fields
    )
    json_schema(found)
    return found


def _kind(attribute: Mapping[str, Any]) -> Any:
    """The Python type of an attribute of a JSON Schema."""
    if "enum" in attribute or "const" in attribute:
        return Literal[tuple(attribute.get("enum", [attribute.get("const")]))]
    limits = {_LIMITS[key]: value for key, value in attribute.items() if key in _LIMITS}
    kind = attribute.get("type")
    if kind == "array":
        found: Any = list[_kind(attribute.get("items", {}))]  # type: ignore[misc]
    elif kind in _KINDS:
        found = _KINDS[kind]
    else:
        raise ConfigurationError(
            f"its type is {kind!r}; use an enum, {', '.join(map(repr, _KINDS))}, or an 'array' of those."
        )
    return Annotated[found, Field(**limits)] if limits else found


def instructions(schema: type[BaseModel]) -> str:
    """The whole prompt in words, for models that are not given the schema apart.

    One line per attribute.
    """
    lines = [
        INSTRUCTIONS,
        "Answer with one JSON object and nothing else. It has exactly these attributes, none of them empty:",
    ]
    for name, attribute in json_schema(schema)["properties"].items():
        lines.append(
            f'- "{name}" ({_in_words(attribute)}): {attribute.get("description", name.replace("_", " "))}'
        )
    return "\n".join(lines)


def _in_words(attribute: Mapping[str, Any]) -> str:
    if "enum" in attribute or "const" in attribute:
        choices = attribute.get("enum", [attribute.get("const")])
        return f"one of {', '.join(json.dumps(choice, ensure_ascii=False) for choice in choices)}"
    if attribute.get("type") == "array":
        return f"a list, each {_in_words(attribute.get('items', {}))}"
    kinds = {
        "string": "text",
        "integer": "a whole number",
        "number": "a number",
        "boolean": "true or false",
    }
    return kinds.get(str(attribute.get("type")), "text")


def read_reply(schema: type[BaseModel], text: str) -> BaseModel | str:
    """The model that a reply's JSON says, or what is wrong with it."""
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
    """What a pydantic model found wrong, in one line; without the values, which may be long."""
    return "; ".join(
        f"{'.'.join(map(str, one['loc'])) or 'the whole'}: {one['msg']}" for one in error.errors()
    )
