"""A local server that implements the parts of the Responses API used by the real client."""

import contextlib
import json
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ANSWER = {
    "appearance_type": "natural",
    "style_vibe": "casual",
    "personality_impression": "warm and calm",
    "grooming_level": "medium",
    "photo_style": "portrait",
    "image_quality": "high",
    "physical_features": "brown hair, glasses",
    "caption": "A person smiles in a garden.",
}


def reply(content, status="completed", reason=None):
    """Returns a response body of the API."""
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1.0,
        "model": "test",
        "status": status,
        "incomplete_details": {"reason": reason} if reason else None,
        "output": [
            {
                "id": "m",
                "type": "message",
                "role": "assistant",
                "status": status,
                "content": content,
            }
        ],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": {
            "input_tokens": 1000,
            "input_tokens_details": {"cached_tokens": 400},
            "output_tokens": 100,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 1100,
        },
    }


def text(content):
    return reply([{"type": "output_text", "text": content, "annotations": []}])


class Server:
    """Answers every request with `behave(number, body)`.

    An answer is a body, (status, body, headers), None to close the connection, or a function that
    writes the bytes of the answer to the connection.
    """

    def __init__(self, behave):
        self.behave = behave
        self.requests = []
        self.headers = []
        lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                with lock:
                    number = len(server.requests)
                    server.requests.append(raw)
                    server.headers.append(dict(self.headers))
                answer = server.route(self.command, self.path, number, raw)
                if callable(answer):
                    self.close_connection = True
                    with contextlib.suppress(OSError):  # the client hangs up
                        answer(self.connection)
                    return
                if answer is None:
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                status, body, headers = answer if isinstance(answer, tuple) else (200, answer, {})
                content = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                for key, value in {"Content-Type": "application/json", **headers}.items():
                    self.send_header(key, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_DELETE = do_POST  # noqa: N815

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.thread = threading.Thread(
            target=self.http.serve_forever, kwargs={"poll_interval": 0.01}
        )

    def route(self, method, path, number, raw):
        return self.behave(number, json.loads(raw))

    @property
    def url(self):
        return f"http://127.0.0.1:{self.http.server_address[1]}/v1"

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()


class BatchServer(Server):
    """Implements the Batch API: `finish` answers the lines of the uploaded files with `behave`.

    `hook(method, path)` may return a different answer, or `HANG_UP` to close the connection after
    the request has been processed.
    """

    HANG_UP = object()

    def __init__(self, behave, hook=lambda method, path: None):
        super().__init__(behave)
        self.hook = hook
        self.files = {}
        self.batches = {}
        self.deleted = []

    def route(self, method, path, number, raw):
        path = path.removeprefix("/v1").split("?")[0]
        if path == "/responses":
            return super().route(method, path, number, raw)
        answer = self.hook(method, path)
        if answer is not None and answer is not self.HANG_UP:
            return answer
        result = self.serve(method, path.strip("/").split("/"), raw)
        return None if answer is self.HANG_UP else result

    def serve(self, method, path, raw):
        if (method, path) == ("POST", ["files"]):
            content = raw[raw.index(b'{"custom_id"') : raw.rindex(b"}\n") + 2]
            return self.file(self.put(content))
        if (method, path) == ("POST", ["batches"]):
            name = f"batch_{len(self.batches)}"
            self.batches[name] = {
                "id": name,
                "object": "batch",
                "created_at": int(time.time()),
                "status": "validating",
                "request_counts": {"total": 0, "completed": 0, "failed": 0},
                **json.loads(raw),
            }
            return self.batches[name]
        if (method, path) == ("GET", ["batches"]):
            return {
                "object": "list",
                "data": list(reversed(self.batches.values())),
                "has_more": False,
            }
        kind, name = path[:2]
        objects = self.files if kind == "files" else self.batches
        if name not in objects:
            return error(404, f"No such {kind} object: {name}")
        if method == "DELETE":
            self.deleted.append(name)
            del self.files[name]
            return {"id": name, "object": "file", "deleted": True}
        return (200, self.files[name], {}) if path[2:] == ["content"] else objects[name]

    def put(self, content):
        name = f"file_{len(self.files) + len(self.deleted)}"
        self.files[name] = content
        return name

    def file(self, name):
        return {
            "id": name,
            "object": "file",
            "bytes": len(self.files[name]),
            "created_at": 1,
            "filename": "batch.jsonl",
            "purpose": "batch",
            "status": "processed",
        }

    def lines(self, batch):
        return [json.loads(line) for line in self.files[batch["input_file_id"]].splitlines()]

    def finish(self, status="completed", answered=None):
        """Answers the first `answered` lines of every unfinished batch; the others expire."""
        for batch in self.batches.values():
            if batch["status"] not in ("validating", "in_progress"):
                continue
            succeeded = []
            failed = []
            for number, line in enumerate(self.lines(batch)):
                if answered is not None and number >= answered:
                    expired = {
                        "code": "batch_expired",
                        "message": "This request could not be executed in time.",
                    }
                    failed.append(
                        {"custom_id": line["custom_id"], "response": None, "error": expired}
                    )
                    continue
                answer = self.behave(number, line["body"])
                code, body, _ = answer if isinstance(answer, tuple) else (200, answer, {})
                response = {"status_code": code, "request_id": "r", "body": body}
                result = {
                    "id": "x",
                    "custom_id": line["custom_id"],
                    "response": response,
                    "error": None,
                }
                (succeeded if code == 200 else failed).append(result)
            succeeded.reverse()  # the API does not preserve the order
            for name, results in (("output_file_id", succeeded), ("error_file_id", failed)):
                if results:
                    content = "".join(json.dumps(result) + "\n" for result in results)
                    batch[name] = self.put(content.encode())
            batch["status"] = status


def good(number, body):
    return text(json.dumps(ANSWER))


def late(seconds):
    """Returns a behavior that answers with valid metadata after a delay."""

    def behave(number, body):
        time.sleep(seconds)
        return good(number, body)

    return behave


def error(status, message, code=None, headers=None):
    return status, {"error": {"message": message, "type": "error", "code": code}}, headers or {}
