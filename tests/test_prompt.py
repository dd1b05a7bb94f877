"""Prompt rendering: empty values are omitted, and template errors are explained."""

from enum import Enum

import pytest
from pydantic import BaseModel

from pairmatch import Profile
from pairmatch.core import registry
from pairmatch.core.errors import ConfigurationError
from pairmatch.core.text import PLAIN_PROMPT
from pairmatch.experiments.grid import grid
from pairmatch.features.inputs import build_items
from pairmatch.features.prompt import DEFAULT_TEMPLATE, check_template, leave_out, render


class Style(Enum):
    CASUAL = "casual"


class PhotoMetadata(BaseModel):
    style_vibe: Style | None = None
    colors: list[str] = []
    smiling: bool | None = None
    caption: str | None = None


FULL = Profile(
    "id-17",
    (),
    " I cook. ",
    {"age": 31, "region": "north"},
    PhotoMetadata(style_vibe=Style.CASUAL, colors=["red", "blue"], smiling=True),
)


def test_the_default_template_omits_missing_values():
    assert render(FULL, attributes=["age", "absent"]) == (
        "Profile: I cook.\nFacts: age: 31\n"
        "Photo: style vibe: casual; colors: red, blue; smiling: yes"
    )
    assert render(Profile("x", text="hi")) == "Profile: hi"
    assert render(Profile("x", metadata=PhotoMetadata())) == ""
    assert "None" not in render(FULL) + render(Profile("x"))
    assert "id-17" not in render(FULL)


def test_plain_prompts_have_no_labels():
    assert render(Profile("x", text="hi"), template=PLAIN_PROMPT) == "hi"
    assert render(FULL, template=PLAIN_PROMPT, attributes=["age"]) == (
        "I cook.\nage: 31\nstyle vibe: casual; colors: red, blue; smiling: yes"
    )
    for name, label in (("hf-text", ""), ("qwen3-vl-2b", "Profile: ")):
        backbone = registry.create("backbones", name)
        for prompt, text in ((None, f"{label}I cook."), ("I say: {text}", "I say: I cook.")):
            person = Profile("x", text="I cook.")
            assert build_items([person], backbone, prompt, ())[0].text == text


def test_attributes_are_left_out_of_the_prompt_of_the_backbone():
    for backbone, start in (("hf-text", "{text}\n"), ("qwen3-vl-2b", "Profile: {text}\n")):
        [combination] = grid({"backbone": [(backbone, {})]}, {"without": ["colors"]})
        assert combination.arguments["prompt"].startswith(start)
        assert combination.arguments["prompt"].endswith("{metadata:-colors}")


def test_custom_templates():
    assert render(FULL, template="{age} years, {caption}\n{{{region}}}") == "{north}"
    assert render(FULL, template="{text} ({style_vibe})") == "I cook. (casual)"
    assert (
        render(Profile("x", text="{age} and {text}", attributes={"age": 3}))
        == "Profile: {age} and {text}"
    )


def test_fields_can_be_omitted():
    assert leave_out(None, []) == DEFAULT_TEMPLATE
    template = leave_out("Photo: {metadata}", ["colors"])
    assert render(FULL, template=template) == "Photo: style vibe: casual; smiling: yes"
    assert (
        render(FULL, template=leave_out("{metadata}", ["style_vibe", "colors"])) == "smiling: yes"
    )
    assert render(FULL, template=leave_out("{metadata}", ["style_vibe", "colors", "smiling"])) == ""
    assert render(Profile("x"), template=template) == ""
    check_template(template, [FULL])
    with pytest.raises(
        ConfigurationError, match=r"metadata field to leave out 'color'. Did you mean 'colors'"
    ):
        check_template(leave_out(None, ["color"]), [FULL])
    with pytest.raises(
        ConfigurationError, match=r"Leaving out caption needs a prompt template with \{metadata\}"
    ):
        leave_out("{text}", ["caption"])
    with pytest.raises(ConfigurationError, match="not plain names: metadata"):
        render(FULL, template="{metadata:>9}")
    with pytest.raises(ConfigurationError, match="not plain names: text"):
        render(FULL, template="{text:-colors}")


def test_template_errors_are_explained():
    with pytest.raises(ConfigurationError, match=r"not valid: .* Write \{\{ for a literal brace"):
        render(FULL, template="{text")
    for template in ("{}", "{text!r}", "{text:>10}", "{text.upper}", "{text[0]}"):
        with pytest.raises(ConfigurationError, match="not plain names"):
            render(FULL, template=template)
    check_template("{text} {age} {caption}", [FULL])
    with pytest.raises(
        ConfigurationError,
        match=r"Unknown placeholder in the prompt template 'aeg'. Did you mean 'age'",
    ):
        check_template("{aeg}", [FULL])


def test_half_a_surrogate_pair_is_replaced():
    profile = Profile("a", text="I love my dog \ud83d", attributes={"city": "K\udcf6ln"})
    expected = "Profile: I love my dog \ufffd\nFacts: city: K\ufffdln"
    assert render(profile, attributes=["city"]) == expected
