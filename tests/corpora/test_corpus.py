"""Corpora: the pinned excerpt, files good and bad, datasets, and how a part is chosen."""
# ruff: noqa: NPY002 (the paper draws with NumPy's legacy generator)

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from local_hub import COMMIT, serving
from paths import ROOT

import embvar_kit as ek
from embvar_kit.corpora import wikipedia
from embvar_kit.corpora.content import REFUSED
from embvar_kit.corpora.load import CORPORA
from embvar_kit.corpora.parts import StreamedCorpus
from embvar_kit.corpora.tables import Table


def write(path: Path, data: bytes | str) -> Path:
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def parquet(path: Path, **columns) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


# The excerpt


def test_the_excerpt_is_the_one_that_published_numbers_rest_on(excerpt):
    assert len(excerpt) == 19_881
    assert excerpt.n_words == 430_587
    assert excerpt.fingerprint == "8cbcd2cf29383404"
    assert repr(excerpt) == "Corpus('wikipedia': 19,881 sentences, 430,587 words)"
    assert excerpt.settings == {}


def test_sentences_of_the_excerpt_know_their_article(excerpt):
    assert excerpt.where(0) == "Anarchism, sentence 1"
    assert excerpt[0].startswith("Anarchism is a political philosophy")
    titles = list(dict.fromkeys(excerpt.titles))
    assert CORPORA["wikipedia"].startswith(f"{len(titles)} English Wikipedia articles")
    for title in titles:
        own = [p for t, p in zip(excerpt.titles, excerpt.positions, strict=True) if t == title]
        assert own == list(range(1, len(own) + 1)), title


def test_sentences_of_the_excerpt_read_as_prose(excerpt):
    for sentence in excerpt:
        assert len(sentence.split()) >= 4
        assert sentence == " ".join(sentence.split())
        assert sentence.rstrip("\"'”’)]")[-1] in ".!?…", sentence
    markup = ("[[", "]]", "{{", "}}", "{|", "'''", "<ref", "==")
    left = [s for s in excerpt if s.startswith(tuple("*#|!")) or any(mark in s for mark in markup)]
    assert len(left) < 0.002 * len(excerpt), left[:5]


def test_another_dump_is_refused(tmp_path):
    with pytest.raises(ek.CorpusError, match=r"missing.*Install gensim again"):
        next(wikipedia.read_wikipedia(tmp_path / "none.bz2"))
    with pytest.raises(ek.CorpusError, match=r"not the one.*lock file"):
        next(wikipedia.read_wikipedia(write(tmp_path / "other.bz2", b"BZh9")))


# Text files


def test_a_line_is_a_sentence_and_keeps_its_number(tmp_path):
    path = write(tmp_path / "a.txt", "One.\n\n  Two words. \n \t\nThree.")
    corpus = ek.load_corpus(path)
    assert list(corpus) == ["One.", "Two words.", "Three."]
    assert [corpus.where(i) for i in range(3)] == [f"a.txt, line {n}" for n in (1, 3, 5)]
    assert corpus.name == "a.txt"


def test_windows_files_read_as_others_do(tmp_path):
    plain = ek.load_corpus(write(tmp_path / "a.txt", "Café.\n\nTwo.\n"))
    windows = ek.load_corpus(write(tmp_path / "b.txt", "\ufeffCafé.\r\n\r\nTwo.\r\n"))
    assert windows.fingerprint == plain.fingerprint
    assert windows.positions.tolist() == plain.positions.tolist() == [1, 3]


def test_a_text_file_needs_no_particular_ending(tmp_path):
    assert list(ek.load_corpus(write(tmp_path / "notes.md", "One.\nTwo.\n"))) == ["One.", "Two."]


def test_prose_is_joined_by_paragraph_and_split_into_sentences(tmp_path):
    text = "Dr. Smith went to\nWashington. He met Mr. Jones.\n\n\nA new paragraph\nends here.\n"
    corpus = ek.load_corpus(write(tmp_path / "prose.txt", text), split_sentences=True)
    assert list(corpus) == [
        "Dr. Smith went to Washington.",
        "He met Mr. Jones.",
        "A new paragraph ends here.",
    ]
    assert [corpus.where(i) for i in range(3)] == [f"prose.txt, line {n}" for n in (1, 1, 5)]


def test_the_language_of_prose_can_be_named(tmp_path):
    path = write(tmp_path / "de.txt", "Er kam am 3. Mai an. Hier ist noch ein Satz.")
    corpus = ek.load_corpus(path, split_sentences=True, language="de")
    assert list(corpus) == ["Er kam am 3. Mai an.", "Hier ist noch ein Satz."]
    assert len(ek.load_corpus(path, split_sentences=True)) == 3  # by English rules


