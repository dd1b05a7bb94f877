"""Where photos and keys go: addresses, key variables, and what a saved matcher may decide."""

import json

import numpy as np
import pytest
from openai_server import Server, good
from PIL import Image

from pairmatch import Matcher, Profile, TrainingConfig
from pairmatch.core.errors import (
    ConfigurationError,
    GeneratorError,
    SavedMatcherError,
    UploadError,
)
from pairmatch.io.store import Store
from pairmatch.metadata import annotate, estimate
from pairmatch.metadata.batch import annotate_in_batches
from pairmatch.metadata.openai import GPT5NanoMetadata, OpenAIMetadata

KEY = "sk-test-very-secret-9"
SECRET = "the-secret-of-another-service"
READS_TEXT = ("hf-text", {"model": "unused", "device": "cpu"})


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "store.sqlite") as opened:
        yield opened


@pytest.fixture
def people():
    rng = np.random.default_rng(0)
    photos = [Image.fromarray(rng.integers(0, 255, (8, 8, 3), np.uint8)) for _ in range(2)]
    return [Profile(f"id-{index}", (photo,)) for index, photo in enumerate(photos)]


@pytest.mark.parametrize(
    "url",
    [
        "https://user:hunter2@host/v1",
        "https://hunter2@host/v1",
        "https://host/v1?key=hunter2",
        "https://host/v1#hunter2",
        "ftp://host/hunter2",
        "file:///hunter2",
        "hunter2",
        "https:///hunter2",
        "https://host:0/hunter2",
        "https://host:hunter2/v1",
        "https://host/hunter2\r\nX: 1",
        "https://host/hunter2 x",
        "https://[hunter2",
        b"https://hunter2/v1",
        7,
    ],
)
def test_addresses_with_credentials_are_refused_and_not_repeated(url, monkeypatch):
    for make in (
        lambda: OpenAIMetadata(model="x", base_url=url, concurrency="many"),
        lambda: GPT5NanoMetadata(base_url=url),
        lambda: Matcher(
            backbone="descriptor", metadata=("openai", {"model": "x", "base_url": url})
        ),
    ):
        with pytest.raises(ConfigurationError, match="base_url must") as caught:
            make()
        assert "hunter2" not in str(caught.value)
    if isinstance(url, str) and "\n" not in url:
        monkeypatch.setenv("OPENAI_BASE_URL", url)
        with pytest.raises(
            ConfigurationError, match="variable OPENAI_BASE_URL: base_url"
        ) as caught:
            OpenAIMetadata(model="x").check()
        assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "name",
    ["AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN", "HF_TOKEN", "STRIPE_API_KEY", "PATH", "", None, 5],
)
def test_only_variables_of_the_list_are_sent_as_keys(name):
    with pytest.raises(ConfigurationError, match="api_key_variable must be OPENAI_API_KEY, AZURE"):
        OpenAIMetadata(model="x", api_key_variable=name)


@pytest.mark.parametrize(
    "name", ["OPENAI_API_KEY", "AZURE_OPENAI_API_KEY", "VLLM_API_KEY", "PAIRMATCH_WORK_KEY"]
)
def test_variables_of_the_list_are_named_and_sent(name, people, store, monkeypatch):
    monkeypatch.setenv(name, "value-of-the-key\n")
    with Server(good) as server:
        maker = OpenAIMetadata(model="x", base_url=server.url, api_key_variable=name)
        with pytest.raises(UploadError, match=rf"{server.url} for x, about .*the key in {name}\."):
            annotate(people, maker, store)
        annotate(people, maker, store, allow_upload=True)
        assert {headers["authorization"] for headers in server.headers} == {
            "Bearer value-of-the-key"
        }


