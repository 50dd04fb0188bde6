"""What tests of figures share."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pytest


@pytest.fixture(autouse=True)
def close_figures():
    """Figures are closed after each test, which must leave the global style as it was."""
    style = dict(plt.rcParams)
    yield
    plt.close("all")
    assert dict(plt.rcParams) == style, "a figure function changed the global style"