@pytest.mark.parametrize("split", [False, True])
def test_a_byte_that_is_not_utf8_is_named_by_line(split, tmp_path):
    path = write(tmp_path / "latin.txt", b"Good.\nAlso good.\ncaf\xe9\n")
    with pytest.raises(ek.CorpusError, match=r"Line 3 of 'latin\.txt'.*byte 0xe9.*Convert"):
        ek.load_corpus(path, split_sentences=split)
    for encoding in ("utf-16", "utf-32"):
        path = write(tmp_path / "wide.txt", "Good.\n".encode(encoding))
        words = rf"'wide\.txt' is {encoding.upper()} text.*iconv -f {encoding.upper()} -t UTF-8"
        with pytest.raises(ek.CorpusError, match=words):
            ek.load_corpus(path, split_sentences=split)
        path = write(tmp_path / "bare.txt", "Good.\n".encode(f"{encoding}-le"))
        with pytest.raises(ek.CorpusError, match=r"Line 1 of 'bare\.txt' holds a NUL.*UTF-16"):
            ek.load_corpus(path, split_sentences=split)


@pytest.mark.parametrize("data", ["", "\n\n \n", "\ufeff"])
def test_a_file_without_a_sentence_is_refused(data, tmp_path):
    with pytest.raises(ek.CorpusError, match=r"'blank\.txt' holds no sentence"):
        ek.load_corpus(write(tmp_path / "blank.txt", data))


@pytest.mark.parametrize("name", ["none.txt", "none.parquet", "none.csv", "none.txt.gz"])
def test_a_missing_file_is_named(name, tmp_path):
    with pytest.raises(ek.CorpusError, match=rf"no file .*{name}.*wikipedia"):
        ek.load_corpus(tmp_path / name)
    (tmp_path / name).mkdir()
    with pytest.raises(ek.CorpusError, match="no file"):
        ek.load_corpus(tmp_path / name)


def test_an_unknown_name_says_what_there_is():
    with pytest.raises(ek.CorpusError, match=r"Unknown corpus 'wiki'.*'wikipedia'.*'hub:NAME'"):
        ek.load_corpus("wiki")


def test_a_folder_is_not_a_corpus(tmp_path):
    with pytest.raises(ek.CorpusError, match=r"' is a folder\. .*the path of a file \(text"):
        ek.load_corpus(tmp_path)


@pytest.fixture(scope="module")
def one_file(tmp_path_factory):
    return tmp_path_factory.mktemp("lines") / "a.txt"


LINES = st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\n\r\0"), max_size=20))


@given(LINES)
@example(["\ufeff", "\x0b", "\x85x"])
def test_any_text_file_gives_its_lines_that_are_not_blank(one_file, lines):
    data = "\n".join(lines)
    assume(not data.startswith(("\ufeff", *(beginning.decode("latin-1") for beginning in REFUSED))))
    assume(not data.lstrip().startswith(("PAR1", "{", "[")))  # maybe other kinds of files
    kept = [(n, line.strip()) for n, line in enumerate(lines, start=1) if line.strip()]
    assume(kept)
    corpus = ek.load_corpus(write(one_file, data))
    assert list(zip(corpus.positions.tolist(), corpus.sentences, strict=True)) == kept


# Parquet


def test_a_parquet_column_keeps_row_numbers(tmp_path):
    path = parquet(tmp_path / "a.parquet", text=["One.", None, " ", "Two."], n=[1, 2, 3, 4])
    corpus = ek.load_corpus(path)
    assert list(corpus) == ["One.", "Two."]
    assert [corpus.where(i) for i in range(2)] == ["a.parquet, row 1", "a.parquet, row 4"]
    assert corpus.without_text == 2
    assert repr(corpus) == "Corpus('a.parquet': 2 sentences, 2 words; 2 rows without text left out)"
    assert "; 1 row without text left out" in repr(ek.load_corpus(path, limit=2, sample=3, seed=1))
    assert ek.load_corpus(path, limit=1).without_text == 0  # none was read
    assert corpus.select(limit=1).without_text == corpus[:1].without_text == 0  # a part has none


def test_rows_of_prose_are_split_and_keep_their_row(tmp_path):
    path = parquet(tmp_path / "a.parquet", body=["One.", "Two. And\nthree."])
    corpus = ek.load_corpus(path, text_column="body", split_sentences=True)
    assert list(corpus) == ["One.", "Two.", "And three."]
    assert corpus.positions.tolist() == [1, 2, 2]


@pytest.mark.parametrize(
    "column",
    [
        pa.array(["One.", "Two.", "One."], pa.large_string()),
        pa.array(["One.", "Two.", "One."], pa.string_view()),
        pa.array(["One.", "Two.", "One."]).dictionary_encode(),
    ],
    ids=["large", "view", "categories"],
)
def test_other_kinds_of_text_columns_are_read(column, tmp_path):
    path = parquet(tmp_path / "a.parquet", text=column)
    assert list(ek.load_corpus(path)) == ["One.", "Two.", "One."]
    assert list(ek.load_corpus(path, sample=2, seed=4)) == [
        ["One.", "Two.", "One."][i] for i in np.sort(paper_draw(3, 2, 4))
    ]


def test_a_column_that_is_missing_or_not_text_is_named(tmp_path):
    path = parquet(tmp_path / "a.parquet", body=["One."], n=[1])
    with pytest.raises(ek.CorpusError, match=r"'text'; its columns are body, n.*text_column"):
        ek.load_corpus(path)
    with pytest.raises(ek.CorpusError, match=r"'n' of 'a\.parquet' holds int64, not text"):
        ek.load_corpus(path, text_column="n")


