"""Errors: what they quote is escaped, whatever its origin."""

import pickle

import pytest

from pairmatch.core import errors
from pairmatch.core.errors import DataError, PairmatchError, StoreError

CLASSES = [
    value
    for value in vars(errors).values()
    if isinstance(value, type) and issubclass(value, PairmatchError)
]


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize(
    ("quoted", "shown"),
    [
        ("\x1b[2Jred", r"\x1b[2Jred"),
        ("a\nSaved the matcher", r"a\x0aSaved the matcher"),
        ("user\u202egpj.exe", r"user\u202egpj.exe"),
        ("\x9b31m\udcff", r"\x9b31m\udcff"),
    ],
)
def test_what_a_message_quotes_is_escaped(kind, quoted, shown):
    assert str(kind(f"The file {quoted} is bad.")) == f"The file {shown} is bad."


def test_all_problems_are_single_lines():
    error = DataError("x\ry.csv: 2 problems:", ["row\n  - forged", "\x1b[m"])
    assert str(error) == "x\\x0dy.csv: 2 problems:\n  - row\\x0a  - forged\n  - \\x1b[m"
    assert error.problems == ("row\n  - forged", "\x1b[m")  # for programs, as they came


def test_errors_stay_standard_exceptions():
    error = StoreError("cannot be read")
    assert isinstance(error, OSError)
    assert error.errno is None
    assert str(pickle.loads(pickle.dumps(error))) == "cannot be read"
