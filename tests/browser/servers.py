"""JupyterLab and Voila on loopback for the browser tests, without the user's own settings."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
STARTS_IN = 240
"""Seconds within which a server must answer, even on a busy machine."""

_SETTINGS = {
    # JupyterLab asks whether it may fetch news, in a pop-up that covers the notebook.
    "@jupyterlab/apputils-extension/notification.jupyterlab-settings": '{"fetchNews": "false"}',
    # On a slow machine a save by the timer may meet one by the menu. JupyterLab then takes one of
    # them for a stranger's, and asks in a dialog over the notebook (jupyterlab/jupyterlab#7743).
    "@jupyterlab/docmanager-extension/plugin.jupyterlab-settings": '{"autosave": false}',
}
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@dataclass(frozen=True)
class Server:
    """A running server: its port, its token and the folder that it serves."""

    port: int
    token: str
    folder: Path

    def url(self, path: str) -> str:
        """An address on this server, with the token."""
        return f"http://127.0.0.1:{self.port}/{path}?token={self.token}"


@contextmanager
def jupyterlab(
    folder: Path, *, without: Sequence[str] = (), module: str = "jupyterlab"
) -> Iterator[Server]:
    """JupyterLab on the notebooks of a folder, without the extensions that are named.

    With ``module="notebook"`` it is Notebook 7, which takes the same options.
    """
    command = [sys.executable, "-m", module, "--allow-root", "--no-browser"]
    command += ["--ip=127.0.0.1", "--port={port}", "--IdentityProvider.token={token}"]
    with _running(folder, [*command, "--ServerApp.root_dir={folder}"], without) as server:
        yield server


@contextmanager
def app(folder: Path) -> Iterator[Server]:
    """The server that ``make app`` starts; its state is kept beside ``folder``."""
    flags = "APP_FLAGS=--no-browser --port={port} --token={token}"
    with _running(folder, ["make", "app", flags]) as server:
        yield server


@contextmanager
def _running(folder: Path, command: list[str], without: Sequence[str] = ()) -> Iterator[Server]:
    port, token = _free_port(), secrets.token_hex(16)
    own = folder.parent / f"jupyter-{port}"
    environment = _environment(own)
    config = Path(environment["JUPYTER_CONFIG_DIR"], "labconfig", "page_config.json")
    config.parent.mkdir(parents=True)
    config.write_text(json.dumps({"disabledExtensions": dict.fromkeys(without, True)}))
    command = [part.format(port=port, token=token, folder=folder) for part in command]
    log = own / "server.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a process group of its own, to end all of it
        )
    server = Server(port, token, folder)
    try:
        _wait_for(server, process, log)
        yield server
    finally:
        _end(process)


def _environment(own: Path) -> dict[str, str]:
    """Environment variables that keep a server's settings and state in its own folder."""
    environment = dict(os.environ)
    for name in ("CONFIG_DIR", "DATA_DIR", "RUNTIME_DIR"):
        environment[f"JUPYTER_{name}"] = str(own / name.lower())
    for name in ("SETTINGS_DIR", "WORKSPACES_DIR"):
        environment[f"JUPYTERLAB_{name}"] = str(own / name.lower())
    for name in ("PYTHONHOME", "PYTHONPATH", "MPLBACKEND"):  # as in the Makefile
        environment.pop(name, None)
    environment["JUPYTER_PREFER_ENV_PATH"] = "1"
    for name, text in _SETTINGS.items():
        path = own / "settings_dir" / name
        path.parent.mkdir(parents=True)
        path.write_text(text, encoding="utf-8")
    return environment


def _wait_for(server: Server, process: subprocess.Popen, log: Path) -> None:
    until = time.monotonic() + STARTS_IN
    while time.monotonic() < until:
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(server.url("api/status"), timeout=5):
                return
        except urllib.error.HTTPError:
            return  # Voila answers, but has no such page
        except OSError:
            time.sleep(0.2)
    raise RuntimeError(f"The server did not start:\n{log.read_text(errors='replace')[-3000:]}")


def _end(process: subprocess.Popen) -> None:
    """End a server and its processes: first by SIGTERM, so that it ends its own kernels."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(20)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def browser() -> str | None:
    """The path of Chromium: the one that ``CHROMIUM`` names, or an installed one."""
    chosen = os.environ.get("CHROMIUM")
    return next(filter(None, map(shutil.which, [chosen] if chosen else BROWSERS)), None)


def missing() -> str:
    """Why the browser tests cannot run and how to mend it; empty if they can."""
    problems = []
    if browser() is None:
        chosen = os.environ.get("CHROMIUM")
        found = f"CHROMIUM={chosen} is no program" if chosen else "there is no Chromium here"
        problems.append(
            f"{found}. Install one:\n"
            "    Debian, Ubuntu   sudo apt-get install chromium fonts-dejavu-core\n"
            "    Fedora           sudo dnf install chromium\n"
            "    macOS            brew install --cask chromium\n"
            "or name one (Google Chrome will do): CHROMIUM=/path/to/chrome"
        )
    try:
        import playwright.sync_api  # noqa: F401
    except ImportError:
        problems.append(
            "the Python package playwright is not in this environment. `make setup` brings it\n"
            "into .venv (it is in requirements.lock); elsewhere: pip install playwright"
        )
    return "\n".join(f"browser tests: {problem}" for problem in problems)
