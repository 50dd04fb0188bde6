"""The statistics shipped with the kit are those that the model gives today."""

import numpy as np
import pytest
from brute_force import two_pass
from paths import ROOT

import embvar_kit as ek
from embvar_kit.models.bundled import BUNDLED

FOLDER = ROOT / "data" / "stats" / "smollm2-wikipedia"
ORDINARY = ROOT / "data" / "stats" / "smollm2-wikipedia-ordinary"


@pytest.fixture(scope="module")
def shipped():
    return {site: ek.TokenStatistics.load(FOLDER / site) for site in ("hidden", "unit")}


@pytest.fixture(scope="module")
def six(shipped):
    """The largest tokens that are not of high norm at layer 15, which decide in notebook 4."""
    hidden = shipped["hidden"]
    rest = hidden.without(hidden.high_norm(peak=True)["token"]).table(15, min_count=10)
    return rest.set_index("token")["Q"].nlargest(6).index


def test_they_say_what_was_measured(shipped, excerpt):
    for site, stats in shipped.items():
        assert stats.info["convention"]["site"] == site
        assert stats.info["corpora"][0]["fingerprint"] == excerpt.fingerprint
        sha256 = BUNDLED["smollm2"].weights_sha256
        assert stats.info["model"]["revision"] == f"sha256:{sha256[:12]}"
        assert len(stats.layers) == stats.info["model"]["n_states"] == 31
    for name in ("tokens", "n", "special"):
        np.testing.assert_array_equal(
            getattr(shipped["hidden"], name), getattr(shipped["unit"], name)
        )


def test_they_have_intervals_and_a_null(shipped, smollm2, six):
    shared = ek.tokens.group_vocabulary(smollm2.tokenizer).shared
    hidden = shipped["hidden"]
    high = hidden.high_norm(peak=True)["token"]
    far = [hidden.high_norm(factor=factor, peak=True)["token"] for factor in (1000, 100, 30, 5)]
    both = ["hidden", "unit"]
    # Without shared strings a token has one embedding at layer 0, whose norm is 1 at "unit".
    for left_out, sites in (
        ((), both),
        (high, both),
        (shared, ["hidden"]),
        ([*high, *shared], ["hidden"]),
        ([*high, *six], ["hidden"]),
        *((names, ["hidden"]) for names in far),
    ):
        for stats in (shipped[site] for site in sites):
            found = stats.without(left_out).tradeoff(intervals=True)
            assert (found["slope_low"] <= found["slope"]).all()
            assert (found["slope"] <= found["slope_high"]).all()
    assert len(shipped["hidden"].evidence()) == len(shipped["unit"].evidence()) == 31
    assert shipped["unit"].anisotropy(intervals=True)["self_similarity_high"].notna().all()


