"""Training on vectors: the default recipe, reproducible seeds, and small or odd sets of pairs."""

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from pairmatch import Evaluator, Trainer, TrainingConfig
from pairmatch.core.decisions import UNKNOWN, Decisions
from pairmatch.core.errors import ConfigurationError
from pairmatch.core.paired_features import PairedFeatures
from pairmatch.learning.batches import Batches
from pairmatch.learning.heads import LinearHead, PerSideHead
from pairmatch.learning.losses import InfoNCELoss

FAST = TrainingConfig(epochs=3, batch_size=8, learning_rate=1e-3)


def rotated(n, seed=0, width=12, noise=0.3):
    """Pairs related by a fixed rotation, which cosine misses and a linear head can learn."""
    rng = np.random.default_rng(seed)
    rotation = np.linalg.qr(np.random.default_rng(99).normal(size=(width, width)))[0]
    a = rng.normal(size=(n, width)).astype(np.float32)
    return a, (a @ rotation + noise * rng.normal(size=(n, width))).astype(np.float32)


def test_defaults_are_the_recipe():
    config = TrainingConfig()
    assert (config.learning_rate, config.batch_size, config.weight_decay, config.epochs) == (
        5e-5,
        48,
        1e-3,
        30,
    )
    trainer = Trainer()
    assert (trainer.head, trainer.loss, trainer.config) == ("mlp", "infonce", config)
    assert InfoNCELoss().temperature == 0.2
    assert InfoNCELoss().directions == "a_to_b"


def test_a_linear_head_learns_a_rotation_that_cosine_misses():
    train = rotated(300, 0)
    validation = rotated(60, 1)
    test = rotated(75, 2)
    config = TrainingConfig(learning_rate=3e-3, epochs=60)
    head = ("linear", {"shared": False, "width": 12})
    result = Trainer(head, ("infonce", {"directions": "both"}), config).fit(
        PairedFeatures.of(*train), PairedFeatures.of(*validation)
    )
    trained = Evaluator(resamples=0).evaluate(PairedFeatures.of(*test), result.head)
    assert trained.frozen.both.mrr < 0.12
    assert trained.both.mrr > 0.6


def test_seeds_give_bit_identical_heads():
    a, b = rotated(50)
    weights = [
        Trainer("mlp", config=TrainingConfig(epochs=2, seed=s)).fit_arrays(a, b).head.state_dict()
        for s in (1, 1, 2)
    ]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    assert not torch.equal(weights[0]["layers.0.weight"], weights[2]["layers.0.weight"])
    torch.manual_seed(7)
    before = torch.get_rng_state()
    Trainer(("mlp", {"dropout": 0.5}), config=FAST).fit_arrays(a, b)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_weights_of_the_best_epoch_are_restored():
    train = rotated(60, 0)
    validation = rotated(30, 1)
    config = TrainingConfig(epochs=40, learning_rate=3e-2, patience=4)
    result = Trainer("mlp", config=config).fit(
        PairedFeatures.of(*train), PairedFeatures.of(*validation)
    )
    scores = [row["validation_mrr"] for row in result.history]
    assert result.best_epoch == 1 + int(np.argmax(scores))
    assert result.validation_mrr == pytest.approx(max(scores))
    assert len(scores) == min(40, result.best_epoch + 4)  # patience
    measured = Evaluator(resamples=0, ks=[1]).evaluate(PairedFeatures.of(*validation), result.head)
    assert measured.both.mrr == pytest.approx(max(scores))
    assert result.validation_chance_mrr == pytest.approx(measured.chance.mrr)
    assert not result.head.training


def test_all_epochs_run_without_validation_pairs():
    result = Trainer(config=FAST).fit_arrays(*rotated(20))
    assert [row["epoch"] for row in result.history] == [1, 2, 3]
    assert result.best_epoch == 3
    assert result.validation_mrr is None


# Fewer pairs than a batch, exactly one batch, and a last batch of a single pair
@pytest.mark.parametrize("n", [2, 3, 7, 8, 9, 17])
def test_any_number_of_pairs_can_be_trained_on(n):
    result = Trainer(config=FAST).fit_arrays(*rotated(n))
    assert all(np.isfinite(row["train_loss"]) for row in result.history)


