"""Poolers compared with sums in plain loops, and their error messages."""

import numpy as np
import pytest
import torch

from pairmatch import TokenStates
from pairmatch.core.errors import ConfigurationError
from pairmatch.features.poolers import (
    EOSPooler,
    ImageMeanPooler,
    MeanPooler,
    NativePooler,
    TextMeanPooler,
)

STATES = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0))
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [0, 0, 1, 1, 0]], dtype=torch.bool)
IMAGE = torch.tensor([[1, 1, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 0, 0, 0]], dtype=torch.bool)


def mean_of(row, marks):
    chosen = [STATES[row, t].numpy() for t in range(5) if marks[row, t]]
    return np.mean(chosen, axis=0) if chosen else np.zeros(4)


def test_means_cover_only_the_selected_tokens():
    states = TokenStates(states=STATES, mask=MASK, image_mask=IMAGE)
    for pooler, marks in (
        (MeanPooler(), MASK),
        (ImageMeanPooler(), IMAGE),
        (TextMeanPooler(), MASK & ~IMAGE),
    ):
        expected = np.stack([mean_of(row, marks) for row in range(3)])
        assert np.allclose(pooler.pool(states), expected, atol=1e-6)


def test_eos_takes_the_end_token_and_native_the_pooled_output():
    states = TokenStates(
        states=STATES, mask=MASK, end=torch.tensor([4, 2, 3]), pooled=torch.ones(3, 2).bfloat16()
    )
    assert torch.equal(EOSPooler().pool(states), STATES[[0, 1, 2], [4, 2, 3]])
    assert NativePooler().pool(states).dtype == torch.float32


def test_bfloat16_states_are_summed_in_float32():
    long = torch.full((1, 4096, 1), 1.0).bfloat16()
    states = TokenStates(states=long, mask=torch.ones(1, 4096, dtype=torch.bool))
    assert MeanPooler().pool(states).item() == 1.0


def test_a_layer_can_be_pooled():
    states = TokenStates(states=STATES, mask=MASK, layers={2: 2 * STATES})
    assert torch.allclose(MeanPooler(layer=2).pool(states), 2 * MeanPooler().pool(states))
    with pytest.raises(
        ConfigurationError,
        match=r"needs layer 3, and the backbone returned layers \[2\].*layers=\[3\]",
    ):
        MeanPooler(layer=3).pool(states)


def test_missing_inputs_are_errors():
    vector = TokenStates(pooled=torch.ones(1, 2))
    with pytest.raises(ConfigurationError, match=r"'mean' needs token states.*use pooler='native'"):
        MeanPooler().pool(vector)
    tokens = TokenStates(states=STATES, mask=MASK)
    with pytest.raises(ConfigurationError, match=r"'native' needs a pooled output.*use 'mean'"):
        NativePooler().pool(tokens)
    with pytest.raises(ConfigurationError, match="'eos' needs a token that ends the sequence"):
        EOSPooler().pool(tokens)
    with pytest.raises(ConfigurationError, match="'image-mean' needs image tokens"):
        ImageMeanPooler().pool(tokens)
    photos = TokenStates(
        states=STATES, mask=MASK, image_mask=MASK
    )  # zeros for all people would look like a result
    with pytest.raises(
        ConfigurationError, match="'text-mean' needs text tokens, and this backbone returns none"
    ):
        TextMeanPooler().pool(photos)