def test_a_column_of_nulls_holds_no_sentence(tmp_path):
    path = parquet(tmp_path / "a.parquet", text=pa.array([None, None], pa.string()))
    with pytest.raises(ek.CorpusError, match="holds no sentence"):
        ek.load_corpus(path)


def test_a_damaged_parquet_file_is_refused_by_name(tmp_path):
    rng = np.random.default_rng(0)
    texts = ["".join(map(chr, rng.integers(97, 122, 40))) for _ in range(2000)]
    path = parquet(tmp_path / "a.parquet", text=texts)
    whole = path.read_bytes()
    for name, data in {
        "cut": whole[: len(whole) // 2],
        "empty": b"",
        "text": b"One.\nTwo.\n",
        # The footer is whole, the pages are not.
        "hole": whole[:50] + bytes(len(whole) // 2) + whole[50 + len(whole) // 2 :],
    }.items():
        bad = write(tmp_path / f"{name}.parquet", data)
        with pytest.raises(ek.CorpusError, match=rf"'{name}\.parquet' cannot be read as parquet"):
            ek.load_corpus(bad)


# Datasets: folders instead of the Hub, read by the same library


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The same three rows, the second blank, as each kind of file that datasets come in."""
    root = tmp_path_factory.mktemp("datasets")
    rows = ["One.", "", "Two three."]
    for kind in ("parquet", "jsonl", "txt"):
        (root / kind).mkdir()
    parquet(root / "parquet" / "train.parquet", text=rows, n=[1, 2, 3])
    lines = [json.dumps({"text": row}) for row in rows]
    write(root / "jsonl" / "train.jsonl", "\n".join(lines))
    write(root / "txt" / "train.txt", "\n".join(rows))
    return root


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "txt"])
def test_a_dataset_gives_its_rows(kind, folders):
    corpus = ek.load_corpus(f"hub:{folders / kind}")
    assert list(corpus) == ["One.", "Two three."]
    assert corpus.where(1) == f"{folders / kind}, row 3"


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "txt"])
def test_a_streamed_dataset_gives_the_same_in_chunks(kind, folders):
    corpus = ek.load_corpus(f"hub:{folders / kind}", streaming=True, chunk=1)
    assert isinstance(corpus, StreamedCorpus)
    for _ in range(2):  # each call starts reading afresh
        chunks = list(corpus.chunks())
        assert [list(chunk) for chunk in chunks] == [["One."], ["Two three."]]
        assert chunks[1].where(0) == f"{folders / kind}, row 3"
    assert "in chunks of 1 sentence)" in repr(corpus)


def test_rows_without_text_are_counted_in_datasets_and_their_chunks(tmp_path):
    rows = [None, "1", "", "2", "3", None, None]
    parquet(tmp_path / "train.parquet", text=rows)
    assert ek.load_corpus(f"hub:{tmp_path}").without_text == 4
    chunks = list(ek.load_corpus(f"hub:{tmp_path}", streaming=True, chunk=2).chunks())
    assert [list(chunk) for chunk in chunks] == [["1", "2"], ["3"]]
    # Rows at the end belong to the last chunk; those between two, to the former.
    assert [chunk.without_text for chunk in chunks] == [2, 2]
    chunks = ek.load_corpus(f"hub:{tmp_path}", streaming=True, chunk=1).chunks()
    assert [chunk.without_text for chunk in chunks] == [2, 0, 2]


def test_words_that_a_datasets_reader_takes_for_missing_are_counted(tmp_path):
    write(tmp_path / "train.csv", "text,n\nOne.,1\nnull,2\nNA,3\n")
    corpus = ek.load_corpus(f"hub:{tmp_path}")
    assert (list(corpus), corpus.without_text) == (["One."], 2)
    assert list(ek.load_corpus(tmp_path / "train.csv")) == ["One.", "null", "NA"]


def test_a_value_of_a_stream_that_is_not_text_is_refused(tmp_path):
    rows = [{"text": "One."}, {"text": None}, {"text": {"a": 1}}]
    write(tmp_path / "train.jsonl", "\n".join(map(json.dumps, rows)))
    with pytest.raises(ek.CorpusError, match=r"row 3 of dataset .* holds \{.a.: 1\}, not text"):
        list(ek.load_corpus(f"hub:{tmp_path}", streaming=True).chunks())


def test_a_stream_is_limited_while_it_is_read(folders):
    name = f"hub:{folders / 'parquet'}"
    short = ek.load_corpus(name, streaming=True, max_words=1)
    assert [list(c) for c in short.chunks()] == [["One."]]
    assert next(short.chunks()).settings == {"max_words": 1}
    first = ek.load_corpus(name, streaming=True, limit=1)
    assert [list(c) for c in first.chunks()] == [["One."]]
    prose = ek.load_corpus(name, streaming=True, split_sentences=True)
    assert [list(c) for c in prose.chunks()] == [["One.", "Two three."]]


@pytest.mark.parametrize("streaming", [False, True])
def test_what_a_dataset_lacks_is_named(streaming, folders):
    name = f"hub:{folders / 'parquet'}"
    with pytest.raises(ek.CorpusError, match=r"'body'; its columns are text, n.*text_column"):
        ek.load_corpus(name, text_column="body", streaming=streaming)
    with pytest.raises(ek.CorpusError, match=r"'n' of dataset .* holds int64, not text"):
        ek.load_corpus(name, text_column="n", streaming=streaming)
    with pytest.raises(ek.CorpusError, match=r"split 'test'.*train"):
        ek.load_corpus(name, split="test", streaming=streaming)


def test_a_dataset_that_breaks_off_is_refused_by_row(tmp_path):
    (tmp_path / "bad").mkdir()
    # The reader parses a large first block before it yields rows.
    rows = [json.dumps({"text": f"Sentence {n} " + "x" * 1000}) for n in range(30_000)]
    write(tmp_path / "bad" / "train.jsonl", "\n".join([*rows, '{"text": "cut']))
    corpus = ek.load_corpus(f"hub:{tmp_path / 'bad'}", streaming=True, chunk=1000)
    with pytest.raises(ek.CorpusError, match=r"cannot be read beyond row [\d,]+"):
        for _ in corpus.chunks():
            pass


def test_a_full_chunk_comes_before_the_failure_behind_it():
    def read():
        yield from (("rows", n, f"Row {n}.") for n in (1, 2, 3, 4))
        raise ek.CorpusError("row 5")

    chunks = StreamedCorpus("rows", read, chunk=2).chunks()
    assert [list(next(chunks)) for _ in range(2)] == [["Row 1.", "Row 2."], ["Row 3.", "Row 4."]]
    with pytest.raises(ek.CorpusError, match="row 5"):
        next(chunks)
    chunks = StreamedCorpus("rows", read, chunk=3).chunks()
    assert len(next(chunks)) == 3
    with pytest.raises(ek.CorpusError, match="row 5"):
        next(chunks)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"split": "test"}, r"of the Hub .* leave out split='test'"),
        ({"config": "de", "revision": "v1"}, r"leave out config='de' and revision='v1'"),
        ({"language": "de"}, r"language='de' .* split_sentences=True, too"),
    ],
)
def test_arguments_that_would_change_nothing_are_refused(tmp_path, given, message):
    for name in ("wikipedia", write(tmp_path / "a.txt", "One.")):
        with pytest.raises(ek.CorpusError, match=message):
            ek.load_corpus(name, **given)
    with pytest.raises(ek.CorpusError, match="leave out language='de', or read"):
        ek.load_corpus("bookcorpus", language="de")
    with pytest.raises(ek.CorpusError, match="no columns: leave out text_column='body'"):
        ek.load_corpus("wikipedia", text_column="body")
    assert ek.load_corpus(tmp_path / "a.txt", split=None).sentences == ["One."]


def test_arguments_of_a_stream_that_make_no_sense_are_refused(folders, tmp_path):
    name = f"hub:{folders / 'txt'}"
    with pytest.raises(ek.CorpusError, match=r"sample=0\.5 .* leave out streaming=True"):
        ek.load_corpus(name, streaming=True, sample=0.5)
    with pytest.raises(ek.CorpusError, match="chunk must be at least 1"):
        ek.load_corpus(name, streaming=True, chunk=0)
    with pytest.raises(ek.CorpusError, match="limit must be at least 1"):
        ek.load_corpus(name, streaming=True, limit=0)
    for other in ("wikipedia", write(tmp_path / "a.txt", "One.")):
        with pytest.raises(ek.CorpusError, match=r"of the Hub .*leave out streaming=True"):
            ek.load_corpus(other, streaming=True)


# With and without a Hub: the real client, in a process of its own

HUB_SESSION = """
import json, sys, time
import datasets, huggingface_hub
import embvar_kit as ek

told = []
for name, options in json.loads(sys.stdin.read()):
    started = time.perf_counter()
    try:
        said = list(ek.load_corpus(name, **options))
    except ek.CorpusError as error:
        said = str(error)
    told.append([said, time.perf_counter() - started])
print(json.dumps(told))
"""


def in_a_process(url: str, home: Path, *calls: tuple[str, dict]) -> list:
    environment = {k: v for k, v in os.environ.items() if "proxy" not in k.lower()}
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_DATASETS_CACHE", "HF_TOKEN"):
        environment.pop(name, None)
    environment |= {"HF_ENDPOINT": url, "HF_HOME": str(home), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", HUB_SESSION],
        input=json.dumps(calls),
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_without_a_network_datasets_come_from_the_cache_or_fail_at_once(folders, tmp_path):
    nowhere = "http://127.0.0.1:9"
    in_a_process(nowhere, tmp_path, (f"hub:{folders / 'jsonl'}", {}))
    # The library caches a folder as it caches a dataset, except for the owner's name.
    (tmp_path / "datasets" / "jsonl").rename(tmp_path / "datasets" / "org___jsonl")
    kept, unknown, streamed, nameless = in_a_process(
        nowhere,
        tmp_path,
        ("hub:org/jsonl", {}),
        ("hub:org/unknown", {}),
        ("hub:bookcorpus", {"streaming": True}),
        ("hub:", {}),
    )
    assert kept[0] == ["One.", "Two three."]
    assert "'org/unknown'" in unknown[0]
    assert "'bookcorpus'" in streamed[0]
    assert "''" in nameless[0]
    for said, seconds in (unknown, streamed, nameless):
        assert "Without a network use 'wikipedia'" in said
        assert seconds < 2
    assert kept[1] < 2


def test_a_dataset_that_the_hub_does_not_have_fails_at_once(tmp_path):
    with serving(tmp_path) as hub:
        ((said, seconds),) = in_a_process(hub.url, tmp_path, ("hub:org/unknown", {}))
    assert "The Hub has no dataset 'org/unknown' that you can read" in said
    assert seconds < 2


def test_a_gated_dataset_is_refused_with_its_page_and_the_token_that_opens_it(tmp_path):
    with serving(tmp_path, datasets={"org/own": (tmp_path, "main")}, gated=True) as hub:
        ((said, _),) = in_a_process(hub.url, tmp_path, ("hub:org/own", {}))
    assert "https://huggingface.co/datasets/org/own" in said and "HF_TOKEN" in said


# The paper's sample of BookCorpus, from a stand-in with the same schema


def lines_like_books(n: int) -> list[str]:
    """Lines of 1 to 90 words, some with blanks and tabs that must not be lost, and empty ones."""
    rng = np.random.default_rng(7)
    lines = [" ".join(f"w{i}" for i in range(k)) for k in rng.integers(1, 91, n)]
    for at, odd in enumerate(["", " ", "a  b", "tab\tand tab", " lead", "trail ", "ünï ☃"]):
        lines[at::97] = [odd] * len(lines[at::97])
    return lines


def sample_of_the_paper(lines: list[str], share: float = 0.01, seed: int = 0) -> list[str]:
    """The sample as the authors' script takes it, line by line."""
    np.random.seed(seed)
    chosen = set(np.random.choice(len(lines), int(share * len(lines)), replace=False).tolist())
    kept = []
    for index, line in enumerate(lines):
        if index in chosen and len(line.split(" ")) < 64:
            kept.append(line)
    return sorted(kept, key=lambda line: len(line.split(" ")))


@pytest.fixture(scope="module")
def books(tmp_path_factory):
    """``(lines, folder)``: three parquet files, of which the second has several row groups."""
    lines, folder = lines_like_books(9_370), tmp_path_factory.mktemp("books")
    for number, (first, end) in enumerate([(0, 100), (100, 7000), (7000, 9370)]):
        table = pa.table({"text": lines[first:end]})
        pq.write_table(table, folder / f"{number:04d}.parquet", row_group_size=1000)
    return lines, folder


def test_bookcorpus_is_sampled_line_by_line_as_in_the_paper(books):
    lines, folder = books
    corpus = ek.load_corpus(f"bookcorpus:{folder}")
    expected = sample_of_the_paper(lines)
    assert list(corpus) == expected
    assert 30 < len(corpus) < 93  # int(93.7), of which some are too long
    assert corpus.fingerprint == ek.Corpus.of(expected).fingerprint
    assert corpus.name == "bookcorpus"
    assert corpus.settings == {"sample": 0.01, "seed": 0, "max_words": 63}
    for at in range(len(corpus)):
        title, unit, row = corpus.where(at).rpartition(" ")[0], corpus.unit, corpus.positions[at]
        assert (title, unit) == ("bookcorpus, row", "row")
        assert lines[row - 1] == corpus[at]


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("share", [0.01, 0.29, 0.999])
def test_every_line_of_a_larger_sample_is_the_papers(books, share, seed):
    lines, folder = books
    corpus = ek.load_corpus(f"bookcorpus:{folder}", sample=share, seed=seed)
    assert list(corpus) == sample_of_the_paper(lines, share, seed)


def test_what_is_given_overrides_the_papers_choices(books):
    lines, folder = books
    name = f"bookcorpus:{folder}"
    everything = ek.load_corpus(name, sample=len(lines), max_words=1000)
    assert list(everything) == sorted(lines, key=lambda line: len(line.split(" ")))
    short = ek.load_corpus(name, max_words=10)
    assert list(short) == [s for s in sample_of_the_paper(lines) if len(s.split(" ")) <= 10]
    first = ek.load_corpus(name, limit=5)
    assert first.settings == {"sample": 0.01, "seed": 0, "max_words": 63, "limit": 5}
    rows = sorted(ek.load_corpus(name).positions)[:5]
    assert sorted(first.positions) == rows
    assert list(first) == sorted((lines[i - 1] for i in rows), key=lambda s: len(s.split(" ")))


def test_a_copy_of_bookcorpus_may_be_one_file(books, tmp_path):
    lines, _ = books
    path = parquet(tmp_path / "all.parquet", body=lines)
    corpus = ek.load_corpus(f"bookcorpus:{path}", text_column="body")
    assert list(corpus) == sample_of_the_paper(lines)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"split_sentences": True}, "the lines of its train split"),
        ({"split": "test"}, "the lines of its train split"),
        ({"config": "small"}, "the lines of its train split"),
        ({"streaming": True}, "a dataset of the Hub"),
        ({"text_column": "body"}, "no column 'body'"),
        ({"sample": 1.0}, "makes no sense"),
        ({"sample": 1e-9}, "take a larger share"),
        ({"sample": 10**6}, "makes no sense"),
        ({"max_words": 0}, "max_words must be at least 1"),
        ({"limit": 1.5}, "limit must be a whole number"),
        ({"seed": -1}, "seed=-1"),
        ({"max_words": 1, "sample": 1, "seed": 3}, "is left after"),
    ],
)
def test_what_makes_no_sense_for_bookcorpus_is_refused(books, options, words):
    with pytest.raises(ek.CorpusError, match=words):
        ek.load_corpus(f"bookcorpus:{books[1]}", **options)


