"""The token card: moments by layer, occurrences in context and in a plane."""

import html
import io
import re
import threading

import matplotlib.pyplot as plt
import numpy as np
import pytest
from explored import find, picture, tradeoff_of_high_norm, tradeoff_of_tokens
from PIL import Image

import embvar_kit as ek
from embvar_kit.extraction.embeddings import Occurrences
from embvar_kit.figures.token import moments_of_token, occurrences_in_plane


def test_a_card_without_a_model_says_what_it_needs(explorer):
    explorer.state.search = "the"
    assert explorer.wait()
    assert "model=…, corpus=…" in find(explorer, "embvar-card-contexts").value
    picture(find(explorer, "embvar-card-profile"))


def check_dots(explorer, listed: str) -> None:
    """Check that each dot of the card tells its sentence, and each line listed names its dot."""
    areas = explorer.card._sentences.areas
    image = Image.open(io.BytesIO(picture(find(explorer, "embvar-card-plane")))).convert("RGB")
    pixels = np.asarray(image)
    for left, upper, right, lower, text in areas:
        x, y = (left + right) / 2 * image.width, (upper + lower) / 2 * image.height
        around = pixels[int(y) - 2 : int(y) + 3, int(x) - 2 : int(x) + 3]
        assert around.min() < 200, "a dot is darker than the background"
        assert "[state]" in text.lower()
    lines = re.findall(r"data-area='(\d+)'.*?<span>(.*?)</span>", listed)
    assert 3 < len(lines) <= len(areas)
    for at, before in lines:
        assert areas[int(at)][4].startswith(f"{before}[")


@pytest.mark.slow
def test_a_card_shows_moments_contexts_and_occurrences(stats, model, corpus):
    explorer = ek.TradeoffExplorer(stats, model, corpus, counts=(5, None), layer=2)
    assert "click a point" in find(explorer, "embvar-card-head").value
    explorer.state.search = "state"
    assert explorer.wait()
    row = stats.table(2).set_index("token").loc["state"]
    head = find(explorer, "embvar-card-head").value
    head = head.replace("&nbsp;", " ")
    assert f"n<sub>t</sub> = {row['n']:,.0f}" in head and f"V = {row['V']:.4g}" in head
    text = html.unescape(find(explorer, "embvar-card-contexts").value)
    assert f"{row['n']:,.0f} occurrences in wikipedia;" in text
    assert "<b>state</b>" in text and "https://en.wikipedia.org/wiki/" in text
    profile = picture(find(explorer, "embvar-card-profile"))
    plane = picture(find(explorer, "embvar-card-plane"))
    check_dots(explorer, text)
    find(explorer, "embvar-card-side").value = "before"
    assert explorer.wait() and picture(find(explorer, "embvar-card-plane")) != plane
    passes = explorer.card.samples.computed
    explorer.state.layer = 4  # one pass gives all layers
    assert explorer.wait() and explorer.card.samples.computed == passes == 1
    assert picture(find(explorer, "embvar-card-profile")) != profile
    explorer.state.search = "the"
    assert explorer.wait() and explorer.card.samples.computed == 2
    explorer.state.token = "state"
    assert explorer.wait() and explorer.card.samples.computed == 2


def test_a_card_can_be_cancelled_and_looked_for_again(stats, model, corpus, monkeypatch):
    explorer = ek.TradeoffExplorer(stats, model, corpus, counts=(5, None), layer=2)
    card, loading, go_on = explorer.card, threading.Event(), threading.Event()
    load = card._load_concordance

    def slowly(one):
        loading.set()
        assert go_on.wait(20)
        return load(one)

    monkeypatch.setattr(card, "_load_concordance", slowly)
    waiting, button = find(explorer, "embvar-card-waiting"), find(explorer, "embvar-card-cancel")
    assert waiting.layout.display == "none"
    parts = list(card.view.children)
    assert parts.index(waiting) == 1 and parts[0] is find(explorer, "embvar-card-head")
    explorer.state.search = "state"
    assert loading.wait(20)
    assert waiting.layout.display is None and button.description == "cancel"
    for part in ("profile", "plane"):  # no broken image: a blank of the final size
        image = find(explorer, f"embvar-card-{part}")
        assert Image.open(io.BytesIO(picture(image))).width > 500
    button.click()
    assert button.description == "look again"
    go_on.set()
    assert explorer.wait()
    assert find(explorer, "embvar-card-contexts").value == "" and waiting.layout.display is None
    button.click()
    assert explorer.wait()
    assert "<b>state</b>" in find(explorer, "embvar-card-contexts").value
    assert waiting.layout.display == "none"
    plane = find(explorer, "embvar-card-plane")
    assert "embvar-waiting" not in plane._dom_classes


