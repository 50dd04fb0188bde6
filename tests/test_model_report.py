"""The report runs unchanged for an encoder and a decoder, and says what went wrong."""

import json
import re
import shutil
import sys

import nbformat
import papermill
import pytest
import torch
import transformers
from jupyter_client.kernelspec import KernelSpecManager
from tiny_models import SENTENCES

import embvar_kit as ek
from embvar_kit import files, model_report
from embvar_kit.cli import main


def outputs(path) -> str:
    cells = nbformat.read(path, as_version=4).cells
    found = [out for cell in cells if cell.cell_type == "code" for out in cell.outputs]
    return "\n".join(
        out.get("text", "") + out.get("data", {}).get("text/plain", "") for out in found
    )


@pytest.mark.parametrize(("family", "placement"), [("bert", "post"), ("llama", "pre")])
@pytest.mark.slow
def test_encoder_and_decoder(family, placement, tiny, tmp_path, monkeypatch):
    text = tmp_path / "text.txt"
    text.write_text("\n".join(SENTENCES * 3), encoding="utf-8")
    monkeypatch.chdir(tmp_path)  # paths on the command line are relative to where it is given
    arguments = ["report", str(tiny(family)), "--corpus", "text.txt", "--min-count", "3"]
    assert main([*arguments, "--out", "out", "--device", "cpu", "--no-untrained"]) == 0
    said = outputs(tmp_path / "out" / "report.ipynb")
    assert f"{placement}: " in said
    stats = ek.extract(
        ek.load_model(tiny(family), device="cpu"), ek.load_corpus(text), null=True, progress=False
    )
    stats = stats.without(stats.high_norm(min_count=3)["token"])
    fits = stats.tradeoff(min_count=3).set_index("layer")
    falling = fits[fits["slope"] < 0]
    best = (falling if len(falling) else fits)["r2"].idxmax()
    assert f"best falling line: layer {best}, " in said
    assert f"R² {fits['r2'][best]:.2f}, slope {fits['slope'][best]:.2f}, over " in said
    assert ("Too few tokens to say more" in said) == (fits["n_tokens"][0] < 100)
    # A text this short has no folds, and it is told by what it lacks.
    assert "1 document, too few for folds" in said and "unknown" not in said
    line = re.search(r"95 % interval over all layers, unbiased +(.*)", said)[1]
    assert line == "none: 1 document, no folds"
    chance = {"none: tokens were left out"}
    if stats.null is not None:
        permuted = stats.null.tradeoff(min_count=3, unbiased=True).set_index("layer")
        chance = {f"{permuted['slope'][best]:.2f}"}
    assert {re.search(r"slope of permuted labels, unbiased +(.*)", said)[1]} == chance
    written = (tmp_path / "out" / "report.ipynb").read_text(encoding="utf-8")
    assert "output_path" not in written and "untrained = False" in written
    for heading in ("## Quiz", "## Exercises", "**Exercise 1.**", "## Solutions"):
        assert heading not in written
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "A model of your own" in page and "data:image/png" in page


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["none/such"], "'none/such' is not here"),
        (["./none"], "There is no folder './none'"),
        (["minilm", "--corpus", "none.txt"], "none.txt"),
        (["minilm", "--corpus", "empty.txt"], "empty.txt"),
        (["minilm", "--limit", "0"], "limit"),
        (["minilm", "--device", "abacus"], "Device 'abacus' cannot be used"),
    ],
)
def test_what_is_not_there_is_told_before_the_notebook_starts(
    more, words, tmp_path, monkeypatch, capsys
):
    def start(*_, **__):
        raise AssertionError("the notebook was started")

    monkeypatch.setattr(papermill, "execute_notebook", start)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.txt").write_text("")
    assert main(["report", *more, "--out", "new/out"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("embvar: ") and words in said and said.count("\n") == 1
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_a_cell_that_fails_is_named_and_the_others_are_kept(tmp_path):
    with pytest.raises(ek.ReportError, match=r"of the report failed: .*report\.ipynb"):
        ek.report("minilm", tmp_path / "out", parameters={"limit": 20, "min_count": "many"})
    assert "architecture          BertModel" in outputs(tmp_path / "out" / "report.ipynb")


@pytest.mark.slow
def test_a_constant_Q_is_no_finding(tiny, tmp_path):
    """A Post-LN model whose gains are all one gives every state the same norm."""
    module = transformers.AutoModel.from_pretrained(tiny("bert"))
    for part in module.modules():
        if isinstance(part, torch.nn.LayerNorm):
            torch.nn.init.ones_(part.weight)
            torch.nn.init.zeros_(part.bias)
    folder, text = tmp_path / "model", tmp_path / "text.txt"
    shutil.copytree(tiny("bert"), folder)
    module.save_pretrained(folder)
    text.write_text("\n".join(SENTENCES * 3), encoding="utf-8")
    how = {"corpus_name": str(text), "min_count": 3, "device": "cpu"}
    said = outputs(ek.report(folder, tmp_path / "out", parameters=how)["notebook"])
    assert "Q is the same for all tokens, up to rounding" in said
    found = said.partition("kept while it ran")[0]  # what follows names 1e-05 itself
    assert not re.search(r"\d[eE]-(0[5-9]|1\d)", found), "rounding is printed"


@pytest.mark.slow
def test_what_a_network_without_training_has_too_is_not_called_learned(tiny, tmp_path):
    """Random weights have a falling line: the report finds the same in others, and says so."""
    text = tmp_path / "text.txt"  # in blocks of 250 lines, which are dealt out to folds
    text.write_text("\n".join(ek.load_corpus("wikipedia", sample=5000)), encoding="utf-8")
    how = {"corpus_name": str(text), "limit": 5000, "device": "cpu"}
    said = outputs(ek.report(tiny("gpt2"), tmp_path / "out", parameters=how)["notebook"])
    layers = re.search(r"A trade-off survives at layers (\[.+?\])", said)[1]
    assert f"At layers {layers} an untrained network has such a line" in said


def test_without_the_notebook_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "checkout", lambda: None)  # a wheel has a copy: test_wheel.py
    with pytest.raises(ek.ReportError, match=r"09_your_own_model.ipynb' is missing.*clone"):
        ek.report("minilm", tmp_path)


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ek.ReportError, match="cannot be written"):
        ek.report("minilm", tmp_path / "file" / "out")


def test_an_unknown_parameter_is_no_silent_default(tmp_path):
    with pytest.raises(ek.ReportError, match=r"no parameter 'limits'; it has model_name, corpus"):
        ek.report("minilm", tmp_path, parameters={"limits": 5})


def test_a_kernel_of_another_interpreter_found_first_is_not_started(tmp_path, monkeypatch):
    """A user's own kernel named python3 comes before the one of this environment."""
    kernel = tmp_path / "jupyter" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    told = {"argv": ["/no/such/python", "{connection_file}"], "display_name": "other"}
    (kernel / "kernel.json").write_text(json.dumps({**told, "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    assert KernelSpecManager().get_kernel_spec("python3").argv[0] == "/no/such/python"
    small = tmp_path / "small.ipynb"
    cells = [
        nbformat.v4.new_code_cell("model_name = ''", metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell("import sys\nprint(sys.executable, model_name)"),
    ]
    told = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=told), small)
    monkeypatch.setattr(model_report, "_notebook", lambda: small)
    ek.report("minilm", tmp_path / "out")
    assert f"{sys.executable} minilm" in outputs(tmp_path / "out" / "report.ipynb")
