"""README and docs.

Code blocks run, commands parse, links resolve, and every public name is on an API page.
"""

import importlib
import inspect
import pkgutil
import re
import shlex
import sys
import tomllib
from pathlib import Path

import pytest
import typer
import yaml
from markdown.extensions.toc import slugify

import pairmatch
from pairmatch.cli import app
from pairmatch.experiments.demo import draw_people

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "examples" / "README.md", *sorted(DOCS.rglob("*.md"))]
PAGES += sorted((ROOT / "examples").glob("*/README.md"))
TEXTS = {page: page.read_text() for page in PAGES}
NAMES = {page: page.relative_to(ROOT).with_suffix("").as_posix() for page in PAGES}


def blocks(language):
    """Code blocks of all pages, as test parameters."""
    return [
        pytest.param(code, id=f"{NAMES[page]}-{number}")
        for page, text in TEXTS.items()
        for number, code in enumerate(re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL), 1)
    ]


# --- Python


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """Folder with synthetic people and a store, shared by all examples."""
    folder = tmp_path_factory.mktemp("docs")
    draw_people(folder / "photos", pairs=60, size_px=48)
    return folder


@pytest.fixture
def working_folder(people, tmp_path, monkeypatch):
    (tmp_path / "photos").symlink_to(people / "photos")
    (tmp_path / "pairs.csv").write_bytes((people / "photos" / "pairs.csv").read_bytes())
    (tmp_path / "me.jpg").write_bytes((people / "photos" / "images" / "a0000.jpg").read_bytes())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(people / "cache"))


@pytest.mark.parametrize("code", blocks("python"))
def test_python_runs(code, working_folder):
    exec(compile(code, "example", "exec"), {"__name__": "example"})


def test_docs_have_examples():
    assert len(blocks("python")) >= 15


# --- commands


def commands():
    """Calls of pairmatch in the text blocks of all pages, including those after `&&`."""
    for block in blocks("text"):
        for line in re.split(r"\n|&&", block.values[0].replace("\\\n", " ")):
            words = line.split()
            is_folder = line.strip().endswith("/")
            is_call = words and Path(words[0]).name == "pairmatch" and not is_folder
            if is_call and "COMMAND" not in words:
                yield pytest.param(line.strip(), id=line.strip())


@pytest.mark.parametrize("command", sorted(set(commands()), key=lambda parameter: parameter.id))
def test_documented_commands_parse(command):
    """Parses a documented command without running it."""
    group = typer.main.get_command(app)
    name, *arguments = shlex.split(command)[1:]
    assert name in group.commands, f"no command {name}"
    arguments = [argument for argument in arguments if argument not in ("…", "[OPTIONS]")]
    command = group.commands[name]
    if "--config" in arguments:  # a run file that does not exist here
        command.make_parser(command.context_class(command)).parse_args(arguments)
    else:
        command.make_context(name, arguments)


def test_docs_have_commands():
    assert len(list(commands())) >= 20


