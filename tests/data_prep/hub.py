"""A Hub of one's own on this machine: the few answers that a download needs, and a count of the bytes it gave."""

import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlparse

COMMIT = "c" * 40


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def hub(self):
        return self.server.hub

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body):
        path = unquote(urlparse(self.path).path)
        if found := re.fullmatch(r"/api/datasets/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?", path):
            self.tell(*found.groups())
        elif found := re.fullmatch(r"/datasets/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self.file(self.hub.repos[found[1]].get(found[3]), found[3], body)
        else:
            self.refuse(404, "EntryNotFound")

    def tell(self, repo, kind, revision):
        if repo in self.hub.gated:
            self.refuse(403, "GatedRepo")
        elif repo not in self.hub.repos:
            self.refuse(401, "RepoNotFound")
        elif revision not in (None, "main", *self.hub.commits):
            self.refuse(404, "RevisionNotFound")
        else:
            commit = revision if revision in self.hub.commits else self.hub.commits[-1]
            self.say(json.dumps(self.hub.tree(repo) if kind == "tree" else self.hub.info(repo, commit)).encode())

    def refuse(self, status, code):
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def say(self, data, status=200):
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def file(self, data, name, body):
        if data is None:
            self.refuse(404, "EntryNotFound")
            return
        etag = sha256(data) if lfs(data) else sha1(data)
        if name in self.hub.corrupt:
            data = data[:-1] + bytes([data[-1] ^ 1])
        wanted = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(wanted[1]) if wanted else 0
        self.send_response(206 if wanted else 200)
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("ETag", f'"{etag}"')
        self.send_header("X-Repo-Commit", self.hub.commits[-1])
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        if body:
            self.give(name, data[start:])

    def give(self, name, data):
        stop = len(data) if self.hub.stall_after is None else self.hub.stall_after
        self.wfile.write(data[:stop])
        self.wfile.flush()
        self.hub.served[name] = self.hub.served.get(name, 0) + len(data[:stop])
        if stop < len(data):
            self.hub.stalled.set()
            self.rfile.read(1)


class Hub:
    """Datasets by name, each a mapping of paths to bytes.

    ``stall_after``: a file stops coming after so many bytes, until the client goes away. ``gated`` and ``corrupt`` name
    repositories that refuse, and files that come out other than they were published. ``commits``: the last is the
    newest; all have the same files.
    """

    def __init__(self, repos):
        self.repos = repos
        self.commits = [COMMIT]
        self.stall_after = None
        self.gated, self.corrupt = set(), set()
        self.served = {}
        self.stalled = threading.Event()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.hub = self
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server.server_port}"

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def info(self, repo, commit):
        files = self.repos[repo]
        siblings = [
            {"rfilename": name, "size": len(data), "blobId": sha1(data), **lfs(data)} for name, data in files.items()
        ]
        return {"id": repo, "sha": commit, "private": False, "gated": False, "downloads": 0, "likes": 0, "tags": [],
                "lastModified": "2026-01-01T00:00:00.000Z", "siblings": siblings}  # fmt: skip

    def tree(self, repo):
        return [
            {"type": "file", "path": name, "size": len(data), "oid": sha1(data), **lfs(data)}
            for name, data in self.repos[repo].items()
        ]


def sha1(data):
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def lfs(data):
    """Large files lie in LFS, which publishes their checksum."""
    return (
        {"lfs": {"oid": sha256(data), "sha256": sha256(data), "size": len(data), "pointerSize": 1}}
        if len(data) > 4096
        else {}
    )
