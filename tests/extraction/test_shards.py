"""Passes in shards: right, the same bits in whatever order and however often interrupted."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

import embvar_kit as ek
from embvar_kit.array_file import CheckpointFile
from embvar_kit.corpora.parts import StreamedCorpus
from embvar_kit.extraction import measure
from embvar_kit.extraction.finishing import finish, on_this_machine
from embvar_kit.extraction.forward import forward as run_batches
from embvar_kit.extraction.shards import ShardedPass

SHARDS = 5


@pytest.fixture(scope="module")
def corpus():
    return ek.load_corpus("wikipedia", sample=150, max_words=30)


def extract(model, corpus, store, **options):
    options = {"shards": SHARDS, "progress": False} | options
    return ek.extract(model, corpus, store=store, **options)


@pytest.fixture(scope="module")
def sharded(model, corpus, tmp_path_factory):
    """A pass that nothing disturbed, and its store."""
    store = tmp_path_factory.mktemp("undisturbed") / "store"
    return extract(model, corpus, store), store


def same(found, wanted) -> None:
    """Two statistics are the same, to the bit."""
    assert found.tokens.tolist() == wanted.tokens.tolist()
    for name in ("n", "Q", "M", "V", "mean", "extra", "special"):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))
    assert found.info == wanted.info


def close(found, wanted) -> None:
    """Two statistics are the same up to the rounding of the model's own arithmetic."""
    assert found.tokens.tolist() == wanted.tokens.tolist()
    assert found.n.tolist() == wanted.n.tolist()
    assert found.special.tolist() == wanted.special.tolist()
    for name in "QMV":
        apart = np.abs(getattr(found, name) - getattr(wanted, name))
        assert (apart <= 1e-6 * wanted.Q).all(), name
    assert (found.V >= 0).all()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"by": "id", "layers": [0, -1]},
        {"by": "word"},
        {"min_count": 4},
        {"by": "word", "min_count": 3},
    ],
    ids=["token", "id", "word", "frequent tokens", "frequent words"],
)
def test_shards_give_what_one_pass_gives(model, corpus, tmp_path, options):
    whole = ek.extract(model, corpus, progress=False, **options)
    found = extract(model, corpus, tmp_path / "store", **options)
    close(found, whole)
    if whole.subwords is not None:
        np.testing.assert_allclose(found.subwords, whole.subwords, rtol=1e-12)
    for part in ("model", "convention", "counts", "sentences_by_words"):
        assert found.info[part] == whole.info[part], part
    (corpus_of,) = found.info["corpora"]
    dealt = corpus_of.pop("dealt")
    assert [corpus_of] == whole.info["corpora"]
    assert dealt.pop("text") == corpus.fingerprint and len(dealt.pop("dealing")) == 16
    assert dealt == {"shards": SHARDS, "seed": 0}


def test_several_sites_are_measured_in_one_pass(model, corpus, tmp_path):
    whole = ek.extract(model, corpus, site=["hidden", "unit"], progress=False)
    found = extract(model, corpus, tmp_path / "store", site=["hidden", "unit"])
    assert list(found) == ["hidden", "unit"]
    for site, statistics in found.items():
        close(statistics, whole[site])
        assert statistics.info["convention"]["site"] == site


def test_order_and_repetition_do_not_matter(model, corpus, sharded, tmp_path):
    job = ShardedPass.plan(tmp_path / "store", model, corpus, shards=SHARDS)
    for shard in (3, 0, 3, 4, 1, 2):
        job.run("shards", shard, model)
    same(job.merge()["hidden"], sharded[0])
    # A finished pass is merged again without the model being run.
    again = ShardedPass.open(tmp_path / "store")
    assert again.missing("shards") == []
    same(again.merge()["hidden"], sharded[0])


