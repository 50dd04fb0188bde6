"""A Hugging Face Hub on this machine, which serves folders as a model and as datasets."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

REPOSITORY, COMMIT = "org/tiny", "0123456789abcdef0123456789abcdef01234567"


@dataclass
class LocalHub:
    """The address of a running hub, and the requests it has had so far."""

    url: str
    requests: list[str] = field(default_factory=list)


@contextmanager
def serving(
    folder: Path,
    *,
    name: str = REPOSITORY,
    datasets: Mapping[str, tuple[Path, str]] | None = None,
    gated: bool = False,
) -> Iterator[LocalHub]:
    """Serve folders over HTTP as the Hub does; any other name is unknown (404).

    Args:
        folder: Files of the model.
        name: Name of the model.
        datasets: Folder and revision of each dataset, by the dataset's name.
        gated: Whether all of them are only for those who were let in, which nobody was.

    Yields:
        The hub, which stops when the context ends.
    """
    datasets = datasets or {}

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, body: bool) -> None:
            hub.requests.append(f"{self.command} {self.path}")
            path = unquote(self.path.partition("?")[0])
            headers, data = {"X-Error-Code": "RepoNotFound"}, b"{}"
            served = {"": (name, folder, "main")}
            served |= {f"datasets/{own}": (own, *rest) for own, rest in datasets.items()}
            for place, (own, files, revision) in served.items():
                resolve = f"/{place or own}/resolve/"
                api = f"/api/{place or f'models/{own}'}"
                if gated and (path.startswith(resolve) or path == f"{api}/auth-check"):
                    headers = {"X-Error-Code": "GatedRepo"}
                elif path.startswith(resolve):
                    asked = path.removeprefix(resolve)
                    known = [at for at in (revision, COMMIT) if asked.startswith(f"{at}/")]
                    if not known:
                        headers = {"X-Error-Code": "RevisionNotFound"}
                        continue
                    file = files / asked.removeprefix(f"{known[0]}/")
                    if not file.is_file():
                        headers = {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT}
                        continue
                    data = file.read_bytes()
                    etag = hashlib.sha256(data).hexdigest()
                    headers = {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT}
                elif path in (api, *(f"{api}/revision/{at}" for at in (revision, COMMIT))):
                    told = {"id": own, "sha": COMMIT, "siblings": [], "gated": gated and "auto"}
                    headers, data = {}, json.dumps(told).encode()
                elif place and path == f"{api}/tree/{COMMIT}":
                    told = [
                        {"type": "file", "oid": COMMIT, "size": file.stat().st_size, "path": at}
                        for file in sorted(files.rglob("*.*"))
                        for at in [file.relative_to(files).as_posix()]
                    ]
                    headers, data = {}, json.dumps(told).encode()
                elif path.startswith(f"{api}/tree/"):
                    headers = {"X-Error-Code": "EntryNotFound"}
                elif path.startswith(f"{api}/revision/"):
                    headers = {"X-Error-Code": "RevisionNotFound"}
            code = headers.get("X-Error-Code")
            self.send_response(200 if code is None else 403 if code == "GatedRepo" else 404)
            for header, value in headers.items():
                self.send_header(header, value)
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
