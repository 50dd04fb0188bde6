"""The set-up: the three lists of packages agree, the commands exist, failures name their remedy.

The bootstrap runs for real, on small stand-in checkouts whose lock is empty; pip's registry is an
address where nothing listens, so that these runs also show that nothing asks for more.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from paths import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TARGETS = ("help", "run", "lab", "app", "test", "test-browser", "bench", "lock", "clean")


# --- pyproject.toml, requirements.lock and environment.yml -----------------------------------


def pyproject() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def direct_dependencies() -> dict[str, SpecifierSet]:
    """Name and range of what pyproject asks for, the test extra included."""
    project = pyproject()["project"]
    lines = project["dependencies"] + project["optional-dependencies"]["test"]
    requirements = [Requirement(line) for line in lines]
    return {canonicalize_name(r.name): r.specifier for r in requirements}


def requirement_lines(path: Path) -> list[str]:
    lines = (line.split("#")[0].strip() for line in path.read_text().splitlines())
    return [line for line in lines if line]


def pin(requirement: Requirement) -> str:
    """The one version that a requirement allows."""
    (specifier,) = requirement.specifier
    assert specifier.operator == "==" and "*" not in specifier.version, requirement
    return specifier.version


def locked(python: str, platform: str) -> dict[str, list[str]]:
    """The lock's versions of each package for one Python and one platform."""
    environment = {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "sys_platform": platform,
        "os_name": "nt" if platform == "win32" else "posix",
        "platform_machine": "x86_64",
        "implementation_name": "cpython",
    }
    versions: dict[str, list[str]] = {}
    for line in requirement_lines(ROOT / "requirements.lock"):
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate(environment):
            versions.setdefault(canonicalize_name(requirement.name), []).append(pin(requirement))
    return versions


@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12", "3.13", "3.14"])
def test_lock_has_one_version_in_range_for_each_direct_dependency(
    python: str, platform: str
) -> None:
    versions = locked(python, platform)
    several = {name: found for name, found in versions.items() if len(found) > 1}
    assert not several
    for name, allowed in direct_dependencies().items():
        assert name in versions, f"{name} is in pyproject.toml but not in the lock: make lock"
        assert versions[name][0] in allowed, f"{name}: pyproject.toml wants {allowed}"


def test_conda_environment_pins_the_direct_dependencies_as_the_lock_does() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["name"] == pyproject()["project"]["name"]
    assert "conda-forge" in environment["channels"]
    *conda, pip = environment["dependencies"]
    (python,) = (entry.split("=", 1)[1] for entry in conda if entry.startswith("python="))
    assert "pip" in conda
    *pins, project = pip["pip"]
    assert project == "-e ."
    versions = {canonicalize_name(r.name): pin(r) for r in map(Requirement, pins)}
    lock = locked(python, "linux")
    assert versions == {name: lock[name][0] for name in direct_dependencies()}


def test_lock_is_bound_to_no_index_and_no_accelerator() -> None:
    for name in ("requirements.lock", "environment.yml"):
        text = (ROOT / name).read_text()
        assert "://" not in text and "--index" not in text and "@ " not in text
    packages = [Requirement(line).name for line in requirement_lines(ROOT / "requirements.lock")]
    assert "torch" in packages and "setuptools" in packages  # the bootstrap builds with the latter
    assert not [name for name in packages if re.match(r"nvidia-|cuda-|triton$", name)]


def test_model_archives_are_pinned_by_version_and_hash() -> None:
    lines = requirement_lines(ROOT / "data" / "requirements-models.txt")
    assert len(lines) == 2
    for line in lines:
        assert re.fullmatch(r"[a-z0-9-]+==[0-9.]+ --hash=sha256:[0-9a-f]{64}", line)


# --- the bootstrap's judgement ----------------------------------------------------------------


