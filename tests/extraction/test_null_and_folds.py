"""The null (labels permuted) and folds of documents, against their definitions."""

from __future__ import annotations

import signal
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pandas as pd
import psutil
import pytest
from scipy.stats import t as student

import embvar_kit as ek
from embvar_kit.corpora.dealing import deal, documents_of
from embvar_kit.corpora.parts import StreamedCorpus
from embvar_kit.extraction import measure
from embvar_kit.extraction.shards import ShardedPass
from embvar_kit.extraction.size_of_folds import size_of_folds
from embvar_kit.statistics import analysis
from embvar_kit.statistics.compaction import key_of
from embvar_kit.statistics.folds import COLUMNS, LEAST
from embvar_kit.statistics.storage import read, write

FOLDS = 4
ALL = {"min_count": 1, "max_count": None, "special": True, "unbiased": False}


@pytest.fixture(scope="module")
def corpus():
    """Some 50 articles; without any of the folds, tokens with ``n_t >= 10`` are left."""
    return ek.load_corpus("wikipedia", sample=240, max_words=30)


@pytest.fixture(scope="module")
def measured(model, corpus):
    """A pass with null and folds, at two sites."""
    return ek.extract(
        model, corpus, site=["hidden", "unit"], null=True, folds=FOLDS, progress=False
    )


@pytest.fixture(scope="module")
def stats(measured):
    return measured["hidden"]


def part(corpus, sentences):
    return ek.Corpus(
        corpus.name,
        [corpus.sentences[i] for i in sentences],
        [corpus.titles[i] for i in sentences],
        corpus.positions[sentences],
        corpus.unit,
        {"part": True},
    )


def without_fold(model, corpus, fold, folds=FOLDS, shards=FOLDS, **options):
    """The corpus without a fold, run anew: what taking the fold out has to give."""
    documents = documents_of(corpus)
    sizes = np.bincount(documents, weights=[len(one) for one in corpus.sentences])
    left = np.flatnonzero(deal(sizes, shards)[documents] % folds != fold)
    return ek.extract(model, part(corpus, left), progress=False, **options)


# Folds


@pytest.mark.parametrize("shards", [None, 9])
def test_a_fold_taken_out_is_a_fold_never_run(model, corpus, stats, shards):
    if shards:
        stats = ek.extract(model, corpus, folds=FOLDS, shards=shards, store=None, progress=False)
    held = stats.folds
    assert held.tokens.tolist() == stats.tokens[stats.n >= LEAST].tolist()
    for fold in range(FOLDS):
        again = without_fold(model, corpus, fold, shards=shards or FOLDS)
        rows = pd.Index(again.tokens).get_indexer(held.tokens)
        there = rows >= 0
        np.testing.assert_array_equal(held.n[fold], np.where(there, again.n[rows], 0))
        for name in "QMV":
            found, wanted = getattr(held, name)[fold], getattr(again, name)[:, rows]
            apart = np.abs(found - wanted)[:, there]
            assert (apart <= 2e-6 * again.Q[:, rows[there]]).all(), name
            assert np.isnan(found[:, ~there]).all()
        assert (held.V[fold][:, there] >= 0).all()


@pytest.mark.parametrize(
    "choice", [ALL, {**ALL, "min_count": 10, "max_count": 100_000, "special": False}]
)
def test_decompositions_without_a_fold_are_those_never_run(model, corpus, stats, choice):
    """The tokens are those that the whole corpus chooses."""
    chosen = stats.tokens[stats.n >= choice["min_count"]]
    if not choice["special"]:
        chosen = chosen[~stats.special[stats.n >= choice["min_count"]]]
    found = stats.fold_decompositions
    for name, value in key_of(stats, choice).items():
        found = found[found[name] == value]
    for fold in range(FOLDS):
        again = without_fold(model, corpus, fold)
        rows = pd.Index(again.tokens).get_indexer(chosen)
        wanted = again.take(rows[rows >= 0]).decomposition(**ALL)
        own = found[found["fold"] == fold].sort_values("at")
        for name in ("Q", "M", "V", "V_W", "V_B"):
            np.testing.assert_allclose(own[name], wanted[name], rtol=2e-5, err_msg=name)


def test_the_halves_are_pairs_of_their_folds(model, corpus, stats):
    """The mean dot product of two occurrences in different folds, from one pass a fold."""
    documents = documents_of(corpus)
    sizes = np.bincount(documents, weights=[len(one) for one in corpus.sentences])
    fold = deal(sizes, FOLDS)[documents]
    shape = (FOLDS, len(stats.layers), len(stats.folds.tokens))
    n, total, squares = np.zeros(shape), np.zeros((*shape, stats.mean.shape[-1])), np.zeros(shape)
    for k in range(FOLDS):
        again = ek.extract(model, part(corpus, np.flatnonzero(fold == k)), progress=False)
        rows = pd.Index(again.tokens).get_indexer(stats.folds.tokens)
        there, rows = rows >= 0, rows[rows >= 0]
        n[k][:, there] = again.n[rows]
        total[k][:, there] = again.n[rows, None] * again.mean[:, rows].astype(float)
        squares[k][:, there] = again.n[rows] * again.Q[:, rows]
    for half in (0, 1):
        own = slice(half, None, 2)
        np.testing.assert_array_equal(stats.folds.half_n[half], n[own, 0].sum(axis=0))
        pairs = n[own].sum(axis=0) ** 2 - (n[own] ** 2).sum(axis=0)
        product = (total[own].sum(axis=0) ** 2).sum(axis=-1) - (total[own] ** 2).sum(axis=(0, -1))
        known = pairs > 0
        found = stats.folds.half_M[half]
        assert np.array_equal(known, np.isfinite(found)) and known.mean() > 0.5
        M = product[known] / pairs[known]
        Q = (squares[own].sum(axis=0) / n[own].sum(axis=0))[known]
        assert (np.abs(found[known] - M) <= 1e-5 * Q).all()
        assert (np.abs(stats.folds.half_V[half][known] - (Q - M)) <= 1e-5 * Q).all()


