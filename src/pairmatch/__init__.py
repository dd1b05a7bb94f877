"""pairmatch: learns who goes with whom from matched pairs of people, and ranks candidates.

Importing the package loads no model library: each public name is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from pairmatch.core._version import __version__

_PUBLIC = {
    "Matcher": "matcher.matcher",
    "Gallery": "gallery",
    "Recommendation": "gallery",
    "Exclusions": "gallery",
    "Pairs": "data",
    "Pair": "core.types",
    "Profile": "core.types",
    "Item": "core.types",
    "TokenStates": "core.types",
    "Refusal": "core.types",
    "PairmatchError": "core.errors",
    "TrainingConfig": "core.config",
    "Callback": "core.callbacks",
    "Backbone": "core.interfaces",
    "Pooler": "core.interfaces",
    "MetadataGenerator": "core.interfaces",
    "ProjectionHead": "core.interfaces",
    "ContrastiveLoss": "core.interfaces",
    "Trainer": "learning.trainer",
    "Evaluator": "evaluation.evaluator",
    "Evaluation": "evaluation.evaluation",
    "FeatureStore": "features.extractor",
    "ExtractionPlan": "features.plan",
    "PairedFeatures": "core.paired_features",
    "Learner": "core.interfaces",
    "Reranker": "core.interfaces",
    "FittedHead": "core.interfaces",
    "CrossValidation": "evaluation.crossvalidation",
    "cross_validate": "evaluation.crossvalidation",
    "QueryTable": "evaluation.query_table",
    "Comparison": "evaluation.comparison",
    "leakage": "data",
}

__all__ = ["__version__", *sorted(_PUBLIC)]

if TYPE_CHECKING:
    from pairmatch.core.callbacks import Callback as Callback
    from pairmatch.core.config import TrainingConfig as TrainingConfig
    from pairmatch.core.errors import PairmatchError as PairmatchError
    from pairmatch.core.interfaces import Backbone as Backbone
    from pairmatch.core.interfaces import ContrastiveLoss as ContrastiveLoss
    from pairmatch.core.interfaces import FittedHead as FittedHead
    from pairmatch.core.interfaces import Learner as Learner
    from pairmatch.core.interfaces import MetadataGenerator as MetadataGenerator
    from pairmatch.core.interfaces import Pooler as Pooler
    from pairmatch.core.interfaces import ProjectionHead as ProjectionHead
    from pairmatch.core.interfaces import Reranker as Reranker
    from pairmatch.core.paired_features import PairedFeatures as PairedFeatures
    from pairmatch.core.types import Item as Item
    from pairmatch.core.types import Pair as Pair
    from pairmatch.core.types import Profile as Profile
    from pairmatch.core.types import Refusal as Refusal
    from pairmatch.core.types import TokenStates as TokenStates
    from pairmatch.data import Pairs as Pairs
    from pairmatch.data import leakage as leakage
    from pairmatch.evaluation.comparison import Comparison as Comparison
    from pairmatch.evaluation.crossvalidation import CrossValidation as CrossValidation
    from pairmatch.evaluation.crossvalidation import cross_validate as cross_validate
    from pairmatch.evaluation.evaluation import Evaluation as Evaluation
    from pairmatch.evaluation.evaluator import Evaluator as Evaluator
    from pairmatch.evaluation.query_table import QueryTable as QueryTable
    from pairmatch.features.extractor import FeatureStore as FeatureStore
    from pairmatch.features.plan import ExtractionPlan as ExtractionPlan
    from pairmatch.gallery import Exclusions as Exclusions
    from pairmatch.gallery import Gallery as Gallery
    from pairmatch.gallery import Recommendation as Recommendation
    from pairmatch.learning.trainer import Trainer as Trainer
    from pairmatch.matcher.matcher import Matcher as Matcher


def __getattr__(name: str) -> object:
    if name in _PUBLIC:
        value = getattr(import_module(f"pairmatch.{_PUBLIC[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'pairmatch' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
