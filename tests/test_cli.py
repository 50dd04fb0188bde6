"""The command ``embvar``: what it prints, what it returns, and one line for each mistake."""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import dask
import numpy as np
import pandas as pd
import papermill
import pytest
import transformers
from paths import ROOT
from tiny_models import SENTENCES

import embvar_kit as ek
from embvar_kit import cli, model_report
from embvar_kit.cli import extract as extract_command
from embvar_kit.cli import main
from embvar_kit.cli.spelling import Spelling, parsers_of
from embvar_kit.corpora.load import CORPORA
from embvar_kit.corpora.tokens import GROUPINGS
from embvar_kit.extraction.forward import SITES
from embvar_kit.extraction.shards import PHASES
from embvar_kit.figures import atlas
from embvar_kit.models.bundled import BUNDLED
from embvar_kit.paper.reproduction import LEVELS

COMMANDS = ("fetch", "extract", "show", "figures", "report", "reproduce", "twins", "models")
COMMANDS += ("corpora", "shard")


def start(*arguments: object, **variables: str) -> subprocess.Popen:
    """``python -m embvar_kit`` in a process of its own, its output buffered as a user's is."""
    command = [sys.executable, "-m", "embvar_kit", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    environment.pop("PYTHONUNBUFFERED", None)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    # A test run in a script's background has SIGINT ignored, and would pass that on.
    return subprocess.Popen(
        command,
        env=environment,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        **pipes,
    )


def run(*arguments: object, **variables: str) -> tuple[int, str, str]:
    """Run it to its end, with environment variables: ``(exit code, stdout, stderr)``."""
    process = start(*arguments, **variables)
    out, err = process.communicate(timeout=100)
    return process.returncode, out, err


@pytest.fixture
def command(capsys):
    """``command("show", folder)``: ``(exit code, stdout, stderr)``."""

    def call(*arguments: object) -> tuple[int, str, str]:
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as stop:  # argparse's way to stop
            code = stop.code
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture(scope="module")
def text_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "sentences.txt"
    path.write_text("\n".join(SENTENCES * 10) + "\n")
    return path


@pytest.fixture(scope="module")
def saved(tiny, text_file, tmp_path_factory):
    """A folder that ``embvar extract`` wrote; copy it before damaging it."""
    folder = tmp_path_factory.mktemp("saved") / "out"
    arguments = ["--model", tiny("bert"), "--corpus", text_file, "--out", folder]
    assert main(["extract", "--quiet", "--device", "cpu", *map(str, arguments)]) == 0
    return folder


def is_one_line_of(error: str) -> bool:
    return error.startswith("embvar: ") and error.endswith("\n") and error.count("\n") == 1


def offered_in(error: str) -> list[str]:
    """The choices that a message about a wrong one names."""
    return re.findall(r"[\w-]+", error.rpartition("choose from")[2].partition(")")[0])


# Help and usage


def test_help_names_every_command_and_shows_examples(command):
    code, out, err = command("--help")
    assert (code, err) == (0, "")
    for name in COMMANDS:
        assert f"\n    {name} " in out
    assert "embvar extract --model minilm --corpus wikipedia" in out


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_each_command_says_what_it_does(name, command):
    code, out, _ = command(name, "--help")
    assert code == 0
    assert out.startswith(f"usage: embvar {name}")
    summary = next(
        line for line in command("--help")[1].splitlines() if line.startswith(f"    {name}")
    )
    assert len(summary.split()) > 3


@pytest.mark.parametrize("name", ["extract", "show", "figures", "report", "reproduce", "twins"])
def test_every_option_says_what_it_is_for(name, command):
    out = command(name, "--help")[1]
    options = out.split("options:\n")[1]
    entries = options.split("\n  -")[1:]
    assert len(entries) >= 5
    for entry in entries:
        words = " ".join(entry.split())
        assert len(words.split()) > 2, words
    assert max(map(len, out.splitlines())) <= 100


def test_help_names_the_value_that_an_option_has_by_itself():
    for parser in parsers_of(cli.parser()):
        for action in parser._actions:
            if action.nargs == 0 or action.default in (None, False, 0, argparse.SUPPRESS):
                continue  # a flag takes no value, and nothing by itself needs no word
            values = action.default if isinstance(action.default, list) else [action.default]
            for value in map(str, values):
                named = rf"default: {value}\b|\b{value} \((.*; )?default\)"
                assert re.search(named, action.help), f"{parser.prog} {action.option_strings}"


def test_help_of_the_report_names_the_values_of_its_notebook(command):
    """The command itself leaves them to the notebook's parameters."""
    said = " ".join(command("report", "--help")[1].split())
    known = papermill.inspect_notebook(str(ROOT / "notebooks" / model_report.NAME))
    for name in ("limit", "min_count"):
        option = said.rpartition(f"--{name.replace('_', '-')} ")[2].partition(" --")[0]
        assert f"(default: {int(known[name]['default'])})" in option


def test_no_command_prints_help_and_is_wrong_usage(command):
    code, out, _ = command()
    assert code == 2
    assert "usage: embvar" in out


def test_version(command):
    assert command("--version") == (0, f"embvar-kit {ek.__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["explode"], "invalid choice: 'explode'"),
        (["extract"], "required: --out"),
        (["extract", "--out", "x", "--layers", "1,b"], "'1,b' is not a list of whole numbers"),
        (["extract", "--out", "x", "--sample", "much"], "'much' is not a number"),
        (["extract", "--out", "x", "--limit", "1.5"], "--limit"),
        (
            ["extract", "--out", "x", "--by", "letter"],
            "--by: invalid choice: 'letter' (choose from",
        ),
        (["extract", "--out", "x", "--site", "no"], "--site: invalid choice: 'no' (choose from"),
        (["extract", "--out", "x", "--long", "no"], "--long: invalid choice: 'no' (choose from"),
        (["reproduce"], "MODEL"),
        (["reproduce", "gpt2", "--by", "id"], "--by: invalid choice: 'id' (choose from"),
        (["show"], "DIR"),
        (["figures"], "DIR"),
        (["models", "--all"], "--all"),
    ],
)
def test_wrong_usage_returns_2_and_names_the_argument(arguments, words, command):
    code, out, err = command(*arguments)
    assert (code, out) == (2, "")
    assert words in err and err.count("\n") == 1 and "usage:" not in err
    assert err.endswith(" --help says more.\n")
    assert "_integers" not in err
    assert "_share" not in err


