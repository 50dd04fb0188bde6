"""Occurrences left out of a pass, against the embeddings of all occurrences, one by one."""

from __future__ import annotations

import json
import re
import signal
from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest
import torch
from brute_force import two_pass
from hypothesis import given
from hypothesis import strategies as st

import embvar_kit as ek
from embvar_kit.corpora.parts import FileCorpus, StreamedCorpus
from embvar_kit.explorers.concordance import concordances
from embvar_kit.extraction import measure
from embvar_kit.extraction.forward import forward as run_batches
from embvar_kit.extraction.norms import PLACES
from embvar_kit.extraction.shards import ShardedPass

LEVELS = ["token", "id", "word"]
LONG = "the cat and the dog and the bird and the river and the valley " * 20  # is split
BEGIN = "<|endoftext|>"  # and end


@pytest.fixture(scope="module")
def model(loaded):
    """A model whose norms vary: a Post-LN model without training gives all the same one."""
    return loaded("gpt2")


@pytest.fixture(scope="module")
def corpus():
    sentences = list(ek.load_corpus("wikipedia", limit=20, max_words=15))
    whole = ek.Corpus.of([*sentences, LONG, *sentences[:5]])
    return replace(whole, titles=[f"document {at % 5}" for at in range(len(whole))])


def extract(model, corpus, **options):
    return ek.extract(model, corpus, progress=False, **options)


@pytest.fixture(scope="module")
def occurrences(model, corpus):
    """``occurrences(by)``: for each token, its embeddings ``(L, n, d)`` and positions ``(n,)``."""
    held = {}

    def of(by: str) -> dict:
        if by not in held:
            tokens = ek.plan(model, corpus, by=by).labels
            held[by] = ek.collect_embeddings(model, corpus, tokens, by=by)
        return held[by]

    return of


def norms_of(occurrences) -> np.ndarray:
    """``(L, n)`` squared norms."""
    return (occurrences.x.astype(float) ** 2).sum(axis=2)


@pytest.fixture(scope="module")
def bounds(occurrences):
    """Bounds at two layers that a tenth to a fifth of the occurrences reach, none just so."""

    def of(by: str) -> dict[int, float]:
        norms = np.concatenate([norms_of(one) for one in occurrences(by).values()], axis=1)
        found = {}
        for layer in (0, 1):
            some = np.sort(norms[layer])[int(0.8 * norms.shape[1]) : int(0.9 * norms.shape[1])]
            at = np.diff(some).argmax()
            found[layer] = float(some[at : at + 2].mean())
        return found

    return of


def expected(occurrences, kept) -> dict:
    """By token, the number of occurrences kept and their Q, M, V at each layer."""
    found = {}
    for token, one in occurrences.items():
        if (own := kept(one)).any():
            found[token] = int(own.sum()), [two_pass(x.astype(float)[own]) for x in one.x]
    return found


def agrees(stats, wanted) -> None:
    assert set(stats.tokens) == set(wanted)
    assert stats.n.tolist() == [wanted[token][0] for token in stats.tokens]
    order = [(-n, token) for n, token in zip(stats.n.tolist(), stats.tokens, strict=True)]
    assert order == sorted(order)
    moments = np.array([wanted[token][1] for token in stats.tokens])  # T, L, 3
    for at, name in enumerate("QMV"):
        apart = np.abs(getattr(stats, name) - moments[:, :, at].T)
        assert (apart <= 1e-5 * stats.Q).all(), name


# By position


@pytest.mark.parametrize(("by", "first"), [("token", 1), ("id", 3), ("word", 2)])
def test_first_positions_are_left_out(model, corpus, occurrences, by, first):
    stats = extract(model, corpus, by=by, leave_out=ek.LeaveOut(first=first))
    all_of = occurrences(by)
    agrees(stats, expected(all_of, lambda one: one.position >= first))
    early = sum(int((one.position < first).sum()) for one in all_of.values())
    counts = stats.info["counts"]
    assert (counts["left_out_by_position"], counts["left_out_by_norm"]) == (early, 0)
    assert counts["occurrences"] == stats.n.sum()
    assert stats.info["convention"]["leave_out"] == {"first": first}