def test_a_copy_of_bookcorpus_that_is_not_there_is_named(tmp_path):
    for place in (tmp_path, tmp_path / "none.parquet"):
        with pytest.raises(ek.CorpusError, match=r"no parquet file .*'bookcorpus:PATH'"):
            ek.load_corpus(f"bookcorpus:{place}")
    write(tmp_path / "bad.parquet", b"PAR1")
    with pytest.raises(ek.CorpusError, match=r"'bad.parquet' cannot be read as parquet"):
        ek.load_corpus(f"bookcorpus:{tmp_path}")


ONLINE_BOOKS = """
import json, sys
from embvar_kit.corpora import bookcorpus
import embvar_kit as ek

bookcorpus.ROWS = int(sys.argv[1])
try:
    corpus = ek.load_corpus("bookcorpus")
    said = [list(corpus), corpus.settings]
except ek.CorpusError as error:
    said = str(error)
print(json.dumps(said))
"""


@pytest.mark.slow
def test_bookcorpus_comes_from_the_hubs_parquet_files_and_then_from_the_cache(books, tmp_path):
    lines, folder = books
    repository = tmp_path / "repository"
    shutil.copytree(folder, repository / "plain_text" / "train")
    write(repository / "other.txt", "not asked for")

    def told(url: str, rows: int):
        environment = {k: v for k, v in os.environ.items() if "proxy" not in k.lower()}
        environment.pop("HF_HUB_OFFLINE", None)
        environment |= {"HF_ENDPOINT": url, "HF_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", ONLINE_BOOKS, str(rows)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=99)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    served = {"bookcorpus/bookcorpus": (repository, "refs/convert/parquet")}
    with serving(tmp_path, datasets=served) as hub:
        online = told(hub.url, len(lines))
        assert not any("other.txt" in request for request in hub.requests)
        assert "gave 9,370 rows of BookCorpus, not 74,004,228" in told(hub.url, 74_004_228)
    sentences, settings = online
    assert sentences == sample_of_the_paper(lines)
    assert settings == {"sample": 0.01, "seed": 0, "max_words": 63, "revision": COMMIT}
    assert told("http://127.0.0.1:9", len(lines)) == online


