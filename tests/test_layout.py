"""The layers of the package: imports point down only."""

import ast
from pathlib import Path

import pairmatch

ROOT = Path(pairmatch.__file__).parent
LAYERS = [
    {"types", "errors"},
    {"interfaces", "config", "registry", "images", "prompt", "store", "files", "tables", "frozen"},
    {"backbones", "poolers", "metadata", "heads", "losses"},
    {"data", "features", "metrics", "paired", "rules", "search", "gallery"},
    {
        "hub",
        "intervals",
        "comparison",
        "trainer",
        "evaluator",
        "saved",
        "methods",
        "crossvalidation",
        "tuning",
        "robust",
        "diagnostics",
        "market",
        "figures",
    },
    {"matcher", "demo"},
    {"sweep", "paper"},
    {"cli", "doctor", "report", "testing"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


def imports(path):
    """Modules of the package that a file imports at any place, TYPE_CHECKING blocks excepted."""
    tree = ast.parse(path.read_text())
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.ImportFrom)
            and node.module
            and id(node) not in skipped
            and node.module.startswith("pairmatch")
        ):
            parts = node.module.split(".")
            yield from (parts[1:2] or [alias.name for alias in node.names])


def test_every_module_has_a_layer_and_imports_downwards():
    files = [
        file
        for file in ROOT.rglob("*.py")
        if file.name not in ("__main__.py",) and file != ROOT / "__init__.py"
    ]
    assert len(files) > 25
    for file in files:
        module = file.relative_to(ROOT).parts[0].removesuffix(".py")
        assert module in LEVEL, f"{module} has no layer"
        for imported in imports(file):
            if imported in ("__version__", module):
                continue
            assert imported in LEVEL, f"{file.name} imports {imported}, which has no layer"
            assert LEVEL[imported] <= LEVEL[module], (
                f"{module} imports {imported}, which is above it"
            )
            if LEVEL[module] == 2:
                assert LEVEL[imported] < 2, (
                    f"{module} imports {imported}: implementations never import one another"
                )
