"""All figures and their page: what is written, what the page says, what is left out and why."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import matplotlib.pyplot as plt
import numpy as np
import pytest

import embvar_kit as ek
from embvar_kit import atlas
from embvar_kit.extraction import embeddings
from embvar_kit.figures.atlas import Entry, page

COUNTS = {"min_count": 5}


class Page(HTMLParser):
    """What a page refers to, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.images, self.links, self.names, self.sources, self.text = {}, [], [], [], ""
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        if "id" in found:
            self.names.append(found["id"])
        if tag == "img":
            self.images[found["src"]] = found["alt"]
        if tag == "a":
            self.links.append(found["href"])
        if tag in ("script", "link", "iframe"):
            self.sources.append(tag)

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def sites(minilm):
    corpus, sites = ek.load_corpus("wikipedia", limit=100), ["hidden", "unit"]
    return ek.extract(minilm, corpus, site=sites, layers=[0, 3, 6], progress=False)


@pytest.fixture(scope="module")
def shallow(loaded):
    return ek.extract(loaded("gpt2"), ek.load_corpus("wikipedia", limit=100), progress=False)


@pytest.fixture(scope="module")
def written(sites, tmp_path_factory):
    """The figures of one model, and their folder."""
    plt.close("all")  # what other tests left
    folder = tmp_path_factory.mktemp("atlas") / "deep" / "out"
    return atlas.write(list(sites.values()), folder, **COUNTS), folder


@pytest.mark.slow
def test_every_figure_is_written_and_shown(written):
    entries, folder = written
    shown = Page((folder / "index.html").read_text(encoding="utf-8"))
    drawn = [entry for entry in entries if entry.reason is None]
    assert len(drawn) == len(entries) - 1
    assert list(shown.images) == [f"{entry.name}.png" for entry in drawn]
    contents = [*(f"#{entry.name}" for entry in drawn), "#not-drawn"]
    assert shown.links == contents + [name for entry in drawn for name in entry.files]
    assert set(contents) == {f"#{name}" for name in shown.names}
    assert not shown.sources
    for entry in drawn:
        png, svg = ((folder / name).read_bytes() for name in entry.files)
        assert png.startswith(b"\x89PNG")
        assert ElementTree.fromstring(svg).tag == "{http://www.w3.org/2000/svg}svg"
        assert len(shown.images[f"{entry.name}.png"].split()) > 3
        assert len(entry.see.split()) > 5
        assert entry.paper in shown.text
    assert not plt.get_fignums()


@pytest.mark.slow
def test_the_figures_are_those_of_the_paper(written):
    entries, _ = written
    papers = list(dict.fromkeys(entry.paper for entry in entries if entry.paper))
    assert papers == [name for name in ek.figures.PAPER if name.startswith("Fig")]
    table = next(entry for entry in entries if entry.paper == "Fig. 8").numbers[0]
    assert table[0].startswith("Table 2")
    assert {"token", "n", "Q", "M", "V", "bin"} == set(table[1].columns)


@pytest.mark.slow
def test_what_is_not_drawn_is_listed_with_the_reason(written):
    entries, folder = written
    (words,) = [entry for entry in entries if entry.reason is not None]
    assert words.paper == "Fig. 22"
    shown = Page((folder / "index.html").read_text(encoding="utf-8")).text
    assert "Fig. 22: Words" in shown
    assert "not by word: extract with by='word'" in shown


@pytest.mark.slow
def test_the_page_holds_the_numbers(written, sites):
    shown = Page((written[1] / "index.html").read_text(encoding="utf-8")).text
    for row in sites["hidden"].tradeoff(**COUNTS).itertuples():
        assert f"{row.slope:.3f}" in shown
    assert "Tokens with 5 ≤ nt ≤ 100,000; M, V and VB as measured." in shown
    assert "No interval: these statistics have no folds (embvar extract --folds 20)." in shown
    stats = sites["hidden"]
    assert f"{stats.n.sum():,} of {len(stats):,} tokens" in shown


@pytest.fixture(scope="module")
def folded(tiny):
    model, corpus = ek.load_model(tiny("bert"), device="cpu"), ek.load_corpus("wikipedia")
    return ek.extract(model, corpus[::100], null=True, folds=6, progress=False)


