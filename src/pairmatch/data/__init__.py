"""Pairs of people: reading, validation, splits, and leakage between splits."""

from pairmatch.data.leakage import Leakage, leakage
from pairmatch.data.pairs import Pairs
from pairmatch.data.reading import read_profiles

__all__ = ["Leakage", "Pairs", "leakage", "read_profiles"]
