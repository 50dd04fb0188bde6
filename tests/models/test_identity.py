"""Models of the same weights that differ in configuration, tokenizer or code are told apart."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import save_file
from tiny_models import FAMILIES, SENTENCES

import embvar_kit as ek
from embvar_kit.explorers.concordance import concordances
from embvar_kit.extraction.embeddings import collect_again

HALVES = ek.Corpus.of(SENTENCES[:4]), ek.Corpus.of(SENTENCES[4:])


def change(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def load(folder: Path, **options: bool) -> ek.EmbeddingModel:
    return ek.load_model(folder, device="cpu", **options)


def measured(model: ek.EmbeddingModel, half: int, **options: object) -> ek.TokenStatistics:
    return ek.extract(model, HALVES[half], progress=False, **options)


def told_apart(before: ek.EmbeddingModel, after: ek.EmbeddingModel, what: str) -> None:
    """Statistics of the two are not merged though their weights are the same."""
    assert before.revision == after.revision
    changed = [name for name in before.digests if before.digests[name] != after.digests[name]]
    assert changed == [what]
    one, other = measured(before, 0), measured(after, 1)
    with pytest.raises(ek.StatisticsError, match=f"differ in model {what}"):
        one.merge(other)


@pytest.mark.parametrize("family", FAMILIES)
def test_digests_are_the_same_each_time_and_wherever_the_folder_is(family, tiny, tmp_path):
    model = load(tiny(family))
    before = model.digests
    measured(model, 0, by="word")
    elsewhere = load(shutil.copytree(tiny(family), tmp_path / "elsewhere"))
    assert model.digests == before == elsewhere.digests
    assert set(before) == {"configuration", "tokenizer"}


@pytest.mark.parametrize("changes", [{"rms_norm_eps": 0.5}, {"rope_theta": 7.0}])
def test_another_configuration_is_another_model(changes, tiny, tmp_path):
    folder = shutil.copytree(tiny("llama"), tmp_path / "llama")
    before = load(folder)
    if "rope_theta" in changes:
        changes = {"rope_parameters": {"rope_type": "default", **changes}}
    change(folder / "config.json", **changes)
    told_apart(before, load(folder), "configuration")


def test_entries_that_change_no_number_change_no_digest(tiny, tmp_path):
    folder = shutil.copytree(tiny("llama"), tmp_path / "llama")
    before = load(folder).digests
    neutral = {"transformers_version": "9.9", "_name_or_path": "x", "architectures": ["LlamaModel"]}
    change(folder / "config.json", **neutral, use_cache=True, id2label={"0": "a", "1": "b"})
    assert load(folder).digests == before


def test_another_tokenizer_is_another_model(tiny, tmp_path):
    folder = shutil.copytree(tiny("bert"), tmp_path / "bert")
    before, path = load(folder), folder / "tokenizer.json"
    told = json.loads(path.read_text())["model"]
    swapped = dict(zip(("the", "and"), map(told["vocab"].get, ("and", "the")), strict=True))
    change(path, model={**told, "vocab": told["vocab"] | swapped})
    told_apart(before, load(folder), "tokenizer")


CODE = """
import torch
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

class Config(PreTrainedConfig):
    model_type = "brought"
    def __init__(self, vocab_size=400, hidden_size=16, **options):
        super().__init__(**options)
        self.vocab_size, self.hidden_size = vocab_size, hidden_size

class Model(PreTrainedModel):
    config_class = Config
    def __init__(self, config):
        super().__init__(config)
        self.table = torch.nn.Embedding(config.vocab_size, config.hidden_size)
        self.post_init()
    def get_input_embeddings(self):
        return self.table
    def forward(self, input_ids, attention_mask=None, output_hidden_states=None, **options):
        x = self.table(input_ids)
        return BaseModelOutput(last_hidden_state=2 * x, hidden_states=(x, 2 * x))
