"""README and docs.

Code runs, commands parse, links lead somewhere, and every public name has its place in the API.
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
    """Code blocks of all pages as test parameters."""
    return [
        pytest.param(code, id=f"{NAMES[page]}-{number}")
        for page, text in TEXTS.items()
        for number, code in enumerate(re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL), 1)
    ]


# --- Python


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """The demo's people, drawn once, and one store.

    A feature is computed once for all the examples.
    """
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


def test_there_are_examples():
    assert len(blocks("python")) >= 15


# --- commands


def commands():
    """Lines of the pages' text blocks that call pairmatch, also after `&&`."""
    for block in blocks("text"):
        for line in re.split(r"\n|&&", block.values[0].replace("\\\n", " ")):
            words = line.split()
            if words and Path(words[0]).name == "pairmatch" and "COMMAND" not in words:
                yield pytest.param(line.strip(), id=line.strip())


@pytest.mark.parametrize("line", sorted(set(commands()), key=lambda one: one.id))
def test_commands_are_understood(line):
    """Parses a documented command with the real commands, and runs nothing."""
    group = typer.main.get_command(app)
    name, *arguments = shlex.split(line)[1:]
    assert name in group.commands, f"there is no command {name}"
    arguments = [one for one in arguments if one not in ("…", "[OPTIONS]")]
    group.commands[name].make_context(name, arguments)


def test_there_are_commands():
    assert len(list(commands())) >= 20


def test_the_page_of_the_commands_holds_every_command_and_option(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    import mkdocs_hooks

    page = mkdocs_hooks.on_page_markdown((DOCS / "commands.md").read_text())
    sys.modules.pop("mkdocs_hooks")
    for name, command in typer.main.get_command(app).commands.items():
        section = page.split(f"## `pairmatch {name}`")[1].split("\n## ")[0]
        for part in command.params:
            if part.param_type_name == "option":
                assert f"`{part.opts[0]}`" in section, f"{name}: {part.opts[0]}"


def test_help_shows_the_defaults_that_are_words():
    """Square brackets in a help text would be taken for markup, and vanish."""
    for name, command in typer.main.get_command(app).commands.items():
        for part in command.params:
            assert "[" not in (part.help or ""), f"{name}: {part.opts}"


# --- links


def anchors(page):
    """Anchors of a page's headings; those of generated API pages are names."""
    text = TEXTS[page]
    found = set(re.findall(r'id="([^"]+)"', text))
    for heading in re.findall(
        r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE
    ):
        slug = slugify(re.sub(r"[`*]", "", heading), "-")
        found.add(slug)
    return found | {
        name
        for name in documented()
        if f"::: {name.rpartition('.')[0]}" in text or f"::: {name}" in text
    }


@pytest.mark.parametrize("page", PAGES, ids=NAMES.get)
def test_links_lead_somewhere(page):
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
        """Takes mkdocs' own tags for nothing."""

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
    """Public names that a module defines itself.

    Classes, functions, and what carries a comment of its own.
    """
    for name, value in vars(module).items():
        defined = inspect.isclass(value) or inspect.isfunction(value)
        if not name.startswith("_") and defined and value.__module__ == module.__name__:
            yield name, value


def resolve(name):
    """The module or member of a dotted name."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        module, _, member = name.rpartition(".")
        return getattr(importlib.import_module(module), member)


def documented():
    """Full names of what the API pages show."""
    found = set()
    for name in DIRECTIVES:
        value = resolve(name)
        if inspect.ismodule(value):
            found.update(f"{name}.{member}" for member, _ in members(value))
        else:
            found.add(f"{value.__module__}.{value.__qualname__}")
    return found


def test_api_pages_show_every_public_name():
    found = documented()
    for name in pairmatch.__all__:
        value = getattr(pairmatch, name)
        if name != "__version__":
            assert f"{value.__module__}.{value.__qualname__}" in found, (
                f"pairmatch.{name} is on no API page"
            )


#: Modules whose names are reached through others: the command line has its own page, files and hub
#: serve `Matcher`.
INTERNAL = {
    "cli",
    "files",
    "hub",
    "saved",
    "tables",
    "search",
    "report.plots",
    "data.reading",
    "intervals",
}
INTERNAL |= {
    "metadata.models",
    "metadata.schema",
    "metadata.pace",
    "gallery.blocks",
    "gallery.folder",
    "gallery.selection",
    "rules.columns",
    "rules.evaluation",
}


def test_every_module_is_shown_or_internal():
    found, internal = documented(), {f"pairmatch.{name}" for name in INTERNAL}
    for info in pkgutil.walk_packages(pairmatch.__path__, "pairmatch."):
        if info.name == "pairmatch.__main__":
            continue
        names = {f"{info.name}.{name}" for name, _ in members(importlib.import_module(info.name))}
        if names and not any(
            info.name == one or info.name.startswith(f"{one}.") for one in internal
        ):
            assert names <= found, f"on no API page: {', '.join(sorted(names - found))}"


def test_api_pages_show_every_registered_part():
    found = documented()
    points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    for group, parts in points.items():
        for name, target in parts.items():
            assert target.replace(":", ".") in found, (
                f"{group}: {name} ({target}) is on no API page"
            )


def test_api_pages_show_whatever_docs_and_examples_import():
    found = documented()
    sources = [block.values[0] for block in blocks("python")]
    sources += [path.read_text() for path in (ROOT / "examples").rglob("*.py")]
    for module, names in re.findall(
        r"^from (pairmatch\.[\w.]+) import ([\w, ]+)$", "\n".join(sources), re.MULTILINE
    ):
        for name in names.split(","):
            value = getattr(importlib.import_module(module), name.strip())
            if inspect.isclass(value) or inspect.isfunction(value):
                assert f"{value.__module__}.{value.__qualname__}" in found, (
                    f"{module}.{name.strip()} is on no API page"
                )


def test_what_the_api_pages_show_is_described():
    """A name without a docstring would be left out of its page."""
    for name in sorted(documented()):
        value = resolve(name)
        assert inspect.getdoc(value), name
        if inspect.isclass(value):
            for member, learner in vars(value).items():
                public = not member.startswith("_") and (
                    inspect.isfunction(learner) or isinstance(learner, property)
                )
                assert not public or inspect.getdoc(learner), f"{name}.{member}"


def test_types_are_shipped():
    assert (Path(pairmatch.__file__).parent / "py.typed").exists()