@pytest.fixture(scope="module")
def bootstrap() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bootstrap", ROOT / ".ci" / "bootstrap.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_bootstrap_parses_on_every_python_3() -> None:
    """An old Python has to get as far as the sentence that says it is too old."""
    tree = ast.parse((ROOT / ".ci" / "bootstrap.py").read_text())
    newer = (ast.JoinedStr, ast.AnnAssign, ast.NamedExpr, ast.AsyncFunctionDef, ast.Match)
    found = [node.lineno for node in ast.walk(tree) if isinstance(node, newer)]
    assert not found
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    assert not [f.name for f in functions if f.args.posonlyargs]
    # Evaluated when the function is defined, so no list[str] and no X | None either.
    notes = [a.annotation for f in functions for a in f.args.args] + [f.returns for f in functions]
    assert not [n.lineno for n in notes if n and not isinstance(n, (ast.Name, ast.Constant))]


@pytest.mark.parametrize("version", [(3, 4, 10), (3, 9, 18), (2, 7, 18)])
def test_too_old_python_is_named_with_its_remedy(bootstrap: ModuleType, version: tuple) -> None:
    problem = bootstrap.python_problem(version, "some/python3")
    assert "Python 3.10 or later is needed" in problem
    assert "some/python3 is Python " + ".".join(map(str, version)) in problem
    assert "PYTHON=" in problem


def test_python_that_will_do_is_let_through(bootstrap: ModuleType) -> None:
    assert bootstrap.python_problem((3, 10, 0), "python3") == ""
    assert bootstrap.python_problem((4, 0, 0), "python3") == ""
    minimum = ".".join(map(str, bootstrap.MINIMUM))
    assert pyproject()["project"]["requires-python"] == f">={minimum}"


RETRYING = "WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError'\n"
NONE = (
    "ERROR: Could not find a version that satisfies the requirement torch==2"
    " (from versions: none)\n"
    "ERROR: No matching distribution found for torch==2\n"
)
COLLECTED = "Collecting numpy==2\n  Downloading numpy-2.whl (16 MB)\n"
UNREACHED = "registry could not be reached"


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (NONE, UNREACHED),
        (COLLECTED + RETRYING + NONE, UNREACHED),
        (COLLECTED + "ERROR: HTTPSConnectionPool: Max retries exceeded", UNREACHED),
        (COLLECTED + "pip._vendor.urllib3.exceptions.ReadTimeoutError: Read timed out.", UNREACHED),
        ("ERROR: 503 Server Error: Service Unavailable for url: x", UNREACHED),
        (COLLECTED + NONE, "registry has no torch==2 for Python"),
        (COLLECTED + "ERROR: OSError: [Errno 28] No space left on device", "The disk is full ("),
        ("noise\n" * 50 + RETRYING + "ERROR: cannot build it", "  ERROR: cannot build it"),
    ],
)
def test_pip_failure_gets_the_message_of_its_cause(
    bootstrap: ModuleType, output: str, message: str
) -> None:
    problem = bootstrap.pip_problem(output)
    causes = (UNREACHED, "registry has no torch==2 for Python", "The disk is full (", "  ERROR: ")
    assert [cause for cause in causes if cause in problem] == [
        cause for cause in causes if message.startswith(cause)
    ]
    assert message in problem
    assert len(problem.splitlines()) < 20


# --- the bootstrap at work --------------------------------------------------------------------

