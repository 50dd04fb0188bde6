"""Which normalization stands at each hidden state, and embeddings before, in and after it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import FAMILIES, SENTENCES, WIDTH
from torch import nn

import embvar_kit as ek
from embvar_kit import normalization
from embvar_kit.extraction.forward import AT_NORMS

CORPUS = ek.Corpus.of(SENTENCES)

# What the architectures' papers and code say, state by state: the embedding layer's, the one
# between the two blocks, the last.
PLACEMENTS = {
    "bert": ("post", "post", "post"),
    "roberta": ("post", "post", "post"),
    "distilbert": ("post", "post", "post"),
    # Their embeddings are normalized while narrow, then widened by a matrix.
    "albert": ("none", "post", "post"),
    "electra": ("none", "post", "post"),
    # The first block takes the normalized embeddings as they are.
    "modernbert": ("post", "pre", "post"),
    **dict.fromkeys(
        ("gpt2", "gpt_neox", "opt", "llama", "qwen2", "gemma2", "t5"), ("pre", "pre", "post")
    ),
}
CENTRED = {family for family in FAMILIES if FAMILIES[family].final_norm == "LayerNorm"}


@pytest.fixture(scope="module")
def shifted(tiny):
    """``shifted("bert")``: the family's model with every norm's γ and β moved off 1 and 0."""
    held = {}

    def load(family: str) -> ek.EmbeddingModel:
        if family not in held:
            model = ek.load_model(tiny(family), device="cpu")
            random = torch.Generator().manual_seed(0)
            for part in model.module.modules():
                if "norm" in type(part).__name__.lower():
                    for weight in part.parameters(recurse=False):
                        weight.data += torch.randn(weight.shape, generator=random) * 0.3
            held[family] = _probed(model)
        return held[family]

    return load


def _probed(model: ek.EmbeddingModel) -> ek.EmbeddingModel:
    from embvar_kit.models.around import sample_ids
    from embvar_kit.models.probe import probe

    ids = sample_ids(model.tokenizer, model.begin, model.end)
    found = probe(model.module, ids, model.padding, model.name)
    return dataclasses.replace(model, norms=found.norms)


# Where the normalizations are


def test_every_family_is_expected():
    assert set(PLACEMENTS) == set(FAMILIES)


@pytest.mark.parametrize("family", FAMILIES)
def test_each_state_is_placed(family, shifted):
    model = shifted(family)
    assert tuple(state.placement for state in model.norms) == PLACEMENTS[family]
    table = normalization.table(model)
    assert table["layer"].tolist() == [0, 1, 2]
    assert tuple(table["placement"]) == PLACEMENTS[family]
    kinds = set(table["kind"].dropna())
    assert kinds == {"LayerNorm" if family in CENTRED else "RMSNorm"}


@pytest.mark.parametrize("family", FAMILIES)
def test_gamma_beta_and_epsilon_are_those_of_the_module(family, shifted):
    """Found from what the module does; here compared with its own weights and settings."""
    model = shifted(family)
    for state in model.norms:
        if state.norm is None:
            continue
        part = model.module.get_submodule(state.norm.module)
        offset = 1 if family == "gemma2" else 0  # stores γ - 1
        gamma = part.weight.numpy() + offset
        beta = getattr(part, "bias", None)
        beta = np.zeros(WIDTH) if beta is None else beta.numpy()
        np.testing.assert_allclose(state.norm.gamma, gamma, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(state.norm.beta, beta, rtol=1e-4, atol=1e-5)
        own = getattr(part, "eps", getattr(part, "variance_epsilon", None))
        assert state.norm.eps == pytest.approx(own, rel=0.05)


def test_calls_of_a_shared_layer_are_told_apart(shifted):
    first, second = (state.norm for state in shifted("albert").norms[1:])
    assert first.module == second.module
    assert (first.call, second.call) == (0, 1)


def test_a_state_can_be_both(shifted):
    """BLOOM's way: the embeddings are normalized, and normalized again by the first block."""
    model = shifted("gpt2")
    model.module.drop = nn.LayerNorm(WIDTH)  # stands where the embeddings are summed
    try:
        state = _probed(model).norms[0]
        assert (state.placement, state.norm.module) == ("both", "drop")
        assert [norm.module for norm in state.consumed_by] == ["h.0.ln_1"]
    finally:
        model.module.drop = nn.Dropout(0.0).eval()


