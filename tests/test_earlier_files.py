"""Files written before the package was moved into folders still open.

`files/before_folders.zip` was written by the commit before the move: three matchers (the recipe
with a small head, two linear heads, and `robust`, which `best` replaces), the store that they
share, a gallery with a journal, slates, and `expected.json` with the results of that version.
"""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from pairmatch import Gallery, Matcher
from pairmatch.gallery import Slates
from pairmatch.io.store import Store
from pairmatch.learning.best import Best
from pairmatch.learning.contrastive import Contrastive

ARCHIVE = Path(__file__).parent / "files" / "before_folders.zip"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("earlier")
    with zipfile.ZipFile(ARCHIVE) as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture(scope="module")
def expected(written):
    return json.loads((written / "expected.json").read_text())


@pytest.mark.filterwarnings("ignore:The learner 'robust' is replaced by 'best'")
@pytest.mark.parametrize("name", ["recipe", "two-heads", "robust"])
def test_matchers_load_and_embed_as_before(name, written, expected, tmp_path):
    matcher = Matcher.load(written / name, store=tmp_path / "store.sqlite")
    dim = expected[name]["dim"]
    features = np.linspace(-1, 1, dim, dtype=np.float32)[None]
    for side in "ab":
        embedded = matcher.fitted_head.embed(features, side)
        np.testing.assert_allclose(embedded, expected[name][side], atol=2e-6)
    assert matcher.sides == 2
    assert matcher.metrics["queries"] > 0
    saved = Matcher.load(matcher.save(tmp_path / "again"), store=tmp_path / "store.sqlite")
    np.testing.assert_array_equal(
        saved.fitted_head.embed(features, "a"), matcher.fitted_head.embed(features, "a")
    )


def test_the_learner_of_a_matcher_is_restored(written, tmp_path):
    recipe = Matcher.load(written / "recipe", store=tmp_path / "store.sqlite")
    assert isinstance(recipe.learner, Contrastive)
    assert recipe.learner.head == ["mlp", {"width": 8, "hidden": 4, "dropout": 0.0}]
    assert recipe.learner.training.epochs == 2
    assert [row["epoch"] for row in recipe.history] == [1, 2]
    two = Matcher.load(written / "two-heads", store=tmp_path / "store.sqlite")
    assert two.learner.loss[0] == "sigmoid"
    with pytest.warns(FutureWarning, match="The learner 'robust' is replaced by 'best'"):
        robust = Matcher.load(written / "robust", store=tmp_path / "store.sqlite")
    assert isinstance(robust.learner, Best)
    assert "Too few pairs" in robust.notes[0]


def test_the_store_keeps_its_features(written, expected):
    with Store(written / "store.sqlite") as store:
        assert store.counts() == expected["store"]


def test_the_gallery_replays_its_journal(written, expected):
    gallery = Gallery.open(written / "gallery")
    assert gallery.ids == expected["gallery"]["ids"]
    result = gallery.search(
        np.array(expected["gallery"]["query"], np.float32), 3, where="age >= 22"
    )
    names = [person for person, _ in result.candidates(0)]
    assert names == [person for person, _ in expected["gallery"]["found"]]
    scores = [score for _, score in result.candidates(0)]
    assert scores == pytest.approx([score for _, score in expected["gallery"]["found"]], abs=1e-6)


def test_slates_open(written):
    slates = Slates(written / "slates")
    assert slates.exposure("a", ["p0", "p1", "p3", "p4", "p5", "late"]).sum() == 3 * 2