def test_without_a_network_bookcorpus_fails_at_once(tmp_path):
    ((said, seconds),) = in_a_process("http://127.0.0.1:9", tmp_path, ("bookcorpus", {}))
    assert "BookCorpus (bookcorpus/bookcorpus, revision 'refs/convert/parquet')" in said
    assert "the Hub cannot be reached. Name a copy" in said
    assert "Without a network use 'wikipedia'" in said
    assert seconds < 2


# Choosing part of a corpus


def paper_draw(n: int, size: int, seed: int) -> np.ndarray:
    """Draw as the paper's release does."""
    np.random.seed(seed)
    return np.random.choice(n, size, replace=False)


def test_the_papers_one_percent_is_drawn_exactly(excerpt):
    drawn = excerpt.select(sample=0.01, seed=0)
    expected = sorted(paper_draw(19_881, 199, 0).tolist())
    assert list(drawn) == [excerpt[i] for i in expected]
    assert [drawn.where(i) for i in range(5)] == [excerpt.where(i) for i in expected[:5]]
    assert drawn.settings == {"sample": 0.01, "seed": 0}
    assert list(excerpt.select(sample=199)) == list(drawn)
    assert list(excerpt.select(sample=199, seed=1)) != list(drawn)


def test_a_draw_leaves_numpys_own_generator_alone(excerpt):
    before = np.random.get_state()[1].copy()
    excerpt.select(sample=10, seed=3)
    assert np.array_equal(before, np.random.get_state()[1])


