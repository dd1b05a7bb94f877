"""How results look when they are printed, and in notebooks."""

from datetime import UTC, datetime
from html.parser import HTMLParser

import numpy as np
import pytest

from pairmatch import (
    Evaluator,
    Gallery,
    Matcher,
    Pair,
    PairedFeatures,
    Pairs,
    Profile,
    Recommendation,
    cross_validate,
)
from pairmatch.core.arrays import unit_rows
from pairmatch.core.display import fitted_lines, html_table, text_table
from pairmatch.core.interfaces import Pooler
from pairmatch.gallery import Recommendations
from pairmatch.learning.best import Best
from pairmatch.metadata.openai import OpenAIMetadata


class Cells(HTMLParser):
    """Collects the rows of a table, and checks that every element is closed."""

    def __init__(self, page):
        super().__init__()
        self.open, self.rows, self.rest = [], [], ""
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data
        else:
            self.rest += data


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    a = rng.standard_normal((40, 6))
    return PairedFeatures.of(a, a + rng.standard_normal((40, 6)))


def recommendations(count=4, name="anna"):
    people = [
        Profile(id=f"{name} {number}", images=(), text="hello", attributes={"age": 20 + number})
        for number in range(count)
    ]
    ranked = [Recommendation(rank + 1, one, 0.9 - rank / 10) for rank, one in enumerate(people)]
    return Recommendations(ranked, eligible=30, excluded_by=None)


def test_a_table_has_the_same_cells_in_text_and_html():
    rows = [["", "R@10", "<b>"], ["a & b", "1.0", "x"], ["c", "", "10.25"]]
    assert text_table(rows) == ["       R@10    <b>", "a & b   1.0      x", "c            10.25"]
    assert Cells(html_table(rows)).rows == rows


