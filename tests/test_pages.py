"""The Markdown pages: their code runs, and the files and commands that they name exist."""

from __future__ import annotations

import re
import shlex
import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from paths import PAGES, ROOT

import embvar_kit as ek
from embvar_kit import cli, files
from embvar_kit.corpora.dealing import documents_of

REFERENCE = ROOT / "notebooks" / "reference"


def blocks(page: Path, language: str) -> list[str]:
    """The code blocks of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)


def each_page(function):
    names = [str(page.relative_to(ROOT)) for page in PAGES]
    return pytest.mark.parametrize("page", PAGES, ids=names)(function)


def test_the_front_page_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


@pytest.mark.slow  # without `make pass` the pass is run
def test_the_front_page_shows_what_is_printed(capsys):
    ek.cached_statistics(progress=False)
    assert cli.main(["show", str(files.home() / "cache" / "minilm-wikipedia" / "hidden")]) == 0
    printed = capsys.readouterr().out.strip().splitlines()
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = text[text.index(printed[0]) :].split("```")[0].strip().splitlines()
    assert len(shown) == len(printed)
    for line, wanted in zip(shown, printed, strict=True):
        for word, other in zip(line.split(), wanted.split(), strict=True):
            # Another machine may round the last digit otherwise.
            numbers = [re.fullmatch(r"-?[\d.]+", text) for text in (word, other)]
            assert word == other or all(numbers), line
            assert word == other or float(word) == pytest.approx(float(other), abs=0.0021)


@each_page
def test_files_named_on_a_page_exist(page):
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"`((?:tests|embvar_kit|notebooks|data)/[\w./-]*)", text):
        if not name.startswith("data/cache"):  # made by `make run`
            assert (ROOT / name).exists(), name


def test_contributors_find_what_they_are_sent_to():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| .+ \| `(embvar_kit/[\w/]+\.py)` \| (.+) \|$", text, re.M)
    assert len(rows) > 10
    for module, names in rows:
        source = (ROOT / module).read_text(encoding="utf-8")
        for name in re.findall(r"`(\w+)`", names):
            assert re.search(rf"^(def |class )?{name}\b", source, re.M), f"{module}: {name}"


@each_page
def test_commands_named_on_a_page_exist(page):
    text = page.read_text(encoding="utf-8")
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    for target in re.findall(r"`make ([a-z-]+)", text):
        assert target in targets, target
    for command in re.findall(r"`embvar ([a-z]+)", text):
        assert cli.parser().parse_args([command, *NEEDED.get(command, ())]).command == command
    for line in "".join(blocks(page, "bash")).splitlines():
        words = shlex.split(line, comments=True)
        if words and words[0].endswith("embvar"):
            cli.parser().parse_args(words[1:])
        elif words and words[0] == "make":
            assert words[1] in targets, line


NEEDED = {"extract": ["--out", "DIR"], "show": ["DIR"], "figures": ["DIR"], "report": ["MODEL"]}
NEEDED["reproduce"] = ["MODEL"]
"""Arguments that a command cannot do without."""


@pytest.fixture
def corpus(monkeypatch, tmp_path):
    """A short corpus, whatever a page asks for, and an empty working folder."""
    monkeypatch.chdir(tmp_path)
    short = ek.load_corpus("wikipedia", max_words=10, sample=700)
    monkeypatch.setitem(vars(ek), "load_corpus", lambda name: short)
    return short


@pytest.fixture
def real(monkeypatch, corpus, minilm):
    """Names for a page: the bundled encoder, whatever model the page asks for, and the corpus."""
    monkeypatch.setitem(vars(ek), "load_model", lambda name: minilm)
    return {"ek": ek, "model": minilm, "corpus": corpus}


@pytest.fixture
def small(corpus, tiny):
    """Names for a page that loads no model: the tiny BERT and the corpus."""
    return {"ek": ek, "model": ek.load_model(tiny("bert"), device="cpu"), "corpus": corpus}


def run(page: Path, names: dict) -> None:
    """Run the Python blocks of a page, one after another."""
    assert blocks(page, "python")
    for block in blocks(page, "python"):
        exec(compile(block, page.name, "exec"), names)


def test_the_front_pages_code_runs(real):
    run(ROOT / "README.md", real)
    assert real["stats"].tradeoff()["slope"].notna().all()


def test_the_librarys_page_runs(real):
    x = np.random.default_rng(0).normal(size=(50, 768)).astype(np.float32)
    real |= {"x": x, "groups": np.arange(50), "other": ek.GroupedMoments(1000, 768)}
    run(REFERENCE / "library.md", real)
    shape = (len(real["stats"].layers), len(real["stats"]), 384)
    assert real["mean"].shape == shape
    assert len(real["table"]) == shape[0] * shape[1]
    assert real["m"].count.sum() == 50
    assert documents_of(real["mine"]).tolist() == [0, 1]


def test_the_explorers_page_runs(small):
    sites = ek.extract(small["model"], small["corpus"], site=["hidden", "norm_input"])
    small |= dict.fromkeys(("stats", "minilm", "smollm2"), sites["hidden"])
    small |= {"inputs": sites["norm_input"], "x": np.ones((5, 3))}
    run(REFERENCE / "explorers.md", small)


def test_the_page_on_long_passes_runs(small):
    run(REFERENCE / "passes.md", small)
    assert (Path("out") / "progress" / "pass.safetensors").is_file()


def test_the_page_on_the_authors_files_runs(small):
    """On files that the kit writes in the authors' form."""
    from embvar_kit import release

    sample, name = "bookcorpus_train_lt64_pct001_seed0", "bert-base-uncased"
    release.write_sentences(small["corpus"], f"datasets/{sample}.pkl")
    tokens, words = (ek.extract(small["model"], small["corpus"], by=by) for by in ("token", "word"))
    release.write_token_statistics(tokens, f"token_stats/{sample}/{name}.pkl")
    folder = Path("word_stats") / sample
    counts = folder / f"bookcorpus_{name}_word2token_count.pkl"
    release.write_word_statistics(words, folder / f"{name}.pkl", token_counts=counts)
    run(REFERENCE / "authors_files.md", small)
    assert Path(f"out/{name}.pkl").is_file()


