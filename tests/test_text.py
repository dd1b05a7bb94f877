"""Text from outside: what a terminal would obey, and what UTF-8 cannot hold."""

import pytest

from pairmatch.core.text import has_surrogates, printable, replace_surrogates

# Expected escapes are Python's own: code points below 256 as \xNN, others as \uNNNN.


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J\x1b]0;title\x07", r"\x1b[2J\x1b]0;title\x07"),
        ("a\nSaved the matcher", r"a\x0aSaved the matcher"),
        ("a\rb\tc\x00", r"a\x0db\x09c\x00"),
        ("\x9b31m\x85\x7f", r"\x9b31m\x85\x7f"),  # C1 controls, which terminals obey too
        ("user\u202egpj.exe", r"user\u202egpj.exe"),
        ("a\u2028b\u2066c\u200bd\ufeff", r"a\u2028b\u2066c\u200bd\ufeff"),
        ("stray \udcff byte", r"stray \udcff byte"),
        ("Zoë 김민수 → ✓ 👩\u200d🔬", "Zoë 김민수 → ✓ 👩\u200d🔬"),  # a joiner is part of the emoji
    ],
)
def test_what_a_terminal_obeys_is_escaped(text, shown):
    assert printable(text) == shown


def test_line_breaks_and_tabs_of_a_message_can_stay():
    assert printable("a:\n\t- b\r\x1b[m", lines=True) == "a:\n\t- b\\x0d\\x1b[m"


@pytest.mark.parametrize("text", [chr(0xD83D), "dog " + chr(0xDC36), chr(0xDCFF)])
def test_lone_surrogates_are_found_and_replaced(text):
    assert has_surrogates(text)
    replaced = replace_surrogates(text)
    assert replaced.encode().decode() == replaced  # it can be written as UTF-8
    assert replaced.count("\ufffd") == 1


def test_pairs_of_surrogates_are_characters():
    assert not has_surrogates("🐶")
    assert replace_surrogates("🐶") == "🐶"
