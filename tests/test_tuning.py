"""Tuning: nested search, reproducible seeds, and improvement over a poor default."""

import sys

import numpy as np
import pytest
from test_diagnostics import rotated_pairs

from pairmatch.core import registry
from pairmatch.core.errors import ConfigurationError, MissingExtraError
from pairmatch.evaluation.crossvalidation import cross_validate
from pairmatch.learning.contrastive import Contrastive
from pairmatch.learning.tuning import Tuned

BAD = {"training.learning_rate": [1e-9, 1e-2]}
FAST = {"epochs": 8, "batch_size": 32}


def test_a_search_within_the_training_part_finds_the_best_setting():
    data = rotated_pairs(90)
    tuned = Tuned(head="linear", training=FAST, space=BAD, trials=4, folds=2)
    assert tuned.search(data) == {"training.learning_rate": 1e-2}
    result = cross_validate(
        data,
        {
            "tuned": tuned,
            "bad": Contrastive(head="linear", training={**FAST, "learning_rate": 1e-9}),
        },
        repeats=1,
        folds=3,
        ks=(1,),
    )
    assert result.metrics("tuned").mrr > result.metrics("bad").mrr + 0.05
    # The final head is trained on all training pairs with the best setting
    expected = Contrastive(head=("linear", {}), training={**FAST, "learning_rate": 1e-2}).fit(
        data, seed=3
    )
    np.testing.assert_array_equal(
        tuned.fit(data, seed=3).head.embed(data.a, "a"), expected.head.embed(data.a, "a")
    )


def test_searches_of_ranges_are_reproducible():
    tuned = Tuned(
        training={"epochs": 1}, space={"loss.temperature": (0.05, 0.5)}, trials=3, folds=2
    )
    first, again = (tuned.search(rotated_pairs(30), seed=1) for _ in range(2))
    assert first == again
    assert 0.05 <= first["loss.temperature"] <= 0.5


def test_invalid_searches_are_errors(monkeypatch):
    with pytest.raises(ConfigurationError, match="folds at least 2, got 0 and 3"):
        Tuned(trials=0)
    with pytest.raises(ConfigurationError, match=r"takes head\.OPTION.*got pooler\.layer"):
        Tuned(space={"pooler.layer": [1]})
    assert isinstance(registry.create("learners", ("tuned", {"trials": 2})), Tuned)
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'pairmatch\[tune\]'"):
        Tuned().search(rotated_pairs(30))