def same(one, other):
    """Two statistics, their nulls and their folds are the same, to the bit."""
    assert one.tokens.tolist() == other.tokens.tolist()
    for name in ("n", "Q", "M", "V", "mean", "extra"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert one.info == other.info and one.has_folds == other.has_folds
    if one.has_folds:
        for name, array in one.folds.arrays().items():
            np.testing.assert_array_equal(array, getattr(other.folds, name))
        pd.testing.assert_frame_equal(one.fold_decompositions, other.fold_decompositions)
    assert (one.null is None) == (other.null is None)
    if one.null is not None:
        same(one.null, other.null)


def test_folds_leave_every_other_bit_as_it_is(model, corpus, stats):
    plain = ek.extract(model, corpus, null=True, progress=False)
    assert not plain.has_folds and stats.has_folds
    same(replace(stats, folds=None, fold_decompositions=None), plain)


def test_folds_of_one_pass_are_those_of_shards(model, corpus, stats):
    shards = ek.extract(model, corpus, folds=FOLDS, shards=FOLDS, progress=False)
    assert stats.folds.tokens.tolist() == shards.folds.tokens.tolist()
    for name, found in stats.folds.arrays().items():
        np.testing.assert_allclose(
            found, getattr(shards.folds, name), atol=1e-5 * stats.Q.max(), err_msg=name
        )


def test_folds_that_the_memory_has_no_room_for_are_shards(model, corpus, monkeypatch):
    wanted = ek.extract(model, corpus, folds=FOLDS, shards=FOLDS, layers=[1], progress=False)
    now = SimpleNamespace(available=1000, total=psutil.virtual_memory().total)
    with monkeypatch.context() as patch:
        patch.setattr("psutil.virtual_memory", lambda: now)
        found = ek.extract(model, corpus, folds=FOLDS, layers=[1], progress=False)
    same(found, wanted)


@pytest.mark.parametrize("by", ["token", "word"])
def test_what_one_pass_in_folds_takes_is_planned(model, corpus, tmp_path, by):
    work = ek.plan(model, corpus, by=by, null=True, folds=FOLDS)
    options = {"by": by, "shards": FOLDS, "store": tmp_path}
    stats = ek.extract(model, corpus, folds=FOLDS, null=True, progress=False, **options)
    job = ShardedPass.open(tmp_path)
    entries = sum(len(job.read("shards", shard)["group"]) for shard in range(FOLDS))
    mean = stats.mean[:, 0].nbytes + stats.extra[:, 0].nbytes
    assert len(work.in_folds.fold) == entries > len(stats)
    assert work.memory == mean * (2 * len(stats) + entries)
    held = sum(array.nbytes for array in stats.folds.arrays().values())
    assert f"folds      {FOLDS} of whole documents" in str(work)
    assert f"at most {held / 1e6:,.0f} MB" in str(work)


def test_a_pass_in_folds_that_is_stopped_has_a_partial_result(model, corpus, monkeypatch):
    real = measure.forward

    def stopping(*arguments, **how):
        for at, batch in enumerate(real(*arguments, **how)):
            if at == 3:
                signal.raise_signal(signal.SIGINT)
            yield batch

    monkeypatch.setattr(measure, "forward", stopping)
    with pytest.raises(ek.ExtractionInterrupted) as stopped:
        ek.extract(model, corpus, folds=FOLDS, progress=False)
    partial = stopped.value.partial
    assert (partial.n > 0).all() and partial.info["partial"]["batches"] == 4
    assert not partial.has_folds


def test_intervals_are_the_jackknife_of_the_regression(stats):
    table = stats.tradeoff(intervals=True)
    kept = stats.folds.of(stats.tokens[(stats.n >= 10) & (stats.n <= 100_000)])
    slopes = []
    for fold in range(FOLDS):
        left = kept.n[fold] > 0
        M, V = kept.M[fold, 1, left], kept.V[fold, 1, left]
        slopes.append(np.polyfit(M, V, 1)[0])
    se = np.sqrt((FOLDS - 1) / FOLDS * np.sum((slopes - np.mean(slopes)) ** 2))
    t = 3.182446305284263  # of 3 degrees of freedom, 97.5 %
    row = table.iloc[1]
    assert row["slope_high"] - row["slope"] == pytest.approx(t * se, rel=1e-9)
    assert row["slope"] - row["slope_low"] == pytest.approx(t * se, rel=1e-9)
    plain = stats.tradeoff()
    pd.testing.assert_frame_equal(table[plain.columns], plain)


def on_frequency(table):
    log_n = np.log10(table["n"])
    assert table.index.tolist() == list(range(len(table)))
    return {
        "slope": analysis.regress(log_n, table["V"]).slope,
        "letters": table["token"].str.len().mean(),
    }


@pytest.mark.parametrize("unbiased", [False, True])
def test_a_statistic_of_ones_own_has_the_interval_of_texts_without_a_fold(
    model, corpus, stats, unbiased
):
    """Each fold is left out of the corpus and the rest is run anew, tokens and all."""
    choice = {"special": False, "unbiased": unbiased}
    found = stats.intervals_of(on_frequency, layers=[2, 1], **choice)
    assert found.columns.tolist()[:4] == ["layer", "slope", "slope_low", "slope_high"]
    assert found["layer"].tolist() == [2, 1]
    for row in found.itertuples():
        whole = stats.table(row.layer, min_count=10, **choice)
        assert row.slope == on_frequency(whole)["slope"]
        values = []
        for fold in range(FOLDS):
            again = without_fold(model, corpus, fold).table(row.layer, **choice)
            own = again[again["token"].isin(whole["token"])].reset_index(drop=True)
            values.append(on_frequency(own))
        for name in ("slope", "letters"):
            theirs = np.array([one[name] for one in values])
            se = np.sqrt((FOLDS - 1) / FOLDS * ((theirs - theirs.mean()) ** 2).sum())
            reach = student.ppf(0.975, FOLDS - 1) * se
            low, high = getattr(row, f"{name}_low"), getattr(row, f"{name}_high")
            assert (low + high) / 2 == pytest.approx(getattr(row, name))
            assert (high - low) / 2 == pytest.approx(reach, rel=1e-3, abs=1e-9)


@pytest.mark.parametrize("unbiased", [False, True])
def test_dispersion_has_the_intervals_of_folds(stats, unbiased):
    choice = {"special": False, "unbiased": unbiased}
    found = stats.dispersion(**choice, intervals=True)
    plain = stats.dispersion(**choice)
    pd.testing.assert_frame_equal(found[plain.columns], plain)
    alone = stats.frequency_slopes(**choice, intervals=True)
    for end in ("", "_low", "_high"):
        np.testing.assert_allclose(found[f"slope_n{end}"], alone[f"V{end}"], rtol=1e-9)
    # By hand, for one layer: V without each fold on the numbers of documents of the whole.
    at, kept = 1, (stats.n >= 10) & ~stats.special & (stats.n <= 100_000)
    documents = np.log10(stats.effective_documents[kept])
    values = []
    for _, left, moments in stats.folds.of(stats.tokens[kept]).without_each(at, unbiased=unbiased):
        values.append(np.polyfit(documents[left], moments[3], 1)[0])
    reach = student.ppf(0.975, FOLDS - 1) * np.sqrt((FOLDS - 1) * np.var(values))
    row = found.iloc[at]
    width = row["slope_documents_high"] - row["slope_documents_low"]
    assert width / 2 == pytest.approx(reach) and reach > 0
    assert {"both_n_low", "both_documents_high", "r2_low"} <= set(found)
    with pytest.raises(ek.StatisticsError, match="compact"):
        stats.compact().dispersion(intervals=True)


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("unbiased", [False, True])
def test_slopes_on_frequency_have_the_intervals_of_folds(stats, unbiased, log, tmp_path):
    choice = {"special": False, "unbiased": unbiased}
    slopes = partial(analysis.slopes_on_frequency, log=log)
    found = stats.frequency_slopes(log=log, **choice, intervals=True)
    pd.testing.assert_frame_equal(found, stats.intervals_of(slopes, **choice))
    assert found[["Q_low", "M_low", "V_low"]].notna().all(axis=None)
    plain = stats.frequency_slopes(log=log, **choice)
    pd.testing.assert_frame_equal(found[plain.columns], plain)
    # The table of compact statistics is rounded to float32; the slopes without a fold are not.
    frequent = tuple(stats.tokens[:2])
    compact = stats.compact(left_out=[(), frequent])
    compact.save(tmp_path)
    compact = ek.TokenStatistics.load(tmp_path)
    # Each of many rows has the names of all tokens left out: they are not to be held once a row.
    assert isinstance(compact.replicates["left_out"].dtype, pd.CategoricalDtype)
    for whole, one in ((stats, compact), (stats.without(frequent), compact.without(frequent))):
        kept, given = (x.frequency_slopes(log=log, **choice, intervals=True) for x in (one, whole))
        pd.testing.assert_frame_equal(kept, given, rtol=1e-4, atol=1e-5)


def test_pairs_of_different_folds_need_the_folds_and_are_no_unbiased_forms(stats):
    plain = stats.frequency_slopes(apart=True)
    assert plain.columns.tolist() == ["layer", "n_tokens", "Q", "M", "V"]
    assert plain["layer"].tolist() == stats.layers.tolist()
    with pytest.raises(ek.StatisticsError, match="compact"):
        stats.compact().frequency_slopes(apart=True)
    with pytest.raises(ek.StatisticsError, match="choose one"):
        stats.frequency_slopes(apart=True, unbiased=True)
    few = stats.without(stats.tokens[2:])
    assert few.frequency_slopes(apart=True, intervals=True)[["M", "M_low"]].isna().all(axis=None)
    given = []
    for choice in ({}, {"min_count": 30}, {"max_count": 40}, {"special": False}, {"log": True}):
        found = stats.frequency_slopes(**choice, apart=True, intervals=True)
        kept = {"min_count": 10, "max_count": None, "special": True, **choice}
        log = kept.pop("log", False)
        wanted = stats.folds.of(stats.tokens[stats.kept(**kept)]).frequency_slopes_apart(log=log)
        pd.testing.assert_frame_equal(found.drop(columns="layer"), wanted.drop(columns="at"))
        given.append(found)
    assert not any(found.equals(given[0]) for found in given[1:])


def test_a_layer_without_variance_has_no_slope_of_its_logarithm(stats):
    V = stats.V.copy()
    V[0] = 0
    folds = replace(
        stats.folds, V=np.where(np.arange(len(stats.layers))[:, None] > 0, stats.folds.V, 0)
    )
    whole = replace(stats, V=V, folds=folds)
    for one in (whole, whole.compact()):
        found = one.frequency_slopes(log=True, intervals=True).set_index("layer")
        assert found.loc[0, ["V", "V_low", "V_high"]].isna().all()
        assert found.loc[0, ["Q_low", "M_high"]].notna().all()
        assert found.loc[1:].notna().all(axis=None)
        assert one.frequency_slopes(intervals=True)["V"][0] == 0
    few = stats.table(1, min_count=10).head(2)
    with pytest.raises(ek.StatisticsError, match="2 tokens"):
        analysis.slopes_on_frequency(few, log=True)


def test_compact_statistics_of_an_older_kit_have_no_intervals_of_slopes_on_frequency(stats):
    compact = stats.compact()
    older = compact.replicates.query("what == 'tradeoff'")
    compact = replace(compact, replicates=older)
    assert compact.tradeoff(intervals=True)["slope_low"].notna().all()
    with pytest.raises(ek.StatisticsError, match="older kit"):
        compact.frequency_slopes(intervals=True)
    with pytest.raises(ek.StatisticsError, match="folds=20"):
        replace(compact, replicates=None).frequency_slopes(intervals=True)


def test_a_statistic_of_ones_own_may_change_its_table(stats):
    def weighted(table):
        if "w" not in table:
            table["w"] = table["n"] / table["n"].sum()
        table.pop("Q")
        return {"M": (table["w"] * table["M"]).sum()}

    def afresh(table):
        return weighted(table.copy())

    assert stats.intervals_of(weighted).equals(stats.intervals_of(afresh))
    one = stats.intervals_of(weighted, layers=2)
    assert one.equals(stats.intervals_of(weighted, layers=[2]))
    assert stats.intervals_of(weighted, layers=[]).empty


def test_where_too_little_is_left_without_a_fold_there_is_no_interval(stats):
    few = stats.take(np.flatnonzero(stats.n >= LEAST)[:3])
    n = few.folds.n.copy()
    n[0, 1:] = 0  # two of three tokens occur in the first fold alone
    few = replace(few, folds=replace(few.folds, n=n))
    found = few.intervals_of(lambda table: analysis.regress(table["M"], table["V"])._asdict())
    assert found["slope"].notna().all() and found["slope_low"].isna().all()


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (0.5, "numbers by their names"),
        ({}, "numbers by their names"),
        ({"a": "b"}, "is no number"),
        ({"layer": 1.0}, "'layer'"),
        ({"a": 1.0, "a_low": 2.0}, "'a_low'"),
        ({"fold": 1.0, "at": 2.0}, "'at', 'fold'"),
    ],
)
def test_what_is_no_number_by_a_free_name_is_refused(stats, returned, message):
    with pytest.raises(ek.StatisticsError, match=message):
        stats.intervals_of(lambda table: returned)


