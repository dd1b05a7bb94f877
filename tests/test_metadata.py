"""Metadata generators, with the real client and a local server."""

import base64
import datetime
import io
import json
import logging
import os
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pytest
from openai_server import ANSWER, Server, error, good, late, reply, text
from PIL import Image
from pydantic import BaseModel, Field

from pairmatch import Matcher, Profile, TrainingConfig
from pairmatch.cli.options import metadata_spec
from pairmatch.core import registry
from pairmatch.core.errors import ConfigurationError, GeneratorError, UploadError
from pairmatch.features.prompt import render
from pairmatch.io.store import Store
from pairmatch.metadata import Metadata, annotate, estimate, models
from pairmatch.metadata.limits import RateLimit
from pairmatch.metadata.measured import MeasuredMetadata
from pairmatch.metadata.models import (
    MODELS,
    TABLE_DATE,
    end_notice,
    generator_in_service,
    succession,
)
from pairmatch.metadata.openai import GPT5NanoMetadata, OpenAIMetadata
from pairmatch.metadata.schema import (
    INSTRUCTIONS,
    json_schema,
    read_reply,
    read_schema,
    schema_key,
    write_schema,
)
from pairmatch.testing import check_metadata_generator

KEY = "sk-test-very-secret"


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
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
def people(tmp_path):
    """Six people whose photos contain private data that must not be uploaded."""
    profiles = []
    for index in range(6):
        exif = Image.Exif()
        exif[0x010E] = "taken at Anna's home"
        exif[0x8825] = {1: "N", 2: (52.0, 30.0, 0.0)}
        path = tmp_path / f"secret-name-{index}.jpg"
        noise = np.random.default_rng(index).integers(0, 255, (8, 8, 3), np.uint8)
        Image.fromarray(noise).resize((900, 700)).save(path, exif=exif, comment=b"secret-comment")
        profiles.append(Profile(f"secret-id-{index}", (path,), text="secret-text"))
    return profiles


def generator(server, **options):
    return OpenAIMetadata(
        **{
            "model": "test",
            "base_url": server.url,
            "concurrency": 2,
            "timeout_seconds": 5.0,
            **options,
        }
    )


def run(people, store, server, **options):
    return annotate(people, generator(server), store, allow_upload=True, **options)


def test_answers_are_stored_and_paid_for_once(people, store):
    with Server(good) as server:
        priced = generator(server, input_usd=1.0, output_usd=10.0)
        result = annotate(people, priced, store, allow_upload=True)
        assert all(profile.metadata == Metadata(**ANSWER) for profile in result.profiles)
        assert result.asked == len(server.requests) == 6
        assert result.usage.input_tokens == 6000
        assert result.usage.usd == pytest.approx(6 * (1000 * 1.0 + 100 * 10.0) / 1e6)
        second = annotate(people, priced, store, allow_upload=True)
        assert second.profiles == result.profiles
        assert second.asked == 0
        assert len(server.requests) == 6
        another = annotate(people, generator(server, model="another"), store, allow_upload=True)
        assert another.asked == 6  # each model has its own outcomes
    assert "caption: A person smiles in a garden." in render(result.profiles[0])


def test_only_pixels_are_uploaded(people, store):
    with Server(good) as server:
        run(people, store, server)
        sent = b"".join(server.requests)
        assert b"secret" not in sent
        body = json.loads(server.requests[0])
        photo = base64.b64decode(body["input"][0]["content"][0]["image_url"].split(",")[1])
        image = Image.open(io.BytesIO(photo))
        assert image.size == (512, 398)
        assert not image.getexif()
        assert b"secret" not in photo
        assert b"Exif" not in photo
        assert body["store"] is False
        assert body["text"]["format"]["strict"] is True
        assert body["text"]["format"]["schema"] == json_schema(Metadata)


def test_identical_photos_are_submitted_once(people, store):
    with_duplicate = [*people, Profile("duplicate", people[0].images)]
    with Server(good) as server:
        assert run(with_duplicate, store, server).profiles[-1].metadata is not None
        assert len(server.requests) == 6


def once(first):
    """Answers the first request with `first` and all others with valid metadata."""
    return lambda number, body: first if number == 0 else good(number, body)


