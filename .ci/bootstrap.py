"""Make `.venv` from `requirements.lock`, once; any later call returns at once.

Standard library only. The file must *parse* on every Python 3, so that an old one can be told
what is needed instead of showing a syntax error: no f-strings, no annotated variables, only plain
built-in types in annotations. Whatever runs after the version check may use Python 3.10.

How trust is earned: `.venv/embvar-setup.json` is written last, and names the venv's place and the
hashes of what it was made from. A venv without it was cut off or made by something else, and is
made anew; one made from another lock file is made anew too, because packages that left the lock
would linger and hide a missing dependency. When only `pyproject.toml` changed, the project alone
is installed again.
"""

import contextlib
import errno
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import time

MINIMUM = (3, 10)
ROOT = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
VENV = os.path.join(ROOT, ".venv")
VENV_PYTHON = os.path.join(VENV, "bin", "python")
LOCK = os.path.join(ROOT, "requirements.lock")
PROJECT = os.path.join(ROOT, "pyproject.toml")
STAMP = os.path.join(VENV, "embvar-setup.json")
LOG = os.path.join(VENV, "embvar-setup.log")

# pip has one exit status for everything: its words have to tell what went wrong.
DISK_FULL = re.compile(r"No space left on device|Errno 28\b|Disk quota exceeded", re.I)
NO_REGISTRY = re.compile(
    r"Max retries exceeded|NewConnectionError|connection broken"
    r"|Connection (refused|reset|aborted|timed out)|Failed to (establish a new connection|connect)"
    r"|name resolution|getaddrinfo|Name or service not known|nodename nor servname"
    r"|Network is unreachable|No route to host|Read ?timed ?out|TimeoutError|ProxyError|SSLError"
    r"|CERTIFICATE_VERIFY_FAILED|IncompleteRead|\b(40[137]|429|5\d\d) (Client|Server) Error",
    re.I,
)
NO_VERSION = re.compile(r"No matching distribution found for (\S+)")


class SetupError(Exception):
    """An expected failure; its text says what is wrong and what to do."""


def python_problem(version: tuple, executable: str) -> str:
    """What is wrong with this Python version; empty when it will do."""
    if tuple(version[:2]) >= MINIMUM:
        return ""
    return (
        "Python {0}.{1} or later is needed, and {2} is Python {3}.\n"
        "Install a newer one and name it, for example: make run PYTHON=python3.12"
    ).format(MINIMUM[0], MINIMUM[1], executable, ".".join(str(part) for part in version[:3]))


def venv_problem() -> str:
    """What is missing for making a virtual environment; empty when nothing is."""
    missing = [name for name in ("venv", "ensurepip") if importlib.util.find_spec(name) is None]
    if not missing:
        return ""
    return (
        "{0} lacks the standard module {1}, so it cannot make a virtual environment.\n"
        "Debian and Ubuntu keep it in a package of its own: apt install python3-venv\n"
        "(python{2}.{3}-venv for this version). Or name another Python: make run PYTHON=python3.12"
    ).format(sys.executable, " and ".join(missing), *sys.version_info[:2])


def disk_problem() -> str:
    """The message for a full disk, with the room left in the two places that pip fills."""
    rooms = []
    for path in (ROOT, os.environ.get("TMPDIR", "/tmp")):
        if os.path.isdir(path):
            rooms.append("{0:.1f} GB free in {1}".format(shutil.disk_usage(path).free / 1e9, path))
    return (
        "The disk is full ({0}).\n"
        "The environment takes some 3 GB with a CPU build of PyTorch and 7 GB with a CUDA build,\n"
        "and as much again while it is installed. Free some room and call again; TMPDIR moves the\n"
        "temporary files, and `pip cache purge` empties pip's cache."
    ).format("; ".join(rooms))


def pip_problem(output: str) -> str:
    """The message for a failed pip call, from what pip printed."""
    lines = [line for line in output.splitlines() if line.strip()]
    # A warning tells of a try that may have been repeated with success.
    words = "\n".join(line for line in lines if not line.startswith("WARNING:"))
    version = NO_VERSION.search(words)
    # "none" is what pip says of an index that it could not ask, and of a package without a file
    # for this Python; in the second case other packages were collected without a retry.
    unasked = "(from versions: none)" in words and (
        "WARNING: Retrying" in output
        or not re.search(r"^ *(Downloading|Using cached) ", words, re.M)
    )
    if DISK_FULL.search(words):
        return disk_problem()
    if unasked or NO_REGISTRY.search(words):
        return (
            "The Python package registry could not be reached, and the first set-up needs it.\n"
            "Check the network connection and call again. Behind a proxy, set HTTPS_PROXY;\n"
            "with a mirror, set PIP_INDEX_URL. pip's own words are in {0}"
        ).format(shown(LOG))
    if version:
        return (
            "The package registry has no {0} for Python {1}.{2} on this kind of machine.\n"
            "Name another Python, for example: make run PYTHON=python3.12"
        ).format(version.group(1), *sys.version_info[:2])
    return "pip failed; all its words are in {0}, and these are the last:\n  {1}".format(
        shown(LOG), "\n  ".join(lines[-12:])
    )