def test_all_readers_of_a_state_are_named(shifted):
    """GPT-NeoX's blocks read the stream twice, side by side."""
    readers = [norm.module for norm in shifted("gpt_neox").norms[1].consumed_by]
    assert readers == ["layers.1.input_layernorm", "layers.1.post_attention_layernorm"]


def test_minilm_is_post_ln_throughout(minilm):
    table = normalization.table(minilm)
    assert set(table["placement"]) == {"post"} and set(table["kind"]) == {"LayerNorm"}
    assert set(table["eps"]) == {1e-12}
    assert table["module"].tolist() == [
        "embeddings.LayerNorm",
        *(f"encoder.layer.{i}.output.LayerNorm" for i in range(6)),
    ]


@pytest.mark.slow
def test_smollm2_is_pre_rmsnorm_with_a_normalized_last_state(smollm2):
    table = normalization.table(smollm2)
    assert table["placement"].tolist() == ["pre"] * 30 + ["post"]
    assert set(table["kind"]) == {"RMSNorm"} and set(table["eps"]) == {1e-5}
    assert table["module"].iloc[-1] == "norm"


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_placements_are_found_in_half_precision(dtype, tiny):
    for family in ("bert", "llama"):
        model = ek.load_model(tiny(family), device="cpu", dtype=dtype)
        assert tuple(state.placement for state in model.norms) == PLACEMENTS[family]


# What is a normalization, and what is not


class Odd(nn.Module):
    """An RMSNorm under a name that says nothing, with γ stored as its logarithm."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.linspace(-1, 1, WIDTH), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x / (x.square().mean(-1, keepdim=True) + 1e-4).sqrt() * self.a.exp()


class Bent(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(0.5 * x)


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(0.5, 2, WIDTH), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.weight


class Gated(nn.Module):
    def forward(self, x: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
        return nn.functional.layer_norm(x, x.shape[-1:]) * gate


class Stack(nn.Module):
    """Parts run one after another; the hidden states are what each gives."""

    def __init__(self, *parts: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        states = [x]
        for part in self.parts:
            states.append(part(states[-1]))
        return states


def states_around(*parts: nn.Module) -> tuple[normalization.StateNorm, ...]:
    stack = Stack(*parts)
    x = torch.randn(1, 5, WIDTH, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode(), normalization.recording(stack) as calls:
        states = stack(x)
    return normalization.around(states, calls)


def test_a_normalization_is_known_by_what_it_does():
    first, last = states_around(Odd())
    assert (first.placement, last.placement) == ("pre", "post")
    norm = last.norm
    assert (norm.name, norm.kind, norm.eps) == ("Odd", "RMSNorm", 1e-4)
    np.testing.assert_allclose(norm.gamma, np.exp(np.linspace(-1, 1, WIDTH)), rtol=1e-4)


@pytest.mark.parametrize("part", [nn.Identity(), nn.GELU(), nn.ReLU(), Bent(), Scaled()])
def test_what_does_not_normalize_is_not_taken_for_it(part):
    assert [state.placement for state in states_around(part)] == ["none", "none"]


def test_one_that_takes_more_than_a_tensor_is_not_taken_for_one():
    class WithGate(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = Gated()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.norm(x, torch.sigmoid(x))

    assert [state.placement for state in states_around(WithGate())] == ["none", "none"]


class Named(nn.Module):
    """A norm called with its input by name, whose γ has the shape of the states."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Shaped()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(hidden_states=x)


class Shaped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(1, 2, WIDTH)[None, None], requires_grad=False)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return nn.functional.layer_norm(hidden_states, (WIDTH,)) * self.weight


def test_a_normalization_may_take_its_input_by_name():
    first, last = states_around(Named())
    assert (first.placement, last.placement) == ("pre", "post")
    assert (last.norm.module, last.norm.kind) == ("parts.0.inner", "LayerNorm")
    np.testing.assert_allclose(last.norm.gamma, np.linspace(1, 2, WIDTH), rtol=1e-4)


# Sites


