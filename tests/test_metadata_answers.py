"""What servers answer: their failures, refusals, secrets, and bodies that are not of the API."""

import contextlib
import gzip
import json
import re
import time

import numpy as np
import pytest
from openai_server import ANSWER, Server, error, good, reply, text
from PIL import Image

from pairmatch import Profile
from pairmatch.core.errors import GeneratorError
from pairmatch.io.store import Store
from pairmatch.metadata import Metadata, annotate, export_metadata
from pairmatch.metadata.openai import OpenAIMetadata
from pairmatch.metadata.outside import OutsideText

KEY = "sk-test-very-secret-9"


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "store.sqlite") as opened:
        yield opened


@pytest.fixture
def people():
    return crowd(["id-0", "id-1", "id-2"])


def crowd(ids):
    """People with different photos."""
    rng = np.random.default_rng(0)
    photos = [Image.fromarray(rng.integers(0, 255, (8, 8, 3), np.uint8)) for _ in ids]
    return [Profile(person, (photo,)) for person, photo in zip(ids, photos, strict=True)]


def generator(server, **options):
    return OpenAIMetadata(
        **{
            "model": "test",
            "base_url": server.url,
            "concurrency": 1,
            "timeout_seconds": 5.0,
            "max_retries": 0,
            **options,
        }
    )


def run(people, store, server, **options):
    return annotate(people, generator(server, **options), store, allow_upload=True)


def once(first):
    return lambda number, body: first if number == 0 else good(number, body)


def one_by_one(answers):
    """Answers the first requests with the answers, in order, and all others with metadata."""
    return lambda number, body: answers[number] if number < len(answers) else good(number, body)


def raw(content, status=200, **headers):
    return status, content, {"Content-Type": "text/html", **headers}


FAILED = {"status": "failed", "error": {"code": "server_error"}, "output": [], "usage": None}
#: Bodies with the status 200 that are no answer of the model, and words of the outcome.
FAILURES = {
    "failed": (FAILED, "answered: server_error"),
    "failed with words": (
        {**FAILED, "error": {"code": "rate_limit_exceeded", "message": "slow down"}},
        "answered: slow down",
    ),
    "failed without an error": ({**FAILED, "error": None}, "answered: no message"),
    "failed with an error that is text": ({**FAILED, "error": "broken"}, "answered: broken"),
    "an error instead of a response": ({"error": {"message": "overloaded"}}, "overloaded"),
    "cancelled": (reply([], "cancelled"), "the status 'cancelled'"),
    "in progress": (reply([], "in_progress"), "the status 'in_progress'"),
    "queued": (reply([], "queued"), "the status 'queued'"),
    "a status of another API": (reply([], "FINISHED"), "unknown format"),
    "a status that is no text": (reply([], ["completed"]), "unknown format"),
    "incomplete without a reason": (reply([], "incomplete"), "for the reason null"),
    "completed without a message": (reply([]) | {"output": []}, "unknown format"),
    "completed without text": (reply([]), "unknown format"),
    "chat completions": (
        {"object": "chat.completion", "choices": [{"message": {"content": "{}"}}]},
        "unknown format.*chat.completion",
    ),
    "HTML of a proxy": (raw(b"<html>Please log in</html>"), "unknown format.*Please log in"),
    "an empty object": ({}, "unknown format: {}"),
    "a list": ([], r"unknown format: \[\]"),
    "a number": (7, "unknown format: 7"),
    "null": (raw(b"null"), "unknown format: null"),
    "text": (raw(b'"ok"'), "unknown format: ok"),
    "an empty body": (raw(b""), "unknown format: an empty body"),
    "bytes that are not UTF-8": (raw(b"\xff\xfe\x00"), "unknown format"),
    "events": (raw(b"event: response.created\n\ndata: {}"), "unknown format: event"),
    "nested 100,000 deep": (raw(b"[" * 100_000), "unknown format"),
    "a number of 5,000 digits": (raw(b"1" * 5_000), "unknown format"),
    "output that is text": (reply([]) | {"output": "hello"}, "unknown format"),
    "output of numbers": (reply([]) | {"output": [1, None, [2]]}, "unknown format"),
    "a message without parts": (
        reply([]) | {"output": [{"type": "message", "content": None}]},
        "unknown format",
    ),
    "text that is an object": (reply([{"type": "output_text", "text": {}}]), "unknown format"),
    "a refusal that is an object": (reply([{"type": "refusal", "refusal": {}}]), "unknown format"),
    "compressed otherwise": (raw(b"x", **{"Content-Encoding": "br"}), "compressed as 'br'"),
    "not compressed": (raw(b"x", **{"Content-Encoding": "gzip"}), "not compressed as it says"),
    "too large": (raw(b" " * 5_000_000), "more than 4,000,000 bytes"),
    "compressed too large": (
        raw(gzip.compress(b" " * 5_000_000), **{"Content-Encoding": "gzip"}),
        "more than 4,000,000 bytes",
    ),
}