def test_command_page_lists_every_command_and_option(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    import mkdocs_hooks

    page = mkdocs_hooks.on_page_markdown((DOCS / "commands.md").read_text())
    sys.modules.pop("mkdocs_hooks")
    for name, command in typer.main.get_command(app).commands.items():
        section = page.split(f"## `pairmatch {name}`")[1].split("\n## ")[0]
        for part in command.params:
            if part.param_type_name == "option":
                assert f"`{part.opts[0]}`" in section, f"{name}: {part.opts[0]}"


def test_figures_do_not_break_lines_but_code_is_kept(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    import mkdocs_hooks

    page = mkdocs_hooks.on_page_markdown("(−0.1 to 0.2), p = 0.5, 95 %, `5 %`\n```text\np = 1\n```")
    sys.modules.pop("mkdocs_hooks")
    assert page == "(−0.1_to_0.2), p_=_0.5, 95_%, `5 %`\n```text\np = 1\n```".replace("_", "\xa0")


def test_help_texts_contain_no_square_brackets():
    """Rich parses square brackets as markup and drops them."""
    for name, command in typer.main.get_command(app).commands.items():
        for part in command.params:
            assert "[" not in (part.help or ""), f"{name}: {part.opts}"


# --- links


def anchors(page):
    """Anchors of a page: its headings, and on API pages the documented names."""
    text = TEXTS[page]
    result = set(re.findall(r'id="([^"]+)"', text))
    for heading in re.findall(
        r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE
    ):
        result.add(slugify(re.sub(r"[`*]", "", heading), "-"))
    return result | {
        name
        for name in documented()
        if f"::: {name.rpartition('.')[0]}" in text or f"::: {name}" in text
    }


@pytest.mark.parametrize("page", PAGES, ids=NAMES.get)
def test_links_resolve(page):
    text = re.sub(r"```.*?```", "", TEXTS[page], flags=re.DOTALL)
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text)
    for target in targets:
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{NAMES[page]} links to {target}"
        if anchor:
            assert anchor in anchors(file), (
                f"{NAMES[page]} links to {target}: {file.name} has no such heading"
            )


def test_every_page_is_in_the_navigation():
    class Loader(yaml.SafeLoader):
        """Ignores the tags that mkdocs defines."""

    Loader.add_multi_constructor("", lambda *_: None)
    config = yaml.load((ROOT / "mkdocs.yml").read_text(), Loader)

    def files(entry):
        if isinstance(entry, str):
            yield entry
        for part in (
            entry.values() if isinstance(entry, dict) else entry if isinstance(entry, list) else ()
        ):
            yield from files(part)

    assert sorted(files(config["nav"])) == sorted(
        page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")
    )


def test_pictures_are_small():
    pictures = list((DOCS / "pictures").iterdir())
    assert len(pictures) >= 2
    assert max(picture.stat().st_size for picture in pictures) < 200_000


# --- API

DIRECTIVES = re.findall(r"^::: ([\w.]+)$", "\n".join(TEXTS.values()), re.MULTILINE)


def members(module):
    """Public classes and functions that a module defines itself."""
    for name, value in vars(module).items():
        defined = inspect.isclass(value) or inspect.isfunction(value)
        if not name.startswith("_") and defined and value.__module__ == module.__name__:
            yield name, value


def resolve(name):
    """The module or member with a dotted name."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        module, _, member = name.rpartition(".")
        return getattr(importlib.import_module(module), member)


def documented():
    """Full names of everything on the API pages."""
    names = set()
    for name in DIRECTIVES:
        value = resolve(name)
        if inspect.ismodule(value):
            names.update(f"{name}.{member}" for member, _ in members(value))
        else:
            names.add(f"{value.__module__}.{value.__qualname__}")
    return names


def test_api_pages_show_every_public_name():
    shown = documented()
    for name in pairmatch.__all__:
        value = getattr(pairmatch, name)
        if name != "__version__":
            assert f"{value.__module__}.{value.__qualname__}" in shown, (
                f"pairmatch.{name} is on no API page"
            )


#: Modules whose names are used through other modules. The command line has its own page; files and
#: hub belong to `Matcher`.
INTERNAL = {
    "cli",
    "backbones.attribute_encodings",
    "backbones.onnx_data",
    "backbones.qwen3_vl_base",
    "backbones.hf_operations",
    "backbones.qwen3_vl_inputs",
    "backbones.qwen3_vl_operations",
    "core.arrays",
    "core.components",
    "core.display",
    "core.joining",
    "core.outcomes",
    "core.ids",
    "core.partition",
    "core.progress",
    "core.text",
    "core.units",
    "data.answers",
    "data.attributes",
    "data.checking",
    "data.counts",
    "data.digests",
    "data.matches",
    "data.options",
    "data.pair_rows",
    "data.photo_folder",
    "data.photos",
    "data.pool_rules",
    "data.pools",
    "data.profile_rows",
    "data.reading",
    "data.skipping",
    "data.splits",
    "data.time_splits",
    "evaluation.measuring",
    "evaluation.medians",
    "evaluation.output",
    "evaluation.pool_notes",
    "evaluation.pooled_ranks",
    "evaluation.targets",
    "experiments.building",
    "experiments.portraits",
    "experiments.rows",
    "experiments.simulated_feed",
    "experiments.simulated_people",
    "experiments.sweep_folder",
    "distributed.markets",
    "distributed.parts",
    "distributed.pool",
    "distributed.workers",
    "features.engines",
    "features.fresh",
    "features.inputs",
    "features.running",
    "finetuning.caching",
    "finetuning.checkpoints",
    "finetuning.identity",
    "finetuning.lora",
    "finetuning.people",
    "finetuning.ranks",
    "finetuning.run",
    "gallery.arrow_files",
    "gallery.attributes",
    "gallery.blocks",
    "gallery.description",
    "gallery.eligibility",
    "gallery.folder",
    "gallery.index",
    "gallery.journal",
    "gallery.lance_columns",
    "gallery.lance_errors",
    "gallery.lance_index",
    "gallery.lance_search",
    "gallery.numpy_kernel",
    "gallery.ranking",
    "gallery.request",
    "gallery.shortlist",
    "gallery.snapshot",
    "gallery.torch_kernel",
    "io.arrow",
    "io.budget",
    "io.cells",
    "io.claims",
    "io.colors",
    "io.encodings",
    "io.files",
    "io.headers",
    "io.locations",
    "io.locks",
    "io.orientation",
    "io.outcomes",
    "io.outputs",
    "io.parts",
    "io.people",
    "io.photo_formats",
    "io.photo_notices",
    "io.problems",
    "io.reading",
    "io.remote",
    "io.side_information",
    "io.spreadsheets",
    "io.replacing",
    "io.sqlite",
    "io.sqlite_files",
    "io.tables",
    "io.text_tables",
    "io.traces",
    "evaluation.reranked",
    "learning.batches",
    "learning.block_bases",
    "learning.decompositions",
    "market.potentials",
    "matcher.planning",
    "matcher.card",
    "matcher.files",
    "matcher.folder",
    "matcher.hub",
    "matcher.building",
    "matcher.pipeline",
    "matcher.recommending",
    "matcher.records",
    "matcher.reference",
    "matcher.saved_record",
    "matcher.saving",
    "matcher.training_people",
    "learning.bilinear",
    "learning.side_answers",
    "serving",
    "metadata.batch_lines",
    "metadata.batch_provider",
    "metadata.cells",
    "metadata.generating",
    "metadata.limits",
    "metadata.models",
    "metadata.openai_client",
    "metadata.openai_errors",
    "metadata.openai_request",
    "metadata.openai_response",
    "metadata.openai_run",
    "metadata.options",
    "metadata.outcomes",
    "metadata.outside",
    "metadata.parallel",
    "metadata.schema",
    "metadata.schema_types",
    "metadata.servers",
    "report.curves",
    "report.plots",
    "report.seen",
    "rules.checking",
    "rules.columns",
    "rules.evaluation",
    "rules.person",
    "rules.postgres",
    "rules.qdrant",
    "rules.ranges",
    "testing.contract",
    "tracking.runs",
}


def test_every_module_is_documented_or_internal():
    shown = documented()
    internal = [f"pairmatch.{name}" for name in INTERNAL]
    for info in pkgutil.walk_packages(pairmatch.__path__, "pairmatch."):
        if info.name == "pairmatch.__main__":
            continue
        names = {f"{info.name}.{name}" for name, _ in members(importlib.import_module(info.name))}
        if names and not any(
            info.name == module or info.name.startswith(f"{module}.") for module in internal
        ):
            assert names <= shown, f"on no API page: {', '.join(sorted(names - shown))}"


def test_api_pages_show_every_registered_part():
    shown = documented()
    points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    for group, parts in points.items():
        for name, target in parts.items():
            assert target.replace(":", ".") in shown, (
                f"{group}: {name} ({target}) is on no API page"
            )


def test_api_pages_show_everything_that_docs_and_examples_import():
    shown = documented()
    sources = [block.values[0] for block in blocks("python")]
    sources += [path.read_text() for path in (ROOT / "examples").rglob("*.py")]
    for module, names in re.findall(
        r"^from (pairmatch\.[\w.]+) import ([\w, ]+)$", "\n".join(sources), re.MULTILINE
    ):
        for name in names.split(","):
            value = getattr(importlib.import_module(module), name.strip())
            if inspect.isclass(value) or inspect.isfunction(value):
                assert f"{value.__module__}.{value.__qualname__}" in shown, (
                    f"{module}.{name.strip()} is on no API page"
                )


def test_documented_names_have_docstrings():
    """A name without a docstring is left out of its page."""
    for name in sorted(documented()):
        value = resolve(name)
        assert inspect.getdoc(value), name
        if inspect.isclass(value):
            for member, attribute in vars(value).items():
                public = not member.startswith("_") and (
                    inspect.isfunction(attribute) or isinstance(attribute, property)
                )
                assert not public or inspect.getdoc(attribute), f"{name}.{member}"


def test_types_are_shipped():
    assert (Path(pairmatch.__file__).parent / "py.typed").exists()


def test_the_citation_names_the_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == pairmatch.__version__
    assert citation["license"] == "Apache-2.0"
    for authors in (citation["authors"], *(work["authors"] for work in citation["references"])):
        assert len({tuple(author.items()) for author in authors}) == len(authors)  # of its schema