@pytest.mark.parametrize(
    "first",
    [
        error(429, "slow down", headers={"Retry-After": "0.01", "retry-after-ms": "10"}),
        error(500, "oops", headers={"retry-after-ms": "10"}),
        None,
    ],
    ids=["429", "500", "dropped connection"],
)
def test_transient_failures_are_retried(people, store, first):
    with Server(once(first)) as server:
        assert not run(people, store, server).refused
        assert len(server.requests) == 7


@pytest.mark.parametrize(
    ("answer", "kind", "detail"),
    [
        (
            reply([{"type": "refusal", "refusal": "I can't help with that"}]),
            "refusal",
            "I can't help",
        ),
        (
            reply([], status="incomplete", reason="max_output_tokens"),
            "truncated",
            "raise max_output_tokens",
        ),
        (
            reply([], status="incomplete", reason="content_filter"),
            "content_filter",
            "content filter",
        ),
        (text('{"caption": "cut'), "invalid", "not valid JSON"),
        (text("[]"), "invalid", "not a JSON object"),
        (text(json.dumps({**ANSWER, "grooming_level": "superb"})), "invalid", "grooming_level"),
        (
            text(json.dumps({**ANSWER, "caption": None})),
            "invalid",
            "attributes are missing: caption",
        ),
        (error(400, "blocked", code="content_filter"), "content_filter", "blocked"),
        (text(json.dumps({**ANSWER, "mood": "good"})), "invalid", "mood: Extra inputs"),
    ],
)
def test_refusals_are_stored_and_other_photos_are_annotated(people, store, answer, kind, detail):
    with Server(once(answer)) as server:
        result = annotate(people, generator(server, concurrency=1), store, allow_upload=True)
        assert list(result.refused) == ["secret-id-0"]
        assert result.refused["secret-id-0"].kind == kind
        assert detail in result.refused["secret-id-0"].detail
        assert "5 of 6 people have metadata; 6 photos submitted in this run" in str(result)
        assert f"; 1 {kind}." in str(result)
        second = run(people, store, server)
        assert list(second.refused) == ["secret-id-0"]  # stored and not resubmitted
        assert len(server.requests) == 6
        retried = run(people, store, server, retry_refused=True)
        assert not retried.refused
        assert len(server.requests) == 7


def test_timeouts_are_outcomes_and_retried_in_the_next_run(people, store):
    with Server(late(0.5)) as server:
        quick = generator(server, timeout_seconds=0.1, max_retries=0)
        result = annotate(people[:1], quick, store, allow_upload=True)
        assert result.refused["secret-id-0"].kind == "error"
        assert "APITimeoutError" in result.refused["secret-id-0"].detail
    with Server(good) as server:
        assert not annotate(people[:1], generator(server), store, allow_upload=True).refused


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (
            error(401, "Incorrect API key provided", code="invalid_api_key"),
            "401: Incorrect API key provided .key from OPENAI_API_KEY",
        ),
        (
            error(404, "The model `x` does not exist", code="model_not_found"),
            "404: The model `x` does not exist Name another model with model=",
        ),
        (
            error(401, f"Incorrect key {KEY} given", code="invalid_api_key"),
            "401: Incorrect key … given",
        ),
        (
            error(
                429,
                "You exceeded your quota",
                code="insufficient_quota",
                headers={"retry-after-ms": "1"},
            ),
            "exceeded your quota",
        ),
    ],
)
def test_errors_that_affect_all_requests_stop_the_run(people, store, answer, expected):
    with Server(lambda number, body: answer) as server:
        with pytest.raises(GeneratorError, match=expected) as caught:
            run(people, store, server)
        # Two concurrent requests with at most three attempts each, not one request per person
        assert len(server.requests) <= 6
        assert KEY not in str(caught.value)


def test_answers_are_kept_if_the_key_is_revoked(people, store):
    revoked = error(401, "gone", code="invalid_api_key")
    with (
        Server(lambda number, body: good(number, body) if number < 3 else revoked) as server,
        pytest.raises(GeneratorError),
    ):
        annotate(people, generator(server, concurrency=1), store, allow_upload=True)
    assert store.counts()["metadata"] == 3
    assert store.spent()[0].calls == 3


