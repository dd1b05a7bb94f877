"""pairmatch: learn who goes with whom from matched pairs of people, then rank candidates for anyone.

Importing the package loads no model library: each public name is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

_PUBLIC = {
    "Matcher": "matcher",
    "Gallery": "gallery",
    "Recommendation": "gallery",
    "Exclusions": "gallery",
    "Pairs": "data",
    "Pair": "types",
    "Profile": "types",
    "Item": "types",
    "TokenStates": "types",
    "Refusal": "types",
    "PairmatchError": "errors",
    "TrainingConfig": "config",
    "Backbone": "interfaces",
    "Pooler": "interfaces",
    "MetadataGenerator": "interfaces",
    "ProjectionHead": "interfaces",
    "ContrastiveLoss": "interfaces",
    "Trainer": "trainer",
    "Evaluator": "evaluator",
    "Evaluation": "evaluator",
    "FeatureStore": "features",
    "PairedFeatures": "paired",
    "Method": "interfaces",
    "CrossValidation": "crossvalidation",
    "cross_validate": "crossvalidation",
    "Comparison": "comparison",
    "leakage": "data",
}

__all__ = ["__version__", *sorted(_PUBLIC)]

if TYPE_CHECKING:
    from pairmatch.comparison import Comparison as Comparison
    from pairmatch.config import TrainingConfig as TrainingConfig
    from pairmatch.crossvalidation import CrossValidation as CrossValidation
    from pairmatch.crossvalidation import cross_validate as cross_validate
    from pairmatch.data import Pairs as Pairs
    from pairmatch.data import leakage as leakage
    from pairmatch.errors import PairmatchError as PairmatchError
    from pairmatch.evaluator import Evaluation as Evaluation
    from pairmatch.evaluator import Evaluator as Evaluator
    from pairmatch.features import FeatureStore as FeatureStore
    from pairmatch.gallery import Exclusions as Exclusions
    from pairmatch.gallery import Gallery as Gallery
    from pairmatch.gallery import Recommendation as Recommendation
    from pairmatch.interfaces import Backbone as Backbone
    from pairmatch.interfaces import ContrastiveLoss as ContrastiveLoss
    from pairmatch.interfaces import MetadataGenerator as MetadataGenerator
    from pairmatch.interfaces import Method as Method
    from pairmatch.interfaces import Pooler as Pooler
    from pairmatch.interfaces import ProjectionHead as ProjectionHead
    from pairmatch.matcher import Matcher as Matcher
    from pairmatch.paired import PairedFeatures as PairedFeatures
    from pairmatch.trainer import Trainer as Trainer
    from pairmatch.types import Item as Item
    from pairmatch.types import Pair as Pair
    from pairmatch.types import Profile as Profile
    from pairmatch.types import Refusal as Refusal
    from pairmatch.types import TokenStates as TokenStates


def __getattr__(name: str) -> object:
    if name in _PUBLIC:
        value = getattr(import_module(f"pairmatch.{_PUBLIC[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'pairmatch' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
