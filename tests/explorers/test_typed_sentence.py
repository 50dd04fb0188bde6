"""A typed sentence: its numbers are the model's own, and its mark is on the sample's axes."""

import html
import io
import threading

import numpy as np
import pytest
import torch
from explored import find, picture, without_tags
from PIL import Image

import embvar_kit as ek
from embvar_kit.explorers.concordance import Concordance
from embvar_kit.explorers.tables import number
from embvar_kit.explorers.typed_sentence import SentenceBox, distances
from embvar_kit.extraction import embeddings
from embvar_kit.statistics import analysis

SENTENCE = "The state of the art, and the State of Texas."


@pytest.fixture
def explorer(stats, model, corpus):
    """The trade-off explorer with the card of a token open."""
    made = ek.TradeoffExplorer(stats, model, corpus, counts=(2, None), layer=3)
    made.state.token = "state"
    return made


def type_in(explorer, sentence: str) -> str:
    """Type a sentence into the card; return what is told of it, once it is."""
    explorer.card.sentence.text.value = sentence
    assert explorer.wait()
    return told_by(explorer)


def told_by(explorer) -> str:
    """What is told of the typed sentence, as text with a blank between cells."""
    told = find(explorer, "embvar-sentence-told").value
    for tag in ("<table", "</t", "</p"):
        told = told.replace(tag, f" {tag}")
    return " ".join(without_tags(told).split())


def by_hand(model, sentence: str, position: int, layer: int) -> np.ndarray:
    """The hidden state at a position of a sentence, from transformers without the kit."""
    encoded = model.tokenizer(sentence, return_tensors="pt")
    with torch.inference_mode():
        states = model.module(**encoded, output_hidden_states=True).hidden_states
    return states[layer][0, position].double().numpy()


# Numbers


@pytest.mark.parametrize("layer", [0, 3, 6])
def test_the_numbers_are_those_of_the_model_and_the_mean(explorer, stats, model, layer):
    explorer.state.layer = layer
    told = type_in(explorer, SENTENCE)
    tokens = model.tokenizer(SENTENCE).tokens()
    places = [at for at, token in enumerate(tokens) if token == "state"]
    assert len(places) == 2
    x = np.stack([by_hand(model, SENTENCE, at, layer) for at in places])
    at = stats.tokens.tolist().index("state")
    row = stats.layers.tolist().index(layer)
    insertion = explorer.card.sentence.insertion
    assert insertion.tokens.tolist() == tokens
    found = distances(stats, "state", layer, insertion)
    np.testing.assert_allclose(found.norm, (x**2).sum(axis=1), rtol=1e-4)
    away = ((x - stats.mean[row, at]) ** 2).sum(axis=1)
    np.testing.assert_allclose(found.from_mean, away, rtol=1e-3)
    for value in (*found.norm, *found.from_mean):
        assert f" {number(value)} " in told
    assert f"Q = {number(stats.Q[row, at])} V = {number(stats.V[row, at])}" in told
    assert f"mean of all {stats.n[at]:,} in the corpus" in told


def test_over_the_sentences_of_the_corpus_the_means_are_Q_and_V(stats, model, corpus):
    concordance = Concordance(model, corpus)
    at = stats.tokens.tolist().index("state")
    holding = np.unique(concordance.find("state", most=10**6).sentence)
    inserted = [concordance.insert(corpus[int(one)], "state") for one in holding]
    for row, layer in enumerate(stats.layers):
        found = [distances(stats, "state", layer, one) for one in inserted]
        norm, away = (np.concatenate(both) for both in zip(*found, strict=True))
        assert len(norm) == stats.n[at]
        assert norm.mean() == pytest.approx(stats.Q[row, at], rel=1e-4)
        assert away.mean() == pytest.approx(stats.V[row, at], rel=1e-3)