def test_a_step_is_adamw_on_the_published_loss():
    # Oracle: the first epoch in plain PyTorch
    a, b = rotated(6)
    config = TrainingConfig(epochs=1, batch_size=6, learning_rate=1e-2, weight_decay=0.1)
    start = LinearHead(dim=12, width=5)
    result = Trainer(start, InfoNCELoss(temperature=0.2), config).fit_arrays(a, b)
    weight = start.layer.weight.detach().clone().requires_grad_()
    optimizer = torch.optim.AdamW([weight], lr=1e-2, weight_decay=0.1)
    z_a, z_b = torch.from_numpy(a) @ weight.T, torch.from_numpy(b) @ weight.T
    logits = (
        torch.nn.functional.normalize(z_a, dim=1)
        @ torch.nn.functional.normalize(z_b, dim=1).T
        / 0.2
    )
    loss = torch.nn.functional.cross_entropy(logits, torch.arange(6))
    loss.backward()
    optimizer.step()
    assert result.history[0]["train_loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert torch.allclose(result.head.layer.weight, weight, atol=1e-6)
    # The given instance is not modified
    assert not torch.equal(result.head.layer.weight, start.layer.weight)


def batches_of(matches, people_a, people_b, rejected=None, size=4, one_sided=False, seed=0):
    a = np.zeros((people_a, 2), np.float32)
    b = None if one_sided else np.zeros((people_b, 2), np.float32)
    data = PairedFeatures.of(a, b, matches=matches, rejected=rejected)
    return list(Batches(data, TrainingConfig(batch_size=size, seed=seed)).epoch())


def test_positives_mark_every_match_and_people_occur_once_per_batch():
    matches = [(0, 0), (0, 1), (1, 1), (2, 2), (3, 0)]
    for seed in range(5):
        for rows_a, rows_b, positives, _ in batches_of(matches, 4, 3, size=5, seed=seed):
            assert len(set(rows_a.tolist())) == len(rows_a)
            assert len(set(rows_b.tolist())) == len(rows_b)
            for i, a in enumerate(rows_a.tolist()):
                for j, b in enumerate(rows_b.tolist()):
                    assert bool(positives[i, j]) == ((a, b) in matches)


def test_rejected_people_are_negatives():
    matches = [(i, i) for i in range(4)]
    ((rows_a, rows_b, positives, _),) = batches_of(matches, 6, 6, rejected=[(0, 4), (5, 1)], size=4)
    assert set(rows_b.tolist()) == {0, 1, 2, 3, 4}
    assert set(rows_a.tolist()) == {0, 1, 2, 3, 5}
    assert positives.sum() == 4
    assert not positives[:, rows_b.tolist().index(4)].any()


@pytest.mark.parametrize("one_sided", [False, True])
def test_open_pairs_are_marked_and_never_negatives(one_sided):
    # People 0 to 3 match 4 to 7; some of the others liked, and have no answer yet
    matches = [(i, i + 4) for i in range(4)]
    unknown = [(1, 4), (2, 7), (0, 6)]
    answers = [1] * 4 + [UNKNOWN] * 3
    decisions = Decisions(
        np.array(matches + unknown), np.ones(7, np.int8), np.array(answers, np.int8)
    )
    a = np.random.default_rng(0).normal(size=(8, 5)).astype(np.float32)
    data = PairedFeatures.of(a, None if one_sided else a[::-1].copy(), decisions=decisions)
    assert len(data.open) == 3
    ((rows_a, rows_b, positives, marked),) = Batches(data, TrainingConfig(batch_size=8)).epoch()
    both = {*unknown, *((b, a) for a, b in unknown)} if one_sided else {*unknown}
    expected = [[(a, b) in both for b in rows_b.tolist()] for a in rows_a.tolist()]
    assert marked.tolist() == expected
    assert not (marked & positives).any()
    if one_sided:
        return
    # The loss of a step is that of the formula without these terms
    start = LinearHead(dim=5, width=4)
    config = TrainingConfig(epochs=1, batch_size=8)
    loss = Trainer(start, InfoNCELoss(temperature=0.2), config).fit(data).history[0]["train_loss"]
    with torch.no_grad():
        e_a, e_b = (normalize(start.layer(torch.from_numpy(x)), dim=1) for x in (data.a, data.b))
    terms = []
    for i, j in matches:
        weights = {k: torch.exp(e_a[i] @ e_b[k + 4] / 0.2) for k in range(4)}
        kept = [weight for k, weight in weights.items() if (i, k + 4) not in unknown]
        terms.append(-torch.log(weights[j - 4] / sum(kept)))
    assert loss == pytest.approx(float(sum(terms)) / 4, rel=1e-5)


def test_one_sided_batches_never_compare_a_person_with_themselves():
    matches = [(0, 1), (1, 2), (2, 0), (3, 4), (4, 5), (0, 5)]
    for seed in range(10):
        seen = []
        for rows_a, rows_b, positives, _ in batches_of(
            matches, 6, 6, one_sided=True, size=6, seed=seed
        ):
            assert not set(rows_a.tolist()) & set(rows_b.tolist())
            unordered_matches = {frozenset(match) for match in matches}
            for i, a in enumerate(rows_a.tolist()):
                for j, b in enumerate(rows_b.tolist()):
                    assert bool(positives[i, j]) == (frozenset((a, b)) in unordered_matches)
            seen.append(int(positives.sum()))
        assert sum(seen) >= 4
    result = Trainer(config=FAST).fit_arrays(
        np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32), matches=matches
    )
    assert np.isfinite(result.history[-1]["train_loss"])