def test_some_shards_are_merged_alone(sharded):
    whole, store = sharded
    job = ShardedPass.open(store)
    first, rest = (job.merge(only)["hidden"] for only in ([0], range(1, SHARDS)))
    of_first, of_whole = first.info["corpora"][0], whole.info["corpora"][0]
    assert of_first["dealt"]["only"] == [0] and "only" not in of_whole["dealt"]
    assert of_first["fingerprint"] != of_whole["fingerprint"]
    close(first.add(rest), whole)
    for wrong in ([], [0, 0], [SHARDS], [-1]):
        with pytest.raises(ek.ExtractionError, match="different numbers of shards, from 0 to 4"):
            job.merge(wrong)


def test_merges_that_share_a_shard_are_refused(model, corpus, sharded, tmp_path):
    """Whatever other shards are with it, and however the same text was dealt."""
    whole, store = sharded
    job = ShardedPass.open(store)
    parts = {only: job.merge(only)["hidden"] for only in ((0,), (0, 1), (1, 2), (3, 4))}
    other = ShardedPass.plan(tmp_path, model, corpus, shards=3)
    for shard in range(3):
        other.run("shards", shard, model)
    dealt_otherwise = other.merge([2])["hidden"]
    apart = parts[0, 1].merge(parts[3, 4])
    for one, two in (
        (parts[0,], parts[0, 1]),
        (parts[0, 1], parts[1, 2]),
        (apart, parts[1, 2]),
        (whole, parts[0,]),
        (ek.extract(model, corpus, progress=False), parts[0,]),
        (dealt_otherwise, parts[0,]),
        (other.merge()["hidden"], whole),
    ):
        for ours, theirs in ((one, two), (two, one)):
            with pytest.raises(ek.StatisticsError, match="would count it twice"):
                ours.merge(theirs)
    # Of another text, the shards of the same numbers are other sentences.
    changed = replace(corpus, sentences=[f"{sentence} And so on." for sentence in corpus.sentences])
    of_another = extract(model, changed, tmp_path / "another")
    assert parts[0,].merge(of_another).n.sum() == parts[0,].n.sum() + of_another.n.sum()


def test_a_shard_without_a_word_counts_for_nothing(model, tmp_path):
    """Documents of digits only: no word, and with min_count no token that is frequent enough."""
    sentences = ["the cat sat on the mat", "1905", "the dog and the bird", "26"]
    corpus = ek.Corpus("four", sentences, list("abcd"), np.ones(4, dtype=np.int64))
    for options in ({"by": "word"}, {"min_count": 4}):
        found = extract(
            model, corpus, tmp_path / str(len(options)) / options.get("by", ""), shards=4, **options
        )
        whole = ek.extract(model, corpus, progress=False, **options)
        close(found, whole)
        for part in ("counts", "convention", "sentences_by_words", "sentences_by_blanks"):
            assert found.info[part] == whole.info[part], part
    nothing = ek.Corpus("none", ["1905", "26"], list("ab"), np.ones(2, dtype=np.int64))
    with pytest.raises(ek.ExtractionError, match="No word of corpus 'none'"):
        extract(model, nothing, tmp_path / "nothing", shards=2, by="word")


def test_the_text_of_a_shard_without_a_group_is_counted(model, tmp_path):
    """Sentences, tokens, those left out in front, and those of which no token is left."""
    cat, dog = ["the cat sat on the mat"] * 40, ["1905"] * 5
    titles = ["cat"] * 40 + ["1905"] * 5 + ["nothing"]
    sentences = [*cat, *dog, "\u200b"]
    corpus = ek.Corpus("numbers", sentences, titles, np.arange(1, 47))
    for number, options in enumerate(
        ({"by": "word"}, {"by": "word", "null": True, "leave_out": ek.LeaveOut(first=2)})
    ):
        found = extract(model, corpus, tmp_path / str(number), shards=3, **options)
        whole = ek.extract(model, corpus, progress=False, **options)
        assert found.info["counts"] == whole.info["counts"]
        assert found.info["counts"]["sentences"] == 45 and found.info["counts"]["empty"] == 1
        assert found.info["sentences_by_words"] == whole.info["sentences_by_words"]
        close(found, whole)


