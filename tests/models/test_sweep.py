"""Architectures of many kinds, and in the long form all that the transformers release has.

The long form is ``make test-long``; ``python tests/sweep.py`` prints what it finds.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time

import architectures
import numpy as np
import pytest
import sweep
import torch
import transformers
from effort import LONG, tried
from paths import ROOT
from sweep import Outcome

import embvar_kit as ek

THIRTY = {
    # Encoders, absolute and relative positions, and those with a decoder beside them.
    **dict.fromkeys(("albert", "bert", "deberta-v2", "distilbert", "electra", "fsmt"), "right"),
    **dict.fromkeys(("modernbert", "roberta", "switch_transformers", "t5"), "right"),
    # Decoders: learned, rotary and linear positions, windows, experts, states instead of attention.
    **dict.fromkeys(("bloom", "gemma3_text", "gpt2", "gpt_oss", "llama", "mamba2"), "right"),
    **dict.fromkeys(("mistral", "opt", "qwen3_next", "rwkv", "xlnet"), "right"),
    # Padding mixed in; mixed in only where sequences are long; padded inside.
    **dict.fromkeys(("fnet", "deepseek_v32", "big_bird", "reformer"), "right"),
    # Text beside images: the limit of positions is that of the text, the part for text is taken.
    **dict.fromkeys(("git", "siglip", "qwen2_vl"), "right"),
    # Characters are pooled, so that states have fewer places than there are tokens; boxes wanted.
    **dict.fromkeys(("canine", "bros"), "refused"),
}
"""What the kit must make of thirty architectures."""


@pytest.fixture(autouse=True)
def one_thread():
    """Products this small are slower with two threads, much so on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", THIRTY)
def test_an_architecture_is_measured_right_or_refused(name):
    found = sweep.examine(name)
    assert found.outcome == THIRTY[name], found
    assert found.tokenizer in architectures.KINDS
    assert found.worst <= sweep.TOLERANCE
    tried("architectures held against plain transformers")


def test_the_thirty_are_thirty_and_have_every_kind_of_tokenizer():
    assert len(THIRTY) == 30
    kinds = {architectures.kind_of_tokenizer(name) for name in THIRTY}
    assert kinds == set(architectures.KINDS)
    assert all(architectures.model_class(name) for name in THIRTY)


def test_the_sentences_share_padded_batches_and_come_again(tmp_path):
    """Else the sweep would not see padding that leaks, and V would be zero."""
    for kind in ("bert", "gpt2", "t5"):
        folder = tmp_path / kind
        architectures.build(kind, folder)
        work = ek.plan(ek.load_model(folder, device="cpu"), ek.Corpus.of(sweep.SENTENCES))
        assert work.padding > 0 and max(map(len, work.batches)) >= 3
        assert np.sum(work.n > 1) > len(work.n) / 2


def test_attention_that_picks_its_keys_is_run_without_padding(tmp_path):
    """Short sentences ignore padding in it, so that trying one would not tell."""
    architectures.build("deepseek_v32", tmp_path)
    model = ek.load_model(tmp_path, device="cpu")
    assert model.module.config.index_topk == 16
    assert not model.ignores_padding
    assert ek.plan(model, ek.Corpus.of(sweep.SENTENCES)).padding == 0


def test_the_limit_of_an_encoder_of_images_does_not_count(tmp_path):
    architectures.build("git", tmp_path)
    model = ek.load_model(tmp_path, device="cpu")
    rows = {
        name: part.num_embeddings
        for name, part in model.module.named_modules()
        if name.endswith(("position_embedding", "position_embeddings"))
    }
    assert sorted(rows.values())[-1] == model.max_tokens == 256 and min(rows.values()) < 256


@pytest.mark.slow
def test_a_part_without_a_bare_model_is_refused_with_what_to_load(tmp_path):
    architectures.build("siglip_text_model", tmp_path)
    with pytest.raises(ek.ModelError, match=r"a part of a larger model.* Load the whole model"):
        ek.load_model(tmp_path, device="cpu")


def test_a_wrong_number_is_seen(monkeypatch):
    """Each of Q, M and V, at one token of one layer, off by more than the tolerance."""
    vectors = np.random.default_rng(0).normal(size=(5, 3, 8))
    plain = {"token": {"cat": sweep._definition(vectors)}, "word": {}}
    assert sweep._apart(plain, plain) == (0.0, "")
    for at, symbol in enumerate("QMV", start=1):
        changed = [np.array(part, copy=True) for part in plain["token"]["cat"]]
        changed[at][2] += 3e-4 * changed[1][2]
        worst, where = sweep._apart({"token": {"cat": tuple(changed)}, "word": {}}, plain)
        assert worst == pytest.approx(3e-4, rel=1e-3) and f"{symbol} of 'cat'" in where
    assert sweep._apart({"token": {}, "word": {}}, plain)[0] == np.inf
    shifted = ek.extract
    monkeypatch.setattr(ek, "extract", lambda model, *a, **k: shifted(model, *a, **k, site="unit"))
    assert sweep.examine("bert").outcome == "wrong"


def _misbehaving(name: str) -> Outcome:
    if name == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if name == "hang":
        time.sleep(100)
    if name == "hoard":
        bytearray(100 << 30)
    if name == "raise":
        raise KeyError("oh")
    return Outcome(name, "right")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="architectures run in forked processes")
@pytest.mark.slow
def test_one_that_crashes_hangs_or_hoards_ends_only_itself():
    names = ["crash", "hang", "hoard", "raise", "well"]
    found = {
        one.name: one
        for one in sweep.sweep(names, jobs=2, seconds=3, memory=64 << 30, job=_misbehaving)
    }
    assert found.keys() == set(names) and found["well"].outcome == "right"
    assert all(found[name].outcome == "foreign" for name in names[:-1])
    assert "exit code -11" in found["crash"].reason and "more than 3 s" in found["hang"].reason


def test_the_table_counts_outcomes_and_reasons():
    found = [
        Outcome("a", "right"),
        Outcome("b", "refused", "'b' returns no hidden states; the kit needs all of them."),
        Outcome("c", "refused", "'c' returns no hidden states; the kit needs all of them."),
        Outcome("d", "wrong", "Q of 'x'"),
    ]
    rows = sweep.table(found).splitlines()
    assert rows[2:5] == ["| right | 1 |", "| refused | 2 |", "| – no hidden states | 2 |"]
    assert "| wrong | 1 |" in rows and "| foreign | 0 |" in rows


if LONG:

    @pytest.mark.timeout(7200)
    def test_no_architecture_of_the_release_is_wrong(tmp_path):
        kept = tmp_path / "found.json"
        command = [sys.executable, "tests/sweep.py", "--json", kept, "--jobs", str(os.cpu_count())]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert kept.exists(), done.stderr
        found = [Outcome(**one) for one in json.loads(kept.read_text())]
        tried("architectures of the transformers release, tried", len(found))
        bad = [one for one in found if one.outcome in ("wrong", "foreign")]
        assert not bad, bad
        assert sum(one.outcome == "right" for one in found) > len(found) / 2
        page = (ROOT / "notebooks/reference/reliability.md").read_text()
        if re.search(rf"transformers {re.escape(transformers.__version__)}\b", page):
            assert sweep.table(found) in page