"""


def test_edited_code_makes_another_model(tiny, tmp_path):
    folder = shutil.copytree(tiny("bert"), tmp_path / "brought")
    told = {"model_type": "brought", "vocab_size": 450, "hidden_size": 16}
    told["auto_map"] = {"AutoConfig": "mine.Config", "AutoModel": "mine.Model"}
    (folder / "config.json").write_text(json.dumps(told))
    save_file({"table.weight": torch.randn(450, 16)}, folder / "model.safetensors")
    (folder / "mine.py").write_text(CODE)
    before = load(folder, trust_remote_code=True)
    assert load(folder, trust_remote_code=True).digests == before.digests
    (folder / "mine.py").write_text(CODE.replace("2 * x", "5 * x"))
    told_apart(before, load(folder, trust_remote_code=True), "code")


def test_cards_do_not_take_a_model_of_another_configuration(tiny, tmp_path):
    folder = shutil.copytree(tiny("llama"), tmp_path / "llama")
    model = load(folder)
    stats = measured(model, 0)
    assert len(concordances([stats], model, HALVES[0])) == 1
    change(folder / "config.json", rms_norm_eps=0.5)
    with pytest.raises(ek.StatisticsError, match="of another configuration than the model given"):
        concordances([stats], load(folder), HALVES[0])


def test_a_tokenizer_without_a_backend_is_told_from_others(tiny, tmp_path):
    model = load(tiny("bert"))
    found = []
    for words in ("the cat sat", "the sat cat"):
        path = tmp_path / "vocab.json"
        path.write_text(json.dumps({word: i for i, word in enumerate(words.split())}))
        tokenizer = Words(path)
        found.append(replace(model, tokenizer=tokenizer).digests["tokenizer"])
        assert found[-1] == replace(model, tokenizer=Words(path)).digests["tokenizer"]
    assert found[0] != found[1]


class Words(transformers.PreTrainedTokenizer):
    """A tokenizer written in Python, of a few words."""

    def __init__(self, path: Path, **options: object) -> None:
        self.words = json.loads(Path(path).read_text())
        super().__init__(**options)

    @property
    def vocab_size(self) -> int:
        return len(self.words)

    def get_vocab(self) -> dict[str, int]:
        return self.words


def test_a_checkpoint_of_another_configuration_is_refused(tiny, tmp_path):
    folder = shutil.copytree(tiny("llama"), tmp_path / "llama")
    measured(load(folder), 0, checkpoint=tmp_path / "kept", checkpoint_every=0)
    change(folder / "config.json", rms_norm_eps=0.5)
    with pytest.raises(ek.CheckpointError, match="made with configuration="):
        measured(load(folder), 0, checkpoint=tmp_path / "kept")


def test_a_pass_in_shards_tells_the_digests_and_refuses_others(tiny, tmp_path):
    folder = shutil.copytree(tiny("llama"), tmp_path / "llama")
    model, store = load(folder), tmp_path / "store"
    found = measured(model, 0, shards=1, store=store)
    assert {name: found.info["model"][name] for name in model.digests} == model.digests
    change(folder / "config.json", rms_norm_eps=0.5)
    with pytest.raises(ek.CheckpointError, match="made with configuration="):
        measured(load(folder), 0, shards=1, store=store)


def older(stats: ek.TokenStatistics) -> ek.TokenStatistics:
    """The statistics as a kit wrote them that kept no digests and did not count control tokens."""
    info = json.loads(json.dumps(stats.info))
    for name in ("configuration", "tokenizer"):
        del info["model"][name]
    info["convention"].pop("parse_special", None)
    del info["counts"]["control_tokens_in_text"]
    return replace(stats, info=info)


def test_statistics_of_older_kits_are_merged_by_their_weights_alone(tiny):
    model = load(tiny("bert"))
    one, other = (measured(model, half, parse_special=True) for half in (0, 1))
    for parts in ((older(one), other), (one, older(other)), (older(one), older(other))):
        assert parts[0].merge(parts[1]).n.sum() == one.n.sum() + other.n.sum()
    merged = older(one).merge(other)
    assert merged.info["model"]["tokenizer"] == model.digests["tokenizer"]


def test_older_kits_read_control_tokens_as_control_tokens(tiny, monkeypatch):
    model = load(tiny("bert"))
    one = older(measured(model, 0, parse_special=True))
    with pytest.raises(ek.StatisticsError, match="convention parse_special: True and False"):
        one.merge(measured(model, 1))
    monkeypatch.setattr("embvar_kit.extraction.embeddings.load_again", lambda _: (model, HALVES[0]))
    asked = {}
    monkeypatch.setattr(
        "embvar_kit.extraction.embeddings.collect_embeddings", lambda *_, **how: asked.update(how)
    )
    for stats, meant in ((one, True), (measured(model, 0), False)):
        collect_again(stats, ["the"], 1)
        assert asked["parse_special"] is meant
