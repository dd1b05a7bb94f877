"""Every Python example of README and docs runs; files that an example reads are the demo's."""

import re
from pathlib import Path

import pytest

from pairmatch.demo import draw_people

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
EXAMPLES = [
    pytest.param(code, id=f"{page.stem}-{number}")
    for page in PAGES
    for number, code in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL), 1)
]


@pytest.fixture
def working_folder(tmp_path, monkeypatch):
    people = draw_people(tmp_path / "people", pairs=60, size_px=48)
    (tmp_path / "pairs.csv").write_text(people.read_text())
    (tmp_path / "people").rename(tmp_path / "photos")
    (tmp_path / "me.jpg").write_bytes((tmp_path / "photos" / "images" / "a0000.jpg").read_bytes())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


@pytest.mark.parametrize("code", EXAMPLES)
def test_examples_run(code, working_folder):
    exec(compile(code, "example", "exec"), {"__name__": "example"})


def test_there_are_examples():
    assert len(EXAMPLES) >= 5


def test_pages_name_only_files_that_exist():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize(("script", "said"), [("vectors_alone", "trained"), ("market_slates", "balanced: expected")])
def test_the_scripts_of_the_examples_run(script, said, capsys):
    import runpy

    runpy.run_path(str(ROOT / "examples" / f"{script}.py"), run_name="__main__")
    assert said in capsys.readouterr().out
