"""Looking for tokens: what a search marks, and what it says that it did not find."""

import asyncio
import html

from explored import find, tradeoff_of_tokens

from embvar_kit.explorers.tradeoff_state import TradeoffState


def test_search_marks_a_token_or_all_with_its_prefix(stats):
    state = TradeoffState(stats, counts=(2, None))
    state.search = "the"
    assert (state.marked, state.token) == (["the"], "the")
    state.search = "th*"
    expected = {str(token) for token in state.points.tokens if str(token).startswith("th")}
    assert set(state.marked) == expected and len(expected) > 3
    found = state.matches("the")
    assert found["token"].iloc[0] == "the"
    assert found["n"].iloc[1:].is_monotonic_decreasing
    marked = state.marked
    for layer in (5, 0, 3):
        state.layer = layer
        assert state.marked == marked
    state.search = "qqqq"
    assert state.marked == []
    state.search = "*"  # a token, too
    assert set(state.marked) <= {token for token in stats.tokens if token.startswith("*")}
    state.clear()
    assert (state.search, state.marked, state.token) == ("", [], None)


def test_a_search_that_is_no_token_closes_the_card(stats):
    state = TradeoffState(stats, counts=(2, None))
    for search in ("zzzzqq", "th*", "*ing", "the of", ""):
        state.search = "the"
        assert state.token == "the"
        state.search = search
        assert state.token is None
    assert state.marked == []


def test_a_search_ignores_blanks_at_the_ends_and_the_case_that_the_model_ignores(stats):
    state = TradeoffState(stats, counts=(2, None))
    for search in (" the", "the  ", "The", " THE "):
        state.search = search
        assert (state.marked, state.token) == (["the"], "the")
        assert state.search_report() == ""
    state.search = "  "
    assert (state.marked, state.token, state.search_report()) == ([], None, "")
    state.search = "[cls]"
    assert state.token == "[CLS]"


def test_a_model_with_case_keeps_it():
    made = tradeoff_of_tokens(["The", "the", "THE"])
    state = TradeoffState(made, counts=(1, None))
    state.search = "The"
    assert state.marked == ["The"]
    state.search = "tHe"
    assert state.marked == []


def test_ends_middles_and_several_tokens_are_found(stats):
    state = TradeoffState(stats, counts=(2, None))
    names = [str(token) for token in state.points.tokens]
    state.search = "*ing"
    expected = {name for name in names if name.endswith("ing")}
    assert set(state.marked) == expected and len(expected) > 10
    assert state.search_report() == f"Found: {len(expected)} tokens ending in 'ing'."
    state.search = "*tat*"
    assert set(state.marked) == {name for name in names if "tat" in name}
    state.search = "the of *ing"
    assert set(state.marked) == {"the", "of"} | expected
    assert state.matches()["token"].tolist()[:2] == ["the", "of"]


def test_a_search_says_what_it_did_not_find_and_why(stats):
    state = TradeoffState(stats, counts=(5, 50))
    counts = dict(zip(map(str, stats.tokens), stats.n.tolist(), strict=True))
    state.search = "the"
    assert state.search_report().startswith(f"'the' occurs {counts['the']:,} times: outside the")
    assert (set(state.marked), state.token) == ({t for t in state.marked if t[:3] == "the"}, None)
    state.search = "zzzzqq"
    assert state.search_report() == "No token is or begins with 'zzzzqq'."
    state.search = "*zzzzqq"
    assert state.search_report() == "No token ends in 'zzzzqq'."
    shown = {str(token) for token in state.points.tokens}
    rare = [t for t in counts if t.isalpha() and not any(t[:4] == s[:4] for s in shown)]
    beginning = max(rare, key=lambda t: len(t))[:4] + "*"
    state.search = beginning
    hidden = sum(token.startswith(beginning[:-1]) for token in counts)
    number = "1 token" if hidden == 1 else f"{hidden} tokens"
    told = f"Outside the range shown: {number} beginning with {beginning[:-1]!r}."
    assert state.search_report() == told
    state.counts, state.special = (1, None), False
    state.search = "[CLS]"
    assert state.search_report() == "'[CLS]' is a special token, and these are not shown."


def test_of_too_many_tokens_the_most_frequent_are_marked(stats):
    state = TradeoffState(stats, counts=(1, None))
    state.search = "*e*"
    expected = state.table().set_index("token")["n"]
    expected = expected[["e" in token.lower() for token in expected.index]]
    assert len(state.marked) == 500 < len(expected)
    assert expected[state.marked].min() >= expected.drop(state.marked).max()
    assert state.search_report().endswith("Only the 500 most frequent are marked.")


def test_the_message_of_a_search_lasts(explorer):
    told = find(explorer, "embvar-found")
    find(explorer, "embvar-search").value = "zzzz<qq"
    assert "No token is or begins with 'zzzz<qq'" in html.unescape(told.value)
    assert "zzzz<qq" not in told.value
    explorer.state.layer = 4
    find(explorer, "embvar-special").value = False
    assert "No token is or begins with" in told.value
    find(explorer, "embvar-search").value = ""
    assert told.value == ""


def test_what_is_typed_is_looked_for_after_a_pause(explorer):
    box, state = find(explorer, "embvar-search"), explorer.state
    searched = []
    state.observe(lambda change: searched.append(change["new"]), "search")

    async def type_and_wait():
        for text in ("t", "th", "the"):  # without a pause in which a slow machine could stall
            box.value = text
        assert searched == []
        await asyncio.sleep(1)
        assert searched == ["the"] and state.token == "the"
        box.value = "of"
        find(explorer, "embvar-clear").click()
        await asyncio.sleep(1)

    asyncio.run(type_and_wait())
    assert searched == ["the", ""] and state.marked == []
