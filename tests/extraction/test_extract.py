"""The pass against the model run by hand, sentence by sentence, on real weights and real text."""

import errno
import platform
import re
from collections import defaultdict
from importlib import metadata
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch
from brute_force import SequentialLoop, two_pass
from transformers import AutoModel, AutoTokenizer

import embvar_kit as ek
from embvar_kit.corpora.parts import StreamedCorpus
from embvar_kit.extraction import measure, onednn
from embvar_kit.models.bundled import BUNDLED
from embvar_kit.moments import memory

TEXT = [
    "The cat sat on the mat, and the dog looked on.",
    "Unbelievable embeddings vary; embedding them is believable.",
    "A transformer gives the same token a different vector in every context.",
    "Dogs bark.",
    "The the the the.",
]


@pytest.fixture(scope="module")
def corpus():
    return ek.load_corpus("wikipedia", limit=60, max_words=40)


@pytest.fixture(scope="module")
def whole(minilm, corpus):
    return ek.extract(minilm, corpus, progress=False)


@pytest.fixture(scope="module")
def by_hand():
    """``{layer: {token: (n, d) embeddings}}`` of :data:`TEXT`, with transformers alone."""
    folder = BUNDLED["minilm"].path
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder)
    found = defaultdict(lambda: defaultdict(list))
    for sentence in TEXT:
        encoded = tokenizer(sentence, return_tensors="pt", truncation=False)
        with torch.no_grad():
            states = model(**encoded, output_hidden_states=True).hidden_states
        for at, token in enumerate(tokenizer.convert_ids_to_tokens(encoded["input_ids"][0])):
            for layer, state in enumerate(states):
                found[layer][token.removeprefix("##")].append(state[0, at].numpy())
    return {
        layer: {token: np.array(xs) for token, xs in tokens.items()}
        for layer, tokens in found.items()
    }


def test_every_token_and_layer_is_what_the_model_gives_by_hand(minilm, by_hand):
    stats = ek.extract(minilm, ek.Corpus.of(TEXT), progress=False)
    assert stats.layers.tolist() == sorted(by_hand) == list(range(7))
    for layer, tokens in by_hand.items():
        table = stats.table(layer).set_index("token")
        assert set(table.index) == set(tokens)
        for token, x in tokens.items():
            row = table.loc[token]
            Q, M, V = two_pass(x)
            assert row.n == len(x)
            assert row.Q == pytest.approx(Q, rel=1e-5)
            assert row.M == pytest.approx(M, rel=1e-5)
            assert row.V == pytest.approx(V, rel=1e-4, abs=1e-6 * Q)
            at = stats.tokens.tolist().index(token)
            np.testing.assert_allclose(stats.mean[layer, at], x.mean(axis=0), atol=2e-5)