def test_each_piece_of_a_split_sentence_has_first_positions(model):
    text = ek.Corpus.of([LONG])
    whole, left = (extract(model, text, leave_out=out) for out in (None, ek.LeaveOut(first=2)))
    pieces = whole.info["counts"]["sequences"]
    assert pieces > 2 and whole.info["counts"]["split"] == 1
    assert whole.n.sum() - left.n.sum() == 2 * pieces
    n = [dict(zip(stats.tokens, stats.n, strict=True))[BEGIN] for stats in (whole, left)]
    assert n == [2 * pieces, pieces]  # the end tokens stay


def test_min_count_counts_what_positions_leave(model, corpus, occurrences):
    left = {t: int((one.position >= 1).sum()) for t, one in occurrences("token").items()}
    least = left[BEGIN] + 1
    stats = extract(model, corpus, min_count=least, leave_out=ek.LeaveOut(first=1))
    assert len(occurrences("token")[BEGIN]) >= least and BEGIN not in stats.tokens
    assert set(stats.tokens) == {token for token, n in left.items() if n >= least} != set()
    with pytest.raises(ek.ExtractionError, match="its first 1000 positions left out"):
        extract(model, corpus, leave_out=ek.LeaveOut(first=1000))


# By norm


def high(one, bounds) -> np.ndarray:
    norms = norms_of(one)
    return np.any([norms[layer] >= bound for layer, bound in bounds.items()], axis=0)


@pytest.mark.parametrize(
    ("by", "kept_on"),
    [("token", ("cpu",)), ("id", ("cpu",)), ("word", ("cpu",)), ("token", ()), ("word", ())],
    ids=["token", "id", "word", "token in device form", "word in device form"],
)
def test_high_norms_are_left_out_at_every_layer(
    model, corpus, occurrences, bounds, by, kept_on, monkeypatch
):
    monkeypatch.setattr("embvar_kit.moments.memory.HOST_MOMENTS", kept_on)
    own = bounds(by)
    stats = extract(model, corpus, by=by, leave_out=ek.LeaveOut(first=1, bounds=own))
    all_of = occurrences(by)
    wanted = expected(all_of, lambda one: (one.position >= 1) & ~high(one, own))
    lost = len(all_of) - len(wanted)
    assert 0 < lost < len(all_of) / 2  # tokens that have lost all of their occurrences
    agrees(stats, wanted)
    out = sum(int((high(one, own) & (one.position >= 1)).sum()) for one in all_of.values())
    assert stats.info["counts"]["left_out_by_norm"] == out > 0
    if by == "word":
        whole = extract(model, corpus, by=by)
        assert np.isfinite(stats.subwords).all() and (stats.subwords >= 1).all()
        assert (whole.subwords > 1).any()


def test_the_norm_is_the_hidden_states_at_whatever_site(model, corpus, bounds):
    leave_out = ek.LeaveOut(bounds=bounds("token"))
    alone = extract(model, corpus, leave_out=leave_out)
    found = extract(model, corpus, site=["unit", "hidden"], leave_out=leave_out)
    assert found["unit"].tokens.tolist() == alone.tokens.tolist()
    for stats in found.values():
        np.testing.assert_array_equal(stats.n, alone.n)
    np.testing.assert_array_equal(found["hidden"].V, alone.V)
    np.testing.assert_allclose(found["unit"].Q, 1, rtol=1e-6)


def test_batches_do_not_matter(model, corpus, bounds):
    leave_out = ek.LeaveOut(bounds=bounds("token"))
    one, other = (extract(model, corpus, batch_tokens=n, leave_out=leave_out) for n in (90, 5000))
    np.testing.assert_array_equal(one.n, other.n)
    np.testing.assert_allclose(one.V, other.V, rtol=1e-5, atol=1e-6 * one.Q.min())


