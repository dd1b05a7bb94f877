"""The container: its files are linted, and say what the command line takes."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import typer
import yaml

from pairmatch.cli import app

ROOT = Path(__file__).parents[1]
IMAGE = (ROOT / "Dockerfile").read_text().replace("\\\n", "")


def instruction(name):
    """The list of words of the last instruction of a name."""
    return json.loads(re.findall(rf"\b{name} +(\[.*\])$", IMAGE, re.MULTILINE)[-1])


def test_the_image_has_no_findings_of_the_linter():
    linter = shutil.which("hadolint")
    if linter is None:
        pytest.skip("hadolint is not installed")
    result = subprocess.run(
        [linter, ROOT / "Dockerfile"], capture_output=True, text=True, timeout=60
    )
    assert (result.returncode, result.stdout) == (0, "")


def test_the_image_starts_a_service_with_options_that_exist():
    program, name, *words = [*instruction("ENTRYPOINT"), *instruction("CMD")]
    assert program == "pairmatch"
    command = typer.main.get_command(app).commands[name]
    values, _, _ = command.make_parser(command.context_class(command)).parse_args(words)
    assert values["host"] == "0.0.0.0"
    places = [values["matcher"], values["exclusions"], values["store"]]
    places += [folder.partition("=")[2] for folder in values["gallery"]]
    volumes = mounted()
    assert all(any(place.startswith(volume) for volume in volumes) for place in places)
    assert "USER 10001" in IMAGE


def mounted():
    service = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]["pairmatch"]
    return [volume.partition(":")[2] for volume in service["volumes"]]


def test_the_service_is_confined():
    content = yaml.safe_load((ROOT / "compose.yaml").read_text())
    service = content["services"]["pairmatch"]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["environment"]["PAIRMATCH_TOKEN"].startswith("${PAIRMATCH_TOKEN:?")
    assert service["ports"] == ["127.0.0.1:8000:8000"]
    assert set(content["volumes"]) == {volume.partition(":")[0] for volume in service["volumes"]}


def test_the_build_context_holds_what_is_copied():
    kept = (ROOT / ".dockerignore").read_text().splitlines()
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", IMAGE, re.MULTILINE)
    for name in " ".join(copied).split():
        assert f"!{name}" in kept
        assert (ROOT / name).exists()
