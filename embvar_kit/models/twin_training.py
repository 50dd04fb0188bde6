"""Training the twins: the same seed, batches, steps and learning rate for every normalization.

The recipe is the usual one of a small GPT: AdamW, a linear warm-up and a cosine decay of the
learning rate, gradients clipped. It keeps no state but weights, moments and losses, since a step's
batch and learning rate follow from its number; a run that goes on from a checkpoint therefore ends
with the very bits of one that was never interrupted.
"""

from __future__ import annotations

import copy
import json
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import tokenizers
import torch
import transformers
from tqdm import tqdm

from embvar_kit.array_file import CheckpointFile, compare, write
from embvar_kit.corpora.corpus import Corpus, load_corpus
from embvar_kit.errors import TrainingError
from embvar_kit.files import home, locked, replacing
from embvar_kit.models.twin_model import TwinConfig, TwinForCausalLM
from embvar_kit.models.twins import RECORD, TWINS, twin_record, twins_home

if TYPE_CHECKING:
    from tokenizers import Tokenizer

THREADS = 2
"""A sum's rounding depends on how many threads share it, so their number is fixed, too."""

_MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class Settings:
    """What a training depends on; two that agree in it give the same twin.

    Attributes:
        steps: updates of the weights.
        seed: of the initial weights and of the order of the pieces.
        batch, length: pieces a step, and tokens a piece.
        learning_rate: the highest, which a linear warm-up leads to; then it falls as a cosine does.
        warmup: its share of the steps.
        weight_decay: of matrices; biases and norms have none.
        betas: of AdamW.
        clip: norm that a longer gradient is cut to.
        vocabulary, width, layers, heads, feed_forward: sizes of the model.
        record_every: steps between two rows of the curve.
        ask_every: steps between two looks at the text held out, and between two checkpoints.
    """

    steps: int = 1400
    seed: int = 0
    batch: int = 16
    length: int = 128
    learning_rate: float = 6e-4
    warmup: float = 0.2
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.95)
    clip: float = 1.0
    vocabulary: int = 4096
    width: int = 192
    layers: int = 6
    heads: int = 6
    feed_forward: int = 768
    record_every: int = 10
    ask_every: int = 100

    def rate(self, step: int) -> float:
        """Learning rate of a step, counted from 0.

        >>> settings = Settings(steps=8, warmup=0.25, learning_rate=1.0)
        >>> [round(settings.rate(step), 2) for step in range(8)]
        [0.5, 1.0, 0.95, 0.81, 0.61, 0.39, 0.19, 0.05]
        """
        rising = self.warmup * self.steps
        if step + 1 <= rising:
            return self.learning_rate * (step + 1) / rising
        done = (step + 1 - rising) / (self.steps + 1 - rising)
        return self.learning_rate * (1 + math.cos(math.pi * done)) / 2


def train_twins(
    names: Sequence[str] = tuple(TWINS),
    *,
    out: str | Path | None = None,
    settings: Settings | None = None,
    corpus: Corpus | None = None,
    checkpoints: str | Path | None = None,
    progress: bool = True,
) -> dict[str, dict]:
    """Train twins one after another, each to ``OUT/NAME``; one that is there already is left.

    Args:
        names: of :data:`embvar_kit.models.twins.TWINS`.
        out: folder for the results (configuration, weights in half precision, tokenizer, record);
            by default :func:`embvar_kit.models.twins.twins_home`.
        settings: the same for all of them.
        corpus: the text; by default the Wikipedia excerpt.
        checkpoints: folder for ``NAME/checkpoint.safetensors``, from which an interrupted training
            goes on; by default ``cache/twins`` in the kit's folder.
        progress: draw a progress bar for each.

    Returns:
        The record of each, as :func:`embvar_kit.models.twins.twin_record` gives it.

    Raises:
        TrainingError: if a name is unknown, the loss is no number any more, or a file cannot be
            written.
        CheckpointError: if a result or checkpoint is there that other settings led to, or another
            process trains with these checkpoints.
    """
    settings = settings or Settings()
    out = twins_home() if out is None else Path(out)
    checkpoints = home() / "cache" / "twins" if checkpoints is None else Path(checkpoints)
    if unknown := [name for name in names if name not in TWINS]:
        raise TrainingError(f"No twin is called {unknown[0]!r}; there are {', '.join(TWINS)}.")
    if settings.steps < 1:
        raise TrainingError(f"steps={settings.steps}: at least one is needed.")
    corpus = load_corpus("wikipedia") if corpus is None else corpus
    asked = {name: _asked(name, settings, corpus) for name in names}
    records = {name: twin_record(name, out) for name in names if (out / name / RECORD).is_file()}
    for name, record in records.items():
        remedy = "Name another folder (--out), or remove it."
        compare(asked[name], record["settings"], f"{str(out / name)!r}", remedy)
    if missing := [name for name in asked if name not in records]:
        text = TwinText.of(corpus, vocabulary=settings.vocabulary, length=settings.length)
        for name in missing:
            training = Training(settings, text, asked[name])
            with locked(checkpoints / name):
                records[name] = training.run(checkpoints / name, out / name, progress)
    return {name: records[name] for name in names}