def test_a_statistic_of_ones_own_without_folds_is_refused(stats):
    with pytest.raises(ek.StatisticsError, match=r"are compact.* as they were extracted"):
        stats.compact().intervals_of(on_frequency)
    with pytest.raises(ek.StatisticsError, match="have none"):
        replace(stats, folds=None, fold_decompositions=None).intervals_of(on_frequency)
    with pytest.raises(ek.StatisticsError, match="layer"):
        stats.intervals_of(on_frequency, layers=[99])
    with pytest.raises(ek.StatisticsError, match="min_count"):
        stats.intervals_of(on_frequency, min_count=1)


def test_intervals_of_decompositions_and_anisotropy_lie_around_the_values(measured):
    parts = measured["hidden"].decomposition(intervals=True)
    assert np.allclose(parts["M/Q"] + parts["V_W/Q"] + parts["V_B/Q"], 1)
    angles = measured["unit"].anisotropy(intervals=True)
    for table in (parts, angles):
        for name in table.columns:
            if name.endswith("_low"):
                value = table[name.removesuffix("_low")]
                high = table[name.replace("_low", "_high")]
                assert (table[name] <= value).all() and (value <= high).all(), name


def test_anisotropy_without_a_fold_is_that_of_the_text_left(model, corpus, measured):
    """The interval's replicates, brought back from its bounds, are those of passes run anew."""
    unit = measured["unit"]
    again = [
        without_fold(model, corpus, fold, site="unit").anisotropy(min_count=2)["anisotropy"]
        for fold in range(FOLDS)
    ]
    reach = np.std(again, axis=0) * np.sqrt(FOLDS - 1) * 3.182446305284263
    table = unit.anisotropy(intervals=True)
    np.testing.assert_allclose(
        (table["anisotropy_high"] - table["anisotropy_low"]) / 2, reach, rtol=1e-3
    )


