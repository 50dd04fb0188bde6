"""Tokens: markers, groups, and sentences as sequences that the model takes."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import transformers
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import FAMILIES, SENTENCES
from tokenizers import trainers

import embvar_kit as ek
from embvar_kit.corpora.tokens import (
    MARKERS,
    SUFFIXES,
    TokenizedCorpus,
    frequency_order,
    group_vocabulary,
    markers_of,
    strip_marker,
    tokenize,
)
from embvar_kit.models.bundled import BUNDLED

WORDS = sorted({word for sentence in SENTENCES for word in sentence.split()})


@pytest.fixture(scope="module")
def tokenizer_of(tiny):
    """``tokenizer_of("bert")``: that family's tokenizer, as transformers reads it."""
    return lambda family: transformers.AutoTokenizer.from_pretrained(tiny(family))


@pytest.fixture(scope="module")
def bert(tokenizer_of):
    return tokenizer_of("bert")


@pytest.fixture(scope="module")
def minilm_tokenizer():
    return transformers.AutoTokenizer.from_pretrained(BUNDLED["minilm"].path)


def sequences(text: TokenizedCorpus) -> list[list[int]]:
    return [part.tolist() for part in np.split(text.ids, text.starts[1:-1])]


def inner_ids(tokenizer, sentence: str) -> list[int]:
    return tokenizer(sentence, add_special_tokens=False)["input_ids"]


# Markers and groups


@pytest.mark.parametrize("family", FAMILIES)
def test_the_marker_of_each_family_is_found(family, tokenizer_of):
    assert markers_of(tokenizer_of(family)) == (FAMILIES[family].marker,)


def test_a_few_tokens_that_look_marked_do_not_make_a_marker(tiny, tmp_path):
    """GPT-2's real vocabulary has ``##`` and ``####``: they are text."""
    folder = shutil.copytree(tiny("gpt2"), tmp_path / "gpt2")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["##", "####", "##x"])
    grouping = group_vocabulary(tokenizer)
    assert grouping.markers == ("Ġ",)
    for token in ("##", "####", "##x"):
        assert grouping.labels[grouping.group_of[tokenizer.convert_tokens_to_ids(token)]] == token


@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_that_differ_by_their_marker_share_a_group(family, tokenizer_of):
    tokenizer, marker = tokenizer_of(family), FAMILIES[family].marker
    grouping = group_vocabulary(tokenizer, "token")
    special = set(tokenizer.all_special_tokens)
    shared = 0
    for token, token_id in tokenizer.get_vocab().items():
        label = token if token in special else token.removeprefix(marker) or token
        assert grouping.labels[grouping.group_of[token_id]] == label
        shared += label != token and label in tokenizer.get_vocab()
    assert shared
    assert sorted(grouping.labels) == grouping.labels.tolist()
    assert len(set(grouping.labels)) == len(grouping.labels)
    assert {grouping.labels[i] for i in np.flatnonzero(grouping.special)} == special


@pytest.mark.parametrize("family", FAMILIES)
def test_by_id_every_entry_is_a_group_of_its_own(family, tokenizer_of):
    tokenizer = tokenizer_of(family)
    grouping = group_vocabulary(tokenizer, "id")
    vocabulary = tokenizer.get_vocab()
    assert len(grouping.labels) == len(set(grouping.group_of)) == len(vocabulary)
    for token, token_id in vocabulary.items():
        assert grouping.labels[grouping.group_of[token_id]] == token
    assert grouping.markers == ()
    assert grouping.special.sum() == len(set(tokenizer.all_special_tokens))


def test_ing_and_its_continuation_are_one_token_and_two_entries(minilm_tokenizer):
    ing, continued = minilm_tokenizer.convert_tokens_to_ids(["ing", "##ing"])
    assert ing != continued
    by_token, by_id = group_vocabulary(minilm_tokenizer), group_vocabulary(minilm_tokenizer, "id")
    assert by_token.group_of[ing] == by_token.group_of[continued]
    assert by_token.labels[by_token.group_of[ing]] == "ing"
    assert by_id.group_of[ing] != by_id.group_of[continued]
    assert by_id.labels[by_id.group_of[continued]] == "##ing"