def test_a_value_that_is_not_finite_is_no_high_norm(tiny, corpus):
    model = ek.load_model(tiny("bert"), device="cpu")
    with torch.no_grad():
        model.module.encoder.layer[0].output.LayerNorm.weight.fill_(torch.inf)
    with pytest.raises(ek.ExtractionError, match="NaN or infinity in layer 1"):
        extract(model, corpus, leave_out=ek.LeaveOut(bounds={0: 1e9, 1: 1e9}))
    with pytest.raises(ek.ExtractionError, match="NaN or infinity"):
        extract(model, corpus, leave_out=ek.LeaveOut(norm=10))


def test_a_text_of_which_nothing_is_left_is_refused(model, corpus):
    with pytest.raises(ek.ExtractionError, match="raise them"):
        extract(model, corpus, leave_out=ek.LeaveOut(bounds={1: 1e-9}))


# The first look


def test_bounds_are_the_factor_times_the_median_of_a_sample(model, corpus):
    leave_out = ek.LeaveOut(first=2, norm=1.1, sample=12, seed=3)
    found = ek.find_bounds(model, corpus, leave_out)
    drawn = corpus.select(sample=12, seed=3)
    each = ek.collect_embeddings(model, drawn, ek.plan(model, drawn).labels).values()
    norms = np.concatenate([norms_of(one)[:, one.position >= 2] for one in each], axis=1)
    wanted = 1.1 * np.median(norms, axis=1)
    np.testing.assert_allclose(list(found.bounds.values()), wanted, rtol=6e-3)  # three digits
    assert all(bound == float(f"{bound:.3g}") for bound in found.bounds.values())
    assert list(found.bounds) == [0, 1, 2] and found.norm is None and found.first == 2
    assert found == ek.find_bounds(model, corpus, leave_out)
    assert found is ek.find_bounds(model, corpus, found)
    some = ek.find_bounds(model, corpus, ek.LeaveOut(norm=1.1, layers=[-1]))
    assert list(some.bounds) == [2]


def test_a_factor_is_looked_up_and_recorded(model, corpus, capsys):
    leave_out = ek.LeaveOut(first=1, norm=1.05, sample=20)
    found = ek.find_bounds(model, corpus, leave_out)
    stats = ek.extract(model, corpus, leave_out=leave_out)
    same(stats, extract(model, corpus, leave_out=found))
    told = stats.info["convention"]["leave_out"]
    assert told["found"] == {"norm": 1.05, "sample": 20, "seed": 0, "in": "sentences"}
    assert told["bounds"] == {str(layer): bound for layer, bound in found.bounds.items()}
    said = capsys.readouterr().out
    counts = stats.info["counts"]
    at_first = counts["left_out_by_position"]
    assert re.search(
        r"^left out   the first position of each sequence; squared norms from .+, by layer, on "
        rf"\({at_first:,} occurrences in front\)$",
        said,
        re.M,
    )
    assert f"left out   {counts['left_out_by_norm']:,} occurrences of high norm" in said
    assert counts["left_out_by_norm"] > 0


# What is refused


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"first": 0, "bounds": {}},
        {"first": -1},
        {"first": 1.5},
        {"first": True},
        {"norm": 1},
        {"norm": 0.5},
        {"norm": "ten"},
        {"norm": float("nan")},
        {"norm": 10, "bounds": {1: 4}},
        {"norm": 10, "sample": 0},
        {"norm": 10, "seed": -1},
        {"norm": 10, "layers": [1.5]},
        {"first": 1, "layers": [1]},
        {"bounds": 7},
        {"bounds": {1: -4}},
        {"bounds": {1: float("inf")}},
        {"bounds": {-1: 4}},
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused(arguments):
    with pytest.raises(ek.ExtractionError, match="LeaveOut"):
        ek.LeaveOut(**arguments)


