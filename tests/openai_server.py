"""A server on 127.0.0.1 that speaks enough of the Responses API to be answered to by the real client."""

import json
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
    """A body as the API gives it."""
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1.0,
        "model": "test",
        "status": status,
        "incomplete_details": {"reason": reason} if reason else None,
        "output": [{"id": "m", "type": "message", "role": "assistant", "status": status, "content": content}],
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


def text(words):
    return reply([{"type": "output_text", "text": words, "annotations": []}])


class Server:
    """Answers every request by `behave(number, body)`: a body, or (status, body, headers), or None to hang up."""

    def __init__(self, behave):
        self.behave = behave
        self.requests, self.headers = [], []
        lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                raw = self.rfile.read(int(self.headers["Content-Length"]))
                with lock:
                    number = len(server.requests)
                    server.requests.append(raw)
                    server.headers.append(dict(self.headers))
                answer = server.behave(number, json.loads(raw))
                if answer is None:
                    self.connection.close()
                    return
                status, body, headers = answer if isinstance(answer, tuple) else (200, answer, {})
                content = json.dumps(body).encode()
                self.send_response(status)
                for key, value in {"Content-Type": "application/json", **headers}.items():
                    self.send_header(key, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01})

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


def good(number, body):
    return text(json.dumps(ANSWER))


def late(seconds):
    """A good answer that comes too late."""

    def behave(number, body):
        time.sleep(seconds)
        return good(number, body)

    return behave


def error(status, message, code=None, headers=None):
    return status, {"error": {"message": message, "type": "error", "code": code}}, headers or {}