@pytest.mark.parametrize(
    ("arguments", "nearest"),
    [
        (["shwo", "DIR"], "'show'"),
        (["shard", "pln"], "'plan'"),
        (["extract", "--out", "x", "--limt", "5"], "'--limit'"),
        (["show", "DIR", "--min-cuont=3"], "'--min-count'"),
        (["extract", "--out", "x", "--site", "untis"], "'unit'"),
        (["fetch", "minilmm"], "'minilm'"),
        (["extract", "--out", "OUT", "--corpus", "wikipedai"], "'wikipedia'"),
        (["extract", "--out", "OUT", "--model", "smollm"], "'smollm2'"),
        (["report", "minlm", "--out", "OUT"], "'minilm'"),
        (["reproduce", "gpt", "--out", "OUT"], "'gpt2'"),
    ],
)
def test_a_misspelt_name_is_told_with_the_nearest(arguments, nearest, command, tmp_path):
    arguments = [str(tmp_path / "out") if each == "OUT" else each for each in arguments]
    code, out, err = command(*arguments)
    assert code in (1, 2) and not out and err.count("\n") == 1
    assert f"Did you mean {nearest}? " in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("told", "shown"),
    [
        ("lower min_count, raise max_count", "lower --min-count, raise --max-count"),
        ("folds=20, or layers=[0, 6, -1]", "--folds 20, or --layers 0,6,-1"),
        ("by='word' and max_count=100_000.", "--by word and --max-count 100000."),
        ("(limit=...) or store=", "(--limit) or --store"),
        ("limit must be more than limit", "--limit must be more than limit"),
        ("null=True, (streaming=False)", "--null, (without --streaming)"),
        ("with special=True, or special=False", "without --no-special, or --no-special"),
        ("LeaveOut(first=1, norm=10)", "--leave-out-first 1 --leave-out-norm 10"),
        ("device_map={'a': 0}", """--device-map '{"a": 0}'"""),
        ("'limit=3/min_count.txt' is missing", "'limit=3/min_count.txt' is missing"),
        ("out/min_count.txt, a/max_count/b", "out/min_count.txt, a/max_count/b"),
        ("stats.table(layer=3), f(min_count=2)", "stats.table(layer=3), f(min_count=2)"),
        ("bins=0, text_color and == are no options", "bins=0, text_color and == are no options"),
    ],
)
def test_a_message_names_options_as_they_are_typed(told, shown):
    whole = cli.parser()
    own = whole.of(whole.parse_args(["extract", "--out", "x"]))
    assert own.prog == "embvar extract"
    assert Spelling(whole, own)(told) == shown


