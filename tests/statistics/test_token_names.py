"""Tokens with names that a reader of tables, pages or formulas could take for something else."""

from __future__ import annotations

import html
import shutil

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import embvar_kit as ek
from embvar_kit.cli import main
from embvar_kit.figures.atlas import Entry, page
from embvar_kit.figures.lettering import as_label, label_points

MISSING = ["nan", "NaN", "null", "NA", "N/A", "None", "inf", "True", "-1", "1e5"]
"""What readers of tables take for a missing value, a number or a truth value."""

ACTIVE = ["=1+1", "@SUM(1)", "<b>bold</b>", "<script>alert(1)</script>", "&amp;", "$x^2$", "\\x41"]
"""What a spreadsheet, a browser or a typesetter would run."""

NAMES = [*MISSING, *ACTIVE]


@pytest.fixture(scope="module")
def model(tiny, tmp_path_factory):
    """A tiny decoder whose tokens are whole words between blanks, with gaps between their ids."""
    folder = tmp_path_factory.mktemp("names")
    shutil.copytree(tiny("gpt2"), folder, dirs_exist_ok=True)
    words = {"<unk>": 0, **{name: 3 * at + 5 for at, name in enumerate(NAMES)}}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>").save_pretrained(folder)
    return ek.load_model(folder, device="cpu")


@pytest.fixture(scope="module")
def corpus():
    """Each name in ten to twenty-six sentences, so that no two are as frequent."""
    sentences = [" ".join(NAMES[at % len(NAMES) :]) for at in range(10 * len(NAMES))]
    return ek.Corpus.of([*sentences, *(" ".join(NAMES[::-1]) for _ in range(10))])


@pytest.fixture(scope="module")
def stats(model, corpus):
    return ek.extract(model, corpus, progress=False)


def test_every_name_is_one_token(stats, corpus):
    counted = pd.Series(" ".join(corpus.sentences).split()).value_counts()
    assert dict(zip(stats.tokens, stats.n, strict=True)) == counted.to_dict()
    assert set(stats.tokens) == set(NAMES)
    assert stats.texts.tolist() == stats.tokens.tolist()
    assert [stats.find(name) for name in NAMES] == [[name] for name in NAMES]


def test_names_survive_files_and_tables(stats, model, corpus, tmp_path):
    loaded = ek.TokenStatistics.load(stats.save(tmp_path / "saved"))
    assert loaded.tokens.tolist() == stats.tokens.tolist()
    assert all(type(token) is str for token in loaded.tokens)
    np.testing.assert_array_equal(loaded.V, stats.V)
    table = loaded.table(1)
    assert table["token"].notna().all() and table["token"].tolist() == stats.tokens.tolist()
    table.to_csv(tmp_path / "table.csv", index=False)
    again = pd.read_csv(tmp_path / "table.csv", keep_default_na=False, dtype={"token": str})
    assert again["token"].tolist() == stats.tokens.tolist()
    half = len(corpus) // 2
    one, other = (
        ek.extract(model, part, progress=False) for part in (corpus[:half], corpus[half:])
    )
    assert set(one.merge(other).tokens) == set(NAMES)
    left = loaded.without(["nan", "=1+1"])
    assert set(NAMES) - set(left.tokens) == {"nan", "=1+1"}


def test_the_command_prints_and_finds_them(stats, tmp_path, capsys):
    folder = str(stats.save(tmp_path))
    assert main(["show", folder, "--layer", "1", "--rows", "99"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in NAMES)
    assert main(["show", folder, "--layer", "1", "--token", "NA", "=1+1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[-2:]] == [
        token for token in stats.tokens if token in ("NA", "=1+1")
    ]


@pytest.mark.slow
def test_explorers_show_them_as_text(stats):
    explorer = ek.TradeoffExplorer(stats, counts=(1, None))
    for name in NAMES:
        explorer.state.search = name
        assert (explorer.state.marked, explorer.state.token) == ([name], name)
        shown = [explorer._marked.value, explorer.card._head.value]
        assert all(html.escape(name) in part for part in shown)
        assert not any(f"{name}</td>" in part for part in shown if html.escape(name) != name)
    assert explorer.wait()
    assert explorer.still().startswith(b"\x89PNG")


def test_the_page_of_figures_shows_them_as_text(stats):
    entry = Entry("a", "", "tokens", "", "", files=("a.png",), numbers=(("all", stats.table(1)),))
    written = page([stats], {"min_count": 1, "max_count": None, "unbiased": False}, [entry])
    assert all(html.escape(name, quote=False) in written for name in NAMES)
    assert "<script>alert" not in written and "<b>bold" not in written


def test_figures_write_them_as_labels(stats):
    ax = Figure().subplots()
    table = stats.table(1)
    label_points(ax, table["M"].to_numpy(), table["V"].to_numpy(), map(as_label, table["token"]))
    ax.figure.draw_without_rendering()
    shown = {text.get_text() for text in ax.texts}
    assert {"=1+1", r"\$x^2\$", "nan"} <= shown
