"""The three lists of packages agree, make sets up and lists its targets, failures name a remedy.

The set-up runs for real, on small stand-in checkouts whose lock is empty; pip's registry is an
address where nothing listens, so these runs also show that nothing is downloaded.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from itertools import chain
from pathlib import Path

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

TARGETS = (
    *("result", "run", "lab", "app", "course", "slides", "site"),
    *("check", "test", "test-browser", "bench", "bench-peers", "lock", "clean"),
)

PEERS = ROOT / "tests" / "benchmarks" / "peers.txt"
"""The packages of `make bench-peers`, which have an environment of their own."""


# --- pyproject.toml, requirements.lock and environment.yml -----------------------------------


def pyproject() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def direct_dependencies(environment: dict[str, str] | None = None) -> dict[str, SpecifierSet]:
    """Name and range of what pyproject asks for, all extras included.

    Args:
        environment: values of markers; by default, what one platform alone needs is left out.
    """
    project = pyproject()["project"]
    extras = chain.from_iterable(project["optional-dependencies"].values())
    lines = chain(project["dependencies"], extras)
    requirements = [Requirement(line) for line in lines]
    return {
        canonicalize_name(r.name): r.specifier
        for r in requirements
        if r.marker is None or (environment and r.marker.evaluate(environment))
    }


def requirement_lines(path: Path) -> list[str]:
    lines = (line.split("#")[0].strip() for line in path.read_text().splitlines())
    return [line for line in lines if line]


def pin(requirement: Requirement) -> str:
    """The one version that a requirement allows."""
    (specifier,) = requirement.specifier
    assert specifier.operator == "==" and "*" not in specifier.version, requirement
    return specifier.version


def environment_of(python: str, platform: str) -> dict[str, str]:
    """The values of markers for one Python and one platform."""
    return {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "sys_platform": platform,
        "os_name": "nt" if platform == "win32" else "posix",
        "platform_machine": "x86_64",
        "implementation_name": "cpython",
    }


def locked(
    python: str, platform: str, lock: Path = ROOT / "requirements.lock"
) -> dict[str, list[str]]:
    """A lock's versions of each package for one Python and one platform."""
    environment = environment_of(python, platform)
    versions: dict[str, list[str]] = {}
    for line in requirement_lines(lock):
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
    needed = direct_dependencies(environment_of(python, platform))
    assert ("triton" in needed) == (platform == "linux")
    for name, allowed in needed.items():
        assert name in versions, f"{name} is in pyproject.toml but not in the lock: make lock"
        assert versions[name][0] in allowed, f"{name}: pyproject.toml wants {allowed}"


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12", "3.13", "3.14"])
def test_what_the_kit_is_measured_against_runs_on_its_own_torch(python: str) -> None:
    found, kit = locked(python, "linux", PEERS), locked(python, "linux")
    assert all(len(versions) == 1 for versions in found.values())
    for line in requirement_lines(PEERS.with_suffix(".in")):
        wanted = Requirement(line)
        assert found[canonicalize_name(wanted.name)][0] in wanted.specifier
    for name in ("torch", "transformers", "numpy", "psutil"):
        assert found[name] == kit[name]


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


def test_binder_installs_what_the_kit_needs_and_no_cuda() -> None:
    """Binder ignores the root's environment.yml, since there is a folder .binder."""
    root = yaml.safe_load((ROOT / "environment.yml").read_text())
    environment = yaml.safe_load((ROOT / ".binder" / "environment.yml").read_text())
    *conda, pip = environment["dependencies"]
    *expected, _ = root["dependencies"]
    assert (conda, environment["channels"]) == (expected, root["channels"])
    index, *pins = pip["pip"]
    assert index == "--extra-index-url https://download.pytorch.org/whl/cpu"
    versions = {canonicalize_name(r.name): pin(r) for r in map(Requirement, pins)}
    needed = map(Requirement, pyproject()["project"]["dependencies"])
    lock = locked(conda[0].removeprefix("python="), "linux")
    assert versions == {name: lock[name][0] for name in (canonicalize_name(r.name) for r in needed)}


def test_lock_is_bound_to_no_index_and_no_accelerator() -> None:
    for path in (ROOT / "requirements.lock", ROOT / "environment.yml", PEERS):
        text = path.read_text()
        assert "://" not in text and "--index" not in text and "@ " not in text
    for lock in (ROOT / "requirements.lock", PEERS):
        packages = [Requirement(line).name for line in requirement_lines(lock)]
        assert "torch" in packages and "setuptools" in packages  # the set-up builds with the latter
        assert not [name for name in packages if re.match(r"nvidia-|cuda-", name)]


