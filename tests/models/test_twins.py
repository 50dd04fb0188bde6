"""The twins: alike in all but their normalization, trained alike, and still what was recorded."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from paths import ROOT
from torch.nn import functional as F
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

import embvar_kit as ek
from embvar_kit import cli, files, twin_seeds
from embvar_kit.cli import arguments
from embvar_kit.models import twin_training, twins
from embvar_kit.models.twin_model import NORMALIZATIONS, TwinConfig, TwinForCausalLM, TwinModel
from embvar_kit.models.twin_training import (
    END,
    HELD_OUT,
    Settings,
    Training,
    TwinText,
    held_out_loss,
    train_twins,
)
from embvar_kit.models.twins import RECORD, TWINS, twin_record

SHIPPED = ROOT / "data" / "twins"

SMALL = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 12,
}
IDS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6], [5, 3, 5, 8, 9, 7, 9, 3]])

every_twin = pytest.mark.parametrize("name", NORMALIZATIONS)


def small(name: str, seed: int = 0, **changed) -> TwinForCausalLM:
    """A twin of a few thousand weights."""
    torch.manual_seed(seed)
    return TwinForCausalLM(TwinConfig(normalization=name, **{**SMALL, **changed})).eval()


def states(model, ids, mask=None) -> tuple[torch.Tensor, ...]:
    with torch.inference_mode():
        return model(ids, mask, output_hidden_states=True).hidden_states


def is_norm(name: str) -> bool:
    return "norm" in name


# They differ in nothing but their norms


def test_there_are_six():
    assert tuple(TWINS) == NORMALIZATIONS
    assert arguments.TWINS == NORMALIZATIONS


def test_one_seed_gives_the_twins_the_same_weights():
    weights = {
        name: {key: w for key, w in small(name).named_parameters() if not is_norm(key)}
        for name in NORMALIZATIONS
    }
    first = weights["post-ln"]
    assert len(first) == 2 + 3 * 8
    for name in NORMALIZATIONS:
        assert weights[name].keys() == first.keys()
        assert all(torch.equal(weights[name][key], first[key]) for key in first)
    other = dict(small("post-ln", seed=1).named_parameters())
    assert not torch.equal(other["model.token_embedding.weight"], next(iter(first.values())))


def test_they_have_the_same_norms_and_as_many_weights():
    def norms(name):
        return {k: tuple(w.shape) for k, w in small(name).named_parameters() if is_norm(k)}

    assert norms("post-ln") == norms("pre-ln") == norms("post-ln-frozen")
    bounded = {key: shape for key, shape in norms("post-tanh").items() if "alpha" not in key}
    assert bounded == norms("post-ln")
    assert len(norms("pre-ln")) == 2 * (2 * 3 + 1)  # weights and biases
    assert {k: v for k, v in norms("pre-ln").items() if "bias" not in k} == norms("pre-rmsnorm")
    assert norms("no-norm") == {}
    counts = [sum(w.numel() for w in small(name).parameters()) for name in ("post-ln", "pre-ln")]
    assert counts[0] == counts[1]


def test_the_initial_weights_are_those_of_gpt2():
    weights = dict(small("pre-ln", hidden_size=64, intermediate_size=256).named_parameters())
    for key, expected in {
        "model.token_embedding.weight": 0.02,
        "model.position_embedding.weight": 0.02,
        "model.blocks.1.attention.query_key_value.weight": 0.02,
        "model.blocks.1.feed_forward.up.weight": 0.02,
        "model.blocks.1.attention.out.weight": 0.02 / math.sqrt(6),
        "model.blocks.1.feed_forward.out.weight": 0.02 / math.sqrt(6),
    }.items():
        n = weights[key].numel()
        assert weights[key].std().item() == pytest.approx(expected, rel=4 / math.sqrt(2 * n))
    biases = [w for k, w in weights.items() if k.endswith("bias")]
    assert not any(w.any() for w in biases)


def test_an_unknown_normalization_and_uneven_heads_are_refused():
    with pytest.raises(ValueError, match="normalization='both' is unknown; there are post-ln"):
        TwinConfig(normalization="both")
    with pytest.raises(ValueError, match="hidden_size=16 does not divide into 3 heads"):
        TwinConfig(**{**SMALL, "num_attention_heads": 3})


# What they compute


def by_hand(model: TwinForCausalLM, name: str, ids: torch.Tensor) -> list[torch.Tensor]:
    """Hidden states of one sequence ``(length,)``, head by head and token by token."""
    post = name.startswith("post-")
    w = {k.removeprefix("model."): v.detach() for k, v in model.named_parameters()}
    heads, width = SMALL["num_attention_heads"], SMALL["hidden_size"]

    def norm(x, at):
        if name == "no-norm":
            return x
        if name == "post-tanh":
            return w[f"{at}.weight"] * torch.tanh(w[f"{at}.alpha"] * x) + w[f"{at}.bias"]
        if name == "pre-rmsnorm":
            return x / (x.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt() * w[f"{at}.weight"]
        centered = x - x.mean(-1, keepdim=True)
        scaled = centered / (centered.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()
        return scaled * w[f"{at}.weight"] + w[f"{at}.bias"]

    def linear(x, at):
        return x @ w[f"{at}.weight"].T + w[f"{at}.bias"]

    def attention(x, at):
        q, k, v = linear(x, f"{at}.query_key_value").split(width, dim=-1)
        rows = []
        for i in range(len(x)):
            parts = []
            for h in range(heads):
                of = slice(h * width // heads, (h + 1) * width // heads)
                scores = k[: i + 1, of] @ q[i, of] / math.sqrt(width / heads)
                parts.append(torch.softmax(scores, 0) @ v[: i + 1, of])
            rows.append(torch.cat(parts))
        return linear(torch.stack(rows), f"{at}.out")

    def feed_forward(x, at):
        up = linear(x, f"{at}.up")
        return linear(up * 0.5 * (1 + torch.erf(up / math.sqrt(2))), f"{at}.out")

    x = w["token_embedding.weight"][ids] + w["position_embedding.weight"][: len(ids)]
    found = [norm(x, "norm") if post else x]
    for i in range(SMALL["num_hidden_layers"]):
        x, at = found[-1], f"blocks.{i}"
        if post:
            x = norm(x + attention(x, f"{at}.attention"), f"{at}.attention_norm")
            x = norm(x + feed_forward(x, f"{at}.feed_forward"), f"{at}.feed_forward_norm")
        else:
            x = x + attention(norm(x, f"{at}.attention_norm"), f"{at}.attention")
            x = x + feed_forward(norm(x, f"{at}.feed_forward_norm"), f"{at}.feed_forward")
        found.append(x)
    if not post:
        found[-1] = norm(found[-1], "norm")
    return found


@every_twin
def test_hidden_states_are_those_computed_by_hand(name):
    model = small(name)
    with torch.no_grad():  # so that no gain is 1 and no bias 0, and branches are not small
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.2)
    found, expected = states(model, IDS), by_hand(model, name, IDS[1])
    assert len(found) == 4
    for state, one in zip(found, expected, strict=True):
        torch.testing.assert_close(state[1], one, rtol=1e-4, atol=1e-5)
    logits = model(IDS).logits[1]
    torch.testing.assert_close(
        logits, expected[-1] @ model.model.token_embedding.weight.T, rtol=1e-4, atol=1e-4
    )


@every_twin
def test_the_loss_is_that_of_the_next_token(name):
    model = small(name)
    labels = IDS.clone()
    labels[0, 4:] = -100
    found = model(IDS, labels=labels)
    surprise = -F.log_softmax(found.logits, -1)
    asked = [surprise[b, i, IDS[b, i + 1]] for b, n in ((0, 3), (1, 7)) for i in range(n)]
    torch.testing.assert_close(found.loss, torch.stack(asked).mean())


@every_twin
def test_no_token_sees_a_later_one(name):
    model, changed = small(name), IDS.clone()
    changed[:, 5:] = 11
    for before, after in zip(states(model, IDS), states(model, changed), strict=True):
        torch.testing.assert_close(before[:, :5], after[:, :5])
        assert not torch.allclose(before[:, 5:], after[:, 5:])


@every_twin
def test_padding_changes_no_token(name):
    model = small(name)
    mask = torch.ones_like(IDS)
    mask[0, 5:] = 0
    padded = IDS.clone()
    padded[0, 5:] = 0
    alone, beside = states(model, IDS[:1, :5]), states(model, padded, mask)
    for one, many, whole in zip(alone, beside, states(model, IDS), strict=True):
        torch.testing.assert_close(many[0, :5], one[0])
        torch.testing.assert_close(many[1], whole[1])
        assert many.isfinite().all()


def test_masked_tokens_are_not_seen_wherever_they_stand():
    model, mask = small("pre-ln"), torch.ones_like(IDS)
    mask[:, :3] = 0
    changed = IDS.clone()
    changed[:, :3] = 11
    last = [states(model, ids, mask)[-1] for ids in (IDS, changed)]
    assert last[0].isfinite().all()
    torch.testing.assert_close(last[0][:, 3:], last[1][:, 3:])


def test_a_sequence_that_is_too_long_is_refused():
    with pytest.raises(ValueError, match="A sequence of 13 tokens; this model has 12 positions"):
        small("pre-ln")(torch.zeros(1, 13, dtype=torch.long))


def test_each_norm_is_a_module_that_hooks_see():
    seen = []
    for name in NORMALIZATIONS:
        model, calls = small(name), []
        for part in model.modules():
            if type(part).__name__ in ("LayerNorm", "RMSNorm", "DynamicTanh"):
                part.register_forward_hook(lambda part, *_, to=calls: to.append(type(part)))
        model(IDS)
        seen.append((len(calls), *{kind.__name__ for kind in calls}))
    kinds = ("LayerNorm", "LayerNorm", "DynamicTanh", "LayerNorm", "RMSNorm")
    assert seen == [*((7, kind) for kind in kinds), (0,)]


# Training


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Small steps gain little by a second thread, and wait for it where others work, too."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(twin_training, "THREADS", 1)
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def corpus(excerpt):
    """The beginnings of a few articles, one of them held out."""
    titles = ("Abacus", "Alphabet", "Ampere")
    assert set(titles) & set(HELD_OUT) == {"Abacus"}
    kept = [
        i
        for i, title in enumerate(excerpt.titles)
        if title in titles and excerpt.positions[i] <= 60
    ]
    sentences, of = ([each[i] for i in kept] for each in (excerpt.sentences, excerpt.titles))
    return ek.Corpus("few", sentences, of, excerpt.positions[kept])


QUICK = Settings(
    steps=12,
    batch=4,
    length=32,
    learning_rate=1e-2,
    warmup=0.25,
    vocabulary=320,
    width=16,
    layers=2,
    heads=2,
    feed_forward=32,
    record_every=2,
    ask_every=4,
)


@pytest.fixture(scope="module")
def text(corpus):
    return TwinText.of(corpus, vocabulary=QUICK.vocabulary, length=QUICK.length)


@pytest.fixture(scope="module")
def trained(corpus, tmp_path_factory):
    """Folder of the twins, trained for a dozen steps."""
    folder = tmp_path_factory.mktemp("twins")
    train_twins(
        out=folder / "out", settings=QUICK, corpus=corpus, checkpoints=folder / "c", progress=False
    )
    assert not list((folder / "c").rglob("*.safetensors")), "a checkpoint is left over"
    return folder / "out"


def train(name: str, corpus, folder: Path, settings: Settings = QUICK) -> dict:
    return train_twins(
        [name],
        out=folder / "out",
        settings=settings,
        corpus=corpus,
        checkpoints=folder / "checkpoints",
        progress=False,
    )[name]


def test_the_stream_is_sentences_between_end_tokens(corpus, text):
    end = text.tokenizer.token_to_id(END)
    assert end == 0 and text.tokenizer.get_vocab_size() == QUICK.vocabulary
    for pieces, held in ((text.train, False), (text.held_out, True)):
        sentences = [
            s
            for s, title in zip(corpus.sentences, corpus.titles, strict=True)
            if (title in HELD_OUT) == held
        ]
        told = text.tokenizer.decode(pieces.ravel().tolist(), skip_special_tokens=False)
        whole = END + END.join(sentences) + END
        assert pieces.shape[1] == QUICK.length
        assert whole.startswith(told.rstrip("\N{REPLACEMENT CHARACTER}"))
        assert len(told) > 0.98 * len(whole)


def test_every_piece_comes_once_an_epoch_in_an_order_of_its_own(text):
    n = len(text.train)
    epochs = [
        np.concatenate([text.batch(s, 1, seed=0) for s in range(e * n, e * n + n)])
        for e in range(2)
    ]
    for epoch in epochs:
        assert sorted(map(tuple, epoch)) == sorted(map(tuple, text.train))
    assert not np.array_equal(*epochs)
    assert not np.array_equal(text.batch(0, 8, seed=0), text.batch(0, 8, seed=1))
    # A batch may hold the end of one epoch and the start of the next.
    at = n // 8
    both = np.concatenate(epochs)[at * 8 : at * 8 + 8]
    assert np.array_equal(text.batch(at, 8, seed=0), both)


def test_the_references_are_those_of_guesses(text):
    counts = np.bincount(text.train.ravel(), minlength=320) + 1
    probabilities = counts / counts.sum()
    asked = text.held_out[:, 1:].ravel()
    assert text.references()["unigram"] == pytest.approx(-np.log(probabilities[asked]).mean())
    assert text.references()["uniform"] == pytest.approx(np.log(320))


def test_a_corpus_with_nothing_held_out_is_refused():
    with pytest.raises(ek.TrainingError, match=r"held-out .*\(Aldous Huxley.*fewer than 32 tokens"):
        TwinText.of(ek.Corpus.of(["A sentence of a few words."] * 99), vocabulary=300, length=32)


def test_twins_see_the_same_batches(text, monkeypatch):
    seen = {}
    for name in ("post-ln", "no-norm"):
        batches = seen[name] = []
        training = Training(QUICK, text, {"normalization": name})
        training.model.register_forward_pre_hook(
            lambda _, args, to=batches: to.append(args[0].clone())
        )
        for _ in range(3):
            training.advance()
    assert len(seen["post-ln"]) == 3
    assert all(torch.equal(*pair) for pair in zip(*seen.values(), strict=True))


def test_norms_learn_faster_and_a_frozen_gain_does_not(text):
    training = Training(QUICK, text, {"normalization": "post-ln-frozen"})
    before = {name: w.clone() for name, w in training.model.named_parameters()}
    training.advance()
    moved = {
        name: (w - before[name]).abs().max().item() for name, w in training.model.named_parameters()
    }
    rate = QUICK.rate(0)
    for name, by in moved.items():  # Adam's first step is the rate, whatever the gradient
        if "norm.weight" in name:
            assert by == 0 and (before[name] == 1).all()
        elif "norm.bias" in name:
            assert by == pytest.approx(10 * rate, rel=1e-2)
        else:
            assert by == pytest.approx(rate, rel=0.2)


def test_only_matrices_decay_and_no_weight_is_forgotten(text):
    training = Training(QUICK, text, {"normalization": "pre-ln"})
    decays = {}
    for group in training.optimizer.param_groups:
        decays |= {id(weight): group["weight_decay"] for weight in group["params"]}
    assert len(decays) == len(list(training.model.parameters()))
    for weight in training.model.parameters():
        assert decays[id(weight)] == (0.1 if weight.dim() == 2 else 0.0)


@every_twin
def test_training_lowers_the_loss(trained, name):
    record = twin_record(name, trained)
    asked = [row["held_out"] for row in record["curve"] if row["held_out"] is not None]
    assert [row["step"] for row in record["curve"]] == [0, 2, 4, 6, 8, 10, 12]
    assert len(asked) == 4
    assert asked[0] == pytest.approx(np.log(320), abs=0.05)
    assert asked[-1] < asked[0] - 0.2
    assert record["curve"][-1]["tokens"] == 12 * 4 * 32


def test_the_learning_rate_rises_and_falls():
    rates = [QUICK.rate(step) for step in range(QUICK.steps)]
    assert np.argmax(rates) == 2 and max(rates) == 1e-2
    assert np.allclose(rates[:3], [1e-2 / 3, 2e-2 / 3, 1e-2])
    assert all(a > b > 0 for a, b in pairwise(rates[2:]))


@pytest.mark.parametrize("stop", [3, 9])
def test_an_interrupted_training_ends_with_the_same_bits(
    corpus, trained, tmp_path, monkeypatch, stop
):
    advance = Training.advance

    def interrupted(self):
        if self.step == stop:
            raise KeyboardInterrupt
        advance(self)

    monkeypatch.setattr(Training, "advance", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train("post-ln", corpus, tmp_path)
    assert not (tmp_path / "out" / "post-ln").exists()
    left = list((tmp_path / "checkpoints").rglob("*.safetensors"))
    assert [path.name for path in left] == ["checkpoint.safetensors"] * (stop > 4)
    monkeypatch.setattr(Training, "advance", advance)
    begun = []
    monkeypatch.setattr(
        twin_training,
        "tqdm",
        lambda *a, initial, _bar=twin_training.tqdm, **o: (
            begun.append(initial),
            _bar(*a, initial=initial, **o),
        )[1],
    )
    train("post-ln", corpus, tmp_path)
    assert begun == [stop // 4 * 4]
    files = sorted(path.name for path in (trained / "post-ln").iterdir())
    assert files == sorted(path.name for path in (tmp_path / "out" / "post-ln").iterdir())
    for name in files:
        both = [folder / "post-ln" / name for folder in (trained, tmp_path / "out")]
        assert both[0].read_bytes() == both[1].read_bytes(), name


def test_a_seed_of_its_own_gives_another_twin(corpus, trained, tmp_path):
    other = train("pre-ln", corpus, tmp_path, replace(QUICK, seed=1))
    assert other["curve"][0] != twin_record("pre-ln", trained)["curve"][0]


def test_a_twin_that_is_there_is_left(corpus, trained, monkeypatch):
    monkeypatch.setattr(Training, "run", lambda *_: pytest.fail("trained again"))
    again = train_twins(out=trained, settings=QUICK, corpus=corpus, progress=False)
    assert again == {name: twin_record(name, trained) for name in NORMALIZATIONS}


def test_changed_settings_are_refused_by_name(corpus, trained, tmp_path, monkeypatch):
    with pytest.raises(
        ek.CheckpointError,
        match=r"post-ln.* was made with steps=12; this run has steps=13. Name another folder",
    ):
        train_twins(out=trained, settings=replace(QUICK, steps=13), corpus=corpus)
    with pytest.raises(ek.CheckpointError, match=r"was made with corpus=.*; this run has corpus="):
        train_twins(out=trained, settings=QUICK, corpus=corpus[:-1])
    text = TwinText.of(corpus, vocabulary=QUICK.vocabulary, length=QUICK.length)
    training = Training(QUICK, text, twin_training._asked("pre-ln", QUICK, corpus))
    training.advance()
    training.save_checkpoint(tmp_path / "checkpoints" / "pre-ln" / "checkpoint.safetensors")
    changed = replace(QUICK, seed=1, learning_rate=1e-3)
    with pytest.raises(
        ek.CheckpointError,
        match=r"checkpoint .* was made with seed=0, "
        "learning_rate=0.01; this run has seed=1, learning_rate=0.001. Remove",
    ):
        train("pre-ln", corpus, tmp_path, changed)
    newer = {**twin_training._versions(), "torch": "3.0"}
    monkeypatch.setattr(twin_training, "_versions", lambda: newer)
    with pytest.raises(ek.CheckpointError, match=r"this run has torch='3.0'"):
        train("pre-ln", corpus, tmp_path)


def test_a_damaged_checkpoint_is_named(corpus, tmp_path):
    path = tmp_path / "checkpoints" / "no-norm" / "checkpoint.safetensors"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"\x08\0\0\0\0\0\0\0{}")
    with pytest.raises(ek.CheckpointError, match=r"checkpoint.safetensors' cannot be read"):
        train("no-norm", corpus, tmp_path)


def test_a_loss_that_is_no_number_stops_the_training(text):
    training = Training(QUICK, text, {"normalization": "no-norm"})
    with torch.no_grad():
        training.model.model.token_embedding.weight.fill_(math.nan)
    with pytest.raises(ek.TrainingError, match="'no-norm' is NaN or infinite after 0 steps"):
        training.advance()


def test_unknown_names_and_no_steps_are_refused(corpus):
    with pytest.raises(ek.TrainingError, match=r"No twin is called 'sandwich'\. There are post-ln"):
        train_twins(["sandwich"], corpus=corpus)
    with pytest.raises(ek.TrainingError, match="steps=0: at least one"):
        train_twins(settings=Settings(steps=0), corpus=corpus)


def test_what_cannot_be_written_is_told(corpus, tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(ek.TrainingError, match=r"Cannot write to '.*out': File exists"):
        train("no-norm", corpus, tmp_path, replace(QUICK, steps=1))


def test_the_process_keeps_its_random_numbers_and_threads(corpus, tmp_path, monkeypatch):
    threads, used = torch.get_num_threads(), []
    monkeypatch.setattr(twin_training, "THREADS", threads + 1)
    advance = Training.advance
    monkeypatch.setattr(
        Training, "advance", lambda self: (used.append(torch.get_num_threads()), advance(self))
    )
    torch.manual_seed(7)
    before = torch.get_rng_state()
    train("no-norm", corpus, tmp_path, replace(QUICK, steps=1))
    assert torch.equal(torch.get_rng_state(), before)
    assert (used, torch.get_num_threads()) == ([threads + 1], threads)


# Saved twins


@every_twin
def test_a_saved_twin_is_loaded_as_any_model_is(trained, name):
    folder = trained / name
    plain = AutoModel.from_pretrained(folder, dtype=torch.float32)
    assert isinstance(plain, TwinModel) and plain.config.normalization == name
    head = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert head.head.weight is head.model.token_embedding.weight
    model = ek.load_model(folder)
    ids = torch.tensor([model.tokenizer("Every token has a norm.")["input_ids"]])
    loaded = model.hidden_states(ids)
    for others in (states(plain.eval(), ids), states(head.eval(), ids)):
        assert all(torch.equal(*pair) for pair in zip(loaded, others, strict=True))


@every_twin
def test_what_the_kit_finds_out_about_a_twin(trained, name):
    model = ek.load_twin(name, folder=trained)
    placement = {"pre-ln": "pre", "pre-rmsnorm": "pre", "no-norm": "none", "post-tanh": "none"}
    kind = {"no-norm": None, "post-tanh": None, "pre-rmsnorm": "RMSNorm"}.get(name, "LayerNorm")
    assert (model.normalization, model.final_norm) == (placement.get(name, "post"), kind)
    assert (model.n_states, model.width, model.max_tokens) == (3, 16, 32)
    assert model.begin == model.end == (model.tokenizer.convert_tokens_to_ids(END),) == (0,)
    assert model.tokenizer("A norm")["input_ids"] != model.tokenizer("Anorm")["input_ids"]


def test_a_twin_can_be_measured(trained):
    model = ek.load_twin("post-ln", folder=trained)
    statistics = ek.extract(model, ek.Corpus.of(["A norm and a mean.", "A mean."]), progress=False)
    assert statistics.info["model"]["normalization"] == "post"
    table = statistics.table(2, min_count=1, special=True)
    assert np.allclose(table["Q"], table["M"] + table["V"], rtol=1e-5)


def test_a_twin_that_is_not_there_is_told_with_the_way_to_it(tmp_path):
    with pytest.raises(ek.ModelError, match=r"'pre-ln' is not in .* embvar twins"):
        ek.load_twin("pre-ln", folder=tmp_path)
    with pytest.raises(ek.ModelError, match=r"No twin is called 'sandwich'\. There are post-ln"):
        ek.load_twin("sandwich")
    with pytest.raises(ek.ModelError, match="embvar twins"):
        ek.twin_losses(tmp_path)


def test_where_the_twins_are(tmp_path, monkeypatch):
    monkeypatch.setenv("EMBVAR_HOME", str(tmp_path))
    assert twins.twins_home() == SHIPPED
    monkeypatch.setattr(files, "checkout", lambda: None)
    assert twins.twins_home() == tmp_path / "twins"
    # Those that were trained there come first, and those in the wheel, which is not here, behind.
    record = tmp_path / "twins" / "pre-ln" / twins.RECORD
    with pytest.raises(ek.ModelError, match=r"'pre-ln' is not in .*data.twins"):
        twins.twin_record("pre-ln")
    record.parent.mkdir(parents=True)
    record.write_text('{"settings": {"seed": 7}}')
    assert twins.twin_record("pre-ln") == {"settings": {"seed": 7}}
    # Twins of two trainings are never mixed.
    monkeypatch.setattr(files, "shipped", lambda *parts: SHIPPED)
    with pytest.raises(ek.ModelError, match=r"'post-ln' is not in .*twins"):
        twins.twin_record("post-ln")
    with pytest.raises(ek.ModelError, match=r"There is no tradeoffs\.csv"):
        ek.twin_tradeoffs()


def test_the_losses_are_a_table(trained):
    table = ek.twin_losses(trained)
    columns = ["twin", "step", "tokens", "train", "gradient_norm", "held_out"]
    assert list(table.columns) == columns
    assert table["twin"].value_counts().to_dict() == dict.fromkeys(NORMALIZATIONS, 7)
    assert table["train"].isna().sum() == len(NORMALIZATIONS)  # before the first step
    assert table["held_out"].dtype == float
    assert table["held_out"].notna().sum() == 4 * len(NORMALIZATIONS)
    assert set(table.attrs["references"]) == {"uniform", "unigram"}


def test_no_file_of_a_twin_names_a_machine(trained):
    for path in trained.rglob("*.*"):
        told = path.read_bytes()
        assert str(trained).encode() not in told and b"tmp" not in told, path.name


def test_the_command_trains_and_tells(corpus, tmp_path, monkeypatch, capsys):
    asked = []

    def quick(names, *, out, settings, progress):
        asked.append((names, settings))
        return train_twins(
            names,
            out=out,
            settings=replace(QUICK, steps=2),
            corpus=corpus,
            checkpoints=tmp_path / "c",
            progress=progress,
        )

    monkeypatch.setattr(twin_training, "train_twins", quick)
    command = ["twins", "--out", str(tmp_path / "o"), "--steps", "2", "--seed", "3", "--quiet"]
    assert cli.main([*command, "--only", "pre-ln", "no-norm"]) == 0
    assert asked == [(["pre-ln", "no-norm"], Settings(steps=2, seed=3))]
    said = capsys.readouterr().out
    assert "pre-ln         held-out loss" in said and "after 2 steps" in said
    assert sorted(path.name for path in (tmp_path / "o").iterdir()) == ["no-norm", "pre-ln"]


# Several seeds


@pytest.fixture(scope="module")
def compared(corpus, tmp_path_factory):
    """Folder and table of the twins from two seeds."""
    folder = tmp_path_factory.mktemp("seeds")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMBVAR_HOME", str(folder / "home"))
        table = ek.compare_twins(
            (4, 5),
            out=folder / "out",
            settings=QUICK,
            corpus=corpus,
            measured=corpus,
            progress=False,
        )
    return folder, table


def test_the_table_has_every_seed_twin_site_and_layer(compared):
    folder, table = compared
    pd.testing.assert_frame_equal(ek.twin_tradeoffs(folder / "out"), table)
    sizes = table.groupby(["twin", "seed", "weights", "tokens", "site"], sort=False).size()
    assert (sizes == QUICK.layers + 1).all()
    sites = table.groupby("twin")["site"].nunique()
    with_norms = [name for name in NORMALIZATIONS if name not in ("post-tanh", "no-norm")]
    assert sites.to_dict() == {name: 4 if name in with_norms else 1 for name in NORMALIZATIONS}
    assert len(sizes) == 2 * 2 * 2 * sites.sum()
    assert {path.name for path in (folder / "out").iterdir()} == {*NORMALIZATIONS, "tradeoffs.csv"}
    known = table["gamma_min"].notna()
    assert (known == (table["twin"].isin(with_norms) & (table["weights"] == "trained"))).all()
    frozen = table[known & (table["twin"] == "post-ln-frozen")]
    assert (frozen[["gamma_min", "gamma_max"]] == 1).all(axis=None)
    assert (table.loc[known & (table["twin"] == "post-ln"), "gamma_min"] < 0.99).all()


def test_a_row_is_what_extract_measures(compared, corpus):
    folder, table = compared
    for seed, home in ((4, folder / "out"), (5, folder / "home" / "cache" / "twins" / "seed-5")):
        model = ek.load_twin("pre-ln", folder=home)
        for weights, twin in (("trained", model), ("untrained", ek.untrained(model))):
            stats = ek.extract(twin, corpus, site="norm_output", progress=False)
            shared = ek.tokens.group_vocabulary(model.tokenizer).shared
            expected = stats.without(shared).tradeoff(robust=True)
            row = (seed, "pre-ln", weights, "norm_output", "single entry")
            own = table[(table[["seed", "twin", "weights", "site", "tokens"]] == row).all(axis=1)]
            for column in twin_seeds.FITS:
                np.testing.assert_allclose(own[column], expected[column], rtol=1e-4, atol=1e-6)


def test_seeds_that_say_nothing_are_refused_before_any_training(corpus, tmp_path):
    for seeds in ((), (1, 1)):
        with pytest.raises(ek.TrainingError, match="at least one is needed, and each once"):
            ek.compare_twins(seeds, out=tmp_path, settings=QUICK, corpus=corpus)
    with pytest.raises(ek.ModelError, match=r"no tradeoffs.csv in .* embvar twins --compare"):
        ek.twin_tradeoffs(tmp_path)


def test_the_command_compares_seeds(tmp_path, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(
        twin_seeds, "compare_twins", lambda *given, **how: asked.append((given, how))
    )
    command = ["twins", "--out", str(tmp_path), "--steps", "2", "--quiet", "--compare", "3", "1"]
    assert cli.main(command) == 0
    how = {"out": tmp_path, "settings": Settings(steps=2), "progress": False}
    assert asked == [(([3, 1],), how)]
    assert "tradeoffs.csv" in capsys.readouterr().out
    assert cli.main([*command, "--only", "pre-ln"]) == 1
    assert "--compare is about all twins" in capsys.readouterr().err


# The twins that come with the kit


@pytest.fixture(scope="module")
def read_by_the_shipped(excerpt):
    settings = Settings()
    return TwinText.of(excerpt, vocabulary=settings.vocabulary, length=settings.length)


@every_twin
@pytest.mark.slow
def test_the_shipped_twin_still_has_the_loss_that_was_recorded(name, read_by_the_shipped):
    record = twin_record(name)
    model = AutoModelForCausalLM.from_pretrained(SHIPPED / name, dtype=torch.float32)
    # 11 bits of a weight are kept, which the loss hardly notices.
    expected = record["curve"][-1]["held_out"]
    assert held_out_loss(model, read_by_the_shipped) == pytest.approx(expected, abs=2e-3)
    assert expected < record["references"]["unigram"] < record["references"]["uniform"]
    assert record["tokens_held_out"] == read_by_the_shipped.held_out.size
    tokenizer = AutoTokenizer.from_pretrained(SHIPPED / name)
    assert tokenizer.get_vocab() == read_by_the_shipped.tokenizer.get_vocab()


@every_twin
def test_the_shipped_twin_was_trained_as_the_kit_trains_now(name, excerpt):
    record = twin_record(name)
    now = twin_training._asked(name, Settings(), excerpt)
    assert record["settings"] == now
    assert record["curve"][-1]["step"] == Settings().steps
    folder = SHIPPED / name
    assert (folder / "model.safetensors").stat().st_size < 8e6
    assert json.loads((folder / "config.json").read_text())["dtype"] == "float16"
    assert {path.name for path in folder.iterdir()} >= {RECORD, "tokenizer.json"}


@pytest.mark.slow
def test_training_begins_as_it_was_recorded(read_by_the_shipped, excerpt):
    """A sign that `embvar twins` would train the shipped twin again; all of it takes minutes."""
    asked = twin_training._asked("post-ln", Settings(), excerpt)
    training = Training(Settings(), read_by_the_shipped, asked)
    for _ in range(Settings().record_every):
        training.advance()
    row = twin_record("post-ln")["curve"][1]
    for key, values in (("train", training.losses), ("gradient_norm", training.gradient_norms)):
        assert np.mean(values) == pytest.approx(row[key], rel=1e-3)


@pytest.mark.slow
def test_the_shipped_table_is_that_of_the_shipped_twins(excerpt):
    table = ek.twin_tradeoffs()
    assert set(table["seed"]) == set(twin_seeds.SEEDS) and set(table["twin"]) == set(NORMALIZATIONS)
    corpus = ek.load_corpus("wikipedia", sample=3000, seed=0)
    for name in ("post-ln", "no-norm"):
        found = ek.extract(ek.load_twin(name), corpus, layers=[3, 6], progress=False).tradeoff()
        own = table.query(
            "seed == 0 and twin == @name and weights == 'trained' and site == 'hidden' "
            "and tokens == 'all' and layer in (3, 6)"
        )
        for column in ("slope", "r2", "cv_Q"):
            np.testing.assert_allclose(own[column], found[column], atol=1e-3)


def test_the_shipped_twins_are_ready_for_a_pass():
    found = {name: ek.load_twin(name) for name in NORMALIZATIONS}
    placements = ["post", "post", "none", "pre", "pre", "none"]
    assert [model.normalization for model in found.values()] == placements
    assert {(m.n_states, m.width, m.max_tokens) for m in found.values()} == {(7, 192, 128)}
