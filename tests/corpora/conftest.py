"""What the tests of text share: a tokenizer of a kind that no tiny model has."""

from __future__ import annotations

import pytest


@pytest.fixture
def bertweet(tmp_path):
    """A tokenizer written in Python, whose pieces end in ``@@`` where the word goes on."""
    import transformers

    pieces = ["th@@", "e", "c@@", "at", "m@@", "the", "<", "s@@", "<@@", ">", "s>", "m", "@@"]
    vocabulary, merges = tmp_path / "vocab.txt", tmp_path / "bpe.codes"
    vocabulary.write_text("".join(f"{piece} 1\n" for piece in pieces))
    merges.write_text("#version: 0.2\nt h 1\na t</w> 1\n")
    return transformers.BertweetTokenizer(str(vocabulary), str(merges))