def test_what_does_not_fit_the_pass_is_refused(model, corpus):
    def refused(message: str, leave_out, **options) -> None:
        with pytest.raises(ek.ExtractionError, match=message):
            extract(model, corpus, leave_out=leave_out, **options)

    refused("is not of the kind", {"first": 1})
    refused("does not take: 2", ek.LeaveOut(bounds={2: 5}), layers=[0, 1])
    refused("does not take: 2", ek.LeaveOut(norm=10, layers=[2]), layers=[0, 1])
    refused("there is no 9", ek.LeaveOut(norm=10, layers=[9]))
    with pytest.raises(ek.ExtractionError, match="find_bounds"):
        ek.plan(model, corpus, leave_out=ek.LeaveOut(norm=10))
    with pytest.raises(ek.ExtractionError, match="not their names"):
        ek.extract("minilm", corpus, leave_out=ek.LeaveOut(norm=10))


BOUND = st.floats(1e-3, 1e9)


@given(
    first=st.integers(1, 9),
    bounds=st.none() | st.dictionaries(st.integers(0, 40), BOUND) | st.lists(BOUND),
)
def test_what_is_told_makes_the_same_again(first, bounds):
    leave_out = ek.LeaveOut(first=first, bounds=bounds)
    again = ek.LeaveOut.from_told(json.loads(json.dumps(leave_out.told())))
    assert again.told() == leave_out.told() and (again.bounds or {}) == (leave_out.bounds or {})


# Parts of a corpus


def same(found, wanted) -> None:
    """Two statistics are the same, to the bit."""
    assert found.tokens.tolist() == wanted.tokens.tolist()
    for name in ("n", "Q", "M", "V", "mean", "extra"):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))
    assert found.info == wanted.info


def close(found, wanted) -> None:
    assert found.tokens.tolist() == wanted.tokens.tolist()
    np.testing.assert_array_equal(found.n, wanted.n)
    for name in "QMV":
        apart = np.abs(getattr(found, name) - getattr(wanted, name))
        assert (apart <= 1e-6 * wanted.Q).all(), name


@pytest.mark.slow
@pytest.mark.parametrize("kept_on", [("cpu",), ()], ids=["host", "device form"])
def test_a_stopped_pass_goes_on_to_the_same_bits(
    model, corpus, bounds, tmp_path, monkeypatch, kept_on
):
    monkeypatch.setattr("embvar_kit.moments.memory.HOST_MOMENTS", kept_on)
    options = {"batch_tokens": 150, "leave_out": ek.LeaveOut(first=1, bounds=bounds("token"))}
    whole = extract(model, corpus, **options)

    def stopping(*arguments, **how):
        for number, batch in enumerate(run_batches(*arguments, **how), start=1):
            if number == 4:
                signal.raise_signal(signal.SIGINT)
            yield batch

    kept = {"checkpoint": tmp_path, "checkpoint_every": 0}
    with monkeypatch.context() as patch:
        patch.setattr(measure, "forward", stopping)
        with pytest.raises(ek.ExtractionInterrupted) as stopped:
            extract(model, corpus, **options, **kept)
    partial = stopped.value.partial
    assert (partial.n > 0).all() and partial.info["counts"]["left_out_by_norm"] > 0
    with pytest.raises(ek.CheckpointError, match="leave_out"):
        extract(model, corpus, **kept, batch_tokens=150, leave_out=ek.LeaveOut(first=1))
    same(extract(model, corpus, **options, **kept), whole)


@pytest.mark.parametrize("by", ["token", "word"])
def test_shards_leave_out_what_one_pass_leaves_out(model, corpus, bounds, tmp_path, by):
    options = {"by": by, "leave_out": ek.LeaveOut(first=1, bounds=bounds(by))}
    whole = extract(model, corpus, **options)
    found = extract(model, corpus, shards=4, store=tmp_path / by, **options)
    close(found, whole)
    for part in ("convention", "counts"):
        assert found.info[part] == whole.info[part]
    if by == "word":
        np.testing.assert_allclose(found.subwords, whole.subwords, rtol=1e-12)
    with pytest.raises(ek.CheckpointError, match="leave_out"):
        extract(model, corpus, by=by, shards=4, store=tmp_path / by)