def test_answers_are_kept_if_the_server_fails(people, store):
    with Server(lambda number, body: good(number, body) if number < 3 else None) as server:
        result = annotate(
            people, generator(server, concurrency=1, max_retries=0), store, allow_upload=True
        )
        assert len(server.requests) == 6
        assert {refusal.kind for refusal in result.refused.values()} == {"error"}
        assert all("APIConnectionError" in refusal.detail for refusal in result.refused.values())
        assert len(result.refused) == 3
    # The server is down
    assert (
        len(annotate(people, generator(server, max_retries=0), store, allow_upload=True).refused)
        == 3
    )
    assert store.spent()[0].calls == 3
    with Server(good) as server:
        result = annotate(people, generator(server), store, allow_upload=True)
        assert not result.refused
        assert len(server.requests) == 3  # only the missing photos
        assert store.spent()[0].calls == 6
        assert result.asked == 3


KILLED = """
import os, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from pairmatch import Profile
from pairmatch.metadata import annotate
from pairmatch.metadata.openai import OpenAIMetadata
from pairmatch.io.store import Store
people = [Profile(p.stem, (p,)) for p in sorted(Path(sys.argv[2]).glob("*.jpg"))]
writer = OpenAIMetadata(model="test", base_url=sys.argv[4], concurrency=1)
annotate(people, writer, Store(sys.argv[3]), allow_upload=True)
"""


def test_answers_are_kept_if_the_process_is_killed(people, store, tmp_path):
    running = []

    def behave(number, body):
        if number == 4:
            os.kill(running[0].pid, signal.SIGKILL)
        return good(number, body)

    with Server(behave) as server:
        command = [
            sys.executable,
            "-c",
            KILLED,
            str(Path(__file__).parent),
            str(tmp_path),
            str(store.path),
            server.url,
        ]
        running.append(subprocess.Popen(command))
        assert running[0].wait(60) == -signal.SIGKILL
        assert store.counts()["metadata"] == 4
        run(people, store, server)
        assert len(server.requests) == 5 + 2


def test_no_photo_is_sent_without_consent(people, store, tmp_path):
    with Server(good) as server:
        with pytest.raises(
            UploadError,
            match=r"6 photos to submit, 0 already answered; "
            rf"they would be sent to {server.url} for test, about .* tokens",
        ):
            annotate(people, generator(server), store)
        matcher = Matcher(
            backbone=("hf-text", {"model": "unused", "device": "cpu"}),
            metadata=generator(server),
            store=store,
        )
        with pytest.raises(UploadError, match="allow_upload=True"):
            matcher.annotate(people)
        assert not server.requests
        matcher = Matcher(backbone="descriptor", metadata=generator(server), store=store)
        # The backbone reads no text, so no photo is submitted
        assert matcher.annotate(people) == people
        priced = estimate(people, generator(server, model="gpt-6-luna"), store)
        assert priced.photos == 6
        assert 0 < priced.usage.usd < 0.01
        assert not server.requests


@pytest.mark.parametrize("concurrency", [1, 6])
def test_the_cost_limit_is_never_exceeded(people, store, concurrency):
    with Server(late(0.02)) as server:
        priced = generator(server, input_usd=1000.0, output_usd=0.0, concurrency=concurrency)
        assert 1 < priced.worst_usd() < 1.5
        result = annotate(people, priced, store, allow_upload=True, max_usd=4.0)
        # Each photo costs $1, at most worst_usd: the last dollar does not cover another photo
        assert len(server.requests) == 3 if concurrency > 1 else len(server.requests) in (3, 4)
        assert result.usage.usd == pytest.approx(len(server.requests))
        assert result.usage.usd <= 4
        assert {refusal.kind for refusal in result.refused.values()} == {"stopped"}
        assert len(result.refused) == 6 - len(server.requests)
        assert not annotate(people, priced, store, allow_upload=True).refused
        assert len(server.requests) == 6
        with pytest.raises(
            ConfigurationError, match=r"none are known for test: pass input_usd and output_usd"
        ):
            annotate(
                people, generator(server, detail="high"), store, allow_upload=True, max_usd=1.0
            )


