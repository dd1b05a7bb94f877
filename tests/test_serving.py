"""The HTTP service: a real server on loopback, a real client, and hostile ones."""

import contextlib
import io
import itertools
import json
import re
import signal
import socket
import subprocess
import sys
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image
from typer.testing import CliRunner

pytest.importorskip("fastapi")
httpx = pytest.importorskip("httpx")

from pairmatch import Matcher, Pairs, Profile  # noqa: E402
from pairmatch.cli import app  # noqa: E402
from pairmatch.core.errors import ConfigurationError, ImageError  # noqa: E402
from pairmatch.experiments.demo import draw_people  # noqa: E402
from pairmatch.gallery import ExclusionFile, Exclusions, Gallery  # noqa: E402
from pairmatch.rules import parse_rule  # noqa: E402
from pairmatch.serving import messages  # noqa: E402
from pairmatch.serving.batching import Batcher  # noqa: E402
from pairmatch.serving.photos import PhotoDecoder  # noqa: E402
from pairmatch.serving.service import Service  # noqa: E402
from pairmatch.serving.settings import ServiceSettings, check_token  # noqa: E402

TOKEN = "a-token-of-the-tests-0123456789"
START_SECONDS = 240
SCRIPT = """
from pathlib import Path
from pairmatch.serving.server import serve
from pairmatch.serving.settings import Limits, ServiceSettings

if __name__ == "__main__":
    folder = Path({folder!r})
    settings = ServiceSettings(
        matcher=folder / "couples",
        galleries={{"a": folder / "ga", "b": folder / "gb"}},
        options={{"store": folder / "s.sqlite", "device": "cpu"}},
        store=folder / "s.sqlite",
        exclusions=folder / "ex.sqlite",
        token={token!r},
        limits=Limits(**{limits!r}),
    )
    serve(settings, host="127.0.0.1", port=0, workers={workers})
"""


def build(folder):
    """Writes a matcher, two galleries and a store to a folder."""
    draw_people(folder / "people", pairs=40, size_px=32)
    pairs = Pairs.read(folder / "people" / "pairs.csv")
    train, validation, _ = pairs.split(0.6, 0.3, seed=0)
    matcher = Matcher(
        backbone="descriptor", metadata="none", learner="ridge", store=folder / "s.sqlite"
    )
    matcher.fit(train, validation).save(folder / "couples")
    for side, ids in (("a", pairs.ids_a), ("b", pairs.ids_b)):
        people = [pairs.profiles[person] for person in ids]
        matcher.gallery(people, side=side).save(folder / f"g{side}")
    return folder