def test_a_sample_of_a_table_draws_its_rows(tmp_path, folders):
    rows = [f"Row {n}." for n in range(500)]
    rows[7] = None
    path = parquet(tmp_path / "a.parquet", text=rows)
    (tmp_path / "set").mkdir()
    parquet(tmp_path / "set" / "train.parquet", text=rows, n=list(range(500)))
    expected = [i for i in np.sort(paper_draw(500, 250, 1)).tolist() if rows[i] is not None]
    for name in (path, f"hub:{tmp_path / 'set'}"):
        corpus = ek.load_corpus(name, sample=0.5, seed=1)
        assert list(corpus) == [rows[i] for i in expected]
        assert (corpus.positions - 1).tolist() == expected
        assert corpus.settings == {"sample": 0.5, "seed": 1}


@given(
    words=st.lists(st.integers(1, 12), min_size=1, max_size=30),
    share=st.one_of(st.none(), st.floats(0.05, 0.95), st.integers(1, 30)),
    max_words=st.one_of(st.none(), st.integers(1, 12)),
    limit=st.one_of(st.none(), st.integers(1, 30)),
    seed=st.integers(0, 2**32 - 1),
)
def test_sample_then_length_then_limit(words, share, max_words, limit, seed):
    sentences = [f"{i}" + " w" * (n - 1) for i, n in enumerate(words)]
    size = round(len(words) * share) if isinstance(share, float) else share
    assume(share is None or 0 < size <= len(words))
    kept = range(len(words)) if share is None else sorted(paper_draw(len(words), size, seed))
    kept = [i for i in kept if max_words is None or words[i] <= max_words][:limit]
    corpus = ek.Corpus.of(sentences)
    options = {"sample": share, "max_words": max_words, "limit": limit, "seed": seed}
    if not kept:
        with pytest.raises(ek.CorpusError, match=r"No sentence .* is left"):
            corpus.select(**options)
        return
    chosen = corpus.select(**options)
    assert list(chosen) == [sentences[i] for i in kept]
    assert chosen.positions.tolist() == [i + 1 for i in kept]
    assert [sentences[p - 1] for p in chosen.positions] == list(chosen)


