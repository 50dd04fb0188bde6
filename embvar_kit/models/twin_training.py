"""Training the twins: the same seed, batches, steps and learning rate for every normalization.

The recipe is the usual one for a small GPT: AdamW, linear warm-up and cosine decay of the learning
rate, clipped gradients. A step's batch and learning rate follow from its number, so that weights,
the optimizer's moments and losses are all the state there is, and a run resumed from a checkpoint
ends with the same bits as an uninterrupted one.
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
from embvar_kit.corpora.corpus import Corpus
from embvar_kit.corpora.load import load_corpus
from embvar_kit.errors import TrainingError
from embvar_kit.files import home, locked, replacing
from embvar_kit.models.silence import quiet
from embvar_kit.models.twin_model import TwinConfig, TwinForCausalLM
from embvar_kit.models.twins import RECORD, TWINS, twin_record, twins_home
from embvar_kit.wording import did_you_mean

if TYPE_CHECKING:
    from tokenizers import Tokenizer

THREADS = 1
"""Number of threads; it is fixed because the rounding of a sum depends on it. Two trainings beside
one another take less time than one after the other on two threads."""

HELD_OUT = ("Aldous Huxley", "Animal Farm", "Aruba", "Astronaut", "Atlantic Ocean", "Abacus")
"""Articles of the excerpt that no twin is trained on: a writer, a book, a country, a profession,
an ocean and a tool."""

END = "<|endoftext|>"
"""Token before and after every sentence."""

_MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class Settings:
    """Settings of a training; equal settings give the same twin.

    Attributes:
        steps: number of updates of the weights.
        seed: seed of the initial weights and of the order of the training sequences.
        batch, length: sequences per step, and tokens per sequence.
        learning_rate: learning rate at the end of the linear warm-up, the highest; a cosine decay
            follows.
        warmup: fraction of the steps that the warm-up takes.
        norm_rate: how many times the learning rate the weights of the norms have. At 1, γ hardly
            leaves 1 in so few steps: it spread from 0.97 to 1.03 below the last layer.
        weight_decay: weight decay of matrices; biases and norms have none.
        betas: the betas of AdamW.
        clip: largest norm of the gradient; a longer one is scaled down to it.
        vocabulary, width, layers, heads, feed_forward: sizes of the model.
        record_every: steps between two rows of the loss curve.
        ask_every: steps between two evaluations on the held-out text, and between two checkpoints.
    """

    steps: int = 1000
    seed: int = 0
    batch: int = 8
    length: int = 128
    learning_rate: float = 6e-4
    norm_rate: float = 10.0
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
    ask_every: int = 200

    def rate(self, step: int) -> float:
        """Learning rate of a step; steps count from 0.

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
    """Train twins one after another and save each to ``OUT/NAME``, unless it is there already.

    Args:
        names: names from :data:`embvar_kit.models.twins.TWINS`.
        out: folder for the results (configuration, weights in half precision, tokenizer, record);
            by default :func:`embvar_kit.models.twins.twins_home`.
        settings: settings shared by all of them.
        corpus: training and held-out text; by default the Wikipedia excerpt.
        checkpoints: folder for ``NAME/checkpoint.safetensors``, from which an interrupted training
            resumes; by default ``cache/twins`` in the kit's folder.
        progress: draw a progress bar for each twin.

    Returns:
        The record of each twin by name, as from :func:`embvar_kit.models.twins.twin_record`.

    Raises:
        TrainingError: if a name is unknown, the corpus is too short, the loss becomes NaN or
            infinite, or a file cannot be written.
        CheckpointError: if a result or checkpoint was made with other settings, a checkpoint is
            damaged, or another process is using these checkpoints.
    """
    settings = settings or Settings()
    out = twins_home() if out is None else Path(out)
    checkpoints = home() / "cache" / "twins" if checkpoints is None else Path(checkpoints)
    if unknown := [name for name in names if name not in TWINS]:
        near = did_you_mean(unknown[0], TWINS)
        raise TrainingError(
            f"No twin is called {unknown[0]!r}.{near} There are {', '.join(TWINS)}."
        )
    if settings.steps < 1:
        raise TrainingError(f"steps={settings.steps}: at least one step is needed.")
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
    """One twin in training: its weights, the optimizer's moments, and its loss curve so far.

    Args:
        settings: settings of the training.
        text: training and held-out text.
        asked: the twin's normalization and every other setting that a checkpoint must match.
    """

    def __init__(self, settings: Settings, text: TwinText, asked: dict):
        self.settings, self.text, self.asked = settings, text, asked
        self.name = asked["normalization"]
        config = TwinConfig(
            normalization=self.name,
            # On a corpus of few sentences, the tokenizer finds fewer entries than asked for.
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
        # A weight that is frozen keeps its first value, which the seed gives again.
        self.weights = {
            name: weight for name, weight in self.model.named_parameters() if weight.requires_grad
        }
        of_norms = {name for name in self.weights if "norm" in name}
        matrices = {name for name, weight in self.weights.items() if weight.dim() > 1}
        groups = [
            (matrices, {"weight_decay": settings.weight_decay, "times": 1.0}),
            (self.weights.keys() - matrices - of_norms, {"weight_decay": 0.0, "times": 1.0}),
            (of_norms, {"weight_decay": 0.0, "times": settings.norm_rate}),
        ]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": [w for name, w in self.weights.items() if name in names], **how}
                for names, how in groups
            ],
            betas=settings.betas,
            fused=True,
        )
        self.step = 0
        self.losses: list[float] = []  # since the last row of the curve
        self.gradient_norms: list[float] = []
        self.curve: list[dict] = []

    def run(self, checkpoints: Path, out: Path, progress: bool = True) -> dict:
        """Train to the end, from the checkpoint if there is one; save and return the record."""
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
        """Take one step: a batch, its gradient, an update of the weights.

        Raises:
            TrainingError: if the loss or the gradient is NaN or infinite.
        """
        settings = self.settings
        ids = torch.from_numpy(self.text.batch(self.step, settings.batch, settings.seed))
        for group in self.optimizer.param_groups:
            group["lr"] = group["times"] * settings.rate(self.step)
        self.optimizer.zero_grad()
        loss = self.model(ids, labels=ids).loss
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), settings.clip)
        if not math.isfinite(loss.item() + norm.item()):
            raise TrainingError(
                f"The loss of {self.name!r} is NaN or infinite after {self.step} steps: try a "
                "smaller learning rate or a longer warm-up."
            )
        self.optimizer.step()
        self.step += 1
        self.losses.append(loss.item())
        self.gradient_norms.append(norm.item())

    def record(self, *, held_out: bool) -> None:
        """Add a row to the curve, with the loss on the held-out text if ``held_out``."""

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
        """Write weights, moments and curve; call only right after :meth:`record`."""
        tensors = {f"weight/{name}": weight.detach() for name, weight in self.weights.items()}
        for name, weight in self.weights.items():
            state = self.optimizer.state[weight]
            tensors |= {f"{moment}/{name}": state[moment] for moment in _MOMENTS}
        arrays = {name: tensor.contiguous().numpy() for name, tensor in tensors.items()}
        description = {"asked": self.asked | _versions(), "step": self.step, "curve": self.curve}
        write(path, arrays, description)

    def resume(self, path: Path) -> None:
        """Restore the state that :meth:`save_checkpoint` wrote.

        Raises:
            CheckpointError: if the file is damaged, or a setting or version has changed since.
        """
        kept = CheckpointFile(path)
        remedy = "Remove it to start over, or resume with its own settings and versions."
        asked = self.asked | _versions()
        compare(asked, kept.told["asked"], f"The checkpoint {str(path)!r}", remedy)
        self.step, self.curve = kept.told["step"], kept.told["curve"]
        for name, weight in self.weights.items():
            weight.data.copy_(torch.from_numpy(kept[f"weight/{name}"]))
            state = {moment: torch.from_numpy(kept[f"{moment}/{name}"]) for moment in _MOMENTS}
            self.optimizer.state[weight] = {"step": torch.tensor(float(self.step)), **state}


