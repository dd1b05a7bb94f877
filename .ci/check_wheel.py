"""Checks that the wheel is complete and that every part loads.

`.ci/run` runs this in an environment in which pairmatch is installed from its wheel.
"""

import sys
from importlib.metadata import distribution
from importlib.resources import files
from pathlib import Path

import pairmatch
from pairmatch.core import registry

assert Path(pairmatch.__file__).is_relative_to(sys.prefix), (
    f"pairmatch is not imported from the wheel: {pairmatch.__file__}"
)
explorer = "serving/explorer/templates"
pages = [f"{explorer}/{name}" for name in ("slate.html.jinja", "style.css", "script.js")]
for name in ("py.typed", "report/templates/report.html.jinja", *pages):
    assert files("pairmatch").joinpath(name).is_file(), f"{name} is not in the wheel"
names = [str(file) for file in distribution("pairmatch").files or []]
assert any("LICENSE" in name for name in names), "the license is not in the wheel"
unexpected = [name for name in names if not name.startswith(("pairmatch/", "pairmatch-", "../"))]
assert not unexpected, f"unexpected files in the wheel: {unexpected[:5]}"
parts = [plugin for plugin in registry.plugins() if plugin.distribution == "pairmatch"]
for part in parts:
    registry.load(part.kind, part.name)
assert len({part.kind for part in parts}) == len(registry.KINDS), (
    "a kind of part has no built-in implementation"
)
for name in pairmatch.__all__:
    getattr(pairmatch, name)
print(f"{len(parts)} parts load, {len(pairmatch.__all__)} public names resolve, {len(names)} files")