def test_a_text_of_which_nothing_is_left_is_refused_in_the_same_words_in_shards(
    model, corpus, tmp_path
):
    leave_out = ek.LeaveOut(bounds={1: 1e-9})
    with pytest.raises(ek.ExtractionError, match="raise them") as one:
        extract(model, corpus, leave_out=leave_out)
    with pytest.raises(ek.ExtractionError) as many:
        extract(model, corpus, leave_out=leave_out, shards=4, store=tmp_path / "store")
    assert str(many.value) == str(one.value)


def test_folds_where_the_norm_leaves_no_token_as_frequent_as_asked_for(
    model, corpus, occurrences, tmp_path
):
    frequent = extract(model, corpus, by="word")
    most, bound = int(frequent.n[0]), norms_of(occurrences("word")[frequent.tokens[0]])[2]
    leave_out = ek.LeaveOut(bounds={2: float(np.quantile(bound, 0.9))})
    options = {"by": "word", "min_count": most, "leave_out": leave_out}
    stats = extract(model, corpus, folds=3, **options)
    close(stats, extract(model, corpus, **options))
    assert 10 <= stats.n.max() < most, "each token that is measured has lost occurrences"
    assert stats.has_folds and stats.folds.tokens.tolist() == stats.tokens.tolist()
    stats.save(tmp_path / "out")
    again = ek.TokenStatistics.load(tmp_path / "out")
    assert again.fold_decompositions is None and again.has_folds
    with pytest.raises(ek.StatisticsError, match=f"No token is left that occurs {most} times"):
        stats.compact()


@pytest.mark.parametrize("folds", [None, 4], ids=["one pass", "folds"])
def test_the_null_leaves_out_the_same_occurrences(model, corpus, bounds, folds):
    leave_out = ek.LeaveOut(first=1, bounds=bounds("token"))
    wanted = extract(model, corpus, leave_out=leave_out)
    with pytest.warns(ek.EmbvarWarning, match="does not compare with it") as told:
        stats = extract(model, corpus, leave_out=leave_out, null=True, folds=folds)
    assert len(told) == 1
    close(stats, wanted)
    assert stats.null.n.sum() == stats.n.sum() and (stats.null.n > 0).all()
    # The same embeddings under other labels: their sum of squared norms is the same.
    np.testing.assert_allclose(stats.null.Q @ stats.null.n, stats.Q @ stats.n, rtol=1e-9)
    for name, count in wanted.counts.items():
        np.testing.assert_array_equal(stats.counts[name], count)
    assert wanted.counts["begin"].sum() == 0 < wanted.counts["first"].sum()
    if folds:
        with pytest.raises(ek.StatisticsError, match="left out by their norm"):
            stats.evidence(min_count=10)
        assert (stats.folds.n <= stats.n[: len(stats.folds.tokens)]).all()


@pytest.mark.filterwarnings("error")
def test_positions_left_out_keep_the_null_comparable(model, corpus):
    stats = extract(model, corpus, leave_out=ek.LeaveOut(first=1), null=True, folds=4)
    assert "null_slope" in stats.evidence()


def test_shards_share_the_bounds_of_one_look(model, corpus, tmp_path):
    options = {"leave_out": ek.LeaveOut(norm=1.05, sample=20)}
    found = extract(model, corpus, shards=3, store=tmp_path / "store", **options)
    assert "\nleft out   squared norms from " in str(ShardedPass.open(tmp_path / "store"))
    close(found, extract(model, corpus, **options))


def test_parts_with_the_same_bounds_are_merged_and_others_are_not(model, corpus, bounds):
    leave_out = ek.LeaveOut(bounds=bounds("token"))
    halves = corpus[:12], corpus[12:]
    one, other = (extract(model, part, leave_out=leave_out) for part in halves)
    whole = extract(model, corpus, leave_out=leave_out)
    close(one.merge(other), whole)
    assert one.merge(other).info["counts"] == whole.info["counts"]
    with pytest.raises(ek.StatisticsError, match="convention leave_out"):
        one.merge(extract(model, halves[1]))