def test_the_store_totals_costs_by_model(people, store):
    with Server(once(text("no json"))) as server:
        priced = {"input_usd": 1.0, "output_usd": 10.0, "concurrency": 1}
        annotate(people, generator(server, **priced), store, allow_upload=True)
        annotate(people, generator(server, **priced), store, allow_upload=True, retry_refused=True)
        annotate(people[:1], generator(server, model="free"), store, allow_upload=True)
    free, test = store.spent()
    assert (test.model, test.calls, test.input_tokens, test.output_tokens) == ("test", 7, 7000, 700)
    assert test.usd == pytest.approx(
        7 * (1000 * 1.0 + 100 * 10.0) / 1e6
    )  # the invalid answer is included
    assert (free.calls, free.usd, free.unpriced) == (1, 0, 1)
    assert str(free) == "free: 1 calls, 1,100 tokens, $0.0000 and 1 calls of unknown price"
    store.forget([person.id for person in people])
    assert store.spent() == [free, test]  # totals contain no personal data


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_rate_limits_space_requests():
    clock = Clock()
    limit = RateLimit(120, None, clock)
    starts = []
    while len(starts) < 5:
        clock.now += limit.delay()
        limit.start(1000)
        starts.append(clock.now)
    assert starts == [0.0, 0.5, 1.0, 1.5, 2.0]
    clock.now = 0.0
    limit = RateLimit(None, 6000, clock)
    limit.start(1000)
    assert limit.delay() == pytest.approx(10)
    limit.settle(1000, 400)
    assert limit.delay() == pytest.approx(4)
    clock.now = 60.0
    assert limit.delay() == 0
    limit.start(100)
    assert limit.delay() == pytest.approx(1)  # idle time does not allow a burst


def test_rate_limits_delay_real_requests(people, store):
    with Server(good) as server:
        start = time.perf_counter()
        limited = generator(server, requests_per_minute=3000, concurrency=6)
        assert not annotate(people, limited, store, allow_upload=True).refused
        assert time.perf_counter() - start >= 5 * 60 / 3000
        start = time.perf_counter()
        limited = generator(server, model="other", tokens_per_minute=3_000_000, concurrency=6)
        assert not annotate(people, limited, store, allow_upload=True).refused
        assert time.perf_counter() - start >= 4 * 1000 * 60 / 3_000_000


def test_the_key_is_never_stored_logged_or_shown(people, store, tmp_path, caplog):
    with caplog.at_level(logging.DEBUG), Server(good) as server:
        writer = generator(server)
        annotate(people, writer, store, allow_upload=True)
        assert any(KEY in value for headers in server.headers for value in headers.values())
    kept = b"".join(file.read_bytes() for file in store.path.parent.glob("store.sqlite*"))
    assert KEY.encode() not in kept
    assert KEY not in caplog.text
    assert KEY not in json.dumps(writer.fingerprint())
    assert KEY not in str(vars(writer))
    with (
        caplog.at_level(logging.DEBUG),
        Server(lambda number, body: error(401, f"no {KEY}")) as server,
    ):
        try:
            annotate(people, generator(server, model="other"), store, allow_upload=True)
        except GeneratorError:
            assert KEY not in traceback.format_exc()


