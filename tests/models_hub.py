"""A Hub of models on this machine: repositories with their commits, who may read them, and commits it takes."""

import base64
import json
import re
from urllib.parse import unquote, urlparse

from huggingface_hub import constants
from huggingface_hub.utils import close_session
from transformers.utils import hub as transformers_hub

from mmembed.models import repository
from tests.data_prep.hub import Handler, Hub, lfs, sha1, sha256

REPO = r"([\w.-]+/[\w.-]+)"


class ModelHandler(Handler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        path = unquote(urlparse(self.path).path)
        self.hub.asked.append(("POST", path))
        if path == "/api/validate-yaml":
            self.say(b"{}")
        elif self.hub.refuses is not None:
            self.refuse(*self.hub.refuses)
        elif path == "/api/repos/create":
            self.create(json.loads(body))
        elif found := re.fullmatch(rf"/api/models/{REPO}/branch/(.+)", path):
            self.hub.branches.setdefault(found[1], {})[found[2]] = self.hub.branches[found[1]]["main"]
            self.say(b"{}")
        elif found := re.fullmatch(rf"/api/models/{REPO}/preupload/(.+)", path):
            if self.hub.race:
                self.hub.publish(found[1], {}, "9" * 40)
            files = json.loads(body)["files"]
            modes = [
                {"path": f["path"], "uploadMode": "lfs" if f["size"] > 4096 else "regular", "shouldIgnore": False}
                for f in files
            ]
            self.say(json.dumps({"files": modes}).encode())
        elif found := re.fullmatch(rf"/{REPO}\.git/info/lfs/objects/batch", path):
            objects = [
                {"oid": o["oid"], "size": o["size"], "actions": {"upload": {"href": f"{self.hub.url}/lfs/{o['oid']}"}}}
                for o in json.loads(body)["objects"]
            ]
            self.say(json.dumps({"transfer": "basic", "objects": objects}).encode())
        elif found := re.fullmatch(rf"/api/models/{REPO}/commit/(.+)", path):
            self.commit(found[1], found[2], [json.loads(line) for line in body.splitlines()])
        else:
            self.refuse(404, "EntryNotFound")

    def do_PUT(self):
        data = self.rfile.read(int(self.headers["Content-Length"]))
        if self.hub.breaks_off:
            self.refuse(403, "Forbidden")
            return
        self.hub.objects[sha256(data)] = data
        self.say(b"")

    def answer(self, body):
        path = unquote(urlparse(self.path).path)
        self.hub.asked.append(("GET" if body else "HEAD", path))
        if found := re.fullmatch(rf"/api/models/{REPO}(?:/(revision|tree)/([^/]+))?", path):
            repo, kind, revision = found.groups()
            if (commit := self.commit_of(repo, revision or "main")) is None:
                return
            files = self.hub.commits_of[repo][commit]
            answer = self.hub.tree(files) if kind == "tree" else self.hub.info(repo, commit)
            self.say(json.dumps(answer).encode())
        elif found := re.fullmatch(rf"/{REPO}/resolve/([^/]+)/(.+)", path):
            repo, revision, name = found.groups()
            if repo in self.hub.gated:
                self.refuse(403, "GatedRepo")
            elif (commit := self.commit_of(repo, revision)) is not None:
                self.resolve(repo, commit, name, body)
        else:
            self.refuse(404, "EntryNotFound")

    def commit_of(self, repo, revision):
        """The commit that is asked for, once it is refused if there is none."""
        if repo not in self.hub.commits_of:
            self.refuse(401, "RepoNotFound")
            return None
        commit = self.hub.branches[repo].get(revision, revision)
        if commit not in self.hub.commits_of[repo]:
            self.refuse(404, "RevisionNotFound")
            return None
        return commit

    def resolve(self, repo, commit, name, body):
        data = self.hub.commits_of[repo][commit].get(name)
        self.send_response(200 if data is not None else 404)
        self.send_header("X-Repo-Commit", commit)
        if data is None:
            self.send_header("X-Error-Code", "EntryNotFound")
        else:
            self.send_header("ETag", f'"{sha256(data) if lfs(data) else sha1(data)}"')
        self.send_header("Content-Length", str(len(data or b"")))
        self.end_headers()
        if body and data is not None:
            self.hub.served[name] = self.hub.served.get(name, 0) + 1
            self.wfile.write(data)

    def create(self, asked):
        repo = f"{asked['organization']}/{asked['name']}"
        if repo in self.hub.commits_of:
            self.say(json.dumps({"url": f"{self.hub.url}/{repo}"}).encode(), status=409)
            return
        self.hub.publish(repo, {".gitattributes": b""}, "0" * 40)
        self.hub.private[repo] = asked.get("visibility") == "private" or asked.get("private")
        self.say(json.dumps({"url": f"{self.hub.url}/{repo}"}).encode())

    def commit(self, repo, branch, lines):
        head = self.hub.branches[repo][branch]
        if lines[0]["value"].get("parentCommit") != head:
            self.refuse(412, "PreconditionFailed")
            return
        files = dict(self.hub.commits_of[repo][head])
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        commit = sha1(json.dumps(sorted((name, sha1(data)) for name, data in files.items())).encode())
        self.hub.publish(repo, files, commit, branch)
        answer = {"commitUrl": f"{self.hub.url}/{repo}/commit/{commit}", "commitOid": commit, "pullRequestUrl": None}
        self.say(json.dumps(answer).encode())


class ModelHub(Hub):
    """Model repositories: ``commits_of`` maps a repository's commits to their files.

    ``gated`` are told of and not given, as on the Hub; ``refuses`` is the status and code for whoever writes; whether
    an upload ``breaks_off``; whether somebody else commits in a ``race``; ``asked`` are the requests.
    """

    handler = ModelHandler

    def __init__(self):
        super().__init__({})
        self.server.RequestHandlerClass = ModelHandler
        self.commits_of, self.branches, self.objects, self.private = {}, {}, {}, {}
        self.asked, self.refuses, self.breaks_off, self.race = [], None, False, False

    def close(self):
        super().close()
        # a connection that is open already would still be answered
        close_session()

    def publish(self, repo, files, commit, branch="main"):
        """A commit of files, or of those in a folder, at the head of a branch."""
        if not isinstance(files, dict):
            paths = [path for path in files.rglob("*") if path.is_file()]
            files = {path.relative_to(files).as_posix(): path.read_bytes() for path in paths}
        self.commits_of.setdefault(repo, {})[commit] = files
        self.branches.setdefault(repo, {})[branch] = commit

    def files(self, repo, branch="main"):
        """What lies at the head of a branch."""
        return self.commits_of[repo][self.branches[repo][branch]]

    def info(self, repo, commit):
        siblings = [{"rfilename": name} for name in self.commits_of[repo][commit]]
        facts = {"gated": False, "downloads": 0, "likes": 0, "tags": [], "lastModified": "2026-01-01T00:00:00.000Z"}
        private = self.private.get(repo, False)
        return {"id": repo, "sha": commit, "private": private, "siblings": siblings} | facts

    def tree(self, files):
        return [
            {"type": "file", "path": name, "size": len(data), "oid": sha1(data), **lfs(data)}
            for name, data in files.items()
        ]


def go_online(monkeypatch, url, cache):
    """Let this process's client of the Hub ask a server of one's own, and fill a cache of its own."""
    close_session()
    values = {
        "ENDPOINT": url, "HUGGINGFACE_CO_URL_TEMPLATE": f"{url}/{{repo_id}}/resolve/{{revision}}/{{filename}}",
        "HF_HUB_OFFLINE": False, "HF_HUB_CACHE": str(cache), "HF_HUB_DISABLE_XET": True, "HF_TOKEN_PATH": "/none",
    }  # fmt: skip
    for name, value in values.items():
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setattr(repository, "_reached", {})
    # it remembers where the Hub was when it first asked
    monkeypatch.setattr(transformers_hub, "_hf_api", None)


def go_offline(monkeypatch):
    """Set the offline switch, as ``HF_HUB_OFFLINE=1`` does for a new process."""
    close_session()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
