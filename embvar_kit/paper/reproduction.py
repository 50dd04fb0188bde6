"""The paper's protocol for one of its six models, from the corpus to files like the authors'."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from embvar_kit.corpora.corpus import Corpus
from embvar_kit.corpora.load import load_corpus
from embvar_kit.corpora.words import words_of
from embvar_kit.errors import ExtractionError, ModelError
from embvar_kit.extraction.extract import extract
from embvar_kit.models.from_hub import check_available
from embvar_kit.models.loading import load_model
from embvar_kit.paper.release import (
    write_dataset_stand_in,
    write_sentences,
    write_token_statistics,
    write_word_statistics,
)
from embvar_kit.statistics.token_statistics import TokenStatistics
from embvar_kit.wording import did_you_mean

PAPER_MODELS = {
    "bert-base-uncased": "google-bert/bert-base-uncased",
    "bert-large-uncased": "google-bert/bert-large-uncased",
    "roberta-base": "FacebookAI/roberta-base",
    "roberta-large": "FacebookAI/roberta-large",
    "gpt2": "openai-community/gpt2",
    "gpt2-medium": "openai-community/gpt2-medium",
}
"""The paper's names of its models, and their present names on the Hub."""

LEVELS = ("token", "word")
"""The levels of the authors' statistics: tokens, and words (Appendix J)."""


def reproduce(
    model: str,
    out: str | Path = "output",
    *,
    corpus: str | Path | Corpus = "bookcorpus",
    by: str = "token",
    limit: int | None = None,
    device: str = "auto",
    dtype: str = "float32",
    batch_tokens: int | None = None,
    progress: bool = True,
) -> TokenStatistics:
    """Run the paper's protocol for one of its models and save files like the authors'.

    The folder is laid out like the authors' ``output``, so that their scripts for figures find
    their input in it. For the paper's corpus, ``SAMPLE`` is
    ``bookcorpus_train_lt64_pct001_seed0``::

        datasets/SAMPLE.pkl             the sentences
        datasets/bookcorpus.pkl         what their scripts take for the dataset
        token_stats/SAMPLE/MODEL.pkl    the statistics (word_stats with by="word")
        kit/SAMPLE/MODEL-token/         the same, as TokenStatistics.save writes them

    Three of the scripts (Figs. 1 and 9, and the numbers of tokens of words) read the dataset before
    the sentences; :func:`embvar_kit.paper.release.write_dataset_stand_in` writes a small file that
    does for them, if none is there.

    These things differ from the authors' scripts. Moments are accumulated without their rounding:
    they take V as Q - M, in float64 from a float32 mean under NumPy 1.26 and in float32 under NumPy
    2. Lines from which the tokenizer makes no tokens are left out and reported; the scripts count
    the special tokens at their ends. The kit calls a bare marker ``Ġ``; the scripts take the marker
    off and call it the empty string, and so does ``MODEL.pkl``. Tokens are listed by their
    frequency; the scripts list them by their first occurrence, on which their draw of tokens for
    Fig. 1 depends.

    With ``by="word"`` the model reads the words alone, lower-cased and without punctuation, as in
    the scripts; everywhere else in the kit it reads the sentence itself, and words are looked up in
    it. The paper's appendix runs BERT, for which the words' tokens do not depend on what stands
    beside them. The other models get the words with the blanks between them that they were trained
    on.

    Args:
        model: one of :data:`PAPER_MODELS`, by either name.
        out: the folder to write.
        corpus: a corpus, or what :func:`embvar_kit.load_corpus` takes: ``"bookcorpus:PATH"`` reads
            a copy on this machine. Corpora other than the paper's are measured in the same way.
        by: ``"token"`` or ``"word"``.
        limit: number of sentences to take from the start, for a trial; by default all.
        device, dtype: see :func:`embvar_kit.load_model`.
        batch_tokens, progress: see :func:`embvar_kit.extract`.

    Returns:
        The statistics.

    Raises:
        ModelError: If the model is not one of the six, or is neither in the Hub's cache nor on a
            Hub that can be reached. It is raised before anything is loaded.
        CorpusError: If the corpus cannot be read.
        ExtractionError: If ``by`` is neither of the two, or as in :func:`embvar_kit.extract`.
        StatisticsFileError, ReleaseError: If a file cannot be written.
    """
    short = short_name(model)
    if by not in LEVELS:
        raise ExtractionError(f"by={by!r} is not in the release; choose from {', '.join(LEVELS)}.")
    source = check_available(PAPER_MODELS[short], short)
    if not isinstance(corpus, Corpus):
        corpus = load_corpus(corpus, limit=limit)
    elif limit is not None:
        corpus = corpus.select(limit=limit)
    loaded = load_model(source, device=device, dtype=dtype)
    read = bare_words(corpus) if by == "word" else corpus
    stats = extract(loaded, read, by=by, batch_tokens=batch_tokens, progress=progress)
    out, sample = Path(out).expanduser(), sample_name(corpus)
    stats.save(out / "kit" / sample / f"{short}-{by}")
    write_sentences(corpus, out / "datasets" / f"{sample}.pkl")
    if corpus.name == "bookcorpus":
        write_dataset_stand_in(out / "datasets" / "bookcorpus.pkl")
    folder = out / f"{by}_stats" / sample
    if by == "token":
        write_token_statistics(stats, folder / f"{short}.pkl", strip_bare=True)
    else:
        counts = folder / f"{sample.partition('_')[0]}_{short}_word2token_count.pkl"
        write_word_statistics(stats, folder / f"{short}.pkl", token_counts=counts)
    return stats


def bare_words(corpus: Corpus) -> Corpus:
    """What the authors' word level reads: each sentence as its words, separated by blanks.

    The words are those of :func:`embvar_kit.corpora.words.words_of`. A sentence without a word
    becomes empty.

    >>> list(bare_words(Corpus.of(["Don't panic, 42 times!"])))
    ['don panic times']
    """
    choice = {"words": "bare"}
    return replace(
        corpus,
        sentences=[" ".join(word for word, *_ in words_of(line)) for line in corpus.sentences],
        settings={**corpus.settings, "then": [*corpus.settings.get("then", []), choice]},
    )


def short_name(model: str) -> str:
    """The paper's name of one of its models, given either of its names.

    Raises:
        ModelError: If the paper has no such model.

    >>> short_name("openai-community/gpt2")
    'gpt2'
    """
    for short, full in PAPER_MODELS.items():
        if model in (short, full):
            return short
    near = did_you_mean(str(model), PAPER_MODELS)
    raise ModelError(
        f"{str(model)!r} is not a model of the paper.{near} These are {', '.join(PAPER_MODELS)}. "
        "For other models, use: embvar extract"
    )


def sample_name(corpus: Corpus) -> str:
    """The authors' name of a sample of BookCorpus; for other corpora, a similar name."""
    settings = corpus.settings
    if corpus.name != "bookcorpus" or "then" in settings or "sample" not in settings:
        return f"{re.sub(r'[^A-Za-z0-9.-]+', '-', corpus.name)}_{corpus.fingerprint}"
    sample = settings["sample"]
    part = f"pct{int(sample * 100):03d}" if isinstance(sample, float) else f"n{sample}"
    if isinstance(sample, float) and not (100 * sample).is_integer():
        part = f"share{sample:g}"
    name = f"bookcorpus_train_lt{settings['max_words'] + 1}_{part}_seed{settings['seed']}"
    return f"{name}_first{settings['limit']}" if "limit" in settings else name