@pytest.mark.parametrize(("family", "token"), [("bert", "##start"), ("gpt2", "Ġstart")])
def test_special_tokens_keep_what_looks_like_a_marker(family, token, tokenizer_of):
    tokenizer = tokenizer_of(family)
    tokenizer.add_special_tokens({"additional_special_tokens": [token]})
    grouping = group_vocabulary(tokenizer)
    group = grouping.group_of[tokenizer.convert_tokens_to_ids(token)]
    assert grouping.labels[group] == token
    assert grouping.special[group]


def test_an_id_without_a_token_gets_a_name(bert):
    """Real vocabularies have holes: ids between the last entry and an added token."""

    class WithHole:
        all_special_ids = bert.all_special_ids

        def __len__(self):
            return len(bert)

        def get_vocab(self):
            return {**bert.get_vocab(), "late": len(bert) + 1}

        def convert_ids_to_tokens(self, ids):
            late = {len(bert): None, len(bert) + 1: "late"}
            return [late[i] if i in late else bert.convert_ids_to_tokens(i) for i in ids]

    grouping = group_vocabulary(WithHole())
    assert grouping.labels[grouping.group_of[-2:]].tolist() == [f"[{len(bert)}]", "late"]


@given(st.text(max_size=6), st.sampled_from(MARKERS))
def test_one_marker_is_removed_and_a_lone_one_stays(text, marker):
    stripped = strip_marker(marker + text, (marker,))
    assert stripped == (text or marker)
    if not text.startswith(marker):
        assert strip_marker(text, (marker,)) == text
    assert strip_marker(text, ()) == text


@given(st.text(max_size=6), st.sampled_from(SUFFIXES))
def test_one_suffix_is_removed_and_a_lone_one_stays(text, marker):
    stripped = strip_marker(text + marker, (marker,))
    assert stripped == (text if text.replace(marker, "") else text + marker)
    if not text.endswith(marker):
        assert strip_marker(text, (marker,)) == text


@pytest.fixture(scope="module", params=["CLIPTokenizer", "OpenAIGPTTokenizer"])
def suffixed(request, tiny, tmp_path_factory):
    """A tiny decoder with a tokenizer of CLIP's or GPT-1's kind: ``</w>`` ends a word."""
    folder = tmp_path_factory.mktemp(request.param)
    shutil.copytree(tiny("gpt2"), folder, dirs_exist_ok=True)
    kind = getattr(transformers, request.param)
    blank = kind().backend_tokenizer
    special = ["<|startoftext|>", "<|endoftext|>"] if "CLIP" in request.param else ["<unk>"]
    blank.train_from_iterator(
        [*SENTENCES, "café Café"] * 3,
        trainers.BpeTrainer(
            vocab_size=380,
            special_tokens=special,
            end_of_word_suffix="</w>",
            show_progress=False,
        ),
    )
    state = json.loads(blank.to_str())["model"]
    merges = [tuple(pair) for pair in state["merges"]]
    tokenizer = kind(vocab=state["vocab"], merges=merges)
    tokenizer.save_pretrained(folder)
    return ek.load_model(folder, device="cpu")


def test_suffixes_are_taken_off_and_said(suffixed):
    tokenizer = suffixed.tokenizer
    corpus = ek.Corpus.of([*SENTENCES, "cat scat"])
    vocabulary = tokenizer.get_vocab()
    assert markers_of(tokenizer) == ("</w>",)
    assert {"cat</w>", "s"} <= vocabulary.keys()
    work = ek.plan(suffixed, corpus)
    assert work.markers == ("</w>",)
    assert "markers    </w> taken off the ends of tokens" in str(work)
    assert "cat" in work.labels
    assert not any(label.endswith("</w>") and label != "</w>" for label in work.labels)
    both = [vocabulary["s"], vocabulary["s</w>"]]
    group_of = group_vocabulary(tokenizer).group_of
    assert group_of[both[0]] == group_of[both[1]]
    stats = ek.extract(suffixed, corpus, progress=False)
    assert stats.info["convention"]["markers"] == ["</w>"]
    by_id = ek.plan(suffixed, corpus, by="id")
    assert "cat</w>" in by_id.labels and by_id.markers == ()
    assert "taken off" not in str(by_id)
    words = ek.plan(suffixed, corpus, by="word")
    assert dict(zip(words.labels, words.n, strict=True))["scat"] == 1
    assert "taken off" not in str(words)


