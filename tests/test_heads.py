"""Heads compared with their published formulas, and their descriptions."""

import numpy as np
import pytest
import torch

from pairmatch.core.errors import ConfigurationError, PartError
from pairmatch.learning.heads import (
    IdentityHead,
    LinearHead,
    MLPHead,
    PerSideHead,
    ResidualHead,
    build_head,
    describe_head,
)


def test_mlp_head_matches_the_published_formula():
    # Equations 2 and 3: z = W2 · ReLU(BN(W1 · h)), with BatchNorm in training mode
    head = build_head(("mlp", {"width": 3}), dim=5, seed=1).train()
    h = torch.randn(7, 5, generator=torch.Generator().manual_seed(0))
    first, norm, _, second = head.layers
    with torch.no_grad():
        norm.weight.uniform_(0.5, 2)
        norm.bias.uniform_(-1, 1)
    inner = np.array(
        [
            [sum(w * x for w, x in zip(row, person, strict=True)) for row in first.weight.tolist()]
            for person in h.tolist()
        ]
    )
    centred = (inner - inner.mean(0)) / np.sqrt(inner.var(0) + 1e-5)
    normed = centred * norm.weight.detach().numpy() + norm.bias.detach().numpy()
    expected = np.maximum(normed, 0) @ second.weight.detach().numpy().T
    assert np.allclose(head.project(h, "a").detach(), expected, atol=1e-5)
    # No biases; the hidden width is D
    assert sum(p.numel() for p in head.parameters()) == 5 * 5 + 2 * 5 + 5 * 3


def test_batchnorm_normalizes_both_sides_together():
    shared = build_head("mlp", dim=4, seed=0).train()
    h_a, h_b = torch.randn(3, 4), torch.randn(3, 4) + 5
    z_a, z_b = shared(h_a, h_b)
    joint = shared.project(torch.cat([h_a, h_b]), "a")
    assert torch.equal(torch.cat([z_a, z_b]), joint)
    assert not torch.allclose(z_a, shared.project(h_a, "a"))


def test_linear_and_residual_heads_match_their_formulas():
    h = torch.randn(4, 6)
    linear = LinearHead(dim=6, width=2)
    assert torch.allclose(linear.project(h, "a"), h @ linear.layer.weight.T)
    residual = ResidualHead(dim=6, rank=2)
    assert torch.equal(residual.project(h, "a"), h)  # V starts at zero: the frozen baseline
    with torch.no_grad():
        residual.up.weight.normal_()
    expected = h + h @ residual.down.weight.T @ residual.up.weight.T
    assert torch.allclose(residual.project(h, "b"), expected, atol=1e-6)


def test_separate_heads_project_their_sides():
    head = build_head(("linear", {"width": 2, "shared": False}), dim=3, seed=0)
    assert isinstance(head, PerSideHead)
    h = torch.randn(5, 3)
    assert not torch.allclose(head.project(h, "a"), head.project(h, "b"))
    assert torch.equal(head(h, h)[1], head.b.project(h, "b"))
    assert describe_head(head) == ("linear", {"width": 2, "dropout": 0.0, "shared": False})


def test_seeds_determine_the_weights_without_changing_the_global_state():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, second, different = (
        build_head("mlp", dim=8, seed=seed).state_dict() for seed in (3, 3, 4)
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not torch.equal(first["layers.0.weight"], different["layers.0.weight"])


@pytest.mark.parametrize("name", ["mlp", "linear", "residual", "identity"])
def test_a_description_rebuilds_the_architecture(name):
    head = build_head(name, dim=6)
    rebuilt = build_head(describe_head(head), dim=6)
    assert {k: v.shape for k, v in head.state_dict().items()} == {
        k: v.shape for k, v in rebuilt.state_dict().items()
    }


def test_embeddings_have_unit_length_in_evaluation_mode_for_any_chunk_size():
    head = build_head("mlp", dim=32, seed=0).train()
    h = np.random.default_rng(0).normal(size=(10, 32)).astype(np.float16)
    embeddings = head.embed(h, "a")
    assert head.training
    assert np.allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-6)
    assert np.allclose(embeddings, head.embed(h, "a", rows=3), atol=1e-6)
    z = head.eval().project(torch.from_numpy(h.astype(np.float32)), "a").detach().numpy()
    assert np.allclose(embeddings, z / np.linalg.norm(z, axis=1, keepdims=True), atol=1e-6)
    assert np.array_equal(IdentityHead(dim=2).embed(np.zeros((1, 2)), "a"), np.zeros((1, 2)))


def test_errors_quote_the_invalid_call():
    with pytest.raises(
        ConfigurationError, match=r"`MLPHead\(width=...\)` must be positive, got -3"
    ):
        build_head(("mlp", {"width": -3}), dim=4)
    with pytest.raises(
        ConfigurationError, match=r"`ResidualHead\(dropout=...\)` must be in \[0, 1\), got 1"
    ):
        ResidualHead(dim=4, dropout=1)
    with pytest.raises(
        ConfigurationError, match="`shared` of the head 'mlp' must be true or false"
    ):
        build_head(("mlp", {"shared": "yes"}), dim=4)
    with pytest.raises(PartError, match=r"Unknown head 'mpl'\. Did you mean 'mlp'"):
        build_head("mpl", dim=4)
    with pytest.raises(ConfigurationError, match="one output width"):
        PerSideHead(a=MLPHead(dim=2, width=2), b=MLPHead(dim=2, width=3))


def test_features_of_another_width_are_refused():
    with pytest.raises(
        ConfigurationError, match=r"LinearHead takes features \[people, 3\], got .*4"
    ):
        LinearHead(dim=3, width=2).embed(np.ones((5, 4)), "a")
