"""Finds parts by name through entry points and builds them.

The registry knows the interfaces, never an implementation. Built-in parts and plugins are declared
in the same groups: `pairmatch.backbones`, `pairmatch.poolers`, `pairmatch.metadata`,
`pairmatch.heads`, `pairmatch.losses`, `pairmatch.learners` and `pairmatch.rerankers`. Only the
requested entry point is imported.
"""

from __future__ import annotations

import functools
import inspect
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from pairmatch.core.config import PartSpec, parse_spec
from pairmatch.core.errors import ConfigurationError, PairmatchError, PartError, unknown_name
from pairmatch.core.text import error_words, printable

KINDS = {
    "backbones": "Backbone",
    "poolers": "Pooler",
    "metadata": "MetadataGenerator",
    "heads": "ProjectionHead",
    "losses": "ContrastiveLoss",
    "learners": "Learner",
    "rerankers": "Reranker",
}
_NOUNS = {
    "backbones": "backbone",
    "poolers": "pooler",
    "metadata": "metadata generator",
    "heads": "head",
    "losses": "loss",
    "learners": "learner",
    "rerankers": "reranker",
}
#: Earlier names of parts that another part replaces, for one version; its options are not taken.
_REPLACED = {("learners", "robust"): "best"}


@dataclass(frozen=True, slots=True)
class Plugin:
    """One registered part.

    Its kind, name, the distribution that provides it and where it points.
    """

    kind: str
    name: str
    distribution: str
    version: str
    target: str


def plugins(kind: str | None = None) -> list[Plugin]:
    """All registered parts (of one kind), sorted by name; imports none of them."""
    return sorted(
        (
            Plugin(
                group,
                point.name,
                _distribution(point),
                point.dist.version if point.dist else "",
                point.value,
            )
            for group in ([kind] if kind else KINDS)
            for point in _unique_points(group)
        ),
        key=lambda plugin: (list(KINDS).index(plugin.kind), plugin.name, plugin.distribution),
    )


def load(kind: str, name: str) -> type:
    """The class that is registered under a name.

    Raises:
        PartError: The name is unknown, two distributions claim it, its import fails, or it does not
            implement the interface; the message names the distribution.
    """
    noun = _NOUNS[kind]
    name = _current(kind, name)
    points = [point for point in _unique_points(kind) if point.name == name]
    if not points:
        known = {point.name for point in _points(kind)}
        raise PartError(unknown_name(noun, name, known))
    if len(points) > 1:
        claims = " and ".join(sorted(f"{_distribution(point)} ({point.value})" for point in points))
        raise PartError(f"The {noun} {name!r} is claimed by {claims}: uninstall one of them.")
    point = points[0]
    source = f"{noun} {name!r} ({point.value}, from {_distribution(point)})"
    try:
        part = point.load()
    except (Exception, SystemExit) as error:
        raise PartError(
            f"The {source} cannot be imported: {type(error).__name__}: {error}"
        ) from error
    interface = getattr(import_module("pairmatch.core.interfaces"), KINDS[kind])
    if not (isinstance(part, type) and issubclass(part, interface)):
        raise PartError(
            f"The {source} does not implement `pairmatch.{KINDS[kind]}`: it is {part!r}."
        )
    missing = sorted(getattr(part, "__abstractmethods__", ()))
    if missing:
        raise PartError(
            f"The {source} lacks methods of `pairmatch.{KINDS[kind]}`: {', '.join(missing)}."
        )
    return part