def test_a_missing_key_is_an_error_that_names_the_alternatives(people, store, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    server = "http://127.0.0.1:1/v1"  # shutdown dates do not apply, so the test stays valid
    for make in (
        lambda: GPT5NanoMetadata(base_url=server),
        lambda: OpenAIMetadata(model="gpt-6-luna"),
    ):
        with pytest.raises(
            GeneratorError,
            match=r"set the environment variable OPENAI_API_KEY.*'measured'.*base_url=",
        ):
            make().generate(people)


def test_an_unknown_model_is_an_error_that_names_the_successor(people, store):
    gone = error(404, "The model `gpt-5-nano` does not exist", code="model_not_found")
    with Server(lambda number, body: gone) as server:
        writer = GPT5NanoMetadata(base_url=server.url)
        with pytest.raises(
            GeneratorError,
            match=r"does not exist .*successor is gpt-6-luna.*metadata.model=gpt-6-luna",
        ):
            annotate(people, writer, store, allow_upload=True)


def test_gpt_5_nano_warns_before_its_shutdown_and_fails_after_it(caplog):
    before, after = datetime.date(2026, 11, 24), datetime.date(2026, 12, 11)
    with caplog.at_level(logging.WARNING):
        GPT5NanoMetadata().check(before)
    assert "shuts gpt-5-nano down on 2026-12-11; its successor is gpt-6-luna" in caplog.text
    assert "--set metadata.model=gpt-6-luna" in caplog.text
    with pytest.raises(
        GeneratorError, match="shut gpt-5-nano down on 2026-12-11; its successor is gpt-6-luna"
    ):
        GPT5NanoMetadata().check(after)
    assert end_notice("gpt-5-nano", datetime.date(2026, 1, 1)) is None
    assert end_notice("my-own-model", after) is None
    assert all(facts.successor in MODELS for facts in MODELS.values() if facts.ends)
    OpenAIMetadata(model="gpt-5-nano", base_url="http://127.0.0.1:1/v1").check(
        after
    )  # shutdown dates do not apply to other servers


def test_the_default_generator_is_replaced_by_its_successor_after_its_last_day():
    last, after = datetime.date(2026, 12, 10), datetime.date(2026, 12, 11)
    assert generator_in_service("gpt-5-nano", last) == "gpt-5-nano"
    spec = generator_in_service("gpt-5-nano", after)
    assert spec == ("openai", {"model": "gpt-6-luna"})
    successor = registry.create("metadata", spec)
    assert isinstance(successor, OpenAIMetadata)
    assert not isinstance(successor, GPT5NanoMetadata)
    assert generator_in_service("measured", after) == "measured"
    assert succession("gpt-6-luna", last) == "gpt-6-luna"
    assert succession("gpt-6-luna", after) == "gpt-6-luna, the successor of gpt-5-nano"
    assert succession("gpt-5-nano", after) == "gpt-5-nano"


def test_the_command_line_uses_the_successor_only_if_no_generator_is_named(monkeypatch):
    successor = ("openai", {"model": "gpt-6-luna"})
    monkeypatch.setattr(models, "generator_in_service", lambda name: successor)
    assert metadata_spec(None, {"detail": "high"}) == (
        "openai",
        {"model": "gpt-6-luna", "detail": "high"},
    )
    assert metadata_spec("gpt-5-nano", {}) == ("gpt-5-nano", {})
    assert metadata_spec("none", {}) is None


class Outfit(BaseModel):
    garment: Literal["coat", "dress"] = Field(description="What is worn.")
    layers: int
    colours: list[str]


class Nested(BaseModel):
    outfit: Outfit


def test_a_custom_schema_is_sent_read_and_rendered(people, store):
    answer = {"garment": "coat", "layers": 2, "colours": ["red", "grey"]}
    with Server(lambda number, body: text(json.dumps(answer))) as server:
        custom = generator(server, schema=Outfit)
        profile = annotate(people, custom, store, allow_upload=True).profiles[0]
        assert profile.metadata == Outfit(**answer)
        assert "Photo: garment: coat; layers: 2; colours: red, grey" in render(profile)
        assert json.loads(server.requests[0])["text"]["format"]["schema"]["required"] == [
            "garment",
            "layers",
            "colours",
        ]
    assert json_schema(Metadata)["properties"]["grooming_level"]["enum"] == [
        "low",
        "medium",
        "high",
    ]
    assert set(json_schema(Metadata)["required"]) == set(Metadata.model_fields)
    with pytest.raises(ConfigurationError, match="'outfit' of Nested is not flat"):
        OpenAIMetadata(model="x", schema=Nested)
    assert read_reply(Outfit, '{"garment": "coat", "layers": "x", "colours": []}').startswith(
        "layers:"
    )


def test_all_invalid_options_are_reported_at_once():
    with pytest.raises(
        ConfigurationError,
        match=r"longest_side_px must be at least 1.*concurrency must be.*detail must be",
    ):
        OpenAIMetadata(model="x", longest_side_px=0, concurrency=0, detail="much")


def test_measured_metadata_describes_known_photos(tmp_path):
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 255, (700, 400), np.uint8)).convert("RGB")
    red = Image.new("RGB", (1200, 1100), (220, 20, 30))
    dark = Image.new("RGB", (900, 500), (20, 20, 22))
    people = [
        Profile(name, (image,)) for name, image in (("noise", noise), ("red", red), ("dark", dark))
    ]
    check_metadata_generator(MeasuredMetadata(), people)
    noise_outcome, red_outcome, dark_outcome = MeasuredMetadata().generate(people)
    assert noise_outcome.sharpness == "high"
    assert noise_outcome.framing == "portrait"
    assert noise_outcome.resolution == "low"
    assert noise_outcome.colours == "black and white"
    assert red_outcome.sharpness == "low"
    assert red_outcome.framing == "square"
    assert red_outcome.resolution == "high"
    assert red_outcome.colours == "red"
    assert dark_outcome.exposure == "dark, flat"
    assert dark_outcome.framing == "landscape"
    (tmp_path / "broken.jpg").write_bytes(b"no")
    (refusal,) = MeasuredMetadata().generate([Profile("x", (tmp_path / "broken.jpg",))])
    assert refusal.kind == "unreadable"


