"""The conformance check for backbones."""

from __future__ import annotations

import inspect
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pairmatch.core.arrays import Vectors
from pairmatch.core.interfaces import Backbone
from pairmatch.core.types import Item, TokenStates
from pairmatch.features.poolers import MeanPooler, NativePooler
from pairmatch.testing.contract import check_fingerprint, check_stored_arguments


def example_items(backbone: Backbone) -> list[Item]:
    """People with photos of several sizes, texts of several lengths, and attributes of all kinds.

    What the backbone does not read is left out.
    """
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
    attributes: list[dict[str, Any]] = [
        {"age": 31, "region": "north", "hobbies": "hiking; cooking", "born": "1995-05-01"},
        {"age": 45.5, "region": "south", "hobbies": "chess", "smoker": True},
        {},
        {"age": 22, "region": "north", "hobbies": "hiking", "smoker": False, "born": "2004-02-29"},
    ]
    return [
        Item(
            images if backbone.reads_images else (),
            text if backbone.reads_text else "",
            facts if backbone.reads_attributes else {},
        )
        for images, text, facts in zip(photos, texts, attributes, strict=True)
    ]


def check_backbone(
    backbone: Backbone, items: Sequence[Item] | None = None, *, tolerance: float = 1e-4
) -> None:
    """Checks a backbone.

    Its output must have the right shapes, be finite, carry no gradients, be the same for the same
    input, and not depend on the rest of the batch. The fingerprint must be stable and hold JSON
    values, and constructor arguments must be stored under their own names. What `fit` learns must
    be in the fingerprint, and JSON from which the same backbone can be built again.

    Args:
        backbone: The backbone; one that learns is fitted to `items`, each ten times.
        items: At least three people that the backbone can read; random photos and short texts by
            default.
        tolerance: Largest relative difference between a person alone and in a batch.

    Raises:
        AssertionError: A check fails.
    """
    check_stored_arguments(backbone)
    check_fingerprint(backbone)
    people = list(items) if items is not None else example_items(backbone)
    name = type(backbone).__name__
    backbone = _checked_fit(backbone, people)
    with torch.inference_mode():
        output = backbone.forward(backbone.prepare(people))
    assert isinstance(output, TokenStates), (
        f"{name}.forward must return TokenStates, got {type(output).__name__}"
    )
    assert output.states is not None or output.pooled is not None, (
        f"{name}.forward returns neither states nor pooled"
    )
    if output.states is None:
        assert backbone.default_pooler == "native", (
            f"{name} returns no token states, so its default pooler must be 'native'"
        )
    else:
        _check_states(backbone, output, output.states, len(people))
    if backbone.default_pooler == "native":
        assert output.pooled is not None, (
            f"{name} returns no pooled output, but its default pooler is 'native'"
        )
        assert output.pooled.shape == (len(people), backbone.dim), (
            f"{name}: pooled must be [{len(people)}, {backbone.dim}], got "
            f"{list(output.pooled.shape)}"
        )
    for label, tensor in (("states", output.states), ("pooled", output.pooled)):
        assert tensor is None or not tensor.requires_grad, (
            f"{name}: {label} requires a gradient, but a backbone is frozen"
        )
    _check_vectors(backbone, people, tolerance)
    for item in people:
        length = backbone.length(item)
        assert isinstance(length, int) and length >= 1, (  # noqa: PT018
            f"{name}.length must return a whole number of at least 1, got {length!r}"
        )