class Training:
    """One twin in training: its weights, their moments, and how far it has come.

    Args:
        settings: how it is trained.
        text: what it reads.
        asked: its normalization, and all that a checkpoint must agree with, by name.
    """

    def __init__(self, settings: Settings, text: TwinText, asked: dict):
        self.settings, self.text, self.asked = settings, text, asked
        self.name = asked["normalization"]
        config = TwinConfig(
            normalization=self.name,
            # A corpus of a few sentences gives the tokenizer fewer entries than asked for.
            vocab_size=text.tokenizer.get_vocab_size(),
            hidden_size=settings.width,
            num_hidden_layers=settings.layers,
            num_attention_heads=settings.heads,
            intermediate_size=settings.feed_forward,
            max_position_embeddings=settings.length,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            self.model = TwinForCausalLM(config)
        self.weights = dict(self.model.named_parameters())
        matrices = [weight for weight in self.weights.values() if weight.dim() > 1]
        vectors = [weight for weight in self.weights.values() if weight.dim() < 2]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": matrices, "weight_decay": settings.weight_decay},
                {"params": vectors, "weight_decay": 0.0},
            ],
            betas=settings.betas,
            fused=True,
        )
        self.step = 0
        self.losses: list[float] = []  # of the steps since the last row of the curve
        self.gradient_norms: list[float] = []
        self.curve: list[dict] = []

    def run(self, checkpoints: Path, out: Path, progress: bool = True) -> dict:
        """Go on from the checkpoint, if there is one, to the end; save, and return the record."""
        checkpoint = checkpoints / "checkpoint.safetensors"
        if checkpoint.is_file():
            self.resume(checkpoint)
        steps = self.settings.steps
        bar = tqdm(
            total=steps,
            initial=self.step,
            unit="step",
            desc=self.name,
            disable=not progress,
            file=sys.stdout,
            mininterval=0.5,
        )
        with bar, _threads(THREADS):
            if not self.curve:
                self.record(held_out=True)
            while self.step < steps:
                self.advance()
                bar.update()
                ask = self.step % self.settings.ask_every == 0 or self.step == steps
                if ask or self.step % self.settings.record_every == 0:
                    self.record(held_out=ask)
                    bar.set_postfix(loss=self.curve[-1]["train"], refresh=False)
                if ask:
                    self.save_checkpoint(checkpoint)
        done = {
            "twin": self.name,
            "settings": self.asked,
            "versions": _versions(),
            "references": {of: round(loss, 5) for of, loss in self.text.references().items()},
            "tokens_held_out": self.text.held_out.size,
            "curve": self.curve,
        }
        write_twin(out, self.model, self.text.tokenizer, done)
        checkpoint.unlink()
        return done

    def advance(self) -> None:
        """One step: a batch, its gradient, an update of the weights."""
        settings = self.settings
        ids = torch.from_numpy(self.text.batch(self.step, settings.batch, settings.seed))
        for group in self.optimizer.param_groups:
            group["lr"] = settings.rate(self.step)
        self.optimizer.zero_grad()
        loss = self.model(ids, labels=ids).loss
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), settings.clip)
        if not math.isfinite(loss.item() + norm.item()):
            raise TrainingError(
                f"The loss of {self.name!r} is no number any more after {self.step} steps: a "
                "smaller learning rate or a longer warm-up would help."
            )
        self.optimizer.step()
        self.step += 1
        self.losses.append(loss.item())
        self.gradient_norms.append(norm.item())

    def record(self, *, held_out: bool) -> None:
        """Add a row to the curve, with the loss on the text held out if that is wanted."""

        def mean(values: list[float]) -> float | None:
            return round(sum(values) / len(values), 5) if values else None

        self.curve.append(
            {
                "step": self.step,
                "tokens": self.step * self.settings.batch * self.settings.length,
                "train": mean(self.losses),
                "gradient_norm": mean(self.gradient_norms),
                "held_out": round(held_out_loss(self.model, self.text), 5) if held_out else None,
            }
        )
        self.losses, self.gradient_norms = [], []

    def save_checkpoint(self, path: Path) -> None:
        """Write weights, moments and curve; to be called when a row was just recorded."""
        tensors = {f"weight/{name}": weight.detach() for name, weight in self.weights.items()}
        for name, weight in self.weights.items():
            state = self.optimizer.state[weight]
            tensors |= {f"{moment}/{name}": state[moment] for moment in _MOMENTS}
        arrays = {name: tensor.contiguous().numpy() for name, tensor in tensors.items()}
        told = {"asked": self.asked | _versions(), "step": self.step, "curve": self.curve}
        write(path, arrays, told)

    def resume(self, path: Path) -> None:
        """Go back to where :meth:`save_checkpoint` was.

        Raises:
            CheckpointError: if the file is damaged, or a setting or version has changed since.
        """
        kept = CheckpointFile(path)
        remedy = "Remove it to begin again, or go on with what it was made with."
        asked = self.asked | _versions()
        compare(asked, kept.told["asked"], f"The checkpoint {str(path)!r}", remedy)
        self.step, self.curve = kept.told["step"], kept.told["curve"]
        for name, weight in self.weights.items():
            weight.data.copy_(torch.from_numpy(kept[f"weight/{name}"]))
            state = {moment: torch.from_numpy(kept[f"{moment}/{name}"]) for moment in _MOMENTS}
            self.optimizer.state[weight] = {"step": torch.tensor(float(self.step)), **state}


