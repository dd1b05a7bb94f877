"""The gallery in LanceDB finds what the exact gallery finds."""

import numpy as np
import pytest

from pairmatch import Gallery, Profile
from pairmatch.core.arrays import unit_rows
from pairmatch.core.errors import ConfigurationError

pytest.importorskip("lancedb", reason="the extra `lance` is not installed")

from pairmatch.gallery.lance import LanceGallery


def test_it_finds_what_the_gallery_finds(tmp_path):
    rng = np.random.default_rng(0)
    e = unit_rows(rng.normal(size=(60, 8))).astype(np.float32)
    people = [
        Profile(f"p{n}", attributes={"age": 20 + n, "region": "Da'ejeon" if n % 2 else "x"})
        for n in range(60)
    ]
    exact, lance = Gallery(), LanceGallery(tmp_path / "l")
    for gallery in (exact, lance):
        gallery.add(people[:40], e[:40])
        gallery.add(people[30:], e[30:])  # some again
        gallery.add(
            [Profile("new", attributes={"height": 1.7})], e[:1]
        )  # an attribute that nobody had
        assert gallery.remove(["p3", "nobody's"]) == 1
        assert len(gallery) == 60
    queries = unit_rows(rng.normal(size=(3, 8))).astype(np.float32)
    asking = [{"age": 30, "region": "x"}, {"age": 60}, {"age": 500}]
    for gallery in (exact, LanceGallery(tmp_path / "l")):
        assert gallery.attribute_kinds == {"age": "number", "region": "text", "height": "number"}
    rule = "abs(age - query.age) <= 12 and region in ('Da''ejeon', 'x') and not age = 31"
    for options in (
        {},
        {"where": rule, "asking": asking, "excluded": [["p12", "it's"], [], []]},
        {"where": "age > 75"},
    ):
        one, other = exact.search(queries, 5, **options), lance.search(queries, 5, **options)
        np.testing.assert_array_equal(one.ids, other.ids)
        np.testing.assert_allclose(one.scores, other.scores, atol=1e-6)
        np.testing.assert_array_equal(one.eligible, other.eligible)
        assert one.excluded_by == other.excluded_by
    with pytest.raises(ConfigurationError, match=r"Did you mean 'age'\?"):
        lance.search(queries, where="aeg > 3")
    with pytest.raises(ConfigurationError, match="for others it is number"):
        lance.add([Profile("old", attributes={"age": "old"})], e[:1])
    lance.remove([f"p{n}" for n in range(60)], compact=True)
    assert [name for name, _ in lance.search(queries[:1]).of(0)] == ["new"]


def test_an_empty_one(tmp_path):
    lance = LanceGallery(tmp_path / "l")
    assert lance.search(np.ones((1, 3), np.float32)).excluded_by == ("no candidates",)
    assert lance.remove(["x"]) == 0
    with pytest.raises(ConfigurationError, match="needs people"):
        lance.build_index()