@pytest.mark.parametrize(
    "sample", [0, 0.0, 1.0, 1.5, -1, -0.5, 11, 0.01, float("nan"), "0.5", [2], np.float32(2)]
)
def test_a_sample_that_makes_no_sense_is_refused(sample):
    with pytest.raises(ek.CorpusError, match="share between 0 and 1 or a whole number from 1 to"):
        ek.Corpus.of(["A b."] * 10).select(sample=sample)


def test_a_share_of_one_is_refused_with_what_to_give_instead():
    with pytest.raises(ek.CorpusError, match=r"For all of them leave sample out; 1\.0 is refused"):
        ek.Corpus.of(["A b."] * 10).select(sample=1.0)


@pytest.mark.parametrize("seed", [-1, 2**32, "x"])
def test_a_seed_that_makes_no_sense_is_refused(seed):
    with pytest.raises(ek.CorpusError, match=f"seed={seed!r}"):
        ek.Corpus.of(["A b."] * 10).select(sample=3, seed=seed)


@pytest.mark.parametrize("limit", [0, -3])
def test_a_limit_that_makes_no_sense_is_refused(limit):
    with pytest.raises(ek.CorpusError, match="limit must be at least 1"):
        ek.Corpus.of(["A b."]).select(limit=limit)


@pytest.mark.parametrize("name", ["limit", "max_words", "chunk"])
def test_what_is_not_a_whole_number_is_refused(name, folders):
    for value in (1.5, "3", float("nan")):
        with pytest.raises(ek.CorpusError, match=f"{name} must be a whole number"):
            ek.load_corpus(f"hub:{folders / 'txt'}", streaming=True, **{name: value})
    if name != "chunk":
        with pytest.raises(ek.CorpusError, match=f"{name} must be a whole number"):
            ek.Corpus.of(["A b."]).select(**{name: 1.5})


@pytest.mark.parametrize("sample", [np.int64(12), np.float32(0.5)])
def test_numpys_numbers_are_recorded_as_plain_ones(sample, folders):
    given = {"sample": sample, "seed": np.uint8(3), "max_words": np.int32(2), "limit": np.int64(2)}
    plain = {name: value.item() for name, value in given.items()}
    corpus = ek.Corpus.of(f"letter {c}" for c in "abcdefghijklmnopqrst")
    assert json.loads(json.dumps(corpus.select(**given).settings)) == plain
    assert list(corpus.select(**given)) == list(corpus.select(**plain))
    del given["sample"], given["seed"]
    for streaming in (False, True):
        loaded = ek.load_corpus(f"hub:{folders / 'txt'}", streaming=streaming, **given)
        assert json.loads(json.dumps(loaded.settings)) == {"max_words": 2, "limit": 2}


def test_no_choice_is_lost_from_the_record(excerpt):
    part = excerpt.select(sample=500, seed=1).select(limit=100)[:50].select(sample=20).select()
    assert part.settings == {
        "sample": 500,
        "seed": 1,
        "then": [{"limit": 100}, {"slice": "[0:50:1]"}, {"sample": 20, "seed": 0}],
    }
    assert excerpt.select().settings == excerpt.settings == {}


