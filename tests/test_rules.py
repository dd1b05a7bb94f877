"""Eligibility rules in words."""

import pytest

from pairmatch import Profile
from pairmatch.errors import ConfigurationError
from pairmatch.rules import parse_rule

ANNA = Profile("anna", attributes={"age": 30, "region": "north", "smoker": False, "height": 1.7})


@pytest.mark.parametrize(
    ("rule", "holds"),
    [
        ("age >= 30", True),
        ("age>30", False),
        ("age < 31", True),
        ("age <= 29.5", False),
        ("age != 30", False),
        ("height = 1.70", True),
        ("region = north", True),
        ("region == 'south'", False),
        ("region != south", True),
        ("smoker = false", True),
        ("smoker = True", False),
        ("missing = 1", False),
        ("missing != 1", False),
    ],
)
def test_rules(rule, holds):
    assert parse_rule(rule)(ANNA) is holds


def test_faults_are_named():
    for text in ("age", "age ~ 3", ">= 3", "__import__('os')"):
        with pytest.raises(ConfigurationError, match="is no rule"):
            parse_rule(text)
    with pytest.raises(ConfigurationError, match=r"compares 'age', which is a number, with 'old'"):
        parse_rule("age > old")(ANNA)
