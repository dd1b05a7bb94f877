"""CSV files in spreadsheets: no text is a formula, and every text comes back."""

import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from pairmatch import Profile
from pairmatch.core.types import Usage
from pairmatch.evaluation.output import save_rows
from pairmatch.io.spreadsheets import csv_bytes, guarded, unguarded
from pairmatch.io.store import Store
from pairmatch.metadata import correct, export_metadata, import_metadata
from pairmatch.metadata.outcomes import generator_key, outcome_key, stored_outcome

#: What spreadsheets run: the list of OWASP's page on CSV injection, with the wide forms.
FIRST = "=+-@\t\r\n＝＋－＠"


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("+49 151", "'+49 151"),
        ("-3.5", "'-3.5"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\t=1"),
        ("\r=1", "'\r=1"),
        ("＝1+1", "'＝1+1"),
        ("'=1+1", "''=1+1"),
        ("''=1", "'''=1"),
        ("a=1", "a=1"),
        ("'quoted'", "'quoted'"),
        ("", ""),
    ],
)
def test_formulas_are_guarded_and_come_back(text, cell):
    assert guarded(text) == cell
    assert unguarded(cell) == text


@given(st.text(alphabet="'=+-@\t\r\nax1", max_size=6))
def test_every_text_comes_back(text):
    assert unguarded(guarded(text)) == text
    assert guarded(text)[:1] not in tuple(FIRST)


def test_numbers_stay_numbers():
    rows = [{"id": "-a", "score": -3.5, "count": -2, "none": None}]
    assert csv_bytes(["id", "score", "count", "none"], rows) == (
        b"id,score,count,none\n'-a,-3.5,-2,\n"
    )


def test_tables_of_queries_guard_texts(tmp_path):
    rows = [{"learner": "=cmd|' /C calc'!A0", "rank": -1.0}]
    save_rows(iter(rows), tmp_path / "q.csv")
    assert (tmp_path / "q.csv").read_text() == "learner,rank\n'=cmd|' /C calc'!A0,-1.0\n"


class Looks(BaseModel):
    hair: str
    shade: float
    words: list[str]


class Generator:
    """A generator whose outcomes are put into the store by the test."""

    schema = Looks
    sends_photos = False

    def fingerprint(self):
        return {"generator": "test"}

    def generate(self, profiles, on_outcome=None, *, max_usd=None):
        raise AssertionError("nothing is generated")


TEXTS = ["=HYPERLINK(1)", "+1", "-", "-3.5", "@x", "\ttab", "'=quoted", "''-", "plain", "'plain"]


@pytest.fixture
def annotated(tmp_path, photo):
    """People whose ids and hair are texts that spreadsheets run, with stored outcomes."""
    people = [
        Profile(f"{text}{number}".strip(), (photo(f"{number}.png"),))
        for number, text in enumerate(TEXTS)
    ]
    base = generator_key(Generator())
    outcomes = {}
    for person, text in zip(people, TEXTS, strict=True):
        looks = Looks(hair=text, shade=-3.5, words=["=1", "-"])
        outcomes[outcome_key(base, person)] = stored_outcome(looks, Usage())
    store = Store(tmp_path / "s.sqlite")
    store.put_metadata(outcomes)
    yield people, store, outcomes
    store.close()


def test_exported_captions_are_no_formulas_and_come_back(annotated, tmp_path):
    people, store, outcomes = annotated
    path = tmp_path / "m.csv"
    assert export_metadata(path, people, Generator(), store) == len(people)
    with path.open(newline="") as file:
        cells = list(csv.DictReader(file))
    for row, person, text in zip(cells, people, TEXTS, strict=True):
        assert row["shade"] == "-3.5"  # a number that we wrote
        assert not row["id"].startswith(tuple(FIRST))
        assert not row["hair"].startswith(tuple(FIRST))
        assert row["id"] == guarded(person.id)
        assert row["hair"] == guarded(text)
        assert json.loads(row["words"]) == ["=1", "-"]
    with Store(tmp_path / "new.sqlite") as new:
        assert import_metadata(path, people, Generator(), new) == len(people)
        assert new.metadata(list(outcomes)) == store.metadata(list(outcomes))


def test_an_exported_file_read_as_corrections_changes_nothing(annotated, tmp_path):
    people, store, _ = annotated
    path = tmp_path / "m.csv"
    export_metadata(path, people, Generator(), store)
    assert correct(path, people, Generator(), store) == 0
    # A dash alone erases; the attribute is required, so it is refused with its line
    text = path.read_text().replace("'-3.5,-3.5", "'=new,-3.5")
    path.write_text(text)
    assert correct(path, people, Generator(), store) == 1
    assert store.corrections([people[3].id]) == {people[3].id: {"hair": "=new"}}


def test_json_lines_are_never_guarded(annotated, tmp_path):
    people, store, outcomes = annotated
    path = tmp_path / "m.jsonl"
    export_metadata(path, people, Generator(), store)
    rows = [json.loads(line) for line in io.StringIO(path.read_text())]
    assert [row["hair"] for row in rows] == TEXTS
    with Store(tmp_path / "new.sqlite") as new:
        import_metadata(path, people, Generator(), new)
        stored = new.metadata(list(outcomes)).values()
    # The reader of tables removes spaces around texts
    assert {row["metadata"]["hair"] for row in stored} == {text.strip() for text in TEXTS}


def test_what_utf_8_cannot_hold_is_written_as_an_escape():
    rows = [{"id": "stray\udcff", "reason": "half \ud83d"}]
    assert csv_bytes(["id", "reason"], rows) == b"id,reason\nstray\\udcff,half \\ud83d\n"
