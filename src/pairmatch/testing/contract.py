"""What every part has to do: store its arguments, and have a stable fingerprint."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from typing import Any

from pairmatch.core.interfaces import Backbone, MetadataGenerator, Pooler


def check_stored_arguments(part: Any) -> None:
    """Checks that constructor arguments are stored under their own names."""
    if type(part).__init__ is object.__init__:
        return
    for name, parameter in inspect.signature(type(part).__init__).parameters.items():
        if name == "self" or parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        assert hasattr(part, name), (
            f"{type(part).__name__} must store its argument {name!r} under that name, so that it "
            "can be saved"
        )


def check_fingerprint(part: Backbone | Pooler | MetadataGenerator) -> None:
    """Checks that the fingerprint is a mapping of JSON values, not empty, and does not change."""
    name = type(part).__name__
    fingerprints = [part.fingerprint(), part.fingerprint()]
    assert isinstance(fingerprints[0], Mapping), (
        f"{name}.fingerprint() must return a mapping, got {type(fingerprints[0]).__name__}"
    )
    try:
        first, second = (
            json.dumps(dict(fingerprint), sort_keys=True, allow_nan=False)
            for fingerprint in fingerprints
        )
    except (TypeError, ValueError) as error:
        raise AssertionError(f"{name}.fingerprint() must hold only JSON values: {error}") from error
    assert first == second, f"{name}.fingerprint() differs between two calls: {first} and {second}"
    assert fingerprints[0], f"{name}.fingerprint() is empty"
