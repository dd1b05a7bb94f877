"""The Batch API, with the real client and a local server."""

import base64
import io
import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from openai_server import ANSWER, BatchServer, error, good, reply, text
from PIL import Image

from pairmatch import Profile
from pairmatch.core.errors import ConfigurationError, GeneratorError, StoreError, UploadError
from pairmatch.io.store import Store
from pairmatch.metadata import Metadata, annotate, estimate
from pairmatch.metadata.batch import annotate_in_batches
from pairmatch.metadata.measured import MeasuredMetadata
from pairmatch.metadata.openai import OpenAIMetadata

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
    profiles = []
    for index in range(6):
        path = tmp_path / f"secret-name-{index}.jpg"
        exif = Image.Exif()
        exif[0x010E] = "secret-home"
        noise = np.random.default_rng(index).integers(0, 255, (8, 8, 3), np.uint8)
        Image.fromarray(noise).resize((900, 700)).save(path, exif=exif)
        profiles.append(Profile(f"secret-id-{index}", (path,), text="secret-text"))
    return profiles


def generator(server, **options):
    return OpenAIMetadata(
        **{"model": "test", "base_url": server.url, "timeout_seconds": 5.0, **options}
    )


def run(people, store, server, **options):
    return annotate_in_batches(people, generator(server), store, allow_upload=True, **options)


def test_a_batch_is_submitted_once_and_collected_later(people, store):
    with BatchServer(good) as server:
        first = run([*people, Profile("duplicate", people[0].images)], store, server)
        assert first.annotation.asked == 6
        assert {refusal.kind for refusal in first.annotation.refused.values()} == {"pending"}
        assert "Unfinished: batch_0, 6 photos, submitted now." in str(first)
        second = run(people, store, server)
        assert second.annotation.asked == 0
        assert second.under_way == ("batch_0, validating, 0 of 0 done",)
        assert len(server.batches) == 1
        # Photos in a batch are not submitted a second time
        assert annotate(people, generator(server), store, allow_upload=True).asked == 0
        assert estimate(people, generator(server), store).pending == 6
        server.finish()
        priced = generator(server, input_usd=1.0, output_usd=10.0)
        # Collecting uploads nothing, so it requires no consent
        collected = annotate_in_batches(people, priced, store)
        assert all(
            profile.metadata == Metadata(**ANSWER) for profile in collected.annotation.profiles
        )
        # Batches cost half the price
        half_price = 6 * (1000 * 1.0 + 100 * 10.0) / 1e6 / 2
        assert collected.annotation.usage.usd == pytest.approx(half_price)
        assert not collected.under_way
        assert not server.files  # photos and answers are deleted on the server
        assert sorted(server.deleted) == ["file_0", "file_1"]
        assert run(people, store, server).annotation.asked == 0
        assert len(server.batches) == 1
        (spent,) = store.spent()
        assert (spent.model, spent.calls, spent.input_tokens) == ("test", 6, 6000)


def test_only_pixels_are_uploaded(people, store):
    with BatchServer(good) as server:
        run(people, store, server)
        sent = b"".join(server.requests)
        assert b"secret" not in sent
        (line, *_) = server.lines(server.batches["batch_0"])
        assert line["url"] == "/v1/responses"
        photo = base64.b64decode(line["body"]["input"][0]["content"][0]["image_url"].split(",")[1])
        assert not Image.open(io.BytesIO(photo)).getexif()
        assert b"secret" not in photo


def test_refusals_are_stored_and_failed_requests_are_resubmitted(people, store):
    answers = [
        reply([{"type": "refusal", "refusal": "I can't help with that"}]),
        error(500, "oops"),
        error(400, "blocked", code="content_filter"),
        error(404, "The model `test` does not exist", code="model_not_found"),
    ]
    with BatchServer(
        lambda number, body: answers[number] if number < 4 else good(number, body)
    ) as server:
        run(people, store, server)
        server.finish("expired", answered=5)
        server.behave = good
        result = run(people, store, server)
        kinds = {person: refusal.kind for person, refusal in result.annotation.refused.items()}
        # 0 and 2 are final; 1, 3 and the expired request are in a new batch
        assert kinds == {
            "secret-id-0": "refusal",
            "secret-id-1": "pending",
            "secret-id-2": "content_filter",
            "secret-id-3": "pending",
            "secret-id-5": "pending",
        }
        assert len(server.lines(server.batches["batch_1"])) == 3
        keys = [line["custom_id"] for line in server.lines(server.batches["batch_1"])]
        details = [outcome["detail"] for outcome in store.metadata(keys).values()]
        assert any("answered 500: oops" in detail for detail in details)
        assert any("does not exist" in detail for detail in details)
        assert any("could not be executed in time" in detail for detail in details)
        server.finish()
        assert set(run(people, store, server).annotation.refused) == {"secret-id-0", "secret-id-2"}


