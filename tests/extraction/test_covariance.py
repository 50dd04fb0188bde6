"""``covariance=True``: one d x d covariance a layer beside the groups, and what follows from it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats as scipy_stats

import embvar_kit as ek
from embvar_kit.corpora.parts import StreamedCorpus
from embvar_kit.moments.device import DeviceCovariance
from embvar_kit.statistics import measures

SITES = ["hidden", "unit"]


def extract(model, corpus, **options):
    options = {"site": SITES, "covariance": True} | options
    return ek.extract(model, corpus, progress=False, **options)


@pytest.fixture(scope="module")
def some(few):
    return few[:30]


@pytest.fixture(scope="module")
def found(model, some):
    return extract(model, some)


@pytest.fixture(scope="module")
def clouds(model, some, found):
    """``{site: {token: occurrences}}`` of all tokens, collected by another way through the kit."""
    tokens = found["hidden"].tokens.tolist()
    return {site: ek.collect_embeddings(model, some, tokens, site=site) for site in SITES}


def everything(clouds, site: str, layer: int) -> np.ndarray:
    own = [occurrences.at(layer) for occurrences in clouds[site].values()]
    return np.concatenate(own).astype(np.float64)


def close(ours: np.ndarray, theirs: np.ndarray, rtol: float = 1e-6) -> None:
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=rtol * np.abs(theirs).max())


@pytest.mark.parametrize("site", SITES)
def test_it_is_the_covariance_of_all_embeddings(found, clouds, site):
    stats = found[site]
    assert stats.covariance.shape == (len(stats.layers), *stats.mean.shape[-1:] * 2)
    for at, layer in enumerate(stats.layers):
        x = everything(clouds, site, layer)
        assert len(x) == stats.n.sum()
        # Batches of another composition: the model's own arithmetic differs in the last bits.
        close(stats.covariance[at], np.cov(x.T, bias=True), rtol=1e-5)
    V = stats.decomposition(min_count=1, max_count=None)["V"]
    np.testing.assert_allclose(np.trace(stats.covariance, axis1=1, axis2=2), V, rtol=1e-5)


def test_a_pass_without_it_is_as_it_was(model, some, found):
    plain = extract(model, some, covariance=False)["hidden"]
    assert plain.covariance is None and plain.isotropies is None
    for name in ("n", "Q", "M", "V", "mean", "extra"):
        np.testing.assert_array_equal(getattr(plain, name), getattr(found["hidden"], name))
    assert plain.info == found["hidden"].info
    with pytest.raises(ek.StatisticsError, match="extract with covariance=True"):
        plain.isotropy()
    assert "covariances" not in str(ek.plan(model, some))
    width, n_layers = model.width, len(plain.layers)
    work = ek.plan(model, some, covariance=True, sites=2)
    assert work.covariance_memory == 2 * n_layers * width**2 * 8
    assert "for the covariances" in str(work)


def test_parts_merge_to_the_covariance_of_the_whole(model, some, found):
    parts = [extract(model, part)["hidden"] for part in (some[:10], some[10:])]
    close(parts[0].merge(parts[1]).covariance, found["hidden"].covariance)
    stream = StreamedCorpus("s", lambda: (("t", i, s) for i, s in enumerate(some, 1)), chunk=12)
    close(extract(model, stream)["unit"].covariance, found["unit"].covariance)
    without = extract(model, some[10:], covariance=False)["hidden"]
    assert parts[0].merge(without).covariance is None


def test_groups_that_are_not_measured_are_not_in_it(model, some, clouds):
    stats = extract(model, some, min_count=3)["hidden"]
    kept = [clouds["hidden"][token].at(1) for token in stats.tokens]
    close(stats.covariance[1], np.cov(np.concatenate(kept).T, bias=True), rtol=1e-5)
    words = extract(model, some, by="word")["hidden"]
    whole = words.decomposition(min_count=1, max_count=None)
    np.testing.assert_allclose(np.trace(words.covariance[2]), whole["V"][2], rtol=1e-5)


def test_the_device_form_gives_the_same(model, some, found, monkeypatch):
    monkeypatch.setattr("embvar_kit.moments.memory.HOST_MOMENTS", ())
    whole = extract(model, some)
    for site in SITES:
        close(whole[site].covariance, found[site].covariance)
    update, failed = DeviceCovariance.update, []

    def little(self, x, rows):
        if len(rows) > 30:
            failed.append(len(rows))
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        update(self, x, rows)

    monkeypatch.setattr(DeviceCovariance, "update", little)
    close(extract(model, some)["unit"].covariance, found["unit"].covariance)
    assert failed, "batches are taken in halves where memory ends"


def test_shards_merge_to_it(model, found, some, tmp_path):
    blocks = [f"article {at // 5}" for at in range(len(some))]
    articles = replace(some, titles=blocks, unit="sentence")
    whole = extract(model, articles, shards=3, store=tmp_path)
    for site in SITES:
        assert whole[site].n.sum() == found[site].n.sum()
        close(whole[site].covariance, found[site].covariance)
    with pytest.raises(ek.CheckpointError, match="covariance=True"):
        extract(model, articles, shards=3, store=tmp_path, covariance=False)
    plain = extract(model, articles, shards=3, store=tmp_path / "plain", covariance=False)
    assert plain["unit"].covariance is None


def test_it_is_saved_and_loaded(found, tmp_path):
    stats = found["hidden"]
    stats.save(tmp_path)
    again = ek.TokenStatistics.load(tmp_path)
    np.testing.assert_array_equal(again.covariance, stats.covariance)
    assert len(list(tmp_path.glob("covariance-*.safetensors"))) == 1
    ek.TokenStatistics.load(tmp_path).compact().save(tmp_path)
    assert not list(tmp_path.glob("covariance-*")), "the files that were replaced are removed"
    small = ek.TokenStatistics.load(tmp_path)
    assert small.covariance is None
    assert small.isotropy().equals(stats.isotropy())


def test_a_damaged_file_of_it_is_named(found, tmp_path):
    found["hidden"].save(tmp_path)
    (path,) = tmp_path.glob("covariance-*")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ek.StatisticsFileError, match=r"covariance-.*altered"):
        ek.TokenStatistics.load(tmp_path)


def test_a_part_of_the_tokens_does_not_keep_it(found):
    stats = found["hidden"]
    everyone = stats.take(np.arange(len(stats))[::-1])
    np.testing.assert_array_equal(everyone.covariance, stats.covariance)
    for part in (stats.without(["the"]), stats.compact().without(["the"])):
        with pytest.raises(ek.StatisticsError, match="leaving tokens out drops it"):
            part.isotropy()
    # Compact statistics do not list all tokens, so that this may be one of them.
    with pytest.raises(ek.StatisticsError, match="leaving tokens out drops it"):
        stats.compact().without(["no such token"]).isotropy()
    assert stats.without(["no such token"]).isotropy().equals(stats.isotropy())


# What follows from it, and from the means


def test_isotropy_is_that_of_the_embeddings(found, clouds):
    table = found["hidden"].isotropy()
    assert table["layer"].tolist() == found["hidden"].layers.tolist()
    for row in table.itertuples():
        x = everything(clouds, "hidden", row.layer)
        lengths = np.linalg.svd(x - x.mean(axis=0), compute_uv=False)
        share = lengths**2 / np.sum(lengths**2)
        assert row.V == pytest.approx(np.sum(lengths**2) / len(x), rel=1e-5)
        assert row.largest == pytest.approx(share[0], rel=1e-5)
        assert row.participation_ratio == pytest.approx(1 / np.sum(share**2), rel=1e-5)
        assert row.effective_rank == pytest.approx(np.exp(scipy_stats.entropy(lengths)), rel=1e-4)
        assert row.isoscore == pytest.approx((row.participation_ratio - 1) / (x.shape[1] - 1))


def test_directions_are_those_of_each_token(found, clouds):
    table = found["unit"].directions(1, min_count=4)
    assert list(table) == ["token", "n", "norm", "kappa", "diversity"] and len(table) > 10
    for row in table.itertuples():
        x = clouds["unit"][row.token].at(1).astype(np.float64)
        assert row.n == len(x) >= 4
        assert row.norm == pytest.approx(np.linalg.norm(x.mean(axis=0)), abs=1e-5)
    d, R = found["unit"].mean.shape[-1], table["norm"]
    V = found["unit"].table(1, min_count=4)["V"]
    np.testing.assert_allclose(table["kappa"], R * (d - R**2) / V, rtol=1e-12)
    np.testing.assert_allclose(table["diversity"], 1 / table["kappa"])
    corrected = found["unit"].directions(1, min_count=4, unbiased=True)
    M = found["unit"].table(1, min_count=4, unbiased=True)["M"]
    np.testing.assert_allclose(corrected["norm"], np.sqrt(M.clip(lower=0)))
    small = found["unit"].compact(min_count=4).directions(1, min_count=4)
    np.testing.assert_allclose(small["norm"], table["norm"], rtol=1e-6)


def test_directions_and_their_dimensions_need_directions(found):
    for refused in (found["hidden"].directions, found["hidden"].dimension_shares):
        with pytest.raises(ek.StatisticsError, match=r"site 'hidden'.*site='unit'"):
            refused(1)


def test_dimension_shares_are_those_of_the_mean_of_all_directions(found, clouds):
    table = found["unit"].dimension_shares(2)
    mean = everything(clouds, "unit", 2).mean(axis=0)
    shares = mean**2 / np.sum(mean**2)
    assert table["share"].is_monotonic_decreasing
    close(table.sort_values("dimension")["share"].to_numpy(), shares, rtol=1e-4)
    close(table.sort_values("dimension")["mean"].to_numpy(), mean, rtol=1e-5)


def test_frequency_dimensions_are_correlations_over_tokens(found):
    stats = found["hidden"]
    table = stats.frequency_dimensions(1, min_count=3, special=False)
    assert table["correlation"].abs().is_monotonic_decreasing
    kept = (stats.n >= 3) & ~stats.special
    for row in table.head(5).itertuples():
        x = stats.mean[1, kept, row.dimension]
        r = np.corrcoef(x, np.log(stats.n[kept]))[0, 1]
        assert row.correlation == pytest.approx(r, abs=1e-6)


def test_information_gain_is_a_whitened_norm(found, clouds):
    stats = found["hidden"]
    table = stats.information_gain(2, min_count=3)
    x = everything(clouds, "hidden", 2)
    inverse = np.linalg.pinv(np.cov(x.T, bias=True), rcond=measures.RANK, hermitian=True)
    assert len(table) == (stats.n >= 3).sum()
    for row in table.head(10).itertuples():
        apart = clouds["hidden"][row.token].at(2).mean(axis=0) - x.mean(axis=0)
        assert row.gain == pytest.approx(apart @ inverse @ apart / 2, rel=1e-2)
    # With the identity it is half the squared distance of the mean from that of all.
    plain = stats.information_gain(2, metric=np.eye(x.shape[1]), min_count=1)
    between = stats.decomposition(min_count=1, max_count=None)["V_B"][2]
    assert np.average(plain["gain"], weights=plain["n"]) == pytest.approx(between / 2, rel=1e-6)


def test_what_needs_the_means_says_so_of_compact_statistics(found):
    small = found["unit"].compact()
    for method in (small.dimension_shares, small.frequency_dimensions, small.information_gain):
        with pytest.raises(ek.StatisticsError, match="needs the token means"):
            method(1)
