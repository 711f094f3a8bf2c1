"""A server of the chat protocol on this machine, which answers by a function and remembers what it was asked."""

import json
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_POST(self):
        chat = self.server.chat
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with chat.lock:
            chat.requests.append((self.path, dict(self.headers), body))
            status, headers = chat.failures.pop(0) if chat.failures else (200, {})
        if chat.slow_s:
            time.sleep(chat.slow_s)
        if status == 200:
            said = chat.raw if chat.raw is not None else json.dumps(reply(chat.answer(body["messages"]))).encode()
        else:
            key = self.headers.get("Authorization")
            said = json.dumps({"error": {"message": f"status {status} as asked for, with {key}"}}).encode()
        # a client that gave up reads no answer
        with suppress(BrokenPipeError, ConnectionResetError):
            self.answer(status, headers, said)

    def answer(self, status, headers, said):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)


def reply(text):
    return {"choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}]}


class Chat:
    """``answer``: messages -> text. ``failures``: (status, headers) of the next requests. ``raw``: bytes instead."""

    def __init__(self, answer):
        self.answer = answer
        self.requests, self.failures = [], []
        self.raw, self.slow_s = None, 0
        self.lock = threading.Lock()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.chat = self
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server.server_port}/v1"

    def close(self):
        self.server.shutdown()
        self.server.server_close()
