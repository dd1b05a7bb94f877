"""Text files in UTF-8, and the likely encoding of those that are not."""

from __future__ import annotations

import codecs
import re
import shlex
from collections.abc import Container
from pathlib import Path

from pairmatch.core.errors import DataError
from pairmatch.core.text import printable
from pairmatch.io.parts import location_of

#: Characters that `surrogateescape` makes from bytes that are not UTF-8.
UNDECODED = re.compile("[\udc80-\udcff]")
# A character whose last bytes are missing: what is left when text is cut after so many bytes
_CUT = re.compile("[\udce0-\udcef][\udc80-\udcbf]|[\udcf0-\udcf4][\udc80-\udcbf]{1,2}")
_SAMPLE_BYTES = 200_000
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),  # before UTF-16, whose mark it starts with
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)
# Where ASCII letters leave zero bytes: (name, size of a unit, position of the letter in it)
_WIDE = (("UTF-32LE", 4, 0), ("UTF-32BE", 4, 3), ("UTF-16LE", 2, 0), ("UTF-16BE", 2, 1))

# Encodings of 7 bits, which are valid UTF-8, by the sequences that switch to their characters
_ESCAPED = (("ISO-2022-KR", b"\x1b$)C"), ("ISO-2022-JP", b"\x1b$B"), ("ISO-2022-JP", b"\x1b$@"))


def decode_text(path: Path, content: bytes) -> tuple[str, str | None]:
    """Text of a file, and the name of its encoding if that is evidently not UTF-8.

    Bytes that are not UTF-8 are kept as lone surrogates (`surrogateescape`), so that the reader can
    say where they are. The name is None for a file in UTF-8 with a few damaged characters.

    Raises:
        DataError: The file is UTF-16, UTF-32 or ISO-2022, or contains a zero byte.
    """
    _reject_wide(path, content)
    for name, sequence in _ESCAPED:
        if sequence in content:
            raise DataError(f"{location_of(path)}: {name}. {conversion_hint(path, name)}")
    try:
        return content.decode("utf-8-sig"), None
    except UnicodeDecodeError:
        text = content.decode("utf-8-sig", "surrogateescape")
    sample = "\n".join(line for line in text.split("\n") if UNDECODED.search(line))
    invalid = len(UNDECODED.findall(_CUT.sub("", sample)))
    valid = len(re.findall("[\x80-\ud7ff\ue000-\U0010ffff]", text)) + len(_CUT.findall(sample))
    if valid >= invalid:
        return text, None
    return text, likely_encoding(sample[:_SAMPLE_BYTES].encode("utf-8", "surrogateescape"))


def conversion_hint(path: Path, encoding: str) -> str:
    """A sentence with the command that converts a file to UTF-8."""
    target = f"{path.stem}-utf8{path.suffix}"
    source = f"./{path.name}" if path.name.startswith("-") else path.name  # not an option
    return (
        "Save the file as UTF-8, for example with: "
        f"iconv -f {encoding} -t UTF-8 {shlex.quote(source)} > {shlex.quote(target)}"
    )


def undecoded(text: str, path: Path, encoding: str | None, *, is_path: bool = False) -> str:
    """The problem of text that is not valid Unicode.

    Args:
        text: The text, with lone surrogates.
        path: Path to its file.
        encoding: Encoding that the file evidently has, if it is not UTF-8.
        is_path: Whether the text is the path of a photo.
    """
    invalid = UNDECODED.search(text)
    if invalid is None and is_path:
        return f"{printable(text)[:60]!r} cannot be opened (surrogates not allowed)."
    if invalid is None:
        return f"{printable(text)[:60]!r} is not valid Unicode (half a surrogate pair)."
    hint = "Correct this cell." if encoding is None else conversion_hint(path, encoding)
    return f"not UTF-8 (byte {ord(invalid[0]) - 0xDC00:#04x}). {hint}"


def likely_encoding(sample: bytes) -> str | None:
    """The encoding, as iconv names it, that makes the most sense of text that is not UTF-8.

    None if the bytes make no sense in any of them, so that they are damage.
    """
    for name, codec, typical, other in _DOUBLE_BYTE:
        leads = _leads(sample, codec)
        typical_leads = sum(lead in typical for lead in leads)
        other_leads = sum(lead in other for lead in leads)
        if typical_leads >= 0.3 * len(leads) and typical_leads + other_leads >= 0.9 * len(leads):
            return name
    high = len(re.findall(rb"[\x80-\xff]", sample))
    if sum(map(len, re.findall(rb"[\xa8\xb8\xc0-\xff]{3,}", sample))) >= 0.6 * high:
        return _cyrillic(sample)
    # É is C9, é is E9; Ã, Â (lead bytes of damaged UTF-8) and ÿ hardly occur in text
    likely = re.findall(rb"[\x80\x82-\x85\x91-\x97\x99\xa0-\xc1\xc4-\xfe]", sample)
    return "WINDOWS-1252" if len(likely) >= 0.8 * high else None


def _cyrillic(sample: bytes) -> str:
    """Small letters are the most frequent; they are C0–DF in KOI8-R, and E0–FF in Windows-1251."""
    small = len(re.findall(rb"[\xe0-\xff]", sample))
    return "WINDOWS-1251" if small >= len(re.findall(rb"[\xc0-\xdf]", sample)) else "KOI8-R"


def _reject_wide(path: Path, content: bytes) -> None:
    for mark, name in _BYTE_ORDER_MARKS:
        if content.startswith(mark):
            raise DataError(f"{location_of(path)}: {name}. {conversion_hint(path, name)}")
    if b"\0" not in content:
        return
    start = content[:4096]
    for name, size, letter in _WIDE:
        units = [start[i : i + size] for i in range(0, len(start) - size + 1, size)]
        narrow = sum(unit[letter] != 0 and unit.count(0) == size - 1 for unit in units)
        if narrow >= 0.3 * max(len(units), 1):
            raise DataError(f"{location_of(path)}: {name}. {conversion_hint(path, name)}")
    line = content.count(b"\n", 0, content.index(b"\0")) + 1
    raise DataError(
        f"{location_of(path)}: line {line} contains a NUL byte: the file is damaged, or "
        "is UTF-16 instead of UTF-8."
    )


def _leads(sample: bytes, codec: str) -> list[int]:
    """First bytes of the characters of two bytes, punctuation left out; 0 for all other bytes."""
    characters = sample.decode(codec, "surrogateescape")
    encoded = [
        character.encode(codec, "surrogateescape") for character in characters if character > "\x7f"
    ]
    leads = [pair[0] if len(pair) == 2 else 0 for pair in encoded]
    return [lead for lead in leads if lead not in (0x81, 0xA1, 0xA3)] or [0]


# Each with the first bytes of the characters that are typical of the language, and of others that
# are frequent. The order matters: Korean syllables are a part of the Chinese range.
_DOUBLE_BYTE: tuple[tuple[str, str, Container[int], Container[int]], ...] = (
    ("EUC-JP", "euc_jp", range(0xA4, 0xA6), range(0xB0, 0xD0)),
    ("CP949", "euc_kr", range(0xB0, 0xC9), (0xA4,)),
    ("CP932", "cp932", (0x82, 0x83, *range(0x88, 0x98)), ()),
    ("GB18030", "gb2312", range(0xB0, 0xD8), ()),
    ("BIG5", "big5", range(0xA4, 0xC7), ()),
)
