"""The authors' files are read and written; mistakes are named by layer and token."""

from __future__ import annotations

import os
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import SENTENCES

import embvar_kit as ek
from embvar_kit.corpora.tokens import frequency_order, strip_marker
from embvar_kit.paper.release import (
    read_sentences,
    read_token_statistics,
    read_word_statistics,
    token_order,
    write_dataset_stand_in,
    write_sentences,
    write_token_statistics,
    write_word_statistics,
)

CORPUS = ek.Corpus.of(SENTENCES * 3, name="some")


@pytest.fixture(scope="module")
def stats(model):
    return ek.extract(model, CORPUS, progress=False)


@pytest.fixture(scope="module")
def words(model):
    return ek.extract(model, CORPUS, by="word", progress=False)


def script_of_the_authors(embeddings: list[tuple[str, np.ndarray]], tensors: bool = False) -> dict:
    """One layer of a file, by the paper's recurrence in float32, in order of appearance."""
    k = {"names": "words", "s": "w"} if tensors else {"names": "tokens", "s": "t"}
    found: dict[str, tuple] = {}
    for name, x in embeddings:
        x = torch.tensor(x) if tensors else x
        square = np.float32(np.linalg.norm(x) ** 2)
        if name not in found:
            found[name] = (1, x, square, square, 0)
            continue
        n, mean, Q, *_ = found[name]
        mean = n * mean / (n + 1) + x / (n + 1)
        Q = np.float32(n * Q / (n + 1) + square / (n + 1))
        M = np.float32(np.linalg.norm(mean) ** 2)
        found[name] = (n + 1, mean, Q, M, Q - M)
    names = [k["names"], *(f"{part}{k['s']}" for part in ("n_", "mu_X_", "Q_X_", "M_X_", "V_X_"))]
    columns = [list(found), *(list(column) for column in zip(*found.values(), strict=True))]
    return dict(zip(names, columns, strict=True))


def cloud(seed: int, n: int = 400, d: int = 5, names: str = "abcdef") -> list:
    rng = np.random.default_rng(seed)
    tokens = rng.choice(list(names), n)
    centre = {name: rng.normal(size=d) for name in names}
    return [(str(t), (centre[t] + rng.normal(size=d)).astype(np.float32)) for t in tokens]


@pytest.fixture
def content():
    """What the authors' script writes for three layers; tests put mistakes into it."""
    return {layer: script_of_the_authors(cloud(layer)) for layer in range(1)} | {
        layer: script_of_the_authors([(t, x + layer) for t, x in cloud(0)]) for layer in (1, 2)
    }


@pytest.fixture
def save(tmp_path):
    """``save(content)`` pickles it and returns the path."""

    def write(content: object, name: str = "bert-base-uncased.pkl") -> Path:
        path = tmp_path / name
        path.write_bytes(pickle.dumps(content))
        return path

    return write


def brute_force(embeddings: list, name: str) -> tuple[float, float, float]:
    x = np.array([x for t, x in embeddings if t == name], dtype=np.float64)
    Q, M = (x**2).sum(axis=1).mean(), (x.mean(axis=0) ** 2).sum()
    return Q, M, ((x - x.mean(axis=0)) ** 2).sum(axis=1).mean()


# Reading


def test_a_file_of_the_authors_script_gives_the_moments(save):
    embeddings = cloud(3)
    found = read_token_statistics(save({4: script_of_the_authors(embeddings)}))
    assert found.layers.tolist() == [4]
    counts = pd.Series([t for t, _ in embeddings]).value_counts()
    assert found.n.tolist() == sorted(counts, reverse=True)
    for at, token in enumerate(found.tokens):
        assert found.n[at] == counts[token]
        measured = found.Q[0, at], found.M[0, at], found.V[0, at]
        assert measured == pytest.approx(brute_force(embeddings, token), rel=1e-4)
    assert found.mean.dtype == np.float32
    assert found.extra is None