def test_a_failure_of_the_server_is_not_a_persons_answer(store):
    answers = [answer for answer, _ in FAILURES.values()]
    people = crowd(FAILURES)
    with Server(one_by_one(answers)) as server:
        result = run(people, store, server)
        assert {refusal.kind for refusal in result.refused.values()} == {"error"}
        for name, (_, words) in FAILURES.items():
            assert re.search(words, result.refused[name].detail), (name, result.refused[name])
        assert not run(people, store, server).refused  # submitted again in the next run
        assert len(server.requests) == 2 * len(people)


POLICY = [
    error(400, "Invalid prompt: flagged", code="invalid_prompt"),
    error(400, "not allowed", code="content_policy_violation"),
    error(400, "no", code="moderation_blocked"),
    error(400, "no", code="image_content_policy_violation"),
    error(403, "no", code="content_filter"),
    error(400, "Your request was rejected as a result of our safety system."),
    (
        400,
        {"error": {"message": "no", "innererror": {"code": "ResponsibleAIPolicyViolation"}}},
        {},
    ),
    {**FAILED, "error": {"code": "image_content_policy_violation", "message": "no"}},
    {**FAILED, "error": {"code": "invalid_prompt", "message": "no"}},
]
PHOTO = [
    error(400, "cannot decode", code="image_parse_error"),
    error(400, "no", code="invalid_image"),
    error(400, "no", code="invalid_image_format"),
    error(413, "no", code="image_too_large"),
    {**FAILED, "error": {"code": "empty_image_file", "message": "no"}},
]


@pytest.mark.parametrize(("answers", "kind"), [(POLICY, "content_filter"), (PHOTO, "unreadable")])
def test_a_refusal_of_policy_and_a_fault_of_one_photo_are_final(answers, kind, store):
    people = crowd([f"id-{number}" for number in range(len(answers))])
    with Server(one_by_one(answers)) as server:
        for _ in range(2):
            result = run(people, store, server)
            assert {person: refusal.kind for person, refusal in result.refused.items()} == {
                person.id: kind for person in people
            }
        assert len(server.requests) == len(people)


@pytest.mark.parametrize(
    "answer",
    [
        error(400, "Invalid schema for response_format", code="invalid_json_schema"),
        error(400, "Unsupported parameter: reasoning", code="unsupported_parameter"),
        error(400, "the words", code="unknown_parameter"),
        error(400, "the words", code="unsupported_value"),
        error(400, "the words", code="model_not_found"),
        error(400, "the words", code="invalid_api_key"),
        error(400, "the words", code="invalid_type"),
        error(400, "the words", code="missing_required_parameter"),
        error(400, "the words", code="integer_below_min_value"),
        error(402, "the words"),
        error(403, "the words", code="unsupported_country_region_territory"),
        error(404, "the words"),
        error(405, "the words"),
        error(429, "the words", code="insufficient_quota"),
        error(400, "Unrecognized request argument supplied: text"),
        (400, {"error": {"message": "the words", "param": "text.format.schema"}}, {}),
        (422, {"error": {"message": "the words", "param": "reasoning.effort"}}, {}),
        {**FAILED, "error": {"code": "model_not_found", "message": "the words"}},
    ],
)
def test_a_fault_of_the_request_stops_the_run_once(answer, people, store):
    with Server(lambda number, body: answer) as server:
        body = answer[1] if isinstance(answer, tuple) else answer
        with pytest.raises(GeneratorError, match=body["error"]["message"]):
            run(people, store, server)
        assert len(server.requests) == 1
        assert store.counts()["metadata"] == 0


def test_photos_that_are_all_rejected_alike_stop_the_run(store):
    rng = np.random.default_rng(1)
    photos = [Image.fromarray(rng.integers(0, 255, (8, 8, 3), np.uint8)) for _ in range(25)]
    people = [Profile(f"id-{index}", (photo,)) for index, photo in enumerate(photos)]
    with Server(lambda number, body: error(400, "computer says no")) as server:
        with pytest.raises(GeneratorError, match=r"says no .the answer to each of the first 20"):
            run(people, store, server)
        assert len(server.requests) == 20
    with Server(once(text("no json"))) as server:  # an answer: the others are not all alike
        assert len(run(people, store, server).refused) == 1