@contextlib.contextmanager
def running(command, log, workers=1):
    """Runs a server; yields its URL and process once all workers are ready."""
    with log.open("w") as file:
        process = subprocess.Popen(command, stderr=file, stdout=file)
    try:
        deadline = time.monotonic() + START_SECONDS
        url = None
        while True:
            found = re.search(r"Serving at (http://\S+)", log.read_text())
            url = found[1] if found else None
            if log.read_text().count(" INFO Ready") == workers:
                assert httpx.get(f"{url}/ready", timeout=30).status_code == 200
                break
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        yield url, process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def start(folder, *, token=None, limits=None, workers=1):
    script = folder / f"serve{workers}{bool(token)}.py"
    values = {"folder": str(folder), "token": token, "limits": limits or {}, "workers": workers}
    script.write_text(SCRIPT.format(**values))
    return running([sys.executable, str(script)], folder / f"{script.name}.log", workers)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A server of the command line: its URL, folder, process and log."""
    folder = build(tmp_path_factory.mktemp("serve"))
    command = [sys.executable, "-m", "pairmatch", "serve", str(folder / "couples")]
    command += ["--gallery", f"a={folder / 'ga'}", "--gallery", f"b={folder / 'gb'}", "--port", "0"]
    command += ["--store", str(folder / "s.sqlite"), "--exclusions", str(folder / "ex.sqlite")]
    with running(command, folder / "log") as (url, process):
        yield url, folder, process, folder / "log"


@pytest.fixture(scope="module")
def limited(tmp_path_factory):
    """URL of a server with low limits."""
    folder = build(tmp_path_factory.mktemp("limited"))
    limits = {"body_bytes": 300_000, "photos": 2, "photo_pixels": 1_000_000}
    seconds = {"body_seconds": 1.0, "header_seconds": 1.0, "decode_seconds": 30.0}
    with start(folder, limits={**limits, **seconds}) as (url, _):
        yield url


@pytest.fixture(scope="module")
def workers(tmp_path_factory):
    """URL, folder and process of a server with two workers and a token."""
    folder = build(tmp_path_factory.mktemp("workers"))
    with start(folder, token=TOKEN, workers=2) as (url, process):
        yield url, folder, process


def photo(folder, name="a0001"):
    return (folder / "people" / "images" / f"{name}.jpg").read_bytes()


def form(request, *photos):
    files = [("request", (None, json.dumps(request), "application/json"))]
    return files + [("photo", ("p.jpg", content, "image/jpeg")) for content in photos]


def detail(response, status, name):
    """The words of a problem, after a check of its form."""
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert (response.status_code, problem["status"]) == (status, status), problem
    assert problem["type"] == f"urn:pairmatch:problem:{name}"
    return problem["detail"]


def test_recommendations_are_those_of_the_library(small):
    url, folder, *_ = small
    matcher = Matcher.load(folder / "couples", store=folder / "s.sqlite")
    gallery = Gallery.open(folder / "gb")
    query, others = Gallery.open(folder / "ga").entries(["a0003"])["a0003"], {"b0001", "b0002"}
    expected = gallery.recommend(
        query[1][None], 5, where="age >= query.age", asking=query[0], excluded=others
    )
    body = {"id": "a0003", "k": 5, "where": ["age >= query.age"], "exclude": sorted(others)}
    answer = httpx.post(f"{url}/recommend", json=body, timeout=60).json()
    assert [one["id"] for one in answer["recommendations"]] == [one.profile.id for one in expected]
    scores = [one["score"] for one in answer["recommendations"]]
    assert scores == pytest.approx([one.score for one in expected])
    assert answer["candidates"] == expected.eligible
    probabilities = [one["probability"] for one in answer["recommendations"]]
    assert probabilities == pytest.approx(matcher.probabilities.probability(scores))


def test_new_people_are_embedded_as_by_the_library(small):
    url, folder, *_ = small
    matcher = Matcher.load(folder / "couples", store=folder / "other.sqlite")
    image = folder / "people" / "images" / "a0001.jpg"
    expected = matcher.embed([Profile("x", (image,))], side="a")[0]
    answer = httpx.post(f"{url}/embed", files=form({"side": "a"}, photo(folder)), timeout=60).json()
    np.testing.assert_allclose(answer["embedding"], expected, atol=1e-5)
    body = {"person": {"side": "a"}, "k": 3}
    found = httpx.post(f"{url}/recommend", files=form(body, photo(folder)), timeout=60).json()
    best = Gallery.open(folder / "gb").recommend(expected[None], 3)
    assert [one["id"] for one in found["recommendations"]] == [one.profile.id for one in best]
    assert not (folder / "other.sqlite-none").exists()


def test_people_are_added_replaced_excluded_and_erased(small):
    url, folder, *_ = small
    path = f"{url}/people/new%2Fanna"
    body = {"side": "b", "attributes": {"age": 31, "region": "north"}}
    put = httpx.put(path, files=form(body, photo(folder, "b0001")), timeout=60)
    assert put.json() == {"id": "new/anna", "side": "b", "replaced": False}
    put = httpx.put(path, files=form(body, photo(folder, "b0001")), timeout=60)
    assert put.json()["replaced"] is True
    ask = {"id": "a0001", "k": 1000}

    def shown():
        answer = httpx.post(f"{url}/recommend", json=ask, timeout=60).json()
        return {one["id"] for one in answer["recommendations"]}

    assert "new/anna" in shown()
    pairs = [{"id": "a0001", "other": "new/anna"}]
    added = httpx.post(f"{url}/exclusions", json={"pairs": pairs, "symmetric": True}, timeout=60)
    assert added.json() == {"added": 2}
    assert "new/anna" not in shown()
    body = {"pairs": [*pairs, {"id": "a0001", "other": "nobody"}]}
    assert httpx.request("DELETE", f"{url}/exclusions", json=body).json() == {"removed": 1}
    assert "new/anna" in shown()
    httpx.post(f"{url}/exclusions", json={"pairs": pairs}, timeout=60)
    erased = httpx.delete(path, timeout=60).json()
    assert (erased["galleries"], erased["exclusions"]) == (1, 2)
    assert b"new/anna" not in all_bytes(folder)
    assert len(ExclusionFile(folder / "ex.sqlite")) == 0
    gone = httpx.delete(path, timeout=60)
    assert "new/anna" in detail(gone, 404, "unknown-person")


def all_bytes(folder):
    """Content of all files of galleries, store and exclusions."""
    files = [*folder.glob("g?/*"), *folder.glob("*.sqlite*")]
    return b"".join(file.read_bytes() for file in files if file.is_file())


def test_errors_have_the_words_of_the_library(small):
    url, *_ = small
    with pytest.raises(ConfigurationError) as error:
        parse_rule("age >")
    body = {"id": "a0001", "where": ["age >"]}
    answer = httpx.post(f"{url}/recommend", json=body, timeout=60)
    assert detail(answer, 422, "invalid-request") == str(error.value)
    answer = httpx.post(f"{url}/recommend", json={"id": "nobody"}, timeout=60)
    assert "nobody" in detail(answer, 404, "unknown-person")
    answer = httpx.post(f"{url}/recommend", json={"id": "a0001", "kk": 3, "k": 0}, timeout=60)
    words = detail(answer, 422, "invalid-request")
    assert "kk" in words
    assert "k: Input should be greater" in words


def test_the_log_has_no_ids(small):
    url, _folder, _, log = small
    httpx.delete(f"{url}/people/secret-person", timeout=60)
    httpx.post(f"{url}/recommend", json={"id": "secret-person"}, timeout=60)
    unknown = httpx.get(f"{url}/secret-person", timeout=60)
    assert "/openapi.json" in detail(unknown, 404, "unknown-path")
    text = log.read_text()
    assert "secret" not in text
    assert "a0001" not in text
    assert "DELETE /people/{person:path} 404" in text


def test_metrics_count_routes(small):
    url, *_ = small
    httpx.post(f"{url}/recommend", json={"id": "a0001"}, timeout=60)
    text = httpx.get(f"{url}/metrics", timeout=60).text
    assert re.search(r'requests_total{method="POST",route="/recommend",status="200"} [1-9]', text)
    assert 'gallery_people{side="a"} 40.0' in text


def test_the_health_check_of_the_image(small):
    url, *_ = small
    image = (Path(__file__).parents[1] / "Dockerfile").read_text()
    words = json.loads(re.search(r"CMD (\[.*urlopen.*\])$", image, re.MULTILINE)[1])
    code = words[-1].replace("http://127.0.0.1:8000", url)
    assert "8000" not in code.replace(url, "")
    subprocess.run([sys.executable, *words[1:-1], code], check=True, timeout=60)


def test_pages_of_other_sites_are_not_answered_without_a_token(small):
    url, *_ = small
    other = {"Origin": "http://evil.example"}
    body = {"id": "a0001"}
    answer = httpx.post(f"{url}/recommend", json=body, headers=other, timeout=60)
    detail(answer, 403, "origin")
    answer = httpx.get(f"{url}/metrics", headers={"Host": "evil.example"}, timeout=60)
    detail(answer, 403, "host")


def test_random_requests_of_the_description(small):
    schemathesis = pytest.importorskip("schemathesis")
    from hypothesis import HealthCheck, Phase, given, settings
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi.checks import (
        content_type_conformance,
        response_schema_conformance,
        status_code_conformance,
    )

    url, *_ = small
    checks = [
        not_a_server_error,
        content_type_conformance,
        response_schema_conformance,
        status_code_conformance,
    ]
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    count = 0
    for operation in schema.get_all_operations():

        @settings(
            max_examples=12,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.ok().as_strategy())
        def check(case):
            response = case.call(base_url=url, timeout=60)
            case.validate_response(response, checks=checks)

        check()
        count += 1
    assert count == 9


# --- hostile clients


def talk(url, content, *, seconds=60):
    """Sends bytes; returns everything that comes until the server closes the connection."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=seconds) as connection:
        connection.sendall(content)
        parts = []
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