def test_messages_of_the_library_reach_the_user_with_options(command, saved, tiny, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("the cat sat on the mat\n")
    pass_ = ["extract", "--model", tiny("bert"), "--device", "cpu", "--corpus", text]
    code, _, err = command(*pass_, "--out", tmp_path / "out", "--folds", 1)
    assert code == 1 and "--folds 1 must be a whole number" in err and "folds=" not in err
    code, out, _ = command("show", saved, "--min-count", 9999)
    assert code == 0 and "lower --min-count, raise --max-count" in out and "min_count" not in out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("--corpus hub:x --streaming --sample 5", "--sample 5 ... leave out --streaming, or"),
        ("--corpus wikipedia --streaming", "--streaming reads ... 'wikipedia' is none: leave out"),
        ("--corpus bookcorpus:x --split-sentences", "leave out --split-sentences, or read 'hub:"),
        (
            "--corpus bookcorpus --split test --config y",
            "leave out --split test and --config y, or",
        ),
        ("--corpus *.txt --sample 5 --limit 2", "leave out --sample 5 and --limit 2, or name one"),
        ("--corpus *.txt --min-count 3", "leave out --min-count 3, load"),
        ("--corpus *.txt --null", "leave out --null, load"),
        ("--workers 1", "Add --shards and --store, or leave the others out."),
        ("--shards 2 --store s --checkpoint c", "(--store): leave out --checkpoint c."),
    ],
)
def test_options_that_exclude_each_other_are_named(
    command, tiny, tmp_path, monkeypatch, arguments, told
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("the cat sat on the mat\n" * 2)
    if "--corpus" not in arguments:
        arguments += " --corpus a.txt"
    pass_ = ["extract", "--quiet", "--model", tiny("bert"), "--device", "cpu", "--out", "out"]
    code, _, err = command(*pass_, *arguments.split())
    assert code == 1 and is_one_line_of(err)
    assert re.search(".*".join(map(re.escape, told.split(" ... "))), err), err


def test_show_of_a_single_sentence_shows_what_there_is(command, tiny, tmp_path):
    text, folder = tmp_path / "text.txt", tmp_path / "out"
    text.write_text("the cat sat on the mat\n")
    pass_ = ["extract", "--model", tiny("bert"), "--device", "cpu", "--corpus", text]
    assert command(*pass_, "--out", folder)[0] == 0
    stats = ek.TokenStatistics.load(folder)
    code, out, err = command("show", folder)
    assert (code, err) == (0, "")
    assert repr(stats) in out
    assert "0 of these occur 10 to 100,000 times; the most frequent occurs 2 times" in out
    assert "No slope, R² or evidence of a trade-off. A regression over 0 tokens" in out
    assert "over all embeddings of all tokens (as measured)" in out
    parts = stats.decomposition(min_count=1, max_count=None)
    rows = [line.split() for line in out.splitlines()[-len(parts) :]]
    assert rows == [
        [f"{row.layer:.0f}", *(f"{row[name]:.3f}" for name in ("Q", "M", "V", "V_W", "V_B"))]
        for _, row in parts.iterrows()
    ]
    code, out, _ = command("show", folder, "--min-count", 2, "--unbiased")
    assert code == 0 and "1 of these occur 2 to 100,000 times" in out
    assert "A regression over 1 token says nothing" in out
    assert "over all their embeddings (unbiased)" in out
    code, out, _ = command("show", folder, "--min-count", 1)
    assert code == 0 and "V on M over tokens" in out


@pytest.mark.parametrize(
    ("option", "taken"), [("--by", GROUPINGS), ("--site", SITES), ("--long", None)]
)
def test_the_choices_are_those_that_the_library_takes(option, taken, command, tiny):
    said = command("extract", "--out", "x", option, "none of them")[2]
    offered = offered_in(said)
    if taken is None:
        with pytest.raises(ek.ExtractionError, match="long='no' is unknown") as refusal:
            ek.extract(ek.load_model(tiny("bert")), ek.Corpus.of(["A b."]), long="no")
        taken = re.findall(r"'(\w+)'", str(refusal.value).partition("choose")[2])
    assert offered == list(taken)


def test_the_phases_are_those_of_a_pass_in_shards(command):
    said = command("shard", "run", "x", "--index", "0", "--phase", "none of them")[2]
    assert offered_in(said) == list(PHASES)


def test_the_levels_are_those_that_the_release_has(command):
    said = command("reproduce", "gpt2", "--by", "none of them")[2]
    assert offered_in(said) == list(LEVELS)


# Lists


def test_models_lists_what_needs_no_hub(command, tmp_path, monkeypatch):
    code, out, _ = command("models")
    assert code == 0
    for alias, model in BUNDLED.items():
        line = next(line for line in out.splitlines() if line.startswith(alias))
        assert model.title in line
        assert line.endswith("[present]")
    monkeypatch.setenv("EMBVAR_HOME", str(tmp_path))
    assert command("models")[1].count("[run: embvar fetch]") == len(BUNDLED)


def test_corpora_lists_what_can_be_named(command):
    code, out, _ = command("corpora")
    assert code == 0
    for name, what in CORPORA.items():
        assert f"{name} " in out
        assert what in out


# A pass, and what it saved


def test_extract_announces_runs_and_saves(command, tiny, text_file, tmp_path):
    out_folder = tmp_path / "deep" / "out"
    options = ["--layers", "0,-1", "--by", "id", "--limit", 20, "--batch-tokens", 100]
    options += ["--device", "cpu"]
    code, out, err = command(
        *["extract", "--model", tiny("gpt2"), "--corpus", text_file, "--out", out_folder],
        *options,
    )
    assert (code, err) == (0, "")
    assert "over sentences.txt, by id" in out
    assert "20, 20 sequences" in out
    assert "layers     0, 2, each 32 wide" in out
    assert f"saved      {out_folder}; look at it with: embvar show {out_folder}" in out
    stats = ek.TokenStatistics.load(out_folder)
    assert stats.layers.tolist() == [0, 2]
    assert stats.info["convention"]["by"] == "id"
    assert stats.info["corpora"][0]["settings"] == {"limit": 20}
    by_hand = ek.extract(
        ek.load_model(tiny("gpt2"), device="cpu"),
        ek.load_corpus(text_file, limit=20),
        by="id",
        progress=False,
    )
    assert stats.tokens.tolist() == by_hand.tokens.tolist()
    assert stats.n.tolist() == by_hand.n.tolist()
    assert stats.Q[1] == pytest.approx(by_hand.Q[2], rel=1e-5)


def test_occurrences_are_left_out_in_a_pass_and_in_shards(command, tiny, text_file, tmp_path):
    chosen = ["--model", tiny("llama"), "--device", "cpu", "--corpus", text_file]
    chosen += ["--leave-out-first", 1, "--leave-out-norm", 1.3]
    out, store = tmp_path / "out", tmp_path / "store"
    assert command("extract", *chosen, "--out", out)[::2] == (0, "")
    assert command("shard", "plan", store, "--shards", 1, *chosen)[::2] == (0, "")
    assert command("shard", "run", store, "--index", 0)[0] == 0
    assert command("shard", "merge", store, "--out", tmp_path / "merged")[0] == 0
    by_hand = ek.extract(
        ek.load_model(tiny("llama"), device="cpu"),
        ek.load_corpus(text_file),
        leave_out=ek.LeaveOut(first=1, norm=1.3),
        progress=False,
    )
    assert by_hand.info["counts"]["left_out_by_norm"] > 0
    for folder in (out, tmp_path / "merged"):
        stats = ek.TokenStatistics.load(folder)
        assert stats.info["convention"] == by_hand.info["convention"]
        assert stats.info["counts"] == by_hand.info["counts"]
        assert stats.n.tolist() == by_hand.n.tolist()
    status, _, err = command("extract", *chosen[:6], "--leave-out-norm", 1, "--out", out)
    assert status == 1 and is_one_line_of(err) and "factor to the median" in err


def test_every_choice_of_sentences_reaches_the_corpus(command, tiny, tmp_path):
    prose = tmp_path / "prose.md"
    prose.write_text("\n\n".join(f"{s} A short one. Another short one." for s in SENTENCES))
    options = ["--split-sentences", "--max-words", 4, "--sample", "5e-1", "--seed", 3]
    options += ["--limit", 4, "--text-column", "body", "--quiet", "--long", "cut"]
    code, out, err = command(
        *["extract", "--model", tiny("bert"), "--corpus", prose, "--out", tmp_path / "out"],
        *options,
    )
    assert (code, err) == (0, "")
    assert out.count("\n") == 1
    stats = ek.TokenStatistics.load(tmp_path / "out")
    chosen = {"sample": 0.5, "seed": 3, "max_words": 4, "limit": 4}
    assert stats.info["corpora"][0]["settings"] == chosen
    assert stats.info["convention"]["long"] == "cut"
    expected = ek.load_corpus(prose, split_sentences=True, **chosen)
    assert stats.info["corpora"][0]["fingerprint"] == expected.fingerprint


def test_every_choice_of_a_dataset_reaches_it(command, tiny, tmp_path):
    text = "Er kam am 3. Mai an. Hier ist noch ein Satz."
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "rows.jsonl").write_text(json.dumps({"body": text}))
    (tmp_path / "set" / "README.md").write_text(
        "---\nconfigs:\n"
        "- config_name: small\n  data_files: [{split: dev, path: rows.jsonl}]\n"
        "- config_name: other\n  data_files: [{split: train, path: rows.jsonl}]\n---\n"
    )
    options = ["--config", "small", "--split", "dev", "--text-column", "body", "--split-sentences"]
    options += ["--language", "de", "--quiet", "--device", "cpu", "--out", tmp_path / "out"]
    dataset = f"hub:{tmp_path / 'set'}"
    arguments = ["extract", "--model", tiny("bert"), "--corpus", dataset, *options]
    assert command(*arguments)[0] == 0
    stats = ek.TokenStatistics.load(tmp_path / "out")
    assert stats.info["counts"]["sentences"] == 2  # by English rules three
    code, _, err = command(*arguments, "--split", "train")
    assert code == 1
    assert "split 'train'" in err


def test_show_prints_the_tradeoff_and_the_decomposition(command, saved):
    code, out, err = command("show", saved)
    assert (code, err) == (0, "")
    stats = ek.TokenStatistics.load(saved)
    assert repr(stats) in out
    assert "V on M over tokens (as measured, 10 <= n_t <= 100,000)" in out
    assert "Q = M + V_W + V_B" in out
    assert max(map(len, out.splitlines()[1:])) <= 80 and "sd_Q" not in out
    assert "sd_Q" in command("show", saved, "--wide")[1]
    first, second = out.split("Q = M + V_W + V_B")
    slope = stats.tradeoff()["slope"]
    for layer, value in enumerate(slope):
        assert any(
            line.split()[:1] == [str(layer)] and f"{value:.3f}" in line.split()
            for line in first.splitlines()
        )
    for row in stats.decomposition().itertuples():
        assert any(
            line.split() == [str(row.layer), *(f"{x:.3f}" for x in row[2:])]
            for line in second.splitlines()
        )