def test_the_info_of_a_file_holds_what_is_known_and_no_more(save, content):
    found = read_token_statistics(save(content))
    assert repr(found).startswith("TokenStatistics('bert-base-uncased' on 'bookcorpus': 6 tokens")
    assert found.info["model"]["n_states"] == 3
    assert found.info["model"]["width"] == 5
    assert found.info["source"]["file"] == "bert-base-uncased.pkl"
    assert found.info["corpora"][0]["fingerprint"] is None
    assert not found.special.any()
    named = read_token_statistics(save(content), model="b", corpus="c", special=("a", "f", "[CLS]"))
    assert repr(named).startswith("TokenStatistics('b' on 'c'")
    assert sorted(named.tokens[named.special]) == ["a", "f"]
    assert len(named.table(1, special=False)) == 4


def test_tables_regressions_and_decompositions_of_what_was_read(save, content, tmp_path):
    found = read_token_statistics(save(content))
    assert found.tradeoff()["n_tokens"].tolist() == [6, 6, 6]
    parts = found.decomposition()
    assert parts["Q"].to_numpy() == pytest.approx((parts["M"] + parts["V"]).to_numpy(), rel=1e-5)
    table = found.table(1, unbiased=True)
    assert (table["M"] + table["V"]).to_numpy() == pytest.approx(table["Q"].to_numpy(), rel=1e-5)
    ek.figures.V_on_M_by_layer(found)
    found.save(tmp_path / "kit")
    again = ek.TokenStatistics.load(tmp_path / "kit")
    assert again.info == found.info
    assert np.array_equal(again.mean, found.mean)


def test_layers_in_any_order_with_any_integers_as_keys(save, content):
    expected = read_token_statistics(save(content))
    turned = {np.int64(layer): content[layer] for layer in (2, 0, 1)}
    found = read_token_statistics(save(turned))
    assert found.layers.tolist() == [0, 1, 2]
    assert np.array_equal(found.V, expected.V)


def test_layers_may_list_their_tokens_in_different_orders(save, content):
    expected = read_token_statistics(save(content))
    order = [3, 1, 0, 5, 4, 2]
    content[1] = {key: [column[i] for i in order] for key, column in content[1].items()}
    found = read_token_statistics(save(content))
    assert found.tokens.tolist() == expected.tokens.tolist()
    for name in ("Q", "M", "V", "mean"):
        assert np.array_equal(getattr(found, name), getattr(expected, name))


@pytest.mark.parametrize("kind", [np.array, tuple, lambda x: np.array(x, dtype=object), np.stack])
def test_lists_arrays_and_lists_of_arrays_are_the_same(save, content, kind):
    expected = read_token_statistics(save(content))
    for layer in content.values():
        if kind is np.stack:
            layer["mu_X_t"] = np.stack(layer["mu_X_t"])
            continue
        layer["tokens"] = kind(layer["tokens"])
        if kind is np.array:
            layer["n_t"], layer["V_X_t"] = np.array(layer["n_t"]), np.array(layer["V_X_t"])
    found = read_token_statistics(save(content))
    assert all(type(token) is str for token in found.tokens)
    for name in ("n", "Q", "M", "V", "mean"):
        assert np.array_equal(getattr(found, name), getattr(expected, name))


def test_one_layer_with_one_token_seen_once_is_enough(save):
    found = read_token_statistics(save({0: script_of_the_authors(cloud(0, n=1))}))
    assert (len(found), found.n.tolist(), found.V.tolist()) == (1, [1], [[0]])


def test_the_empty_string_is_a_token(save):
    assert (
        ""
        in read_token_statistics(save({0: script_of_the_authors(cloud(0, names=["", "a"]))})).tokens
    )


