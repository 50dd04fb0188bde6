"""Time the pass on a GPU: the forward pass alone, and with the statistics in each of their forms.

    .venv/bin/python tests/benchmarks/on_gpu.py             # after make models, where a GPU is
    ... on_gpu.py --text FILE --tokenizer FOLDER --models 1   # other text, a line a sentence

The models have the shapes of well-known ones and random weights, which a pass's time does not
depend on. Writes ``gpu.md`` beside this file (``--out`` for another place).
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import transformers
from machine import today
from torch.profiler import ProfilerActivity, profile

import embvar_kit as ek
from embvar_kit.extraction import plan
from embvar_kit.extraction.accumulator import Accumulator
from embvar_kit.extraction.forward import forward
from embvar_kit.models.around import sample_ids
from embvar_kit.models.limits import max_tokens
from embvar_kit.models.parts import bare, without_pooler
from embvar_kit.models.probe import probe
from embvar_kit.moments.fused import SWITCH

HERE = Path(__file__).parent

SHAPES = {
    "6 layers of 384 (MiniLM)": transformers.BertConfig(
        hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536
    ),
    "12 layers of 768 (BERT base)": transformers.BertConfig(),
    "16 layers of 2,048 (Llama 3.2 1B)": transformers.LlamaConfig(
        hidden_size=2048,
        num_hidden_layers=16,
        num_attention_heads=32,
        num_key_value_heads=8,
        intermediate_size=8192,
    ),
}

LARGE = {"16 layers of 2,048 (Llama 3.2 1B)": 8000}
"""Sentences, for a model that is slow; in bfloat16 only."""

BARS = {
    ("12 layers of 768 (BERT base)", "bfloat16"): 8,
    ("16 layers of 2,048 (Llama 3.2 1B)", "bfloat16"): 4,
}
"""Most that the statistics should take, in % of the forward pass."""


def model_of(shape: str, dtype: torch.dtype, tokenizer: object) -> ek.EmbeddingModel:
    """A model with random weights, made on the device."""
    device = torch.device("cuda")
    config = SHAPES[shape]
    config.vocab_size = len(tokenizer)
    torch.manual_seed(0)
    with device:
        module = bare(transformers.AutoModel.from_config(config, dtype=dtype))
    ends = (tokenizer.cls_token_id,), (tokenizer.sep_token_id,)
    ids = sample_ids(tokenizer, *ends)
    module = without_pooler(module, ids)
    found = probe(module, ids, tokenizer.pad_token_id or 0, shape)
    return ek.EmbeddingModel(
        name=shape,
        revision=None,
        module=module,
        tokenizer=tokenizer,
        device=device,
        n_states=found.n_states,
        width=found.width,
        max_tokens=max_tokens(module),
        begin=ends[0],
        end=ends[1],
        norms=found.norms,
    )


def seconds(work: Callable[[], object]) -> float:
    torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - started


FORMS = {"torch": "0", "fused": "1"}
"""The forms of the statistics, by tensor operations and by one kernel: values of the switch."""


def accumulator(model: ek.EmbeddingModel, work: plan.Plan, form: str) -> Accumulator:
    os.environ[SWITCH] = FORMS[form]
    return Accumulator(model, work, ["hidden"])


def measure(model: ek.EmbeddingModel, corpus: ek.Corpus, rounds: int) -> dict[str, float]:
    """Medians of seconds: bare forward, forward and each form of statistics, all of ``extract``."""
    work = ek.plan(model, corpus)
    moments = {form: accumulator(model, work, form) for form in FORMS}

    def run(form: str | None = None) -> None:
        for batch in forward(model, work):
            if form:
                moments[form].add(batch)

    def extract(form: str) -> None:
        os.environ[SWITCH] = FORMS[form]
        ek.run_plan(model, corpus, work, progress=False)

    contestants = {
        "bare": run,
        **{form: partial(run, form) for form in FORMS},
        **{f"extract, {form}": partial(extract, form) for form in FORMS},
    }
    spent: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(rounds + 1):
        for name, contestant in contestants.items():
            taken = seconds(contestant)
            if turn:  # the first one warms up
                spent[name].append(taken)
    found = {name: statistics.median(times) for name, times in spent.items()}
    moments.clear()
    for form in FORMS:
        torch.cuda.reset_peak_memory_stats()
        extract(form)
        found[f"peak, {form}"] = torch.cuda.max_memory_allocated() / 2**30
    found["tokens"], found["batches"] = work.n_tokens, len(work.batches)
    print(f"{model.name}, {model.dtype}: {found}", flush=True)
    return found


def kernels(model: ek.EmbeddingModel, corpus: ek.Corpus, form: str) -> str:
    """What the device does in a few batches with statistics, the dearest first."""
    work = ek.plan(model, corpus)
    moments = accumulator(model, work, form)
    few = work.batches[len(work.batches) // 2 :][:4]
    kinds = [ProfilerActivity.CPU, ProfilerActivity.CUDA]
    for _ in range(2):
        with profile(activities=kinds) as profiled:
            for batch in forward(model, work, batches=few):
                moments.add(batch)
            torch.cuda.synchronize()
    return profiled.key_averages().table(sort_by="self_cuda_time_total", row_limit=30)


def against_the_bar(shape: str, dtype: str, over: float) -> str:
    """The bar for the statistics of a shape and type, if there is one, and whether it is met."""
    bar = BARS.get((shape, dtype))
    return "" if bar is None else f"≤ {bar}, {'met' if over <= bar else '**missed**'}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--text", default="wikipedia", help="the corpus: the excerpt, or a file")
    parser.add_argument("--tokenizer", default="data/models/minilm", help="a folder with one")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--models", type=int, default=len(SHAPES), help="so many, small ones first")
    parser.add_argument("--padding", type=float, default=plan.MAX_PADDING, help="at most")
    parser.add_argument("--kernels", action="store_true", help="print what the device did")
    parser.add_argument("--out", type=Path, default=HERE / "gpu.md")
    chosen = parser.parse_args()
    plan.MAX_PADDING = chosen.padding
    tokenizer = transformers.AutoTokenizer.from_pretrained(chosen.tokenizer, local_files_only=True)
    corpus = ek.load_corpus(chosen.text)
    lines = [
        "# On a GPU",
        "",
        f"Measured by `.venv/bin/python tests/benchmarks/on_gpu.py` on {today()}: "
        f"{torch.cuda.get_device_name()}, torch {torch.__version__}, transformers "
        f"{transformers.__version__}, Python {platform.python_version()}, embvar-kit "
        f"{ek.__version__}; the contestants take turns, and rates are from medians of "
        f"{chosen.rounds} rounds.",
        "",
        "| model | weights | tokens | tokens/s, forward alone | statistics by | with statistics "
        "| `extract`, all of it | statistics, % of forward | bar | peak, GiB |",
        "| --- | --- | ---: | ---: | --- | ---: | ---: | ---: | --- | ---: |",
    ]
    for shape in list(SHAPES)[: chosen.models]:
        text = corpus.select(sample=LARGE[shape], seed=0) if shape in LARGE else corpus
        for dtype in (torch.float32, torch.bfloat16)[shape in LARGE :]:
            model = model_of(shape, dtype, tokenizer)
            found = measure(model, text, chosen.rounds)
            for form in FORMS:
                rates = [found["tokens"] / found[name] for name in (form, f"extract, {form}")]
                over = 100 * (found[form] / found["bare"] - 1)
                lines.append(
                    f"| {shape} | {model.dtype} | {found['tokens']:,} "
                    f"| {found['tokens'] / found['bare']:,.0f} | {form} | "
                    + " | ".join(f"{rate:,.0f}" for rate in rates)
                    + f" | {over:.1f} | {against_the_bar(shape, model.dtype, over)} "
                    f"| {found[f'peak, {form}']:.1f} |"
                )
                if chosen.kernels:
                    print(kernels(model, text, form))
            del model
            torch.cuda.empty_cache()
    page = "\n".join(lines) + "\n"
    chosen.out.write_text(page, encoding="utf-8")
    print(page)


if __name__ == "__main__":
    main()
