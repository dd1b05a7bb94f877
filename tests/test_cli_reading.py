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


def test_columns_of_a_warehouse_and_bad_rows(folder, matcher, tmp_path):
    store = f"--store {tmp_path / 'store.sqlite'} --quiet"
    (folder / "broken.png").write_bytes(b"no")
    people = [f"{side}{n},{side}{n}.png,{70000 + n}" for side in "ab" for n in range(12)]
    people[3] = "a3,broken.png,70003"
    users = tmp_path / "users.csv"
    users.write_text("user_id,photo_url,zip\n" + "\n".join(people) + "\n")
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("liker,liked\n" + "".join(f"a{n},b{n}\n" for n in range(12)))
    tables = (
        f"--profiles {users} --images {folder} --column user_id=id --column photo_url=image "
        "--column liker=id_a --column liked=id_b"
    )
    annotate = f"annotate {pairs} {tables} --metadata measured {store}"
    assert "not a photo in a format" in run(annotate, code=2)
    output = run(f"{annotate} --on-bad-row skip", code=2)
    assert "1 of 12 pairs cannot be used, more than 5.0%" in output
    output = run(f"{annotate} --on-bad-row skip --most-skipped 0.1")
    assert "left out 1 of 24 people and 1 of 12 pairs" in output
    assert "pairs.csv line 5" in output
    fit = (
        f"fit {pairs} {tables} --backbone descriptor --metadata none --learner frozen {store} "
        f"--no-learning-curve --output {tmp_path / 'fitted'}"
    )
    output = run(f"{fit} --on-bad-row skip --most-skipped 0.1")
    skipped = tmp_path / "fitted" / "skipped.csv"
    assert f"2 problems of rows that were left out: listed in {skipped}." in output
    assert [line.split(",")[:4] for line in skipped.read_text().splitlines()] == [
        ["file", "location", "column", "id"],
        ["pairs.csv", "line 5", "id_a", "a3"],
        ["users.csv", "line 5", "image", "a3"],
    ]
    users.write_text(users.read_text().replace("broken.png", "a3.png"))
    run(fit)
    assert not skipped.exists()
    gallery = f"gallery build {matcher} {users} --output {tmp_path / 'gallery'} --images {folder}"
    names = "--column user_id=id --column photo_url=image"
    run(f"{gallery} {names} --text-column zip {store}")
    about = json.loads(run(f"gallery info {tmp_path / 'gallery'} --json"))
    assert about["attributes"] == {"zip": "text"}
    recommend = f"recommend {matcher} --query {folder / 'a1.png'} --gallery {users} {store}"
    run(f"{recommend} --images {folder} {names}")
    message = run(f"{gallery} {names} --column user=id {store}", code=2)
    assert "`columns` (--column) maps both 'user_id' and 'user' to 'id'." in message
    message = run(f"{gallery} --column userid=id --column photo_url=image {store}", code=2)
    assert (
        "there is no column 'userid' to read as 'id' (columns=, --column). Did you mean 'user_id'?"
        in message
    )
    assert "--column needs SOURCE=NAME" in run(f"{gallery} --column id {store}", code=2)


def test_what_was_skipped_is_listed_by_every_command(folder, matcher, tmp_path):
    store = f"--store {tmp_path / 'store.sqlite'} --quiet"
    (folder / "broken.png").write_bytes(b"no")
    people = tmp_path / "people.csv"
    rows = [f"{side}{n},{side}{n}.png" for side in "ab" for n in range(12)]
    people.write_text("id,image\n" + "\n".join([*rows, "c,broken.png"]) + "\n")
    listed = tmp_path / "skipped.csv"
    options = f"--images {folder} --on-bad-row skip --skipped {listed} {store}"
    gallery = tmp_path / "gallery"
    for command in (
        f"gallery build {matcher} {people} --output {gallery}",
        f"embed {people} --matcher {matcher} --output {tmp_path / 'vectors.npz'}",
        f"recommend {matcher} --query {folder / 'a1.png'} --gallery {people}",
    ):
        listed.unlink(missing_ok=True)
        output = run(f"{command} {options}")
        assert f"1 problem of rows that were left out: listed in {listed}." in output
        lines = listed.read_text().splitlines()
        assert lines[0] == "file,location,column,id,reason"
        assert lines[1].startswith("people.csv,line 26,image,c,")
    people.write_text("id,image\n" + "\n".join(rows) + "\n")
    run(f"gallery add {matcher} {gallery} {people} {options}")
    assert not listed.exists()  # it would be about an earlier run
    listed.write_text("mine")
    command = f"embed {people} --matcher {matcher} --output {tmp_path / 'vectors.npz'}"
    assert "holds something else than a list of skipped rows" in words(
        run(f"{command} {options}", 2)
    )
    listed.unlink()
    options = options.replace("--on-bad-row skip", "")
    assert "--skipped needs --on-bad-row skip" in words(run(f"{command} {options}", 2))


def test_options_about_tables_where_none_is_read(folder, matcher, tmp_path):
    store = f"--store {tmp_path / 'store.sqlite'} --quiet"
    photos = tmp_path / "photos"
    photos.mkdir()
    for n in range(3):
        (photos / f"b{n}.png").write_bytes((folder / f"b{n}.png").read_bytes())
    gallery = tmp_path / "gallery"
    build = f"gallery build {matcher} {photos} --output {gallery} {store}"
    output = words(run(f"{build} --column user_id=id --on-bad-row skip --keep-word NA", 2))
    assert (
        f"{photos} is a folder of photos, so that options about tables have no effect: leave out "
        "`keep_words` (--keep-word), `columns` (--column), `on_bad_row` (--on-bad-row)."
    ) in output
    run(build)
    recommend = f"recommend {matcher} --query {folder / 'a1.png'} --gallery {gallery} {store}"
    assert "is a stored gallery, so that options about tables have no effect" in words(
        run(f"{recommend} --images {photos}", 2)
    )


def test_columns_of_exclusions(folder, matcher, tmp_path):
    store = f"--store {tmp_path / 'store.sqlite'} --quiet"
    people = tmp_path / "people.csv"
    people.write_text("user_id,image\n" + "".join(f"b{n},b{n}.png\n" for n in range(5)))
    seen = tmp_path / "seen.csv"
    seen.write_text("viewer,seen\na1,b2\n")
    common = f"recommend {matcher} --query {folder / 'a1.png'} --id a1 --images {folder} --json"
    columns = "--column user_id=id --column viewer=id --column seen=other"
    command = f"{common} --gallery {people} --exclude {seen} {store}"
    assert "maps both 'user_id' and 'viewer' to 'id'" in words(run(f"{command} {columns}", 2))
    people.write_text(people.read_text().replace("user_id", "id"))
    columns = "--column viewer=id --column seen=other"
    shown = json.loads(run(f"{command} {columns}"))["recommendations"]
    assert {row["id"] for row in shown} == {"b0", "b1", "b3", "b4"}
    assert "exclusions need the columns id and other" in words(run(command, 2))
    gallery = tmp_path / "gallery"
    run(f"gallery build {matcher} {people} --images {folder} --output {gallery} {store}")
    slates = f"slates {gallery} --output {tmp_path / 'slates'} -k 2 --exclude {seen} --quiet"
    assert "exclusions need the columns id and other" in words(run(slates, 2))
    seen.write_text("viewer,seen\nb1,b2\n")
    run(f"{slates} {columns}")


def words(output):
    """Output without frames and line breaks of the terminal."""
    return " ".join(output.replace("│", " ").split())