def test_a_variance_slightly_below_zero_stays_what_the_file_says(save):
    x = np.random.default_rng(0).normal(size=768).astype(np.float32)
    layer = script_of_the_authors([("[CLS]", x)] * 3000 + [("a", x), ("b", 2 * x)])
    assert layer["V_X_t"][0] != 0  # what float32 makes of identical vectors
    layer["Q_X_t"][0] = np.float32(layer["M_X_t"][0] * (1 - 1e-6))
    layer["V_X_t"][0] = layer["Q_X_t"][0] - layer["M_X_t"][0]
    found = read_token_statistics(save({0: layer}))
    assert found.V[0, 0] == layer["V_X_t"][0] < 0


def test_word_files_may_hold_tensors(save):
    embeddings = cloud(5)
    path = save({0: script_of_the_authors(embeddings, tensors=True)})
    counts = save({"a": 1, "b": 2, "c": 1, "d": 3, "e": 1, "f": 4, "other": 2}, "counts.pkl")
    found = read_word_statistics(path, token_counts=counts)
    assert found.info["convention"]["by"] == "word"
    plain = read_token_statistics(save({0: script_of_the_authors(embeddings)}, "plain.pkl"))
    assert found.tokens.tolist() == plain.tokens.tolist()
    assert found.mean == pytest.approx(plain.mean, rel=1e-5)
    own = dict(zip(found.tokens, found.subwords, strict=True))
    assert own == {"a": 1, "b": 2, "c": 1, "d": 3, "e": 1, "f": 4}
    for wrong, words in (
        ({"a": 1}, "do not include the word"),
        ([1], "not a dict"),
        ({"a": 0}, "not a dict"),
    ):
        with pytest.raises(ek.ReleaseError, match=words):
            read_word_statistics(path, token_counts=save(wrong, "wrong.pkl"))


# Mistakes in a file


def changed(key, change):
    def apply(content):
        content[1][key] = change(content[1][key])

    return apply


def without(key):
    return lambda content: content[1].pop(key)


def entry(key, at, value):
    def apply(content):
        content[1][key][at] = value

    return apply


