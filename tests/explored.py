"""What tests of explorers look for in them, and made-up statistics to show."""

import html
import re

import ipywidgets as widgets
import numpy as np

import embvar_kit as ek


def find(explorer, css):
    """The explorer's only widget with this CSS class."""
    found = []

    def walk(widget):
        if css in getattr(widget, "_dom_classes", ()):
            found.append(widget)
        for child in getattr(widget, "children", ()):
            walk(child)

    walk(explorer.view)
    assert len(found) == 1, f"{len(found)} widgets of class {css}"
    return found[0]


def without_tags(text: str) -> str:
    return html.unescape(re.sub("<[^>]*>", "", text))


def controls(explorer) -> list[widgets.Widget]:
    found = []

    def walk(widget):
        if hasattr(widget, "value") and not isinstance(widget, (widgets.HTML, widgets.Image)):
            found.append(widget)
        for child in getattr(widget, "children", ()):
            walk(child)

    walk(explorer.view)
    return found


def picture(widget) -> bytes:
    data = bytes(widget.value)
    assert data.startswith(b"\x89PNG")
    return data


def drawn_on(explorer):
    """The Axes and artists of a blitted explorer's picture."""
    return explorer._stage(explorer._form())


def answer_of(downloads, button):
    """What a button sends to the browser: the message, and its buffers."""
    sent = []
    downloads.send = lambda content, buffers=None: sent.append((content, buffers))
    downloads._handle_custom_msg({"wanted": button, "view": "a"}, [])
    ((message, buffers),) = sent
    assert message["view"] == "a"
    return message, buffers


def tradeoff_of_high_norm():
    """Statistics with one token whose squared norm is about a thousand times the others'."""
    return tradeoff_of_tokens([f"t{i}" for i in range(20)], high=3)


def tradeoff_of_tokens(tokens, high=None, same=False, **about):
    """Statistics of tokens with these names, each of which occurs twenty times.

    Args:
        tokens: their names.
        high: the index of one whose squared norm is about a thousand times the others'.
        same: whether all vectors are the same.
        about: what else is known of them.
    """
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20 * len(tokens), 8)).astype(np.float32)
    groups = np.repeat(np.arange(len(tokens)), 20)
    x[groups == high] *= 40
    x = np.ones_like(x) if same else x
    m = ek.GroupedMoments(len(tokens), 8)
    m.update(x, groups)
    info = {"model": {"name": "made up", "n_states": 1}, "corpora": [{"name": "none"}]}
    info |= about
    return ek.TokenStatistics.from_moments(
        [m],
        tokens=np.array(tokens, dtype=object),
        special=np.zeros(len(tokens), dtype=bool),
        layers=[0],
        mean=m.mean[None],
        extra=np.zeros((1, len(tokens), 8), dtype=np.int8),
        info=info,
    )


def statistics_of(tokens, n=20, seed=0, special=(), layers=(0, 1, 2), **about):
    """Statistics of tokens with these names; each occurs ``n`` times, or a number of its own."""
    rng = np.random.default_rng(seed)
    counts = np.broadcast_to(n, len(tokens))
    moments = []
    for _ in layers:
        m = ek.GroupedMoments(len(tokens), 8)
        groups = np.repeat(np.arange(len(tokens)), counts)
        centres = rng.normal(size=(len(tokens), 8))
        x = centres[groups] + rng.normal(size=(len(groups), 8))
        m.update(x.astype(np.float32), groups)
        moments.append(m)
    info = {"model": {"name": f"made {seed}", "n_states": len(layers)}, "corpora": []}
    shape = len(layers), len(tokens), 8
    return ek.TokenStatistics.from_moments(
        moments,
        tokens=np.array(tokens, dtype=object),
        special=np.isin(tokens, special),
        layers=list(layers),
        mean=np.stack([m.mean for m in moments]),
        extra=np.zeros(shape, dtype=np.int8),
        info=info | about,
    )