def test_a_matcher_with_metadata_is_saved_without_key_or_class(
    people, store, tmp_path, small_pairs
):
    matcher = Matcher(
        backbone="descriptor", metadata="gpt-5-nano", store=store, training=TrainingConfig(epochs=1)
    )
    record = json.loads(
        (matcher.fit(small_pairs(4)).save(tmp_path / "m") / "matcher.json").read_text()
    )
    assert record["parts"]["metadata"]["name"] == "gpt-5-nano"
    assert "schema" not in record["parts"]["metadata"]["options"]
    assert KEY not in json.dumps(record)
    assert isinstance(Matcher.load(tmp_path / "m").metadata, GPT5NanoMetadata)


def test_a_custom_schema_is_saved_as_json_and_loads_equal(people, store, tmp_path, small_pairs):
    custom = OpenAIMetadata(model="x", schema=Outfit)
    matcher = Matcher(
        backbone="descriptor", metadata=custom, store=store, training=TrainingConfig(epochs=1)
    )
    reader = Matcher(
        backbone=("hf-text", {"model": "unused", "device": "cpu"}), metadata=custom, store=store
    )
    assert "schema=Outfit" in reader.summary()["Metadata"]
    folder = matcher.fit(small_pairs(4)).save(tmp_path / "n")
    assert "Outfit" not in (folder / "README.md").read_text()  # it described no photo
    loaded = Matcher.load(folder).metadata
    assert loaded.fingerprint() == custom.fingerprint()  # so stored answers are reused
    assert loaded.schema is not Outfit
    assert loaded.schema.__name__ == "Outfit"
    answer = json.dumps({"garment": "coat", "layers": 2, "colours": ["red"]})
    assert read_reply(loaded.schema, answer).model_dump() == read_reply(Outfit, answer).model_dump()
    wrong = json.dumps({"garment": "hat", "layers": 2, "colours": ["red"]})
    assert read_reply(loaded.schema, wrong) == read_reply(Outfit, wrong)


class Limited(BaseModel):
    rooms: int = Field(ge=1, le=20, description="Rooms.")
    light: Annotated[float, Field(gt=0, lt=1)] | None = None
    pets: bool | None = Field(None, description="Whether pets show.")
    words: list[Annotated[str, Field(max_length=9)]] = Field(max_length=3)
    floor: Literal[0, 1, 2]
    kind: Literal["flat"]
    code: str = Field(pattern="^[A-Z]+$")


@pytest.mark.parametrize("schema", [Metadata, Outfit, Limited])
def test_every_flat_schema_survives_json(schema, tmp_path):
    (tmp_path / "schema.json").write_text(json.dumps(write_schema(schema)))
    for read in (read_schema(write_schema(schema)), read_schema(tmp_path / "schema.json")):
        assert json_schema(read) == json_schema(schema)
        assert schema_key(read) == schema_key(schema)
        assert read.__name__ == schema.__name__


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"rooms": 21},
        {"light": 1},
        {"words": ["a" * 10]},
        {"words": ["a"] * 4},
        {"floor": 3},
        {"code": "a"},
    ],
)
def test_a_schema_from_json_validates_like_the_original(change):
    valid = {
        "rooms": 2,
        "light": 0.5,
        "pets": True,
        "words": ["a"],
        "floor": 1,
        "kind": "flat",
        "code": "AB",
    }
    for schema in (Limited, read_schema(write_schema(Limited))):
        assert isinstance(read_reply(schema, json.dumps(valid | change)), str) == bool(change)


