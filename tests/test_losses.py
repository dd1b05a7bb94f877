"""Losses compared with closed forms and with plain-Python loops of their published formulas."""

import math

import pytest
import torch

from pairmatch.core.errors import ConfigurationError
from pairmatch.learning.losses import InfoNCELoss, SigmoidLoss, TripletLoss


def unit(rows, width, seed):
    vectors = torch.randn(
        rows, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    return torch.nn.functional.normalize(vectors, dim=1)


def dot(x, y):
    return sum(a * b for a, b in zip(x.tolist(), y.tolist(), strict=True))


def info_nce_loop(e_a, e_b, tau):
    # Equation 4: −log( exp(sim(a_i, b_i)/τ) / Σ_j exp(sim(a_i, b_j)/τ) ), averaged over the batch
    total = 0.0
    for i, a in enumerate(e_a):
        total -= math.log(
            math.exp(dot(a, e_b[i]) / tau) / sum(math.exp(dot(a, b) / tau) for b in e_b)
        )
    return total / len(e_a)


@pytest.mark.parametrize("tau", [0.05, 0.2, 1.0])
def test_infonce_matches_the_published_formula(tau):
    e_a, e_b = unit(6, 4, 0), unit(6, 4, 1)
    eye = torch.eye(6, dtype=torch.bool)
    one_way = InfoNCELoss(temperature=tau).double()(e_a, e_b, eye)
    assert one_way.item() == pytest.approx(info_nce_loop(e_a, e_b, tau), rel=1e-6)
    both = InfoNCELoss(temperature=tau, directions="both").double()(e_a, e_b, eye)
    assert both.item() == pytest.approx(
        (info_nce_loop(e_a, e_b, tau) + info_nce_loop(e_b, e_a, tau)) / 2, rel=1e-6
    )


def test_infonce_matches_closed_forms():
    same = torch.ones(5, 3) / math.sqrt(3)
    assert InfoNCELoss()(same, same, torch.eye(5, dtype=torch.bool)).item() == pytest.approx(
        math.log(5), rel=1e-6
    )
    corners = torch.eye(4)  # partner at cosine 1, negatives at 0: log(1 + 3 exp(−1/τ))
    expected = math.log(1 + 3 * math.exp(-1 / 0.2))
    assert InfoNCELoss(temperature=0.2)(
        corners, corners, torch.eye(4, dtype=torch.bool)
    ).item() == pytest.approx(expected)


def test_matches_are_never_negatives():
    e_a, e_b = unit(3, 4, 0), unit(4, 4, 1)
    positives = torch.tensor([[1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]], dtype=torch.bool)
    tau = 0.3
    per_anchor = []
    for i in range(2):  # the third row has no match, so it is not an anchor
        partners = [j for j in range(4) if positives[i, j]]
        negatives = sum(math.exp(dot(e_a[i], e_b[j]) / tau) for j in range(4) if j not in partners)
        targets = [math.exp(dot(e_a[i], e_b[j]) / tau) for j in partners]
        per_anchor.append(sum(-math.log(t / (t + negatives)) for t in targets) / len(partners))
    loss = InfoNCELoss(temperature=tau).double()(e_a, e_b, positives)
    assert loss.item() == pytest.approx(sum(per_anchor) / 2, rel=1e-6)


@pytest.mark.parametrize("loss", [InfoNCELoss(directions="both"), SigmoidLoss(), TripletLoss()])
def test_gradients_are_finite_without_negatives(loss):
    e = torch.nn.functional.normalize(torch.randn(2, 3), dim=1).requires_grad_()
    value = loss(e, e.detach().clone(), torch.ones(2, 2, dtype=torch.bool))
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(e.grad).all()


def test_sigmoid_matches_equation_1_of_siglip():
    e_a, e_b = unit(5, 4, 0), unit(5, 4, 1)
    tau = 0.1
    bias = -10.0
    total = 0.0
    for i in range(5):
        for j in range(5):
            sign = 1 if i == j else -1
            total += math.log(1 / (1 + math.exp(sign * (-dot(e_a[i], e_b[j]) / tau - bias))))
    assert SigmoidLoss().double()(e_a, e_b, torch.eye(5, dtype=torch.bool)).item() == pytest.approx(
        -total / 5, rel=1e-6
    )


def test_triplet_is_batch_hard():
    e_a, e_b = unit(4, 3, 0), unit(4, 3, 1)
    margin = 0.2
    positives = torch.tensor(
        [[1, 0, 1, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], dtype=torch.bool
    )

    def one_way(x, y, mask):
        total = 0.0
        for i in range(4):
            distance = [1 - dot(x[i], y[j]) for j in range(4)]
            far = max(d for d, positive in zip(distance, mask[i], strict=True) if positive)
            near = min(d for d, positive in zip(distance, mask[i], strict=True) if not positive)
            total += max(0.0, margin + far - near)
        return total / 4

    expected = (one_way(e_a, e_b, positives.tolist()) + one_way(e_b, e_a, positives.T.tolist())) / 2
    assert TripletLoss(margin=margin).double()(e_a, e_b, positives).item() == pytest.approx(
        expected, rel=1e-6
    )
    assert TripletLoss()(e_a, e_b, torch.ones(4, 4, dtype=torch.bool)).item() == 0


def test_only_a_learned_temperature_has_a_gradient():
    e_a, e_b = unit(4, 3, 0).float(), unit(4, 3, 1).float()
    eye = torch.eye(4, dtype=torch.bool)
    learned = InfoNCELoss(learn_temperature=True)
    learned(e_a, e_b, eye).backward()
    assert learned.log_scale.grad != 0
    assert not any(p.requires_grad for p in InfoNCELoss().parameters())
    assert [p.requires_grad for p in SigmoidLoss().parameters()] == [True, True]


def test_invalid_arguments_are_errors():
    with pytest.raises(
        ConfigurationError, match=r"`InfoNCELoss\(temperature=...\)` must be positive, got 0"
    ):
        InfoNCELoss(temperature=0)
    with pytest.raises(ConfigurationError, match="'a_to_b' or 'both', got 'b_to_a'"):
        InfoNCELoss(directions="b_to_a")
    with pytest.raises(ConfigurationError, match="above 0 and below 2"):
        TripletLoss(margin=2)