def test_model_archives_are_pinned_by_version_and_hash() -> None:
    lines = requirement_lines(ROOT / "data" / "requirements-models.txt")
    assert len(lines) == 2
    for line in lines:
        assert re.fullmatch(r"[a-z0-9-]+==[0-9.]+ --hash=sha256:[0-9a-f]{64}", line)


# --- the set-up at work -----------------------------------------------------------------------

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


def make_checkout(folder: Path) -> Path:
    """A stand-in for a clean clone, with the real Makefile and set-up script."""
    (folder / ".ci").mkdir(parents=True)
    shutil.copy(ROOT / ".ci" / "venv.sh", folder / ".ci")
    shutil.copy(ROOT / "Makefile", folder)
    (folder / "requirements.lock").write_text("# empty\n")
    peers = folder / PEERS.relative_to(ROOT)
    peers.parent.mkdir(parents=True)
    peers.write_text("# empty\n")
    (folder / "pyproject.toml").write_text(PROJECT)
    (folder / "setup.py").touch()
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
        "PIP_RETRIES": "1",
        **extra,
    }
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120
    )


def set_up(folder: Path, python: str = sys.executable) -> subprocess.CompletedProcess:
    return call(folder, "make", "--no-print-directory", "setup", f"PYTHON={python}")


def age(folder: Path) -> None:
    """Make every file an hour older, so that one written now is newer by any clock."""
    for path in folder.rglob("*"):
        if not path.is_symlink():
            then = path.stat().st_mtime - 3600
            os.utime(path, (then, then))


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout whose set-up is done; its path has a blank in it."""
    folder = make_checkout(tmp_path_factory.mktemp("a checkout") / "embvar-kit")
    done = set_up(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"Making \.venv with Python 3.*installing requirements\.lock", done.stdout)
    assert re.search(r"Installed the packages in \d+ s", done.stdout)
    age(folder)
    return folder


def assert_made_anew(folder: Path) -> None:
    witness = folder / ".venv" / "witness"
    witness.touch()
    done = set_up(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Making .venv" in done.stdout
    assert not witness.exists()
    assert call(folder, ".venv/bin/embvar").stdout == "the command works\n"
    assert set_up(folder).stdout == ""


def assert_fails(done: subprocess.CompletedProcess, *words: str) -> None:
    assert done.returncode != 0
    assert "Traceback" not in done.stdout + done.stderr
    for word in words:
        assert word in done.stderr


@pytest.mark.slow
def test_set_up_gives_the_command_and_a_second_call_does_nothing(ready: Path) -> None:
    assert call(ready, ".venv/bin/embvar").stdout == "the command works\n"
    done = set_up(ready)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.slow
def test_changed_project_file_installs_the_project_alone_again(ready: Path) -> None:
    (ready / ".venv" / "witness").touch()
    (ready / "pyproject.toml").touch()
    done = set_up(ready)
    assert done.returncode == 0 and done.stdout == "set-up: .venv is ready.\n"
    assert (ready / ".venv" / "witness").exists()


@pytest.mark.slow
def test_no_network_is_named_and_what_it_left_is_not_used(ready: Path) -> None:
    lock = ready / "requirements.lock"
    lock.write_text("accelerate==1.15.0\n")
    done = set_up(ready)
    assert_fails(done, "registry could not be reached", "HTTPS_PROXY", "PIP_INDEX_URL")
    assert "127.0.0.1" not in done.stdout + done.stderr  # pip's own words stay in the log
    lock.write_text("# empty\n")
    assert_made_anew(ready)


@pytest.mark.slow
def test_venv_of_another_place_or_without_its_python_is_made_anew(
    ready: Path, tmp_path: Path
) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(ready, moved, symlinks=True)
    age(moved)
    assert_made_anew(moved)
    (moved / ".venv" / "bin" / "python").unlink()
    (moved / ".venv" / "bin" / "python").symlink_to("/python/that/was/removed")
    assert_made_anew(moved)


def python_that(folder: Path, lacks: str) -> str:
    """An interpreter that runs the line ``lacks`` before what it is given with ``-c``."""
    stub = folder / "python-stub"
    stub.write_text(
        f"""#!/bin/sh\n[ "$1" = -c ] && exec '{sys.executable}' -c "import sys; {lacks}; $2"\n"""
        f"""exec '{sys.executable}' "$@"\n"""
    )
    stub.chmod(0o755)
    return str(stub)