@pytest.mark.slow
def test_smollm2_gives_the_same_again_on_a_slice_of_sentences(shipped, excerpt, smollm2):
    """Runs all sentences that contain one of a few rare tokens and compares their statistics."""
    hidden = shipped["hidden"]
    rare = np.flatnonzero((hidden.n == 10) & ~hidden.special)
    tokens = hidden.tokens[rare[:: len(rare) // 2][:2]].tolist()
    high = hidden.high_norm(peak=True).query("n <= 12")["token"].iloc[0]
    found = ek.collect_embeddings(smollm2, excerpt, [*tokens, high])
    assert hidden.info["model"]["normalization"] == smollm2.normalization
    for token, occurrences in found.items():
        at = int(np.flatnonzero(hidden.tokens == token)[0])
        assert len(occurrences) == hidden.n[at]
        for i, layer in enumerate(hidden.layers):
            x = occurrences.at(int(layer)).astype(float)
            for stats, vectors in (
                (hidden, x),
                (shipped["unit"], x / np.linalg.norm(x, axis=1, keepdims=True)),
            ):
                Q, M, V = two_pass(vectors)
                assert (stats.Q[i, at], stats.M[i, at]) == pytest.approx((Q, M), rel=1e-3)
                assert stats.V[i, at] == pytest.approx(V, rel=5e-3, abs=1e-5 * Q)


@pytest.mark.slow
def test_counts_are_those_of_smollm2s_tokens(shipped, excerpt, smollm2):
    stats, work = shipped["hidden"], ek.plan(smollm2, excerpt)
    kept = work.n >= 10
    np.testing.assert_array_equal(stats.tokens, work.labels[kept])
    np.testing.assert_array_equal(stats.n, work.n[kept])
    np.testing.assert_array_equal(stats.special, work.special[kept])
    assert stats.info["counts"]["tokens"] == work.n_tokens


def test_tables_and_decompositions_agree(shipped):
    for stats in shipped.values():
        np.testing.assert_allclose(stats.Q, stats.M + stats.V, rtol=1e-5)
        for part in (stats, stats.without(shipped["hidden"].high_norm()["token"])):
            for special in (True, False):
                split = part.decomposition(special=special)
                np.testing.assert_allclose(split["Q"], split["M"] + split["V"], rtol=1e-5)
                np.testing.assert_allclose(split["V"], split["V_W"] + split["V_B"], rtol=1e-9)
                for row in split.itertuples():
                    table = part.table(row.layer, min_count=10, max_count=100_000, special=special)
                    weight = table["n"] / table["n"].sum()
                    assert weight @ table["Q"] == pytest.approx(row.Q, rel=1e-5)
                    assert weight @ table["V"] == pytest.approx(row.V_W, rel=1e-5)


# Without first positions and high norms, with null and folds


@pytest.fixture(scope="module")
def ordinary():
    return ek.TokenStatistics.load(ORDINARY / "hidden")


def test_the_ordinary_occurrences_keep_intervals_without_some_tokens(ordinary, smollm2, six):
    shared = ek.tokens.group_vocabulary(smollm2.tokenizer).shared
    for left_out in ((), shared, six):
        part = ordinary.without(left_out)
        for found, name in (
            (part.tradeoff(intervals=True), "slope"),
            (part.frequency_slopes(unbiased=True, intervals=True), "M"),
        ):
            assert (found[f"{name}_low"] <= found[name]).all()
            assert (found[name] <= found[f"{name}_high"]).all()
    alone = ordinary.without(shared).evidence(null=ordinary.null.without(shared))
    low, high = alone.set_index("layer").loc[29, ["slope_low", "slope_high"]]
    assert low < 0 < high  # what notebook 4 says of layer 29


def test_the_ordinary_occurrences_come_with_a_null_and_intervals(ordinary, shipped, excerpt):
    left_out = ordinary.info["convention"]["leave_out"]
    assert (left_out["first"], left_out["found"]["norm"]) == (1, 10)
    assert ordinary.info["corpora"][0]["fingerprint"] == excerpt.fingerprint
    assert "<|im_start|>" not in ordinary.tokens and ordinary.high_norm().empty
    whole = dict(zip(shipped["hidden"].tokens, shipped["hidden"].n, strict=True))
    assert all(n <= whole[token] for token, n in zip(ordinary.tokens, ordinary.n, strict=True))
    found = ordinary.evidence(null=ordinary.null).set_index("layer")
    held = found["survives"]
    assert held.index[~held].tolist() == [1]  # what notebook 4 rests on
    steeper = ordinary.null.tradeoff().set_index("layer")["slope"] < found["slope"]
    assert steeper.index[steeper].tolist() == [0, *range(22, 31)]
    assert len(ordinary.null.tokens) and ordinary.null.info["permuted"]
    assert ordinary.decomposition(intervals=True)["V_W/V_low"].notna().all()


@pytest.mark.slow
def test_the_ordinary_occurrences_are_those_that_are_left(ordinary, excerpt, smollm2):
    bounds = np.array(list(ordinary.info["convention"]["leave_out"]["bounds"].values()))
    rare = np.flatnonzero((ordinary.n == 10) & ~ordinary.special)
    tokens = ordinary.tokens[rare[:: len(rare) // 2][:2]].tolist()
    found = ek.collect_embeddings(smollm2, excerpt, tokens)
    for token, occurrences in found.items():
        x = np.stack([occurrences.at(int(layer)) for layer in ordinary.layers]).astype(float)
        kept = ((x**2).sum(axis=2) < bounds[:, None]).all(axis=0) & (occurrences.position > 0)
        at = int(np.flatnonzero(ordinary.tokens == token)[0])
        assert kept.sum() == ordinary.n[at]
        for i, vectors in enumerate(x[:, kept]):
            Q, M, V = two_pass(vectors)
            assert (ordinary.Q[i, at], ordinary.M[i, at]) == pytest.approx((Q, M), rel=1e-3)
            assert ordinary.V[i, at] == pytest.approx(V, rel=5e-3, abs=1e-5 * Q)