def create(kind: str, spec: PartSpec, **given: Any) -> Any:
    """Builds a part from a name or a name with options; an instance is checked and returned.

    Args:
        kind: One of `KINDS`.
        spec: `"name"`, `("name", {options})` or an instance.
        given: Arguments that the library itself provides (`dim` of a head, `device` of a backbone);
            the user's options override them, and those that the constructor does not take are
            dropped.

    Raises:
        PartError: As in `load`, the instance does not implement the interface, or the constructor
            fails.
        ConfigurationError: An option is unknown, missing or invalid.
    """
    parsed = parse_spec(spec)
    if parsed is None:
        interface = getattr(import_module("pairmatch.core.interfaces"), KINDS[kind])
        if not isinstance(spec, interface):
            raise PartError(
                f"A {_NOUNS[kind]} must implement `pairmatch.{KINDS[kind]}`, got {spec!r}."
            )
        return spec
    name, options = parsed
    part = load(kind, name)
    if (kind, name) in _REPLACED:
        options = {}
    parameters = _parameters(part)
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    usable = {key: value for key, value in given.items() if takes_any or key in parameters}
    allowed = [
        key
        for key, p in parameters.items()
        if key != "self" and p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    unknown = [] if takes_any else [key for key in options if key not in allowed]
    if unknown:
        what = f"option of {_NOUNS[kind]} {name!r}"
        raise ConfigurationError(" ".join(unknown_name(what, key, allowed) for key in unknown))
    arguments = {**usable, **options}
    missing = [
        key
        for key in allowed
        if parameters[key].default is inspect.Parameter.empty and key not in arguments
    ]
    if missing:
        example = " ".join(f"--set {_NOUNS[kind].split()[0]}.{key}=…" for key in missing)
        raise ConfigurationError(
            f"The {_NOUNS[kind]} {name!r} needs {', '.join(missing)} (command line: {example})."
        )
    return _build(kind, name, part, arguments, options)


def _build(
    kind: str,
    name: str,
    part: type,
    arguments: Mapping[str, Any],
    options: Mapping[str, Any],
) -> Any:
    """An instance of a part; an error of its constructor names the part, and the user's options."""
    try:
        return part(**arguments)
    except PairmatchError:
        raise
    except Exception as error:
        if options and isinstance(error, (TypeError, ValueError, RuntimeError)):
            words = ", ".join(f"{key}={value!r}" for key, value in options.items())
            raise ConfigurationError(
                f"The {_NOUNS[kind]} {name!r} cannot be built with {words}: {error}."
            ) from error
        raise PartError(  # such as missing weights of a model
            f"The {_NOUNS[kind]} {name!r} (from {provenance(kind, name)[0]}) cannot be built: "
            f"{error_words(error)}"
        ) from error


def options(kind: str, name: str) -> tuple[str, ...]:
    """Names of the options that a registered part takes."""
    return tuple(key for key in _parameters(load(kind, name)) if key != "self")


def describe(kind: str, part: Any) -> tuple[str, dict[str, Any]]:
    """Registered name and constructor options of an instance, from which it can be built again.

    Raises:
        PartError: The instance's class has no registered name.
    """
    cls = type(part)
    for point in _unique_points(kind):
        # Compare with the object that the entry point resolves to, not with the class's module. It
        # is imported already, because an instance exists.
        target: Any = sys.modules.get(point.module)
        for step in filter(None, (point.attr or "").split(".")):
            target = getattr(target, step, None)
        if target is cls:
            names = [key for key in _parameters(cls) if key != "self" and hasattr(part, key)]
            return point.name, {key: getattr(part, key) for key in names}
    raise PartError(
        f"`{cls.__module__}.{cls.__qualname__}` has no registered name, so a saved matcher could "
        f"not find it: declare it as an entry point of the group pairmatch.{kind}."
    )


def label(kind: str, part: Any) -> str:
    """What an error calls an instance: its name and distribution, or its class."""
    cls = type(part)
    try:
        name = describe(kind, part)[0]
    except PartError:
        return printable(cls.__qualname__)
    distribution = provenance(kind, name)[0]
    return f"{name!r} ({cls.__module__}:{cls.__qualname__}, from {distribution})"


def is_installed(kind: str, name: str) -> bool:
    """Whether a part is registered, by its name of today or an earlier one."""
    name = _REPLACED.get((kind, name), name)
    return any(point.name == name for point in _unique_points(kind))


def provenance(kind: str, name: str) -> tuple[str, str]:
    """Distribution and version that provide a registered part."""
    for plugin in plugins(kind):
        if plugin.name == name:
            return plugin.distribution, plugin.version
    raise PartError(unknown_name(_NOUNS[kind], name, {plugin.name for plugin in plugins(kind)}))


def _current(kind: str, name: str) -> str:
    """The name of today, with a warning for an earlier one."""
    current = _REPLACED.get((kind, name))
    if current is None:
        return name
    warnings.warn(
        f"The {_NOUNS[kind]} {name!r} is replaced by {current!r}, without the options of {name!r}: "
        f"name {current!r}. The next version will not know {name!r}.",
        FutureWarning,
        stacklevel=4,
    )
    return current


def _parameters(part: type) -> Mapping[str, inspect.Parameter]:
    """Parameters of a constructor; empty if the class defines no constructor."""
    if part.__init__ is object.__init__:  # type: ignore[misc]
        return {}
    return inspect.signature(part.__init__).parameters  # type: ignore[misc]


def _distribution(point: EntryPoint) -> str:
    return (point.dist.name if point.dist else None) or "an unknown distribution"


def _unique_points(kind: str) -> tuple[EntryPoint, ...]:
    """Entry points of a kind.

    The same distribution seen twice on the path (an editable install) counts once.
    """
    seen: dict[tuple[str, str, str], EntryPoint] = {}
    for point in _points(kind):
        seen.setdefault((point.name, point.value, _distribution(point)), point)
    return tuple(seen.values())


def _points(kind: str) -> tuple[EntryPoint, ...]:
    """Entry points of a kind, read again if the path or one of its folders has changed.

    Reading the metadata of all installed distributions takes a tenth of a second.
    """
    return _read_points(kind, tuple((folder, _changed_at(folder)) for folder in sys.path))


@functools.lru_cache(maxsize=32)
def _read_points(kind: str, path: tuple[tuple[str, int | None], ...]) -> tuple[EntryPoint, ...]:
    return tuple(entry_points(group=f"pairmatch.{kind}"))


def _changed_at(folder: str) -> int | None:
    """Time at which a folder of the path last changed, in nanoseconds; None if it is missing."""
    try:
        return Path(folder or ".").stat().st_mtime_ns
    except OSError:
        return None