def of_tradeoff(statistics, folder, monkeypatch, **choice):
    """Caption and table of the figures of the trade-off, drawn without the others."""
    monkeypatch.setattr(atlas, "DRAWINGS", [one for one in atlas.DRAWINGS if one.found])
    (entry,) = atlas.write(statistics, folder, embeddings=False, **choice)
    return entry.see, atlas._by_layer(statistics, 10, 100_000, False)


def test_the_slope_comes_with_its_interval_and_the_nulls(folded, tmp_path, monkeypatch):
    see, table = of_tradeoff(folded, tmp_path, monkeypatch)
    fit = folded.tradeoff(intervals=True).set_index("layer").loc[1]
    null = folded.null.tradeoff().set_index("layer").loc[1]
    words = f"layer 1: slope {fit.slope:.2f}, 95 % interval {fit.slope_low:.2f} to "
    assert see.endswith(f"{words}{fit.slope_high:.2f}; with labels permuted, {null.slope:.2f}.")
    wanted = folded.tradeoff(intervals=True)
    for name in ("slope", "slope_low", "slope_high", "r2"):
        assert table[name].tolist() == wanted[name].tolist()
    assert table["null_slope"].tolist() == folded.null.tradeoff()["slope"].tolist()
    see, _ = of_tradeoff(folded, tmp_path, monkeypatch, min_count=5)
    assert "95 %" not in see and "No interval: Folds are kept for tokens with n_t >= 10" in see


def test_a_layer_without_a_line_costs_no_other_its_figure(folded, tmp_path, monkeypatch):
    Q, M, V = folded.Q.copy(), folded.M.copy(), folded.V.copy()
    Q[0], M[0], V[0] = 1, 1, 0
    flat = replace(folded, Q=Q, M=M, V=V)
    monkeypatch.setattr(atlas, "DRAWINGS", [one for one in atlas.DRAWINGS if one.found])
    (entry,) = atlas.write(flat, tmp_path, embeddings=False)
    assert entry.reason is None and "No interval: " in entry.see


@pytest.mark.slow
def test_the_same_statistics_give_the_same_vectors_with_text_as_text(written, sites, tmp_path):
    _, folder = written
    again = atlas.write(list(sites.values()), tmp_path, embeddings=False, **COUNTS)
    compared = 0
    for entry in again:
        for name in entry.files:
            if name.endswith(".svg"):
                assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()
                compared += 1
    assert compared > 15
    svg = (folder / "fig-04-tradeoff-by-layer.svg").read_text(encoding="utf-8")
    assert "minilm</text>" in svg
    assert re.search(r"<dc:date>", svg) is None
    assert next(entry for entry in again if entry.paper == "Fig. 1").reason.endswith(
        "(--no-embeddings)."
    )


@pytest.mark.slow
def test_several_models_side_by_side_and_each(sites, shallow, tmp_path):
    given = [sites["hidden"], shallow]
    entries = atlas.write(given, tmp_path, unbiased=True, embeddings=False, **COUNTS)
    names = [entry.name for entry in entries]
    assert len(set(names)) == len(names)
    label = shallow.info["model"]["name"]
    assert {"fig-11-layers-minilm", f"fig-11-layers-{label}"} <= set(names)
    assert names.count("fig-04-tradeoff-by-layer") == 1
    both = next(entry for entry in entries if entry.name == "fig-04-tradeoff-by-layer")
    assert [title for title, _ in both.numbers] == [
        "The numbers: minilm",
        f"The numbers: {label}",
    ]
    unbiased = given[1].tradeoff(unbiased=True, **COUNTS)
    assert both.numbers[1][1].equals(unbiased)


@pytest.mark.slow
def test_high_norm_tokens_are_left_out_where_asked(sites, tmp_path):
    stats = sites["hidden"]
    Q = stats.Q.copy()
    Q[:, 0] *= 1000
    odd = replace(stats, Q=Q)
    both = [sites["unit"], odd]
    entries = atlas.write(both, tmp_path, without_high_norm=True, embeddings=False, **COUNTS)
    assert not any("logarithmic" in entry.name for entry in entries)
    shown = Page((tmp_path / "index.html").read_text(encoding="utf-8")).text
    # The token is left out of the unit vectors of the same pass, too.
    assert shown.count("(1 token left out)wikipedia") == 2
    assert shown.count(f"“{stats.tokens[0]}”") == 2


