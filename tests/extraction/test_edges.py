"""The smallest inputs give a defined result, or an error that says what to do."""

import shutil

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import embvar_kit as ek

SENTENCES = ["the cat sat on the mat", "the dog sat on the cat", "a dog and a cat and the mat"]


@pytest.fixture(scope="module")
def stats(minilm):
    sites = ["hidden", "unit"]
    return ek.extract(minilm, ek.Corpus.of(SENTENCES), site=sites, layers=[6], progress=False)


def test_no_token_above_the_count_limit(stats):
    hidden, unit = stats["hidden"], stats["unit"]
    assert hidden.n.max() < 10
    assert hidden.table(6, min_count=10).empty and hidden.high_norm().empty
    with pytest.raises(ek.StatisticsError, match="lower min_count"):
        hidden.tradeoff()
    with pytest.raises(ek.StatisticsError, match="lower min_count"):
        hidden.decomposition()
    with pytest.raises(ek.StatisticsError, match="min_count=10 leaves 0"):
        unit.anisotropy()
    for draw in (
        ek.figures.V_on_M,
        ek.figures.tradeoff_by_layer,
        ek.figures.shares_by_layer,
        ek.figures.moments_on_frequency,
    ):
        with pytest.raises(ek.StatisticsError, match="min_count"):
            draw(hidden)
    compact = hidden.compact(min_count=1)
    assert set(compact.decompositions["min_count"]) == {1, 2}


def test_one_layer(stats):
    hidden = stats["hidden"]
    choice = {"min_count": 2, "max_count": None}
    assert len(hidden.tradeoff(**choice)) == len(hidden.decomposition(**choice)) == 1
    figure = ek.figures.tradeoff_by_layer(hidden, min_count=2)
    assert all(len(ax.lines[0].get_xdata()) == 1 for ax in figure.axes[:3])


def test_one_token(stats):
    hidden = stats["hidden"]
    one = hidden.without(set(hidden.tokens) - {"the"})
    assert one.tokens.tolist() == ["the"]
    split = one.decomposition(min_count=1).iloc[0]
    assert split.V_B == pytest.approx(0, abs=1e-9 * split.Q)
    assert (split.Q, split.M, split.V_W) == pytest.approx(
        (one.Q[0, 0], one.M[0, 0], one.V[0, 0]), rel=1e-6
    )
    with pytest.raises(ek.StatisticsError, match="regression over 1 token says"):
        one.tradeoff(min_count=1)
    nothing = hidden.without(hidden.tokens)
    assert len(nothing) == 0 and nothing.table(6).empty
    with pytest.raises(ek.StatisticsError, match="No token is left"):
        nothing.decomposition(min_count=1)


@pytest.fixture(scope="module")
def tied(tiny, tmp_path_factory):
    """A decoder whose output weights are its embeddings, with a tokenizer of plain words."""
    folder = tmp_path_factory.mktemp("tied") / "words"
    shutil.copytree(tiny("gpt2"), folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (folder / name).unlink(missing_ok=True)
    words = sorted({word for sentence in SENTENCES for word in sentence.split()})
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, **{w: i + 1 for i, w in enumerate(words)}}))
    tokenizer.model.unk_token = "[UNK]"
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]").save_pretrained(folder)
    return folder


def test_tied_embeddings_and_no_markers(tied):
    model = ek.load_model(tied, device="cpu")
    assert model.module.config.tie_word_embeddings
    assert ek.tokens.markers_of(model.tokenizer) == ()
    assert (model.begin, model.end) == ((), ())
    by = {
        kind: ek.extract(model, ek.Corpus.of(SENTENCES), by=kind, progress=False)
        for kind in ("token", "id", "word")
    }
    counted = {word: sum(s.split().count(word) for s in SENTENCES) for word in by["id"].tokens}
    assert dict(zip(by["id"].tokens, by["id"].n, strict=True)) == counted
    np.testing.assert_array_equal(by["token"].V, by["id"].V)
    assert set(by["word"].tokens) == {word for word in counted if len(word) > 1}
    assert not ek.tokens.group_vocabulary(model.tokenizer).shared.size


def test_threads_without_shards_are_refused(model):
    with pytest.raises(ek.ExtractionError, match=r"threads=1 .* shards= and store=, too"):
        ek.extract(model, ["A bank."], threads=1, progress=False)