@pytest.mark.parametrize("family", FAMILIES)
def test_sites_are_what_the_module_took_and_gave(family, shifted):
    """Against tensors taken by plain hooks, and z by its formula."""
    model = shifted(family)
    layers = [state.layer for state in model.norms if state.norm]
    sentence = ek.Corpus.of([SENTENCES[0]])
    got = {
        site: ek.sample_embeddings(model, sentence, 1000, layers, site=site) for site in AT_NORMS
    }
    calls: dict[str, list] = {}
    hooks = [
        model.module.get_submodule(name).register_forward_hook(
            lambda _, taken, given, name=name: calls.setdefault(name, []).append(
                (taken[0].clone(), given.clone())
            )
        )
        for name in {model.norms[layer].norm.module for layer in layers}
    ]
    work = ek.plan(model, sentence)
    model.hidden_states(torch.from_numpy(work.text.ids.astype(np.int64))[None])
    for hook in hooks:
        hook.remove()
    for layer in layers:
        norm = model.norms[layer].norm
        taken, given = (x.reshape(-1, WIDTH).double() for x in calls[norm.module][norm.call])
        z = taken - taken.mean(1, keepdim=True) if family in CENTRED else taken
        z = z / (z.square().mean(1, keepdim=True) + norm.eps).sqrt()
        for site, expected in zip(AT_NORMS, (taken, z, given), strict=True):
            np.testing.assert_allclose(got[site].at(layer), expected, rtol=1e-4, atol=1e-5)
        affine = norm.gamma * z.numpy() + norm.beta
        np.testing.assert_allclose(affine, given, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama", "albert"])
def test_standardized_embeddings_lie_on_a_line(family, shifted, monkeypatch):
    """The theorem: ``Q = d``, hence ``V = d - M``, whatever γ and β are."""
    model = shifted(family)
    # The epsilon counts beside the squares of small random weights, as in no trained model.
    for weight in model.module.parameters():
        if weight.dim() == 2:
            monkeypatch.setattr(weight, "data", weight.data * 10)
    layers = [state.layer for state in model.norms if state.norm]
    stats = ek.extract(model, CORPUS, layers=layers, site="standardized", progress=False)
    np.testing.assert_allclose(stats.Q, WIDTH, rtol=1e-3)
    line = stats.tradeoff(min_count=2)
    line = line[line["layer"] > 0]
    np.testing.assert_allclose(line["slope"], -1, atol=1e-3)
    assert (line["r2"] > 0.999).all()


def test_minilm_standardized_is_the_line_at_every_layer(minilm):
    corpus = ek.load_corpus("wikipedia", limit=150)
    found = ek.extract(minilm, corpus, site=["hidden", *AT_NORMS], progress=False)
    np.testing.assert_allclose(found["standardized"].Q, 384, rtol=1e-5)
    line = found["standardized"].tradeoff(min_count=3)
    np.testing.assert_allclose(line["slope"], -1, atol=1e-3)
    assert (line["r2"] > 0.999).all()
    # Post-LN: what the norm gives out is the hidden state, and the same occurrences were counted.
    np.testing.assert_array_equal(found["norm_output"].M, found["hidden"].M)
    np.testing.assert_array_equal(found["norm_input"].n, found["hidden"].n)
    assert not np.allclose(found["norm_input"].Q, found["hidden"].Q)


@pytest.mark.slow
def test_numbers_of_an_independent_prototype(minilm):
    """Measured by other code on 3,000 sentences of the excerpt, by vocabulary entry."""
    corpus = ek.load_corpus("wikipedia", sample=3000, seed=0)
    found = ek.extract(minilm, corpus, by="id", layers=[2, 6], site=AT_NORMS, progress=False)
    prototype = {
        "norm_input": [(-0.003, 0.007), (0.220, 0.503)],
        "standardized": [(-1.000, 1.000), (-1.000, 1.000)],
        "norm_output": [(-0.71, 0.76), (0.054, 0.059)],
    }
    for site, expected in prototype.items():
        got = found[site].tradeoff()[["slope", "r2"]]
        np.testing.assert_allclose(got, expected, atol=0.03, err_msg=site)


@pytest.mark.slow
def test_smollm2_standardized_is_the_line_at_every_layer(smollm2, few):
    """At layer 0 a token has one embedding, and only those that two entries share vary."""
    stats = ek.extract(smollm2, few[:20], site="standardized", progress=False)
    # 1e-5, the epsilon, shows beside the small squares of the token embeddings.
    np.testing.assert_allclose(stats.Q, 576, rtol=2e-2)
    np.testing.assert_allclose(stats.Q[1:], 576, rtol=1e-3)
    line = stats.tradeoff(min_count=3)[1:]
    np.testing.assert_allclose(line["slope"], -1, atol=1e-3)
    assert (line["r2"] > 0.999).all()


def test_pre_ln_takes_in_the_hidden_state(shifted):
    found = ek.extract(
        shifted("gpt2"), CORPUS, layers=[0, 1], site=["hidden", "norm_input"], progress=False
    )
    np.testing.assert_array_equal(found["norm_input"].V, found["hidden"].V)


def test_a_layer_without_the_site_is_refused_with_those_that_have_it(shifted):
    with pytest.raises(ek.ExtractionError, match=r"hidden state 0, .*'standardized'.*\[1, 2\]"):
        ek.extract(shifted("albert"), CORPUS, site=["hidden", "standardized"], progress=False)
    ek.extract(shifted("albert"), CORPUS, site="standardized", layers=[1, 2], progress=False)
    with pytest.raises(ek.ExtractionError, match="hidden state 0"):
        ek.sample_embeddings(shifted("albert"), CORPUS, 5, site="norm_input")


def test_a_model_without_any_is_refused(tiny):
    model = ek.load_model(tiny("bert"), device="cpu")
    for part in list(model.module.modules()):
        for name, child in part.named_children():
            if isinstance(child, nn.LayerNorm):
                setattr(part, name, nn.Identity())
    model = _probed(model)
    assert normalization.table(model)["module"].isna().all()
    with pytest.raises(ek.ExtractionError, match="no hidden state has one: take 'hidden'"):
        ek.extract(model, CORPUS, site="norm_output", progress=False)


def test_hooks_are_gone_after_a_pass_and_after_an_error(shifted, monkeypatch):
    model = shifted("bert")

    def hooks() -> int:
        parts = list(model.module.modules())
        return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in parts)

    before = hooks()
    ek.extract(model, CORPUS, site="standardized", progress=False)
    assert hooks() == before
    norm = model.module.get_submodule(model.norms[1].norm.module)
    kept = norm.weight.data.clone()
    norm.weight.data[0] = torch.nan
    try:
        with pytest.raises(ek.ExtractionError, match="NaN or infinity in layer 1") as held:
            ek.extract(model, CORPUS, site="norm_output", progress=False)
        assert hooks() == before  # while the error, and with it the pass' frames, are still held
        assert held.value is not None
    finally:
        norm.weight.data = kept