@pytest.mark.slow
def test_where_tokens_differ_by_orders_of_magnitude_axes_are_logarithmic(sites, tmp_path):
    stats = sites["hidden"]
    Q, V = stats.Q.copy(), stats.V.copy()
    Q[:, 0] = 8 * np.median(Q[:, stats.n >= 10], axis=1)
    V[:, 0] = Q[:, 0] - stats.M[:, 0]
    odd = replace(stats, Q=Q, V=V)
    assert odd.high_norm(min_count=COUNTS["min_count"]).empty
    entries = atlas.write(odd, tmp_path, without_sinks=True, embeddings=False, **COUNTS)
    (added,) = [entry for entry in entries if "logarithmic" in entry.name]
    assert added.reason is None


@pytest.mark.slow
def test_captions_say_which_tokens_compact_statistics_lack(sites, tmp_path):
    entries = atlas.write(sites["hidden"].compact(), tmp_path, embeddings=False)
    lacking = "these statistics hold those with n_t ≥ 10"
    said = {entry.paper for entry in entries if lacking in entry.see}
    assert said == {"Fig. 2", "Fig. 7", "Fig. 8", "Figs. 11-13", "Figs. 14-16", "Fig. 22"}
    assert [entry.paper for entry in entries if entry.reason] == ["Fig. 1", "Fig. 22", ""]


def test_a_folder_that_cannot_be_written(sites, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ek.StatisticsError, match="cannot be written to"):
        atlas.write(sites["hidden"], tmp_path / "file" / "out")


def test_texts_and_names_are_escaped(sites):
    stats = sites["hidden"]
    info = {**stats.info, "model": {**stats.info["model"], "name": "<script>"}}
    entry = Entry("a", "Fig. 1", "<b>& V_B", "see <i>", 'alt "x"', files=("a.png",))
    missing = Entry("b", "", "no", "", "", reason="<script>")
    choice = {"min_count": 10, "max_count": None, "unbiased": True}
    html = page([replace(stats, info=info)], choice, [entry, missing])
    shown = Page(html)
    assert shown.images == {"a.png": 'alt "x"'}
    assert "<b>& VB" in shown.text
    assert "V<sub>B</sub>" in html
    assert "see <i>" in shown.text
    assert shown.text.count("<script>") == 4  # title, heading, name, reason
    assert "Tokens with 10 ≤ nt; M, V and VB finite-sample corrected" in " ".join(
        shown.text.split()
    )
    assert not shown.sources


# Embeddings behind statistics


def test_embeddings_are_those_that_the_statistics_are_of(sites):
    stats = sites["hidden"]
    found = embeddings.collect_again(stats, ["the", "of"], 3)
    for token, occurrences in found.items():
        at = list(stats.tokens).index(token)
        assert len(occurrences) == stats.n[at]
        Q = (occurrences.at(3).astype(float) ** 2).sum(axis=1).mean()
        assert Q == pytest.approx(stats.Q[1, at], rel=1e-4)
    few = embeddings.collect_again(stats, ["the"], 3, most=4)
    assert len(few["the"]) == 4


@pytest.mark.parametrize(
    ("part", "changed", "words"),
    [
        ("model", {"name": "no-such-model"}, "not at hand"),
        ("model", {"name": "a/b/c"}, "not at hand"),
        ("model", {"revision": "sha256:0"}, "weights of 'minilm' have changed"),
        ("convention", {"site": "unit"}, "site 'hidden'"),
        ("corpora", {"name": "sentences.txt"}, "corpus 'sentences.txt'"),
        ("corpora", {"settings": {"limit": 5, "then": [{}]}}, "corpus 'wikipedia'"),
        ("corpora", {"fingerprint": "0" * 16}, "'wikipedia' has changed"),
    ],
)
def test_other_models_and_texts_are_refused(part, changed, words, sites):
    info = dict(sites["hidden"].info)
    if part == "corpora":
        info[part] = [{**info[part][0], **changed}]
    else:
        info[part] = {**info[part], **changed}
    with pytest.raises(ek.StatisticsError, match=words):
        embeddings.collect_again(replace(sites["hidden"], info=info), ["the"], 3)