def test_words_are_read_as_the_statistics_read_them(model, corpus):
    stats = ek.extract(model, corpus, by="word", progress=False)
    word = next(
        str(one)
        for one, parts in zip(stats.tokens, stats.subwords, strict=True)
        if parts == 3 and str(one).isascii()
    )
    explorer = ek.TradeoffExplorer(stats, model, corpus, counts=(1, None), layer=2)
    explorer.state.token = word
    sentence = f"A {word.title()}, at 10:30!"
    told = type_in(explorer, sentence)
    assert f"A {word.title()}, at 10:30!" in told
    insertion = explorer.card.sentence.insertion
    assert insertion.tokens.tolist() == [word, "at"]
    pieces = model.tokenizer(sentence).word_ids()
    own = [at for at, which in enumerate(pieces) if which == 1]
    assert len(own) == 3
    x = np.mean([by_hand(model, sentence, at, 2) for at in own], axis=0)
    found = distances(stats, word, 2, insertion)
    assert found.norm == pytest.approx([x @ x], rel=1e-4)
    assert type_in(explorer, "3 4 5") == (
        "minilm finds no word in this text: type another sentence."
    )


def test_control_tokens_are_read_as_in_the_corpus(model):
    text = ek.Corpus.of(["A state [SEP] of mind.", "No state.", "One state."])
    read = {"read": True, "as text": False}
    tokens = {}
    for name, parse_special in read.items():
        stats = ek.extract(model, text, parse_special=parse_special, progress=False)
        explorer = ek.TradeoffExplorer(stats, model, text, counts=(1, None))
        explorer.state.token = "state"
        type_in(explorer, "state [SEP] x")
        tokens[name] = explorer.card.sentence.insertion.tokens.tolist()
        only = type_in(explorer, "[SEP]")
        if parse_special:
            assert "reads only special tokens in this text: [SEP], [CLS]." in only
        else:
            assert "The model reads: [CLS], [, sep, ], [SEP]." in only
    assert tokens["read"] == ["[CLS]", "state", "[SEP]", "x", "[SEP]"]
    assert tokens["as text"] == ["[CLS]", "state", "[", "sep", "]", "x", "[SEP]"]


def test_compact_statistics_say_that_the_distance_is_not_known(stats, model, corpus):
    explorer = ek.TradeoffExplorer(stats.compact(min_count=2), model, corpus, counts=(2, None))
    explorer.state.token, explorer.state.layer = "state", 3
    told = type_in(explorer, SENTENCE)
    found = distances(explorer.state.stats, "state", 3, explorer.card.sentence.insertion)
    assert found.from_mean is None
    for norm in found.norm:
        assert f"{number(norm)} not known" in told
    assert "do not hold the token's mean, so the distance from it is not known" in told
    assert "V = " in told


def test_a_corrected_V_in_the_head_is_told_apart(explorer, stats):
    type_in(explorer, SENTENCE)
    explorer.state.unbiased = True
    at, n = stats.tokens.tolist().index("state"), 29
    V = stats.V[3, at]
    assert stats.n[at] == n
    head = find(explorer, "embvar-card-head").value.replace("&nbsp;", " ")
    assert f"V = {V * n / (n - 1):.4g}" in head
    told = told_by(explorer)
    assert f"V = {V:.4g}" in told and "V here is not corrected" in told
    explorer.state.unbiased = False
    assert "not corrected" not in told_by(explorer)


# The plane


def test_the_mark_is_on_the_axes_of_the_sample(explorer, model):
    assert explorer.wait()
    card, layer = explorer.card, 3
    before = np.array([area[:4] for area in card._sentences.areas])
    type_in(explorer, SENTENCE)
    sample = card.samples[id(explorer.state.stats), "state"].occurrences.at(layer)
    areas = card._sentences.areas
    assert len(areas) == len(sample) + 2 == len(before) + 2
    centre, axes, _ = analysis.principal_axes(sample)
    middle = np.array([[(a[0] + a[2]) / 2, (a[1] + a[3]) / 2] for a in areas])
    flat = (sample - centre) @ axes.T
    # The picture is an affine map of the plane: that of the sample must place the marks, too.
    to_picture = np.linalg.lstsq(np.c_[flat, np.ones(len(flat))], middle[: len(flat)], rcond=None)
    assert to_picture[1].max() < 1e-8, "the sample is on its own axes"
    places = [at for at, token in enumerate(model.tokenizer(SENTENCE).tokens()) if token == "state"]
    x = np.stack([by_hand(model, SENTENCE, at, layer) for at in places])
    marks = np.c_[(x - centre) @ axes.T, np.ones(2)] @ to_picture[0]
    np.testing.assert_allclose(middle[len(flat) :], marks, atol=2e-3)
    image = Image.open(io.BytesIO(picture(find(explorer, "embvar-card-plane")))).convert("L")
    for x, y in marks:
        assert image.getpixel((int(x * image.width), int(y * image.height))) < 40, "a black cross"
    assert [area[4] for area in areas[-2:]] == [
        "your sentence: The [state] of the art, and the State of Texas.",
        "your sentence: The state of the art, and the [State] of Texas.",
    ]