def test_a_stream_takes_bounds_and_no_factor(model, corpus, bounds, tmp_path):
    stream = StreamedCorpus("s", lambda: (("t", i, s) for i, s in enumerate(corpus, 1)), chunk=10)
    options = {"leave_out": ek.LeaveOut(first=1, bounds=bounds("token"))}
    close(extract(model, stream, **options), extract(model, corpus, **options))
    with pytest.raises(ek.ExtractionError, match="Find the bounds on some of the text first"):
        extract(model, stream, leave_out=ek.LeaveOut(norm=10))
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("a cat\nthe dog\n", encoding="utf-8")
    files = ek.load_corpus(str(tmp_path / "*.txt"))
    assert isinstance(files, FileCorpus)
    with pytest.raises(ek.ExtractionError, match="Find the bounds on some of the text first"):
        extract(model, files, leave_out=ek.LeaveOut(norm=10))


def test_occurrences_of_such_statistics_are_not_shown(model, corpus):
    stats = extract(model, corpus, leave_out=ek.LeaveOut(first=1))
    with pytest.raises(ek.StatisticsError, match="left out of these statistics"):
        concordances([stats], model, corpus)


# Where occurrences stand


@pytest.mark.parametrize("family", ["bert", "gpt2"])
@pytest.mark.parametrize("by", LEVELS)
def test_occurrences_in_front_are_counted_by_place(loaded, corpus, family, by):
    model = loaded(family)
    work = ek.plan(model, corpus, by=by)
    n_begin = len(model.begin)
    begin, first = defaultdict(int), defaultdict(int)
    for token, one in ek.collect_embeddings(model, corpus, work.labels, by=by).items():
        begin[token] = int((one.position < n_begin).sum())
        first[token] = int((one.position == n_begin).sum())
    assert work.in_front["begin"].tolist() == [begin[token] for token in work.labels]
    assert work.in_front["first"].tolist() == [first[token] for token in work.labels]
    if by != "word":
        assert work.in_front["begin"].sum() == n_begin * len(work.text.lengths)
        assert work.in_front["first"].sum() == len(work.text.lengths)
    left = ek.plan(model, corpus, by=by, leave_out=ek.LeaveOut(first=n_begin + 1))
    assert not left.in_front["begin"].any() and not left.in_front["first"].any()


def test_a_profile_of_positions_is_what_the_embeddings_say(model, corpus, occurrences):
    first = ek.plan(model, corpus)
    tokens = [BEGIN, "the", first.labels[first.in_front["first"].argmax()]]
    profile = ek.position_profile(model, corpus, tokens, [0, 2])
    for token in tokens:
        one = occurrences("token")[token]
        for at, place in enumerate(PLACES):
            own = np.minimum(one.position, 2) == at
            rows = profile[(profile.token == token) & (profile.place == place)].set_index("layer")
            assert rows.empty == (not own.any())
            for layer in rows.index:
                assert rows.n[layer] == own.sum()
                assert rows.looked_at[layer] == min(own.sum(), 200)
                if own.sum() <= 200:
                    Q = norms_of(one)[layer, own].mean()
                    assert rows.Q[layer] == pytest.approx(Q, rel=1e-5)
    few = ek.position_profile(model, corpus, "the", [2], most=1, seed=5)
    assert (few.looked_at == 1).all()
    one = occurrences("token")["the"]
    for row in few.itertuples():
        own = norms_of(one)[2, np.minimum(one.position, 2) == PLACES.index(row.place)]
        assert np.isclose(own, row.Q, rtol=1e-5).any()
    for arguments, message in (({"most": 0}, "most=0"), ({"tokens": ["zebra"]}, "not contain")):
        with pytest.raises(ek.ExtractionError, match=message):
            ek.position_profile(model, corpus, **{"tokens": ["the"]} | arguments)
