"""What commands read about people, and what they say about it."""

import json
import shlex

import pytest
from PIL import Image
from typer.testing import CliRunner

from pairmatch.cli import app


def run(line, code=0):
    """Runs a command, checks its exit code and returns its output."""
    result = CliRunner().invoke(app, shlex.split(line))
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("people")
    rows = ["id_a,image_a,id_b,image_b"]
    for index in range(12):
        for side in "ab":
            color = (index * 20, 90, 200 * (side == "a"))
            Image.new("RGB", (16, 16), color).save(folder / f"{side}{index}.png")
        rows.append(f"a{index},a{index}.png,b{index},b{index}.png")
    (folder / "pairs.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="module")
def matcher(folder):
    run(
        f"fit {folder / 'pairs.csv'} --backbone descriptor --metadata none --learner frozen "
        f"--output {folder / 'matcher'} --store {folder / 'store.sqlite'} --no-learning-curve "
        "--quiet"
    )
    return folder / "matcher"


def test_a_missing_id_can_be_kept(folder, tmp_path):
    path = folder / "namibia.csv"
    path.write_text("id_a,image_a,id_b,image_b\nNA,a1.png,b,b1.png\n")
    command = f"annotate {path} --metadata measured --store {tmp_path / 'store.sqlite'} --quiet"
    output = run(command, code=2)
    assert "id_a: 1 cell 'NA'. To keep a word as a value" in output
    assert "column id_a: the id is missing: 'NA' stands for a missing value" in output
    run(f"{command} --keep-word NA")
    assert "Unknown word in `keep_words` (--keep-word) 'x'" in run(f"{command} --keep-word x", 2)


def test_links_can_be_followed(folder, tmp_path):
    (tmp_path / "photos").symlink_to(folder)
    path = tmp_path / "pairs.csv"
    path.write_text("id_a,image_a,id_b,image_b\na,photos/a1.png,b,photos/b1.png\n")
    command = f"annotate {path} --metadata measured --store {tmp_path / 'store.sqlite'} --quiet"
    assert "through a link. Allow links with follow_links=True (--follow-links)" in run(command, 2)
    run(f"{command} --follow-links")


def test_bytes_of_arguments_that_are_not_utf_8(folder, matcher, tmp_path):
    people = tmp_path / "people.csv"
    people.write_text("id,image,city\nb1,b1.png,Köln\nb2,b2.png,Bonn\n")
    common = (
        f"recommend {matcher} --query {folder / 'a1.png'} --gallery {people} --images {folder} "
        f"--store {tmp_path / 'store.sqlite'} --quiet"
    )
    output = run(f"{common} --text 'caf\udce9 \udcff' --attribute 'city=K\udcf6ln'")
    assert "--text: 2 characters that are not valid UTF-8 were replaced by U+FFFD" in output
    assert "--attribute: 1 characters that are not valid UTF-8 were replaced" in output
    for command in (
        f"{common} --id 'caf\udce9'",
        f"forget 'caf\udce9' --store {tmp_path / 'store.sqlite'}",
        f"gallery remove {tmp_path / 'gallery'} 'caf\udce9'",
    ):
        assert "'caf\\udce9' is not UTF-8" in " ".join(run(command, 2).replace("│", " ").split())


def test_ids_of_arguments_are_in_the_normal_form_of_files(folder, matcher, tmp_path):
    people = tmp_path / "people.csv"
    people.write_text("id,image\nJose\u0301,b1.png\nb2,b2.png\n")
    store = f"--store {tmp_path / 'store.sqlite'}"
    gallery = tmp_path / "gallery"
    run(f"gallery build {matcher} {people} --output {gallery} --images {folder} {store} --quiet")
    common = f"recommend {matcher} --query {folder / 'a1.png'} --gallery {gallery} {store} --json"
    ids = [row["id"] for row in json.loads(run(f"{common} --quiet"))["recommendations"]]
    assert sorted(ids) == ["José", "b2"]
    assert "Erased 1 of 1 people" in run(f"forget Jose\u0301 {store}")
    assert "Removed 1 of 1 people" in run(f"gallery remove {gallery} Jose\u0301")


def test_newcomers_have_the_types_of_their_gallery(folder, matcher, tmp_path):
    store = f"--store {tmp_path / 'store.sqlite'} --quiet"
    people = tmp_path / "people.csv"
    people.write_text("id,image,zip\nb1,b1.png,01234\nb2,b2.png,54321\n")
    gallery = tmp_path / "gallery"
    run(f"gallery build {matcher} {people} --output {gallery} --images {folder} {store}")
    people.write_text("id,image,zip\nb3,b3.png,1.50\n")  # alone, it would be a number
    run(f"gallery add {matcher} {gallery} {people} --images {folder} {store}")
    common = f"recommend {matcher} --query {folder / 'a1.png'} --gallery {gallery} --json {store}"
    found = json.loads(run(f"{common} --where \"zip = '1.50'\""))
    assert [row["id"] for row in found["recommendations"]] == ["b3"]