def test_one_run_serves_all_layers_and_no_mark_stays_of_another_token_or_sentence(explorer):
    type_in(explorer, SENTENCE)
    card = explorer.card
    sampled = len(card.samples[id(explorer.state.stats), "state"].occurrences)
    assert card.sentence.runs.computed == 1
    told = told_by(explorer)
    explorer.state.layer = 5
    assert explorer.wait() and card.sentence.runs.computed == 1
    assert told_by(explorer).startswith("Layer 5 ") and told.startswith("Layer 3 ")
    assert len(card._sentences.areas) == sampled + 2
    plane = explorer._frame.pictures["embvar-card-plane"]
    assert plane.endswith("layer 5. Crosses mark those in your sentence: 2.")
    explorer.state.token = "of"
    assert explorer.wait() and card.sentence.runs.computed == 2
    assert [area[4] for area in card._sentences.areas if "your" in area[4]] == [
        "your sentence: The state [of] the art, and the State of Texas.",
        "your sentence: The state of the art, and the State [of] Texas.",
    ]
    type_in(explorer, "A river bank.")
    assert not any("your sentence" in area[4] for area in card._sentences.areas)
    assert "Crosses" not in explorer._frame.pictures["embvar-card-plane"]
    explorer.state.token = "state"
    assert explorer.wait()
    assert len(card._sentences.areas) == sampled
    type_in(explorer, SENTENCE)
    assert len(card._sentences.areas) == sampled + 2
    type_in(explorer, "")
    assert len(card._sentences.areas) == sampled


def test_a_rare_token_has_numbers_without_a_plane(stats, model, corpus):
    rare, sentence = next(
        (token, sentence)
        for token in map(str, stats.tokens[stats.n == 1])
        for sentence in corpus
        if token.isalpha() and f" {token} " in sentence.lower()
    )
    explorer = ek.TradeoffExplorer(stats, model, corpus, counts=(1, None))
    explorer.state.token = rare
    told = type_in(explorer, sentence)
    (away,) = distances(
        stats, rare, explorer.state.layer, explorer.card.sentence.insertion
    ).from_mean
    assert away < 1e-3 and "mean of all 1 in the corpus" in told and "V = 0" in told


# What cannot be read


@pytest.mark.parametrize(
    ("sentence", "told"),
    [
        ("", "Type a sentence: there is no text yet."),
        ("  \n ", "Type a sentence: there is no text yet."),
        ("\u200b", "minilm finds no token in this text: type another sentence."),
        (
            "☃ ☃",
            "minilm reads only special tokens in this text: [UNK], [CLS], [SEP]. "
            "Type another sentence.",
        ),
        (
            "state " * 600,
            "Your sentence has 600 tokens, and minilm is run on 510 at most here: shorten it.",
        ),
        (
            "A <river> bank.",
            "state does not occur in your sentence. The model reads: "
            "[CLS], a, <, river, >, bank, ., [SEP].",
        ),
        ("half a pair \ud83d state", "A sentence is not valid Unicode text (your sentence, "),
    ],
)
def test_a_text_that_tells_nothing_says_why(explorer, sentence, told):
    type_in(explorer, SENTENCE)
    explorer.card.sentence.text.value = sentence
    explorer.card.sentence.request()  # Enter and a button ask for the same
    assert explorer.wait()
    assert told_by(explorer).startswith(told)
    assert explorer.card.sentence.insertion is None
    assert "<river>" not in find(explorer, "embvar-sentence-told").value
    assert "<b>state</b>" in html.unescape(find(explorer, "embvar-card-contexts").value)