@pytest.mark.parametrize(
    ("lacks", "words"),
    [
        ("sys.version_info = (3, 9, 18)", ("Python 3.10 or later is needed", "PYTHON=python3.12")),
        ("sys.modules['ensurepip'] = None", ("lacks the modules venv", "apt install python3-venv")),
    ],
)
def test_unfit_python_is_named_with_its_remedy(
    lacks: str, words: tuple[str, ...], tmp_path: Path
) -> None:
    folder = make_checkout(tmp_path / "clone")
    assert_fails(set_up(folder, python=python_that(tmp_path, lacks)), *words)
    assert not (folder / ".venv").exists()


def test_missing_python_is_named_with_its_remedy(tmp_path: Path) -> None:
    folder = make_checkout(tmp_path / "clone")
    done = set_up(folder, python="python-that-is-not-here")
    assert_fails(done, "no 'python-that-is-not-here' here", "PYTHON=python3.12")


def test_folder_that_is_not_a_venv_is_left_alone(tmp_path: Path) -> None:
    folder = make_checkout(tmp_path / "clone")
    (folder / ".venv").mkdir()
    (folder / ".venv" / "thesis.tex").touch()
    assert_fails(set_up(folder), "not a virtual environment", "Move it away")
    assert (folder / ".venv" / "thesis.tex").exists()


@pytest.mark.slow
def test_what_binder_runs_installs_the_kit_and_fetches_the_models(tmp_path: Path) -> None:
    folder = make_checkout(tmp_path / "clone")
    assert call(folder, sys.executable, "-m", "venv", ".venv").returncode == 0
    # A kit that writes down what it was asked for, in place of one that downloads models.
    (folder / "embvar_kit").mkdir()
    (folder / "embvar_kit" / "__main__.py").write_text(
        "import pathlib, sys\npathlib.Path('asked').write_text(' '.join(sys.argv[1:]))\n"
    )
    script = ROOT / ".binder" / "postBuild"
    path = f"{folder / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"
    done = call(folder, str(script), PATH=path)
    assert done.returncode == 0, done.stderr
    assert (folder / "asked").read_text() == "fetch"
    assert call(folder, ".venv/bin/embvar").stdout == "the command works\n"
    # Binder would go on where a step of a shell script has failed.
    (folder / "embvar_kit" / "__main__.py").write_text("raise SystemExit(3)\n")
    assert call(folder, str(script), PATH=path).returncode == 3
    (folder / "backend.py").write_text("")
    assert call(folder, str(script), PATH=path).returncode == 1


# --- make and CI ------------------------------------------------------------------------------


def test_make_alone_lists_the_targets() -> None:
    done = call(ROOT, "make", "--no-print-directory")
    assert done.returncode == 0
    for target in TARGETS:
        assert re.search(rf"^  make {target} +\S", done.stdout, re.M), target


@pytest.mark.parametrize(
    ("target", "commands"),
    [
        ("result", ["embvar_kit fetch", "embvar_kit.cached", "show", "figures"]),
        ("run", ["embvar_kit fetch", "show", "figures", "execute.py", "site/build.py"]),
        ("lab", ["embvar_kit fetch", "jupyterlab", "01_variance_formula.ipynb"]),
        ("app", ["embvar_kit fetch", "voila", "--Voila.ip=127.0.0.1"]),
        ("course", ["course/versions.py", "course/homework.py release"]),
        ("slides", ["course/slides.py"]),
        ("site", ["site/build.py"]),
        ("check", ["embvar_kit fetch", "ruff check", "ruff format --check", '-m "not slow"']),
        (
            "test",
            ["embvar_kit fetch", "ruff check", "ruff format --check", "-m pytest", "--nbval "],
        ),
        ("test-browser", ["embvar_kit fetch", "-m pytest", "tests/browser"]),
        ("bench", ["embvar_kit fetch", "benchmarks/run.py", "benchmarks/in_browser.py"]),
        ("bench-peers", ["embvar_kit fetch", "benchmarks/peers.txt", "benchmarks/of_peers.py"]),
    ],
)
def test_target_sets_up_and_then_does_its_work(
    target: str, commands: list[str], tmp_path: Path
) -> None:
    done = call(make_checkout(tmp_path / "clone"), "make", "--dry-run", target)
    assert done.returncode == 0, done.stderr
    commands = [".ci/venv.sh", "--editable .", *commands]
    places = [done.stdout.find(command) for command in commands]
    assert -1 not in places and places == sorted(places), done.stdout


def test_clean_keeps_what_took_long_to_get() -> None:
    done = call(ROOT, "make", "--dry-run", "clean")
    removed = done.stdout.replace('"', "").split()
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