def test_show_prints_the_tokens_of_a_layer(command, saved):
    code, out, _ = command("show", saved, "--layer", 1, "--rows", 3, "--no-special", "--unbiased")
    assert code == 0
    rows = [line.split() for line in out.splitlines()[1:]]
    assert rows[0] == ["token", "n", "Q", "M", "V"]
    table = ek.TokenStatistics.load(saved).table(1, min_count=10, special=False, unbiased=True)
    assert [row[0] for row in rows[1:]] == table["token"].head(3).tolist()
    assert [row[3] for row in rows[1:]] == [f"{m:.4f}" for m in table["M"].head(3)]


def test_show_says_that_no_token_is_frequent_enough(command, tiny, tmp_path):
    (tmp_path / "rare.txt").write_text("The cat sat.")
    given = ["--model", tiny("bert"), "--corpus", tmp_path / "rare.txt", "--out", tmp_path / "out"]
    assert command("extract", "--quiet", "--device", "cpu", *given)[0] == 0
    code, out, err = command("show", tmp_path / "out", "--layer", 1)
    assert (code, out) == (1, "") and is_one_line_of(err)
    assert "No token occurs 10 to 100,000 times (the most frequent occurs" in err
    assert "lower --min-count" in err
    code, out, _ = command("show", tmp_path / "out", "--layer", 1, "--min-count", 1)
    assert code == 0 and "cat" in out


def test_show_with_corrected_forms_says_so(command, saved):
    assert "unbiased" in command("show", saved, "--unbiased")[1]


def test_several_sites_and_compact_statistics(command, tmp_path):
    out = tmp_path / "out"
    arguments = ["extract", "--limit", 60, "--layers", "0,6", "--quiet", "--device", "cpu"]
    code, said, err = command(*arguments, "--site", "hidden", "unit", "--compact", "--out", out)
    assert (code, err) == (0, "")
    for site in ("hidden", "unit"):
        stats = ek.TokenStatistics.load(out / site)
        assert stats.mean is None and stats.info["convention"]["site"] == site
        assert str(out / site) in said
    shown = command("show", out / "hidden")[1]
    assert "Q = M + V_W + V_B" in shown and "high-norm" not in shown
    shown = command("show", out / "hidden", "--min-count", 12)
    assert shown[0] == 0 and "No decomposition for this choice" in shown[1]


def test_compact_statistics_keep_intervals_without_shared_strings(command, minilm, tmp_path):
    """Of a pass, of one in shards, and where shards are merged by a command of their own."""
    chosen = ["--model", "minilm", "--corpus", "wikipedia", "--sample", 240, "--layers", "1"]
    store, folds = tmp_path / "store", ["--folds", 6, "--compact", "--quiet"]
    assert command("extract", *chosen, *folds, "--out", tmp_path / "pass")[0] == 0
    in_shards = [*folds, "--store", store]
    assert command("extract", *chosen, *in_shards, "--out", tmp_path / "shards")[0] == 0
    merge = ["shard", "merge", store, "--folds", 6, "--compact"]
    assert command(*merge, "--out", tmp_path / "merged")[0] == 0
    shared = ek.tokens.group_vocabulary(minilm.tokenizer).shared
    corpus = ek.load_corpus("wikipedia", sample=240)
    whole = ek.extract(minilm, corpus, folds=6, layers=[1], progress=False)
    wanted = whole.without(shared).evidence(null=False)
    for name in ("pass", "shards", "merged"):
        compact = ek.TokenStatistics.load(tmp_path / name)
        found = compact.without(shared).evidence(null=False)
        pd.testing.assert_frame_equal(found, wanted, rtol=1e-3)


@pytest.mark.parametrize("compact", [[], ["--compact"]], ids=["whole", "compact"])
def test_statistics_of_frequent_tokens_only_are_saved_and_shown(command, tmp_path, compact):
    """Beyond the default range of 10: nothing that follows the pass asks for rarer tokens."""
    options = ["--limit", 400, "--max-words", 30, "--layers", "0,2", "--min-count", 20, "--quiet"]
    code, said, err = command("extract", *options, *compact, "--out", tmp_path)
    assert (code, err) == (0, "") and f"saved      {tmp_path}" in said
    shown = command("show", tmp_path, "--min-count", 20)[1]
    assert "V on M over tokens" in shown and "high-norm" not in shown
    drawn = command("figures", tmp_path, "--min-count", 20, "--no-embeddings", "--no-sinks")
    assert drawn[0] == 0 and "index.html" in drawn[1]


def test_show_names_high_norm_tokens_and_leaves_them_out_when_asked(command, saved, tmp_path):
    stats = ek.TokenStatistics.load(saved)
    at = int(np.flatnonzero(stats.tokens == "the")[0])
    Q = stats.Q.copy()
    Q[1, at] *= 1e4
    stats = replace(stats, Q=Q)
    stats.save(tmp_path)
    shown = command("show", tmp_path)[1]
    assert "1 high-norm token (Q at least 10 times the layer's median), counted" in shown
    left = command("show", tmp_path, "--no-high-norm")[1]
    assert "left out: 'the'" in left
    assert command("show", tmp_path, "--no-sinks")[1] == left  # its older name
    assert f"{stats.without(['the']).tradeoff()['cv_Q'][1]:.3f}" in left


