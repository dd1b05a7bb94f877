"""Export and import of metadata, and corrections."""

import csv
import json
import stat
from typing import Literal

import numpy as np
import pytest
from openai_server import ANSWER, Server, good, reply, text
from PIL import Image
from pydantic import BaseModel

from pairmatch import Matcher, Profile
from pairmatch.core.errors import ConfigurationError, DataError
from pairmatch.io.store import Store
from pairmatch.metadata import Metadata, annotate, correct, export_metadata, import_metadata
from pairmatch.metadata.measured import MeasuredMetadata
from pairmatch.metadata.openai import OpenAIMetadata


class Outfit(BaseModel):
    garment: Literal["coat", "dress"]
    layers: int
    colours: list[str]
    warm: bool


OUTFIT = {"garment": "coat", "layers": 2, "colours": ["red", "sea green"], "warm": True}


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-very-secret")
    for name in (
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "http_proxy",
        "https_proxy",
        "all_proxy",
    ):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "store.sqlite") as opened:
        yield opened


@pytest.fixture
def people(photo):
    return [Profile(name, (photo(f"{name}.png"),)) for name in ("anna", "ben", "cleo")]


def writer(server, **options):
    return OpenAIMetadata(
        **{"model": "test", "base_url": server.url, "concurrency": 1, "max_retries": 0, **options}
    )


REFUSAL = reply([{"type": "refusal", "refusal": "I can't, sorry"}])


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
@pytest.mark.parametrize("schema", [Metadata, Outfit])
def test_exported_metadata_is_imported_unchanged(people, store, tmp_path, suffix, schema):
    answer = ANSWER if schema is Metadata else OUTFIT
    with Server(
        lambda number, body: REFUSAL if number == 1 else text(json.dumps(answer))
    ) as server:
        generator = writer(server, schema=schema, input_usd=1.0, output_usd=1.0)
        annotation = annotate(people, generator, store, allow_upload=True)
        file = tmp_path / f"metadata.{suffix}"
        assert export_metadata(file, people, generator, store) == 3
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        with Store(tmp_path / "other.sqlite") as target:
            assert import_metadata(file, people, generator, target) == 3
            imported = annotate(people, generator, target, allow_upload=True)
            assert imported.profiles == annotation.profiles
            assert imported.refused == annotation.refused
            assert imported.asked == 0
            assert import_metadata(file, people, generator, target) == 0
            assert export_metadata(tmp_path / f"again.{suffix}", people, generator, target) == 3
            assert (tmp_path / f"again.{suffix}").read_bytes() == file.read_bytes()
            # Imported outcomes are linked to people
            assert target.forget(["anna"]).metadata == 1


def test_imported_files_must_match_people_photos_and_generator(people, store, tmp_path, photo):
    with Server(good) as server:
        generator = writer(server)
        annotate(people, generator, store, allow_upload=True)
        file = tmp_path / "metadata.csv"
        export_metadata(file, people, generator, store)
        changed = [
            Profile("anna", (photo("new.png"),)),
            people[1],
        ]
        with pytest.raises(DataError) as caught:
            import_metadata(file, changed, generator, store)
        assert len(caught.value.problems) == 2
        assert (
            "line 2, column photo: the photo of 'anna' is not the exported one"
            in caught.value.problems[0]
        )
        assert "line 4, column id: no person has the id 'cleo'" in caught.value.problems[1]
        with pytest.raises(DataError, match="written with another model, prompt or schema"):
            import_metadata(file, people, writer(server, model="other"), store)
        file.write_text(file.read_text().replace(",medium,", ",superb,"))
        with Store(tmp_path / "other.sqlite") as target:
            with pytest.raises(
                DataError,
                match=r"3 problems; nothing was imported:\n"
                r".*line 2, column attributes: grooming_level",
            ):
                import_metadata(file, people, generator, target)
            assert target.counts()["metadata"] == 0
    with pytest.raises(ConfigurationError, match=r"exported as .csv or .jsonl, got 'metadata.txt'"):
        export_metadata(tmp_path / "metadata.txt", people, generator, store)