def test_shards_in_which_nothing_was_measured_are_named(model, tmp_path):
    """Files without text, and shards of numbers that are merged alone."""
    (tmp_path / "texts").mkdir()
    for name in "ab":
        (tmp_path / "texts" / f"{name}.txt").write_text("\n\n")
    blank = ek.load_corpus(f"{tmp_path}/texts/*.txt")
    with pytest.raises(ek.ExtractionError, match=r"Corpus '.*\*\.txt' yields no sentence\.$"):
        extract(model, blank, tmp_path / "blank", shards=2)
    sentences = ["the cat sat on the mat", "1905"]
    corpus = ek.Corpus("two", sentences, list("ab"), np.ones(2, dtype=np.int64))
    extract(model, corpus, tmp_path / "two", shards=2, by="word")
    job = ShardedPass.open(tmp_path / "two")
    (shard,) = (at for at in range(2) if "1905" in job.text(at).sentences)
    with pytest.raises(ek.ExtractionError, match=f"No word that .* occurs in shard {shard}: merge"):
        job.merge(only=[shard])


# What goes wrong


def test_a_pass_that_is_stopped_resumes(model, corpus, sharded, tmp_path, monkeypatch):
    ran = []

    def forward(*arguments, **options):
        for batch in run_batches(*arguments, **options):
            ran.append(1)
            if len(ran) == 3:
                signal.raise_signal(signal.SIGINT)
            yield batch

    monkeypatch.setattr(measure, "forward", forward)
    with pytest.raises(ek.ExtractionInterrupted, match=r"after \d of 5 shards.*resumes"):
        extract(model, corpus, tmp_path / "store")
    monkeypatch.undo()
    same(extract(model, corpus, tmp_path / "store"), sharded[0])


def test_inside_a_shard_a_stopped_pass_resumes_where_it_was(model, corpus, tmp_path, monkeypatch):
    wanted = extract(model, corpus, tmp_path / "whole", shards=1, batch_tokens=100)
    ran = []

    def forward(*arguments, **options):
        for batch in run_batches(*arguments, **options):
            ran.append(batch.planned)
            if len(ran) == 8:
                signal.raise_signal(signal.SIGINT)
            yield batch

    monkeypatch.setattr(measure, "forward", forward)
    with pytest.raises(ek.ExtractionInterrupted):
        extract(model, corpus, tmp_path / "store", shards=1, batch_tokens=100)
    assert len(ran) == 8
    same(extract(model, corpus, tmp_path / "store", shards=1, batch_tokens=100), wanted)
    batches = len(ek.plan(model, corpus, batch_tokens=100).batches)
    assert len(ran) == batches, "no batch was run twice"
    assert not (tmp_path / "store" / "running").exists()


def test_a_shard_whose_state_cannot_be_written_resumes_where_it_was(
    model, corpus, tmp_path, monkeypatch
):
    wanted = extract(model, corpus, tmp_path / "whole", shards=1, batch_tokens=100)
    store = tmp_path / "store"
    job = ShardedPass.plan(store, model, corpus, shards=1, batch_tokens=100)
    (store / "shards").write_text("a file stands where the folder is to be")
    with pytest.raises(ek.CheckpointError):
        job.run("shards", 0, model, checkpoint_every=0)
    (store / "shards").unlink()
    ran = []

    def forward(*arguments, **options):
        for batch in run_batches(*arguments, **options):
            ran.append(batch.planned)
            yield batch

    monkeypatch.setattr(measure, "forward", forward)
    job.run("shards", 0, model, checkpoint_every=0)
    assert len(ran) == 1, "the progress after the last batch but one was kept"
    assert not (store / "running" / "00000").exists()
    same(job.merge()["hidden"], wanted)


