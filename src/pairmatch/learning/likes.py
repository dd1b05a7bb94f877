"""The learner `likes`: what each side wants, learned from what each side said.

The log odds that a person of side a says yes to one of side b are

    c + u · x_a + v · x_b + x_aᵀ M x_b

with x the leading principal coordinates of the features: u is who says yes easily (selectivity), v
is who is liked (popularity), and M is taste. The answers of side b have their own c, u, v and M. A
yes or no of one side is evidence about that side only. All terms have Gaussian priors (ridge
penalties), whose strengths are chosen by the log likelihood of held-out people. The bilinear form
is that of pairwise logistic regression with a Kronecker kernel (Park and Chu 2009, "Pairwise
Preference Regression for Cold-start Recommendation"; Pahikkala et al. 2015).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from pairmatch.core.decisions import UNKNOWN
from pairmatch.core.errors import ConfigurationError
from pairmatch.core.interfaces import FittedHead, Learner, ProjectionHead
from pairmatch.core.paired_features import PairedFeatures
from pairmatch.core.types import Side
from pairmatch.learning.bilinear import Coordinates, Prior, fit_bilinear, mean_log_loss
from pairmatch.learning.closed_form_heads import fill
from pairmatch.learning.decompositions import Doubles
from pairmatch.learning.likes_head import LikesHead
from pairmatch.learning.side_answers import SideAnswers

_LEAST_INDEPENDENT = 20
_MOST_TUNING = 20_000
_NEGLIGIBLE = 1e-6
_ROOM = 2.0


class Likes(Learner):
    """What each side wants, from one-sided likes and rejections as well as matches.

    Choose it for logs of an app, in which likes outnumber matches. Without any answers it learns
    from matches against pairs drawn at random. The score is the probability of a match, to first
    order in the log odds of both sides; the head also gives
    [each side's own log odds][pairmatch.learning.likes_head.LikesHead.side_vectors].

    Args:
        rank: Number of leading principal coordinates of each side's features.
        strengths: Prior standard deviations of the log odds to try, ascending, above 0, up to the
            first that is not better than the one before: for selectivity and popularity together,
            then for taste, starting from none.
        taste: Whether to learn taste; if False, only who says yes easily and who is liked.
        match_weight: Weight of the two yes of a match, at least 0.
        like_weight: Weight of any other yes.
        rejection_weight: Weight of a no. Weights other than 1 shift the probabilities.
        unseen: Number of pairs drawn at random that count as a no, per yes; None draws 5 for a side
            whose log holds fewer than one no per 10 yes, and none otherwise.
        folds: Number of folds of the inner cross-validation, by component or by person.

    Raises:
        ConfigurationError: An option is out of range.
    """

    def __init__(
        self,
        *,
        rank: int = 64,
        strengths: Sequence[float] = (0.1, 0.2, 0.5, 1.0, 3.0),
        taste: bool = True,
        match_weight: float = 1.0,
        like_weight: float = 1.0,
        rejection_weight: float = 1.0,
        unseen: int | None = None,
        folds: int = 3,
    ) -> None:
        is_ascending = list(strengths) == sorted(set(strengths))
        if not strengths or not is_ascending or strengths[0] <= 0:
            raise ConfigurationError(
                f"`Likes(strengths=...)` must be above 0 and ascending, got {list(strengths)}."
            )
        weights = (match_weight, like_weight, rejection_weight)
        if not all(0 <= weight < math.inf for weight in weights):
            raise ConfigurationError(
                "`Likes(...)`: match_weight, like_weight and rejection_weight must be finite and "
                f"at least 0, got {match_weight}, {like_weight} and {rejection_weight}."
            )
        if rank < 1 or folds < 2 or (unseen is not None and unseen < 0):
            raise ConfigurationError(
                "`Likes(...)`: rank must be at least 1, folds at least 2 and unseen at least 0, "
                f"got {rank}, {folds} and {unseen}."
            )
        self.rank = rank
        self.strengths = strengths
        self.taste = taste
        self.match_weight = match_weight
        self.like_weight = like_weight
        self.rejection_weight = rejection_weight
        self.unseen = unseen
        self.folds = folds

    def fit(
        self, train: PairedFeatures, validation: PairedFeatures | None = None, *, seed: int = 0
    ) -> FittedHead:
        """Fits the answers of each side by penalized logistic regression."""
        coordinates = Coordinates.of(train, self.rank)
        notes: list[str] = []
        forms, weights = [], []
        sides: tuple[Side, ...] = ("a",) if train.one_sided else ("a", "b")
        for side in sides:
            rng = np.random.default_rng([seed, int(side == "b")])
            form, weight = self._fit_side(train, coordinates, side, rng, notes)
            forms.append(form)
            weights.append(weight)
        if not any(weights):
            raise ConfigurationError(
                "The learner `likes` needs answers: matches, or decisions with a yes of one side, "
                "whose weights are above 0."
            )
        if train.one_sided:  # the other person's answer is the same form, with the roles swapped
            forms.append(forms[0].T)
            weights.append(weights[0])
        is_unknown = (train.decisions.a == UNKNOWN) & (train.decisions.b == UNKNOWN)
        if is_unknown.any():
            notes.append(
                f"{is_unknown.sum()} pairs teach `likes` nothing: it is not known who said what."
            )
        return FittedHead(_head(coordinates, forms, weights), notes=tuple(notes))

    def _fit_side(
        self,
        train: PairedFeatures,
        coordinates: Coordinates,
        side: Side,
        rng: np.random.Generator,
        notes: list[str],
    ) -> tuple[Doubles, float]:
        """The form [R + 1, R + 1] of one side's log odds (rows: side a), and its weight.

        d log(p_a p_b) = (1 − p_a) ds_a + (1 − p_b) ds_b for log odds s: with the share of no as the
        weight of each side, the sum is the log probability of a match to first order.
        """
        known = SideAnswers.of(
            train,
            side,
            match=self.match_weight,
            like=self.like_weight,
            rejection=self.rejection_weight,
        )
        answers, drawn = known.with_unseen(train, side, self.unseen, rng)
        if not answers.weights[answers.yes].any():
            notes.append(f"No yes of side {side} is known: what it wants is not learned.")
            width = coordinates.a.shape[1] + 1
            return np.zeros((width, width)), 0.0
        if drawn:
            notes.append(
                f"Side {side} said yes {known.yes.sum()} times and no {(~known.yes).sum()} times: "
                f"{drawn} pairs drawn at random count as a no, so that its probabilities are only "
                "relative."
            )
        x, y = coordinates.a, coordinates.b
        if side == "b":
            x, y = y, x
        prior = self._choose_prior(answers, x, y, rng, notes)
        if self.taste and not prior.taste:
            notes.append(
                f"Taste does not make held-out answers of side {side} more likely: only who says "
                "yes easily and who is liked is learned."
            )
        form = fit_bilinear(x, y, answers, prior)
        return (form if side == "a" else form.T), 1 - answers.share_of_yes

    def _choose_prior(
        self,
        answers: SideAnswers,
        x: Doubles,
        y: Doubles,
        rng: np.random.Generator,
        notes: list[str],
    ) -> Prior:
        """The prior under which the answers of held-out people are most likely."""
        weakest = Prior(self.strengths[0], 0.0)
        if answers.independent < _LEAST_INDEPENDENT:
            notes.append(
                f"Only {answers.independent} independent people said yes or were liked, fewer than "
                f"{_LEAST_INDEPENDENT}: strengths are not tuned."
            )
            return weakest
        if len(answers) > _MOST_TUNING:
            answers = answers.select(rng.permutation(len(answers))[:_MOST_TUNING])
        splits = answers.splits(self.folds, rng)

        def held_out_loss(prior: Prior) -> float:
            losses = []
            for train, test in splits:
                form = fit_bilinear(x, y, answers.select(train), prior)
                losses.append(mean_log_loss(form, x, y, answers.select(test)))
            return float(np.mean(losses)) if losses else 0.0

        effects = (Prior(effect, 0.0) for effect in self.strengths)
        effect = _first_minimum(effects, held_out_loss).effect
        tried = (0.0, *self.strengths) if self.taste else (0.0,)
        tastes = (Prior(effect, taste) for taste in tried)
        return _first_minimum(tastes, held_out_loss)


def _first_minimum(priors: Iterable[Prior], loss: Callable[[Prior], float]) -> Prior:
    """The prior before the first that is not better than the one before it."""
    remaining = iter(priors)
    best = next(remaining)
    lowest = loss(best)
    for prior in remaining:
        value = loss(prior)
        if value >= lowest:
            break
        best, lowest = prior, value
    return best


def _head(
    coordinates: Coordinates, forms: Sequence[Doubles], weights: Sequence[float]
) -> ProjectionHead:
    """The head whose blocks have the forms as inner products.

    Each form is factored into equal shares of its singular values: [1, x] L (R [1, y])ᵀ.
    """
    factors = [np.linalg.svd(form) for form in forms]
    largest = max(values[0] for _, values, _ in factors)
    width = max(1, *(int((values > _NEGLIGIBLE * largest).sum()) for _, values, _ in factors))
    maps, biases, longest = [], [], []
    for side, people in enumerate((coordinates.a, coordinates.b)):
        blocks = [
            (right.T if side else left)[:, :width] * np.sqrt(values[:width])
            for left, values, right in factors
        ]
        linear = coordinates.maps[side] @ np.concatenate([block[1:] for block in blocks], axis=1)
        constant = np.concatenate([block[0] for block in blocks])
        maps.append(linear)
        biases.append(constant - coordinates.means[side] @ linear)
        lengths = [np.linalg.norm(block[0] + people @ block[1:], axis=1) for block in blocks]
        longest.append([_ROOM * max(length.max(), _NEGLIGIBLE) for length in lengths])
    head = LikesHead(dim=len(coordinates.means[0]), rank=width)
    return fill(head, maps=maps, bias=biases, longest=longest, weights=weights)
