"""The rendered text of a person: nothing missing shows, and a template's faults are named."""

from enum import Enum

import pytest
from pydantic import BaseModel

from pairmatch import Profile
from pairmatch.core.errors import ConfigurationError
from pairmatch.features.prompt import DEFAULT_TEMPLATE, check_template, leave_out, render


class Style(Enum):
    CASUAL = "casual"


class Seen(BaseModel):
    style_vibe: Style | None = None
    colours: list[str] = []
    smiling: bool | None = None
    caption: str | None = None


FULL = Profile(
    "id-17",
    (),
    " I cook. ",
    {"age": 31, "region": "north"},
    Seen(style_vibe=Style.CASUAL, colours=["red", "blue"], smiling=True),
)


def test_the_default_template_says_what_is_known():
    assert render(FULL, attributes=["age", "absent"]) == (
        "Profile: I cook.\nFacts: age: 31\nPhoto: style vibe: casual; colours: red, blue; smiling: yes"
    )
    assert render(Profile("x", text="hi")) == "Profile: hi"
    assert render(Profile("x", metadata=Seen())) == ""
    assert "None" not in render(FULL) + render(Profile("x"))
    assert "id-17" not in render(FULL)


def test_templates_are_the_users():
    assert render(FULL, template="{age} years, {caption}\n{{{region}}}") == "{north}"
    assert render(FULL, template="{text} ({style_vibe})") == "I cook. (casual)"
    assert (
        render(Profile("x", text="{age} and {text}", attributes={"age": 3}))
        == "Profile: {age} and {text}"
    )


def test_fields_can_be_left_out():
    assert leave_out(None, []) == DEFAULT_TEMPLATE
    template = leave_out("Photo: {metadata}", ["colours"])
    assert render(FULL, template=template) == "Photo: style vibe: casual; smiling: yes"
    assert (
        render(FULL, template=leave_out("{metadata}", ["style_vibe", "colours"])) == "smiling: yes"
    )
    assert (
        render(FULL, template=leave_out("{metadata}", ["style_vibe", "colours", "smiling"])) == ""
    )
    assert render(Profile("x"), template=template) == ""
    check_template(template, [FULL])
    with pytest.raises(
        ConfigurationError, match=r"metadata field to leave out 'colour'. Did you mean 'colours'"
    ):
        check_template(leave_out(None, ["colour"]), [FULL])
    with pytest.raises(
        ConfigurationError, match=r"Leaving out caption needs a prompt template with \{metadata\}"
    ):
        leave_out("{text}", ["caption"])
    with pytest.raises(ConfigurationError, match="no plain names: metadata"):
        render(FULL, template="{metadata:>9}")
    with pytest.raises(ConfigurationError, match="no plain names: text"):
        render(FULL, template="{text:-colours}")


def test_faults_of_a_template_are_named():
    with pytest.raises(ConfigurationError, match=r"not valid: .* Write \{\{ for a brace"):
        render(FULL, template="{text")
    for template in ("{}", "{text!r}", "{text:>10}", "{text.upper}", "{text[0]}"):
        with pytest.raises(ConfigurationError, match="no plain names"):
            render(FULL, template=template)
    check_template("{text} {age} {caption}", [FULL])
    with pytest.raises(
        ConfigurationError,
        match=r"Unknown placeholder in the prompt template 'aeg'. Did you mean 'age'",
    ):
        check_template("{aeg}", [FULL])