def test_show_prints_the_evidence_of_the_tokens_asked_for(command, model, tmp_path):
    corpus = ek.load_corpus("wikipedia", sample=240, max_words=30)
    stats = ek.extract(model, corpus, layers=[0, 1], null=True, folds=6, progress=False)
    stats.save(tmp_path / "whole")
    title = "Does the slope survive? The null; --wide has the intervals"
    for given, least in ((40, 40), (2, 10)):
        code, out, _ = command("show", tmp_path / "whole", "--min-count", given)
        assert code == 0 and f"{title} ({least} <= n_t <= 100,000)" in out
        table = out.split(title)[1].split("\n\n")[0].splitlines()[1:]
        wanted = stats.evidence(min_count=least)
        for row, line in zip(wanted.itertuples(), table[1:], strict=True):
            shown = dict(zip(table[0].split(), line.split(), strict=True))
            assert shown["unbiased_sd_M"] == f"{row.sd_M:.3f}"
            for name in ("null_slope", "null_sd_M", "reliability", "slope_iv"):
                assert shown[name] == f"{getattr(row, name):.3f}"
        assert ("No intervals of the slope for this choice" in out) == (given < 10)
    wide = command("show", tmp_path / "whole", "--wide")[1].splitlines()
    heads = [set(line.split()) for line in wide if line.startswith(" layer ")][:2]
    spreads = [{name for name in head if "sd_M" in name} for head in heads]
    assert spreads[0] == {"sd_M", "sd_M_low", "sd_M_high"} and not spreads[0] & spreads[1]
    Q = stats.Q * np.where(stats.tokens == "the", 1e4, 1)
    replace(stats, Q=Q).save(tmp_path / "high")
    out = command("show", tmp_path / "high", "--no-high-norm")[1]
    assert title not in out and "Not said: with tokens left out, they have no null." in out
    replace(stats, folds=None, fold_decompositions=None).save(tmp_path / "half")
    out = command("show", tmp_path / "half")[1]
    assert "Not said: there are no folds. embvar extract takes --null --folds 20." in out


def test_show_prints_the_lines_of_the_layers_that_have_one(command, model, tmp_path):
    """Before any attention, a decoder gives all occurrences of a token one vector."""
    stats = ek.extract(model, ek.load_corpus("wikipedia", sample=100, max_words=30), progress=False)
    Q, M, V = stats.Q.copy(), stats.M.copy(), stats.V.copy()
    Q[0], M[0], V[0] = 1, 1, 0
    replace(stats, Q=Q, M=M, V=V).save(tmp_path / "flat")
    code, out, _ = command("show", tmp_path / "flat")
    assert code == 0 and "No slope, R² or evidence of a trade-off at layer 0." in out
    table = out.split("at the layers that have a line")[1].split("\n\n")[0].splitlines()[2:]
    assert [line.split()[0] for line in table] == ["1", "2"]
    special = stats.take(np.flatnonzero(stats.special))
    special.save(tmp_path / "special")
    out = command("show", tmp_path / "special", "--no-special")[1]
    assert "0 of these, special tokens left out, occur" in out and "no others are there" in out


@pytest.mark.slow
def test_figures_draws_into_a_folder_beside_the_statistics(command, saved, tmp_path):
    for name in ("a", "b"):
        shutil.copytree(saved, tmp_path / name)
    folders = [tmp_path / "a", tmp_path / "b"]
    code, out, err = command("figures", *folders, "--no-embeddings", "--min-count", 5)
    assert (code, err) == (0, "")
    page = tmp_path / "figures" / "a+b" / "index.html"
    assert f"page       {page}" in out
    drawn, left = map(int, re.findall(r"(\d+) drawn, (\d+) not", out)[0])
    text = page.read_text(encoding="utf-8")
    assert text.count("<figure ") == drawn > 15
    assert text.count("<li>") == left > 0
    assert "5 ≤ n<sub>t</sub> ≤ 100,000; M, V and V<sub>B</sub> as measured" in text


def test_every_choice_of_figures_reaches_them(command, saved, tmp_path, monkeypatch):
    given = {}
    monkeypatch.setattr(
        "embvar_kit.figures.atlas.write",
        lambda stats, out, **choice: given.update(choice, out=out) or [],
    )
    command("figures", saved)
    plain = {"min_count": 10, "max_count": 100_000, "unbiased": False, "without_high_norm": False}
    assert given == {**plain, "embeddings": True, "out": saved.parent / "figures" / saved.name}
    options = ["--min-count", 3, "--max-count", 50, "--unbiased", "--no-high-norm"]
    command("figures", saved, *options, "--no-embeddings", "--out", tmp_path)
    other = {"min_count": 3, "max_count": 50, "unbiased": True, "without_high_norm": True}
    assert given == {**other, "embeddings": False, "out": tmp_path}


# Mistakes: one line each


def test_a_damaged_result_is_refused_by_name(command, saved, tmp_path):
    for name in sorted(path.name for path in saved.iterdir()):
        folder = tmp_path / f"copy-{name}"
        shutil.copytree(saved, folder)
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: len(data) // 2])
        code, out, err = command("show", folder)
        assert (code, out) == (1, "")
        assert is_one_line_of(err)
        assert name in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["show", "{tmp}/nothing"], "no saved statistics"),
        (["figures", "{saved}", "{tmp}/nothing"], "no saved statistics"),
        (["figures", "{saved}", "--out", "{saved}/metadata.json"], "cannot be written to"),
        (["show", "{saved}", "--layer", "7"], "Layer 7 was not extracted; the layers are 0, 1, 2"),
        (["show", "{saved}", "--layer", "1", "--min-count", "99999"], "lower --min-count"),
        (["show", "{saved}", "--layer", "1", "--rows", "0"], "--rows must be at least 1"),
        (["show", "{saved}", "--rows", "-2"], "--rows must be at least 1, got -2"),
        (["show", "{saved}", "--min-count", "-1"], "--min-count must be at least 1, got -1"),
        (
            ["extract", "--out", "{tmp}/o", "{text}", "{bert}", "--folds", "9"],
            "too few for 9 folds",
        ),
        (
            ["reproduce", "bert"],
            "'bert' is not a model of the paper. These are bert-base-uncased, b",
        ),
        (["fetch", "bert"], "No bundled model is called 'bert'. There are minilm, smollm2"),
        (["extract", "--out", "{tmp}/o", "--corpus", "{tmp}/none.txt"], "There is no file"),
        (["extract", "--out", "{tmp}/o", "--corpus", "wiki"], "Unknown corpus 'wiki'"),
        (["extract", "--out", "{tmp}/o", "{text}", "--model", "{tmp}/none"], "no folder"),
        (["extract", "--out", "{tmp}/o", "{text}", "--model", "{tmp}"], "no config.json"),
        (["extract", "--out", "{tmp}/o", "{text}", "{bert}", "--layers", "9"], "there is no 9"),
        (["extract", "--out", "{tmp}/o", "{text}", "{bert}", "--limit", "0"], "--limit must be"),
        (["extract", "--out", "{tmp}/o", "{text}", "{bert}", "--sample", "2.5"], "--sample 2.5"),
        (["extract", "--out", "{tmp}/o", "{text}", "{bert}", "--device", "tpu"], "Device 'tpu'"),
        (["extract", "--out", "{tmp}/o", "{text}", "{bert}", "--dtype", "int4"], "dtype 'int4'"),
        (
            ["extract", "--out", "{tmp}/o", "{bert}", "--device", "cpu", "--device-map", "auto"],
            "--device cpu takes the whole model, and --device-map auto spreads it",
        ),
        (
            ["extract", "--out", "{tmp}/o", "{text}", "{bert}", "--device-map", "{{}}"],
            "gives no device for",
        ),
        (
            [
                "extract",
                "--out",
                "{tmp}/o",
                "{text}",
                "{bert}",
                "--device-map",
                '{{"": 0, "nope": 0}}',
            ],
            "--device-map names 'nope', which",
        ),
        (
            ["extract", "--out", "{tmp}/o", "{bert}", "--device-map", "auto", "--workers", "2"],
            "leave out --device-map, or --workers",
        ),
        (["extract", "--out", "{tmp}/o", "{text}", "--streaming"], "a dataset of the Hub"),
    ],
)
def test_mistakes_return_1_and_one_line(
    arguments, words, command, saved, tiny, text_file, tmp_path
):
    given = []
    for argument in arguments:
        if argument in ("{text}", "{bert}"):
            text, bert = ["--corpus", str(text_file)], ["--model", str(tiny("bert"))]
            given += text if argument == "{text}" else bert
        else:
            given.append(argument.format(tmp=tmp_path, saved=saved))
    code, _, err = command(*given)
    assert code == 1
    assert is_one_line_of(err), err
    assert words in err


