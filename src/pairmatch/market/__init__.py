"""Rankings of whole markets: balanced slates, hubness corrections, reciprocity and outcomes."""

from pairmatch.market.balancing import Balance, balance
from pairmatch.market.corrections import csls, inverted_softmax
from pairmatch.market.outcomes import Outcome, assign, examination, outcome
from pairmatch.market.power import (
    ABTestPlan,
    intraclass_correlation,
    pairs_per_arm,
    plan_test,
)
from pairmatch.market.reciprocal import reciprocal, reciprocal_top_k

__all__ = [
    "ABTestPlan",
    "Balance",
    "Outcome",
    "assign",
    "balance",
    "csls",
    "examination",
    "intraclass_correlation",
    "inverted_softmax",
    "outcome",
    "pairs_per_arm",
    "plan_test",
    "reciprocal",
    "reciprocal_top_k",
]
