"""The explorer: its pages over HTTP, and in a real browser."""

import asyncio
import contextlib
import dataclasses
import html
import io
import json
import logging
import re
import shutil
import threading
import time

import numpy as np
import pytest
from PIL import Image
from scipy.special import expit
from typer.testing import CliRunner

pytest.importorskip("fastapi")
httpx = pytest.importorskip("httpx")
uvicorn = pytest.importorskip("uvicorn")

from pairmatch import Matcher, Pairs, Profile  # noqa: E402
from pairmatch.cli import app as command_line  # noqa: E402
from pairmatch.core.errors import ConfigurationError, DataError  # noqa: E402
from pairmatch.data.matches import read_matches  # noqa: E402
from pairmatch.evaluation.diagnostics import hubness  # noqa: E402
from pairmatch.experiments.demo import draw_people  # noqa: E402
from pairmatch.learning.evidence import KINDS, score_by_evidence  # noqa: E402
from pairmatch.learning.heads import IdentityHead  # noqa: E402
from pairmatch.learning.likes_head import LikesHead  # noqa: E402
from pairmatch.learning.stacking import StackedHead  # noqa: E402
from pairmatch.market import balance  # noqa: E402
from pairmatch.rules import parse_rule  # noqa: E402
from pairmatch.serving.app import create_app  # noqa: E402
from pairmatch.serving.explorer import computing  # noqa: E402
from pairmatch.serving.explorer.explorer import Explorer  # noqa: E402
from pairmatch.serving.explorer.exposure import exposure  # noqa: E402
from pairmatch.serving.explorer.sessions import COOKIE, SECONDS, is_session, new_session  # noqa: E402
from pairmatch.serving.explorer.slates import Question, Slates  # noqa: E402
from pairmatch.serving.explorer.views import (  # noqa: E402
    exposure_view,
    pairs_view,
    slate_view,
)
from pairmatch.serving.explorer.walk import walk  # noqa: E402
from pairmatch.serving.service import Service  # noqa: E402
from pairmatch.serving.settings import ExplorerSettings, ServiceSettings  # noqa: E402

TOKEN = "a-token-of-the-tests-0123456789"
SCRIPT = "<script>alert(1)</script>"
HOSTILE = {
    f"b{SCRIPT}": {"region": f'"><img src=x onerror=alert(1)>{SCRIPT}'},
    "b\u202egnitrever": {"region": "\u202enorth\u2066"},
    "blong": {"region": "x" * 10_000},
}


def build(folder):
    """Writes two matchers, their galleries, photos and test pairs; people of b are hostile too."""
    draw_people(folder / "people", pairs=24, size_px=32)
    pairs = Pairs.read(folder / "people" / "pairs.csv")
    train, validation, test = pairs.split(0.6, 0.2, seed=0)
    matcher = Matcher(
        backbone="descriptor", metadata="none", learner="ridge", store=folder / "s.sqlite"
    )
    ridge = matcher.fit(train, validation).fitted_head
    heads = {"whitened": IdentityHead(dim=ridge.dim), "ridge": ridge}
    stacked = StackedHead.joined(heads, np.array([0.3, 0.7]), np.ones(2))
    for name, head in (("couples", stacked), ("others", ridge)):
        matcher.head = head
        matcher.save(folder / name)
        for side, ids in (("a", pairs.ids_a), ("b", pairs.ids_b)):
            gallery = matcher.gallery([pairs.profiles[one] for one in ids], side=side)
            if side == "b" and name == "couples":
                like = gallery.entries(["b0001"])["b0001"][1]
                people = [Profile(one, attributes=values) for one, values in HOSTILE.items()]
                gallery.add(people, np.stack([like] * len(people)))
            gallery.save(folder / f"{name}-{side}")
    lines = [f"{pair.a},{pair.b}" for pair in test.pairs]
    (folder / "test.csv").write_text("\n".join(["id_a,id_b", *lines, "a0000,nobody"]))
    return folder