@pytest.mark.parametrize("damage", ["truncated", "bit flipped", "missing"])
@pytest.mark.parametrize("folder", ["shards", "counts"])
def test_a_damaged_shard_alone_is_made_again(model, corpus, tmp_path, monkeypatch, damage, folder):
    options = {"by": "word"} if folder == "counts" else {}
    store = tmp_path / "store"
    wanted = extract(model, corpus, store, **options)
    path = store / folder / f"00002-of-{SHARDS:05}.safetensors"
    data, arrays = path.read_bytes(), load_file(path)
    if damage == "truncated":
        path.write_bytes(data[:-5])
    elif damage == "bit flipped":
        path.write_bytes(data[:-5] + bytes([data[-5] ^ 4]) + data[-4:])
    else:
        path.unlink()
    if folder == "counts":
        (store / "groups.safetensors").unlink()
    made = []
    run = ShardedPass.run
    monkeypatch.setattr(
        ShardedPass, "run", lambda *a, **k: made.append(a[1:3]) or run(*a, **k), raising=True
    )
    told = pytest.warns(ek.EmbvarWarning, match="damaged, and is made again")
    with nullcontext() if damage == "missing" else told:
        same(extract(model, corpus, store, **options), wanted)
    assert made == [(folder, 2)]
    again = load_file(path)
    assert all(np.array_equal(again[name], array) for name, array in arrays.items())


@pytest.mark.parametrize("name", ["text/00001-of-00005.safetensors", "groups.safetensors"])
def test_a_damaged_file_of_the_plan_is_named_and_written_again(
    model, corpus, sharded, tmp_path, name
):
    store = tmp_path / "store"
    job = ShardedPass.plan(store, model, corpus, shards=SHARDS)
    path = store / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ek.CheckpointError, match=rf"'{name}' in .* Remove it, and plan the pass"):
        job.run("shards", 1, model)
    path.unlink()
    same(extract(model, corpus, store), sharded[0])


def test_a_shard_of_another_pass_is_refused_and_kept(model, corpus, tmp_path):
    store, name = tmp_path / "store", f"shards/00002-of-{SHARDS:05}.safetensors"
    extract(model, corpus, store)
    extract(model, corpus, tmp_path / "other", layers=[0])
    data = (tmp_path / "other" / name).read_bytes()
    (store / name).write_bytes(data)
    with pytest.raises(ek.CheckpointError, match="belongs to another pass"):
        extract(model, corpus, store)
    assert (store / name).read_bytes() == data


def test_a_store_whose_manifest_is_gone_is_not_planned_anew(model, corpus, tmp_path):
    """Its files would be taken for those of the new plan."""
    store = tmp_path / "store"
    extract(model, corpus, store)
    (store / "manifest.json").unlink()
    with pytest.raises(ek.CheckpointError, match=r"manifest\.json is missing. Name another store"):
        extract(model, corpus, store, by="word")
    # Of a plan that was killed before its end, nothing is taken over.
    for path in (store / "shards").iterdir():
        path.unlink()
    found = extract(model, corpus, store, by="word", min_count=2)
    close(found, ek.extract(model, corpus, by="word", min_count=2, progress=False))


def test_groups_of_another_plan_are_refused(model, corpus, tmp_path):
    store, other = tmp_path / "store", tmp_path / "other"
    job = ShardedPass.plan(store, model, corpus, shards=SHARDS)
    ShardedPass.plan(other, model, corpus, shards=SHARDS, layers=[0])
    (store / "groups.safetensors").write_bytes((other / "groups.safetensors").read_bytes())
    with pytest.raises(ek.CheckpointError, match=r"'groups\.safetensors' .* of another plan"):
        job.run("shards", 0, model)


def test_what_cannot_be_read_now_is_not_taken_for_damaged(model, corpus, tmp_path, monkeypatch):
    """A lack of memory, of rights or of file handles costs no shard."""
    store = tmp_path / "store"
    wanted = extract(model, corpus, store)
    before = {path.name: path.stat().st_mtime_ns for path in (store / "shards").iterdir()}
    for error in (PermissionError(13, "Permission denied"), MemoryError("no memory")):

        def fail(*_, error=error):
            raise error

        with monkeypatch.context() as now:
            now.setattr("embvar_kit.array_file._fill", fail)
            with pytest.raises(ek.CheckpointError, match="cannot be read"):
                extract(model, corpus, store)
    same(extract(model, corpus, store), wanted)
    after = {path.name: path.stat().st_mtime_ns for path in (store / "shards").iterdir()}
    assert after == before