# Builds an editable wheel with the standard library alone: the real backend, setuptools, comes
# with the real lock, and the stand-in's lock is empty.
BACKEND = """
import os, zipfile
def build_editable(folder, config_settings=None, metadata_directory=None):
    info = "embvar_kit-0.dist-info/"
    files = {
        "embvar_kit.pth": os.getcwd() + os.linesep,
        info + "METADATA": "Metadata-Version: 2.1\\nName: embvar-kit\\nVersion: 0\\n",
        info + "WHEEL": "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
        info + "entry_points.txt": "[console_scripts]\\nembvar = stand_in:main\\n",
    }
    files[info + "RECORD"] = "".join(name + ",,\\n" for name in [*files, info + "RECORD"])
    with zipfile.ZipFile(os.path.join(folder, "embvar_kit-0-py3-none-any.whl"), "w") as wheel:
        for name, text in files.items():
            wheel.writestr(name, text)
    return "embvar_kit-0-py3-none-any.whl"
"""
PROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
[project]
name = "embvar-kit"
version = "0"
"""


def make_checkout(folder: Path, lock: str = "# empty\n") -> Path:
    """A stand-in for a clean clone, with the real Makefile and bootstrap."""
    (folder / ".ci").mkdir(parents=True)
    shutil.copy(ROOT / ".ci" / "bootstrap.py", folder / ".ci")
    shutil.copy(ROOT / "Makefile", folder)
    (folder / "requirements.lock").write_text(lock)
    (folder / "pyproject.toml").write_text(PROJECT)
    (folder / "backend.py").write_text(BACKEND)
    (folder / "stand_in.py").write_text("def main():\n    print('the command works')\n")
    return folder


def call(folder: Path, *command: str, **extra: str) -> subprocess.CompletedProcess:
    """Run a command in a checkout as a person would from a bare shell without a network."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": os.environ.get("HOME", str(folder)),
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_INDEX_URL": "http://127.0.0.1:9",
        "PIP_RETRIES": "0",
        **extra,
    }
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120
    )