PARTS = {"embeddings": "cpu", "encoder.layer.0": "disk", "encoder.layer.1": "cpu", "pooler": "cpu"}


@pytest.mark.parametrize("given", ["auto", json.dumps(PARTS)])
def test_a_model_that_is_spread_gives_what_it_gives_on_one_device(
    given, command, saved, tiny, text_file, tmp_path
):
    arguments = ["--model", tiny("bert"), "--corpus", text_file, "--out", tmp_path, "--quiet"]
    code, _, err = command("extract", *arguments, "--device-map", given)
    assert code == 0, err
    found, whole = ek.TokenStatistics.load(tmp_path), ek.TokenStatistics.load(saved)
    for name in ("n", "Q", "M", "V"):
        np.testing.assert_array_equal(getattr(found, name), getattr(whole, name))


def test_a_device_map_that_is_no_json_is_wrong_usage(command, tmp_path):
    code, _, err = command("extract", "--out", tmp_path, "--device-map", '{"embeddings": 0')
    assert code == 2
    assert "is not a JSON object: Expecting" in err


def test_a_folder_that_cannot_be_written_is_known_before_the_pass(command, text_file):
    code, out, err = command(
        "extract", "--model", "no/such/model", "--corpus", "none", "--out", text_file
    )
    assert (code, out) == (1, "")
    assert is_one_line_of(err)
    assert "cannot be saved to" in err


def test_a_refused_pass_leaves_no_folder_and_an_earlier_result_is_named(
    command, tiny, text_file, tmp_path
):
    out = tmp_path / "new" / "out"
    wrong = ["extract", "--model", str(tmp_path / "nobody"), "--corpus", text_file, "--out", out]
    code, _, said = command(*wrong)
    assert code == 1 and "nobody" in said and not (tmp_path / "new").exists()
    right = ["extract", "--model", tiny("bert"), "--corpus", text_file, "--out", out]
    code, said, _ = command(*right)
    assert code == 0 and "replaces" not in said
    files = {path.name for path in out.iterdir()}
    code, said, _ = command(*wrong)
    assert code == 1 and {path.name for path in out.iterdir()} == files, "it is still there"
    assert f"replaces   what {out} has of an earlier pass, once this one is done" in said


def test_show_prints_chosen_tokens_at_each_layer(command, saved):
    code, out, _ = command("show", saved, "--token", "the", "cat")
    assert code == 0
    assert [line for line in out.splitlines() if line.startswith("layer")] == [
        "layer 0", "layer 1", "layer 2"
    ]  # fmt: skip
    stats = ek.TokenStatistics.load(saved)
    row = stats.table(1).set_index("token").loc["the"]
    code, out, _ = command("show", saved, "--token", "the", "--layer", 1)
    assert out.splitlines()[-1].split() == [
        "the", f"{int(row.n)}", f"{row.Q:.4f}", f"{row.M:.4f}", f"{row.V:.4f}"
    ]  # fmt: skip
    code, out, err = command("show", saved, "--token", "the", "##ing", "zebra")
    assert (code, out) == (1, "") and is_one_line_of(err)
    assert "No token of these statistics is named '##ing', 'zebra'" in err


def test_control_tokens_of_a_text_are_read_as_asked(command, tiny, tmp_path):
    text, out = tmp_path / "text.txt", tmp_path / "out"
    text.write_text("The cat [SEP] sat.\nThe mat.\n")
    arguments = ["extract", "--model", tiny("bert"), "--corpus", text, "--out", out]
    for more, read, n in (([], "text", 2), (["--parse-special"], "control tokens", 3)):
        code, printed, _ = command(*arguments, *more)
        assert code == 0
        assert f"1 control token spelled out in the text ([SEP]), read as {read};" in printed
        stats = ek.TokenStatistics.load(out)
        assert stats.n[stats.tokens == "[SEP]"].tolist() == [n]


# The real command, in a process of its own


@pytest.fixture(scope="module")
def foreign(tiny, tmp_path_factory):
    """Statistics of a text with characters that few consoles have."""
    folder = tmp_path_factory.mktemp("foreign")
    (folder / "text.txt").write_text("水 the cat 水.\nA é.\n" * 10, encoding="utf-8")
    # Llama's tokenizer drops what it does not know; these characters are added to it.
    model = shutil.copytree(tiny("llama"), folder / "model")
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    tokenizer.add_tokens(["水", "é"])
    tokenizer.save_pretrained(model)
    arguments = ["--model", model, "--corpus", folder / "text.txt", "--out", folder / "out"]
    assert main(["extract", "--quiet", "--device", "cpu", *map(str, arguments)]) == 0
    return folder


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
@pytest.mark.slow
def test_a_console_without_a_character_shows_its_escape(encoding, foreign):
    shown = {"cp1252": ("\\u6c34", "é"), "ascii": ("\\u6c34", "\\xe9"), "utf-8": ("水", "é")}
    process = start("show", foreign / "out", "--layer", 1, PYTHONIOENCODING=encoding)
    process.stdout.reconfigure(encoding=encoding)
    out, err = process.communicate(timeout=100)
    assert (process.returncode, err) == (0, "")
    names = [line.split()[0] for line in out.splitlines()]
    assert {*shown[encoding]} <= {*names}