def test_a_shard_that_is_damaged_again_and_again_ends_the_pass(model, corpus, tmp_path):
    store = tmp_path / "store"
    job = ShardedPass.plan(store, model, corpus, shards=SHARDS)
    make = on_this_machine(job, model, progress=False)

    def make_badly(phase, shards):
        make(phase, shards)
        path = store / job.name("shards", 2)
        path.write_bytes(path.read_bytes()[:-1])

    with pytest.raises(ek.CheckpointError, match="00002-of-00005"):
        finish(job, make_badly)


def test_a_limit_that_was_set_holds_in_every_process(model, corpus, tmp_path):
    short = replace(model, max_tokens=8)
    found = extract(short, corpus, tmp_path / "store")
    assert found.info["counts"]["split"] > 0
    with pytest.raises(ek.CheckpointError, match="max_tokens=8; this run has max_tokens="):
        extract(model, corpus, tmp_path / "store")
    assert ShardedPass.open(tmp_path / "store").load_model().max_tokens == 8


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"shards": 4}, r"shards=5; this run has shards=4"),
        ({"layers": [1]}, r"layers=None; this run has layers=\[1\]"),
        ({"site": ["unit"]}, r"sites=\['hidden'\]; this run has sites=\['unit'\]"),
        ({"by": "word"}, r"by='token'; this run has by='word'"),
        ({"text": True}, r"text='\w+'; this run has text='\w+'"),
        ({"titles": True}, r"with dealing='\w+'; this run has dealing='\w+'\."),
        ({"model": True}, r"weights='\w+'; this run has weights='\w+'"),
    ],
)
def test_what_differs_from_the_plan_is_refused_by_name(model, corpus, sharded, changed, message):
    changed = dict(changed)
    if changed.pop("text", None):
        corpus = replace(corpus, sentences=[*corpus.sentences[:-1], "Another one."])
    if changed.pop("titles", None):  # the first two documents become one
        first, second = list(dict.fromkeys(corpus.titles))[:2]
        corpus = replace(corpus, titles=[first if x == second else x for x in corpus.titles])
    if changed.pop("model", None):
        model = replace(ek.untrained(model), name=model.name, revision=model.revision)
    with pytest.raises(ek.CheckpointError, match=message):
        extract(model, corpus, sharded[1], **changed)


def test_text_that_is_missing_is_not_dealt_anew_under_other_titles(model, corpus, tmp_path):
    """The text of one shard would come from one dealing, and that of the others from another."""
    store = tmp_path / "store"
    job = ShardedPass.plan(store, model, corpus, shards=SHARDS)
    before = sorted(sentence for at in range(SHARDS) for sentence in job.text(at))
    path = store / job.name("text", 1)
    path.unlink()
    other = replace(corpus, titles=[f"article {at % 40}" for at in range(len(corpus))])
    assert other.fingerprint == corpus.fingerprint
    with pytest.raises(ek.CheckpointError, match="dealing="):
        ShardedPass.plan(store, model, other, shards=SHARDS)
    assert not path.exists()
    job = ShardedPass.plan(store, model, corpus, shards=SHARDS)
    assert sorted(sentence for at in range(SHARDS) for sentence in job.text(at)) == before


def test_a_worker_with_another_model_is_refused(model, sharded):
    other = replace(ek.untrained(model), name=model.name, revision=model.revision)
    with pytest.raises(ek.CheckpointError, match="weights="):
        on_this_machine(ShardedPass.open(sharded[1]), other)


