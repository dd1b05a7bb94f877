"""Text files that are not UTF-8: whether they are damaged, and what encoding they have."""

import pytest

from pairmatch.core.errors import DataError
from pairmatch.io.encodings import conversion_hint, decode_text, likely_encoding

# What people write about themselves, in the encodings of older spreadsheets
TEXTS = [
    ("CP949", "cp949", "안녕하세요 저는 요리를 좋아해요 ㅋㅋㅋ"),
    ("CP949", "euc_kr", "산책과 커피를 좋아합니다"),
    ("CP949", "cp949", "김민준"),
    ("CP932", "cp932", "こんにちは、料理が好きです。"),
    ("CP932", "cp932", "東京"),
    ("EUC-JP", "euc_jp", "散歩とコーヒーが好きです"),
    ("GB18030", "gb18030", "我喜欢在周末去爬山和喝咖啡"),
    ("BIG5", "big5", "我喜歡在週末去爬山和喝咖啡"),
    ("WINDOWS-1251", "cp1251", "Мне нравится гулять и пить кофе"),
    ("KOI8-R", "koi8_r", "Мне нравится гулять и пить кофе"),
    ("WINDOWS-1252", "cp1252", "J’aime le café… à Besançon"),
    ("WINDOWS-1252", "cp1252", "Ich heiße Jürgen und grüße München"),
    ("WINDOWS-1252", "cp1252", "päällä öitä, €5"),
]


@pytest.mark.parametrize(("name", "codec", "text"), TEXTS)
def test_the_encoding_of_a_file_is_named(name, codec, text, tmp_path):
    content = f"id,image,text\na,a.jpg,{text}\n".encode(codec)
    decoded, encoding = decode_text(tmp_path / "people.csv", content)
    assert encoding == name
    # Nothing is lost: the bytes can be located
    assert decoded.encode("utf-8", "surrogateescape") == content
    # The advice brings back the text
    assert content.decode({"GB18030": "gb18030", "BIG5": "big5"}.get(name, codec)).endswith(
        f"{text}\n"
    )


@pytest.mark.parametrize("damage", [b"\xff", b"\xc3(", b"dog \xf0\x9f", b"\xf0\x9f\x98", b"\x81"])
def test_damage_has_no_encoding(damage):
    assert likely_encoding(damage) is None
    assert decode_text(None, b"id,text\na," + damage)[1] is None


def test_a_few_damaged_characters_do_not_make_a_file_another_encoding():
    content = "Grüße aus Köln, café, naïve".encode() + b" caf\xe9"
    assert decode_text(None, content) == ("Grüße aus Köln, café, naïve caf\udce9", None)
    assert decode_text(None, "안녕하세요 저는".encode() + b"\xbe\xc8") == (
        "안녕하세요 저는\udcbe\udcc8",
        None,
    )


@pytest.mark.parametrize(
    ("codec", "name", "text"),
    [
        ("iso2022_kr", "ISO-2022-KR", "저는 개를 좋아해요"),
        ("iso2022_jp", "ISO-2022-JP", "散歩が好きです"),
    ],
)
def test_encodings_of_7_bits_are_not_taken_for_text(codec, name, text, tmp_path):
    content = f"id,text\na,{text}\n".encode(codec)
    assert content.isascii()
    with pytest.raises(DataError, match=rf"{name}.*iconv -f {name} "):
        decode_text(tmp_path / "people.csv", content)


def test_a_file_name_is_no_option_of_iconv(tmp_path):
    assert "UTF-8 ./-a.csv > -a-utf8.csv" in conversion_hint(tmp_path / "-a.csv", "CP949")


@pytest.mark.parametrize(
    ("codec", "name"),
    [
        ("utf-16", "UTF-16"),
        ("utf-16-le", "UTF-16LE"),
        ("utf-16-be", "UTF-16BE"),
        ("utf-32", "UTF-32"),
        ("utf-32-le", "UTF-32LE"),
        ("utf-32-be", "UTF-32BE"),
    ],
)
def test_wide_encodings_are_named(codec, name, tmp_path):
    content = "id,image,text\na,a.jpg,안녕 Köln\n".encode(codec)
    with pytest.raises(DataError) as caught:
        decode_text(tmp_path / "my people.csv", content)
    assert str(caught.value).endswith(
        f"my people.csv: {name}. Save the file as UTF-8, for example with: iconv -f {name} -t "
        "UTF-8 'my people.csv' > 'my people-utf8.csv'"
    )