def shown(path: str) -> str:
    """A path as a reader in the checkout would type it."""
    return os.path.relpath(path, ROOT)


def say(text: str) -> None:
    sys.stdout.write("set-up: " + text + "\n")
    sys.stdout.flush()


def digest(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.sha256(file.read()).hexdigest()
    except FileNotFoundError:
        raise SetupError(
            "{0} is missing; get it back with: git checkout {0}".format(shown(path))
        ) from None


def read_stamp() -> dict:
    """What the venv was made from; empty when that is unknown or its parts are gone."""
    if not os.path.exists(VENV_PYTHON):  # also when it links to a Python that was removed
        return {}
    try:
        with open(STAMP, encoding="utf-8") as file:
            stamp = json.load(file)
    except (OSError, ValueError):
        return {}
    # Its scripts hold their own path: a venv that was moved or copied does not work.
    return stamp if isinstance(stamp, dict) and stamp.get("venv") == VENV else {}


def write_stamp(stamp: dict) -> None:
    part = STAMP + ".part"
    with open(part, "w", encoding="utf-8") as file:
        json.dump(stamp, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, STAMP)


def make_venv() -> None:
    """An empty virtual environment in the place of whatever `.venv` was."""
    if os.path.lexists(VENV):
        known = {"bin", "include", "lib", "lib64", "pyvenv.cfg", os.path.basename(LOG)}
        is_venv = os.path.isdir(VENV) and (
            os.path.exists(os.path.join(VENV, "pyvenv.cfg")) or set(os.listdir(VENV)) <= known
        )
        if not is_venv:
            raise SetupError(
                "{0} is there and is no virtual environment; move it away and call again.".format(
                    shown(VENV)
                )
            )
        say("making .venv anew: it is unfinished, from another lock file or from another place")
    command = [sys.executable, "-m", "venv", "--clear", VENV]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        if DISK_FULL.search(done.stdout):
            raise SetupError(disk_problem())
        raise SetupError("{0} failed:\n{1}".format(" ".join(command), done.stdout.strip()))


def pip(arguments: list) -> None:
    """Run the venv's pip; its output goes to the log, now and then a line to the screen."""
    environment = dict(os.environ)
    # Settings for installing elsewhere would put packages outside the venv, or make pip refuse.
    for name in ("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT"):
        environment.pop(name, None)
    environment.update(
        PIP_USER="0", PIP_NO_INPUT="1", PIP_DISABLE_PIP_VERSION_CHECK="1", PIP_PROGRESS_BAR="off"
    )
    # -I: a PYTHONPATH must not pass for an installed package.
    command = [VENV_PYTHON, "-I", "-m", "pip"] + arguments
    lines, found = [], 0
    start = said = time.monotonic()
    with open(LOG, "a", encoding="utf-8") as log:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        try:
            for line in process.stdout:
                log.write(line)
                lines.append(line)
                if line.startswith("Collecting "):
                    found += 1
                    if time.monotonic() - said > 15:
                        said = time.monotonic()
                        say("  {0:.0f} s: {1} packages found".format(said - start, found))
                elif line.startswith("Installing collected packages") and found:
                    say("  {0:.0f} s: installing them".format(time.monotonic() - start))
            status = process.wait()
        except BaseException:
            process.kill()
            process.wait()
            raise
    if status:
        raise SetupError(pip_problem("".join(lines)))


@contextlib.contextmanager
def one_at_a_time() -> object:
    """A second set-up in this checkout waits for the first one's end."""
    import fcntl  # not on Windows, where this file is not used

    # Its own source serves as the lock file: always there, and nothing is left behind.
    with open(os.path.realpath(__file__), "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another set-up is at work here; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def set_up() -> None:
    wanted = {"venv": VENV, "lock": digest(LOCK), "project": digest(PROJECT)}
    if read_stamp() == wanted:
        return
    problem = venv_problem()
    if problem:
        raise SetupError(problem)
    with one_at_a_time():
        stamp = read_stamp()  # another call may have made it while this one waited
        if stamp == wanted:
            return
        start = time.monotonic()
        if stamp.get("lock") != wanted["lock"]:
            say("making .venv from requirements.lock; this takes some minutes, once")
            make_venv()
            pip(["install", "-r", LOCK])
            write_stamp({"venv": VENV, "lock": wanted["lock"]})
        # The lock has brought setuptools, so building without isolation asks no registry for a
        # build environment, and an editable install makes the package, its metadata and the
        # `embvar` command behave as a user's would. The lock holds all dependencies: --no-deps.
        pip(["install", "--no-deps", "--no-build-isolation", "--no-index", "-e", ROOT])
        write_stamp(wanted)
        say("ready after {0:.0f} s".format(time.monotonic() - start))


def main() -> int:
    problem = python_problem(sys.version_info, sys.executable)
    try:
        if problem:
            raise SetupError(problem)
        set_up()
    except SetupError as error:
        problem = str(error)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
        problem = disk_problem() if full else "The set-up could not go on: {0}".format(error)
    except KeyboardInterrupt:
        problem = "Interrupted; the next call starts it again."
    if problem:
        sys.stderr.write("set-up: " + problem.replace("\n", "\n        ") + "\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