def test_a_manifest_that_was_altered_is_refused(model, corpus, tmp_path):
    ShardedPass.plan(tmp_path / "store", model, corpus, shards=SHARDS)
    path = tmp_path / "store" / "manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({**manifest, "documents": [1]}))
    with pytest.raises(ek.CheckpointError, match="damaged or was altered"):
        ShardedPass.open(tmp_path / "store")
    path.write_text("{")
    with pytest.raises(ek.CheckpointError, match=r"'manifest.json' in .* is damaged"):
        ShardedPass.open(tmp_path / "store")
    path.unlink()
    with pytest.raises(ek.CheckpointError, match="holds no pass in shards"):
        ShardedPass.open(tmp_path / "store")


def test_a_second_client_is_told(model, corpus, tmp_path):
    job = ShardedPass.plan(tmp_path / "store", model, corpus, shards=SHARDS)
    script = (
        "import sys\nfrom embvar_kit.extraction.store import Store\n"
        f"with Store({str(tmp_path / 'store')!r}).held():\n    print('held', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(ek.CheckpointError, match="Another process is using"):
            extract(model, corpus, tmp_path / "store")
        job.run("shards", 0, model)  # a worker is no client
    finally:
        other.communicate()
    extract(model, corpus, tmp_path / "store")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"store": None}, r"takes shards= \(or folds=\), store=.* Add store=, or leave"),
        ({"shards": None}, r"takes shards= \(or folds=\), store=.* Add shards=, or leave"),
        ({"checkpoint": "kept"}, "leave out checkpoint='kept'"),
    ],
    ids=["no store", "no number", "a checkpoint"],
)
def test_arguments_that_do_not_fit_together_are_refused(model, corpus, tmp_path, options, told):
    store = options.pop("store", tmp_path)
    with pytest.raises(ek.ExtractionError, match=told):
        extract(model, corpus, store, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"by": "letter"}, "by='letter' is unknown"),
        ({"min_count": 0}, "min_count must be"),
        ({"batch_tokens": 0}, "batch_tokens must be"),
        ({"long": "fold"}, "long='fold' is unknown"),
        ({"layers": [9]}, "there is no 9"),
        ({"layers": 2}, "layers=2 is not a list of whole numbers"),
        ({"min_count": "2"}, "min_count must be"),
        ({"batch_tokens": "200"}, "batch_tokens must be"),
        ({"shards": "4", "folds": 2}, "shards must be a whole number from 1, got '4'"),
        ({"folds": "2"}, "folds='2' must be a whole number from 2"),
        ({"folds": True}, "folds=True must be a whole number from 2"),
        ({"threads": True}, "threads must be"),
        ({"threads": 0}, "threads must be"),
        ({"threads": 1.5}, "threads must be"),
        ({"site": "norm_output", "layers": [0, 9]}, "there is no 9"),
    ],
)
def test_an_argument_that_makes_no_sense_is_refused_before_anything_is_written(
    model, corpus, tmp_path, options, message
):
    with pytest.raises(ek.ExtractionError, match=message):
        extract(model, corpus, tmp_path / "store", **options)
    assert not (tmp_path / "store").exists()


def test_numbers_of_numpy_are_numbers(model, corpus, tmp_path):
    options = {"layers": np.arange(2), "batch_tokens": np.int64(200)}
    more = {"folds": np.int64(2), "threads": np.int64(1), "shards": np.int64(SHARDS)}
    found = extract(model, corpus, tmp_path / "store", **options, **more)
    assert found.layers.tolist() == [0, 1] and len(found.folds.n) == 2
    frequent = ek.extract(model, corpus, min_count=np.int64(9), progress=False)
    assert frequent.info["convention"]["min_count"] == 9
    ShardedPass.open(tmp_path / "store").merge(only=np.array([0]))["hidden"].save(tmp_path / "out")


