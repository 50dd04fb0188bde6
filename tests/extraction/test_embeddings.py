"""Collected embeddings are the ones that statistics are computed from."""

import numpy as np
import pytest
from brute_force import two_pass

import embvar_kit as ek


def test_every_occurrence_is_there_with_its_place(minilm, few):
    found = ek.collect_embeddings(minilm, few, ["the", "[SEP]"], layers=[1, 6])
    stats = ek.extract(minilm, few, layers=[1, 6], progress=False)
    for token, occurrences in found.items():
        assert occurrences.layers.tolist() == [1, 6]
        row = stats.table(6).set_index("token").loc[token]
        assert len(occurrences) == row.n
        assert (row.Q, row.M, row.V) == pytest.approx(two_pass(occurrences.at(6)), rel=1e-4)
    the = found["the"]
    for sentence, position in zip(the.sentence, the.position, strict=True):
        ids = minilm.tokenizer(few[int(sentence)])["input_ids"]
        assert minilm.tokenizer.convert_ids_to_tokens(ids[position]).removeprefix("##") == "the"
    places = list(zip(the.sentence.tolist(), the.position.tolist(), strict=True))
    assert places == sorted(places)


def test_one_token_may_be_given_as_a_string(minilm, few):
    assert set(ek.collect_embeddings(minilm, few, "the", layers=[0])) == {"the"}


def test_what_is_not_there_is_named(minilm, few):
    with pytest.raises(ek.ExtractionError, match="'wikipedia' does not contain 'xyzzy'"):
        ek.collect_embeddings(minilm, few, ["the", "xyzzy"])
    the = ek.collect_embeddings(minilm, few, ["the"], layers=[0])["the"]
    with pytest.raises(ek.ExtractionError, match="Layer 3 was not collected; there are 0"):
        the.at(3)
    assert np.isfinite(the.x).all()