def set_up(folder: Path, python: str = sys.executable) -> subprocess.CompletedProcess:
    return call(folder, "make", "--no-print-directory", "setup", f"PYTHON={python}")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_checkout(tmp_path_factory.mktemp("a checkout with blanks") / "embvar-kit")
    done = set_up(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_set_up_gives_the_package_and_the_command(checkout: Path) -> None:
    done = call(checkout, ".venv/bin/embvar")
    assert done.stdout == "the command works\n", done.stderr


def test_second_call_does_nothing_and_is_quick(checkout: Path) -> None:
    set_up(checkout)
    log = checkout / ".venv" / "embvar-setup.log"
    before = log.read_bytes()
    times = []
    for _ in range(3):
        start = time.perf_counter()
        done = set_up(checkout)
        times.append(time.perf_counter() - start)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert min(times) < 1
    assert log.read_bytes() == before


def test_changed_project_file_installs_the_project_alone_again(checkout: Path) -> None:
    set_up(checkout)
    witness = checkout / ".venv" / "witness"
    witness.touch()
    with (checkout / "pyproject.toml").open("a") as file:
        file.write("# changed\n")
    done = set_up(checkout)
    assert done.returncode == 0 and "ready" in done.stdout
    assert witness.exists()
    assert set_up(checkout).stdout == ""


def assert_plain_failure(done: subprocess.CompletedProcess, *words: str) -> None:
    assert done.returncode != 0
    assert "Traceback" not in done.stdout + done.stderr
    for word in words:
        assert word in done.stderr


def test_no_network_is_one_plain_message_and_its_remains_are_not_trusted(checkout: Path) -> None:
    venv, lock = checkout / ".venv", checkout / "requirements.lock"
    set_up(checkout)
    (venv / "witness").touch()
    lock.write_text("accelerate==1.15.0\n")
    done = set_up(checkout)
    assert_plain_failure(done, "registry could not be reached", "HTTPS_PROXY", "PIP_INDEX_URL")
    assert "127.0.0.1" not in done.stdout + done.stderr  # pip's own words stay in the log
    assert not (venv / "witness").exists(), "packages that left the lock must not linger"

    # As an install that was cut off leaves it: a package that is there by half.
    next(venv.glob("lib/python3*/site-packages/pip/__init__.py")).unlink()
    lock.write_text("# empty\n")
    done = set_up(checkout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "making .venv anew" in done.stdout
    assert call(checkout, ".venv/bin/embvar").stdout == "the command works\n"


def test_missing_ensurepip_is_named_with_its_remedy(tmp_path: Path) -> None:
    folder = make_checkout(tmp_path / "clone")
    stub = tmp_path / "python3-without-ensurepip"
    stub.write_text(
        f"#!/bin/sh\nexec '{sys.executable}' -c 'import runpy, sys\n"
        'sys.modules["ensurepip"] = None\nsys.argv.pop(0)\n'
        'runpy.run_path(sys.argv[0], run_name="__main__")\' "$@"\n'
    )
    stub.chmod(0o755)
    done = set_up(folder, python=str(stub))
    assert_plain_failure(done, "lacks the standard module ensurepip", "apt install python3-venv")
    assert not (folder / ".venv").exists()


def test_folder_that_is_no_venv_is_left_alone(tmp_path: Path) -> None:
    folder = make_checkout(tmp_path / "clone")
    (folder / ".venv").mkdir()
    (folder / ".venv" / "thesis.tex").touch()
    assert_plain_failure(set_up(folder), "no virtual environment", "move it away")
    assert (folder / ".venv" / "thesis.tex").exists()


def test_missing_interpreter_is_named_with_its_remedy(tmp_path: Path) -> None:
    folder = make_checkout(tmp_path / "clone")
    done = set_up(folder, python="python-that-is-not-here")
    assert_plain_failure(done, "no 'python-that-is-not-here' here", "PYTHON=python3.12")


# --- make and CI ------------------------------------------------------------------------------


def test_make_alone_lists_the_targets() -> None:
    done = call(ROOT, "make", "--no-print-directory")
    assert done.returncode == 0
    for target in TARGETS:
        assert re.search(rf"^  make {target} +\S", done.stdout, re.M), target


@pytest.mark.parametrize(
    ("target", "commands"),
    [
        ("run", ["bootstrap.py", "embvar_kit fetch", "nbconvert", "embvar_kit show"]),
        ("lab", ["bootstrap.py", "embvar_kit fetch", "jupyterlab", "01_variance_formula.ipynb"]),
        ("app", ["bootstrap.py", "embvar_kit fetch", "voila", "--Voila.ip=127.0.0.1"]),
        ("test", ["bootstrap.py", "ruff check", "ruff format --check", "pytest", "--nbval "]),
        ("test-browser", ["bootstrap.py", "embvar_kit fetch", "pytest", "tests/browser"]),
        ("bench", ["bootstrap.py", "benchmarks/run.py", "benchmarks/in_browser.py"]),
        ("lock", [".ci/lock.sh"]),
        ("clean", ["rm -rf .venv"]),
    ],
)
def test_target_does_its_own_set_up_and_then_its_work(target: str, commands: list[str]) -> None:
    done = call(ROOT, "make", "--dry-run", target)
    assert done.returncode == 0, done.stderr
    places = [done.stdout.find(command) for command in commands]
    assert -1 not in places and places == sorted(places), done.stdout


def test_clean_keeps_what_took_long_to_get() -> None:
    done = call(ROOT, "make", "--dry-run", "clean")
    removed = done.stdout.split()
    assert "data/cache/executed" in removed
    assert not {"data", "data/models", "data/cache"} & set(removed)


@pytest.mark.parametrize("status", [0, 3])
def test_ci_calls_make_test_and_passes_its_failure_on(tmp_path: Path, status: int) -> None:
    stub = tmp_path / "make"
    stub.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && exit 0\n'
        f'echo "make $* in $PWD with CI=$CI"\nexit {status}\n'
    )
    stub.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = call(tmp_path, "bash", str(ROOT / ".ci" / "run"), PATH=path)
    assert f"make test in {ROOT} with CI=true\n" in done.stdout
    assert (done.returncode == 0) == (status == 0)


def browser_tests_without(tmp_path: Path, *, playwright: bool) -> subprocess.CompletedProcess:
    """``make test-browser`` where there is no browser, and perhaps no playwright."""
    hide = "" if playwright else "import sys; sys.modules['playwright'] = None\n"
    (tmp_path / "sitecustomize.py").write_text(hide)
    return subprocess.run(
        [sys.executable, "-m", "pytest", "tests/browser"],
        cwd=ROOT,
        env={**os.environ, "CHROMIUM": "no-such-browser", "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_browser_tests_say_what_is_missing_and_how_to_get_it(tmp_path: Path) -> None:
    done = browser_tests_without(tmp_path, playwright=False)
    told = done.stdout + done.stderr
    assert done.returncode == 1, told
    assert "CHROMIUM=no-such-browser is no program" in told
    assert "apt-get install chromium" in told and "make setup" in told
    assert "Traceback" not in told