@pytest.mark.slow
def test_every_command_prints_on_a_plain_console(foreign, tmp_path):
    """Messages, plans and names of files, too."""
    plain = {"PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    code, out, err = run("show", foreign / "out", "--token", "水風", **plain)
    assert (code, out) == (1, "") and "'\\u6c34\\u98a8'" in err
    place = tmp_path / "水"
    arguments = ["--model", foreign / "model", "--corpus", foreign / "text.txt"]
    code, out, err = run("extract", *arguments, "--out", place, **plain)
    assert code == 0, err
    assert "saved" in out and "\\u6c34" in out


@pytest.mark.slow
def test_as_a_process_it_extracts_and_shows(tiny, text_file, tmp_path):
    arguments = ["--model", tiny("llama"), "--corpus", text_file, "--out", tmp_path / "out"]
    code, out, err = run("extract", *arguments)
    assert code == 0, err
    assert "tokens/s" in out
    code, out, err = run("show", tmp_path / "out")
    assert (code, err) == (0, "")
    assert "V on M over tokens" in out


def test_as_a_process_it_fails_with_one_line(tmp_path):
    code, out, err = run("show", tmp_path)
    assert (code, out) == (1, "")
    assert is_one_line_of(err)
    assert "Traceback" not in err


def test_a_reader_that_leaves_early_is_no_error_to_report():
    """``embvar corpora | head -0``"""
    process = start("corpora")
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(timeout=60) == 1


@pytest.mark.parametrize("keeping", [False, True], ids=["alone", "with a checkpoint"])
@pytest.mark.slow
def test_an_interrupted_pass_says_how_to_go_on_and_saves_nothing(keeping, tmp_path):
    corpus, out, kept = tmp_path / "long.txt", tmp_path / "out", tmp_path / "kept"
    corpus.write_text("\n".join(SENTENCES * 1000))  # a pass of half a minute or so
    arguments = ["extract", "--model", "minilm", "--corpus", corpus, "--out", out]
    if keeping:
        arguments += ["--checkpoint", kept, "--checkpoint-every", 0]
    process = start(*arguments)
    shown = ""
    while shown.count("tok/s") < 2:  # the bar has moved
        shown += process.stdout.read(1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=100)
    assert process.returncode == 130, err
    how = "The same command resumes it" if keeping else "Nothing was saved: with --checkpoint DIR,"
    assert re.fullmatch(rf"embvar: Stopped after [\d,]+ of [\d,]+ batches, .*\. {how}.*\n", err), (
        err
    )
    assert not out.exists()
    assert (kept / "pass.safetensors").exists() == keeping


@pytest.mark.parametrize(
    ("stopped", "arguments", "told"),
    [
        ("extraction.extract.extract", "extract", "Nothing was saved: with --checkpoint DIR, an"),
        ("extraction.extract.extract", "extract --checkpoint .", r"resumes .* what '\.' holds"),
        ("extraction.extract.extract", "extract --checkpoint kept", "Nothing was measured yet"),
        ("figures.atlas.write", "figures", "Nothing was drawn; the same command begins again"),
        ("figures.atlas._planned", "figures", "Nothing was drawn; the same command begins again"),
        ("figures.atlas.page", "figures", "are in 'there', .* draws all of them again"),
        ("model_report._check", "report minilm", "No cell ran; the same command begins again"),
        ("models.bundled.fetch", "fetch minilm", "are kept; the same command fetches the others"),
        ("models.twin_training.train_twins", "twins", "The same command resumes the training"),
    ],
)
def test_an_interrupt_at_any_time_is_one_line_that_says_what_is_left(
    stopped, arguments, told, command, saved, tiny, text_file, tmp_path, monkeypatch
):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(f"embvar_kit.{stopped}", stop)
    lengths = [one for one in atlas.DRAWINGS if one.of == "none"]  # drawn in no time
    monkeypatch.setattr(atlas, "DRAWINGS", lengths)
    of = {"extract": ["--model", tiny("bert"), "--corpus", text_file], "figures": [saved]}
    words = arguments.split()
    out = () if words[0] == "fetch" else ("--out", "there")
    code, _, err = command(*words, *of.get(words[0], ()), *out)
    assert code == 130 and is_one_line_of(err)
    assert re.search(f"interrupted. .*{told}", err), err


@pytest.mark.slow
def test_an_interrupted_report_says_nothing_of_its_kernel(tiny, text_file, tmp_path):
    out = tmp_path / "out"
    process = start("report", tiny("bert"), "--corpus", text_file, "--out", out, "--device", "cpu")
    notebook = out / "report.ipynb"
    while not (notebook.exists() and '"output_type"' in notebook.read_text(encoding="utf-8")):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=100)
    assert process.returncode == 130
    assert said[0] == "" and is_one_line_of(said[1]), said
    assert f"are in '{notebook}'" in said[1]


def test_a_checkpoint_is_removed_once_the_result_is_saved(command, tiny, text_file, tmp_path):
    options = ["--model", tiny("gpt2"), "--corpus", text_file, "--device", "cpu"]
    kept, out = tmp_path / "kept", tmp_path / "out"
    code, _, err = command(
        "extract", *options, "--out", out, "--checkpoint", kept, "--min-count", 3
    )
    assert (code, err) == (0, "")
    assert not kept.exists()
    assert ek.TokenStatistics.load(out).n.min() >= 3
    code, _, err = command(
        "extract", *options, "--out", out, "--checkpoint", kept, "--checkpoint-every", -1
    )
    assert code == 1 and "not a number of seconds" in err


# Shards


def test_a_job_array_plans_runs_and_merges(command, tiny, tmp_path):
    """The steps of a cluster without Dask give what one pass in shards gives."""
    store, text = tmp_path / "store", tmp_path / "text.csv"
    text.write_text("text\n" + "the cat sat on the mat\n" * 600)
    model = ["--model", str(tiny("bert")), "--device", "cpu", "--corpus", str(text)]
    status, out, _ = command(
        "shard", "plan", str(store), "--shards", "3", *model, "--layers", "0,2", "--threads", "1"
    )
    assert status == 0 and "shards     3 of 3 documents" in out
    status, out, _ = command("shard", "run", str(store), "--index", "0", "--every", "2")
    assert status == 0 and "number 0 (of 0 to 2)" in out and "number 2 (" in out
    status, out, _ = command("shard", "run", str(store), "--index", "2")
    assert status == 0 and "done before" in out
    status, out, _ = command("shard", "status", str(store))
    assert status == 0 and "2 of 3 done" in out and "missing    shards: 1" in out
    status, _, err = command("shard", "merge", str(store), "--out", str(tmp_path / "out"))
    assert status == 1 and "1 of 3 shards are missing" in err and "embvar shard run" in err
    assert command("shard", "run", str(store), "--index", "1")[0] == 0
    status, out, _ = command("shard", "merge", str(store), "--out", str(tmp_path / "out"))
    assert status == 0 and "saved" in out
    found = ek.TokenStatistics.load(tmp_path / "out")
    wanted = ek.extract(
        ek.load_model(tiny("bert"), device="cpu"),
        ek.load_corpus(text),
        shards=3,
        store=store,
        layers=[0, 2],
        progress=False,
    )
    np.testing.assert_array_equal(found.V, wanted.V)
    assert found.layers.tolist() == [0, 2]