def test_consent_names_the_variable_that_chose_the_server(people, store, monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", "https://elsewhere.example/v1")
    maker = OpenAIMetadata(model="x")
    for run in (annotate, annotate_in_batches):
        with pytest.raises(
            UploadError,
            match=r"sent to https://elsewhere.example/v1 \(from OPENAI_BASE_URL\) for x, about",
        ):
            run(people, maker, store)


@pytest.mark.parametrize(
    ("proxy", "words"),
    [
        ("http://me:hunter2@proxy.example:3128", "through the proxy proxy.example:3128 for x,"),
        ("proxy.example", "through the proxy proxy.example for x,"),
        ("socks5://proxy.example", "through the proxy proxy.example for x,"),
        ("http://[", "through a proxy for x,"),
    ],
)
def test_consent_names_the_proxy(proxy, words, people, store, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    text = str(estimate(people, OpenAIMetadata(model="x"), store))
    assert f"api.openai.com {words}" in text
    assert "hunter2" not in text
    monkeypatch.setenv("NO_PROXY", "api.openai.com")
    assert "proxy" not in str(estimate(people, OpenAIMetadata(model="x"), store))


# Saved matchers


def saved(tmp_path, store, small_pairs, generator):
    matcher = Matcher(
        backbone="descriptor", metadata=generator, store=store, training=TrainingConfig(epochs=1)
    )
    return matcher.fit(small_pairs(4)).save(tmp_path / "saved")


def forge(folder, **options):
    """Writes options into the metadata of a saved matcher."""
    path = folder / "matcher.json"
    record = json.loads(path.read_text())
    record["parts"]["metadata"]["options"] |= options
    path.write_text(json.dumps(record))


def test_a_server_and_a_key_are_never_saved(people, store, tmp_path, small_pairs, monkeypatch):
    monkeypatch.setenv("PAIRMATCH_KEY", "own-secret-key")
    with Server(good) as server:
        maker = OpenAIMetadata(
            model="x", base_url=server.url, api_key_variable="PAIRMATCH_KEY", detail="high"
        )
        folder = saved(tmp_path, store, small_pairs, maker)
        kept = "".join(
            path.read_text() for path in folder.iterdir() if path.suffix != ".safetensors"
        )
        for secret in (server.url, "127.0.0.1", "PAIRMATCH_KEY", "own-secret-key"):
            assert secret not in kept
        options = {"backbone": READS_TEXT, "store": store, "allow_upload": True}
        loaded = Matcher.load(folder, **options)
        # The photos were to stay on a server of one's own: the provider is no substitute
        with pytest.raises(GeneratorError, match=r"saved with a server of its own.*base_url="):
            loaded.annotate(people)
        assert loaded.metadata.fingerprint() == maker.fingerprint()
        assert not server.requests
        given = {"base_url": server.url, "api_key_variable": "PAIRMATCH_KEY"}
        named = Matcher.load(folder, metadata=given, **options)
        assert all(person.metadata for person in named.annotate(people))
        assert server.headers[0]["authorization"] == "Bearer own-secret-key"
        # Answers that exist need no server
        assert all(person.metadata for person in loaded.annotate(people))
        again = loaded.save(tmp_path / "again")
        assert Matcher.load(again, **options).metadata.base_url == loaded.metadata.base_url


@pytest.mark.parametrize("key", ["AWS_SECRET_ACCESS_KEY", "OPENAI_API_KEY", None])
def test_a_strangers_matcher_does_not_decide_where_photos_go(
    key, people, store, tmp_path, small_pairs, caplog
):
    folder = saved(tmp_path, store, small_pairs, OpenAIMetadata(model="x"))
    with Server(good) as server:
        credentials = server.url.replace("//", "//hunter2@")
        for url in (server.url, credentials, 5, ["x"]):
            forge(folder, base_url=url, **({"api_key_variable": key} if key else {}))
            loaded = Matcher.load(folder, backbone=READS_TEXT, store=store, allow_upload=True)
            assert "names a server or a key for its metadata: both are ignored" in caplog.text
            assert "hunter2" not in caplog.text
            with pytest.raises(GeneratorError, match="saved with a server of its own"):
                loaded.annotate(people)
        assert not server.requests


def test_a_strangers_key_variable_is_ignored(store, tmp_path, small_pairs, caplog):
    folder = saved(tmp_path, store, small_pairs, GPT5NanoMetadata())
    forge(folder, api_key_variable="AWS_SECRET_ACCESS_KEY")
    assert Matcher.load(folder, store=store).metadata.api_key_variable == "OPENAI_API_KEY"
    assert "both are ignored" in caplog.text


@pytest.mark.parametrize("schema", ["/etc/passwd", "pipe", ["a"], 5])
def test_a_strangers_schema_is_not_read_from_a_path(schema, store, tmp_path, small_pairs):
    folder = saved(tmp_path, store, small_pairs, OpenAIMetadata(model="x"))
    forge(folder, schema=schema)
    with pytest.raises(SavedMatcherError, match="names its schema instead of holding it"):
        Matcher.load(folder, store=store)


def test_a_matcher_without_metadata_takes_a_generator_and_no_options(store, tmp_path, small_pairs):
    folder = saved(tmp_path, store, small_pairs, None)
    with pytest.raises(ConfigurationError, match="saved without a metadata generator"):
        Matcher.load(folder, store=store, metadata={"model": "x"})
    loaded = Matcher.load(folder, store=store, metadata=("openai", {"model": "x"}))
    assert loaded.metadata.model == "x"


def test_the_command_takes_the_server_with_set(store, tmp_path, small_pairs):
    from pairmatch.cli.options import load_matcher

    with Server(good) as server:
        maker = OpenAIMetadata(model="x", base_url=server.url)
        folder = saved(tmp_path, store, small_pairs, maker)
        options = {"store": store.path, "device": "cpu", "allow_upload": True, "quiet": True}
        loaded = load_matcher(folder, [f"metadata.base_url={server.url}"], **options)
        assert loaded.metadata.base_url == server.url
        with pytest.raises(ConfigurationError, match=r"'pipeline'.*backbone, descriptor, metadata"):
            load_matcher(folder, ["pipeline.x=1"], **options)
