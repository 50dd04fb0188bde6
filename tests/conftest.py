"""What tests share: tiny models, made once a session, and settings of hypothesis."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

# The same examples on every run, and no deadline: a busy machine is no failure. To look for new
# examples: pytest --hypothesis-profile=default
settings.register_profile("kit", deadline=None, derandomize=True)
settings.load_profile("kit")

# The user's own cache of models and datasets is neither read nor written. Set before anything
# imports the libraries that read it.
_HUB_HOME = tempfile.mkdtemp(prefix="embvar-tests-")
os.environ["HF_HOME"] = _HUB_HOME
for name in ("HF_HUB_CACHE", "HF_DATASETS_CACHE", "HF_ASSETS_CACHE", "HF_XET_CACHE"):
    os.environ.pop(name, None)


def pytest_unconfigure() -> None:
    shutil.rmtree(_HUB_HOME, ignore_errors=True)


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
def minilm():
    """The bundled encoder, loaded once; a test that changes it puts it back."""
    import embvar_kit as ek

    return ek.load_model("minilm", device="cpu")
