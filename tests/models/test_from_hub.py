"""Models on the Hub: the real client, in a process of its own, against a Hub on this machine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from local_hub import COMMIT, serving
from paths import TESTS

HUB_SESSION = """
import json, sys, time
import embvar_kit as ek

for line in sys.stdin:
    options = json.loads(line)
    started = time.perf_counter()
    try:
        model = ek.load_model(**options)
        said = {"revision": model.revision, "name": model.name}
    except ek.ModelError as error:
        said = {"error": str(error)}
    print(json.dumps({**said, "seconds": time.perf_counter() - started}), flush=True)
"""


class HubSession:
    """A process that loads models by name, and what it asked of the Hub."""

    def __init__(self, url: str, cache: Path, requests: list[str]) -> None:
        environment = {k: v for k, v in os.environ.items() if "proxy" not in k.lower()}
        for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_CACHE", "HF_TOKEN"):
            environment.pop(name, None)
        environment |= {"HF_ENDPOINT": url, "HF_HOME": str(cache)}
        environment["PYTHONPATH"] = str(TESTS.parent)
        self.requests = requests
        self.process = subprocess.Popen(
            [sys.executable, "-c", HUB_SESSION],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,  # a warning or a bar is no JSON, so load() fails on it
            text=True,
            env=environment,
        )

    def load(self, name: str, **options: str) -> dict:
        self.requests.clear()
        self.process.stdin.write(json.dumps({"name": name, "device": "cpu", **options}) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait(timeout=30)


@pytest.fixture(scope="module")
def hub_story(tiny, tmp_path_factory):
    """One user's day: ``{step: (result, requests)}``, the network on and then off."""
    cache = tmp_path_factory.mktemp("hub")
    story = {}

    def tell(step: str, name: str, **options: str) -> None:
        story[step] = session.load(name, **options), list(session.requests)

    with serving(tiny("bert")) as hub:
        session = HubSession(hub.url, cache, hub.requests)
        session.load("minilm")  # the imports are not to be timed
        tell("unknown online", "org/other")
        tell("revision unknown online", "org/tiny", revision="v2")
        tell("download", "org/tiny")
        tell("cached online", "org/tiny")
    try:
        tell("cached offline", "org/tiny")
        tell("commit offline", "org/tiny", revision=COMMIT)
        tell("revision unknown offline", "org/tiny", revision="v2")
        tell("unknown offline", "org/other")
        tell("one word offline", "bert-base-unheard-of")
        tell("no name", "what a name!")
        weights = next((cache / "hub").rglob("model.safetensors"))
        weights.unlink()
        tell("incomplete offline", "org/tiny")
    finally:
        session.close()
    return story


@pytest.mark.slow
def test_a_hub_model_is_downloaded_and_its_commit_recorded(hub_story):
    result, requests = hub_story["download"]
    assert (result.get("revision"), result.get("name")) == (COMMIT, "org/tiny"), result
    assert any("model.safetensors" in request for request in requests)


@pytest.mark.parametrize("step", ["cached online", "cached offline", "commit offline"])
@pytest.mark.slow
def test_a_cached_hub_model_needs_no_network(step, hub_story):
    result, requests = hub_story[step]
    assert (result.get("revision"), result.get("name")) == (COMMIT, "org/tiny"), result
    assert requests == []
    assert result["seconds"] < 2


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ("unknown online", "has no model 'org/other'"),
        ("revision unknown online", "no model 'org/tiny' at revision 'v2'"),
        ("revision unknown offline", "'org/tiny' at revision 'v2' is not here"),
        ("unknown offline", "the Hub cannot be reached"),
        ("one word offline", "'bert-base-unheard-of' is not here"),
        ("no name", "no possible name on the Hub"),
    ],
)
@pytest.mark.slow
def test_an_unknown_name_fails_at_once_and_says_what_is_there(step, words, hub_story):
    result, _ = hub_story[step]
    assert words in result["error"]
    assert "Available offline: minilm, smollm2, or a folder" in result["error"]
    assert result["seconds"] < 2


@pytest.mark.slow
def test_an_incomplete_cache_fails_at_once_and_says_what_is_missing(hub_story):
    result, _ = hub_story["incomplete offline"]
    assert "model.safetensors" in result["error"]
    assert result["seconds"] < 2


@pytest.mark.slow
def test_a_cache_made_by_other_tools_is_read(tiny, tmp_path):
    """The documented layout, made by hand: refs, and snapshots named by commit."""
    repository = tmp_path / "hub" / "models--org--tiny"
    shutil.copytree(tiny("gpt2"), repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    for ref in ("main", "v1"):
        (repository / "refs" / ref).write_text(COMMIT)
    session = HubSession("http://127.0.0.1:9", tmp_path, [])
    try:
        for revision in (None, "v1", COMMIT):
            started = time.perf_counter()
            result = session.load("org/tiny", **({"revision": revision} if revision else {}))
            assert result.get("revision") == COMMIT, result
            assert time.perf_counter() - started < 30
            assert result["seconds"] < 20  # the first includes the imports
    finally:
        session.close()


@pytest.mark.slow
def test_an_adapter_is_refused_before_it_is_downloaded_and_in_the_cache(tiny, tmp_path):
    folder = shutil.copytree(tiny("bert"), tmp_path / "adapter")
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    with serving(folder) as hub:
        session = HubSession(hub.url, tmp_path / "cache", hub.requests)
        try:
            assert "holds an adapter" in session.load("org/tiny")["error"]
            assert not any("model.safetensors" in request for request in session.requests)
            # A cache that another tool made does not say whether there is an adapter.
            repository = tmp_path / "cache" / "hub" / "models--org--tiny"
            shutil.rmtree(repository)
            shutil.copytree(tiny("bert"), repository / "snapshots" / COMMIT)
            (repository / "refs").mkdir()
            (repository / "refs" / "main").write_text(COMMIT)
            assert "holds an adapter" in session.load("org/tiny")["error"]
        finally:
            session.close()


@pytest.mark.slow
def test_a_gated_model_is_refused_with_its_page_and_the_token_that_opens_it(tiny, tmp_path):
    with serving(tiny("bert"), gated=True) as hub:
        session = HubSession(hub.url, tmp_path / "cache", hub.requests)
        try:
            said = session.load("org/tiny")["error"]
            assert "access at https://huggingface.co/org/tiny" in said and "HF_TOKEN" in said
            assert not any("model.safetensors" in request for request in session.requests)
        finally:
            session.close()
