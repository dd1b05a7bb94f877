"""Run by .ci/run where pairmatch is there from its wheel alone.

Is everything inside, does every part load?
"""

import sys
from importlib.metadata import distribution
from importlib.resources import files
from pathlib import Path

import pairmatch
from pairmatch.core import registry

assert Path(pairmatch.__file__).is_relative_to(sys.prefix), (
    f"not from the wheel: {pairmatch.__file__}"
)
for name in ("py.typed", "templates/report.html.jinja"):
    assert files("pairmatch").joinpath(name).is_file(), f"{name} is not in the wheel"
names = [str(file) for file in distribution("pairmatch").files or []]
assert any("LICENSE" in name for name in names), "the licence is not in the wheel"
strangers = [name for name in names if not name.startswith(("pairmatch/", "pairmatch-", "../"))]
assert not strangers, f"more than the package is in the wheel: {strangers[:5]}"
parts = [plugin for plugin in registry.plugins() if plugin.distribution == "pairmatch"]
for part in parts:
    registry.load(part.kind, part.name)
assert len({part.kind for part in parts}) == len(registry.KINDS), "a kind of part has no built-in"
for name in pairmatch.__all__:
    getattr(pairmatch, name)
print(f"{len(parts)} parts load, {len(pairmatch.__all__)} public names, {len(names)} files")