def test_words_take_the_array_twice(command, tiny, tmp_path):
    store, text = tmp_path / "store", tmp_path / "text.csv"
    text.write_text("text\n" + "the cat sat on the mat\n" * 400)
    model = ["--model", str(tiny("bert")), "--device", "cpu", "--corpus", str(text)]
    command("shard", "plan", str(store), "--shards", "2", "--by", "word", *model)
    for index in "01":
        status, out, _ = command("shard", "run", str(store), "--index", index)
        assert status == 0 and out.startswith("counts") and "run the array again" in out
        # A task that runs again, as one that was preempted does, has nothing left to count.
        if index == "0":
            status, out, _ = command("shard", "run", str(store), "--index", index)
            assert status == 0 and "number 0 was counted before" in out
    for index in "01":
        status, out, _ = command("shard", "run", str(store), "--index", index)
        assert status == 0 and out.startswith("shards")
    assert command("shard", "merge", str(store), "--out", str(tmp_path / "out"))[0] == 0
    assert "cat" in ek.TokenStatistics.load(tmp_path / "out").tokens


def test_two_arrays_may_be_submitted_again_in_any_state(command, tiny, tmp_path):
    """With --null, which counts first, too: a task does its own phase's work, or none."""
    store, text = str(tmp_path / "store"), tmp_path / "text.csv"
    text.write_text("text\n" + "the cat sat on the mat\n" * 400)
    model = ["--model", str(tiny("bert")), "--device", "cpu", "--corpus", str(text)]
    command("shard", "plan", store, "--shards", "2", "--null", *model)

    def run(phase, index):
        return command("shard", "run", store, "--index", index, "--phase", phase)

    assert run("counts", 0)[0] == 0
    status, _, err = run("shards", 0)
    assert status == 1 and "Shards are not counted yet: 1. Count them first" in err
    for _ in range(2):
        assert [run("counts", index)[0] for index in (0, 1)] == [0, 0]
    assert "missing    shards: 0, 1" in command("shard", "status", store)[1], "none was measured"
    assert run("shards", 0)[::2] == (0, "")
    status, out, _ = run("counts", 0)
    assert status == 0 and "number 0 was counted before" in out
    status, out, _ = run("shards", 0)
    assert status == 0 and "number 0 was done before" in out
    assert run("shards", 1)[0] == 0
    assert command("shard", "merge", store, "--out", tmp_path / "out")[0] == 0
    # A pass that needs no counts is measured by the second array alone.
    store = str(tmp_path / "tokens")
    command("shard", "plan", store, "--shards", "2", *model)
    status, out, _ = run("counts", 0)
    assert status == 0 and "this pass needs none" in out
    assert run("shards", 0)[0] == 0


def test_what_needs_the_array_twice_is_told(command):
    said = " ".join(command("shard", "--help")[1].split())
    page = " ".join((ROOT / "notebooks/reference/past_one_machine.md").read_text().split())
    for option in ("--min-count", "--null"):
        assert option in said.partition("need the array twice")[0]
        assert option in page.partition("submit the array **twice**")[0][-250:]
    said = " ".join(command("shard", "plan", "--help")[1].split())
    assert "threads that measure a shard on a CPU (default: 1)" in said


@pytest.mark.slow
def test_extract_measures_on_processes_of_this_machine(command, tiny, tmp_path):
    text = tmp_path / "text.csv"
    text.write_text("text\n" + "the cat sat on the mat\n" * 600)
    command(
        "extract",
        *("--model", str(tiny("bert")), "--device", "cpu", "--corpus", str(text)),
        *("--shards", "3", "--store", str(tmp_path / "store"), "--workers", "2", "--threads", "1"),
        *("--out", str(tmp_path / "out"), "--quiet"),
    )
    assert len(ek.TokenStatistics.load(tmp_path / "out")) == 7


@pytest.mark.slow
def test_a_worker_that_starts_slowly_after_it_was_killed_is_not_given_up():
    """Dask gives up those that are not back in time; here it would at once."""
    chosen = argparse.Namespace(workers=2, cluster=None, threads=1)
    with (
        dask.config.set({"distributed.deploy.lost-worker-timeout": "10ms"}),
        extract_command._workers(chosen) as client,
    ):
        client.wait_for_workers(2, timeout=120)
        killed = next(iter(client.run(os.getpid).values()))
        os.kill(killed, signal.SIGKILL)
        until = time.monotonic() + 120
        while killed in (there := client.run(os.getpid, on_error="ignore").values()) or (
            len(there) < 2
        ):
            assert time.monotonic() < until, "the worker was given up"
            time.sleep(0.1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["shard", "run", "nowhere", "--index", "0"], "holds no pass in shards"),
        (["shard", "status", "nosuch://x"], "Protocol not known"),
        (["extract", "--out", "OUT", "--shards", "3"], "takes --shards (or --folds), --store"),
        (
            ["extract", "--out", "OUT", "--shards", "3", "--store", "S", "--workers", "0"],
            "--workers must be at least 1",
        ),
        (
            ["extract", "--out", "OUT", "--shards", "3", "--store", "S", "--cluster", "nowhere"],
            "No Dask scheduler answers at 'nowhere'",
        ),
    ],
)
def test_mistakes_with_shards_return_1_and_one_line(
    command, tiny, tmp_path, monkeypatch, arguments, message
):
    monkeypatch.chdir(tmp_path)
    if arguments[0] == "extract":
        arguments = [*arguments, "--model", str(tiny("bert")), "--device", "cpu"]
        arguments += ["--limit", "5"]
    status, _, err = command(*arguments)
    assert status == 1 and message in err and err.count("\n") == 1


def test_a_shard_that_is_none_is_refused(command, tiny, tmp_path):
    store = str(tmp_path / "store")
    model = ["--model", str(tiny("bert")), "--device", "cpu"]
    command("shard", "plan", store, "--shards", "2", *model, "--sample", "20")
    status, _, err = command("shard", "run", store, "--index", "2")
    assert status == 1 and "are 0 to 1" in err


def test_shard_without_a_step_is_wrong_usage(command):
    status, _, err = command("shard")
    assert status == 2 and "plan, run, merge or status" in err