def test_a_table_continues_below_on_a_narrow_terminal(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    rows = [["", *(f"R@{k}" for k in range(1, 9))], ["name", *("10.0–20.0" for _ in range(8))]]
    wide = text_table(rows)
    assert len(wide) == 2
    for width in (12, 40, 60, 80):
        monkeypatch.setenv("COLUMNS", str(width))
        lines = text_table(rows)
        assert max(map(len, lines)) <= max(width, len("name  10.0–20.0"))
        assert " ".join(lines).split().count("10.0–20.0") == 8
        assert [word for word in " ".join(lines).split() if "@" in word] == rows[0][1:]
    monkeypatch.setenv("COLUMNS", "110")
    assert text_table(rows) == wide


@pytest.mark.parametrize(
    ("line", "lines"),
    [
        ("a sentence of several words", ["a sentence of", "several words"]),
        ("  - a problem of a row", ["  - a problem of", "    a row"]),
        ("✓ cpu  2.14 on a machine", ["✓ cpu  2.14 on a", "       machine"]),
        ("kind  name  a.long:path", ["kind  name", "    a.long:path"]),
        ("  pairmatch fit pairs.csv", ["  pairmatch fit pairs.csv"]),
        ("a/path/without/any/space", ["a/path/without/any/space"]),
        ("short", ["short"]),
    ],
)
def test_a_line_is_broken_between_words_and_commands_stay_whole(line, lines):
    assert fitted_lines(line, 16) == lines
    assert fitted_lines(line, None) == [line]


def test_evaluations_and_cross_validations_are_tables(data):
    for result in (
        Evaluator(ks=(1, 5), resamples=100).evaluate(data),
        cross_validate(data, ["frozen", "ridge"], repeats=1, ks=(1, 5)),
    ):
        rows, lines = result.display()
        shown = Cells(result._repr_html_())
        assert shown.rows == [list(row) for row in rows]
        assert shown.rest == "".join(lines)
        assert str(result).splitlines()[len(rows) :] == lines
        assert len(repr(result)) < 100
        assert "array" not in repr(result)
    assert repr(result) == "CrossValidation(frozen, ridge; 80 queries, 5 splits)"


def html_of(thing):
    """The cells of a thing in a notebook, by the name of their row, and the lines below."""
    shown = Cells(thing._repr_html_())
    return {name: cells for name, *cells in shown.rows}, shown.rest


def test_pairs_are_counted_by_side_and_outcome():
    people = [
        Profile("a1", images=("x.png", "y.png"), text="secret text"),
        Profile("a2", attributes={"<age>": 31, "city": "Seoul"}),
        Profile("b1", images=("z.png",)),
    ]
    when = datetime(2026, 10, 3, 18, 30, tzinfo=UTC)
    pairs = Pairs.of(people, [Pair("a1", "b1", time=when), Pair("a2", "b1", outcome="rejected")])
    rows, rest = html_of(pairs)
    assert rows[""] == ["people", "photos", "with photos", "with text", "with attributes"]
    assert rows["side a"] == ["2", "2", "1", "1", "1"]
    assert rows["side b"] == ["1", "1", "1", "0", "0"]
    assert rest.startswith("1 match, 1 rejected")
    assert "2026-10-03 to 2026-10-03" in rest
    assert rest.endswith("attributes: <age>, city")
    page = pairs._repr_html_()
    assert not any(word in page for word in ("a1", "secret", "Seoul", "x.png", "<age>"))
    assert repr(pairs) == "Pairs(1 match, 1 rejected, 3 people, sides=2)"
    one_sided = Pairs.of(people, [Pair("a1", "a2")], sides=1)
    assert list(html_of(one_sided)[0]) == ["", "people"]


def test_matchers_show_their_parts_and_whether_they_are_fitted():
    matcher = Matcher(backbone="descriptor", learner=("ridge", {"strength": 0.5}))
    rows, rest = html_of(matcher)
    assert rows["Matcher"] == ["not fitted"]
    assert {name: cells[0] for name, cells in rows.items() if name != "Matcher"} == (
        matcher.summary()
    )
    assert rest == ""
    matcher.notes = ["<b>few</b> pairs"]
    assert html_of(matcher)[1] == "Note: <b>few</b> pairs"
    assert "<b>" not in matcher._repr_html_()
    assert repr(matcher) == "Matcher(DescriptorBackbone, Ridge; not fitted)"


def test_galleries_show_their_size_and_names_of_attributes():
    people = [Profile(f"anna {number}", attributes={"<i>": 1.5}) for number in range(3)]
    gallery = Gallery.of(people, np.eye(3, 4, dtype=np.float32), side="a")
    rows, _ = html_of(gallery)
    assert rows == {
        "MemoryGallery": [""],
        "people": ["3"],
        "side": ["a"],
        "width of embeddings": ["4"],
        "attributes": ["<i>"],
    }
    assert "anna" not in gallery._repr_html_()
    assert "<i>" not in gallery._repr_html_()
    assert html_of(Gallery.of([], np.empty((0, 4), np.float32)))[0]["attributes"] == ["none"]
    assert repr(gallery) == "MemoryGallery(3 people, side='a')"


def test_recommendations_show_whom_and_why_not():
    shown = recommendations()
    assert repr(shown) == "Recommendations('anna 0', 'anna 1', 'anna 2', …; 4 of 30)"
    assert str(shown).splitlines()[:2] == ["rank      id  score  age", "1     anna 0  0.900   20"]
    assert Cells(shown._repr_html_()).rows[1] == ["1", "anna 0", "0.900", "20"]
    nobody = Recommendations([], eligible=0, excluded_by="age >= 90")
    assert str(nobody) == "rank  id  score\n0 of 0 candidates: age >= 90"
    assert list(nobody) == []
    assert nobody == []


def test_names_of_people_obey_neither_terminal_nor_page():
    shown = recommendations(1, name="<script>\x1b[31m")
    assert "<script>" not in shown._repr_html_()
    assert "\x1b" not in str(shown) + repr(shown) + shown._repr_html_()


def test_names_of_learners_obey_neither_terminal_nor_page(data):
    shown = cross_validate(data, {"<script>\x1b[31m": "frozen"}, repeats=1, ks=(1, 5))
    assert "<script>" not in shown._repr_html_()
    assert "\x1b" not in str(shown) + repr(shown) + shown._repr_html_()


def test_a_matcher_says_what_it_is_made_of():
    matcher = Matcher(backbone="descriptor", metadata=None)
    assert repr(matcher) == "Matcher(DescriptorBackbone, Contrastive; not fitted)"


def test_galleries_and_features_say_how_large_they_are():
    rng = np.random.default_rng(0)
    gallery = Gallery.of(["anna", "ben"], unit_rows(rng.normal(size=(2, 4))), side="a")
    assert repr(gallery) == "MemoryGallery(2 people, side='a')"
    data = PairedFeatures.of(rng.normal(size=(3, 4)), rng.normal(size=(5, 4)), matches=[(0, 1)])
    assert repr(data) == "PairedFeatures(1 matches, 3 + 5 people, 4 features)"
    alone = PairedFeatures.of(rng.normal(size=(3, 4)), matches=[(0, 1), (1, 2)])
    assert repr(alone) == "PairedFeatures(2 matches, 3 people, 4 features)"


def test_parts_show_the_options_that_were_given():
    assert repr(Best()) == "Best()"
    assert repr(Best(width=64, recipe=True)) == "Best(width=64)"
    generator = OpenAIMetadata(model="gpt-x", concurrency=3)
    assert repr(generator) == "OpenAIMetadata(model='gpt-x', concurrency=3)"

    class Plain(Pooler):  # without options, and with state that is none
        def __init__(self):
            self.cache = np.zeros(1000)

        def pool(self, states):
            return states

        def fingerprint(self):
            return {}

    assert repr(Plain()).endswith("Plain()")