WRONG = {
    "no V": (without("V_X_t"), r"layer 1: 'V_X_t' is missing"),
    "layer is a list": (lambda c: c.update({1: []}), "layer 1: a dict was expected, not a list"),
    "other key": (lambda c: c.update(x=c[1]), "of type str that is not a layer's number"),
    "negative key": (lambda c: c.update({-1: c[1]}), "not a layer's number"),
    "huge key": (lambda c: c.update({10**6000: c[1]}), "not a layer's number"),
    "true key": (lambda c: (c.pop(1), c.update({True: c[0]})), "of type bool that is not"),
    "short Q": (changed("Q_X_t", lambda x: x[:-1]), "'Q_X_t' has 5 entries, but there are 6"),
    "long mu": (changed("mu_X_t", lambda x: [*x, x[0]]), "'mu_X_t' has 7 entries"),
    "flat mu": (changed("mu_X_t", lambda x: np.concatenate(x)), "'mu_X_t' has 30 entries"),
    "ragged mu": (entry("mu_X_t", 2, np.ones(4, "f4")), r"entry 3 of 'mu_X_t' has shape \(4,\)"),
    "no width": (changed("mu_X_t", lambda x: np.ones((6, 0))), "'mu_X_t' is not a list of arrays"),
    "mu of lists": (entry("mu_X_t", 0, [1.0] * 5), "entry 1 of 'mu_X_t' has type list; arrays"),
    "whole mu": (
        changed("mu_X_t", lambda x: np.ones((6, 5), int)),
        "type int64; all must be floats",
    ),
    "mu is text": (changed("mu_X_t", lambda x: "ab"), "'mu_X_t' is not a list of arrays"),
    "narrow layer": (changed("mu_X_t", lambda x: [y[:4] for y in x]), "is not the squared norm"),
    "negative n": (entry("n_t", 1, -3), "counts that are not integers"),
    "no n": (entry("n_t", 1, 0), "counts that are not integers"),
    "half n": (entry("n_t", 1, 2.5), "counts that are not integers"),
    "huge n": (entry("n_t", 1, 2**60), "counts that are not integers"),
    "endless n": (entry("n_t", 1, 10**400), "too large for float64"),
    "true n": (entry("n_t", 1, True), "entry 2 of 'n_t' has type bool; numbers"),
    "text n": (entry("n_t", 1, "5"), "entry 2 of 'n_t' has type str; numbers"),
    "n is a dict": (changed("n_t", lambda x: {}), "'n_t' is not a list of numbers"),
    "n is a square": (
        changed("n_t", lambda x: np.ones((6, 6))),
        "entry 1 of 'n_t' has type ndarray",
    ),
    "other n": (changed("n_t", lambda x: [x[0] + 1, *x[1:]]), "in the first layer"),
    "NaN": (entry("V_X_t", 3, float("nan")), "entry 4 of 'V_X_t' is NaN or infinite"),
    "infinite mu": (entry("mu_X_t", 3, np.full(5, 1e300)), "entry 4 of 'mu_X_t' is NaN or inf"),
    "twice": (
        lambda c: c[1]["tokens"].__setitem__(1, c[1]["tokens"][0]),
        "token '[a-f]' occurs in it 2 times",
    ),
    "other token": (entry("tokens", 0, "z"), r"layer 1: it lacks token '[a-f]'"),
    "token no text": (entry("tokens", 0, 7), "entry 1 of 'tokens' has type int; strings"),
    "half a pair": (entry("tokens", 0, "\ud800"), "it contains half a surrogate pair"),
    "tokens a text": (changed("tokens", lambda x: "abcdef"), "'tokens' is not a list of strings"),
    "Q wrong": (entry("Q_X_t", 2, 999.0), r"layer 1: token '[a-f]': Q_X_t is not M_X_t \+ V_X_t"),
    "mean wrong": (entry("mu_X_t", 2, np.full(5, 9.0)), "M_X_t is not the squared norm of mu_X_t"),
    "empty": (lambda c: [column.clear() for column in c[1].values()], "it has no tokens"),
    "words": (
        lambda c: [
            c[1].update({k.replace("_t", "_w").replace("tokens", "words"): c[1].pop(k)})
            for k in list(c[1])
        ],
        "use read_word_statistics",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_named(save, content, case):
    change, words = WRONG[case]
    change(content)
    with pytest.raises(ek.ReleaseError, match=words) as refusal:
        read_token_statistics(save(content))
    assert "bert-base-uncased.pkl" in str(refusal.value)


def test_a_variance_that_no_rounding_explains_is_refused(save, content):
    layer = content[1]
    layer["V_X_t"][0] = -0.1 * layer["M_X_t"][0]
    layer["Q_X_t"][0] = 0.9 * layer["M_X_t"][0]
    with pytest.raises(ek.ReleaseError, match="V_X_t is negative beyond rounding"):
        read_token_statistics(save(content))


@pytest.mark.parametrize(
    ("held", "words"),
    [
        ({}, "holds no layers"),
        ([], "holds a list"),
        (["a b"], "Read sentences with read_sentences"),
        (None, "a NoneType"),
        (np.ones(3), "a ndarray"),
    ],
)
def test_other_pickles_are_refused(save, held, words):
    with pytest.raises(ek.ReleaseError, match=words):
        read_token_statistics(save(held))


def test_one_mean_listed_many_times_does_not_fill_the_memory(save):
    mean = np.zeros(100_000, dtype=np.float32)
    zeros = [0.0] * 5000
    layer = {
        "tokens": [str(i) for i in range(5000)],
        "n_t": [1] * 5000,
        "mu_X_t": [mean] * 5000,
        "Q_X_t": zeros,
        "M_X_t": zeros,
        "V_X_t": zeros,
    }
    with pytest.raises(ek.ReleaseError, match="claims more numbers than the file holds"):
        read_token_statistics(save({0: layer}))
    layer["mu_X_t"] = [mean[:20]] * 5000
    with pytest.raises(ek.ReleaseError, match="claims more numbers"):
        read_token_statistics(save(dict.fromkeys(range(1000), layer)))


# Merging


def test_statistics_of_unknown_sentences_are_not_merged(save, content):
    one = read_token_statistics(save(content))
    with pytest.raises(ek.StatisticsError, match=r"Which sentences of 'bookcorpus'.*unknown"):
        one.merge(one)


def test_statistics_of_known_sentences_are_merged(model, tmp_path, stats):
    parts = []
    for name, corpus in (("a", CORPUS[:10]), ("b", CORPUS[10:])):
        path = tmp_path / f"{name}.pkl"
        write_token_statistics(ek.extract(model, corpus, progress=False), path)
        parts.append(read_token_statistics(path, model="tiny", corpus=corpus))
    whole = parts[0].merge(parts[1])
    assert whole.tokens.tolist() == stats.tokens.tolist()
    assert whole.n.tolist() == stats.n.tolist()
    for name in "QMV":
        assert getattr(whole, name) == pytest.approx(getattr(stats, name), rel=1e-4, abs=1e-5)
    with pytest.raises(ek.StatisticsError, match="the same part of corpus"):
        whole.merge(parts[0])
    with pytest.raises(ek.StatisticsError, match="differ in"):
        parts[0].merge(ek.extract(model, CORPUS[10:], progress=False))


# Writing


def test_the_authors_scripts_can_compute_with_written_files(stats, tmp_path):
    path = write_token_statistics(stats, tmp_path / "deep" / "tiny.pkl")
    content = pickle.loads(path.read_bytes())
    assert list(content) == [0, 1, 2]
    for at, layer in enumerate(content.values()):
        assert list(layer) == ["tokens", "n_t", "mu_X_t", "Q_X_t", "M_X_t", "V_X_t"]
        assert all(type(column) is list and len(column) == len(stats) for column in layer.values())
        # Their decomposition, as they compute it: sums over lists, one token at a time.
        kept = [i for i, n in enumerate(layer["n_t"]) if 1 <= np.log10(n) <= 5]
        n = sum(layer["n_t"][i] for i in kept)
        mean = sum(layer["n_t"][i] * layer["mu_X_t"][i] for i in kept) / n
        within = sum(layer["n_t"][i] * layer["V_X_t"][i] for i in kept) / n
        ours = stats.decomposition().iloc[at]
        assert np.linalg.norm(mean) ** 2 == pytest.approx(ours["M"], rel=1e-5)
        assert within == pytest.approx(ours["V_W"], rel=1e-5)


def equal(one: ek.TokenStatistics, other: ek.TokenStatistics) -> None:
    for name in ("tokens", "layers", "n", "Q", "M", "V", "mean"):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name
        assert getattr(one, name).dtype == getattr(other, name).dtype, name


def test_tokens_and_words_survive_a_round_trip(stats, words, tmp_path):
    special = stats.tokens[stats.special]
    path = write_token_statistics(stats, tmp_path / "tokens.pkl")
    found = read_token_statistics(path, special=special)
    equal(found, stats)
    assert np.array_equal(found.special, stats.special)
    counts = tmp_path / "counts.pkl"
    path = write_word_statistics(words, tmp_path / "words.pkl", token_counts=counts)
    found = read_word_statistics(path, token_counts=counts)
    equal(found, words)
    assert np.array_equal(found.subwords, np.rint(words.subwords))


NAMES = st.text(max_size=5)  # any but surrogates, which are refused


@given(
    names=st.lists(NAMES, min_size=1, max_size=8, unique=True),
    layers=st.lists(st.integers(0, 200), min_size=1, max_size=3, unique=True),
    width=st.integers(1, 4),
    scale=st.sampled_from([1e-12, 1.0, 1e12]),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_statistics_survive_a_round_trip(tmp_path_factory, names, layers, width, scale, seed):
    rng = np.random.default_rng(seed)
    n = rng.integers(1, 10**6, len(names))
    order = frequency_order(n, np.array(names, dtype=object))
    mean = (scale * rng.normal(size=(len(layers), len(names), width))).astype(np.float32)
    M = np.einsum("ltd,ltd->lt", mean, mean, dtype=np.float64)
    V = rng.exponential(scale**2, M.shape) * (rng.random(M.shape) < 0.8)
    made = ek.TokenStatistics(
        tokens=np.array(names, dtype=object)[order],
        special=np.zeros(len(names), dtype=bool),
        layers=np.sort(layers),
        n=n[order],
        Q=M + V,
        M=M,
        V=V,
        mean=mean,
        extra=None,
        info={"convention": {"by": "token"}},
    )
    path = tmp_path_factory.mktemp("round") / "x.pkl"
    equal(read_token_statistics(write_token_statistics(made, path)), made)


def named(names: list[str], markers: tuple[str, ...] | None = ("Ġ",)) -> ek.TokenStatistics:
    """Statistics of tokens of these names, the first one special."""
    M = np.arange(1.0, len(names) + 1)[None]
    convention = {"by": "token"} | ({} if markers is None else {"markers": markers})
    return ek.TokenStatistics(
        tokens=np.array(names, dtype=object),
        special=np.arange(len(names)) == 0,
        layers=np.array([0]),
        n=np.arange(len(names), 0, -1),
        Q=M,
        M=M,
        V=np.zeros_like(M),
        mean=np.sqrt(M)[..., None].astype(np.float32),
        extra=None,
        info={"convention": convention},
    )


def their_name(token: str) -> str:
    """A token of the vocabulary as the authors' script calls it."""
    return token[1:] if token.startswith("Ġ") else token


@given(names=st.lists(st.text("Ġab", min_size=1, max_size=4), max_size=8, unique_by=their_name))
def test_bare_markers_are_written_as_the_authors_script_writes_them(tmp_path_factory, names):
    """From the vocabulary's strings, the kit's way and theirs; reading undoes it."""
    ours = [strip_marker(name, ("Ġ",)) for name in names]
    made = named(["<s>", *ours])
    path = tmp_path_factory.mktemp("bare") / "x.pkl"
    write_token_statistics(made, path, strip_bare=True)
    assert pickle.loads(path.read_bytes())[0]["tokens"] == ["<s>", *map(their_name, names)]
    equal(read_token_statistics(path, marker="Ġ"), made)
    assert token_order(path, marker="Ġ") == made.tokens.tolist()
    write_token_statistics(made, path)
    assert pickle.loads(path.read_bytes())[0]["tokens"] == ["<s>", *ours]


def test_bare_markers_that_cannot_be_told_are_refused(tmp_path):
    path = tmp_path / "x.pkl"
    with pytest.raises(ek.ReleaseError, match="do not say which markers"):
        write_token_statistics(named(["<s>", "Ġ"], markers=None), path, strip_bare=True)
    with pytest.raises(ek.ReleaseError, match="the same name"):
        write_token_statistics(named(["<s>", "Ġ", ""]), path, strip_bare=True)
    assert not path.exists()
    write_token_statistics(named(["Ġ", "a"]), path, strip_bare=True)  # the special one stays
    with pytest.raises(ek.ReleaseError, match="marker='' marks nothing"):
        read_token_statistics(path, marker="")
    assert token_order(path) == ["Ġ", "a"]


def test_the_order_of_a_file_is_kept_apart(save):
    embeddings = cloud(3)
    path = save({4: script_of_the_authors(embeddings)})
    assert token_order(path) == list(dict.fromkeys(t for t, _ in embeddings))
    with pytest.raises(ek.ReleaseError, match="layer 0: 'tokens' is missing"):
        token_order(save({0: {"words": []}}))


def test_lengths_of_sentences_are_known_with_the_sentences(save, content):
    corpus = ek.Corpus.of(["a  b", "c", ""])
    info = read_token_statistics(save(content), corpus=corpus).info
    assert info["sentences_by_words"] == [1, 1, 1]
    assert info["sentences_by_blanks"] == [0, 2, 0, 1]
    assert "sentences_by_words" not in read_token_statistics(save(content)).info


def test_the_stand_in_has_the_datasets_length_and_replaces_nothing(tmp_path):
    path = write_dataset_stand_in(tmp_path / "datasets" / "bookcorpus.pkl")
    assert len(pickle.loads(path.read_bytes())["train"]) == 74_004_228
    assert path.stat().st_size < 200
    path.write_bytes(b"the dataset itself")
    write_dataset_stand_in(path)
    assert path.read_bytes() == b"the dataset itself"


def test_sentences_survive_a_round_trip(tmp_path):
    corpus = ek.Corpus.of(["a b", "", " ü\n", "\ud800"], name="odd")
    path = write_sentences(corpus, tmp_path / "bookcorpus_train.pkl")
    assert pickle.loads(path.read_bytes()) == list(corpus)
    found = read_sentences(path)
    assert (found.name, list(found)) == ("bookcorpus_train", list(corpus))
    assert found.fingerprint == corpus.fingerprint
    assert read_sentences(path, name="x").name == "x"


@pytest.mark.parametrize(
    ("held", "words"),
    [
        ([], "holds no sentences"),
        (["a", 1], "entry 2 of 'sentences' has type int; strings"),
        ({0: "a"}, "not a list of strings"),
        ("ab", "not a list of strings"),
    ],
)
def test_anything_but_sentences_is_refused(save, held, words):
    with pytest.raises(ek.ReleaseError, match=words):
        read_sentences(save(held))


def test_what_cannot_be_written_is_refused(stats, words, tmp_path):
    path = tmp_path / "x.pkl"
    with pytest.raises(ek.ReleaseError, match="means, which these statistics lack"):
        write_token_statistics(stats.compact(min_count=1), path)
    with pytest.raises(ek.ReleaseError, match="by word: write them with write_word_statistics"):
        write_token_statistics(words, path)
    with pytest.raises(ek.ReleaseError, match="by token: write them with write_token_statistics"):
        write_word_statistics(stats, path)
    with pytest.raises(ek.ReleaseError, match="do not include how many tokens"):
        write_word_statistics(replace(words, subwords=None), path, token_counts=tmp_path / "c.pkl")
    with pytest.raises(ek.ReleaseError, match="streaming=False"):
        write_sentences(SENTENCES, path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("failing", ["replace", "fsync"])
def test_a_failure_leaves_the_existing_file(stats, tmp_path, monkeypatch, failing):
    path = write_token_statistics(stats, tmp_path / "x.pkl")
    before = path.read_bytes()

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(ek.ReleaseError, match=r"Could not write .*No space left.*left as it was"):
        write_token_statistics(stats.without(["the"]), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_path_that_cannot_be_written_is_named(stats, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ek.ReleaseError, match="Could not write"):
        write_token_statistics(stats, tmp_path / "file" / "x.pkl")
    with pytest.raises(ek.ReleaseError, match="Could not write"):
        write_sentences(CORPUS, tmp_path)


def test_invalid_text_is_refused(tmp_path):
    path = tmp_path / "sentences.pkl"
    beyond = np.array([0xFFFFFFFF], dtype=np.uint32).view("<U1")
    path.write_bytes(pickle.dumps(beyond))
    with pytest.raises(ek.ReleaseError, match="not valid Unicode text"):
        ek.release.read_sentences(path)
