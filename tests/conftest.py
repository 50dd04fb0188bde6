"""What the tests share: models and a corpus loaded once, and settings of hypothesis and xdist."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from effort import LONG, TRIED
from hypothesis import settings

# The same examples on every run, and no deadline, since a busy machine is no failure. The long
# form looks for new examples, and for more of them.
settings.register_profile("kit", deadline=None, derandomize=True)
settings.register_profile("long", deadline=None, max_examples=1000)
settings.load_profile("long" if LONG else "kit")

# The user's own cache of models and datasets is neither read nor written. Set before anything
# imports the libraries that read it.
_HUB_HOME = tempfile.mkdtemp(prefix="embvar-tests-")
os.environ["HF_HOME"] = _HUB_HOME
for name in ("HF_HUB_CACHE", "HF_DATASETS_CACHE", "HF_ASSETS_CACHE", "HF_XET_CACHE"):
    os.environ.pop(name, None)


# A shell makes what it starts in the background ignore the stop button, which tests press.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Workers of pytest-xdist share the cores: threads that wait for one another are slower than one.
# Numba and PyTorch have the same number: Numba sets PyTorch's in the thread that it is called from,
# and sums would be rounded differently in another. Set before either is imported, and inherited by
# the processes that tests start.
if WORKERS := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 0)):
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // WORKERS)))
if "OMP_NUM_THREADS" in os.environ:
    os.environ.setdefault("NUMBA_NUM_THREADS", os.environ["OMP_NUM_THREADS"])

# Without a GPU, Triton's interpreter runs the fused kernel. Triton reads this when it is imported,
# which transformers does.
if not any(Path("/dev", name).exists() for name in ("nvidia0", "kfd", "dxg")):
    os.environ.setdefault("TRITON_INTERPRET", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Workers begin with the files that have slow tests, so that none is left alone with one."""
    if WORKERS:
        items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """``--dist=loadfile`` runs all tests with smollm2 in their name on one worker, which loads it.

    The name decides because pytest 9.2 does not let xdist 3.8 read the marker xdist_group.
    """
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            name = nodeid.rpartition("::")[2]
            return "smollm2" if "smollm2" in name else super()._split_scope(nodeid)

    return Scheduling(config, log)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if WORKERS:
        session.config.workeroutput["tried"] = dict(TRIED)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: object) -> None:
    """Add what a worker tried; a worker that crashed has no output."""
    TRIED.update(getattr(node, "workeroutput", {}).get("tried", {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if TRIED:
        terminalreporter.section("faults and inputs survived")
        for kind, number in sorted(TRIED.items()):
            terminalreporter.line(f"{number:>8,}  {kind}")


def pytest_unconfigure() -> None:
    shutil.rmtree(_HUB_HOME, ignore_errors=True)


# Session fixtures are imported and made where the first test asks for them. A test that changes
# one puts it back.


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """``tiny("bert")``: the folder of that family's tiny model. Copy it before changing it."""
    import tiny_models  # takes seconds: it imports transformers

    built: dict[str, Path] = {}

    def folder(family: str) -> Path:
        if family not in built:
            built[family] = tiny_models.build(family, tmp_path_factory.mktemp(f"tiny-{family}"))
        return built[family]

    return folder


@pytest.fixture(scope="session")
def loaded(tiny):
    """``loaded("bert")``: that family's tiny model, loaded by the kit once."""
    import embvar_kit as ek

    held: dict[str, ek.EmbeddingModel] = {}

    def load(family: str) -> ek.EmbeddingModel:
        if family not in held:
            held[family] = ek.load_model(tiny(family), device="cpu")
        return held[family]

    return load


@pytest.fixture(scope="session")
def model(loaded):
    """The tiny BERT."""
    return loaded("bert")


@pytest.fixture(scope="session")
def minilm():
    """The bundled encoder."""
    import embvar_kit as ek

    return ek.load_model("minilm", device="cpu")


@pytest.fixture(scope="session")
def smollm2():
    """The bundled decoder. It takes 16 s to load: have the names of its tests contain smollm2."""
    import embvar_kit as ek

    return ek.load_model("smollm2", device="cpu")


@pytest.fixture(scope="session")
def excerpt():
    """The whole bundled excerpt of Wikipedia, 19,881 sentences."""
    import embvar_kit as ek

    return ek.load_corpus("wikipedia")


@pytest.fixture(scope="session")
def corpus():
    """The first 300 sentences of the excerpt."""
    import embvar_kit as ek

    return ek.load_corpus("wikipedia", limit=300)


@pytest.fixture(scope="session")
def few():
    """The first 60 sentences of the excerpt."""
    import embvar_kit as ek

    return ek.load_corpus("wikipedia", limit=60)


@pytest.fixture(scope="session")
def sites(minilm, corpus):
    """``{"hidden": statistics, "unit": statistics}`` of the encoder over the 300 sentences."""
    import embvar_kit as ek

    return ek.extract(minilm, corpus, site=["hidden", "unit"], progress=False)


@pytest.fixture
def system(tmp_path):
    """``system(cgroup, files)``: the root of a file system with these control groups."""

    def make(cgroup: str, files: dict[str, int | str]) -> Path:
        (tmp_path / "proc/self").mkdir(parents=True)
        (tmp_path / "proc/self/cgroup").write_text(cgroup)
        for name, value in files.items():
            path = tmp_path / "sys/fs/cgroup" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{value}\n")
        return tmp_path

    return make
