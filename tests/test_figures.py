"""Figures show the values that they are drawn from."""

import sys

import numpy as np
import pytest
from test_diagnostics import rotated_pairs

from pairmatch import Evaluator
from pairmatch.core.errors import ConfigurationError
from pairmatch.evaluation.crossvalidation import cross_validate
from pairmatch.evaluation.diagnostics import hubness, learning_curve, reliability
from pairmatch.report.figures import (
    exposure_figure,
    learners_figure,
    learning_curve_figure,
    recall_figure,
    reliability_figure,
)


def lines(figure):
    return {line.get_label(): line.get_ydata() for line in figure.axes[0].get_lines()}


def test_recall_figure(tmp_path):
    data = rotated_pairs(40)
    evaluation = Evaluator(ks=(5,)).evaluate_arrays(
        data.a, data.b, frozen_a=data.b, frozen_b=data.a
    )
    figure = recall_figure(evaluation)
    shown = lines(figure)
    np.testing.assert_allclose(shown["trained"], evaluation.recall_curve())
    np.testing.assert_allclose(shown["chance"], np.arange(1, 41) / 40)
    assert "frozen" in shown
    figure.savefig(tmp_path / "recall.png")
    assert (tmp_path / "recall.png").stat().st_size > 5000


def test_learners_figure():
    result = cross_validate(rotated_pairs(40), ["frozen", "ridge"], repeats=1, ks=(3,))
    figure = learners_figure(result, metric="R@3")
    points = [
        line.get_xdata()[0] for line in figure.axes[0].get_lines() if line.get_marker() == "o"
    ]
    assert points == [result.metrics(name).recall[3] for name in ("ridge", "frozen")]
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == ["ridge", "frozen"]
    with pytest.raises(ConfigurationError, match=r"Unknown metric 'R@4'\..* Known: MRR, R@3\."):
        learners_figure(result, metric="R@4")


def test_learning_curve_figure():
    curve = learning_curve(rotated_pairs(40), "ridge", shares=(0.5, 1), repeats=1, ks=(3,))
    figure = learning_curve_figure(curve)
    values = figure.axes[0].get_lines()[0].get_ydata()
    np.testing.assert_allclose(values, [metrics.mrr for metrics in curve.metrics])


def test_reliability_figure():
    rng = np.random.default_rng(0)
    measured = reliability(rng.random(100), rng.random(100) < 0.5)
    shown = lines(reliability_figure(measured))
    np.testing.assert_allclose(shown["test pairs"], measured.observed)


def test_exposure_figure():
    data = rotated_pairs(40)
    hubs = hubness(data.a, data.b, k=3)
    shown = lines(exposure_figure([("ours", hubs)]))
    (name,) = (label for label in shown if label.startswith("ours"))
    assert shown[name][-1] == 1
    assert shown[name][20] == pytest.approx(np.sort(hubs.counts)[:20].sum() / 120)


def test_the_error_without_matplotlib_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ConfigurationError, match=r'pip install "pairmatch\[plots\]"'):
        reliability_figure(reliability(np.array([0.1, 0.9]), np.array([False, True])))
