"""The gallery makes an explorer when it is first opened, and opens the one that a link shows."""

import asyncio
import html
import json
import threading
from pathlib import Path

import pytest
import traitlets

import embvar_kit as ek
from embvar_kit.explorers.base import WIDGET
from embvar_kit.explorers.gallery import Gallery, Page
from embvar_kit.explorers.links import query_of


def pages(made):
    """A playground, and a layer explorer of the statistics that ``made`` is given."""

    def note(name, explorer):
        made.append(name)
        return explorer

    return {
        "playground": Page("Play <now>", "Drag it.", lambda: note("a", ek.VariancePlayground())),
        "layers": Page("Layers", "Click a bar.", lambda: note("b", ek.LayerExplorer(made[0]))),
    }


def shown(gallery):
    """Names of the pages that are not hidden, and the texts of the first."""
    visible = [name for name, box in gallery._boxes.items() if box.layout.display != "none"]
    texts = [
        child.value for child in gallery._boxes[visible[0]].children if hasattr(child, "value")
    ]
    return visible, " ".join(texts)


def test_an_explorer_is_made_once_and_when_it_is_opened(stats):
    made = [stats]
    gallery = Gallery(pages(made))
    assert made[1:] == ["a"] and list(gallery.explorers) == ["playground"]
    visible, text = shown(gallery)
    assert visible == ["playground"]
    assert f"<h2>{html.escape('Play <now>')}</h2><p>Drag it.</p>" in text
    gallery.tabs.chosen = 1
    assert made[1:] == ["a", "b"] and shown(gallery)[0] == ["layers"]
    assert gallery.explorers["layers"].view in gallery._boxes["layers"].children
    gallery.tabs.chosen = 0
    gallery.tabs.chosen = 1
    assert made[1:] == ["a", "b"]
    bundle, _ = gallery._repr_mimebundle_()
    assert bundle[WIDGET]["model_id"] == gallery.view.model_id


def test_what_cannot_be_made_says_why_and_is_tried_again(stats):
    tries = []

    def make():
        tries.append(1)
        if len(tries) == 1:
            raise ek.StatisticsError("no <statistics>.")
        return ek.VariancePlayground()

    gallery = Gallery({"other": Page("Other", "Look.", ek.VariancePlayground),
                       "late": Page("Late", "Wait.", make)})  # fmt: skip
    gallery.tabs.chosen = 1
    assert "This explorer could not be opened: no &lt;statistics&gt;." in shown(gallery)[1]
    assert list(gallery.explorers) == ["other"]
    gallery.tabs.chosen = 0
    gallery.tabs.chosen = 1
    assert list(gallery.explorers) == ["other", "late"]


def test_an_error_that_nobody_foresaw_is_told_too():
    class Playground(ek.VariancePlayground):
        def follow_link(self):
            raise KeyError("no <link>")

    gallery = Gallery({"full": Page("Full", "Wait.", lambda: [][0]),
                       "link": Page("Link", "Look.", Playground)})  # fmt: skip
    assert "could not be opened: IndexError: list index out of range" in shown(gallery)[1]
    gallery.tabs.chosen = 1
    assert "could not be opened: KeyError: &#x27;no &lt;link&gt;&#x27;" in shown(gallery)[1]
    assert gallery.explorers == {} and "Opening" not in shown(gallery)[1]


def test_a_slow_page_is_prepared_in_a_thread_and_made_in_the_main_one():
    go_on, tries, threads = threading.Event(), [], []

    def prepare():
        tries.append(1)
        assert go_on.wait(60)
        if len(tries) == 1:
            raise ek.StatisticsError("no <text>.")
        return 0.5

    def make(mean):
        threads.append(threading.current_thread())
        playground = ek.VariancePlayground()
        playground.state.mean_1 = mean
        return playground

    def opened(gallery):
        return "late" in gallery.explorers

    async def until(done):
        for _ in range(600):
            if done():
                return
            await asyncio.sleep(0.1)
        raise AssertionError("it never came")

    async def read():
        gallery = Gallery({"other": Page("Other", "Look.", ek.VariancePlayground),
                           "late": Page("Late", "Wait.", make, prepare)})  # fmt: skip
        gallery.tabs.chosen = 1
        assert "The other tabs work meanwhile" in shown(gallery)[1]
        gallery.tabs.chosen = 0
        assert shown(gallery)[0] == ["other"]
        gallery.tabs.chosen = 1
        go_on.set()
        await until(lambda: "could not be opened: no &lt;text&gt;." in shown(gallery)[1])
        assert len(tries) == 1, "what is on its way is not begun again"
        gallery.tabs.chosen = 0
        gallery.tabs.chosen = 1
        await until(lambda: opened(gallery))
        assert gallery.explorers["late"].state.mean_1 == 0.5
        assert threads == [threading.main_thread()]

    asyncio.run(read())
    alone = Gallery({"late": Page("Late", "Wait.", make, prepare)})
    assert opened(alone), "without an event loop, at once"


@pytest.mark.parametrize("chosen", [2, -1, True, "1"])
def test_a_tab_that_is_not_there_is_refused(stats, chosen):
    gallery = Gallery(pages([stats]))
    with pytest.raises(traitlets.TraitError, match=f"chosen={chosen!r}"):
        gallery.tabs.chosen = chosen
    assert gallery.tabs.chosen == 0 and shown(gallery)[0] == ["playground"]


def test_a_link_opens_its_explorer_and_no_other_is_made(stats, monkeypatch):
    monkeypatch.setenv("VOILA_REQUEST_URL", "http://127.0.0.1/")
    monkeypatch.setenv("QUERY_STRING", "token=a&" + query_of("layers", {"of": "V", "step": 3}))
    made = [stats]
    gallery = Gallery(pages(made))
    assert made[1:] == ["b"] and gallery.tabs.chosen == 1
    state = gallery.explorers["layers"].state
    assert (state.of, state.step) == ("V", 3)
    gallery.tabs.chosen = 0
    assert made[1:] == ["b", "a"]


def test_a_gallery_without_pages_is_refused():
    with pytest.raises(ek.StatisticsError, match="There is no page to show"):
        Gallery({})


def test_the_app_has_every_explorer():
    path = Path(__file__).parents[2] / "notebooks" / "app" / "explorers.ipynb"
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    source = "".join("".join(cell["source"]) for cell in cells)
    assert all(f"ek.{name}" in source for name in ek.explorers.__all__)
