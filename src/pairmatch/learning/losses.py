"""Contrastive losses over a batch, whose negatives are neither known matches nor open pairs."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pairmatch.core.errors import ConfigurationError
from pairmatch.core.interfaces import ContrastiveLoss

Directions = Literal["a_to_b", "both"]
_NEVER = -1e9  # below any similarity; finite, so that its gradient is 0 and not NaN


def _check_temperature(loss: str, temperature: float) -> None:
    if not 0 < temperature < math.inf:
        raise ConfigurationError(f"`{loss}(temperature=...)` must be positive, got {temperature}.")


def _check_directions(loss: str, directions: str) -> None:
    if directions not in ("a_to_b", "both"):
        raise ConfigurationError(
            f"`{loss}(directions=...)` must be 'a_to_b' or 'both', got {directions!r}."
        )


def _anchor_mean(values: Tensor, positives: Tensor) -> Tensor:
    """Mean over anchors (rows with a match) of the mean over their matches of `values` [A, B]."""
    matches = positives.sum(1)
    per_anchor = (values * positives).sum(1) / matches.clamp(min=1)
    return per_anchor.sum() / (matches > 0).sum().clamp(min=1)


class InfoNCELoss(ContrastiveLoss):
    """InfoNCE with in-batch negatives (Kim et al., Eq. 4; van den Oord et al. 2018). The default.

    With one match per person it is the paper's formula, −log(exp(s_ii/τ) / Σ_j exp(s_ij/τ)),
    averaged over the batch. If a person has several matches in the batch, each is a target in turn
    and all other matches are left out of its denominator. So are open pairs.

    Args:
        temperature: τ, above 0; 0.2 in the paper's best model, 0.1 in its base.
        directions: `a_to_b` as in the paper, or `both`: the mean of a → b and b → a (CLIP;
            Radford et al. 2021).
        learn_temperature: Whether to train log(1/τ) with the head, starting from `temperature`.
    """

    def __init__(
        self,
        *,
        temperature: float = 0.2,
        directions: Directions = "a_to_b",
        learn_temperature: bool = False,
    ) -> None:
        super().__init__()
        _check_temperature("InfoNCELoss", temperature)
        _check_directions("InfoNCELoss", directions)
        self.temperature = temperature
        self.directions = directions
        self.learn_temperature = learn_temperature
        self.log_scale = nn.Parameter(
            torch.tensor(-math.log(temperature)), requires_grad=learn_temperature
        )

    def loss(self, e_a: Tensor, e_b: Tensor, positives: Tensor, unknown: Tensor) -> Tensor:
        """Scalar loss of a batch; see the interface for shapes."""
        similarity = e_a @ e_b.T * self.log_scale.exp()
        forward = self._one_way(similarity, positives, unknown)
        if self.directions == "a_to_b":
            return forward
        return (forward + self._one_way(similarity.T, positives.T, unknown.T)) / 2

    @staticmethod
    def _one_way(similarity: Tensor, positives: Tensor, unknown: Tensor) -> Tensor:
        others = similarity.masked_fill(positives | unknown, _NEVER)
        negatives = others.logsumexp(1, keepdim=True)
        # −log(exp(s) / (exp(s) + Σ exp(negatives))) = softplus(logsumexp(negatives) − s)
        return _anchor_mean(F.softplus(negatives - similarity), positives)


class SigmoidLoss(ContrastiveLoss):
    """Binary classification of every pair of the batch (SigLIP; Zhai et al. 2023, Eq. 1).

    Depends less on the batch size than InfoNCE.

    Args:
        temperature: τ that similarities are divided by, above 0; SigLIP starts at 0.1.
        bias: Initial bias of every logit; SigLIP starts at −10, because most pairs are negatives.
        learn_temperature: Whether to train log(1/τ) and the bias with the head, as SigLIP does.
    """

    def __init__(
        self, *, temperature: float = 0.1, bias: float = -10.0, learn_temperature: bool = True
    ) -> None:
        super().__init__()
        _check_temperature("SigmoidLoss", temperature)
        self.temperature = temperature
        self.bias = bias
        self.learn_temperature = learn_temperature
        self.log_scale = nn.Parameter(
            torch.tensor(-math.log(temperature)), requires_grad=learn_temperature
        )
        self.shift = nn.Parameter(torch.tensor(float(bias)), requires_grad=learn_temperature)

    def loss(self, e_a: Tensor, e_b: Tensor, positives: Tensor, unknown: Tensor) -> Tensor:
        """Scalar loss of a batch, −Σ_ij log σ(y_ij (s_ij/τ + bias)) / anchors.

        See the interface for shapes.
        """
        logits = e_a @ e_b.T * self.log_scale.exp() + self.shift
        signs = positives.to(logits.dtype) * 2 - 1
        terms = F.logsigmoid(signs * logits).masked_fill(unknown, 0)
        return -terms.sum() / positives.any(1).sum().clamp(min=1)


class TripletLoss(ContrastiveLoss):
    """Batch-hard triplets (Hermans et al. 2017, Eq. 5) on cosine distance.

    Choose it to learn from the hardest cases only. The loss of a
    person is max(0, margin + distance of the farthest match − distance of the nearest stranger),
    with distance 1 − cosine.

    Args:
        margin: Margin in cosine distance, above 0 and below 2.
        directions: `a_to_b`: people of side a are anchors; `both`: the mean of the two.
    """

    def __init__(self, *, margin: float = 0.2, directions: Directions = "both") -> None:
        super().__init__()
        if not 0 < margin < 2:
            raise ConfigurationError(
                f"`TripletLoss(margin=...)` must be above 0 and below 2, got {margin}."
            )
        _check_directions("TripletLoss", directions)
        self.margin = margin
        self.directions = directions

    def loss(self, e_a: Tensor, e_b: Tensor, positives: Tensor, unknown: Tensor) -> Tensor:
        """Scalar loss of a batch; a batch without strangers costs 0."""
        similarity = e_a @ e_b.T
        forward = self._one_way(similarity, positives, unknown)
        if self.directions == "a_to_b":
            return forward
        return (forward + self._one_way(similarity.T, positives.T, unknown.T)) / 2

    def _one_way(self, similarity: Tensor, positives: Tensor, unknown: Tensor) -> Tensor:
        farthest_match = similarity.masked_fill(~positives, -_NEVER).amin(1)
        nearest_stranger = similarity.masked_fill(positives | unknown, _NEVER).amax(1)
        anchors = positives.any(1)
        hinge = F.relu(self.margin + nearest_stranger - farthest_match) * anchors
        return hinge.sum() / anchors.sum().clamp(min=1)