def head(length, kind="application/json"):
    lines = ["POST /recommend HTTP/1.1", "Host: localhost", f"Content-Type: {kind}"]
    return "\r\n".join([*lines, f"Content-Length: {length}", "", ""]).encode()


def test_slow_clients_are_cut_off(limited):
    assert talk(limited, b"GET /hea") == b""
    answer = talk(limited, head(1000) + b'{"id"')
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"within 1 seconds" in answer
    assert httpx.get(f"{limited}/ready", timeout=60).status_code == 200


def test_clients_that_take_no_answer_are_cut_off(limited):
    """They would keep their place, and the memory of their answers, for ever."""
    port = int(limited.rsplit(":", 1)[1])
    request = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        client.connect(("127.0.0.1", port))
        client.settimeout(60)
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            client.sendall(200_000 * request)
    assert httpx.get(f"{limited}/ready", timeout=60).status_code == 200


def test_huge_bodies_are_cut_off(limited):
    answer = talk(limited, head(10**12))
    assert answer.startswith(b"HTTP/1.1 413")

    def endless():
        for _ in range(50):
            yield b" " * 65536

    kind = {"Content-Type": "application/json"}
    try:
        response = httpx.post(f"{limited}/recommend", content=endless(), headers=kind, timeout=60)
        assert response.status_code == 413
    except httpx.TransportError:
        pass  # the connection was closed while the client still sent
    response = httpx.post(f"{limited}/embed", files=form({"side": "a"}, b"x" * 400_000), timeout=60)
    assert "300,000 bytes" in detail(response, 413, "too-large")