def test_separate_heads_are_both_trained():
    result = Trainer(("mlp", {"shared": False, "width": 4}), config=FAST).fit_arrays(*rotated(20))
    assert isinstance(result.head, PerSideHead)
    assert not torch.equal(result.head.a.layers[0].weight, result.head.b.layers[0].weight)


def test_a_learned_temperature_is_trained_without_weight_decay():
    config = TrainingConfig(epochs=3, learning_rate=1e-2, weight_decay=100.0)
    result = Trainer("linear", ("infonce", {"learn_temperature": True}), config).fit_arrays(
        *rotated(30)
    )
    scale = result.loss.log_scale.item()
    assert scale != pytest.approx(-np.log(0.2))
    assert abs(scale + np.log(0.2)) < 0.3  # a weight decay of 100 would have pulled it to 0


def test_memorization_is_noted():
    rng = np.random.default_rng(0)
    a = rng.normal(size=(40, 64)).astype(np.float32)
    b = rng.normal(size=(40, 64)).astype(np.float32)
    validation = rng.normal(size=(2, 30, 64)).astype(np.float32)
    config = TrainingConfig(epochs=60, learning_rate=1e-2, patience=60)
    result = Trainer(config=config).fit_arrays(
        a, b, validation=PairedFeatures.of(np.ones_like(validation[0]), validation[1])
    )
    assert result.train_recall_at_1 > 0.9
    assert "The head only memorizes: it ranks" in result.notes[0]
    assert (
        not Trainer(config=FAST)
        .fit_arrays(
            *rotated(40), validation=PairedFeatures.of(validation[0][:, :12], validation[1][:, :12])
        )
        .notes
    )


def test_invalid_inputs_are_errors():
    a, b = rotated(5)
    with pytest.raises(ConfigurationError, match="at least 2 matched pairs, got 1"):
        Trainer().fit_arrays(a[:1], b[:1])
    with pytest.raises(ConfigurationError, match=r"`PairedFeatures`, got ndarray.*fit_arrays"):
        Trainer().fit(a, b)
    with pytest.raises(ConfigurationError, match=r"validation=.*takes `PairedFeatures`, got tuple"):
        Trainer().fit_arrays(a, b, validation=(a, b))
    with pytest.raises(
        ConfigurationError, match="`features_a` must be a NumPy array or a tensor, got list"
    ):
        Trainer().fit_arrays(a.tolist(), b.tolist())
    with pytest.raises(
        ConfigurationError, match="`features_a` and `features_b` need the same width, got 12 and 3"
    ):
        Trainer().fit_arrays(a, b[:, :3])
    with pytest.raises(ConfigurationError, match="The head IdentityHead has nothing to train"):
        Trainer("identity").fit_arrays(a, b)
    with pytest.raises(ConfigurationError, match="same width and number of sides"):
        Trainer().fit_arrays(a, b, validation=PairedFeatures.of(a[:, :4], b[:, :4]))
    with pytest.raises(
        ConfigurationError,
        match=r"Training diverged in epoch \d .*lower `learning_rate` \(1e\+30\)",
    ):
        Trainer("linear", config=TrainingConfig(learning_rate=1e30, batch_size=2)).fit_arrays(a, b)
    with pytest.raises(ConfigurationError) as caught:
        TrainingConfig(epochs=0, batch_size=1, learning_rate=-1, seed=True)
    for expected in (
        "epochs must be at least 1",
        "batch_size must be at least 2",
        "learning_rate must be positive",
        "seed must be a whole",
    ):
        assert expected in str(caught.value)