@pytest.mark.parametrize("by", ["id", "word"])
def test_other_groups_have_folds_and_a_null_too(model, corpus, by):
    stats = ek.extract(model, corpus, by=by, folds=3, null=True, progress=False)
    assert len(stats.folds) == 3
    assert sorted(stats.null.n) == sorted(stats.n)
    if by == "word":
        kept = pd.Series(stats.n, stats.tokens) @ pd.Series(stats.subwords, stats.tokens)
        assert stats.null.n @ stats.null.subwords == pytest.approx(kept)


# The null


def test_the_null_counts_every_occurrence_once_under_another_label(stats):
    null = stats.null
    assert dict(zip(null.tokens, null.n, strict=True)) == dict(
        zip(stats.tokens, stats.n, strict=True)
    )
    own, permuted = stats.decomposition(**ALL), null.decomposition(**ALL)
    for name in "QMV":  # the union is the same
        np.testing.assert_allclose(own[name], permuted[name], rtol=1e-6)
    # Labels that say nothing explain no more variance than chance: (T - 1) / (n - 1) of it.
    share = (permuted["V_B"] / permuted["V"]).to_numpy()
    chance = (len(null) - 1) / (null.n.sum() - 1)
    np.testing.assert_allclose(share, chance, rtol=0.2)
    assert (own["V_B"] / own["V"] > 1.5 * share)[1:].all()


@pytest.mark.parametrize("options", [{}, {"shards": 5}])
def test_a_null_in_one_pass_and_in_shards_is_a_permutation_over_the_corpus(
    model, corpus, tmp_path, options
):
    if options:
        options["store"] = tmp_path / "store"
    stats = ek.extract(model, corpus, null=True, min_count=3, progress=False, **options)
    null = stats.null
    assert sorted(null.tokens) == sorted(stats.tokens)
    assert (null.n >= 3).all() and sorted(null.n) == sorted(stats.n)
    choice = {**ALL, "min_count": 3}
    own, permuted = stats.decomposition(**choice), null.decomposition(**choice)
    np.testing.assert_allclose(own["V"], permuted["V"], rtol=1e-6)


