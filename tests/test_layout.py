"""The layout: imports point down, folders are those of the design, functions are small."""

import ast
import re
from pathlib import Path

import pytest

import pairmatch

ROOT = Path(pairmatch.__file__).parent

#: Folders from the lowest level to the highest; a folder imports from itself and from lower levels.
LEVELS = [
    {"core"},
    {"io"},
    {"rules"},
    {"data"},
    {"backbones", "metadata", "features"},
    {"evaluation"},
    {"learning"},
    {"finetuning"},
    {"gallery"},
    {"market"},
    {"matcher"},
    {"experiments", "tracking"},
    {"distributed"},
    {"report"},
    {"serving"},
    {"cli", "testing"},
]
LEVEL_OF = {folder: level for level, folders in enumerate(LEVELS) for folder in folders}

#: Imports between folders of one level that are allowed, as (from, to), with the reason.
ALLOWED_SAME_LEVEL: dict[tuple[str, str], str] = {}

MOST_LINES = 350
MOST_FUNCTION_LINES = 60
MOST_PARAMETERS = 8
#: Modules and functions beyond the limits, with the reason. Listed on the page Architecture too.
_DEFAULTS = "independent keyword arguments, nearly all with defaults"
_OPTIONS = "the options of a registered part are its configuration"
EXCEPTIONS = {
    "backbones/onnx.py:ONNXBackbone.__init__": _OPTIONS,
    "backbones/qwen3_vl.py:Qwen3VLBackbone.__init__": _OPTIONS,
    "backbones/qwen3_vl.py:Qwen3VLEmbeddingBackbone.__init__": _OPTIONS,
    "backbones/qwen3_vl_base.py:Qwen3VL.__init__": _OPTIONS,
    "metadata/openai.py:OpenAIMetadata.__init__": _OPTIONS,
    "metadata/openai.py:GPT5NanoMetadata.__init__": _OPTIONS,
    "metadata/qwen3_vl.py:Qwen3VLMetadata.__init__": _OPTIONS,
    "core/interfaces.py": "all interfaces on one page, mostly docstrings",
    "core/paired_features.py:PairedFeatures.of": _DEFAULTS,
    "evaluation/crossvalidation.py:cross_validate": _DEFAULTS,
    "evaluation/diagnostics/learning.py:learning_curve": _DEFAULTS,
    "experiments/sweep.py:sweep": _DEFAULTS,
    "finetuning/finetuner.py:Finetuner.__init__": _DEFAULTS,
    "market/balancing.py:balance": _DEFAULTS,
    "report/content.py:matcher_report": "what the page reports on, and what it shows of it",
    "matcher/matcher.py": "the facade: one class whose methods delegate, mostly docstrings",
    "matcher/matcher.py:Matcher.__init__": "the facade's constructor",
}


def imported_modules(path, module):
    """(line, dotted module) of every import of the package in a file, wherever it is.

    Reads absolute and relative imports, at the top, in functions, and under `TYPE_CHECKING`; what
    is taken from the package itself (`pairmatch.Matcher`); and calls with a constant name, such as
    `import_module`, `__import__` or `resolve_name`, whatever they are called in the file.

    Args:
        path: The file.
        module: Its dotted name, which relative imports are resolved against.
    """
    is_package = path.name == "__init__.py"
    package = module.split(".") if is_package else module.split(".")[:-1]
    nodes = list(ast.walk(ast.parse(path.read_text())))
    bound = aliases(nodes)
    for node in nodes:
        if isinstance(node, ast.Import):
            # `import pairmatch` alone is judged by what is taken from it
            names = [alias.name for alias in node.names if alias.name != "pairmatch"]
            yield from ((node.lineno, name) for name in names)
        elif isinstance(node, ast.ImportFrom):
            parents = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            # `from pairmatch import core` names a folder; `from pairmatch import Matcher` a class
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Attribute) and getattr(node.value, "id", "") in bound:
            yield node.lineno, f"pairmatch.{node.attr}"
        elif isinstance(node, ast.Call):
            yield from ((node.lineno, name) for name in named_in_call(node, package))


def aliases(nodes):
    """Names that `import pairmatch` and `import pairmatch.x` bind in a file."""
    names = set()
    for node in nodes:
        for alias in node.names if isinstance(node, ast.Import) else ():
            if alias.name == "pairmatch":
                names.add(alias.asname or "pairmatch")
            elif alias.name.startswith("pairmatch.") and not alias.asname:
                names.add("pairmatch")
    return names


def named_in_call(call, package):
    """Modules of the package that the constant arguments of a call name."""
    values = [*call.args, *(keyword.value for keyword in call.keywords)]
    constants = [value.value for value in values if isinstance(value, ast.Constant)]
    texts = [constant for constant in constants if isinstance(constant, str)]
    for text in texts:
        if re.fullmatch(r"pairmatch(\.\w+)+(:\w+)?", text):
            yield text.replace(":", ".")
    relative = [text for text in texts if re.fullmatch(r"\.+\w[\w.]*", text)]
    anchors = [text for text in texts if re.fullmatch(r"pairmatch(\.\w+)*", text)]
    for text in relative if anchors else ():
        level = len(text) - len(text.lstrip("."))
        parents = anchors[0].split(".")
        yield ".".join([*parents[: len(parents) - level + 1], text.lstrip(".")])
    levels = [constant for constant in constants if type(constant) is int and constant > 0]
    if getattr(call.func, "id", "") == "__import__" and levels and texts:
        yield ".".join([*package[: len(package) - levels[0] + 1], texts[0]])