# Limits while reading


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("limits", [{"limit": 3}, {"max_words": 2}, {"max_words": 2, "limit": 2}])
def test_limits_while_reading_give_what_select_gives(limits, split, tmp_path):
    rows = ["One two three. Four.", "", "Five.", "Six seven eight.", "Nine ten.", "Eleven. Twelve."]
    path = parquet(tmp_path / "a.parquet", text=rows)
    (tmp_path / "set").mkdir()
    parquet(tmp_path / "set" / "train.parquet", text=rows)
    text = write(tmp_path / "a.txt", "\n\n".join(rows))
    for name in (path, f"hub:{tmp_path / 'set'}", text):
        read = ek.load_corpus(name, split_sentences=split, **limits)
        selected = ek.load_corpus(name, split_sentences=split).select(**limits)
        assert vars(read).keys() == vars(selected).keys()
        for part in ("name", "sentences", "titles", "unit", "settings"):
            assert getattr(read, part) == getattr(selected, part), part
        assert read.positions.tolist() == selected.positions.tolist()


def endless():
    """Rows of one or two words; reading far into them fails."""
    for number in range(1, 2000):
        yield "rows", number, f"{number}" + " more" * (number % 2)
    raise AssertionError("read far beyond the limit")


@pytest.mark.parametrize("name", ["a.parquet", "hub:rows", "a.txt", "wikipedia"])
def test_what_lies_beyond_the_limit_is_not_read(name, tmp_path, monkeypatch):
    table = Table(lambda: 74_000_000, lambda kept: endless())
    pairs = ((title, text) for title, _, text in endless())
    tables = {"a.parquet": table, "a.txt": None}
    monkeypatch.setattr(
        "embvar_kit.corpora.local_file.file_table", lambda file, _: tables[file.name]
    )
    monkeypatch.setattr("embvar_kit.corpora.load.hub_table", lambda *_: table)
    monkeypatch.setattr("embvar_kit.corpora.local_file.text_lines", lambda _: endless())
    monkeypatch.setattr("embvar_kit.corpora.load.read_wikipedia", lambda: pairs)
    if name.startswith("a."):
        name = write(tmp_path / name, "")
    corpus = ek.load_corpus(name, max_words=1, limit=10)
    assert list(corpus) == [str(number) for number in range(2, 22, 2)]


def test_limits_that_leave_nothing_are_named(tmp_path):
    path = write(tmp_path / "a.txt", "One two three.")
    with pytest.raises(
        ek.CorpusError, match=r"'a\.txt' is left after max_words=2, limit=5: loosen"
    ):
        ek.load_corpus(path, max_words=2, limit=5)
    with pytest.raises(ek.CorpusError, match="holds no sentence"):
        ek.load_corpus(write(path, "\n"), max_words=2, limit=5)
    with pytest.raises(ek.CorpusError, match="holds no sentence"):
        ek.Corpus.of([]).select()


def test_slices_keep_where_sentences_came_from(excerpt):
    part = excerpt[100:200][10:20:3]
    assert list(part) == list(excerpt.sentences[110:120:3])
    assert part.where(1) == excerpt.where(113)
    assert part.name == "wikipedia"
    assert part.settings == {"slice": "[100:200:1]", "then": [{"slice": "[10:20:3]"}]}
    assert excerpt[-1:].where(0) == excerpt.where(len(excerpt) - 1)
    assert excerpt[-1] == excerpt.sentences[-1]


def test_a_corpus_of_a_list_of_sentences():
    corpus = ek.Corpus.of((s for s in ("One.", "Two three.")), name="mine")
    assert (len(corpus), corpus.n_words, corpus.where(1)) == (2, 3, "mine, sentence 2")
    with pytest.raises(ek.CorpusError, match="not of one string"):
        ek.Corpus.of("One. Two.")
    with pytest.raises(ek.CorpusError, match="Sentence 2 is not a string: None"):
        ek.Corpus.of(["One.", None])


# Fingerprints

SENTENCES = st.lists(st.text(max_size=8), min_size=1, max_size=6)


@given(SENTENCES, st.data())
def test_a_fingerprint_changes_with_any_sentence(sentences, data):
    fingerprint = ek.Corpus.of(sentences).fingerprint
    assert fingerprint == ek.Corpus.of(sentences, name="another name").fingerprint
    assert len(fingerprint) == 16
    at = data.draw(st.integers(0, len(sentences) - 1))
    other = data.draw(st.text(max_size=8).filter(lambda text: text != sentences[at]))
    changed = [*sentences[:at], other, *sentences[at + 1 :]]
    assert ek.Corpus.of(changed).fingerprint != fingerprint
    assert ek.Corpus.of([*sentences, other]).fingerprint != fingerprint
    assert ek.Corpus.of(sentences[:at] + sentences[at + 1 :]).fingerprint != fingerprint


@given(SENTENCES, SENTENCES)
@example(["ab"], ["a", "b"])
@example(["a", ""], ["", "a"])
@example(["\ud800"], ["\ufffd"])
def test_corpora_that_differ_have_different_fingerprints(one, other):
    same = ek.Corpus.of(one).fingerprint == ek.Corpus.of(other).fingerprint
    assert same == (one == other)