def test_corrections_override_every_generator(people, store, tmp_path):
    file = tmp_path / "metadata.csv"
    file.write_text(
        "id,grooming_level,caption,style_vibe\nanna,high,I sing.,\nben,,-,\nstranger,low,,\n"
    )
    with Server(good) as server:
        first, second = writer(server), writer(server, model="another")
        annotate(people, first, store, allow_upload=True)
        assert correct(file, people, first, store) == 3
        for generator in (first, second):
            anna, ben, cleo = annotate(people, generator, store, allow_upload=True).profiles
            assert anna.metadata == Metadata(
                **{**ANSWER, "grooming_level": "high", "caption": "I sing."}
            )
            assert ben.metadata == Metadata(**{**ANSWER, "caption": None})
            assert cleo.metadata == Metadata(**ANSWER)
        # Generated values are not overwritten
        export_metadata(tmp_path / "out.csv", people, first, store)
        with (tmp_path / "out.csv").open() as opened:
            row = next(csv.DictReader(opened))
        assert row["grooming_level"] == "medium"
        assert json.loads(row["corrections"]) == {"grooming_level": "high", "caption": "I sing."}
        # Attributes of another schema are ignored
        assert annotate(people, MeasuredMetadata(), store).profiles[0].metadata is not None
        erased = store.forget(["anna"])
        assert erased.corrections == 2
        assert annotate(people[:1], first, store, allow_upload=True).profiles[
            0
        ].metadata == Metadata(**ANSWER)


def test_an_edited_export_can_be_read_as_corrections(people, store, tmp_path):
    file = tmp_path / "metadata.csv"
    with Server(good) as server:
        generator = writer(server)
        annotate(people, generator, store, allow_upload=True)
        export_metadata(file, people, generator, store)
        assert correct(file, people, generator, store) == 0  # unchanged cells are not corrections
        file.write_text(file.read_text().replace("A person smiles in a garden.", "I laugh.", 1))
        assert correct(file, people, generator, store) == 1
        assert store.corrections(["anna", "ben"]) == {"anna": {"caption": "I laugh."}}
        export_metadata(file, people, generator, store)
        file.write_text(file.read_text().replace("natural", "classic", 1))
        assert correct(file, people, generator, store) == 1  # the earlier correction is preserved
        assert store.corrections(["anna"]) == {
            "anna": {"caption": "I laugh.", "appearance_type": "classic"}
        }


def test_people_with_complete_corrections_are_not_submitted(people, store, tmp_path):
    file = tmp_path / "metadata.jsonl"
    file.write_text(
        "".join(json.dumps({"id": name, **OUTFIT}) + "\n" for name in ("anna", "without-a-photo"))
    )
    people = [*people[:1], Profile("without-a-photo", text="hi")]
    with Server(good) as server:
        generator = writer(server, schema=Outfit)
        assert correct(file, people, generator, store) == 2
        annotation = annotate(people, generator, store, allow_upload=True)
        assert [profile.metadata for profile in annotation.profiles] == [Outfit(**OUTFIT)] * 2
        assert not server.requests
        assert not annotation.refused


def test_all_problems_of_a_corrections_file_are_reported_at_once(people, store, tmp_path):
    file = tmp_path / "metadata.csv"
    file.write_text("id,garment,layers,colour\nanna,hat,-,red\nanna,coat,2,\n,coat,2,\n")
    with Server(good) as server, pytest.raises(DataError) as caught:
        correct(file, people, writer(server, schema=Outfit), store)
    assert [problem.split(": ", 1)[0] for problem in caught.value.problems] == [
        "metadata.csv",
        "metadata.csv line 2, column garment",
        "metadata.csv line 2, column layers",
        "metadata.csv line 3, column id",
        "metadata.csv line 4, column id",
    ]
    assert "Unknown column 'colour'. Did you mean 'colours'?" in caught.value.problems[0]
    assert "'hat': Input should be 'coat' or 'dress'" in caught.value.problems[1]
    assert "cannot be erased" in caught.value.problems[2]
    assert not store.corrections(["anna"])


def test_a_matcher_applies_corrections_from_its_store(people, tmp_path, hash_backbone):
    file = tmp_path / "metadata.csv"
    file.write_text("id,colours\nanna,the very colours of the sea\n")
    matcher = Matcher(
        backbone=hash_backbone,
        metadata="measured",
        head="identity",
        store=tmp_path / "store.sqlite",
    )
    before = matcher.embed(people)
    correct(file, people, matcher.metadata, matcher.store)
    after = matcher.embed(people)
    assert not np.allclose(before[0], after[0])
    assert np.array_equal(before[1:], after[1:])