def test_pictures_name_a_byte_level_token_with_its_text():
    tokens = ["Ġthe", "Ã©", "b", "c"]
    stats = tradeoff_of_tokens(tokens, byte_level={"verbatim": []})
    x = np.random.default_rng(0).normal(size=(1, 5, 8))
    found = Occurrences("Ġthe", np.array([0]), x, *np.zeros((2, 5), int))
    plane = occurrences_in_plane(found, [None] * 5, layer=0, name="Ġthe (' the')")
    assert plane.get_title() == "5 occurrences of Ġthe (' the'), layer 0"
    assert moments_of_token(stats, "Ã©").get_title().startswith("Ã© (é) in ")
    plt.close("all")
    explorer = ek.TradeoffExplorer(stats, counts=(2, None))
    explorer.state.marked = tokens[:2]
    labels = {text.get_text() for text in explorer.figure().axes[0].texts}
    assert {"Ġthe (' the')", "Ã© (é)"} <= labels


def test_a_card_of_a_rare_token_shows_its_sentences_without_a_plane(stats, model, corpus):
    rare = str(stats.tokens[stats.n == 1][0])
    explorer = ek.TradeoffExplorer(stats, model=model, corpus=corpus, counts=(1, None))
    explorer.state.token = rare
    assert explorer.card.wait()
    contexts = find(explorer, "embvar-card-contexts").value
    assert "<table" in contexts and "at least three" in contexts


def test_a_card_loads_the_model_and_the_text_by_name(stats):
    explorer = ek.TradeoffExplorer(stats, recall=True, counts=(5, None))
    explorer.state.search = "state"
    assert explorer.wait(300)
    assert "<b>state</b>" in find(explorer, "embvar-card-contexts").value
    picture(find(explorer, "embvar-card-plane"))


def test_a_card_says_why_it_cannot_load_them(model):
    text = ek.Corpus.of(["A cat sat.", "A dog ran."] * 4, name="pets")
    stats = ek.extract(model, text, progress=False)
    explorer = ek.TradeoffExplorer(stats, recall=True, counts=(2, None))
    explorer.state.search = "cat"
    assert explorer.wait(300)
    assert "'pets' again" in html.unescape(find(explorer, "embvar-card-contexts").value)


def test_text_from_a_corpus_is_escaped(model):
    sentences = [f"The <b>bold</b> & the {word} <script> ran." for word in ("old", "new", "red")]
    corpus = ek.Corpus.of(sentences * 3, name="<i>odd</i>")
    stats = ek.extract(model, corpus, progress=False)
    explorer = ek.TradeoffExplorer(stats, model, corpus, counts=(1, None))
    for token in ("<", "script", "[CLS]", "[SEP]"):
        explorer.state.token = token
        assert explorer.wait()
        shown = find(explorer, "embvar-card-contexts").value
        assert "<script>" not in shown and "<i>odd</i>" not in shown
        assert f"<b>{html.escape(token)}</b>" in shown


def test_a_model_or_text_that_does_not_fit_is_rejected(stats, model, corpus):
    with pytest.raises(ek.StatisticsError, match="give both"):
        ek.TradeoffExplorer(stats, model)
    with pytest.raises(ek.StatisticsError, match="not of the model"):
        ek.TradeoffExplorer(tradeoff_of_high_norm(), model, corpus)
