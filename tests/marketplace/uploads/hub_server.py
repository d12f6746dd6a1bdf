"""A small hub on a port of its own: the protocol's reading side, misbehaving where asked to."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

from marketplace.blobs.hashing import hash_bytes

COMMIT = "c0ffee" + "0" * 34
LFS_FROM = 1000


@dataclass
class FakeHub:
    """One repository, `org/adapter`, and what is wrong with its answers."""

    files: dict[str, bytes] = field(default_factory=dict)
    token: str = ""  # what a reader has to bring; empty for a public repository
    commit: str = COMMIT
    info: Any = None  # the description, where it is not made from the files
    statuses: dict[str, list[int]] = field(default_factory=dict)  # path ending -> answers in turn
    error_code: str = ""
    redirects: dict[str, str] = field(default_factory=dict)  # path ending -> where to
    cuts: list[int] = field(default_factory=list)  # bytes after which a file's answer breaks off
    etag: str = ""  # of files, where it is a wrong one
    headers: dict[str, str] = field(default_factory=dict)
    ignores_range: bool = False
    endless: bool = False
    seen: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    url: str = ""

    def paths(self) -> list[str]:
        return [path for path, _ in self.seen]

    def describe(self) -> Any:
        siblings = []
        for path, content in self.files.items():
            entry: dict[str, Any] = {
                "rfilename": path,
                "size": len(content),
                "blobId": git_sha1(content),
            }
            if len(content) >= LFS_FROM:
                entry["lfs"] = {"sha256": sha256(content), "size": len(content), "pointerSize": 130}
            siblings.append(entry)
        return {"id": "org/adapter", "sha": self.commit, "siblings": siblings}


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def git_sha1(content: bytes) -> str:
    return hash_bytes(content).git_sha1


@contextmanager
def running_hub(files: Mapping[str, bytes] | None = None, **options: Any) -> Iterator[FakeHub]:
    """Serve until the block ends."""
    hub = FakeHub(files=dict(files or {}), **options)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        hub, path = self.hub, urlsplit(self.path).path
        hub.seen.append((path, {name.lower(): value for name, value in self.headers.items()}))
        for ending, answers in hub.statuses.items():
            if path.endswith(ending) and answers:
                return self._answer(answers.pop(0), b"{}", {"X-Error-Code": hub.error_code})
        for ending, target in hub.redirects.items():
            if path.endswith(ending):
                return self._answer(302, b"", {"Location": target})
        if hub.token and self.headers.get("Authorization") != f"Bearer {hub.token}":
            return self._answer(401, b"{}", {"X-Error-Code": "RepoNotFound"})
        return self._answer_read(path)

    def _answer_read(self, path: str) -> None:
        hub = self.hub
        if path.startswith("/api/models/org/adapter/revision/"):
            told = hub.describe() if hub.info is None else hub.info
            asked = path.rpartition("/")[2]
            if isinstance(told, dict) and re.fullmatch("[0-9a-f]{40}", asked):
                told = told | {"sha": asked}  # a commit stays what it is
            body = told if isinstance(told, bytes) else json.dumps(told).encode()
            return self._answer(200, body, hub.headers)
        match = re.match(r"/org/adapter/resolve/[^/]+/(.+)", path)
        if match and unquote(match[1]) in hub.files:
            return self._send_file(hub.files[unquote(match[1])])
        return self._answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})

    def _send_file(self, content: bytes) -> None:
        hub = self.hub
        true_etag = sha256(content) if len(content) >= LFS_FROM else git_sha1(content)
        headers = {"ETag": f'"{hub.etag or true_etag}"', "X-Repo-Commit": hub.commit} | hub.headers
        match = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
        status, begin = 200, 0
        if match and not hub.ignores_range:
            begin = int(match[1])
            status = 206
            headers.setdefault("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        body = content[begin:]
        if hub.endless:
            self._stream_without_end(headers)
            return
        cut = hub.cuts.pop(0) if hub.cuts else None
        self._answer(status, body, headers, cut=cut)

    def _stream_without_end(self, headers: Mapping[str, str]) -> None:
        self.send_response(200)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        try:
            while True:
                self.wfile.write(b"\0" * 65536)
        except OSError:
            return

    def _answer(
        self, status: int, body: bytes, headers: Mapping[str, str], *, cut: int | None = None
    ) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body if cut is None else body[:cut])
        if cut is not None:
            self.close_connection = True