def test_labels_of_shards_are_dealt_without_regard_to_the_shard(model, corpus, tmp_path):
    """A frequent token has its share of each shard's labels, but for chance."""
    store = tmp_path / "store"
    ek.extract(model, corpus, null=True, shards=4, store=store, progress=False)
    job = ShardedPass.open(store)
    labels = job.groups.index
    n = np.zeros((4, len(labels)))
    for shard in range(4):
        file = job.read("shards", shard)
        n[shard, file["null/group"]] = file["null/n"]
        assert file["null/n"].sum() == file["n"].sum()
    expected = np.outer(n.sum(axis=1), n.sum(axis=0)) / n.sum()
    often = expected.min(axis=0) >= 10
    assert often.sum() >= 10
    chi2 = ((n - expected) ** 2 / expected)[:, often].sum()
    freedom = 3 * often.sum()
    assert abs(chi2 - freedom) < 4 * np.sqrt(2 * freedom)


@pytest.mark.parametrize("folds", [None, FOLDS])
def test_a_killed_pass_keeps_its_null_and_folds(model, corpus, tmp_path, monkeypatch, folds):
    options = {"null": True, "folds": folds, "progress": False}
    wanted = ek.extract(model, corpus, **options)
    real = measure.forward

    def dying(*arguments, **named):
        for at, batch in enumerate(real(*arguments, **named)):
            if at == 4:
                raise KeyError("killed")
            yield batch

    monkeypatch.setattr(measure, "forward", dying)
    options |= {"checkpoint": tmp_path, "checkpoint_every": 0}
    with pytest.raises(KeyError):
        ek.extract(model, corpus, **options)
    monkeypatch.setattr(measure, "forward", real)
    with pytest.raises(ek.CheckpointError, match="folds"):
        ek.extract(model, corpus, **options | {"folds": FOLDS + 1})
    same(ek.extract(model, corpus, **options), wanted)


# What becomes of them


def test_evidence_puts_interval_null_and_reliability_beside_the_slope(stats):
    table = stats.evidence()
    fits = stats.tradeoff(robust=True, intervals=True)
    null = stats.null.tradeoff(robust=True)
    spread = stats.tradeoff(unbiased=True, intervals=True)
    for name, wanted in {
        "slope_high": fits["slope_high"],
        "spearman": fits["spearman"],
        "null_slope": null["slope"],
        "null_spearman": null["spearman"],
        "sd_M_low": spread["sd_M_low"],
        "null_sd_M": stats.null.tradeoff(unbiased=True)["sd_M"],
    }.items():
        np.testing.assert_array_equal(table[name], wanted, err_msg=name)
    survives = (
        (table["slope_high"] < 0)
        & (table["slope_iv_high"] < 0)
        & (table["sd_M_low"] > table["null_sd_M"])
        & (table["reliability"] >= 0.5)
        & (table["n_halves"] >= np.maximum(10, table["n_tokens"] / 2))
    )
    np.testing.assert_array_equal(table["survives"], survives)


def test_saved_and_compact_statistics_keep_null_and_intervals(measured, tmp_path):
    for site, stats in measured.items():
        whole = ek.TokenStatistics.load(stats.save(tmp_path / site))
        compact = stats.compact()
        small = ek.TokenStatistics.load(compact.save(tmp_path / f"{site}-compact"))
        pd.testing.assert_frame_equal(whole.evidence(), stats.evidence())
        pd.testing.assert_frame_equal(small.evidence(), stats.evidence(), rtol=1e-4)
        for one in (whole, small):
            pd.testing.assert_frame_equal(
                one.decomposition(intervals=True), stats.decomposition(intervals=True), rtol=1e-9
            )
            assert "labels permuted" in repr(one.null) and one.null.tradeoff() is not None
        if site == "unit":
            pd.testing.assert_frame_equal(
                small.anisotropy(intervals=True), stats.anisotropy(intervals=True), rtol=1e-3
            )


def fewer_columns(tables, tensors, info):
    del tables["table"]["special"]


def no_table(tables, tensors, info):
    del tables["table"]


def fewer_rows(tables, tensors, info):
    tables["table"] = tables["table"].iloc[:-1]


def other_means(tables, tensors, info):
    tensors["mean"]["mean"] = tensors["mean"]["mean"][:, 1:].copy()


def other_extra(tables, tensors, info):
    tensors["mean"]["extra"] = tensors["mean"]["extra"][1:].copy()


def fewer_folds(tables, tensors, info):
    tensors["folds"]["Q"] = tensors["folds"]["Q"][1:].copy()


def folds_of_other_tokens(tables, tensors, info):
    tensors["folds"] = {name: x[..., 1:].copy() for name, x in tensors["folds"].items()}


def lacking_folds(tables, tensors, info):
    del tensors["folds"]["own_M"]


@pytest.mark.parametrize(
    "harm",
    [
        *(fewer_columns, no_table, fewer_rows, other_means, other_extra, fewer_folds),
        *(folds_of_other_tokens, lacking_folds),
    ],
)
def test_files_that_do_not_belong_together_are_refused_by_name(stats, tmp_path, harm):
    """Their checksums are right: somebody wrote them so."""
    contents = read(stats.save(tmp_path / "right"))
    harm(*contents)
    write(tmp_path / "wrong", *contents)
    with pytest.raises(ek.StatisticsFileError, match=r"wrong' does not hold statistics as"):
        ek.TokenStatistics.load(tmp_path / "wrong")