@pytest.mark.parametrize(
    "usage",
    [
        None,
        "many",
        {"input_tokens": 10**30, "output_tokens": 1},
        {"input_tokens": -1, "output_tokens": 1},
        {"input_tokens": "1000", "output_tokens": 1},
        {"input_tokens": 1.5, "output_tokens": 1},
        {"input_tokens": True, "output_tokens": 1},
        [1, 2],
    ],
)
def test_a_cost_that_is_no_number_does_not_lose_the_answer(usage, people, store):
    answer = text(json.dumps(ANSWER)) | {"usage": usage}
    with Server(lambda number, body: answer) as server:
        result = run(people, store, server)
        assert all(profile.metadata == Metadata(**ANSWER) for profile in result.profiles)
        assert (result.usage.input_tokens, result.usage.usd) == (0, None)
        assert "3 answers without a number of tokens" in str(result)
        assert run(people, store, server).asked == 0
        assert store.spent() == []


def test_cached_tokens_are_at_most_the_input(people, store):
    answer = text(json.dumps(ANSWER))
    answer["usage"]["input_tokens_details"] = {"cached_tokens": 10**12}
    with Server(lambda number, body: answer) as server:
        assert run(people, store, server).usage.cached_tokens == 0


@pytest.mark.parametrize(
    ("caption", "kept"),
    [
        ("I love my dog \\ud83d", "I love my dog \ufffd"),
        ("\\udc00 starts", "\ufffd starts"),
        ("two \\ud800\\ud800", "two \ufffd\ufffd"),
        ("a whole one \\ud83d\\ude00", "a whole one \U0001f600"),
    ],
)
def test_lone_surrogates_in_a_caption_are_replaced_and_counted(
    caption, kept, people, store, caplog, tmp_path
):
    content = json.dumps({**ANSWER, "caption": "HERE"}).replace("HERE", caption)
    with Server(lambda number, body: text(content)) as server:
        result = run(people, store, server)
        assert {profile.metadata.caption for profile in result.profiles} == {kept}
        assert ("3 answers held characters" in caplog.text) == ("\ufffd" in kept)
        second = run(people, store, server)
        assert second.asked == 0
        assert second.profiles == result.profiles
        assert export_metadata(tmp_path / "m.jsonl", people, generator(server), store) == 3


def test_a_body_with_an_invalid_byte_is_still_an_answer(people, store, caplog):
    content = json.dumps(text(json.dumps({**ANSWER, "caption": "HERE"}))).encode()
    with Server(once(raw(content.replace(b"HERE", b"caf\xe9")))) as server:
        assert run(people, store, server).profiles[0].metadata.caption == "caf\ufffd"
    assert "1 answers held characters" in caplog.text


@pytest.mark.parametrize(
    ("reply_text", "words"),
    [
        (json.dumps({**ANSWER, "caption": "x" * 200_000}), "has 200,.* characters"),
        (json.dumps({**ANSWER, "caption": []}), "caption"),
        ("[" * 5_000, "not valid JSON"),
        (json.dumps({**ANSWER, "caption": {"deep": [[[]]]}}), "caption"),
        ("", "not valid JSON"),
    ],
)
def test_an_answer_that_cannot_be_used_is_final(reply_text, words, people, store):
    with Server(once(text(reply_text))) as server:
        for _ in range(2):
            (refusal,) = run(people, store, server).refused.values()
            assert refusal.kind == "invalid"
            assert re.search(words, refusal.detail)
            assert len(refusal.detail) < 1_500
        assert len(server.requests) == 3


LEAKS = {
    "in an attribute": text(json.dumps({**ANSWER, "caption": f"the key is {KEY}, she says"})),
    "escaped in an attribute": text(
        json.dumps({**ANSWER, "caption": "HERE"}).replace("HERE", f"\\u0073{KEY[1:]}")
    ),
    "in an attribute's name": text(json.dumps({**ANSWER, KEY: "x"})),
    "in an invalid answer": text(f"not JSON {KEY}"),
    "in a refusal": reply([{"type": "refusal", "refusal": f"I refuse {KEY}"}]),
    "across the cut of a message": error(400, "x" * 290 + KEY),
    "across the cut of a refusal": reply([{"type": "refusal", "refusal": "x" * 490 + KEY}]),
    "in another case": error(400, f"wrong: {KEY.upper()}"),
    "as a bearer token": error(400, "header Bearer 12345678abc"),
    "another key": error(400, "key sk-proj-abcdefgh1234"),
    "in HTML": raw(f"<p>{KEY}</p>".encode()),
    "in a status": reply([], status=KEY),
    "in a code": error(400, None, code=KEY),
    "in two parts": reply(
        [
            {"type": "output_text", "text": json.dumps(ANSWER)[:-2] + KEY[:9]},
            {"type": "output_text", "text": KEY[9:] + '"}'},
        ]
    ),
}


