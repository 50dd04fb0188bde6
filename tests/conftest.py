"""What tests share: tiny models, made once a session, and settings of hypothesis."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

# The same examples on every run, and no deadline: a busy machine is no failure. To look for new
# examples: pytest --hypothesis-profile=default
settings.register_profile("kit", deadline=None, derandomize=True)
settings.load_profile("kit")


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
