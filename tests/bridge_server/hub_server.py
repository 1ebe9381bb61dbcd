"""A hub on this machine: the parts of its interface that huggingface_hub uses, with faults to set.

Model information with sizes and hashes, HEAD and GET of files with the hub's headers, ranges, and
a redirect to another host (another port) for large files, as the real one has.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

LARGE = (".safetensors", ".pth", ".bin")


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def git_blob(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclass
class Request:
    method: str
    host: str
    path: str
    range: str
    token: str
    sent: int = 0


@dataclass
class Faults:
    """What goes wrong; each is used up by the requests that it spoils.

    break_after: bytes after which the next transfers of a large file are cut off
    spoil: makes other bytes of a large file's
    refuse: (status, error code, times) of every request
    no_ranges: ranges are not obeyed
    no_hashes: the listing has neither sizes nor hashes
    hash_all: the hash that the listing has for every large file
    on_piece: called before each piece that is sent
    """

    break_after: list[int] = field(default_factory=list)
    spoil: Callable[[bytes], bytes] | None = None
    refuse: list[tuple[int, str]] = field(default_factory=list)
    no_ranges: bool = False
    no_hashes: bool = False
    hash_all: str = ""
    on_piece: Callable[[int], None] | None = None


class HubServer:
    """Repositories by name: revision → files. The newest revision is main."""

    def __init__(self, piece: int = 1 << 14) -> None:
        self.piece = piece
        self.repositories: dict[str, dict[str, dict[str, bytes]]] = {}
        self.faults = Faults()
        self.requests: list[Request] = []
        self.files = _listen(self, "files")
        self.store = _listen(self, "store")

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.files.server_port}"

    def publish(self, repository: str, files: dict[str, bytes]) -> str:
        """Add a commit; return it."""
        commits = self.repositories.setdefault(repository, {})
        seed = f"{repository} {len(commits)}".encode()
        commit = hashlib.sha1(seed).hexdigest()
        commits[commit] = dict(files)
        return commit

    def bytes_sent(self) -> int:
        return sum(request.sent for request in self.requests if request.host == "store")

    def close(self) -> None:
        for server in (self.files, self.store):
            server.shutdown()
            server.server_close()


@contextmanager
def hub_server() -> Generator[HubServer, None, None]:
    server = HubServer()
    try:
        yield server
    finally:
        server.close()


def _listen(hub: HubServer, host: str) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            _Answer(hub, host, self).give()

        def do_HEAD(self) -> None:
            _Answer(hub, host, self).give()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class has it
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=lambda: server.serve_forever(poll_interval=0.02), daemon=True).start()
    return server


class _Answer:
    def __init__(self, hub: HubServer, host: str, handler: BaseHTTPRequestHandler) -> None:
        self.hub, self.handler, self.faults = hub, handler, hub.faults
        self.path = unquote(urlsplit(handler.path).path)
        self.request = Request(
            handler.command,
            host,
            self.path,
            handler.headers.get("Range", ""),
            handler.headers.get("Authorization", ""),
        )
        hub.requests.append(self.request)

    def give(self) -> None:
        try:
            self._give()
        except (BrokenPipeError, ConnectionResetError):
            self.handler.close_connection = True

    def _give(self) -> None:
        if self.faults.refuse:
            status, code = self.faults.refuse.pop(0)
            return self._refuse(status, code)
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/revision/(.+)", self.path):
            return self._listing(match[1], match[2])
        if match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/(main|[0-9a-f]{40})/(.+)", self.path):
            return self._file(match[1], match[2], match[3])
        return self._refuse(404, "RepoNotFound")

    def _listing(self, repository: str, revision: str) -> None:
        commits = self.hub.repositories.get(repository)
        if commits is None:
            return self._refuse(401, "RepoNotFound")
        commit = list(commits)[-1] if revision == "main" else revision
        if commit not in commits:
            return self._refuse(404, "RevisionNotFound")
        siblings = [_sibling(path, content) for path, content in commits[commit].items()]
        for sibling in siblings:
            if self.faults.hash_all and "lfs" in sibling:
                sibling["lfs"]["sha256"] = self.faults.hash_all
        if self.faults.no_hashes:
            siblings = [{"rfilename": sibling["rfilename"]} for sibling in siblings]
        body = json.dumps({"id": repository, "sha": commit, "siblings": siblings}).encode()
        self._head(200, {"Content-Type": "application/json", "Content-Length": str(len(body))})
        self.handler.wfile.write(body)
        return None

    def _file(self, repository: str, commit: str, path: str) -> None:
        commits = self.hub.repositories.get(repository, {})
        commit = list(commits)[-1] if commit == "main" and commits else commit
        content = commits.get(commit, {}).get(path)
        if content is None:
            return self._refuse(404, "EntryNotFound")
        if path.endswith(LARGE) and self.request.host == "files":
            store = f"http://127.0.0.1:{self.hub.store.server_port}{self.handler.path}"
            headers = {"X-Repo-Commit": commit, "X-Linked-Etag": f'"{sha256(content)}"'}
            headers |= {"X-Linked-Size": str(len(content)), "ETag": '"of-the-redirect"'}
            self._head(302, {**headers, "Location": store, "Content-Length": "0"})
            return None
        headers = {"X-Repo-Commit": commit, "ETag": f'"{git_blob(content)}"'}
        return self._content(content, headers, path.endswith(LARGE))

    def _content(self, content: bytes, headers: dict[str, str], large: bool) -> None:
        if large and self.faults.spoil:
            content = self.faults.spoil(content)
        start = 0
        if self.request.range and not self.faults.no_ranges:
            start = int(self.request.range.removeprefix("bytes=").removesuffix("-"))
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        part = content[start:]
        self._head(206 if start else 200, {**headers, "Content-Length": str(len(part))})
        if self.request.method == "HEAD":
            return
        stop = self.faults.break_after.pop(0) if large and self.faults.break_after else None
        self._send(part[:stop])
        if stop is not None:
            self.handler.close_connection = True

    def _send(self, part: bytes) -> None:
        for at in range(0, len(part), self.hub.piece):
            if self.faults.on_piece:
                self.faults.on_piece(self.request.sent)
            piece = part[at : at + self.hub.piece]
            self.handler.wfile.write(piece)
            self.request.sent += len(piece)

    def _refuse(self, status: int, code: str) -> None:
        self._head(
            status,
            {"X-Error-Code": code, "Content-Length": "0"} if code else {"Content-Length": "0"},
        )

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.handler.send_response(status)
        for key, value in headers.items():
            self.handler.send_header(key, value)
        self.handler.end_headers()


def _sibling(path: str, content: bytes) -> dict[str, Any]:
    large = {"sha256": sha256(content), "size": len(content), "pointerSize": 130}
    return {
        "rfilename": path,
        "size": len(content),
        "blobId": git_blob(content),
        **({"lfs": large} if path.endswith(LARGE) else {}),
    }