def test_a_key_in_an_answer_is_never_kept_or_shown(store, tmp_path, caplog):
    people = crowd(LEAKS)
    with Server(one_by_one(list(LEAKS.values()))) as server:
        result = run(people, store, server)
        export_metadata(tmp_path / "m.csv", people, generator(server), store)
    kept = b"".join(path.read_bytes() for path in tmp_path.iterdir() if path.is_file())
    shown = f"{result} {result.refused} {result.profiles} {caplog.text}"
    for secret in (KEY[:12], "12345678abc", "abcdefgh1234"):
        assert secret.lower() not in shown.lower()
        assert secret.encode().lower() not in kept.lower()


def test_ordinary_words_are_not_taken_for_keys():
    texts = OutsideText(["EMPTY", KEY])
    for words in (
        "A task-oriented, risk-taking person",
        "EMPTY seats",
        "bearer of good news",
        "sk-SK",
    ):
        assert texts.clean(words) == words
    assert texts.clean(f"({KEY})") == "(…)"


def test_words_of_a_server_cannot_steer_a_terminal(people, store):
    with Server(once(error(400, "\x1b[2Jall\u202egone\nok"))) as server:
        (refusal,) = run(people, store, server).refused.values()
    assert refusal.detail.endswith(r"answered 400: \x1b[2Jall\u202egone ok")


def trickle(start, seconds):
    """Writes the start of an answer, then one byte at a time."""

    def write(connection):
        connection.sendall(start)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            connection.sendall(b" ")
            time.sleep(0.02)

    return write


OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize(
    "start", [OK + b"\r\n", OK + b"Content-Length: 9999\r\n\r\n", OK + b"X-A: "]
)
def test_an_answer_that_never_ends_is_cut_off_at_the_deadline(start, people, store):
    with Server(once(trickle(start, 5.0))) as server:
        begun = time.monotonic()
        result = run(people[:1], store, server, timeout_seconds=0.3)
        assert time.monotonic() - begun < 3.0  # the server would go on for 5 seconds
        assert result.refused["id-0"].kind == "error"
        assert "APITimeoutError" in result.refused["id-0"].detail
        assert not run(people[:1], store, server).refused


def test_an_endless_answer_is_cut_off_at_its_size(people, store):
    def write(connection):
        connection.sendall(OK + b"\r\n")
        with contextlib.suppress(OSError):
            while True:
                connection.sendall(b" " * 100_000)

    with Server(once(write)) as server:
        (refusal,) = run(people, store, server).refused.values()
        assert (refusal.kind, "4,000,000 bytes" in refusal.detail) == ("error", True)


def test_compressed_answers_are_read(people, store):
    content = gzip.compress(json.dumps(text(json.dumps(ANSWER))).encode())
    with Server(once(raw(content, **{"Content-Encoding": "gzip"}))) as server:
        assert not run(people, store, server).refused


@pytest.mark.parametrize(
    "stored",
    [
        "{",
        "[]",
        "null",
        '{"refusal": {"a": 1}, "detail": "", "usage": {}}',
        '{"refusal": "refusal", "detail": 5}',
        '{"metadata": {"caption": 7}}',
        '{"metadata": null, "usage": {"input_tokens": 1, "cached_tokens": 0, "output_tokens": 1}}',
        "[" * 100_000,
    ],
)
def test_damaged_entries_of_a_store_count_as_absent(stored, people, store, caplog, tmp_path):
    with Server(good) as server:
        run(people, store, server)
        with store._database.transaction() as connection:
            connection.execute(
                "UPDATE metadata SET outcome = ? WHERE key = (SELECT min(key) FROM metadata)",
                (stored,),
            )
        assert export_metadata(tmp_path / "m.csv", people, generator(server), store) == 2
        assert run(people, store, server).asked == 1
        assert "count as absent" in caplog.text
        assert run(people, store, server).asked == 0


def test_a_stored_surrogate_can_be_shown(people, store):
    with Server(once(reply([{"type": "refusal", "refusal": "HERE"}]))) as server:
        run(people, store, server)
        with store._database.transaction() as connection:
            connection.execute("UPDATE metadata SET outcome = replace(outcome, 'HERE', '\\ud800')")
        (refusal,) = run(people, store, server).refused.values()
        assert refusal.detail == "\ufffd"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_refused(status, people, store):
    with Server(good) as other:
        target = f"{other.url}/responses" if status % 2 else "/v2/responses"
        redirect = (status, b"", {"Location": target})
        with Server(lambda number, body: redirect) as server:
            with pytest.raises(GeneratorError, match=rf"answered {status}: .*redirect"):
                run(people, store, server)
            assert len(server.requests) == 1
        assert not other.requests
