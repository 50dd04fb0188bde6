"""A Hugging Face Hub on this machine: it serves one folder as the repository ``org/tiny``."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

REPOSITORY, COMMIT = "org/tiny", "0123456789abcdef0123456789abcdef01234567"


@dataclass
class LocalHub:
    """Where it listens, and what it was asked for so far."""

    url: str
    requests: list[str] = field(default_factory=list)


@contextmanager
def serving(folder: Path) -> Iterator[LocalHub]:
    """Serve a folder over HTTP as the Hub does; any other name is unknown (404)."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, body: bool) -> None:
            hub.requests.append(f"{self.command} {self.path}")
            path = self.path.partition("?")[0]
            headers, data = {}, b"{}"
            if path.startswith(f"/{REPOSITORY}/resolve/"):
                revision, _, name = path.removeprefix(f"/{REPOSITORY}/resolve/").partition("/")
                file = folder / name
                if revision not in ("main", COMMIT):
                    headers = {"X-Error-Code": "RevisionNotFound"}
                elif not file.is_file():
                    headers = {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT}
                else:
                    data = file.read_bytes()
                    etag = hashlib.sha256(data).hexdigest()
                    headers = {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT}
            elif path in (f"/api/models/{REPOSITORY}", f"/api/models/{REPOSITORY}/revision/main"):
                data = json.dumps({"id": REPOSITORY, "sha": COMMIT, "siblings": []}).encode()
            elif path.startswith(f"/api/models/{REPOSITORY}/tree/"):
                headers = {"X-Error-Code": "EntryNotFound"}
            elif path.startswith(f"/api/models/{REPOSITORY}/revision/"):
                headers = {"X-Error-Code": "RevisionNotFound"}
            else:
                headers = {"X-Error-Code": "RepoNotFound"}
            self.send_response(404 if "X-Error-Code" in headers else 200)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if body:
                self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub = LocalHub(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