def test_a_null_is_compared_only_with_the_occurrences_it_was_permuted_over(
    model, corpus, stats, tmp_path
):
    for less in (stats.without(["the"]), stats.take(np.arange(len(stats) - 1))):
        assert less.null is None
        with pytest.raises(ek.StatisticsError, match="tokens are left out"):
            less.evidence()
        alone = less.evidence(null=False)
        assert not {"survives", "null_slope", "null_sd_M", "null_spearman"} & set(alone)
        assert alone["slope_high"].tolist() == less.tradeoff(intervals=True)["slope_high"].tolist()
    assert stats.without(["nothing of this name"]).null is stats.null
    with pytest.raises(ek.StatisticsError, match="other tokens have the occurrences of special"):
        stats.evidence(special=False)
    store = tmp_path / "store"
    ek.extract(model, corpus, null=True, shards=6, store=store, progress=False)
    some = ShardedPass.open(store).merge(only=range(4), folds=2)["hidden"]
    with pytest.raises(ek.StatisticsError, match="other counts than the tokens"):
        some.evidence()


def test_a_null_can_be_given_by_the_names_of_its_sets(stats):
    less, null = stats.without(["the"]), stats.null.without(["the"])
    alone, found = less.evidence(null=False), less.evidence(null=null)
    pd.testing.assert_frame_equal(found[alone.columns], alone)
    line = null.tradeoff(robust=True)
    for name in ("slope", "r2", "spearman"):
        assert found[f"null_{name}"].tolist() == line[name].tolist()
    assert found["null_sd_M"].tolist() == null.tradeoff(unbiased=True)["sd_M"].tolist()
    pd.testing.assert_frame_equal(stats.evidence(null=stats.null), stats.evidence())
    pd.testing.assert_frame_equal(less.evidence(null=None), alone)
    with pytest.raises(ek.StatisticsError, match="takes a null"):
        less.evidence(null=stats)
    convention = {**null.info["convention"], "site": "unit"}
    for other in ({"convention": convention}, {"corpora": []}, {"model": {}}):
        with pytest.raises(ek.StatisticsError, match="another pass"):
            less.evidence(null=replace(null, info={**null.info, **other}))
    with pytest.raises(ek.StatisticsError, match=r"1 set by the names .* such as 'the'"):
        less.evidence(null=stats.null)


def test_statistics_compacted_without_some_tokens_do_not_give_intervals_of_all(stats):
    frequent = stats.tokens[stats.n >= 10][:3].tolist()
    part = stats.without(frequent)
    with pytest.raises(ek.StatisticsError, match=r"Intervals|folds"):
        part.decomposition(intervals=True)
    compact = part.compact()
    with pytest.raises(ek.StatisticsError, match="Intervals"):
        compact.decomposition(intervals=True)
    assert compact.tradeoff(intervals=True)["slope_low"].notna().all()


def test_simultaneous_intervals_are_those_of_one_layer_of_many(stats):
    one, all_layers = (stats.evidence(simultaneous=on) for on in (False, True))
    miss = 0.05 / len(one) / 2
    factor = student.isf(miss, FOLDS - 1) / student.isf(0.025, FOLDS - 1)
    assert factor > 1
    for name in ("slope", "r2", "sd_M", "reliability", "slope_iv"):
        for end in ("low", "high"):
            reach = one[f"{name}_{end}"] - one[name]
            found = all_layers[f"{name}_{end}"] - all_layers[name]
            np.testing.assert_allclose(found, factor * reach, rtol=1e-6, atol=1e-9)
    assert (all_layers["survives"] <= one["survives"]).all()


def test_compact_statistics_without_a_token_they_do_not_list_drop_what_covers_it(model, corpus):
    stats = ek.extract(model, corpus, layers=[1], null=True, covariance=True, progress=False)
    rare = stats.tokens[stats.n == 9][0]
    compact = stats.compact(left_out=[(), (rare,)])
    assert rare not in compact.tokens
    less = compact.without(rare)
    assert less.null is None and less.decomposition() is not None
    for call in (less.isotropy, less.evidence):
        with pytest.raises(ek.StatisticsError, match="out"):
            call()
    whole = stats.compact(min_count=1)  # which lists all tokens, so others never occurred
    for same in (compact.without([]), whole.without("nothing of this name")):
        assert same.null is not None and same.isotropy().equals(compact.isotropy())


def test_tokens_left_out_are_left_out_of_folds(stats):
    frequent = stats.tokens[0]
    less = stats.without([frequent])
    assert frequent not in less.folds.tokens
    table = less.tradeoff(intervals=True)
    assert table["n_tokens"].iloc[0] == stats.tradeoff()["n_tokens"].iloc[0] - 1
    with pytest.raises(ek.StatisticsError, match="with tokens left out"):
        less.decomposition(intervals=True)
    with pytest.raises(ek.StatisticsError, match="or which hold other tokens"):
        stats.take(np.arange(50)).decomposition(intervals=True)


def test_merged_statistics_have_neither(model, corpus):
    first, second = (
        ek.extract(model, part, null=True, folds=2, progress=False)
        for part in (corpus[:120], corpus[120:])
    )
    merged = first.merge(second)
    assert merged.null is None and merged.folds is None
    for call in (merged.evidence, lambda: merged.tradeoff(intervals=True)):
        with pytest.raises(ek.StatisticsError, match="folds=20"):
            call()


def test_tokens_that_are_too_rare_have_no_intervals(stats):
    with pytest.raises(ek.StatisticsError, match="n_t >= 10: pass min_count=10"):
        stats.tradeoff(min_count=2, intervals=True)
    with pytest.raises(ek.StatisticsError, match="count alike"):
        stats.tradeoff(weighted=True, intervals=True)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"folds": 1}, "from 2"),
        ({"folds": 2.5}, "from 2"),
        ({"folds": 6, "shards": 5}, "each fold is one or more shards"),
        ({"folds": 3, "shards": 3, "checkpoint": "here"}, "leave out checkpoint='here'"),
    ],
)
def test_folds_that_make_no_sense_are_refused(model, corpus, options, message):
    with pytest.raises(ek.ExtractionError, match=message):
        ek.extract(model, corpus, progress=False, **options)