def settings_of(folder, **changes):
    explorer = {
        "photos": folder / "people" / "images",
        "pairs": folder / "test.csv",
        "matcher": folder / "others",
        "galleries": {side: folder / f"others-{side}" for side in "ab"},
    }
    explorer |= changes.pop("explorer", {})
    values = {
        "matcher": folder / "couples",
        "galleries": {side: folder / f"couples-{side}" for side in "ab"},
        "options": {"store": folder / "s.sqlite", "device": "cpu"},
        "store": folder / "s.sqlite",
        "explorer": ExplorerSettings(**explorer),
    }
    return ServiceSettings(**values | changes)


@contextlib.contextmanager
def running(settings):
    """Serves in a thread; yields the URL once the service is loaded."""
    levels = {name: logging.getLogger(name).level for name in ("pairmatch", "pairmatch.serving")}
    config = uvicorn.Config(create_app(settings), port=0, log_config=None, access_log=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        deadline = time.monotonic() + 60
        while not server.started:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        while httpx.get(f"{url}/ready", timeout=60).status_code != 200:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield url
    finally:
        server.should_exit = True
        thread.join(60)
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return build(tmp_path_factory.mktemp("explorer"))


@pytest.fixture(scope="module")
def url(folder):
    with running(settings_of(folder, read_only=True)) as url:
        yield url


@pytest.fixture(scope="module")
def service(folder):
    service = Service(settings_of(folder))
    yield service
    service.close()


def get(url, path="", **parameters):
    """A page, once it is computed, after a check of what every page has."""
    deadline = time.monotonic() + 60
    while True:
        answer = httpx.get(f"{url}/explore{path}", params=parameters, timeout=60)
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["cache-control"] == "no-store"
        if "refresh" not in answer.headers:
            return answer
        assert time.monotonic() < deadline
        time.sleep(0.05)


def ids_of(answer):
    """Ids of the cards of a slate, in order."""
    found = re.findall(r'<h3 id="card-\d+">.*?<bdi>(.*?)</bdi>', answer.text)
    return [html.unescape(one) for one in found]


# --- slates


@pytest.mark.parametrize(
    "rule",
    [{}, {"where": ["age >= query.age"]}, {"where": ["abs(age - query.age) < 9"], "mutual": True}],
)
def test_a_slate_is_what_the_service_recommends(url, rule):
    body = {"id": "a0003", "k": 5, **rule}
    expected = httpx.post(f"{url}/recommend", json=body, timeout=60).json()
    parameters = {"where": rule.get("where", [""])[0], "mutual": int("mutual" in rule)}
    answer = get(url, id="a0003", k=5, **parameters)
    assert answer.status_code == 200
    shown = [one["id"] for one in expected["recommendations"]]
    assert [one for one in ids_of(answer) if "\\u" not in one] == [
        one for one in shown if "\u202e" not in one
    ]
    assert f"5 of {expected['candidates']} eligible candidates" in answer.text
    chances = [float(one) for one in re.findall(r"<b>([\d.]+) %</b> chance", answer.text)]
    probabilities = [100 * one["probability"] for one in expected["recommendations"]]
    assert chances == pytest.approx(probabilities, abs=0.5)


def test_a_rule_that_cannot_be_used_is_explained_beside_its_field(url):
    with pytest.raises(ConfigurationError) as error:
        parse_rule("age >")
    text = html.unescape(get(url, id="a0003", where="age >").text)
    assert str(error.value).splitlines()[0] in text
    assert 'aria-invalid="true"' in text
    assert "10,000 characters" in get(url, id="a0003", where="1=1 or " * 1500 + "1=1").text
    empty = get(url, id="a0003", where="age > 200").text
    assert "No candidate is left" in empty
    assert "age &gt; 200" in empty


def test_an_unknown_id_is_answered_by_ids_that_begin_with_it(url):
    text = get(url, id="a000", side="a").text
    assert "No gallery has the id" in text
    found = re.findall(r"<li><a href=\"/explore\?id=(\w+)", text)
    assert found == [f"a000{number}" for number in range(10)]
    assert httpx.get(f"{url}/explore/people?side=a&prefix=a", timeout=60).json() == [
        f"a{number:04}" for number in range(20)
    ]
    assert httpx.get(f"{url}/explore/people?side=a&prefix=zz", timeout=60).json() == []


def test_people_who_are_gone_are_not_suggested(folder, tmp_path):
    shutil.copytree(folder / "couples-a", tmp_path / "a")
    shutil.copytree(folder / "couples-b", tmp_path / "b")
    galleries = {"a": tmp_path / "a", "b": tmp_path / "b"}
    explorer = {"photos": None, "pairs": None, "matcher": None}
    with running(settings_of(folder, galleries=galleries, explorer=explorer)) as url:
        address = f"{url}/explore/people?side=a&prefix=a000"
        assert "a0002" in httpx.get(address, timeout=60).json()
        assert httpx.delete(f"{url}/people/a0002?erase=false", timeout=60).status_code == 200
        assert "a0002" not in httpx.get(address, timeout=60).json()
        text = get(url, id="a0003").text
        assert "<img" not in text  # photos are off
        assert httpx.get(f"{url}/explore/photo?id=a0003", timeout=60).status_code == 404
        assert "--pairs FILE" in get(url, "/pairs").text


HOSTILE_ADDRESSES = [
    {"id": "a0001", "k": 60},
    {"id": f'"{SCRIPT}', "where": f'"{SCRIPT}', "side": SCRIPT, "policy": SCRIPT, "k": "-1"},
    {"id": f"b{SCRIPT}", "side": "b", "k": "9" * 50},
    {"id": "b\u202egnitrever", "side": "b", "k": "²"},
    {"id": "blong", "where": "region = 'x'" + " or region = 'y'" * 50},
    {"id": "x" * 5000},
    {"id": "a0001", "where": f"region = '{SCRIPT}'", "mutual": "1"},
    {"id": "a\0b"},
]


@pytest.mark.parametrize("path", ["", "/compare", "/exposure", "/pairs"])
def test_hostile_people_and_addresses_are_shown_as_text(url, path):
    for parameters in HOSTILE_ADDRESSES:
        others = dict.fromkeys(("order", "at", "left", "right"), SCRIPT)
        answer = get(url, path, **parameters, **others)
        assert answer.status_code == (400 if "\0" in parameters["id"] else 200)
        text = answer.text.replace('<script src="/explore/script.js" defer></script>', "")
        assert "<script" not in text
        assert "onerror=alert(1)>" not in text
        shown = re.sub(r'(value|href|src)="[^"]*"', "", text)
        assert not {"\u202e", "\u2066"} & set(shown)
        assert "x" * 300 not in shown


def test_why_is_about_two_people_and_adds_up(service):
    slates = Slates(service)
    query = Question("a0003", "a", 8)
    slate = slates.slate(query)
    head = service.matcher.fitted_head
    vector = service.stored("a0003")[2]
    gallery = service.galleries["b"]
    candidates = np.stack([gallery.entries([card.id])[card.id][1] for card in slate.cards])
    parts = score_by_evidence(head, vector, candidates)
    assert set(parts) <= set(KINDS)
    assert len(parts) == 2
    np.testing.assert_allclose(sum(parts.values()), candidates @ vector, atol=1e-5)
    average = gallery.embeddings.mean(0) @ vector
    for card in slate.cards:
        assert sum(value for _, value in card.parts) == pytest.approx(
            card.score - average, abs=0.011
        )
    first = next(card for card in slate.cards if card.id not in HOSTILE)
    ages = [service.stored(one)[1]["age"] for one in ("a0003", first.id)]
    (trait,) = [trait for trait in first.traits if trait.name == "age"]
    assert [trait.query, trait.candidate] == [str(age) for age in ages]
    difference = f"{ages[1] - ages[0]:+}".replace("-", "−")
    assert trait.relation == ("same" if ages[0] == ages[1] else difference)
    assert score_by_evidence(None, vector, candidates) == {}
    slates.computed.close()


# --- policies


def test_a_balanced_slate_ranks_by_score_and_bonus(service):
    slates = Slates(service)
    a, b = service.galleries["a"], service.galleries["b"]
    bonus = balance(a.embeddings, b.embeddings).bonus_b
    vector = service.stored("a0003")[2]
    expected = b.search(vector[None], 6, bonus=bonus)
    slate = slates.slate(Question("a0003", "a", 6, policy="balanced"))
    assert [card.id for card in slate.cards] == list(expected.ids[0])
    assert [card.rank for card in slate.cards] == [1, 2, 3, 4, 5, 6]
    assert slate.cards[0].score == pytest.approx(
        float(b.entries([slate.cards[0].id])[slate.cards[0].id][1] @ vector), abs=1e-5
    )
    with pytest.raises(ConfigurationError, match="one score for both directions"):
        slates.slate(Question("a0003", "a", policy="reciprocal"))
    slates.computed.close()


def test_galleries_that_are_too_large_are_not_balanced(service, monkeypatch):
    from pairmatch.serving.explorer import slates as module

    monkeypatch.setattr(module, "MOST_BALANCED", 100)
    slates = Slates(service)
    with pytest.raises(ConfigurationError, match="the limit is 100 pairs"):
        slates.slate(Question("a0003", "a", policy="balanced"))
    slates.computed.close()


def test_a_reciprocal_slate_ranks_by_the_yes_of_both(folder, tmp_path):
    matcher = Matcher.load(folder / "others", store=folder / "s.sqlite")
    rng = np.random.default_rng(0)
    head = LikesHead(dim=matcher.head.dim, rank=4)
    for name in ("maps", "bias"):
        value = getattr(head, name)
        value.copy_(value.new_tensor(rng.normal(size=value.shape)))
    head.longest.fill_(6.0)
    matcher.head = head
    pairs = Pairs.read(folder / "people" / "pairs.csv", check_images=False)
    galleries = {}
    for side, ids in (("a", pairs.ids_a), ("b", pairs.ids_b)):
        galleries[side] = matcher.gallery([pairs.profiles[one] for one in ids], side=side).save(
            tmp_path / side
        )
    service = Service(settings_of(folder, galleries=galleries), matcher)
    slates = Slates(service)
    vector = service.stored("b0005")[2]
    everyone = service.galleries["a"]
    likes = {
        side: expit(
            head.side_vectors(everyone.embeddings, side) @ head.side_vectors(vector[None], side)[0]
        )
        for side in "ab"
    }
    product = likes["a"] * likes["b"]
    slate = slates.slate(Question("b0005", "b", 10, policy="reciprocal"))
    expected = [everyone.ids[row] for row in np.argsort(-product, kind="stable")[:10]]
    assert [card.id for card in slate.cards] == expected
    row = everyone.ids.index(expected[0])
    assert slate.cards[0].likes == pytest.approx((likes["b"][row], likes["a"][row]), abs=1e-5)
    plain = slates.slate(Question("b0005", "b", 10))
    assert [card.id for card in plain.cards] != expected
    slates.computed.close()
    service.close()


def test_two_matchers_and_two_policies_stand_side_by_side(url):
    answer = get(url, "/compare", id="a0003", k=6, left="plain", right="second:plain")
    columns = answer.text.split('<section aria-labelledby="column-')[1:]
    assert [re.search(r"<h2[^>]*>(.*?)</h2>", one)[1] for one in columns] == [
        "couples: plain",
        "others: plain",
    ]
    lists = [re.findall(r"<a href=.*?><bdi>(.*?)</bdi>", one) for one in columns]
    assert [len(one) for one in lists] == [6, 6]
    shared = len(set(lists[0]) & set(lists[1]))
    assert f"{shared} of 6 candidates on the left" in answer.text
    assert answer.text.count("only here") == 2 * (6 - shared)
    second = get(url, "/compare", id="a0003", left="plain", right="balanced").text
    assert "couples: balanced" in second
    assert "one score for both directions" in second


def test_a_result_is_computed_in_the_background_and_kept(monkeypatch):
    computed = computing.Computed()
    gate = threading.Event()
    monkeypatch.setattr(computing, "_WAIT_SECONDS", 0.01)
    calls = []

    def compute():
        gate.wait(30)
        calls.append(1)
        return len(calls)

    with pytest.raises(computing.ComputingError):
        computed.get("x", compute)
    gate.set()
    monkeypatch.setattr(computing, "_WAIT_SECONDS", 30)
    assert computed.get("x", compute)[0] == 1
    assert computed.get("x", compute)[0] == 1
    monkeypatch.setattr(computing, "KEPT_SECONDS", -1.0)
    assert computed.get("x", compute)[0] == 2
    computed.close()


# --- exposure and test pairs


def test_exposure_counts_slates(service, url):
    found = exposure(service, "a", 5)
    a, b = service.galleries["a"], service.galleries["b"]
    expected = hubness(a.embeddings, b.embeddings, k=5)
    # Hostile people have the same embedding, so that ties are broken in any order
    unequal = [row for row, person in enumerate(b.ids) if person not in {*HOSTILE, "b0001"}]
    counts = found.spreads["plain"].counts
    np.testing.assert_array_equal(counts[unequal], expected.counts[unequal])
    assert counts.sum() == 5 * len(a)
    assert found.most[0][1] == counts.max()
    assert {*found.never} <= {b.ids[row] for row in np.flatnonzero(counts == 0)}
    assert found.chance == pytest.approx((1 - 5 / len(b)) ** len(a))
    text = get(url, "/exposure", side="a", k=5).text
    assert f"Slates of {len(a)} of {len(a)} people, each with 5 of {len(b)}" in text
    for row in ("plain", "balanced", "random order"):
        assert f'<th scope="row">{row}</th>' in text
    assert "<svg" in text
    assert "more than 60 candidates" in get(url, "/exposure", side="a", k=60).text


def test_test_pairs_are_in_the_order_of_their_ranks(service, folder, url):
    matches = read_matches(folder / "test.csv")
    result = walk(service, matches)
    assert (result.given, result.missing) == (len(matches), 1)
    a, b = service.galleries["a"], service.galleries["b"]
    for pair in result.pairs:
        scores = b.embeddings @ a.entries([pair.a])[pair.a][1]
        own = scores[b.ids.index(pair.b)]
        others = np.delete(scores, b.ids.index(pair.b))
        expected = 1 + (others > own + 1e-6).sum() + (np.abs(others - own) <= 1e-6).sum() / 2
        assert pair.rank_of_b == expected
    qualities = [1 / pair.rank_of_a + 1 / pair.rank_of_b for pair in result.pairs]
    assert qualities == sorted(qualities, reverse=True)
    worst = get(url, "/pairs", order="worst").text
    assert f"<bdi>{result.pairs[-1].a}</bdi> and <bdi>{result.pairs[-1].b}</bdi>" in worst
    assert 'rel="prev"' not in worst
    assert 'at=2"' in worst
    second = get(url, "/pairs", order="best", at=2).text
    assert f"<bdi>{result.pairs[1].a}</bdi> and <bdi>{result.pairs[1].b}</bdi>" in second
    assert 'rel="prev"' in second


def test_people_of_one_side_and_a_single_gallery(folder, tmp_path):
    pairs = Pairs.read(folder / "people" / "pairs.csv", sides=1, check_images=False)
    matcher = Matcher(
        backbone="descriptor", metadata="none", learner="frozen", store=folder / "s.sqlite"
    )
    matcher.fit(pairs)
    people = list(pairs.profiles.values())
    gallery = matcher.gallery(people, side="b").save(tmp_path / "all")
    service = Service(settings_of(folder, galleries={"b": gallery}), matcher)
    slates = Slates(service)
    for policy in ("plain", "balanced"):
        slate = slates.slate(Question("a0003", None, 5, policy=policy))
        assert len({card.id for card in slate.cards} - {"a0003"}) == 5
    assert exposure(service, "b", 5).candidates == len(people)
    result = walk(service, [("a0003", "b0003"), ("a0004", "b0004")])
    everyone = service.galleries["b"]
    for pair in result.pairs:
        scores = everyone.embeddings @ everyone.entries([pair.a])[pair.a][1]
        score = scores[everyone.ids.index(pair.b)]
        assert pair.rank_of_b == pytest.approx((scores > score + 1e-6).sum())  # without oneself
    slates.computed.close()
    service.close()
    alone = settings_of(folder, galleries={"b": folder / "couples-b"})
    service = Service(alone)
    explorer = Explorer(service, dataclasses.replace(alone.explorer, matcher=None), None)
    words = "no gallery of side a"
    assert words in slate_view(explorer, {"id": "b0001"})["error"]
    assert words in exposure_view(explorer, {})["error"]
    assert words in exposure_view(explorer, {"side": "a"})["error"]
    assert "both sides" in pairs_view(explorer, {})["error"]
    explorer.close()
    service.close()


def test_matches_are_read_without_profiles(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text("id_a,id_b,outcome\na1,b1,match\na2,b2,rejected\n")
    assert read_matches(path) == [("a1", "b1")]
    path.write_text("id_a,other\na1,b1\n")
    with pytest.raises(DataError, match="id_b"):
        read_matches(path)
    path.write_text("id_a,id_b\na1,b1\nb1,a2\n")
    with pytest.raises(DataError):
        read_matches(path)


# --- photos


def test_photos_are_small_copies_of_people_in_the_galleries(url, folder, tmp_path):
    answer = httpx.get(f"{url}/explore/photo?side=a&id=a0003", timeout=60)
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.headers["cache-control"] == "no-store"
    assert Image.open(io.BytesIO(answer.content)).size == (32, 32)
    for address in ("side=a&id=b0003", "side=b&id=../pairs", "id=nobody", ""):
        answer = httpx.get(f"{url}/explore/photo?{address}", timeout=60)
        assert (answer.status_code, answer.content) == (404, b"")


def test_a_photo_has_no_side_information(tmp_path):
    from pairmatch.serving.explorer.photos import photos_by_id, small_photo
    from pairmatch.serving.photos import PhotoDecoder

    exif = Image.Exif()
    exif[0x010E] = "taken at home"
    (tmp_path / "photos").mkdir()
    image = Image.new("RGB", (900, 600), "teal")
    image.save(tmp_path / "photos" / "p.jpg", exif=exif, comment=b"secret")
    decoder = PhotoDecoder(1, most_pixels=1_000_000, seconds=60)
    content = small_photo(photos_by_id(tmp_path / "photos"), "p", decoder)
    decoder.close()
    small = Image.open(io.BytesIO(content))
    assert small.size == (360, 240)
    assert not small.getexif()
    assert b"home" not in content
    assert b"secret" not in content


# --- access


def ask(app, *requests, cookies=None):
    """Answers of an application that is not loaded, with one client."""

    async def answers():
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(
            transport=transport, base_url="http://localhost", cookies=cookies
        ) as client:
            return [await client.request(*one[:2], **one[2]) for one in requests]

    return asyncio.run(answers())


def test_a_browser_signs_in_with_the_token(folder):
    app = create_app(settings_of(folder, token=TOKEN))
    sign_in = "/explore/sign-in"
    before, form, style, wrong, right, after, api, write, out, signed_out = ask(
        app,
        ("GET", "/explore?id=a0001", {}),
        ("GET", sign_in, {}),
        ("GET", "/explore/style.css", {}),
        ("POST", sign_in, {"data": {"token": TOKEN[:-1]}}),
        ("POST", sign_in, {"data": {"token": TOKEN}}),
        ("GET", "/explore?id=a0001", {}),
        ("POST", "/recommend", {"json": {"id": "a0001"}}),
        ("DELETE", "/people/a0001", {}),
        ("POST", "/explore/sign-out", {}),
        ("GET", "/explore", {}),
    )
    assert (before.status_code, before.headers["location"]) == (303, sign_in)
    assert (form.status_code, style.status_code, wrong.status_code) == (200, 200, 401)
    assert 'role="alert"' in wrong.text
    assert "set-cookie" not in wrong.headers
    cookie = right.headers["set-cookie"].lower()
    assert {"httponly", "samesite=strict", "path=/explore"} <= set(cookie.split("; "))
    assert TOKEN not in cookie
    assert after.status_code == 503  # let in; nothing is loaded
    assert (api.status_code, write.status_code) == (401, 401)
    assert (out.status_code, signed_out.status_code) == (303, 303)
    (bearer,) = ask(app, ("GET", "/explore", {"headers": {"Authorization": f"Bearer {TOKEN}"}}))
    assert bearer.status_code == 503
    (large,) = ask(app, ("POST", sign_in, {"data": {"token": "x" * 10_000}}))
    assert large.status_code == 413
    closed = create_app(dataclasses.replace(settings_of(folder), explorer=None))
    assert ask(closed, ("GET", "/explore", {}))[0].status_code == 404


def test_sessions_expire_and_cannot_be_forged():
    session = new_session(TOKEN, now=1000.0)
    cookies = f"other=1; {COOKIE}={session}"
    assert is_session(TOKEN, cookies, now=1000.0 + SECONDS - 1)
    assert not is_session(TOKEN, cookies, now=1000.0 + SECONDS)
    assert not is_session(f"{TOKEN}x", cookies, now=1000.0)
    later = session.replace(session.split(".")[0], str(10**12))
    for value in (later, "", ".", "x.y", session.upper(), f"{COOKIE}"):
        assert not is_session(TOKEN, f"{COOKIE}={value}", now=1000.0)


def test_a_read_only_service_changes_nothing(url):
    for method, path, body in (
        ("PUT", "/people/x", {"side": "b", "attributes": {"age": 3}}),
        ("DELETE", "/people/a0001", None),
        ("POST", "/exclusions", {"pairs": [{"id": "a0001", "other": "b0001"}]}),
    ):
        answer = httpx.request(method, f"{url}{path}", json=body, timeout=60)
        assert (answer.status_code, answer.json()["type"]) == (
            403,
            "urn:pairmatch:problem:read-only",
        )
    for path in ("", "/compare", "/exposure", "/pairs", "/photo"):
        assert httpx.post(f"{url}/explore{path}", timeout=60).status_code == 405
    assert "/explore" not in json.dumps(httpx.get(f"{url}/openapi.json", timeout=60).json())


def test_the_log_has_no_ids(url, caplog):
    with caplog.at_level(logging.INFO, "pairmatch.serving"):
        get(url, id="a0003", where="region = 'secret'")
        httpx.get(f"{url}/explore/photo?side=a&id=a0003", timeout=60)
        httpx.get(f"{url}/explore/people?side=a&prefix=a0003", timeout=60)
    assert "GET /explore 200" in caplog.text
    assert "a0003" not in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--demo", "couples"], "--demo brings its own"),
        (["couples"], "A service needs a saved matcher"),
        (["couples", "--gallery", "a=x", "--compare", "y"], "belong together"),
        (["couples", "--gallery", "a=x", "--no-explore", "--photos", "y"], "--no-explore"),
    ],
)
def test_options_that_do_not_go_together(arguments, words, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    result = CliRunner().invoke(command_line, ["serve", *arguments])
    assert result.exit_code == 2
    assert words in " ".join(result.output.split())


# --- in a browser


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no Chromium is installed")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextlib.contextmanager
def tab(browser, width, scheme="light", **options):
    """A page of a browser in which no script fails and nothing is blocked."""
    size = {"width": width, "height": 900}
    context = browser.new_context(viewport=size, color_scheme=scheme, **options)
    context.set_default_timeout(30_000)
    page = context.new_page()
    messages = []
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    yield page
    context.close()
    assert messages == []


PAGES = (
    "?id=a0003&side=a&k=6",
    "?id=a0003&side=a&where=age+>",
    "/compare?id=a0003&side=a",
    "/exposure?side=a&k=6",
    "/pairs?order=worst&at=2",
)


@pytest.mark.parametrize(
    ("width", "scheme", "paths"), [(390, "dark", PAGES), (1280, "light", PAGES[1:4])]
)
def test_pages_fit_and_have_no_serious_findings(url, browser, width, scheme, paths):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    get(url, "/exposure", side="a", k=6)  # once it is computed, no page asks again
    with tab(browser, width, scheme) as page:
        for path in paths:
            page.goto(f"{url}/explore{path}")
            for summary in page.locator("main summary").all()[:3]:
                summary.click()
            sizes = page.evaluate("[document.body.clientWidth, document.body.scrollWidth]")
            assert sizes == [width, width], path
            result = axe.run(page)
            findings = [one for one in result.response["violations"] if one["impact"] != "minor"]
            assert findings == [], (path, result.generate_report())


def test_a_slate_a_rule_and_a_comparison_by_keyboard_alone(url, browser):
    with tab(browser, 1280) as page:
        keys = page.keyboard
        page.goto(f"{url}/explore")
        keys.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        keys.press("Enter")
        keys.press("Tab")
        assert page.evaluate("document.activeElement.id") == "id"
        keys.type("a0003")
        keys.press("Enter")
        page.locator("#results .card").first.wait_for()
        for _ in range(4):  # side, policy, number, rule
            keys.press("Tab")
        keys.type("age >= query.age")
        body = {"id": "a0003", "where": ["age >= query.age"]}
        expected = httpx.post(f"{url}/recommend", json=body, timeout=60).json()["candidates"]
        page.get_by_text(f"of {expected} eligible candidates").wait_for()
        assert page.evaluate("document.activeElement.id") == "where"
        keys.press("Tab")
        keys.press("Space")
        body["mutual"] = True
        expected = httpx.post(f"{url}/recommend", json=body, timeout=60).json()["candidates"]
        page.get_by_text(f"of {expected} eligible candidates").wait_for()
        page.wait_for_url("**mutual=1**")
        page.get_by_role("link", name="Compare", exact=True).focus()
        keys.press("Enter")
        page.locator(".columns h2").first.wait_for()
        page.wait_for_url("**/compare?**id=a0003**")
        assert page.locator(".columns h2").count() == 2


def test_hostile_people_run_no_script(url, browser):
    with tab(browser, 390) as page:
        page.on("dialog", lambda dialog: pytest.fail(dialog.message))
        page.goto(f"{url}/explore?id=a0001&side=a&k=60")
        page.fill("#where", f"region != '{SCRIPT}'")
        page.get_by_text("eligible candidates").wait_for()
        page.fill("#id", "b<scr")
        page.select_option("#side", "b")
        page.get_by_text(f"b{SCRIPT}").first.wait_for()


def test_pages_work_without_scripts(url, browser):
    with tab(browser, 390, java_script_enabled=False) as page:
        page.goto(f"{url}/explore")
        page.fill("#id", "a0003")
        page.fill("#where", "age > 30")
        page.get_by_role("button", name="Show the slate").click()
        page.wait_for_url("**where=age**")
        page.locator(".card").nth(11).wait_for()
        page.locator("summary", has_text="Why").first.click()
        assert page.locator(".traits").first.is_visible()
        images = page.locator(".asking img")
        assert images.evaluate("image => image.decode().then(() => image.naturalWidth)") == 32
