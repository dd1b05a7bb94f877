"""Conformance checks for parts, built in or of a plugin: call them from a test of your own.

Each check raises AssertionError that says what is wrong. For example:

```python
from pairmatch.testing import check_backbone

def test_my_backbone():
    check_backbone(MyBackbone(size=64))
```
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pairmatch.core.errors import ConfigurationError
from pairmatch.core.interfaces import (
    Backbone,
    ContrastiveLoss,
    Learner,
    MetadataGenerator,
    Pooler,
    ProjectionHead,
)
from pairmatch.core.paired_features import PairedFeatures
from pairmatch.core.types import Item, Profile, Refusal, Side, TokenStates
from pairmatch.features.poolers import MeanPooler, NativePooler

_SIDES: tuple[Side, Side] = ("a", "b")


def example_items(backbone: Backbone) -> list[Item]:
    """People with photos of several sizes and texts of several lengths, as far as the backbone reads them."""
    rng = np.random.default_rng(0)

    def photo(width: int, height: int) -> Image.Image:
        small = Image.fromarray(rng.integers(0, 255, (8, 8, 3), np.uint8))
        return small.resize((width, height), Image.Resampling.BICUBIC)

    texts = [
        "I climb, cook and read.",
        "short",
        "two dogs, a garden and far too many books about trains " * 3,
        "x y",
    ]
    photos = [
        (photo(96, 128),),
        (photo(200, 90), photo(64, 64)),
        (photo(64, 64),),
        (photo(130, 130),),
    ]
    return [
        Item(images if backbone.reads_images else (), text if backbone.reads_text else "")
        for images, text in zip(photos, texts, strict=True)
    ]


def check_backbone(
    backbone: Backbone, items: Sequence[Item] | None = None, *, tolerance: float = 1e-4
) -> None:
    """Checks a backbone.

    Shapes, finite values, no gradients, equal output for equal input, no dependence on who else is
    in the batch, a stable fingerprint of JSON values, and arguments stored under their own names.

    Args:
        backbone: The instance to check; it is run.
        items: At least three people that it can read; by default random photos and short texts.
        tolerance: Largest relative difference between a person alone and in a batch.

    Raises:
        AssertionError: What is wrong.
    """
    name = type(backbone).__name__
    _arguments_are_stored(backbone)
    _fingerprint_is_stable(backbone)
    people = list(items) if items is not None else example_items(backbone)
    with torch.inference_mode():
        states = backbone.forward(backbone.prepare(people))
    assert isinstance(states, TokenStates), (
        f"{name}.forward must return TokenStates, got {type(states).__name__}"
    )
    assert states.states is not None or states.pooled is not None, (
        f"{name}.forward gives neither states nor pooled"
    )
    size = len(people)
    if states.states is not None:
        assert states.states.ndim == 3, (
            f"{name}: states must be [B, T, D], got {list(states.states.shape)}"
        )
        assert states.states.shape[0] == size, (
            f"{name}: {size} people gave {states.states.shape[0]} rows of states"
        )
        assert backbone.default_pooler == "native" or states.states.shape[2] == backbone.dim, (
            f"{name}.dim is {backbone.dim}, but the states have width {states.states.shape[2]}"
        )
        for label, mask in (("mask", states.mask), ("image_mask", states.image_mask)):
            if label == "mask" or mask is not None:
                assert mask is not None, f"{name} gives states without a mask of real tokens"
                assert mask.dtype == torch.bool, f"{name}: {label} must be bool, got {mask.dtype}"
                assert mask.shape == states.states.shape[:2], (
                    f"{name}: {label} must be {list(states.states.shape[:2])}, got {list(mask.shape)}"
                )
        assert states.mask is not None
        assert bool(states.mask.any(1).all()), f"{name}: someone has no real token"
        if states.image_mask is not None:
            assert not bool((states.image_mask & ~states.mask).any()), (
                f"{name}: image_mask marks padding"
            )
        if states.end is not None:
            ends = states.mask.gather(1, states.end[:, None])
            assert bool(ends.all()), f"{name}: end points at padding"
    else:
        assert backbone.default_pooler == "native", (
            f"{name} gives no token states: its default pooler must be 'native'"
        )
    if backbone.default_pooler == "native":
        assert states.pooled is not None, (
            f"{name} gives no pooled output, and its default pooler is 'native'"
        )
        assert states.pooled.shape == (size, backbone.dim), (
            f"{name}: pooled must be [{size}, {backbone.dim}], got {list(states.pooled.shape)}"
        )
    for label, tensor in (("states", states.states), ("pooled", states.pooled)):
        assert tensor is None or not tensor.requires_grad, (
            f"{name}: {label} requires a gradient; a backbone is frozen"
        )
    whole = _vectors(backbone, people, name)
    assert np.isfinite(whole).all(), f"{name} gives values that are not finite"
    assert np.array_equal(whole, _vectors(backbone, people, name)), (
        f"{name} gives another output for the same input"
    )
    alone = np.concatenate([_vectors(backbone, [item], name) for item in people])
    scale = np.abs(whole).max() or 1.0
    worst = float(np.abs(whole - alone).max() / scale)
    assert worst <= tolerance, (
        f"{name}: a person's vector depends on who else is in the batch (relative difference {worst:.1e}, allowed "
        f"{tolerance:.0e})"
    )
    turned = _vectors(backbone, people[::-1], name)[::-1]
    assert np.abs(whole - turned).max() / scale <= tolerance, (
        f"{name}: a person's vector depends on the order of the batch"
    )
    for item in people:
        length = backbone.length(item)
        fits = isinstance(length, int) and length >= 1
        assert fits, f"{name}.length must be a whole number of at least 1, got {length!r}"


def check_pooler(pooler: Pooler) -> None:
    """Checks a pooler: shape, a stable fingerprint, and that padding does not enter.

    Raises:
        AssertionError: What is wrong.
    """
    name = type(pooler).__name__
    _arguments_are_stored(pooler)
    _fingerprint_is_stable(pooler)
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(3, 6, 5, generator=generator)
    mask = torch.tensor(
        [[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0], [1, 1, 0, 0, 0, 0]], dtype=torch.bool
    )
    image_mask = mask & torch.tensor([1, 0, 0, 0, 0, 0], dtype=torch.bool)
    pooled = torch.randn(3, 7, generator=generator)
    end = mask.sum(1) - 1
    layer = getattr(pooler, "layer", None)
    layers = {} if layer is None else {layer: states}
    given = TokenStates(
        states=states, mask=mask, image_mask=image_mask, end=end, pooled=pooled, layers=layers
    )
    result = pooler.pool(given)
    assert result.shape in ((3, 5), (3, 7)), (
        f"{name}.pool must give [B, D] or [B, P], got {list(result.shape)}"
    )
    noisy = states.clone()
    noisy[~mask] = 1e4
    layers = {} if layer is None else {layer: noisy}
    again = pooler.pool(
        TokenStates(
            states=noisy, mask=mask, image_mask=image_mask, end=end, pooled=pooled, layers=layers
        )
    )
    assert torch.allclose(result, again), f"{name} lets padding enter the vector"
    try:
        pooler.pool(TokenStates())
    except ConfigurationError:
        return
    raise AssertionError(
        f"{name}.pool must raise ConfigurationError where the backbone gives nothing it can pool"
    )


def check_metadata_generator(generator: MetadataGenerator, profiles: Sequence[Profile]) -> None:
    """Checks a generator: one outcome per profile in order, each a pydantic model or a Refusal, a stable fingerprint.

    Raises:
        AssertionError: What is wrong.
    """
    from pydantic import BaseModel

    name = type(generator).__name__
    _arguments_are_stored(generator)
    _fingerprint_is_stable(generator)
    assert isinstance(getattr(generator, "schema", None), type), (
        f"{name} must name the pydantic model it fills: schema"
    )
    arrived: dict[int, Any] = {}
    outcomes = generator.generate(
        profiles, lambda index, outcome, cost: arrived.update({index: outcome})
    )
    assert arrived == dict(enumerate(outcomes)), (
        f"{name}.generate must call on_outcome once for every profile"
    )
    assert len(outcomes) == len(profiles), (
        f"{name}.generate gave {len(outcomes)} outcomes for {len(profiles)} profiles"
    )
    wrong = [type(one).__name__ for one in outcomes if not isinstance(one, BaseModel | Refusal)]
    assert not wrong, (
        f"{name}.generate must give pydantic models or Refusal, got {', '.join(sorted(set(wrong)))}"
    )
    assert generator.generate([], max_usd=1.0) == [], f"{name}.generate([]) must give []"


def check_head(make_head: Callable[..., ProjectionHead], *, dim: int = 12) -> None:
    """Checks a head: shape, `dim` as its argument, finite gradients, and the same output after saving and loading.

    Args:
        make_head: The class, or a function that takes `dim`.
        dim: Width of the features to try.

    Raises:
        AssertionError: What is wrong.
    """
    head = make_head(dim=dim)
    name = type(head).__name__
    _arguments_are_stored(head)
    generator = torch.Generator().manual_seed(0)
    h_a, h_b = torch.randn(6, dim, generator=generator), torch.randn(6, dim, generator=generator)
    z_a, z_b = head.train()(h_a, h_b)
    for z in (z_a, z_b):
        assert z.shape == (6, head.width), (
            f"{name}: output must be [B, width = {head.width}], got {list(z.shape)}"
        )
        assert bool(torch.isfinite(z).all()), f"{name} gives values that are not finite"
    parameters = [p for p in head.parameters() if p.requires_grad]
    assert bool(parameters) == head.trainable, (
        f"{name}.trainable is {head.trainable}, parameters to train: {len(parameters)}"
    )
    if parameters:
        (z_a.square().sum() + (z_a * z_b).sum()).backward()
        reached = [p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in parameters]
        assert all(reached), (
            f"{name}: {reached.count(False)} of {len(reached)} parameters get no finite gradient"
        )
    head.eval()
    with torch.no_grad():
        if head.treats_sides_alike:
            same = torch.equal(head.project(h_a, "a"), head.project(h_a, "b"))
            assert same, (
                f"{name}.treats_sides_alike is true, but the two sides are projected differently"
            )
        alone = torch.cat([head.project(row[None], "a") for row in h_a])
        assert torch.allclose(alone, head.project(h_a, "a"), atol=1e-5), (
            f"{name}: in evaluation mode a person's vector depends on who else is in the batch"
        )
        again = make_head(dim=dim).eval()
        again.load_state_dict(head.state_dict())
        assert torch.equal(again.project(h_b, "b"), head.project(h_b, "b")), (
            f"{name}: state_dict() does not hold everything"
        )


def check_loss(loss: ContrastiveLoss) -> None:
    """Checks a loss: scalar, finite, falls as partners come together, and never pushes a known match away.

    Raises:
        AssertionError: What is wrong.
    """
    name = type(loss).__name__
    _arguments_are_stored(loss)
    generator = torch.Generator().manual_seed(0)
    a = torch.nn.functional.normalize(torch.randn(6, 8, generator=generator), dim=1)
    b = torch.nn.functional.normalize(torch.randn(6, 8, generator=generator), dim=1)
    eye = torch.eye(6, dtype=torch.bool)
    far = loss(a, b, eye)
    assert far.ndim == 0, f"{name} must give a scalar, got shape {list(far.shape)}"
    assert bool(torch.isfinite(far)), f"{name} is not finite"
    near = loss(a, torch.nn.functional.normalize(b + 3 * a, dim=1), eye)
    assert near < far, f"{name} does not fall as partners come together"
    # Everybody is a match of the first person: bringing them closer must not raise the loss
    every = eye.clone()
    every[0] = True
    moved = b.clone().requires_grad_()
    loss(a, moved, every).backward()
    assert moved.grad is not None, f"{name} gives no gradient"
    assert bool(torch.isfinite(moved.grad).all()), f"{name} gives gradients that are not finite"
    row = torch.zeros(6, 6, dtype=torch.bool)
    row[0] = True
    anchor = a[:1].clone()
    pulled = b.clone().requires_grad_()
    value = loss(anchor, pulled, row[:1])
    if value.requires_grad:
        value.backward()
        assert pulled.grad is not None
        pushed = (pulled.grad * anchor).sum(1) > 1e-6
        assert not bool(pushed.any()), (
            f"{name} pushes a known match away: `positives` must never be negatives"
        )
    lonely = loss(a[:1], b[:1], eye[:1, :1])
    assert bool(torch.isfinite(lonely)), f"{name} is not finite for a batch of one pair"
    extra = loss(a[:4], b, eye[:4])
    assert bool(torch.isfinite(extra)), (
        f"{name} must take columns without a match (rejected people)"
    )


def check_learner(learner: Learner) -> None:
    """Checks a learner on small random pairs of two sides and of one: unit vectors, seeded, and blind to strangers.

    Raises:
        AssertionError: What is wrong.
    """
    name = type(learner).__name__
    _arguments_are_stored(learner)
    rng = np.random.default_rng(0)
    a, b, new = (
        rng.normal(size=(24, 6)),
        rng.normal(size=(24, 6)),
        rng.normal(size=(5, 6)).astype(np.float32),
    )
    rows = np.arange(24)
    everyone, pairs = np.concatenate([a, b]), np.stack([rows, rows + 24], axis=1)
    for train in (PairedFeatures.of(a, b), PairedFeatures.of(everyone, matches=pairs)):
        before = train.a.copy()
        project, again = learner.fit(train, seed=1), learner.fit(train, seed=1)
        assert np.array_equal(before, train.a), f"{name}.fit changes the features that it is given"
        widths = set()
        for side in _SIDES:
            vectors = project(new, side)
            assert vectors.dtype == np.float32, f"{name} must give float32, got {vectors.dtype}"
            assert vectors.ndim == 2, (
                f"{name} must give [people, width], got shape {list(vectors.shape)}"
            )
            assert len(vectors) == 5, (
                f"{name} must give one vector per person: 5, got {len(vectors)}"
            )
            lengths = np.linalg.norm(vectors, axis=1)
            assert np.allclose(lengths, 1, atol=1e-4), (
                f"{name} must give vectors of unit length, got {lengths}"
            )
            assert np.array_equal(vectors, again(new, side)), (
                f"{name}: equal seeds give different vectors"
            )
            alone = np.concatenate([project(row[None], side) for row in new])
            assert np.allclose(alone, vectors, atol=1e-5), (
                f"{name}: a person's vector depends on who else is asked for"
            )
            widths.add(vectors.shape[1])
        assert len(widths) == 1, f"{name} gives the two sides different widths: {sorted(widths)}"


def _vectors(backbone: Backbone, items: Sequence[Item], name: str) -> np.ndarray:
    with torch.inference_mode():
        states = backbone.forward(backbone.prepare(list(items)))
        pooled: list[Tensor] = []
        if states.states is not None:
            pooled.append(MeanPooler().pool(states))
        if states.pooled is not None:
            pooled.append(NativePooler().pool(states))
    assert pooled, f"{name} gives neither states nor pooled"
    return torch.cat([one.float().cpu() for one in pooled], dim=1).numpy()


def _arguments_are_stored(part: Any) -> None:
    if type(part).__init__ is object.__init__:
        return
    for name, parameter in inspect.signature(type(part).__init__).parameters.items():
        if name == "self" or parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        assert hasattr(part, name), (
            f"{type(part).__name__} must store its argument {name!r} under that name, so that it can be saved"
        )


def _fingerprint_is_stable(part: Backbone | Pooler | MetadataGenerator) -> None:
    name = type(part).__name__
    first, second = part.fingerprint(), part.fingerprint()
    assert isinstance(first, Mapping), (
        f"{name}.fingerprint() must give a mapping, got {type(first).__name__}"
    )
    try:
        texts = [json.dumps(dict(one), sort_keys=True, allow_nan=False) for one in (first, second)]
    except (TypeError, ValueError) as error:
        raise AssertionError(
            f"{name}.fingerprint() must hold JSON values alone: {error}"
        ) from error
    assert texts[0] == texts[1], (
        f"{name}.fingerprint() differs from call to call: {texts[0]} then {texts[1]}"
    )
    assert len(first), f"{name}.fingerprint() is empty"
