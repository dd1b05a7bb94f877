"""Diagnostics of a ranking, beyond its metrics.

Learning curves, hubness, calibrated probabilities, results by attribute, and shortcuts.
"""

from pairmatch.evaluation.diagnostics.calibration import (
    Calibration,
    Reliability,
    calibrate,
    labeled_scores,
    pair_scores,
    reliability,
)
from pairmatch.evaluation.diagnostics.hubs import Hubness, gini, hubness
from pairmatch.evaluation.diagnostics.learning import LearningCurve, learning_curve
from pairmatch.evaluation.diagnostics.shortcuts import Shortcut, explained_share, shortcuts
from pairmatch.evaluation.diagnostics.slicing import Slice, slices
from pairmatch.evaluation.diagnostics.traits import attribute_traits, photo_traits

__all__ = [
    "Calibration",
    "Hubness",
    "LearningCurve",
    "Reliability",
    "Shortcut",
    "Slice",
    "attribute_traits",
    "calibrate",
    "explained_share",
    "gini",
    "hubness",
    "labeled_scores",
    "learning_curve",
    "pair_scores",
    "photo_traits",
    "reliability",
    "shortcuts",
    "slices",
]