def bomb(width, height):
    """A PNG of many equal pixels in a small file."""

    def chunk(kind, content):
        checked = kind + content
        return len(content).to_bytes(4, "big") + checked + zlib.crc32(checked).to_bytes(4, "big")

    size = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    pixels = zlib.compress(b"\0" * (1 + (width + 7) // 8) * height, 9)
    header = chunk(b"IHDR", size + b"\x01\x00\x00\x00\x00")
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (lambda: bomb(9000, 9000), "more than 1,000,000"),
        (lambda: bomb(2000, 600), "more than 1,000,000"),
        (lambda: b"not a photo", "not a photo"),
        (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n", "PostScript"),
        (lambda: b"", "empty"),
        (lambda: jpeg()[:200], "truncated or damaged"),
    ],
)
def test_photos_that_cannot_be_used(limited, content, words):
    response = httpx.post(f"{limited}/embed", files=form({"side": "a"}, content()), timeout=60)
    assert words in detail(response, 422, "unreadable-photo")


def jpeg():
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("body", "status", "name"),
    [
        (b"{", 400, "malformed"),
        (b"[" * 100_000, 400, "malformed"),
        (b'{"id": "\\ud800"}', 400, "malformed"),
        (b"\xff\xfe", 400, "malformed"),
        (b"[]", 422, "invalid-request"),
        (b'{"id": 1}', 422, "invalid-request"),
        (b'{"person": {"attributes": {"age": NaN}}}', 422, "invalid-request"),
        (b'{"person": {"attributes": {"age": [1]}}}', 422, "invalid-request"),
        (b'{"id": "a0001", "k": 1e99}', 422, "invalid-request"),
        (b'{"id": "a0001", "where": ["' + b"(" * 200 + b'"]}', 422, "invalid-request"),
        (b'{"id": "a0001", "where": ["' + b"1=1 or " * 1500 + b'1=1"]}', 422, "invalid-request"),
        (
            json.dumps({"id": "a0001", "where": ["age > 1 or " * 900 + "age > 1"] * 3}).encode(),
            422,
            "invalid-request",
        ),
    ],
)
def test_bodies_that_cannot_be_used(limited, body, status, name):
    kind = {"Content-Type": "application/json"}
    response = httpx.post(f"{limited}/recommend", content=body, headers=kind, timeout=60)
    detail(response, status, name)


def test_forms_that_cannot_be_used(limited):
    kind = {"Content-Type": "text/plain"}
    response = httpx.post(f"{limited}/embed", content=b"x", headers=kind, timeout=60)
    detail(response, 415, "media-type")
    files = [("other", ("x", b"x"))]
    detail(httpx.post(f"{limited}/embed", files=files, timeout=60), 400, "invalid-form")
    kind = {"Content-Type": "multipart/form-data"}
    response = httpx.post(f"{limited}/embed", content=b"x", headers=kind, timeout=60)
    detail(response, 400, "invalid-form")
    many = form({"side": "a"}, *[jpeg()] * 3)
    response = httpx.post(f"{limited}/embed", files=many, timeout=60)
    assert response.status_code in (400, 413)