def test_large_jobs_are_split_within_the_cost_limit(people, store):
    with BatchServer(good) as server:
        priced = generator(server, input_usd=1000.0, output_usd=0.0)
        assert 0.5 < priced.worst_usd(batch=True) < 0.75
        limited = annotate_in_batches(
            people, priced, store, allow_upload=True, max_usd=2.5, max_requests=2
        )
        assert [len(server.lines(batch)) for batch in server.batches.values()] == [2, 2]
        assert [refusal.kind for refusal in limited.annotation.refused.values()] == [
            "pending"
        ] * 4 + ["stopped"] * 2
        rest = run(people, store, server, max_megabytes=1e-6)
        assert [len(server.lines(batch)) for batch in server.batches.values()] == [2, 2, 1, 1]
        server.finish()
        assert len(rest.under_way) == 4
        assert not run(people, store, server).annotation.refused


def test_no_photo_is_sent_without_consent(people, store):
    with BatchServer(good) as server:
        priced = generator(server, model="gpt-6-luna")
        with pytest.raises(UploadError, match="6 photos to submit"):
            annotate_in_batches(people, priced, store)
        assert not server.requests
        full = estimate(people, priced, store)
        half = estimate(people, priced, store, batch=True)
        assert half.usage.usd == pytest.approx(full.usage.usd / 2)
    with pytest.raises(ConfigurationError, match="MeasuredMetadata does not support batches"):
        annotate_in_batches(people, MeasuredMetadata(), store)