def test_the_page_past_one_machine_computes_its_table_and_its_jobs(tmp_path, monkeypatch, capsys):
    """Its numbers are what its code prints, and its template is what dask-jobqueue submits."""
    monkeypatch.chdir(tmp_path)
    page = REFERENCE / "past_one_machine.md"
    python = blocks(page, "python")
    for block in python:
        compile(block, page.name, "exec")
    (cost,) = (block for block in python if "def hidden_states" in block)
    template, table = blocks(page, "text")
    exec(cost, {})
    assert capsys.readouterr().out == table
    (jobs,) = (block for block in python if "SLURMCluster(" in block)
    names = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # another cluster of this machine may have Dask's port
        exec(jobs, names)
    with names["cluster"] as cluster:
        script = cluster.job_script()
    lines = [line for line in script.splitlines() if line.startswith("#SBATCH")]
    assert lines == template.splitlines()
    assert "source /shared/venv/bin/activate" in script
    assert "--nthreads 1 " in script and "--lifetime 3h50m" in script


def test_the_row_groups_of_a_large_file_become_documents(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    texts = ek.load_corpus("wikipedia", max_words=10, sample=700).sentences
    pq.write_table(pa.table({"text": texts}), "corpus.parquet", row_group_size=len(texts) // 4 + 1)
    python = blocks(REFERENCE / "past_one_machine.md", "python")
    (split,) = (block for block in python if "read_row_group" in block)
    exec(split, names := {"ek": ek})
    corpus, model = names["corpus"], ek.load_model(tiny("bert"), device="cpu")
    assert len(corpus) == 4 and corpus.read().sentences == texts
    found = ek.extract(model, corpus, shards=4, store="store", progress=False)
    whole = ek.extract(model, corpus.read(), progress=False)
    np.testing.assert_array_equal(found.n, whole.n)


def test_the_cost_of_a_shard_is_the_size_of_its_file(small, tmp_path):
    page = REFERENCE / "past_one_machine.md"
    (cost,) = (block for block in blocks(page, "python") if "def hidden_states" in block)
    names = {}
    exec(cost, names)
    model, store = small["model"], tmp_path / "store"
    stats = ek.extract(model, small["corpus"], shards=1, store=store, progress=False)
    (file,) = store.glob("shards/*.safetensors")
    size = names["state"](len(stats), model.n_states, model.width)
    assert 0 < file.stat().st_size - size < 20_000  # a header