def test_the_service_still_answers_after_all_that(limited):
    with ThreadPoolExecutor(8) as pool:
        ask = {"id": "a0001", "k": 3}
        calls = [pool.submit(httpx.post, f"{limited}/recommend", json=ask, timeout=60)] * 16
        assert {call.result().status_code for call in calls} == {200}
    response = httpx.post(f"{limited}/embed", files=form({"side": "a"}, jpeg()), timeout=60)
    assert response.status_code == 200


# --- token and workers

BEARER = {"Authorization": f"Bearer {TOKEN}"}


def test_the_token_is_needed(workers):
    url, *_ = workers
    ask = {"id": "a0001", "k": 1}
    for headers in ({}, {"Authorization": "Bearer x"}, {"Authorization": TOKEN}):
        answer = httpx.post(f"{url}/recommend", json=ask, headers=headers, timeout=60)
        assert answer.headers["www-authenticate"] == "Bearer"
        detail(answer, 401, "token")
    assert httpx.get(f"{url}/metrics", timeout=60).status_code == 401
    assert httpx.get(f"{url}/health", timeout=60).status_code == 200
    answer = httpx.post(f"{url}/recommend", json=ask, headers=BEARER, timeout=60)
    assert answer.status_code == 200


def test_erased_people_are_found_by_no_worker_and_in_no_file(workers):
    url, folder, process = workers
    children = psutil.Process(process.pid).children()
    assert sum("resource_tracker" not in " ".join(child.cmdline()) for child in children) == 2
    put = httpx.put(
        f"{url}/people/erased-person",
        files=form({"side": "b"}, jpeg()),
        headers=BEARER,
        timeout=60,
    )
    assert put.status_code == 200, put.text
    found = ask_at_once(url, 40)
    assert all("erased-person" in people for people in found)
    vector = Gallery.open(folder / "gb").entries(["erased-person"])["erased-person"][1]
    # SQLite splits a long vector over pages
    parts = [vector[start : start + 16].tobytes() for start in range(0, len(vector) - 16, 16)]
    parts = [part for part in parts if any(part)]  # zeros are everywhere
    content = all_bytes(folder)
    assert sum(part in content for part in parts) > len(parts) / 2
    answer = httpx.delete(f"{url}/people/erased-person", headers=BEARER, timeout=60)
    assert answer.status_code == 200, answer.text
    assert not any("erased-person" in people for people in ask_at_once(url, 40))
    content = all_bytes(folder)
    assert b"erased-person" not in content
    assert not any(part in content for part in parts)


def ask_at_once(url, count):
    """Ids shown to one person, by requests of as many connections at once."""
    ask = {"id": "a0002", "k": 1000}

    def shown(_):
        answer = httpx.post(f"{url}/recommend", json=ask, headers=BEARER, timeout=60)
        return {one["id"] for one in answer.json()["recommendations"]}

    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(shown, range(count)))


def test_searches_while_people_come_and_go(workers):
    url, folder, _ = workers
    content = photo(folder, "b0003")

    def come_and_go(number):
        person = f"{url}/people/guest{number}"
        ask = {"id": "a0003", "k": 1000}
        with httpx.Client(headers=BEARER, timeout=60) as client:
            for _ in range(4):
                put = client.put(person, files=form({"side": "b"}, content))
                assert put.status_code == 200, put.text
                assert f"guest{number}" in ids_of(client.post(f"{url}/recommend", json=ask))
                gone = client.delete(person, params={"erase": "false"})
                assert gone.status_code == 200, gone.text
                assert f"guest{number}" not in ids_of(client.post(f"{url}/recommend", json=ask))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(come_and_go, range(4)))


def ids_of(answer):
    assert answer.status_code == 200, answer.text
    return {one["id"] for one in answer.json()["recommendations"]}


