"""The offline corpus: English Wikipedia articles that ship inside gensim's test data.

The excerpt is a shortened dump of 206 pages (text under CC BY-SA); 99 of them are redirects,
which are left out. Gensim's own filter removes the markup, and ``sentencex`` splits the lines into
sentences. Only what reads as a sentence is kept, with four words or more and closing punctuation;
table cells, headings and most list items are left out.
"""

from __future__ import annotations

import bz2
import hashlib
import io
import re
from collections.abc import Iterator
from pathlib import Path

from embvar_kit.errors import CorpusError

DUMP = "enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"
DUMP_SHA256 = "a53f4648dec40467ebdcbc7a1307eddb51fe6e28e9309f6ebde81ba0d04bea2d"

_NOT_PROSE = re.compile(r"^\s*(=|\{\||\|\}|[|!])")  # headings and table rows
_LIST_MARK = re.compile(r"^[*#:;\s]+")
_EMPHASIS = re.compile(r"'{2,5}")
_SENTENCE_END = re.compile(r"[.!?…][\"'”’)\]]*$")
_MIN_WORDS = 4


def read_wikipedia(path: Path | None = None) -> Iterator[tuple[str, str]]:
    """Yield ``(title, sentence)`` for each sentence of the excerpt, in order.

    Args:
        path: the dump; by default the one inside the installed gensim.

    Raises:
        CorpusError: if the dump is missing, or is not the one whose checksum the kit knows.
    """
    # gensim takes seconds to import, and only this corpus needs it.
    from gensim.corpora.wikicorpus import extract_pages, filter_wiki
    from gensim.test.utils import datapath
    from sentencex import segment

    path = Path(datapath(DUMP)) if path is None else path
    try:
        packed = path.read_bytes()
    except OSError as error:
        raise CorpusError(
            f"The Wikipedia excerpt is missing from the installed gensim ({error.strerror}). "
            "Install gensim again: its test data are part of the package."
        ) from error
    if hashlib.sha256(packed).hexdigest() != DUMP_SHA256:
        raise CorpusError(
            "The Wikipedia excerpt in the installed gensim is not the one that this kit knows "
            f"(its sha256 should start with {DUMP_SHA256[:12]}), so numbers would not be "
            "comparable. Install the gensim version of the lock file."
        )
    dump = io.BytesIO(bz2.decompress(packed))
    for title, markup, _ in extract_pages(dump, filter_namespaces=("0",)):
        if markup.lstrip().lower().startswith("#redirect"):
            continue
        for line in filter_wiki(markup).splitlines():
            if _NOT_PROSE.match(line):
                continue
            line = _EMPHASIS.sub("", _LIST_MARK.sub("", line))
            for sentence in segment("en", line):
                words = sentence.split()
                if len(words) >= _MIN_WORDS and _SENTENCE_END.search(words[-1]):
                    yield title, " ".join(words)