def held_out_loss(model: TwinForCausalLM, text: TwinText) -> float:
    """Mean loss on the held-out text, in nats per token."""
    total = 0.0
    with torch.inference_mode():
        for start in range(0, len(text.held_out), 16):
            ids = torch.from_numpy(text.held_out[start : start + 16])
            total += model(ids, labels=ids).loss.item() * len(ids)
    return total / len(text.held_out)


def _asked(name: str, settings: Settings, corpus: Corpus) -> dict:
    """Everything that a twin depends on, as values that JSON returns unchanged."""
    asked = {"normalization": name, **asdict(settings), "corpus": corpus.fingerprint}
    return json.loads(json.dumps(asked))


def _versions() -> dict[str, str]:
    """Versions of the libraries that affect the result."""
    return {"torch": torch.__version__, "tokenizers": tokenizers.__version__}


@contextmanager
def _threads(n: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True)
class TwinText:
    """Training and held-out text as token ids, in sequences of equal length.

    Attributes:
        tokenizer: byte-level BPE, trained on the training text.
        train, held_out: ``(sequences, length)`` token ids; a remainder at the end is dropped.
        fingerprint: fingerprint of the corpus.
    """

    tokenizer: Tokenizer
    train: np.ndarray
    held_out: np.ndarray
    fingerprint: str

    @classmethod
    def of(cls, corpus: Corpus, *, vocabulary: int, length: int) -> TwinText:
        """Hold out the articles :data:`HELD_OUT`, train the tokenizer on the others, tokenize both.

        Args:
            corpus: the text.
            vocabulary: entries of the tokenizer's vocabulary.
            length: tokens per sequence.

        Raises:
            TrainingError: if either part is shorter than one sequence.
        """
        parts: dict[bool, list[str]] = {False: [], True: []}
        for title, sentence in zip(corpus.titles, corpus.sentences, strict=True):
            parts[title in HELD_OUT].append(sentence)
        tokenizer = train_tokenizer(parts[False], vocabulary)
        sequences = {held: _sequences(tokenizer, part, length) for held, part in parts.items()}
        for held, found in sequences.items():
            if not len(found):
                what = f"held-out articles ({', '.join(HELD_OUT)})" if held else "training articles"
                raise TrainingError(
                    f"The {what} in corpus {corpus.name!r} have fewer than {length} tokens: use "
                    "more of the corpus."
                )
        return cls(tokenizer, sequences[False], sequences[True], corpus.fingerprint)

    def batch(self, step: int, size: int, seed: int) -> np.ndarray:
        """``(size, length)`` token ids of a step's batch; each epoch has an order of its own."""
        epochs, places = np.divmod(np.arange(step * size, (step + 1) * size), len(self.train))
        return self.train[
            [_order(seed, int(e), len(self.train))[p] for e, p in zip(epochs, places, strict=True)]
        ]

    def references(self) -> dict[str, float]:
        """Losses of two guesses without context, in nats per token, to compare a model's with.

        ``"uniform"``: all tokens equally likely, ``ln(vocabulary)``. ``"unigram"``: each token as
        likely as in the training text (with one added to every count), on the held-out text.
        """
        size = self.tokenizer.get_vocab_size()
        counts = np.bincount(self.train.ravel(), minlength=size) + 1
        surprise = np.log(counts.sum()) - np.log(counts)
        return {
            "uniform": float(np.log(size)),
            # A model does not predict the first token of a sequence.
            "unigram": float(surprise[self.held_out[:, 1:]].mean()),
        }