def test_more_folds_than_documents_are_refused(model, corpus):
    with pytest.raises(ek.CorpusError, match="too few for 400 folds of whole documents"):
        ek.extract(model, corpus, folds=400, progress=False)


@pytest.mark.parametrize("text", ["", "\u200b"])
def test_folds_in_which_nothing_was_measured_are_refused(model, text, tmp_path):
    """Three documents in eight folds are three folds: with eight, intervals are too narrow."""
    titles = [f"article {at}" for at in range(8)]
    sentences = [*["the cat sat on the mat"] * 3, *[text] * 5]
    corpus = ek.Corpus("few", sentences, titles, np.ones(8, dtype=int))
    options = {"layers": [0], "store": tmp_path, "progress": False}
    with pytest.raises(ek.ExtractionError, match="5 of 8 folds: their documents have no text"):
        ek.extract(model, corpus, folds=8, **options)
    found = ShardedPass.open(tmp_path).merge()["hidden"]
    assert found.n.sum() == 3 * 8 and not found.has_folds


def test_folds_whose_occurrences_are_all_left_out_are_refused(model):
    titles = [f"article {at}" for at in range(8)]
    corpus = ek.Corpus("few", ["the cat", *["the"] * 7], titles, np.ones(8, dtype=int))
    with pytest.raises(ek.ExtractionError, match="3 of 4 folds"):
        ek.extract(model, corpus, folds=4, leave_out=ek.LeaveOut(first=3), progress=False)


def test_a_fold_that_a_bound_on_the_norm_empties_costs_the_folds_alone(minilm):
    """That is known only after the pass, so its other results are kept, and a warning says so."""
    titles = [f"article {at}" for at in range(8)]
    corpus = ek.Corpus("few", [*["the cat is on it"] * 7, "cat"], titles, np.ones(8, dtype=int))
    # At hidden state 0 the squared norm of "cat" is 137, and that of the other words 48 to 72.
    options = {"by": "word", "layers": [0], "leave_out": ek.LeaveOut(bounds={0: 100})}
    plain = ek.extract(minilm, corpus, progress=False, **options)
    with pytest.warns(ek.EmbvarWarning, match=r"nothing to measure in 1 of 8 folds.*have no folds"):
        found = ek.extract(minilm, corpus, folds=8, progress=False, **options)
    assert not found.has_folds and found.tokens.tolist() == ["is", "it", "on", "the"]
    np.testing.assert_array_equal(found.V, plain.V)
    with pytest.raises(ek.StatisticsError, match="folds"):
        found.tradeoff(min_count=1, intervals=True)


def test_a_stream_has_no_null(model, corpus):
    stream = StreamedCorpus("s", lambda: iter([("a", "text")]), 10)
    with pytest.raises(ek.ExtractionError, match="cannot be permuted: leave out null=True"):
        ek.extract(model, stream, null=True, progress=False)


def test_unbiased_parts_without_a_fold_leave_out_the_noise_of_tokens(stats):
    choice = {**ALL, "min_count": 2, "unbiased": True}
    table = stats.decomposition(**choice, intervals=True)
    plain = stats.decomposition(**{**choice, "unbiased": False}, intervals=True)
    assert (table["V_B"] < plain["V_B"]).all() and (table["V_B_high"] < plain["V_B_high"]).all()


@pytest.mark.parametrize("folds", [2, 3, 5])
def test_few_folds_give_no_interval_of_the_halves_and_lose_nothing(model, corpus, folds, tmp_path):
    stats = ek.extract(model, corpus, layers=[1], null=True, folds=folds, progress=False)
    table = stats.evidence()
    assert np.isfinite(table["reliability"]).all() == (folds >= 4)  # pairs in either half
    assert table["slope_iv_high"].isna().all()
    assert not table["survives"].any()
    small = ek.TokenStatistics.load(stats.compact().save(tmp_path))
    pd.testing.assert_frame_equal(small.evidence(), table, rtol=1e-4)


def test_a_fold_that_holds_nearly_all_takes_the_intervals_it_decides_and_no_others(stats, tmp_path):
    """Without one fold, all tokens have the same M at one layer: there is no line there."""
    M = stats.folds.M.copy()
    M[1, 0] = M[1, 0].max()
    stats = replace(stats, folds=replace(stats.folds, M=M))
    for one in (stats, ek.TokenStatistics.load(stats.compact().save(tmp_path))):
        table = one.tradeoff(intervals=True).set_index("layer")
        first, *others = table.index
        assert np.isfinite(table["slope"]).all() and np.isnan(table.loc[first, "slope_high"])
        assert np.isfinite(table.loc[others, "slope_high"]).all()
        assert not one.evidence()["survives"][0]


def test_one_document_with_nearly_all_of_the_text_keeps_its_replicates(model):
    """Without its fold hardly a token is left: intervals are NaN, and compact() keeps that."""
    excerpt = ek.load_corpus("wikipedia", limit=40, max_words=20)
    sentences, titles = [*excerpt.sentences, "the", "the"], ["long"] * len(excerpt) + ["a", "b"]
    corpus = ek.Corpus("one", sentences, titles, np.arange(1, len(titles) + 1))
    stats = ek.extract(model, corpus, layers=[0, 1], folds=3, progress=False)
    compact = stats.compact()
    assert set(compact.replicates["what"]) == set(COLUMNS)
    for one in (stats, compact):
        table = one.tradeoff(intervals=True)
        assert np.isfinite(table["slope"]).all() and table["slope_high"].isna().all()
        assert one.decomposition(intervals=True)["Q_high"].notna().all()