def test_many_requests_at_once(workers):
    """Each of 600 requests is answered, or refused with the advice to try again."""
    url, *_ = workers
    port = int(url.rsplit(":", 1)[1])
    body = json.dumps({"id": "a0001", "k": 3}).encode()
    head = f"POST /recommend HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
    head += "Content-Type: application/json\r\n"
    request = f"{head}Connection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    with contextlib.ExitStack() as stack:
        clients = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port), 60))
            for _ in range(600)
        ]
        for client in clients:
            client.sendall(request)
        answers = [client.makefile("rb").read() for client in clients]
    statuses = [int(answer.split(b" ", 2)[1]) for answer in answers]
    assert set(statuses) <= {200, 503}
    assert statuses.count(200) >= 256
    assert all(b"retry-after" in answer for answer in answers if b" 503 " in answer[:20])


@pytest.mark.slow
def test_what_was_answered_survives_a_kill(tmp_path):
    """Additions from four clients, until the process is killed in the middle of them."""
    folder = build(tmp_path)
    content = photo(folder, "b0001")
    answered = []

    def add_people(url, client):
        for number in itertools.count():
            person = f"p{client}-{number}"
            try:
                put = httpx.put(
                    f"{url}/people/{person}", files=form({"side": "b"}, content), timeout=60
                )
            except httpx.TransportError:
                return
            if put.status_code == 200:
                answered.append(person)

    with start(folder) as (url, process), ThreadPoolExecutor(4) as pool:
        for client in range(4):
            pool.submit(add_people, url, client)
        while len(answered) < 20:
            time.sleep(0.01)
        process.kill()
    assert set(answered) <= set(Gallery.open(folder / "gb").ids)


def test_a_stop_finishes_requests(tmp_path):
    folder = build(tmp_path)
    with start(folder) as (url, process):
        with ThreadPoolExecutor(4) as pool:
            ask = {"id": "a0001", "k": 3}
            calls = [pool.submit(httpx.post, f"{url}/recommend", json=ask, timeout=60)]
            calls[0].result()
            process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        with pytest.raises(httpx.TransportError):
            httpx.get(f"{url}/health", timeout=5)
    assert calls[0].result().status_code == 200


# --- parts


def test_hosts_that_others_reach_need_a_token():
    check_token(None, "127.0.0.1")
    check_token(None, "::1")
    check_token(None, "localhost")
    check_token("x" * 16, "0.0.0.0")
    for host in ("0.0.0.0", "::", "example.org", "10.0.0.1"):
        with pytest.raises(ConfigurationError, match="PAIRMATCH_TOKEN"):
            check_token(None, host)
    with pytest.raises(ConfigurationError, match="16 printable"):
        check_token("short", "127.0.0.1")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--gallery", "nothing"], "SIDE=FOLDER"),
        (["--gallery", "b={gb}", "--gallery", "b={gb}"], "once per side"),
        (["--gallery", "a={gb}"], "side b"),
        (["--gallery", "b={folder}"], "holds no gallery"),
        (["--gallery", "b={gb}", "--host", "0.0.0.0"], "PAIRMATCH_TOKEN"),
        (["--gallery", "b={gb}", "--exclusions", "{store}"], "store of pairmatch"),
    ],
)
def test_wrong_arguments_are_errors_before_anything_listens(small, arguments, words, monkeypatch):
    monkeypatch.delenv("PAIRMATCH_TOKEN", raising=False)
    folder = small[1]
    names = {"gb": folder / "gb", "folder": folder, "store": folder / "s.sqlite"}
    filled = [argument.format(**names) for argument in arguments]
    command = ["serve", str(folder / "couples"), *filled, "--port", "0"]
    result = CliRunner().invoke(app, [*command, "--store", str(names["store"])])
    assert result.exit_code == 2
    assert words in " ".join(result.output.split())


def test_a_photo_that_hangs_costs_one_decoder(tmp_path):
    decoder = PhotoDecoder(1, most_pixels=10_000, seconds=1)
    buffer = io.BytesIO()
    Image.new("RGB", (20, 10), "red").save(buffer, "PNG")
    try:
        assert decoder.decode([buffer.getvalue()])[0].size == (20, 10)
        (child,) = [
            process
            for process in psutil.Process().children()
            if "spawn_main" in " ".join(process.cmdline())
        ]
        child.suspend()
        with pytest.raises(ImageError, match="longer than 1 seconds"):
            decoder.decode([buffer.getvalue()])
        assert not child.is_running()
        assert decoder.decode([buffer.getvalue()])[0].getpixel((0, 0)) == (255, 0, 0)
    finally:
        decoder.close()


