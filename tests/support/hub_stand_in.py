"""A hub on 127.0.0.1: as much of its protocol as an upload of a model needs, in memory.

It checks what the hub would check (a token, hashes and sizes of large files, a card's metadata) and keeps what was
committed.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import yaml

TOKEN = "hf_stand_in"
LARGE = (".safetensors", ".bin")


class Hub:
    """`repos`: name to committed files. `refuse`: requests (a part of `METHOD /path`) that answer with this status."""

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, bytes]] = {}
        self.commits: list[dict[str, str]] = []
        self.objects: dict[str, bytes] = {}
        self.refuse: dict[str, int] = {}
        self.requests: list[str] = []
        self.private: dict[str, Any] = {}
        self.endpoint = ""

    def create(self, body: Any) -> tuple[int, Any]:
        repo = f"{body['organization']}/{body['name']}" if body.get("organization") else f"me/{body['name']}"
        if repo in self.repos:
            return 409, {"error": "You already created this model repo", "url": f"{self.endpoint}/{repo}"}
        self.repos[repo] = {}
        self.private[repo] = body.get("visibility")
        return 200, {"url": f"{self.endpoint}/{repo}", "name": repo}

    def validate(self, body: Any) -> tuple[int, Any]:
        _, front, _ = body["content"].split("---\n", 2)
        metadata = yaml.safe_load(front)
        errors = [] if isinstance(metadata, dict) else [{"message": "not a mapping"}]
        return 400 if errors else 200, {"errors": errors, "warnings": []}

    def preupload(self, repo: str, body: Any) -> tuple[int, Any]:
        if repo not in self.repos:
            return 404, {"error": "Repository not found"}
        files = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(LARGE) else "regular",
                "shouldIgnore": False,
            }
            for file in body["files"]
        ]
        return 200, {"files": files}

    def batch(self, body: Any) -> tuple[int, Any]:
        objects = []
        for entry in body["objects"]:
            upload = {"href": f"{self.endpoint}/objects/{entry['oid']}"}
            objects.append({"oid": entry["oid"], "size": entry["size"], "actions": {"upload": upload}})
        return 200, {"transfer": "basic", "objects": objects}

    def store(self, oid: str, content: bytes) -> tuple[int, Any]:
        if hashlib.sha256(content).hexdigest() != oid:
            return 400, {"error": "wrong hash"}
        self.objects[oid] = content
        return 200, {}

    def commit(self, repo: str, lines: list[Any]) -> tuple[int, Any]:
        files: dict[str, bytes] = {}
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                self.commits.append({"repo": repo, "summary": value["summary"]})
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                if len(self.objects[value["oid"]]) != value["size"]:
                    return 400, {"error": "wrong size"}
                files[value["path"]] = self.objects[value["oid"]]
            else:
                return 400, {"error": f"unknown operation {line['key']}"}
        self.repos[repo] |= files
        oid = hashlib.sha1(repr(sorted(files)).encode()).hexdigest()
        return 200, {"success": True, "commitOid": oid, "commitUrl": f"{self.endpoint}/{repo}/commit/{oid}"}

    def answer(self, method: str, path: str, content: bytes, token: str | None) -> tuple[int, Any]:
        self.requests.append(f"{method} {path}")
        for part, status in self.refuse.items():
            if part in f"{method} {path}":
                return status, {"error": "refused"}
        if path.startswith("/objects/"):
            return self.store(path.removeprefix("/objects/"), content)
        if token != f"Bearer {TOKEN}":
            return 401, {"error": "Invalid credentials"}
        if path == "/api/repos/create":
            return self.create(json.loads(content))
        if path == "/api/validate-yaml":
            return self.validate(json.loads(content))
        if path.endswith(".git/info/lfs/objects/batch"):
            return self.batch(json.loads(content))
        parts = path.removeprefix("/api/models/").split("/")
        repo = "/".join(parts[:2])
        if parts[2:] == ["preupload", "main"]:
            return self.preupload(repo, json.loads(content))
        if parts[2:] == ["commit", "main"]:
            return self.commit(repo, [json.loads(line) for line in content.splitlines() if line])
        return 404, {"error": f"the stand-in knows no {method} {path}"}


@contextmanager
def serving() -> Iterator[Hub]:
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def respond(self) -> None:
            content = self._body()
            path = self.path.partition("?")[0]
            status, value = hub.answer(self.command, path, content, self.headers.get("Authorization"))
            body = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PUT = respond

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            content = b""
            while size := int(self.rfile.readline(), 16):
                content += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return content

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