def upward_imports(root):
    """A sentence for every import that does not point down, in all files of a package."""
    problems = []
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root)
        folder = relative.parts[0].removesuffix(".py")
        if folder in ("__init__", "__main__"):
            continue
        if folder not in LEVEL_OF:
            problems.append(f"{relative}: the folder {folder} has no level")
            continue
        module = ".".join(["pairmatch", *relative.with_suffix("").parts]).removesuffix(".__init__")
        for line, target in imported_modules(path, module):
            parts = target.split(".")
            if parts[0] != "pairmatch":
                continue
            other = parts[1] if len(parts) > 1 else ""
            if other == folder:
                continue
            where = f"{relative}:{line} imports {target}"
            if other not in LEVEL_OF:
                problems.append(f"{where}, which is not a folder: import from where it is defined")
            elif LEVEL_OF[other] > LEVEL_OF[folder]:
                problems.append(f"{where}, which is above {folder}")
            elif LEVEL_OF[other] == LEVEL_OF[folder] and (folder, other) not in ALLOWED_SAME_LEVEL:
                problems.append(f"{where}, which is on the level of {folder}")
    return problems


def test_imports_point_down():
    assert upward_imports(ROOT) == []


def test_folders_are_those_of_the_design():
    folders = {path.name for path in ROOT.iterdir() if (path / "__init__.py").exists()}
    assert folders == set(LEVEL_OF)
    loose = {path.name for path in ROOT.glob("*.py")}
    assert loose == {"__init__.py", "__main__.py"}


UPWARD = {
    "absolute": "import pairmatch.learning.heads\n",
    "absolute from": "from pairmatch.learning.heads import MLPHead\n",
    "folder from": "from pairmatch import learning\n",
    "through the package": "from pairmatch import Matcher\n",
    "relative": "from ..learning.heads import MLPHead\n",
    "relative folder": "from .. import learning\n",
    "in a function": "def f():\n    from pairmatch.learning.heads import MLPHead\n",
    "in a method": "class C:\n    def f(self):\n        from ..learning import heads\n",
    "type checking": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n"
    "    from pairmatch.learning.heads import MLPHead\n",
    "qualified type checking": "import typing\nif typing.TYPE_CHECKING:\n"
    "    import pairmatch.learning.heads as heads\n",
    "in a try": "try:\n    import pairmatch.matcher\nexcept ImportError:\n    pass\n",
    "in an else": "if 1:\n    pass\nelse:\n    import pairmatch.learning\n",
    "import_module": "import importlib\nimportlib.import_module('pairmatch.learning')\n",
    "dunder import": "__import__('pairmatch.matcher')\n",
    "through the bound package": "import pairmatch.core.errors\npairmatch.Matcher\n",
    "through an alias": "import pairmatch as pm\npm.matcher.matcher.Matcher()\n",
    "import_module by keyword": "import importlib\n"
    "importlib.import_module(name='pairmatch.learning')\n",
    "renamed import_module": "from importlib import import_module as load\n"
    "load('pairmatch.learning')\n",
    "relative import_module": "from importlib import import_module\n"
    "import_module('..learning', 'pairmatch.metadata')\n",
    "import_module with a package": "from importlib import import_module\n"
    "import_module('.learning', package='pairmatch')\n",
    "resolve_name": "import pkgutil\npkgutil.resolve_name('pairmatch.matcher.matcher:Matcher')\n",
    "same level": "from pairmatch.features.prompt import render\n",
}


@pytest.mark.parametrize("form", UPWARD)
@pytest.mark.parametrize("file", ["planted.py", "inner/__init__.py", "inner/deep.py"])
def test_a_planted_upward_import_is_caught(form, file, tmp_path):
    source = UPWARD[form]
    if file.startswith("inner/") and "from .." in source:
        source = source.replace("from ..", "from ...")
    path = tmp_path / "metadata" / file
    path.parent.mkdir(parents=True)
    path.write_text("import numpy\nfrom pairmatch.core.errors import PairmatchError\n" + source)
    (problem,) = upward_imports(tmp_path)
    assert problem.startswith(f"metadata/{file}:")


def test_downward_and_inner_imports_are_fine(tmp_path):
    path = tmp_path / "matcher" / "planted.py"
    path.parent.mkdir()
    path.write_text(
        "from pairmatch.core import registry\nfrom . import saving\nfrom .saving import write\n"
        "from ..core.errors import PairmatchError\nimport pairmatch.gallery\n"
    )
    assert upward_imports(tmp_path) == []


def sizes():
    """(name, measure, limit) of every module and function beyond a limit."""
    for path in sorted(ROOT.rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        text = path.read_text()
        if len(text.splitlines()) > MOST_LINES:
            yield name
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            parameters = [arg for arg in arguments if arg.arg not in ("self", "cls")]
            lines = node.end_lineno - node.lineno + 1
            if lines > MOST_FUNCTION_LINES or len(parameters) > MOST_PARAMETERS:
                yield f"{name}:{qualified(text, node)}"


def qualified(text, function):
    """`Class.function`, or the function's name."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ClassDef) and any(
            getattr(child, "lineno", 0) == function.lineno for child in node.body
        ):
            return f"{node.name}.{function.name}"
    return function.name


def test_modules_and_functions_are_small():
    beyond = set(sizes())
    commands = {name for name in beyond if name.startswith("cli/")}
    assert beyond - commands == set(EXCEPTIONS), "too large, or no longer an exception"


def test_the_architecture_page_lists_the_exceptions():
    page = (Path(__file__).parents[1] / "docs" / "architecture.md").read_text()
    for name, reason in EXCEPTIONS.items():
        assert f"| `{name}` | {reason} |" in page
