"""Uploading matchers to a hub and loading them, with the real client and a local server."""

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import yaml

from pairmatch import Matcher, TrainingConfig
from pairmatch.core.errors import NotFittedError, SavedMatcherError

COMMIT = "a" * 40


class Hub:
    """A server with the endpoints for a repository: create, preupload, commit, info and files."""

    def __init__(self):
        self.files = {}
        self.tokens = set()
        self.private = None
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def send(self, body, status=200, headers=None):
                content = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                for key, value in (headers or {}).items():
                    self.send_header(key, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

            def do_POST(self):
                raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                hub.tokens.add(self.headers.get("Authorization"))
                if self.path == "/api/repos/create":
                    hub.private = json.loads(raw).get("visibility", json.loads(raw).get("private"))
                    self.send({"url": f"{hub.url}/me/couples"})
                elif self.path == "/api/validate-yaml":
                    self.send({"errors": [], "warnings": []})
                elif "/preupload/" in self.path:
                    names = [file["path"] for file in json.loads(raw)["files"]]
                    self.send(
                        {
                            "files": [
                                {"path": n, "uploadMode": "regular", "shouldIgnore": False}
                                for n in names
                            ]
                        }
                    )
                elif "/commit/" in self.path:
                    for line in map(json.loads, raw.decode().splitlines()):
                        if line["key"] == "file":
                            hub.files[line["value"]["path"]] = base64.b64decode(
                                line["value"]["content"]
                            )
                    self.send(
                        {
                            "success": True,
                            "commitOid": COMMIT,
                            "commitUrl": f"{hub.url}/me/couples/commit/{COMMIT}",
                        }
                    )
                else:
                    self.send({"error": f"no {self.path}"}, 404)

            def do_GET(self):
                if not self.path.startswith(("/api/models/me/couples", "/me/couples/")):
                    self.send(
                        {"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"}
                    )
                elif match := re.match(r"/me/couples/resolve/[^/]+/(.+)", self.path):
                    content = hub.files[match[1]]
                    etag = hashlib.sha256(content).hexdigest()
                    self.send(content, headers={"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT})
                elif "/tree/" in self.path:
                    self.send(
                        [
                            {"type": "file", "path": n, "size": len(c), "oid": "0"}
                            for n, c in sorted(hub.files.items())
                        ]
                    )
                else:
                    names = [{"rfilename": name} for name in hub.files]
                    self.send(
                        {
                            "id": "me/couples",
                            "sha": COMMIT,
                            "private": True,
                            "tags": [],
                            "siblings": names,
                        }
                    )

            do_HEAD = do_GET  # noqa: N815

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.thread = threading.Thread(
            target=self.http.serve_forever, kwargs={"poll_interval": 0.01}
        )

    @property
    def url(self):
        return f"http://127.0.0.1:{self.http.server_address[1]}"

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()


@pytest.fixture
def fitted(tmp_path, small_pairs):
    pairs = small_pairs(20)
    config = TrainingConfig(epochs=1, batch_size=8)
    matcher = Matcher(
        backbone="descriptor", metadata=None, training=config, store=tmp_path / "store.sqlite"
    )
    return matcher.fit(pairs), pairs


def test_a_matcher_is_uploaded_and_loaded(fitted, tmp_path, monkeypatch):
    matcher, pairs = fitted
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    with Hub() as hub:
        address = matcher.push_to_hub("me/couples", token="hf_secret", endpoint=hub.url)
        assert address.endswith("/me/couples")
        assert hub.private in (True, "private")
        assert hub.tokens == {"Bearer hf_secret"}
        assert set(hub.files) == {"matcher.json", "head.safetensors", "history.csv", "README.md"}
        loaded = Matcher.from_pretrained(
            "me/couples", endpoint=hub.url, token="hf_secret", store=tmp_path / "store.sqlite"
        )
        with pytest.raises(
            SavedMatcherError,
            match="'me/nothing' is neither a local folder nor a readable matcher on the hub",
        ):
            Matcher.from_pretrained("me/nothing", endpoint=hub.url, token="hf_secret")
    people = list(pairs.people)
    np.testing.assert_array_equal(loaded.embed(people), matcher.embed(people))
    content = b"".join(hub.files.values())
    assert b"training_people" not in content  # not even the table that recognizes a set of people
    for person in people:
        assert f'"{person.id}"'.encode() not in content
        assert person.text.encode() not in content
    assert str(tmp_path).encode() not in content


def test_local_paths_are_not_uploaded(tmp_path, small_pairs, monkeypatch):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    pixels = onnx.helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, ["n", 3, 8, 8])
    colors = onnx.helper.make_tensor_value_info("colors", onnx.TensorProto.FLOAT, ["n", 3, 1, 1])
    node = onnx.helper.make_node("GlobalAveragePool", ["image"], ["colors"])
    graph = onnx.helper.make_graph([node], "mean color", [pixels], [colors])
    opset = [onnx.helper.make_opsetid("", 17)]
    path = tmp_path / "anna" / "encoder.onnx"
    path.parent.mkdir()
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    backbone = ("onnx", {"path": path, "size_px": 8})
    store = tmp_path / "store.sqlite"
    training = TrainingConfig(epochs=1, batch_size=8)
    matcher = Matcher(
        backbone=backbone, metadata=None, head="linear", training=training, store=store
    )
    people = list(small_pairs(8).people)
    expected = matcher.fit(small_pairs(8)).embed(people)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    with Hub() as hub:
        matcher.push_to_hub("me/couples", token="hf_secret", endpoint=hub.url)
        loaded = Matcher.from_pretrained(
            "me/couples", endpoint=hub.url, backbone=backbone, store=store
        )
    assert b"anna" not in b"".join(hub.files.values())
    assert (
        json.loads(hub.files["matcher.json"])["parts"]["backbones"][0]["options"]["path"]
        == "encoder.onnx"
    )
    np.testing.assert_array_equal(loaded.embed(people), expected)


def test_the_card_has_the_format_of_the_hub(fitted, tmp_path):
    folder = fitted[0].save(tmp_path / "saved")
    card = (folder / "README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert front == {
        "library_name": "pairmatch",
        "tags": ["pairmatch", "matching", "recommendation"],
    }
    assert "# A pairmatch matcher" in card


def test_the_card_shows_metrics_with_intervals(fitted, tmp_path):
    matcher, pairs = fitted
    low, high = matcher.evaluate(pairs).to_dict()["both"]["intervals"]["mrr"]
    card = (matcher.save(tmp_path / "saved") / "README.md").read_text()
    row = next(line for line in card.splitlines() if line.startswith("| this matcher |"))
    assert row.endswith(f" ({low:.3f}–{high:.3f}) |")
    assert "In brackets: 95 % intervals over people." in card


def test_a_local_folder_is_loaded_without_a_hub(fitted, tmp_path):
    matcher, pairs = fitted
    folder = matcher.save(tmp_path / "saved")
    loaded = Matcher.from_pretrained(folder, store=tmp_path / "store.sqlite")
    np.testing.assert_array_equal(
        loaded.embed(list(pairs.people)), matcher.embed(list(pairs.people))
    )


def test_upload_failures_are_errors(fitted):
    with pytest.raises(SavedMatcherError, match="me/couples could not be written to the hub: "):
        fitted[0].push_to_hub("me/couples", token="x", endpoint="http://127.0.0.1:9")
    with pytest.raises(NotFittedError, match="before `fit`"):
        Matcher(backbone="descriptor", metadata=None).push_to_hub("me/couples")
