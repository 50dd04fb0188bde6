"""Links of the app show the same again, or say why they cannot."""

from explored import answer_of, find

import embvar_kit as ek


def test_a_link_of_the_app_shows_the_same_again(stats, monkeypatch):
    def made():
        return ek.TradeoffExplorer({"one": stats, "other": stats}, counts=(5, None), layer=2)

    assert "link" not in dict(find(made(), "embvar-downloads").buttons), "a notebook has none"
    monkeypatch.setenv("VOILA_REQUEST_URL", "http://127.0.0.1/?token=secret")
    explorer = made()
    state = explorer.state
    state.model, state.counts, state.marked, state.token = "other", (20, None), ["the", "of"], "of"
    values = state.values()
    message, _ = answer_of(find(explorer, "embvar-downloads"), "link")
    monkeypatch.setenv("QUERY_STRING", f"token=another&{message['query']}")
    again = made()
    again.follow_link()
    assert again.state.values() == values and find(again, "embvar-message").value == ""
    for query, why in (
        ("tradeoff=%7B%22layer%22:99%7D", "Layer 99 was not extracted"),
        ("tradeoff=%7B%22marked%22:[%22no<b>%22]%7D", "&#x27;no&lt;b&gt;&#x27;: not among"),
        ("tradeoff=%7B%22colour%22:1%7D", "no value &#x27;colour&#x27;"),
        ("tradeoff=[1]", "no values by name"),
        ("tradeoff=%7B", "Expecting"),
        ("tradeoff=%7B%22counts%22:5%7D", "counts"),
        ("tradeoff=%7B%22counts%22:null%7D", "counts"),
    ):
        again.follow_link(query)
        assert again.state.values() == values
        told = find(again, "embvar-message").value
        assert told.startswith("The link cannot be followed. ") and why in told
    again.follow_link(message["query"])
    assert find(again, "embvar-message").value == "", "a good link clears it"
    again.state.marked = list(map(str, stats.tokens))
    message, _ = answer_of(find(again, "embvar-downloads"), "link")
    assert "query" not in message and "too long for a link" in message["told"]
    monkeypatch.setenv("QUERY_STRING", "token=another")
    first = made()
    first.follow_link()
    assert first.state.layer == 2 and find(first, "embvar-message").value == ""
