"""Mutations of bytes, texts and JSON values; all random choices come from the given generator."""

import json
import random
import string
from typing import Any

_DEEP = "@deep@"
_HUGE = "@huge@"
_DEPTH = 100_000

#: Texts that have broken readers of tables, JSON and SQL.
TEXTS = (
    *("", " ", "NA", "NaN", "null", "None", "-", "?", "true", "0", "-0", "1.0", "01", "1e999"),
    *("1" * 400, "9" * 5000, "-1e-400", "0x1p3", "١٢٣", "1_000", "12,5", "inf", "2026-02-30"),
    *("a\x00b", "a\nb", "a\r\nb", "a\tb", '"', "'", "`", ";", ",", "\\", "%s%n", "{0}", "${x}"),
    *("\x1b[31mred\x1b[0m", "\u202etxt.exe", "\u2028", "\ufeff", "\u200b", "e\u0301", "\u00e9"),
    *("\ud83d", "\udcff", "\ud83d\ude00", "😀", "김민지", "ﷺ" * 50, "Z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚̯̞̠͍A", "a" * 200_000),
    *("=1+1", "@SUM(A1)", "+1", "../../etc/passwd", "/dev/zero", "/etc/passwd", "C:\\x", "~nobody"),
    *("file:///etc/passwd", "http://127.0.0.1:1/", "..", ".", "/", "CON", "x" * 300, "a;b;;c"),
    *("id", "id_a", "id_b", "embedding", "_distance", "a.b", "__index_level_0__", "Unnamed: 0"),
)
_NUMBERS = (0, -1, 1, 2**31, 2**63, -(2**63) - 1, 10**30, 10**400, 1e308, -1e-320, 0.1, 3)
_BYTES = (
    *(b"", b"\x00", b"\xff", b"\xfe\xff", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\xc0\x80", b"\r"),
    *(b"\n", b'"', b",", b",,", b"\x00\x00\x00\x00", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff"),
    *(b"{", b"[" * 50, b"null", b"NaN", b"1e999", b"%!PS-Adobe-3.0", b"<svg>", b"\x1b[2J"),
)


def mutate_bytes(rng: random.Random, content: bytes, *, start: int = 0) -> bytes:
    """Content after one to four random changes behind `start`."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(start, len(data)) if len(data) > start else len(data)
        length = min(rng.choice((1, 2, 4, 16, 256, 4096)), len(data) - at)
        act = rng.randrange(9)
        if act == 0 and length:
            data[at] ^= 1 << rng.randrange(8)
        elif act == 1 and length:
            data[at : at + length] = rng.randbytes(length)
        elif act == 2:
            del data[at:]
        elif act == 3:
            del data[at : at + length]
        elif act == 4:
            data[at:at] = data[at : at + length]
        elif act == 5:
            data[at:at] = rng.choice(_BYTES)
        elif act == 6 and length:
            data[at : at + length] = bytes(length)
        elif act == 7 and length:
            other = rng.randrange(start, len(data))
            data[at : at + length] = data[other : other + length]
        else:
            data += rng.randbytes(rng.choice((1, 100, 10_000)))
    return bytes(data)


def mutate_text(rng: random.Random, text: str) -> str:
    """Text after one to three random changes."""
    characters = list(text)
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = rng.randrange(len(characters) + 1)
        length = rng.choice((1, 2, 5, 20))
        act = rng.randrange(5)
        if act == 0:
            del characters[at : at + length]
        elif act == 1:
            characters[at:at] = rng.choice(TEXTS)
        elif act == 2:
            characters[at:at] = characters[at : at + length] * rng.choice((1, 2, 300))
        elif act == 3:
            characters[at : at + 1] = rng.choice(string.printable)
        else:
            characters[at:at] = chr(rng.choice((0, 7, 0x85, 0x2028, 0xD800, 0xFFFF, 0x1F600)))
    return "".join(characters)


def hostile_value(rng: random.Random) -> Any:
    """A JSON value that a program does not expect."""
    kind = rng.randrange(8)
    if kind == 0:
        return rng.choice((None, True, False, [], {}, [None], {"": None}))
    if kind == 1:
        return rng.choice(_NUMBERS)
    if kind == 2:
        return float(rng.choice(("nan", "inf", "-inf")))
    if kind == 3:
        return rng.choice((_DEEP, [_DEEP], _HUGE))
    if kind == 4:
        return {rng.choice(TEXTS): rng.choice(TEXTS) for _ in range(3)}
    if kind == 5:
        return [rng.choice(_NUMBERS) for _ in range(rng.choice((1, 3, 1000)))]
    return rng.choice(TEXTS)


def mutate_json(rng: random.Random, value: Any) -> Any:
    """A copy of a JSON value with one to three hostile changes at random places."""
    value = json.loads(json.dumps(value))
    for _ in range(rng.choice((1, 1, 2, 3))):
        places = list(_places(value))
        if not places:
            return hostile_value(rng)
        parent, key = rng.choice(places)
        act = rng.randrange(6)
        if act == 0:
            del parent[key]
        elif act == 1 and isinstance(parent, dict):
            parent[rng.choice(TEXTS)] = parent.pop(key)
        elif act == 2 and isinstance(parent, list):
            parent.insert(key, hostile_value(rng))
        elif act == 3:
            other, name = rng.choice(places)
            # A copy, so that no value contains itself
            parent[key] = json.loads(json.dumps(other[name])) if name in _keys(other) else None
        elif act == 4 and isinstance(parent[key], str):
            parent[key] = mutate_text(rng, parent[key])
        else:
            parent[key] = hostile_value(rng)
    return value


def json_bytes(value: Any) -> bytes:
    """A mutated value as JSON; lone surrogates are written as escapes."""
    text = json.dumps(value)
    text = text.replace(f'"{_DEEP}"', "[" * _DEPTH + "]" * _DEPTH)
    return text.replace(f'"{_HUGE}"', '"' + "x" * 3_000_000 + '"').encode()


def _places(value: Any) -> Any:
    """Yields every container in a value with each of its keys."""
    for key in _keys(value):
        yield value, key
        yield from _places(value[key])


def _keys(value: Any) -> Any:
    if isinstance(value, dict):
        return list(value)
    return range(len(value)) if isinstance(value, list) else ()