def held_out_loss(model: TwinForCausalLM, text: TwinText) -> float:
    """Loss on the text held out, in nats a token."""
    total = 0.0
    with torch.inference_mode():
        for start in range(0, len(text.held_out), 16):
            ids = torch.from_numpy(text.held_out[start : start + 16])
            total += model(ids, labels=ids).loss.item() * len(ids)
    return total / len(text.held_out)


def _asked(name: str, settings: Settings, corpus: Corpus) -> dict:
    """All that a twin depends on, in a form that survives JSON unchanged."""
    asked = {"normalization": name, **asdict(settings), "corpus": corpus.fingerprint}
    return json.loads(json.dumps(asked))


def _versions() -> dict[str, str]:
    """Of the libraries whose rounding and choices are in the result."""
    return {"torch": torch.__version__, "tokenizers": tokenizers.__version__}


@contextmanager
def _threads(n: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


# The text


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


# The files


def write_twin(folder: Path, model: TwinForCausalLM, tokenizer: Tokenizer, record: dict) -> None:
    """Write a trained twin: configuration, weights in half precision, tokenizer and record.

    Raises:
        TrainingError: if it cannot be written.
    """
    special = dict.fromkeys(("bos_token", "eos_token", "unk_token"), END)
    length = model.config.max_position_embeddings
    whole = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=length, **special
    )
    half = copy.deepcopy(model).half()
    with _writing(folder.parent), replacing(folder) as made:
        with _no_bars():
            half.save_pretrained(made)
            whole.save_pretrained(made)
        (made / RECORD).write_text(_lines(record), encoding="utf-8")


def _lines(record: dict) -> str:
    """JSON, with a row of the curve to a line."""
    rows = ",\n  ".join(json.dumps(row) for row in record["curve"])
    told = json.dumps({**record, "curve": "rows"}, indent=1)
    return told.replace('"curve": "rows"', f'"curve": [\n  {rows}\n ]') + "\n"


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise TrainingError(
            f"Cannot write to {str(folder)!r}: {error.strerror or error}."
        ) from error


@contextmanager
def _no_bars() -> Iterator[None]:
    logging = transformers.utils.logging
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