def test_sites_do_not_depend_on_batches(shifted):
    """Shared layers are counted anew in every batch."""
    for family in ("albert", "llama"):
        options = {"layers": [1, 2], "site": "standardized", "progress": False}
        one = ek.extract(shifted(family), CORPUS, batch_tokens=16, **options)
        other = ek.extract(shifted(family), CORPUS, batch_tokens=4096, **options)
        np.testing.assert_allclose(one.M, other.M, rtol=1e-4)


def test_sites_on_a_device(shifted, monkeypatch):
    """The accelerator's form of the moments, here on the CPU."""
    sites = [*AT_NORMS, "unit"]
    host = ek.extract(shifted("bert"), CORPUS, site=sites, progress=False)
    monkeypatch.setattr("embvar_kit.moments.memory.HOST_MOMENTS", ())
    device = ek.extract(shifted("bert"), CORPUS, site=sites, progress=False)
    for site in sites:
        np.testing.assert_allclose(device[site].M, host[site].M, rtol=1e-6)
        np.testing.assert_allclose(device[site].V, host[site].V, rtol=1e-5, atol=1e-9)


def test_a_word_is_the_mean_of_its_tokens_at_the_site(minilm):
    corpus = ek.Corpus.of(["the unbelievable embroiderers"])
    by_word = ek.extract(minilm, corpus, by="word", site="standardized", progress=False)
    tokens = ek.sample_embeddings(minilm, corpus, 100, site="standardized")
    work = ek.plan(minilm, corpus, by="word")
    for word, label in enumerate(by_word.tokens):
        rows = np.flatnonzero(work.group[work.word] == word)
        rows = rows[work.word[rows] >= 0]
        expected = tokens.x[:, rows].mean(axis=1)
        np.testing.assert_allclose(
            by_word.mean[:, word], expected, rtol=1e-4, atol=1e-5, err_msg=str(label)
        )


