"""What else to ask of a ranking: more pairs, hubs, calibrated probabilities, slices of people, and shortcuts."""

from pairmatch.diagnostics.calibration import Calibration, Reliability, calibrate, pair_scores, reliability
from pairmatch.diagnostics.hubs import Hubness, gini, hubness
from pairmatch.diagnostics.learning import LearningCurve, learning_curve
from pairmatch.diagnostics.shortcuts import Shortcut, explained_share, shortcuts
from pairmatch.diagnostics.slicing import Slice, slices
from pairmatch.diagnostics.traits import attribute_traits, photo_traits

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
    "learning_curve",
    "pair_scores",
    "photo_traits",
    "reliability",
    "shortcuts",
    "slices",
]