def _checked_fit(backbone: Backbone, people: Sequence[Item]) -> Backbone:
    """The backbone after `fit`, which is checked; itself if it learns nothing."""
    name = type(backbone).__name__
    if not backbone.learned:
        assert type(backbone).fit is Backbone.fit, (
            f"{name}.fit is never called, because `learned` names no argument"
        )
        return backbone
    parameters = list(inspect.signature(type(backbone)).parameters)
    missing = [key for key in backbone.learned if key not in parameters]
    assert not missing, f"{name}: learned names {missing}, which the constructor does not take"
    before = dict(backbone.fingerprint())
    training = list(people) * 10
    fitted = backbone.fit(training)
    assert type(fitted) is type(backbone), (
        f"{name}.fit must return a {name}, got {type(fitted).__name__}"
    )
    assert dict(backbone.fingerprint()) == before, f"{name}.fit must not change the backbone itself"
    is_new = all(getattr(backbone, key) is None for key in backbone.learned)
    assert not is_new or dict(fitted.fingerprint()) != before, (
        f"{name}: what fit learns is not in fingerprint()"
    )
    again = backbone.fit(training)
    assert dict(again.fingerprint()) == dict(fitted.fingerprint()), (
        f"{name}.fit learns something else from the same people"
    )
    other = fitted.fit([*training, *list(people[:1]) * 20])
    if dict(other.fingerprint()) == dict(fitted.fingerprint()):
        assert np.array_equal(_vectors(other, people), _vectors(fitted, people)), (
            f"{name}: equal fingerprints, but what was learned and the output differ"
        )
    options = {key: getattr(fitted, key) for key in parameters}
    try:
        learned = json.loads(json.dumps({key: options[key] for key in fitted.learned}))
    except (TypeError, ValueError) as error:
        raise AssertionError(f"{name}: what fit learns must be JSON values: {error}") from error
    rebuilt = type(fitted)(**{**options, **learned})
    assert dict(rebuilt.fingerprint()) == dict(fitted.fingerprint()) and np.array_equal(  # noqa: PT018
        _vectors(rebuilt, people), _vectors(fitted, people)
    ), f"{name} differs after what it learned is written as JSON and read"
    return fitted


def _check_states(backbone: Backbone, output: TokenStates, states: Tensor, people: int) -> None:
    """Checks token states and their masks."""
    name = type(backbone).__name__
    assert states.ndim == 3, f"{name}: states must be [B, T, D], got {list(states.shape)}"
    assert states.shape[0] == people, (
        f"{name} returns {states.shape[0]} rows of states for {people} people"
    )
    assert backbone.default_pooler == "native" or states.shape[2] == backbone.dim, (
        f"{name}.dim is {backbone.dim}, but the states have width {states.shape[2]}"
    )
    assert output.mask is not None, f"{name} returns states without a mask of real tokens"
    for label, mask in (("mask", output.mask), ("image_mask", output.image_mask)):
        if mask is None:
            continue
        assert mask.dtype == torch.bool, f"{name}: {label} must be bool, got {mask.dtype}"
        assert mask.shape == states.shape[:2], (
            f"{name}: {label} must be {list(states.shape[:2])}, got {list(mask.shape)}"
        )
    assert bool(output.mask.any(1).all()), f"{name}: a person has no real token"
    if output.image_mask is not None:
        assert not bool((output.image_mask & ~output.mask).any()), (
            f"{name}: image_mask marks padding"
        )
    if output.end is not None:
        ends = output.mask.gather(1, output.end[:, None])
        assert bool(ends.all()), f"{name}: end points at padding"


def _check_vectors(backbone: Backbone, people: Sequence[Item], tolerance: float) -> None:
    """Checks that each person's vector is finite, repeatable and independent of the batch."""
    name = type(backbone).__name__
    batch = _vectors(backbone, people)
    assert np.isfinite(batch).all(), f"{name} returns values that are not finite"
    assert np.array_equal(batch, _vectors(backbone, people)), (
        f"{name} returns different output for the same input"
    )
    scale = np.abs(batch).max() or 1.0
    single = np.concatenate([_vectors(backbone, [item]) for item in people])
    difference = float(np.abs(batch - single).max() / scale)
    assert difference <= tolerance, (
        f"{name}: a person's vector depends on the rest of the batch (relative difference "
        f"{difference:.1e}, allowed {tolerance:.0e})"
    )
    reordered = _vectors(backbone, people[::-1])[::-1]
    assert np.abs(batch - reordered).max() / scale <= tolerance, (
        f"{name}: a person's vector depends on the order of the batch"
    )


def _vectors(backbone: Backbone, people: Sequence[Item]) -> Vectors:
    """Mean token state and pooled output of each person, side by side: [B, D + P] float32."""
    with torch.inference_mode():
        output = backbone.forward(backbone.prepare(list(people)))
        vectors: list[Tensor] = []
        if output.states is not None:
            vectors.append(MeanPooler().pool(output))
        if output.pooled is not None:
            vectors.append(NativePooler().pool(output))
    return torch.cat([part.float().cpu() for part in vectors], dim=1).numpy()