def test_a_lance_gallery_is_served(tmp_path):
    pytest.importorskip("lancedb")
    from pairmatch.gallery import LanceGallery

    folder = build(tmp_path)
    saved = Gallery.open(folder / "gb")
    lance = LanceGallery(folder / "lance", side="b", made_by=saved.made_by)
    lance.add(saved.profiles(saved.ids), saved.embeddings)
    settings = {
        "matcher": folder / "couples",
        "options": {"store": folder / "s.sqlite", "device": "cpu"},
        "store": folder / "s.sqlite",
    }
    answers = []
    for gallery in ("gb", "lance"):
        galleries = {"a": folder / "ga", "b": folder / gallery}
        service = Service(ServiceSettings(galleries=galleries, **settings))
        ask = messages.Recommend(id="a0001", k=5, where=["age >= 25"])
        answers.append([(one.profile.id, round(one.score, 5)) for one in service.recommend(ask)])
        best = answers[-1][0][0]
        service.put("anna", messages.Put(side="b", attributes={"age": 30}), [photo_file(folder)])
        assert len(service.recommend(messages.Recommend(id="a0001", k=1000))) == 41
        assert service.erase(best).galleries
        assert best not in [one.profile.id for one in service.recommend(ask)]
        service.close()
    assert answers[0] == answers[1]


def photo_file(folder):
    return folder / "people" / "images" / "b0001.jpg"


def test_jobs_are_done_together_and_fail_alone():
    import threading

    free = threading.Event()
    batches = []

    def run(jobs):
        free.wait(30)
        batches.append(list(jobs))
        if 13 in jobs:
            raise ValueError("unlucky")
        return [job * 2 for job in jobs]

    batcher = Batcher(run, key=lambda job: job >= 100)
    with ThreadPoolExecutor(8) as pool:
        calls = {job: pool.submit(batcher.do, job) for job in (1, 2, 13, 100, 101)}
        while sum(call.running() for call in calls.values()) < 5:
            time.sleep(0.001)
        free.set()
        assert [calls[job].result(30) for job in (1, 2, 100, 101)] == [2, 4, 200, 202]
        with pytest.raises(ValueError, match="unlucky"):
            calls[13].result(30)
    batcher.close()
    assert max(map(len, batches)) > 1
    assert not any({100, 101} & set(batch) and {1, 2, 13} & set(batch) for batch in batches)


def test_exclusion_files_are_shared(tmp_path):
    first, second = ExclusionFile(tmp_path / "x.sqlite"), ExclusionFile(tmp_path / "x.sqlite")
    assert first.add([("a", "b"), ("a", "b")]) == 1
    assert second.of("a") == {"b"}
    assert second.of("b") == set()
    assert second.add([("e\u0301", "b")], symmetric=True) == 2
    assert first.of("b") == {"\xe9"}
    assert first.known(["e\u0301", "z"]) == {"e\u0301"}
    assert sorted(first.exclusions().of("a")) == ["b"]
    assert second.add([("b", "c")], symmetric=True) == 2
    assert first.remove([("c", "b"), ("c", "d")]) == 1
    assert Exclusions.read(tmp_path / "x.sqlite").of("b") == {"\xe9", "c"}
    assert Exclusions.read(tmp_path / "x.sqlite", symmetric=True).of("c") == {"b"}
    assert second.remove([("b", "c")], symmetric=True) == 1
    assert first.forget(["b"]) == 3
    assert len(second) == 0
    assert b"\xc3\xa9" not in b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert oct((tmp_path / "x.sqlite").stat().st_mode & 0o777) == "0o600"
    for bad in ("", " ", "\ud800"):
        with pytest.raises(ConfigurationError, match="two ids"):
            first.add([("a", bad)])


@pytest.mark.slow
def test_workers_end_with_the_process_that_started_them(tmp_path):
    """After SIGKILL, they would keep the port and answer the clients of the next service."""
    folder = build(tmp_path)
    with start(folder, workers=2) as (url, process):
        process.kill()
        process.wait(60)
        deadline = time.monotonic() + 60
        while True:
            try:
                httpx.get(f"{url}/health", timeout=5)
            except httpx.TransportError:
                break
            assert time.monotonic() < deadline
            time.sleep(0.05)
        port = int(url.rpartition(":")[2])
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as free:
            free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            free.bind(("127.0.0.1", port))