def test_invalid_schemas_are_explained(tmp_path):
    (tmp_path / "broken.json").write_text("{")
    for given, expected in (
        (tmp_path / "absent.json", r"absent.json cannot be read: No such file"),
        (tmp_path / "broken.json", r"broken.json cannot be read: not valid JSON"),
        ({"type": "object"}, r"with `properties`; got"),
        (
            {"properties": {"a": {"type": "object"}, "b": {}}},
            r"'a': its type is 'object'.*'b': its type is None",
        ),
        ({"properties": {}}, "has no attributes"),
    ):
        with pytest.raises(ConfigurationError, match=expected):
            OpenAIMetadata(model="x", schema=given)


def test_the_command_estimates_annotates_and_lists_refusals(people, tmp_path):
    from typer.testing import CliRunner

    from pairmatch.cli import app

    rows = [
        f"{a.id},{a.images[0].name},{b.id},{b.images[0].name}"
        for a, b in zip(people[::2], people[1::2], strict=True)
    ]
    (tmp_path / "pairs.csv").write_text("id_a,image_a,id_b,image_b\n" + "\n".join(rows) + "\n")
    refusal = reply([{"type": "refusal", "refusal": "I can't"}])
    with Server(once(refusal)) as server:
        arguments = [
            "annotate",
            tmp_path / "pairs.csv",
            "--metadata",
            "openai",
            "--set",
            "metadata.model=test",
            "--set",
            f"metadata.base_url={server.url}",
            "--set",
            "metadata.concurrency=1",
            "--store",
            tmp_path / "s",
            "--quiet",
        ]

        def command(*more, code=0):
            result = CliRunner().invoke(app, [str(part) for part in (*arguments, *more)])
            assert result.exit_code == code, result.output
            return result.output

        assert "6 photos to submit, 0 already answered; they would be sent to" in command(
            "--dry-run"
        )
        assert "Nothing was sent. Allow it with allow_upload=True (--yes)" in command(code=2)
        assert not server.requests
        output = command("--yes")
        assert "5 of 6 people have metadata; 6 photos submitted in this run" in output
        assert "secret-id-0: refusal: I can't" in output
        assert "0 photos to submit, 6 already answered." in command("--dry-run")
        assert "6 of 6 people have metadata; 1 photos submitted in this run" in command(
            "--yes", "--retry-refused"
        )


def test_the_docs_contain_the_prompt_and_the_prices():
    page = (Path(__file__).parents[1] / "docs" / "metadata.md").read_text()
    assert f" {INSTRUCTIONS}\n" in page.replace("\n> ", " ")
    for name, facts in MODELS.items():
        ends = facts.ends.isoformat() if facts.ends else ""
        prices = f"${facts.input_usd:.2f} | ${facts.cached_usd:g} | ${facts.output_usd:.2f}"
        row = f"| {name} | {prices} | {ends}".rstrip()
        assert f"{row} |\n" in page
    assert TABLE_DATE.isoformat() in page


def test_the_highest_cost_grows_with_the_size_of_the_photo(people, store):
    with Server(good) as server:
        small, large = (
            generator(server, input_usd=1000.0, output_usd=0.0, longest_side_px=side).worst_usd()
            for side in (512, 2048)
        )
        assert large > small + 15 * 0.63 * 0.99  # 16 times the tokens of a photo


def test_schema_names_are_sanitized_for_the_api(people, store):
    schema = {
        "title": "Kleider & Schuhe",
        "type": "object",
        "properties": {"colour": {"type": "string"}},
    }
    with Server(good) as server:
        annotate(people[:1], generator(server, schema=schema), store, allow_upload=True)
        assert json.loads(server.requests[0])["text"]["format"]["name"] == "Kleider___Schuhe"