def test_a_text_of_rare_tokens_is_compacted_without_intervals(model):
    titles = [f"article {at}" for at in range(12)]
    corpus = ek.Corpus("rare", [f"a cat {at}" for at in range(12)], titles, np.arange(1, 13))
    stats = ek.extract(model, corpus, layers=[0], folds=4, progress=False)
    compact = stats.compact()
    assert compact.n.tolist() == [12, 12, 12, 12]
    for one in (stats, compact):  # without one of the folds, all tokens have the same M
        table = one.tradeoff(intervals=True)
        assert table["slope"][0] == pytest.approx(-1) and np.isnan(table["slope_high"][0])


def test_a_fold_with_all_of_the_tokens_leaves_no_number(stats):
    nothing = analysis.parts_of(np.zeros(0), np.zeros(0), np.nan, np.nan, np.nan, correct=False)
    assert np.isnan(nothing).all()


def test_the_labels_of_a_null_spread_over_documents_as_chance_has_it(model, corpus, tmp_path):
    """The figures that set moments against documents take a null, too; shards add its counts up."""
    one = ek.extract(model, corpus, null=True, layers=[0], progress=False).null
    store = {"shards": 3, "store": tmp_path}
    whole = ek.extract(model, corpus, null=True, layers=[0], progress=False, **store)
    for null in (one, whole.null):
        assert null.dispersion().notna().all().all()
        assert (null.documents <= null.n).all()
        assert (null.effective_documents <= null.documents + 1e-9).all()
    spread = [x.effective_documents[x.n >= 10].mean() for x in (whole.null, whole)]
    assert spread[0] > spread[1], "tokens clump in documents; permuted labels do not"
    ek.figures.moments_on_frequency(whole.null, x="documents", layer=0)


def test_a_null_is_not_merged(model, corpus):
    one, other = (
        ek.extract(model, part, layers=[0], null=True, progress=False)
        for part in (corpus[:50], corpus[50:100])
    )
    with pytest.raises(ek.StatisticsError, match="A null cannot be merged"):
        one.merge(other.null)


def test_labels_of_a_null_that_are_lost_are_dealt_again(model, corpus, tmp_path):
    store, options = tmp_path / "store", {"null": True, "shards": 3, "progress": False}
    wanted = ek.extract(model, corpus, store=store, **options)
    for folder in ("null", "shards"):
        (store / folder / "00001-of-00003.safetensors").unlink()
    found = ek.extract(model, corpus, store=store, **options)
    for one, other in ((found, wanted), (found.null, wanted.null)):
        np.testing.assert_array_equal(one.mean, other.mean)


def test_one_token_or_a_list_is_left_out_but_not_a_table(stats):
    assert stats.without("the").tokens.tolist() == stats.without(["the"]).tokens.tolist()
    with pytest.raises(ek.StatisticsError, match="not a table"):
        stats.without(stats.table(1))


def test_compact_statistics_remember_rare_tokens_that_are_left_out(stats):
    rare = stats.tokens[stats.n < 10].tolist()
    compact = stats.compact(left_out=[(), rare])
    every = {"min_count": 1, "max_count": None}
    wanted = stats.without(rare).decomposition(**every)
    pd.testing.assert_frame_equal(compact.without(rare).decomposition(**every), wanted)
    with pytest.raises(ek.StatisticsError, match="not among the choices stored"):
        compact.without(rare[:1]).decomposition(**every)


def test_compact_statistics_have_intervals_without_shared_strings(model, stats, tmp_path):
    """Whichever of the strings that the corpus has rarely or never are named."""
    shared = [*ek.tokens.group_vocabulary(model.tokenizer).shared, "never", "seen"]
    own = stats.tokens[np.isin(stats.tokens, shared)]
    assert 3 < (np.isin(own, stats.tokens[stats.n >= 10])).sum() <= len(own) < len(shared)
    compact = ek.TokenStatistics.load(stats.compact(left_out=[(), shared]).save(tmp_path))
    ranges = {"min_count": 10, "max_count": 100_000, "special": True}
    for names in (shared, own, own[np.isin(own, compact.tokens)]):
        whole, small = stats.without(names), compact.without(names)
        wanted = whole.evidence(null=False)
        pd.testing.assert_frame_equal(small.evidence(null=False), wanted, rtol=1e-4)
        assert np.isfinite(wanted[["slope_high", "sd_M_high"]]).all(axis=None)
        assert (wanted["slope_high"] != stats.tradeoff(intervals=True)["slope_high"]).all()
        pd.testing.assert_frame_equal(small.decomposition(**ranges), whole.decomposition(**ranges))
    other = compact.without(own[:-1]) if own[-1] in compact.tokens else compact.without(own[:1])
    with pytest.raises(ek.StatisticsError, match=r"compact\(left_out=\[\(\), tokens\]\)"):
        other.tradeoff(intervals=True)


@pytest.mark.parametrize("null", [False, True])
def test_what_folds_take_is_said_before_the_pass(model, corpus, tmp_path, capsys, null):
    sites = ["hidden", "unit"]
    options = {"shards": 3 * FOLDS, "store": tmp_path, "null": null, "site": sites}
    stats = ek.extract(model, corpus, folds=FOLDS, **options)
    said = capsys.readouterr().out
    job = ShardedPass.open(tmp_path)
    size = size_of_folds(job, model, FOLDS)
    assert str(size) in said and said.index("files ") < said.index("shards: ")
    files = sum(path.stat().st_size for path in (tmp_path / "shards").iterdir())
    assert size.files == pytest.approx(files, rel=0.3)
    means = sum(one.mean.nbytes + one.extra.nbytes for one in stats.values())
    held = sum(array.nbytes for one in stats.values() for array in one.folds.arrays().values())
    assert means * (2 if null else 1) <= size.means and held <= size.folds
    kept = stats["hidden"].folds
    assert held == 2 * kept.bytes_of(len(kept.tokens), FOLDS, len(stats["hidden"].layers))