def test_unreadable_photos_are_outcomes(people, store, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no")
    with BatchServer(good) as server:
        result = run([Profile("broken", (tmp_path / "broken.jpg",)), *people], store, server)
        assert result.annotation.refused["broken"].kind == "unreadable"
        assert result.annotation.asked == 6


@pytest.mark.parametrize(
    ("path", "answer", "expected"),
    [
        (
            "/files",
            error(401, f"Incorrect API key provided: {KEY}", code="invalid_api_key"),
            "401.*key from OPENAI_API_KEY",
        ),
        (
            "/batches",
            error(400, "Enqueued token limit reached"),
            "was not started.*Enqueued token limit reached",
        ),
    ],
)
def test_a_rejected_batch_can_be_submitted_again(people, store, path, answer, expected):
    with BatchServer(
        good, hook=lambda method, at: answer if (method, at) == ("POST", path) else None
    ) as server:
        with pytest.raises(GeneratorError, match=expected) as caught:
            run(people, store, server)
        assert KEY not in str(caught.value)
        assert not server.batches
        server.hook = lambda method, at: None
        assert run(people, store, server).annotation.asked == 6


def test_a_failed_batch_is_reported_once_and_resubmitted(people, store):
    with BatchServer(good) as server:
        run(people, store, server)
        server.batches["batch_0"] |= {
            "status": "failed",
            "errors": {
                "object": "list",
                "data": [{"code": "model_not_found", "message": "no model `test`", "line": 1}],
            },
        }
        with pytest.raises(
            GeneratorError, match="batch_0 failed: no model `test` Name another model with model="
        ):
            run(people, store, server)
        assert run(people, store, server).annotation.asked == 6


def test_a_batch_that_the_server_lost_is_resubmitted(people, store, caplog):
    with BatchServer(good) as server:
        run(people, store, server)
        server.batches.clear()
        assert run(people, store, server).annotation.asked == 6
        assert "no longer has the batch batch_0" in caplog.text


def test_a_lost_connection_does_not_submit_a_batch_twice(people, store):
    def drop(method, at):
        return BatchServer.HANG_UP if (method, at) == ("POST", "/batches") else None

    with BatchServer(good, hook=drop) as server:
        with pytest.raises(GeneratorError, match="it finds out whether the batch was started"):
            run(people, store, server)
        assert len(server.batches) == 1  # the batch was started, although the response was lost
        server.hook = lambda method, at: None
        assert run(people, store, server).under_way == ("batch_0, validating, 0 of 0 done",)
        server.finish()
        assert not run(people, store, server).annotation.refused
        assert len(server.batches) == 1


KILLED = """
import sys
from pathlib import Path
from pairmatch import Profile
from pairmatch.metadata.batch import annotate_in_batches
from pairmatch.metadata.openai import OpenAIMetadata
from pairmatch.io.store import Store
people = [Profile(f"secret-id-{p.stem[-1]}", (p,)) for p in sorted(Path(sys.argv[1]).glob("*.jpg"))]
generator = OpenAIMetadata(model="test", base_url=sys.argv[3])
annotate_in_batches(people, generator, Store(sys.argv[2]), allow_upload=True)
"""


@pytest.mark.parametrize(
    "at",
    [
        ("POST", "/files"),
        ("POST", "/batches"),
        ("GET", "/files/file_1/content"),
        ("DELETE", "/files/file_0"),
    ],
    ids=["while uploading", "while starting", "while collecting", "after collecting"],
)
def test_a_killed_process_does_not_lose_or_repeat_a_batch(people, store, tmp_path, at):
    running = []

    def kill(method, path):
        if (method, path) == at and running:
            os.kill(running.pop().pid, signal.SIGKILL)

    with BatchServer(good, hook=kill) as server:
        if at[0] != "POST":
            run(people, store, server)
            server.finish()
        command = [sys.executable, "-c", KILLED, str(tmp_path), str(store.path), server.url]
        process = subprocess.Popen(command)
        running.append(process)
        assert process.wait(60) == -signal.SIGKILL
        result = run(people, store, server)
        server.finish()
        result = run(people, store, server)
        assert not result.annotation.refused
        assert len(server.batches) == 1
        assert all(profile.metadata == Metadata(**ANSWER) for profile in result.annotation.profiles)


def test_people_erased_before_collection_remain_erased(people, store):
    with BatchServer(good) as server:
        run(people, store, server)
        store.forget([people[0].id])
        server.finish()
        result = annotate_in_batches(people[1:], generator(server), store)
        assert not result.annotation.refused
        assert store.counts()["metadata"] == 5
        assert store.spent()[0].calls == 6  # the erased outcome still counts


def test_only_one_process_submits_at_a_time(people, store):
    with BatchServer(good) as server:
        with (
            store.exclusive("batches"),
            pytest.raises(StoreError, match="Another process is working on the batches"),
        ):
            run(people, store, server)
        assert run(people, store, server).annotation.asked == 6


def test_request_lines_have_the_format_of_the_api(people, store):
    with BatchServer(good) as server:
        run(people, store, server)
        lines = server.lines(server.batches["batch_0"])
        assert {tuple(line) for line in lines} == {("custom_id", "method", "url", "body")}
        assert len({line["custom_id"] for line in lines}) == 6
        assert server.batches["batch_0"]["completion_window"] == "24h"
        assert server.batches["batch_0"]["endpoint"] == "/v1/responses"
        assert json.dumps(lines[0]["body"]["text"]["format"]["schema"])


def test_unicode_line_separators_in_an_answer_do_not_split_lines(people, store):
    answer = json.dumps({**ANSWER, "caption": "One\u2028two\u0085three"}, ensure_ascii=False)
    with BatchServer(lambda number, body: text(answer)) as server:
        run(people, store, server)
        server.finish()
        for name, content in server.files.items():
            lines = [json.loads(line) for line in content.splitlines()]
            server.files[name] = "".join(
                json.dumps(line, ensure_ascii=False) + "\n" for line in lines
            ).encode()
        annotation = run(people, store, server).annotation
    assert annotation.profiles[0].metadata.caption == "One\u2028two\u0085three"


def deliver(server, change):
    """Finishes the batch, with the bytes of its output file changed."""
    server.finish()
    (batch,) = [batch for batch in server.batches.values() if batch["status"] == "completed"]
    name = batch["output_file_id"]
    server.files[name] = change(server.files[name].splitlines(keepends=True))


SPOILED = {
    "no JSON": lambda lines: [b"{broken\n", *lines[1:]],
    "null": lambda lines: [b"null\n", *lines[1:]],
    "a list": lambda lines: [b"[1]\n", *lines[1:]],
    "no custom_id": lambda lines: [lines[0].replace(b'"custom_id"', b'"id"'), *lines[1:]],
    "a custom_id that is a number": lambda lines: [b'{"custom_id": 5}\n', *lines[1:]],
    "an unknown custom_id": lambda lines: [b'{"custom_id": "x"}\n', *lines[1:]],
    "nested 100,000 deep": lambda lines: [b"[" * 100_000 + b"\n", *lines[1:]],
    "bytes that are not UTF-8": lambda lines: [b"\xff\xfe\n", *lines[1:]],
    "a long line": lambda lines: [b'{"a": "' + b"x" * 4_000_001 + b'"}\n', *lines[1:]],
    "a missing line": lambda lines: lines[1:],
}


@pytest.mark.parametrize("name", SPOILED)
def test_one_bad_line_does_not_affect_the_others(name, people, store, caplog):
    with BatchServer(good) as server:
        run(people, store, server)
        deliver(server, lambda lines: b"".join(SPOILED[name](lines)))
        result = run(people, store, server).annotation
        # Not submitted, and paid for, again before this could be seen
        assert result.asked == 0
        assert len(result.refused) == 1
        (refusal,) = result.refused.values()
        assert refusal.kind == "error"
        assert "no answer to this photo" in refusal.detail
        assert "finished without an answer to 1 of 6 photos" in caplog.text
        assert ("cannot be used" in caplog.text) == (name != "a missing line")
        assert run(people, store, server).annotation.asked == 1
        server.finish()
        assert not run(people, store, server).annotation.refused


@pytest.mark.parametrize("content", [b"", b"\n\n", b"<html>login</html>", b"[]\n", b"\0" * 1000])
def test_an_output_file_without_answers_is_said_before_anything_is_paid_again(
    content, people, store, caplog
):
    with BatchServer(good) as server:
        run(people, store, server)
        deliver(server, lambda lines: content)
        result = run(people, store, server).annotation
        assert result.asked == 0
        assert {refusal.kind for refusal in result.refused.values()} == {"error"}
        assert "without an answer to 6 of 6 photos" in caplog.text
        assert len(server.batches) == 1
        assert run(people, store, server).annotation.asked == 6


def test_a_finished_batch_without_files_is_said_before_anything_is_paid_again(people, store):
    with BatchServer(good) as server:
        run(people, store, server)
        server.batches["batch_0"]["status"] = "completed"
        assert run(people, store, server).annotation.asked == 0
        assert run(people, store, server).annotation.asked == 6


def test_repeated_lines_count_once(people, store, caplog):
    with BatchServer(good) as server:
        run(people, store, server)
        deliver(server, lambda lines: b"".join([*lines, *lines]))
        assert not run(people, store, server).annotation.refused
        assert "6 repeated" in caplog.text
        assert store.spent()[0].calls == 6


BAD_FIELDS = {
    "response": 5,
    "a response without a body": {"status_code": 200},
    "a body of text": {"status_code": 200, "body": "hello"},
    "a failed body": {
        "status_code": 200,
        "body": {"status": "failed", "error": {"code": "server_error"}, "output": []},
    },
    "a status of text": {"status_code": "OK", "body": {}},
    "a refusal that is an object": {
        "status_code": 200,
        "body": reply([{"type": "refusal", "refusal": {}}]),
    },
}


@pytest.mark.parametrize("name", BAD_FIELDS)
def test_fields_of_a_line_are_checked(name, people, store):
    def change(lines):
        line = json.loads(lines[0]) | {"response": BAD_FIELDS[name]}
        return b"".join([json.dumps(line).encode() + b"\n", *lines[1:]])

    with BatchServer(good) as server:
        run(people, store, server)
        deliver(server, change)
        annotation = run(people, store, server).annotation
        assert annotation.asked == 1  # an error: in a new batch
        assert {refusal.kind for refusal in annotation.refused.values()} == {"pending"}


def test_refusals_of_policy_in_a_batch_are_final(people, store):
    answers = [
        error(400, "no", code="invalid_prompt"),
        error(400, "no", code="image_parse_error"),
    ]
    with BatchServer(
        lambda number, body: answers[number] if number < 2 else good(number, body)
    ) as server:
        run(people, store, server)
        server.finish()
        annotation = run(people, store, server).annotation
        assert annotation.asked == 0
        assert [refusal.kind for refusal in annotation.refused.values()] == [
            "content_filter",
            "unreadable",
        ]


def test_a_fault_of_the_request_in_every_line_stops_before_the_next_batch(people, store):
    fault = error(400, "Unsupported parameter: x", code="unsupported_parameter")
    with BatchServer(lambda number, body: fault) as server:
        run(people, store, server)
        server.finish()
        with pytest.raises(GeneratorError, match="Unsupported parameter: x"):
            run(people, store, server)
        assert len(server.batches) == 1
        server.behave = good
        assert run(people, store, server).annotation.asked == 6


def test_one_batch_that_fails_does_not_keep_the_others(people, store):
    broken = []

    def hook(method, path):
        return error(500, "oops") if broken and path == "/batches/batch_0" else None

    with BatchServer(good, hook=hook) as server:
        run(people, store, server, max_requests=3)
        server.finish()
        broken.append(True)
        with pytest.raises(GeneratorError, match="oops while batches were being collected"):
            annotate_in_batches(people, generator(server, max_retries=0), store)
        assert store.counts()["metadata"] == 3
        broken.clear()
        assert not run(people, store, server).annotation.refused


@pytest.mark.parametrize("record", [[], "text", {}, {"id": "../files/x", "status": "completed"}])
def test_a_record_in_an_unknown_format_leaves_the_batch_open(record, people, store):
    hostile = []

    def hook(method, path):
        return record if hostile and path == "/batches/batch_0" else None

    with BatchServer(good, hook=hook) as server:
        run(people, store, server)
        server.finish()
        hostile.append(True)
        with pytest.raises(GeneratorError, match="unknown format"):
            run(people, store, server)
        hostile.clear()
        assert not run(people, store, server).annotation.refused
        assert len(server.batches) == 1


def test_an_unknown_state_is_not_the_end_of_a_batch(people, store):
    with BatchServer(good) as server:
        run(people, store, server)
        server.batches["batch_0"]["status"] = "thinking"
        assert run(people, store, server).under_way == ("batch_0, thinking, 0 of 0 done",)


@pytest.mark.parametrize("offset", [-10 * 86_400, 0, 10 * 86_400])
def test_no_clock_decides_whether_a_batch_was_started(offset, people, store):
    """The provider's clock differs by days, and other batches were started since."""

    def drop(method, at):
        return BatchServer.HANG_UP if (method, at) == ("POST", "/batches") else None

    with BatchServer(good, hook=drop) as server:
        with pytest.raises(GeneratorError, match="it finds out whether the batch was started"):
            run(people, store, server)
        server.hook = lambda method, at: None
        for number in range(3):
            other = {**server.batches["batch_0"], "id": f"other_{number}", "metadata": None}
            server.batches[f"other_{number}"] = other
        for batch in server.batches.values():
            batch["created_at"] += offset
        assert run(people, store, server).annotation.asked == 0
        server.finish()
        assert not run(people, store, server).annotation.refused


def test_all_pages_of_batches_are_searched(people, store):
    def drop(method, at):
        return BatchServer.HANG_UP if (method, at) == ("POST", "/batches") else None

    with BatchServer(good, hook=drop) as server:
        with pytest.raises(GeneratorError, match="it finds out"):
            run(people, store, server)
        (started,) = server.batches.values()
        other = {**started, "metadata": {}}
        pages = [
            {"data": [{**other, "id": f"x{page}_{n}"} for n in range(3)], "has_more": True}
            for page in range(3)
        ]
        pages.append({"data": [started], "has_more": False})
        asked = iter(pages)
        listing = ("GET", "/batches")
        server.hook = lambda method, at: next(asked) if (method, at) == listing else None
        assert run(people, store, server).annotation.asked == 0
        # A list without an end is no proof that the batch was never started
        store.put_batch("never", store._database.select("SELECT generator FROM batches")[0][0], [])
        server.hook = lambda method, at: pages[0] if (method, at) == listing else None
        with pytest.raises(GeneratorError, match="lists batches without an end"):
            run(people, store, server)


def test_a_key_in_the_answers_of_the_batch_api_is_never_shown(people, store, caplog):
    with BatchServer(good) as server:
        run(people, store, server)
        server.batches["batch_0"] |= {
            "status": "failed",
            "errors": {"data": [{"code": "server_error", "message": f"bad {'x' * 270} {KEY}"}]},
        }
        with pytest.raises(GeneratorError) as caught:
            run(people, store, server)
        assert KEY[:12] not in f"{caught.value} {caplog.text}"


def test_redirects_of_the_batch_api_are_refused(people, store):
    with BatchServer(good) as other:

        def hook(method, path):
            return 307, b"", {"Location": f"{other.url}{path}"}

        with (
            BatchServer(good, hook=hook) as server,
            pytest.raises(GeneratorError, match=r"was not started.*a redirect to 127.0.0.1"),
        ):
            run(people, store, server)
        assert not other.requests