def test_without_a_sentence_the_model_is_not_loaded(stats, model, corpus):
    loads = []

    def load(one):
        loads.append(one)
        return Concordance(model, corpus)

    box = SentenceBox(load, lambda: None)
    box.show(stats, "state", 2)
    *_, told = box.view.children
    for text in ("", " \n"):
        box.text.value = text
        box.request()
        assert box.wait() and loads == []
        assert without_tags(told.value) == "Type a sentence: there is no text yet."
    box.text.value = SENTENCE
    assert box.wait() and len(loads) == 1 and "squared norm" in told.value


def test_long_lists_end(explorer):
    told = type_in(explorer, "the cat sat on a mat " * 20)
    assert told.endswith(" and 62 more.")
    assert told_by(explorer).count("cat") == 10
    told = type_in(explorer, "state " * 30)
    assert "and 18 more in your sentence" in told


def test_text_from_right_to_left_is_read(explorer, model):
    told = type_in(explorer, "السلام state عليكم")
    assert "السلام state عليكم" in told
    assert explorer.card.sentence.insertion.parts == [("السلام ", "state", " عليكم")]


def test_it_is_there_only_with_a_model_and_hidden_states(sites, stats, model, corpus):
    bare = ek.TradeoffExplorer(stats, counts=(5, None))
    for state in ({}, {"token": "state"}):
        for name, value in state.items():
            setattr(bare.state, name, value)
        assert bare.card.sentence.view.layout.display == "none"
    explorer = ek.TradeoffExplorer(sites, model, corpus, counts=(5, None))
    view = explorer.card.sentence.view
    assert view.layout.display == "none"
    explorer.state.token = "state"
    type_in(explorer, SENTENCE)
    assert view.layout.display is None
    explorer.state.site = "unit"
    assert explorer.wait() and view.layout.display == "none"
    assert explorer.card.sentence.insertion is None
    explorer.state.site = "hidden"
    assert explorer.wait() and view.layout.display is None
    assert told_by(explorer).startswith("Layer ")


# Waiting


def test_a_run_can_be_cancelled_and_begun_again(explorer, monkeypatch):
    assert explorer.wait()
    running, go_on = threading.Event(), threading.Event()
    load = explorer.card._load_concordance

    def slowly(one):
        running.set()
        assert go_on.wait(20)
        return load(one)

    monkeypatch.setattr(explorer.card.sentence, "_concordance", slowly)
    waiting, button = (find(explorer, f"embvar-sentence-{one}") for one in ("waiting", "cancel"))
    assert waiting.layout.display == "none"
    explorer.card.sentence.text.value = SENTENCE
    assert running.wait(20) and waiting.layout.display is None
    assert "Loading the model" in find(explorer, "embvar-sentence-progress").value
    button.click()
    assert button.description == "look again"
    go_on.set()
    assert explorer.wait()
    assert (told_by(explorer), explorer.card.sentence.insertion) == ("", None)
    button.click()
    assert explorer.wait()
    assert told_by(explorer).startswith("Layer 3 ") and waiting.layout.display == "none"


def test_a_sample_and_a_sentence_load_the_model_once(stats, monkeypatch):
    loads = []
    load = embeddings.load_again

    def counted(one):
        loads.append(one)
        return load(one)

    monkeypatch.setattr(embeddings, "load_again", counted)
    explorer = ek.TradeoffExplorer(stats, recall=True, counts=(5, None), layer=3)
    explorer.card.sentence.text.value = SENTENCE
    explorer.state.token = "state"
    assert explorer.wait(300)
    assert len(loads) == 1
    assert told_by(explorer).startswith("Layer 3 ")
    assert any("your sentence" in area[4] for area in explorer.card._sentences.areas)