def train_tokenizer(sentences: Iterable[str], vocabulary: int) -> Tokenizer:
    """A tokenizer like GPT-2's, byte-level BPE, with ``vocabulary`` entries; the first is END."""
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


def _sequences(tokenizer: Tokenizer, sentences: list[str], length: int) -> np.ndarray:
    stream = [tokenizer.token_to_id(END)]
    for encoded in tokenizer.encode_batch(sentences, add_special_tokens=False):
        stream += [*encoded.ids, stream[0]]
    return np.array(stream[: len(stream) // length * length], dtype=np.int64).reshape(-1, length)


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, n: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(n)


def write_twin(folder: Path, model: TwinForCausalLM, tokenizer: Tokenizer, record: dict) -> None:
    """Write a trained twin: configuration, weights in half precision, tokenizer and record.

    Raises:
        TrainingError: if the folder cannot be written.
    """
    special = dict.fromkeys(("bos_token", "eos_token", "unk_token"), END)
    length = model.config.max_position_embeddings
    wrapped = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=length, **special
    )
    half = copy.deepcopy(model).half()
    with _writing(folder.parent), replacing(folder) as scratch:
        with quiet():
            half.save_pretrained(scratch)
            wrapped.save_pretrained(scratch)
        (scratch / RECORD).write_text(_lines(record), encoding="utf-8")


def _lines(record: dict) -> str:
    """JSON with one line per row of the curve."""
    rows = ",\n  ".join(json.dumps(row) for row in record["curve"])
    text = json.dumps({**record, "curve": "rows"}, indent=1)
    return text.replace('"curve": "rows"', f'"curve": [\n  {rows}\n ]') + "\n"


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise TrainingError(
            f"Cannot write to {str(folder)!r}: {error.strerror or error}."
        ) from error