@given(st.integers(2, 200), st.integers(0, 2**32 - 1), st.floats(-3, 3))
def test_standardizing_projects_and_scales(d, seed, power):
    """Centring takes the part along the all-ones vector off; scaling puts on the sphere √d."""
    x = torch.from_numpy(np.random.default_rng(seed).normal(1, 10**power, size=(3, d)))
    z = normalization.standardize(x, "LayerNorm").double()
    if x.float().std(dim=1).min() < 1e-3 * x.abs().max():
        return  # nothing to scale: all features alike
    ones = torch.ones(d, dtype=torch.float64)
    assert (z @ ones).abs().max() < 1e-3 * d
    torch.testing.assert_close(z.square().sum(1), ones[:1].expand(3) * d, rtol=1e-3, atol=0)
    projected = x - (x @ ones)[:, None] / d * ones
    cosine = nn.functional.cosine_similarity(projected, z)
    torch.testing.assert_close(cosine, torch.ones_like(cosine), rtol=0, atol=1e-4)


# The twins


@pytest.mark.parametrize("name", ["post-ln", "post-ln-frozen", "pre-ln", "pre-rmsnorm"])
@pytest.mark.slow
def test_the_trained_twins_obey_the_theorem_at_every_normalized_layer(name):
    """At layer 0 the epsilon, 1e-5, shows beside the small squares of the embeddings."""
    model = ek.load_twin(name, device="cpu")
    corpus = ek.load_corpus("wikipedia", sample=400, seed=0)
    found = ek.extract(model, corpus, site=["hidden", *AT_NORMS], progress=False)
    line = found["standardized"].tradeoff()
    assert (line["r2"] > 0.999).all()
    np.testing.assert_allclose(line["slope"][1:], -1, atol=1e-3)
    assert -1 < line["slope"][0] < -0.99
    between = found["hidden"].tradeoff()[1:-1]
    if name.startswith("post-"):  # γ and β bend the line somewhat
        assert (between["slope"] < -0.85).all() and (between["r2"] > 0.9).all()
    else:
        assert (between["slope"] > -0.4).all() and (between["r2"] < 0.4).all()


def test_epsilon_is_all_that_keeps_the_twins_embeddings_off_the_sphere():
    model = ek.load_twin("pre-ln", device="cpu")
    drawn = {
        site: ek.sample_embeddings(
            model, ek.load_corpus("wikipedia", limit=50), 500, [0], site=site
        ).at(0)
        for site in ("norm_input", "standardized")
    }
    s = drawn["norm_input"].astype(float).var(axis=1)
    assert 5e-4 < s.mean() < 5e-3
    expected = 192 * s / (s + 1e-5)
    np.testing.assert_allclose((drawn["standardized"] ** 2).sum(1), expected, rtol=1e-3)


# Untrained


@pytest.mark.parametrize("family", FAMILIES)
def test_untrained_is_the_same_form_with_fresh_weights(family, tiny):
    model = ek.load_model(tiny(family), device="cpu")
    kept = {name: weight.clone() for name, weight in model.module.state_dict().items()}
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fresh = ek.untrained(model, seed=3)
    torch.testing.assert_close(torch.rand(3), expected)  # the global generator is left alone
    assert type(fresh.module) is type(model.module)
    assert fresh.module.state_dict().keys() == kept.keys()
    assert [s.placement for s in fresh.norms] == [s.placement for s in model.norms]
    for state in fresh.norms:
        if state.norm:
            np.testing.assert_allclose(state.norm.gamma, 1, rtol=1e-4)
            np.testing.assert_allclose(state.norm.beta, 0, atol=1e-5)
    for name, weight in model.module.state_dict().items():
        torch.testing.assert_close(weight, kept[name])
    ids = torch.tensor([[1, 2, 3]])
    again, other = ek.untrained(model, seed=3), ek.untrained(model, seed=4)
    torch.testing.assert_close(again.hidden_states(ids), fresh.hidden_states(ids))
    assert not torch.allclose(other.hidden_states(ids)[1], fresh.hidden_states(ids)[1])
    assert fresh.name.endswith("untrained") and fresh.revision == "seed:3"


def test_untrained_post_ln_is_on_the_line_already(tiny):
    fresh = ek.untrained(ek.load_model(tiny("bert"), device="cpu"))
    line = ek.extract(fresh, CORPUS, progress=False).tradeoff(min_count=2)
    np.testing.assert_allclose(line["slope"], -1, atol=1e-3)