def test_a_suffix_that_continues_a_word_is_taken_off(bertweet):
    assert markers_of(bertweet) == ("@@",)
    grouping = group_vocabulary(bertweet)
    ids = bertweet.convert_tokens_to_ids(["m@@", "m", "th@@", "@@"])
    assert grouping.labels[grouping.group_of[ids]].tolist() == ["m", "m", "th", "@@"]


def test_a_few_tokens_that_end_like_a_marker_do_not_make_one(tokenizer_of):
    bert = tokenizer_of("bert")
    bert.add_tokens(["a@@", "b</w>"])
    assert markers_of(bert) == ("##",)


def test_an_unknown_grouping_says_what_there_is(bert):
    with pytest.raises(
        ek.ExtractionError, match=r"by='word' cannot group a vocabulary; choose 'token' or 'id'"
    ):
        group_vocabulary(bert, "word")


@given(st.lists(st.tuples(st.integers(0, 4), st.text(max_size=2)), unique_by=lambda t: t[1]))
def test_the_most_frequent_come_first_and_ties_by_string(counted):
    n = np.array([count for count, _ in counted], dtype=int)
    tokens = np.array([token for _, token in counted], dtype=object)
    ordered = [counted[i] for i in frequency_order(n, tokens)]
    # NumPy's strings drop trailing NULs, so such tokens tie.
    key = [(-count, token.rstrip("\0")) for count, token in ordered]
    assert key == sorted(key)
    assert sorted(ordered) == sorted(counted)


# Sentences as sequences


@pytest.mark.parametrize("family", FAMILIES)
def test_begin_and_end_are_put_around_once_whatever_the_template_adds(family, tokenizer_of, tiny):
    tokenizer, made = tokenizer_of(family), FAMILIES[family]
    model = ek.load_model(tiny(family))
    inside = [inner_ids(tokenizer, sentence) for sentence in SENTENCES]
    # The families' own templates add different tokens; all kinds are among them.
    own = tokenizer(SENTENCES[0])["input_ids"]
    assert (own[0] != inside[0][0]) == (made.template in ("begin", "both"))
    assert (own[-1] != inside[0][-1]) == (made.template in ("end", "both"))

    text = tokenize(tokenizer, ek.Corpus.of(SENTENCES), begin=model.begin, end=model.end)
    assert sequences(text) == [[*model.begin, *ids, *model.end] for ids in inside]
    assert text.ids.dtype == np.int32
    assert text.sentence.tolist() == list(range(len(SENTENCES)))
    assert (text.n_split, text.n_cut, text.n_empty) == (0, 0, 0)
    assert text.lengths.sum() == len(text.ids) == text.starts[-1]


def test_the_templates_of_all_kinds_are_tested():
    assert {family.template for family in FAMILIES.values()} == {"", "begin", "end", "both"}