def test_a_layer_may_be_named_from_either_end(model, corpus, tmp_path):
    """A pass that resumes asks for the same hidden states, whichever way they are named."""
    wanted = extract(model, corpus, tmp_path / "store", layers=[-1, 0])
    last = model.n_states - 1
    same(extract(model, corpus, tmp_path / "store", layers=iter([0, last, last])), wanted)
    kept = {"checkpoint": tmp_path / "kept", "checkpoint_every": 0, "progress": False}
    one = ek.extract(model, corpus, layers=[-1], **kept)
    same(ek.extract(model, corpus, layers=[last], **kept), one)


@pytest.mark.parametrize("wrong", [[0.5], 3, "0"])
def test_shards_to_merge_are_whole_numbers(sharded, wrong):
    with pytest.raises(ek.ExtractionError, match="must be different numbers of shards"):
        ShardedPass.open(sharded[1]).merge(only=wrong)


def test_a_name_is_no_model(corpus):
    for names in (("minilm", corpus), (None, "wikipedia")):
        with pytest.raises(ek.ExtractionError, match="not their names"):
            ek.extract(*names, layers=[0], progress=False)


def test_a_corpus_without_sentences_is_refused(model, tmp_path):
    with pytest.raises(ek.CorpusError, match="0 documents"):
        extract(model, ek.Corpus.of([]), tmp_path / "store", shards=1)


def test_a_stream_is_refused(model, tmp_path):
    stream = StreamedCorpus("stream", lambda: iter([("t", 1, "a cat")]), 10)
    with pytest.raises(ek.ExtractionError, match="no stream"):
        extract(model, stream, tmp_path)


def test_more_shards_than_documents_are_refused_before_anything_is_written(model, tmp_path):
    with pytest.raises(ek.CorpusError, match="1 document cannot be dealt out to 2"):
        extract(model, ek.Corpus.of(["a cat"]), tmp_path / "store", shards=2)
    assert not (tmp_path / "store").exists()


def test_the_merge_reads_one_layer_at_a_time(model, corpus, sharded, monkeypatch):
    """So that memory does not grow with the number of layers that the states hold."""
    read = []
    one = CheckpointFile.__getitem__
    monkeypatch.setattr(
        CheckpointFile, "__getitem__", lambda file, name: read.append(name) or one(file, name)
    )
    monkeypatch.setattr("embvar_kit.extraction.merging._SLAB", 1)
    same(ShardedPass.open(sharded[1]).merge()["hidden"], sharded[0])
    means = [name.split("/")[1] for name in read if name.endswith("/mean")]
    assert means == sorted(means) and len(set(means)) == model.n_states
    assert len(means) == model.n_states * SHARDS, "each is read once"


def test_a_progress_bar_and_the_plan_are_printed(model, corpus, tmp_path, capsys):
    extract(model, corpus, tmp_path / "store", progress=True)
    told = capsys.readouterr().out
    assert "shards     5 of" in told and "5/5" in told and "tokens/s" in told
    extract(model, corpus, tmp_path / "store", progress=True)
    assert "5 of 5 done" in capsys.readouterr().out


def test_a_full_disk_is_named_and_nothing_is_lost(model, corpus, sharded, tmp_path, monkeypatch):
    store = tmp_path / "store"
    job = ShardedPass.plan(store, model, corpus, shards=SHARDS)
    make = on_this_machine(job, model, progress=False)
    make("shards", [0, 1])

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("embvar_kit.array_file.save_file", full)
    with pytest.raises(ek.CheckpointError, match="No space left on device"):
        finish(job, make)
    monkeypatch.undo()
    assert job.missing("shards") == [2, 3, 4]
    same(finish(job, make)["hidden"], sharded[0])


def test_the_model_says_how_another_process_loads_it(model, tmp_path):
    again = ek.load_model(device="cpu", **model.source)
    ids = torch.tensor([[1, 5, 6, 2]])
    for one, other in zip(model.hidden_states(ids), again.hidden_states(ids), strict=True):
        assert torch.equal(one, other)
    assert Path(model.source["name"]).is_absolute()
    assert ek.untrained(model).source is None
