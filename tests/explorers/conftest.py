"""What the tests of the explorers share: the bundled encoder and its statistics."""

import matplotlib.pyplot as plt
import pytest

import embvar_kit as ek


@pytest.fixture(scope="module")
def model(minilm):
    return minilm


@pytest.fixture(scope="module")
def stats(sites):
    return sites["hidden"]


@pytest.fixture(autouse=True)
def no_pyplot_figures():
    """Explorers draw without pyplot: a figure left there would be shown by the next cell."""
    plt.close("all")  # what other tests of this process have left
    yield
    assert not plt.get_fignums()


@pytest.fixture
def explorer(stats):
    return ek.TradeoffExplorer(stats, counts=(5, None), layer=2)