def test_the_commands_import_correct_export_and_retry(people, tmp_path):
    from typer.testing import CliRunner

    from pairmatch.cli import app

    folder = people[0].images[0].parent
    people[2:] = [Profile("dan", (folder / "dan.png",))]
    Image.new("RGB", (9, 9), "red").save(folder / "dan.png")
    (folder / "pairs.csv").write_text(
        "id_a,image_a,id_b,image_b\nanna,anna.png,ben,ben.png\nanna,anna.png,dan,dan.png\n"
    )
    (folder / "corrections.csv").write_text("id,caption\nanna,I sing.\n")
    (folder / "outfit.json").write_text(json.dumps(Outfit.model_json_schema()))
    with Server(lambda number, body: REFUSAL) as server:

        def command(*more, code=0):
            arguments = [
                "annotate",
                folder / "pairs.csv",
                "--metadata",
                "openai",
                "--set",
                "metadata.model=gpt-6-luna",
                "--quiet",
            ]
            arguments += ["--set", f"metadata.base_url={server.url}", "--store", tmp_path / "s"]
            result = CliRunner().invoke(app, [str(part) for part in (*arguments, *more)])
            assert result.exit_code == code, result.output
            return result.output

        output = command("--yes", "--max-usd", "1")
        assert (
            "anna, ben, dan: refusal: I can't, sorry" in output
        )  # identical messages are printed once
        assert "Total of this store: gpt-6-luna: 3 calls, 3,300 tokens, $0.0003." in output
        server.behave = good
        assert "0 photos to submit, 3 already answered" in command("--dry-run")
        assert "3 of 3 people have metadata" in command("--yes", "--retry-refused")
        assert "Imported corrections of 1 people from" in command(
            "--corrections", folder / "corrections.csv"
        )
        assert "Exported 3 rows to" in command("--export", folder / "out.jsonl")
        assert "Imported 0 new outcomes from" in command("--import", folder / "out.jsonl")
        rows = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
        assert rows[0]["corrections"] == '{"caption": "I sing."}'
        server.behave = lambda number, body: text(json.dumps(OUTFIT))
        assert "3 of 3 people have metadata" in command(
            "--yes", "--set", f"metadata.schema={folder / 'outfit.json'}"
        )
        assert "/files" not in command("--batch")  # all photos have outcomes
        assert (
            "MeasuredMetadata does not support batches"
            in CliRunner()
            .invoke(
                app,
                [
                    "annotate",
                    str(folder / "pairs.csv"),
                    "--metadata",
                    "measured",
                    "--batch",
                    "--store",
                    str(tmp_path / "t"),
                ],
            )
            .output
        )


@pytest.mark.parametrize("value", ["abc", "nan", "inf", "-1"])
def test_costs_that_are_not_numbers_are_reported(people, store, tmp_path, value):
    generator = MeasuredMetadata()
    file = tmp_path / "metadata.csv"
    annotate(people, generator, store)
    export_metadata(file, people, generator, store)
    rows = list(csv.DictReader(file.read_text().splitlines()))
    rows[1]["input_tokens"] = value
    with file.open("w") as opened:
        writer = csv.DictWriter(opened, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    with pytest.raises(DataError, match="line 3, column input_tokens"):
        import_metadata(file, people, generator, store)


def test_corrections_of_people_who_are_not_in_the_data(tmp_path, caplog):
    file = tmp_path / "corrections.csv"
    people = [Profile("1"), Profile("2")]
    with Store(tmp_path / "store.sqlite") as store:
        file.write_text("id,framing\n1.0,square\n2.0,square\n")
        with pytest.raises(DataError) as caught:
            correct(file, people, MeasuredMetadata(), store)
        assert str(caught.value).startswith(
            f"{file}: 2 of 2 corrected people are not in the data, such as '1.0'. '1.0' is '1' "
            "there: whole numbers were written as fractions"
        )
        assert store.corrections(["1.0", "2.0"]) == {}
        file.write_text("id,framing\n1,square\n9,None\n")
        assert correct(file, people, MeasuredMetadata(), store) == 2
        assert store.corrections(["9"]) == {"9": {"framing": "None"}}  # the word of a schema
        assert "1 of 2 corrected people are not in the data, such as '9'." in caplog.text