@given(
    sentences=st.lists(st.lists(st.sampled_from(WORDS), max_size=12), min_size=1, max_size=8),
    room=st.integers(1, 9),
    around=st.sampled_from([((), ()), ((2,), ()), ((), (3,)), ((2,), (3,)), ((2, 4), (3, 4))]),
    long=st.sampled_from(["split", "cut"]),
)
def test_long_sentences_are_split_or_cut_and_counted(bert, sentences, room, around, long):
    sentences = [" ".join(words) for words in sentences]
    begin, end = around
    before, after = map(list, around)
    expected = [inner_ids(bert, sentence) for sentence in sentences]
    corpus = ek.Corpus.of(sentences)
    limit = room + len(before) + len(after)
    options = {"begin": begin, "end": end, "max_tokens": limit, "long": long}
    if not any(expected):
        with pytest.raises(ek.ExtractionError, match=r"Nothing of corpus .* is left"):
            tokenize(bert, corpus, **options)
        return
    text = tokenize(bert, corpus, **options)

    pieces = {}
    for sequence, index in zip(sequences(text), text.sentence.tolist(), strict=True):
        assert len(sequence) <= limit
        assert sequence[: len(before)] == before
        assert sequence[len(sequence) - len(after) :] == after
        inside = sequence[len(before) : len(sequence) - len(after)]
        assert inside
        pieces.setdefault(index, []).append(inside)
    too_long = sum(len(ids) > room for ids in expected)
    assert text.n_empty == sum(not ids for ids in expected)
    assert (text.n_split, text.n_cut) == ((too_long, 0) if long == "split" else (0, too_long))
    assert list(pieces) == [i for i, ids in enumerate(expected) if ids]
    for index, parts in pieces.items():
        if long == "cut":
            assert parts == [expected[index][:room]]
        else:
            assert [i for part in parts for i in part] == expected[index]
            assert all(len(part) == room for part in parts[:-1])


def test_a_sentence_of_just_the_limit_is_left_whole(bert):
    ids = inner_ids(bert, SENTENCES[0])
    whole = tokenize(
        bert, ek.Corpus.of(SENTENCES[:1]), begin=[2], end=[3], max_tokens=len(ids) + 2, long="error"
    )
    assert sequences(whole) == [[2, *ids, 3]]


def test_a_long_sentence_can_be_an_error_that_says_where(bert, tmp_path):
    path = tmp_path / "book.txt"
    path.write_text("The cat.\n\n" + "the cat sat on the mat " * 200)
    with pytest.raises(ek.ExtractionError, match=r"1,200 tokens \(book\.txt, line 3\).*the 62 "):
        tokenize(bert, ek.load_corpus(path), begin=[2], end=[3], max_tokens=64, long="error")


def test_more_sentences_than_are_tokenized_at_once_stay_in_order(bert):
    sentences = [" ".join(["the"] * (1 + n % 7)) for n in range(2501)]
    text = tokenize(bert, ek.Corpus.of(sentences), begin=[2], end=[3])
    assert text.lengths.tolist() == [3 + n % 7 for n in range(2501)]
    assert text.sentence.tolist() == list(range(2501))


def test_sentences_without_tokens_are_counted(bert):
    text = tokenize(bert, ek.Corpus.of(["", "The cat.", "\u200b", " "]), begin=[2], end=[3])
    assert text.n_empty == 3
    assert text.sentence.tolist() == [1]
    with pytest.raises(ek.ExtractionError, match="Nothing of corpus 'blank' is left"):
        tokenize(bert, ek.Corpus.of(["", "\u200b"], name="blank"), begin=[2], end=[3])
    with pytest.raises(ek.ExtractionError, match="Nothing of corpus 'none' is left"):
        tokenize(bert, ek.Corpus.of([], name="none"), begin=[2], end=[3])


def test_half_a_surrogate_pair_is_refused_by_sentence(bert):
    sentences = [*SENTENCES, "half \ud83d of it"]
    with pytest.raises(ek.ExtractionError, match=r"not valid Unicode text \(sentences, sentence 9"):
        tokenize(bert, ek.Corpus.of(sentences), begin=[2], end=[3])


@pytest.mark.parametrize(
    ("limit", "around"), [(2, ([2], [3])), (1, ([2], [])), (0, ([], [])), (3, ([2], [3, 4]))]
)
def test_a_limit_without_room_for_a_token_is_refused(limit, around, bert):
    begin, end = around
    with pytest.raises(ek.ExtractionError, match=f"max_tokens={limit} leaves no room"):
        tokenize(bert, ek.Corpus.of(SENTENCES), begin=begin, end=end, max_tokens=limit)


def test_an_unknown_way_with_long_sentences_says_what_there_is(bert):
    with pytest.raises(ek.ExtractionError, match="choose 'split', 'cut' or 'error'"):
        tokenize(bert, ek.Corpus.of(SENTENCES), begin=[2], end=[3], long="drop")
