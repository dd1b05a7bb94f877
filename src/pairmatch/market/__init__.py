"""Rankings of whole markets: balanced slates, hubness corrections, reciprocity and outcomes."""

from pairmatch.market.balancing import Balance, balance
from pairmatch.market.corrections import csls, inverted_softmax
from pairmatch.market.outcomes import Outcome, assign, examination, outcome
from pairmatch.market.reciprocal import reciprocal, reciprocal_top_k

__all__ = [
    "Balance",
    "Outcome",
    "assign",
    "balance",
    "csls",
    "examination",
    "inverted_softmax",
    "outcome",
    "reciprocal",
    "reciprocal_top_k",
]
