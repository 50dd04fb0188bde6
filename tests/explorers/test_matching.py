"""Which tokens of two statistics are the same, by their text and their place in a word."""

from explored import statistics_of

from embvar_kit.explorers.matching import match


def of_entries(*names, special=(), **about):
    return statistics_of(list(names), special=special, convention={"by": "id"}, **about)


def test_entries_match_by_their_text_and_their_place_in_a_word():
    wordpiece = of_entries("[CLS]", "the", "##the", "##ing", ",", "é", "un", special=["[CLS]"])
    byte_level = of_entries(
        "<s>", "Ġthe", "the", "ing", ",", "Ġ,", "ĠÃ©", "un", special=["<s>"], seed=1,
        byte_level={"verbatim": ["<s>"]},
    )  # fmt: skip
    found = match(wordpiece, byte_level)
    assert found.right_of == {
        **{"the": "Ġthe", "##the": "the", "##ing": "ing"},
        **{",": ",", "é": "ĠÃ©"},
    }
    assert found.how == "by their text and their place in a word"
    assert found.left_of["Ġthe"] == "the" and "Ġ," not in found.left_of
    back = match(byte_level, wordpiece)
    assert back.right_of == dict(found.left_of)


def test_entries_of_sentencepiece_match_those_of_wordpiece():
    pieces = of_entries("▁the", "ing", "▁", "▁un", seed=1)
    found = match(of_entries("the", "##ing", "un", "##un"), pieces)
    assert found.right_of == {"the": "▁the", "##ing": "ing", "un": "▁un"}


def test_entries_without_markers_match_only_if_they_are_equal():
    found = match(of_entries("the", "ing"), of_entries("Ġthe", "ing", seed=1))
    assert found.right_of == {"ing": "ing"}
    assert "no marker tells" in found.how


def test_tokens_without_their_markers_match_by_their_text():
    paper = {"convention": {"by": "token", "markers": ["##"]}}
    bytes_of = {"convention": {"by": "token", "markers": ["Ġ"]}, "byte_level": {"verbatim": []}}
    found = match(
        statistics_of(["the", "é", "[SEP]", "<s>"], special=["[SEP]"], **paper),
        statistics_of(["Ã©", "the", "[SEP]", "<s>"], special=["<s>"], seed=1, **bytes_of),
    )
    assert found.right_of == {"the": "the", "é": "Ã©"}, "a special token matches only its like"
    assert "by their text; their place in a word is not known" in found.how


def test_ways_of_grouping_that_differ_share_only_equal_strings():
    words = statistics_of(["the", "éa"], convention={"by": "word"})
    tokens = statistics_of(["the", "Ã©a"], seed=1, byte_level={"verbatim": []})
    found = match(words, tokens)
    assert found.right_of == {"the": "the"}
    assert found.how == "equal strings only, as they are grouped by word and by token"


def test_of_two_tokens_with_one_text_the_more_frequent_is_taken():
    found = match(
        statistics_of(["é", "a"]),
        statistics_of(["Ã©", "é"], n=[30, 20], seed=1, byte_level={"verbatim": ["é"]}),
    )
    assert found.right_of == {"é": "Ã©"}