def test_agrees_with_the_papers_loop(minilm, by_hand):
    stats = ek.extract(minilm, ek.Corpus.of(TEXT), layers=[2], progress=False)
    tokens = sorted(by_hand[2])
    x = np.concatenate([by_hand[2][token] for token in tokens])
    groups = np.concatenate([[g] * len(by_hand[2][token]) for g, token in enumerate(tokens)])
    loop = SequentialLoop(np.float64)
    loop.update(x, groups)
    table = stats.table(2).set_index("token").loc[tokens]
    np.testing.assert_allclose(table.M, [loop.M(g) for g in range(len(tokens))], rtol=1e-5)
    np.testing.assert_allclose(
        table.V, [loop.V(g) for g in range(len(tokens))], rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("batch_tokens", [1, 100, 30_000])
def test_batch_size_and_order_do_not_matter(minilm, corpus, whole, batch_tokens):
    other = ek.extract(minilm, corpus[::-1], batch_tokens=batch_tokens, progress=False)
    assert whole.tokens.tolist() == other.tokens.tolist()
    np.testing.assert_array_equal(whole.n, other.n)
    for name in "QMV":
        np.testing.assert_allclose(
            getattr(other, name), getattr(whole, name), rtol=1e-5, atol=1e-5 * whole.Q.min()
        )


def test_the_variance_formula_holds_for_every_token_and_layer(whole):
    assert (np.abs(whole.Q - whole.M - whole.V) <= 1e-6 * whole.Q).all()
    assert (whole.V >= 0).all()
    np.testing.assert_array_equal(whole.V[:, whole.n == 1], 0)
    # [CLS] always has the same position and type, hence the same layer-0 embedding.
    assert whole.V[0, whole.tokens.tolist().index("[CLS]")] == 0


def test_merging_halves_gives_the_whole(minilm, corpus, whole):
    halves = [ek.extract(minilm, part, progress=False) for part in (corpus[:30], corpus[30:])]
    merged = halves[0].merge(halves[1])
    assert merged.tokens.tolist() == whole.tokens.tolist()
    for name in ("n", "Q", "M", "V"):
        np.testing.assert_allclose(
            getattr(merged, name), getattr(whole, name), rtol=1e-5, atol=1e-6 * whole.Q.min()
        )
    assert merged.info["counts"] == whole.info["counts"]


def test_a_stream_is_taken_in_chunks(minilm, corpus, whole):
    stream = StreamedCorpus(
        "stream", lambda: (("t", i, s) for i, s in enumerate(corpus, 1)), chunk=25
    )
    streamed = ek.extract(minilm, stream, progress=False)
    assert [len(chunk) for chunk in stream.chunks()] == [25, 25, 10]
    assert len(streamed.info["corpora"]) == 3
    np.testing.assert_array_equal(streamed.n, whole.n)
    np.testing.assert_allclose(streamed.V, whole.V, rtol=1e-5, atol=1e-6 * whole.Q.min())
    twice = StreamedCorpus(
        "twice", lambda: (("t", i, s) for i, s in enumerate([*corpus, *corpus], 1)), chunk=60
    )
    np.testing.assert_array_equal(ek.extract(minilm, twice, progress=False).n, 2 * whole.n)
    empty = StreamedCorpus("nothing", lambda: iter(()), chunk=5)
    with pytest.raises(ek.ExtractionError, match="'nothing' yields no sentence"):
        ek.extract(minilm, empty, progress=False)


def test_layers_can_be_chosen(minilm):
    corpus = ek.Corpus.of(TEXT)
    whole = ek.extract(minilm, corpus, progress=False)
    some = ek.extract(minilm, corpus, layers=[-1, 2], progress=False)
    assert some.layers.tolist() == [2, 6]
    np.testing.assert_array_equal(some.V, whole.V[[2, 6]])
    for layers, message in (([7], "there is no 7"), ([], "layers is empty")):
        with pytest.raises(ek.ExtractionError, match=message):
            ek.extract(minilm, corpus, layers=layers, progress=False)


def test_groups_are_strings_or_ids(minilm):
    corpus = ek.Corpus.of(["bank banks unbank"])
    by_token = ek.extract(minilm, corpus, layers=[0], progress=False)
    by_id = ek.extract(minilm, corpus, layers=[0], by="id", progress=False)
    assert "##bank" in by_id.tokens.tolist() and "##bank" not in by_token.tokens.tolist()
    assert by_token.n.sum() == by_id.n.sum() == 6
    assert by_token.table(0).set_index("token").loc["bank", "n"] == 2
    for option in (
        {"by": "colour"},
        {"site": "nowhere"},
        {"site": ["hidden", "nowhere"]},
        {"site": []},
        {"batch_tokens": 0},
        {"long": "drop"},
    ):
        with pytest.raises(ek.ExtractionError):
            ek.extract(minilm, corpus, progress=False, **option)


def test_several_sites_come_from_one_pass(minilm, monkeypatch):
    corpus = ek.Corpus.of(TEXT * 3)
    alone = ek.extract(minilm, corpus, layers=[1, 6], progress=False)
    passes = []
    whole = measure.forward
    monkeypatch.setattr(measure, "forward", lambda *a, **k: passes.append(1) or whole(*a, **k))
    found = ek.extract(minilm, corpus, site=["hidden", "unit"], layers=[1, 6], progress=False)
    assert list(found) == ["hidden", "unit"] and len(passes) == 1
    np.testing.assert_array_equal(found["hidden"].V, alone.V)
    np.testing.assert_array_equal(found["hidden"].mean, alone.mean)
    assert [stats.info["convention"]["site"] for stats in found.values()] == ["hidden", "unit"]


def test_unit_embeddings_are_the_directions(minilm):
    corpus = ek.Corpus.of(TEXT)
    stats = ek.extract(minilm, corpus, site="unit", layers=[6], progress=False)
    for token, occurrences in ek.collect_embeddings(minilm, corpus, stats.tokens).items():
        x = occurrences.at(6).astype(float)
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        row = stats.table(6).set_index("token").loc[token]
        assert (row.Q, row.M, row.V) == pytest.approx(two_pass(x), rel=1e-4, abs=1e-7)
    with pytest.raises(ek.StatisticsError, match="convention site"):
        stats.merge(ek.extract(minilm, corpus[:1], layers=[6], progress=False))


def test_the_device_form_takes_several_sites_too(minilm, monkeypatch):
    corpus = ek.Corpus.of(TEXT)
    sites = ["unit", "hidden"]
    plain = ek.extract(minilm, corpus, site=sites, layers=[3], progress=False)
    monkeypatch.setattr("embvar_kit.moments.memory.HOST_MOMENTS", ())
    device = ek.extract(minilm, corpus, site=sites, layers=[3], progress=False)
    for site in sites:
        np.testing.assert_allclose(device[site].V, plain[site].V, rtol=1e-9, atol=1e-12)


def test_long_sentences_are_split_or_cut_and_reported(minilm, capsys):
    corpus = ek.Corpus.of(["word " * 1200, "short"])
    split = ek.extract(minilm, corpus, layers=[0])
    assert "1 sentence split" in capsys.readouterr().out
    assert split.info["counts"]["split"] == 1 and split.info["counts"]["sequences"] == 4
    assert split.table(0).set_index("token").loc["word", "n"] == 1200
    cut = ek.extract(minilm, corpus, layers=[0], long="cut")
    assert "1 sentence cut" in capsys.readouterr().out
    assert cut.table(0).set_index("token").loc["word", "n"] == 510
    with pytest.raises(ek.ExtractionError, match=r"sentences, sentence 1\) is longer than the 510"):
        ek.extract(minilm, corpus, layers=[0], long="error")


def test_plan_and_summary_are_printed(minilm, capsys):
    stats = ek.extract(minilm, ek.Corpus.of(TEXT))
    out = capsys.readouterr().out
    assert re.search(r"^sentences +5, 5 sequences$", out, re.M)
    assert re.search(rf"^tokens +{stats.n.sum()}, {len(stats)} different$", out, re.M)
    assert re.search(r"^done +in [\d.]+ s, [\d,]+ tokens/s$", out, re.M)
    assert "tok/s" in out  # the bar
    ek.extract(minilm, ek.Corpus.of(TEXT), progress=False)
    assert capsys.readouterr().out == ""


def test_the_result_says_what_was_measured(minilm, corpus):
    info = ek.extract(minilm, corpus, layers=[1], progress=False).info
    assert info["model"]["name"] == "minilm"
    assert info["model"]["revision"].startswith("sha256:53aa51172d14")
    assert info["model"]["last_state_normalized_by"] == "LayerNorm"
    assert info["corpora"][0]["fingerprint"] == corpus.fingerprint
    assert info["corpora"][0]["settings"] == {"max_words": 40, "limit": 60}
    convention = info["convention"]
    assert (convention["begin"], convention["end"]) == ("[CLS]", "[SEP]")
    assert convention["markers"] == ["##"] and convention["by"] == "token"
    assert info["kit_version"] == ek.__version__


def test_the_result_says_what_it_was_measured_with(corpus, tmp_path):
    libraries = ("torch", "transformers", "tokenizers", "numpy")
    versions = {name: metadata.version(name).partition("+")[0] for name in libraries}
    for kernel, enabled in (("sdpa", True), ("eager", False)):
        model = ek.load_model("minilm")
        model.module.set_attn_implementation(kernel)
        with torch.backends.mkldnn.flags(enabled=enabled):
            found = ek.extract(model, corpus, layers=[1], progress=False)
            packs = onednn.packs(model.module)
        assert not (packs and not enabled)
        assert found.info["environments"] == [
            {
                "attention": kernel,
                "packed_products": packs,
                "tokenizer_class": "BertTokenizer",
                "versions": {"embvar-kit": ek.__version__, **versions},
            }
        ]
        assert found.info["model"]["dtype"] == "float32"
        assert len(found.info["model"]["tokenizer"]) == 12, "the digest of the tokenizer"
        saved = ek.TokenStatistics.load(found.save(tmp_path / kernel))
        assert saved.info == found.info


@pytest.mark.parametrize("kept", [("cpu",), ()], ids=["host", "device form"])
def test_a_model_that_overflows_stops_with_layer_sentence_and_remedy(corpus, monkeypatch, kept):
    monkeypatch.setattr("embvar_kit.moments.memory.HOST_MOMENTS", kept)
    model = ek.load_model("minilm", device="cpu")
    with torch.no_grad():
        model.module.encoder.layer[2].output.LayerNorm.weight.fill_(torch.inf)
    with pytest.raises(ek.ExtractionError, match=r"in layer 3 for .*, sentence \d+.*float32"):
        ek.extract(model, corpus, progress=False)


def without_memory(monkeypatch):
    """Make the kit believe that the machine has a kilobyte of free memory."""
    now = SimpleNamespace(available=1000, total=psutil.virtual_memory().total)
    monkeypatch.setattr("psutil.virtual_memory", lambda: now)


@pytest.mark.parametrize("sites", ["hidden", ["hidden", "unit"]], ids=["one site", "two"])
def test_means_larger_than_the_memory_lie_in_a_file(minilm, monkeypatch, capsys, sites):
    corpus = ek.Corpus.of(TEXT)
    plain = ek.extract(minilm, corpus, site=sites, progress=False)
    without_memory(monkeypatch)
    mapped = ek.extract(minilm, corpus, site=sites)
    assert "in a file on the disk: they need more than the free memory" in capsys.readouterr().out
    if isinstance(sites, str):
        plain, mapped = {sites: plain}, {sites: mapped}
    for site in plain:
        assert isinstance(mapped[site].mean.base, np.memmap)
        for name in ("n", "Q", "M", "V", "mean", "extra"):
            np.testing.assert_array_equal(getattr(mapped[site], name), getattr(plain[site], name))


def test_means_that_fit_nowhere_are_refused_before_the_model_runs(minilm, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    without_memory(monkeypatch)
    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(ek.ExtractionError, match=r"No space left.*fewer layers.*min_count"):
        ek.extract(minilm, ek.Corpus.of(TEXT), progress=False)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries do it unasked")
def test_memory_in_pieces_is_given_back():
    pieces = [np.ones(2**16, dtype=np.uint8) for _ in range(2000)]
    del pieces[::2]
    before = psutil.Process().memory_info().rss
    memory.give_back()
    assert before - psutil.Process().memory_info().rss > 30 * 2**20
    assert all(piece.all() for piece in pieces)


def test_rare_tokens_can_be_left_out(minilm, corpus, capsys, whole):
    some = ek.extract(minilm, corpus, min_count=3)
    kept = whole.n >= 3
    assert f"{whole.n[~kept].sum():,} occurrences" in capsys.readouterr().out
    assert some.tokens.tolist() == whole.tokens[kept].tolist()
    for name in ("Q", "M", "V", "mean"):
        np.testing.assert_array_equal(getattr(some, name), getattr(whole, name)[:, kept])
    assert some.info["counts"]["occurrences"] == whole.n[kept].sum()
    with pytest.raises(ek.StatisticsError, match="were measured only for the tokens with n_t >= 3"):
        some.table(2)
    assert len(some.table(2, min_count=3)) == kept.sum()
    with pytest.raises(ek.StatisticsError, match=r"n_t >= 3 cannot be merged"):
        some.merge(ek.extract(minilm, corpus[:5], min_count=3, progress=False))


def test_rare_words_can_be_left_out(minilm, corpus):
    whole = ek.extract(minilm, corpus, by="word", layers=[2], progress=False)
    some = ek.extract(minilm, corpus, by="word", layers=[2], min_count=4, progress=False)
    kept = whole.n >= 4
    assert some.tokens.tolist() == whole.tokens[kept].tolist()
    np.testing.assert_array_equal(some.subwords, whole.subwords[kept])
    np.testing.assert_array_equal(some.V, whole.V[:, kept])


def test_a_least_count_that_makes_no_sense_is_refused(minilm, corpus):
    for least, message in ((0, "whole number from 1"), (10**9, "No token of corpus 'wikipedia'")):
        with pytest.raises(ek.ExtractionError, match=message):
            ek.extract(minilm, corpus, min_count=least, progress=False)
    stream = StreamedCorpus("stream", lambda: iter(()), chunk=25)
    with pytest.raises(ek.ExtractionError, match="not known before its end"):
        ek.extract(minilm, stream, min_count=2, progress=False)


def test_the_device_form_of_a_pass_gives_the_same(minilm, corpus, whole, monkeypatch):
    """The GPU's code, run on the CPU: moments stay tensors until the end."""
    monkeypatch.setattr("embvar_kit.moments.memory.HOST_MOMENTS", ())
    device = ek.extract(minilm, corpus, progress=False)
    np.testing.assert_array_equal(device.n, whole.n)
    np.testing.assert_allclose(device.V, whole.V, rtol=1e-9, atol=1e-12)
    # The two sum in different orders. A mean near zero carries the rounding of the larger ones that
    # led to it, 2**-32 of them a batch; so it is held against the size of an element.
    apart = np.abs(device.mean.astype(float) - whole.mean)
    element = np.sqrt(whole.Q / whole.mean.shape[-1])[:, :, None]
    assert (apart <= np.spacing(np.abs(whole.mean)) + 2.0**-30 * element).all()


def test_rows_without_text_are_told_by_the_plan_and_recorded(minilm, tmp_path, capsys):
    table = "text,n\nThe cat sat on the mat.,1\n,2\n,3\nA dog barked.,4\n"
    (tmp_path / "a.csv").write_text(table)
    corpus = ek.load_corpus(tmp_path / "a.csv")
    stats = ek.extract(minilm, corpus)
    assert "left out   2 rows of the table without text" in capsys.readouterr().out
    assert stats.info["corpora"][0]["without_text"] == 2
    stats.save(tmp_path / "out")
    assert ek.TokenStatistics.load(tmp_path / "out").info == stats.info
    (tmp_path / "a.csv").write_text("text,n\nThe cat sat on the mat.,1\n")
    stats = ek.extract(minilm, ek.load_corpus(tmp_path / "a.csv"))
    assert "without text" not in capsys.readouterr().out
    assert "without_text" not in stats.info["corpora"][0]
