"""What the twins read: the excerpt as one stream of tokens, and which of it a step sees.

Nothing here knows of a model. The stream is ``<|endoftext|>``, a sentence, ``<|endoftext|>``, the
next one ...; cut into pieces of equal length, and shuffled by seed and epoch alone, it is the same
for every twin and for a run that was interrupted.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from embvar_kit.corpora import Corpus
from embvar_kit.errors import TrainingError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

HELD_OUT = ("Aldous Huxley", "Animal Farm", "Aruba", "Astronaut", "Atlantic Ocean", "Abacus")
"""Articles of the excerpt that no twin is trained on: a writer, a book, a country, a profession,
an ocean and a tool."""

END = "<|endoftext|>"
"""Stands before and after every sentence."""


@dataclass(frozen=True)
class TwinText:
    """Text for training and text held out, as token ids.

    Attributes:
        tokenizer: byte-level BPE, trained on the text for training.
        train, held_out: ``(pieces, length)`` token ids; what is left at a stream's end is dropped.
        fingerprint: of the corpus.
    """

    tokenizer: Tokenizer
    train: np.ndarray
    held_out: np.ndarray
    fingerprint: str

    @classmethod
    def of(cls, corpus: Corpus, *, vocabulary: int, length: int) -> TwinText:
        """Hold articles out, train the tokenizer on the others, and cut both streams into pieces.

        Raises:
            TrainingError: if no sentence is held out, or a part is shorter than one piece.
        """
        parts: dict[bool, list[str]] = {False: [], True: []}
        for title, sentence in zip(corpus.titles, corpus.sentences, strict=True):
            parts[title in HELD_OUT].append(sentence)
        tokenizer = train_tokenizer(parts[False], vocabulary)
        pieces = {held: _pieces(tokenizer, part, length) for held, part in parts.items()}
        for held, found in pieces.items():
            if not len(found):
                what = f"The articles held out ({', '.join(HELD_OUT)})" if held else "The text"
                raise TrainingError(
                    f"{what} of corpus {corpus.name!r} give no {length} tokens in a row: take more "
                    "of it."
                )
        return cls(tokenizer, pieces[False], pieces[True], corpus.fingerprint)

    def batch(self, step: int, size: int, seed: int) -> np.ndarray:
        """``(size, length)``: what step ``step`` sees; each epoch is in an order of its own."""
        epochs, places = np.divmod(np.arange(step * size, (step + 1) * size), len(self.train))
        return self.train[
            [_order(seed, int(e), len(self.train))[p] for e, p in zip(epochs, places, strict=True)]
        ]

    def references(self) -> dict[str, float]:
        """Losses, in nats a token, of two who cannot read: what a model's loss is judged by.

        ``"uniform"``: all tokens equally likely, ``ln(vocabulary)``. ``"unigram"``: as likely as
        in the text for training (with one added to every count), asked for the text held out.
        """
        size = self.tokenizer.get_vocab_size()
        counts = np.bincount(self.train.ravel(), minlength=size) + 1
        surprise = np.log(counts.sum()) - np.log(counts)
        return {
            "uniform": float(np.log(size)),
            # A model is not asked for the first token of a piece.
            "unigram": float(surprise[self.held_out[:, 1:]].mean()),
        }


def train_tokenizer(sentences: Iterable[str], vocabulary: int) -> Tokenizer:
    """GPT-2's kind of tokenizer, byte-level BPE, with ``vocabulary`` entries; the first is END."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sentences, trainer)
    return tokenizer


def _pieces(tokenizer: Tokenizer, sentences: list[str], length: int) -> np.ndarray:
    stream = [tokenizer.token_to_id(END)]
    for encoded in tokenizer.encode_batch(sentences, add_special_tokens=False):
        stream += [*encoded.ids, stream[0]]
    return np.array(stream[: len(stream) // length * length], dtype=np.int64).reshape(-1, length)


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, n: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(n)
