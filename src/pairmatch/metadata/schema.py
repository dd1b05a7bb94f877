"""The schema of metadata: eight attributes per photo, or a pydantic model of your own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from pairmatch.errors import ConfigurationError
from pairmatch.store import content_key

Level = Literal["low", "medium", "high"]


class Metadata(BaseModel):
    """The recipe's eight attributes. Descriptions are part of the prompt; None means that nobody has said anything."""

    model_config = ConfigDict(extra="forbid")

    appearance_type: (
        Literal["classic", "natural", "sporty", "artistic", "glamorous", "edgy", "cute", "mature"] | None
    ) = Field(None, description="The kind of appearance that the person presents.")
    style_vibe: (
        Literal["casual", "smart", "elegant", "streetwear", "outdoorsy", "vintage", "minimal", "alternative"] | None
    ) = Field(None, description="The style of the clothes and of the whole photo.")
    personality_impression: str | None = Field(
        None, description="The impression that the photo is meant to give, in two or three words, without judgement."
    )
    grooming_level: Level | None = Field(None, description="How much care hair and clothes show.")
    photo_style: (
        Literal["selfie", "mirror selfie", "portrait", "full body", "action", "travel", "group", "professional"] | None
    ) = Field(None, description="The kind of photo.")
    image_quality: Level | None = Field(None, description="Sharpness and light of the photo itself.")
    physical_features: str | None = Field(
        None, description="What is plainly visible of hair, glasses, beard and clothes, in a few words."
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
            attribute = {**choices[0], **{key: attribute[key] for key in ("description",) if key in attribute}}
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


def read_reply(schema: type[BaseModel], text: str) -> BaseModel | str:
    """The model that a reply's JSON says, or what is wrong with it."""
    from pydantic import ValidationError

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
        return "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
