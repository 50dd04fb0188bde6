"""Loading a tokenizer and a Transformer so that every hidden state can be had.

Nothing here knows the name of an architecture: what a model is like (number of hidden states,
width, where its sequence limit lies, what its last state went through) is read from its
configuration or found by running one short sentence.

Begin and end tokens follow the paper: every sentence gets both, where the tokenizer
has them. Begin is the tokenizer's ``cls`` token or else its ``bos`` token, end is its ``sep``
token or else its ``eos`` token, whatever its own template adds:

====================================  ==================  ==================
family                                begin               end
====================================  ==================  ==================
BERT, DistilBERT, ELECTRA, ALBERT     ``[CLS]``           ``[SEP]``
ModernBERT                            ``[CLS]``           ``[SEP]``
RoBERTa                               ``<s>``             ``</s>``
GPT-2, GPT-NeoX                       ``<|endoftext|>``   ``<|endoftext|>``
OPT                                   ``</s>``            ``</s>``
Llama, Mistral, Gemma                 ``<s>``/``<bos>``   ``</s>``/``<eos>``
Qwen (has no begin token)             none                its end token
T5 (has no begin token)               none                ``</s>``
====================================  ==================  ==================
"""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from embvar_kit import hub
from embvar_kit.errors import ModelError, first_line
from embvar_kit.files import sha256_of
from embvar_kit.models.bundled import BUNDLED, verify
from embvar_kit.models.normalization import StateNorm, around, recording


@dataclass(frozen=True)
class EmbeddingModel:
    """A Transformer, its tokenizer and what the kit found out about the two.

    Attributes:
        name: alias, folder name or Hub name.
        revision: Hub commit, or the start of the weights' sha256 for local files.
        module: the transformers model without head and pooler, in evaluation mode.
        tokenizer: its tokenizer.
        device: where the module is.
        n_states: number of hidden states: the embedding layer's and one per layer.
        width: ``d``, the length of an embedding.
        max_tokens: longest sequence that the model takes, begin and end included, or ``None``.
        begin, end: vocabulary ids put around each sentence, or ``None``.
        norms: the normalizations around each hidden state, one entry a state.
    """

    name: str
    revision: str | None
    module: Any
    tokenizer: Any
    device: torch.device
    n_states: int
    width: int
    max_tokens: int | None
    begin: int | None
    end: int | None
    norms: tuple[StateNorm, ...]

    def __repr__(self) -> str:
        return (
            f"EmbeddingModel({self.name!r}: {type(self.module).__name__}, {self.n_states} hidden "
            f"states of width {self.width}, {self.module.dtype}, on {self.device})"
        )

    @property
    def dtype(self) -> str:
        """The weights' data type, ``"float32"`` for one."""
        return str(self.module.dtype).removeprefix("torch.")

    @property
    def final_norm(self) -> str | None:
        """Class of the normalization that gave the last hidden state, if one did."""
        last = self.norms[-1].produced_by
        return last.name if last else None

    @property
    def normalization(self) -> str:
        """Where the blocks normalize: the hidden states between them are what a normalization
        gives out (``"post"``), what one takes in (``"pre"``: the residual stream) or neither
        (``"none"``)."""
        return placement(self.norms)

    def hidden_states(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, ...]:
        """The ``n_states`` hidden states ``(batch, length, d)`` of a batch of token ids.

        Args:
            input_ids: ``(batch, length)``, on the model's device.
            attention_mask: ``(batch, length)``, 1 where there is a token; not needed where
                nothing is padded.
        """
        with torch.inference_mode():
            return self.module(
                input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=True
            ).hidden_states


def load_model(
    name: str | Path,
    *,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "float32",
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> EmbeddingModel:
    """Load an encoder or decoder from a bundled alias, a folder, a GGUF file or the Hub.

    Args:
        name: ``"minilm"`` or ``"smollm2"``; a folder with a transformers model or a ``.gguf``
            file; a ``.gguf`` file; or a name on the Hub such as ``"bert-base-uncased"``. A model
            that was downloaded before is taken from the Hub's cache without asking the network.
        device: ``"auto"`` takes CUDA, else Apple's MPS, else the CPU.
        dtype: of the weights. Statistics are kept in higher precision whatever it is.
        revision: branch, tag or commit on the Hub.
        trust_remote_code: run code that a folder or Hub repository brings (``auto_map`` in its
            ``config.json``). Without it transformers' own class is used where it has one, and
            the model is refused where it has none.

    Returns:
        The model, tried on one sentence.

    Raises:
        ModelError: if it is unknown, not there, damaged, incomplete, unsafe to load, or gives no
            hidden states.
    """
    name = str(name)
    place = _device(device)
    number_type = _dtype(dtype)
    source, gguf, label = _locate(name)
    # Said even where it is no: left to itself, transformers asks on the terminal.
    options: dict[str, Any] = {"trust_remote_code": bool(trust_remote_code)}
    if gguf:
        options["gguf_file"] = gguf
    with quiet():
        if source is None:
            loaded = _from_hub(name, revision, number_type, options)
        else:
            loaded = _load(str(source), label, number_type, {**options, "local_files_only": True})
    module, missing, tokenizer = loaded
    names = {id(weight): key for key, weight in module.named_parameters()}
    module = bare(module)
    if absent := missing & {names.get(id(weight)) for weight in module.parameters()}:
        raise ModelError(
            f"The files of {label!r} lack weights that the model needs ({len(absent)}, among them "
            f"{min(absent)!r}); transformers would fill them with random numbers."
        )
    module = module.to(place)
    begin = _first(tokenizer.cls_token_id, tokenizer.bos_token_id)
    end = _first(tokenizer.sep_token_id, tokenizer.eos_token_id)
    found = probe(module, tokenizer, begin, end, place, label)
    return EmbeddingModel(
        name=label,
        revision=_hashes(name, source, gguf) if source else _commit(name, revision),
        module=module,
        tokenizer=tokenizer,
        device=place,
        n_states=found.n_states,
        width=found.width,
        max_tokens=max_tokens(module),
        begin=begin,
        end=end,
        norms=found.norms,
    )


def bare(module: Any) -> Any:
    """The part of a transformers model that gives the hidden states, for evaluation."""
    if all(hasattr(module, part) for part in ("encoder", "decoder")):
        module = module.get_encoder()
    # The pooler reads the last state only; it is not needed, and often it is not trained.
    if getattr(module, "pooler", None) is not None:
        module.pooler = None
    if hasattr(module.config, "use_cache"):
        module.config.use_cache = False
    return module.eval().requires_grad_(False)


def _locate(name: str) -> tuple[Path | None, str | None, str]:
    """``(folder, gguf file in it, label)``; no folder means a name on the Hub."""
    if name in BUNDLED:
        bundled = BUNDLED[name]
        verify(bundled)
        folder, label = bundled.path, name
    elif name.endswith(".gguf"):
        path = Path(name).expanduser()
        if not path.is_file():
            raise ModelError(f"There is no file {name!r}.")
        return path.parent, path.name, path.stem
    elif (folder := Path(name).expanduser()).is_dir():
        label = folder.resolve().name
    elif name.count("/") > 1 or name.startswith((".", "~", "/")):
        raise ModelError(f"There is no folder {name!r}.")
    else:
        return None, None, name
    if (folder / "config.json").is_file():
        return folder, None, label
    ggufs = sorted(folder.glob("*.gguf"))
    if len(ggufs) == 1:
        return folder, ggufs[0].name, label
    raise ModelError(
        f"Folder {label!r} holds no config.json and {len(ggufs)} .gguf files: a model needs the "
        "first, or exactly one of the second."
    )


def _from_hub(name: str, revision: str | None, dtype: torch.dtype, options: dict) -> tuple:
    """Load from the Hub's cache if the model is there, else from the network."""
    incomplete = None
    if folder := hub.cached_snapshot(name, revision):
        # As a folder: asked for by name, transformers would look for news of every file, and retry
        # each for half a minute where no network is.
        try:
            return _load(str(folder), name, dtype, {**options, "local_files_only": True})
        except ModelError as error:
            incomplete = error
    try:
        _check_hub(name, revision)
    except ModelError as unreachable:
        raise (incomplete or unreachable) from unreachable.__cause__
    return _load(name, name, dtype, {**options, "revision": revision} if revision else options)


def check_available(*names: str) -> str:
    """Which of a model's names on the Hub to load it by, found out without loading anything.

    Args:
        names: the name that the Hub has for it now, then older ones, which the Hub's cache may
            have it under.

    Raises:
        ModelError: if it is in the cache under none, and on no Hub within reach.
    """
    for name in names:
        if hub.cached_snapshot(name, None):
            return name
    _check_hub(names[0], None)
    return names[0]


def _commit(name: str, revision: str | None) -> str | None:
    folder = hub.cached_snapshot(name, revision)  # downloads go there, too
    return folder.name if folder else None


def _check_hub(name: str, revision: str | None) -> None:
    """Fail at once, with advice, where a name is not on a Hub within reach."""
    answer, error = hub.ask("model", name, revision)
    if answer is hub.Answer.PRESENT:
        return
    offline = f"Available offline: {', '.join(BUNDLED)}, or a folder with a saved model."
    at = f" at revision {revision!r}" if revision else ""
    problem = {
        hub.Answer.IMPOSSIBLE: f"{name!r} is no alias, no folder and no possible name on the Hub.",
        hub.Answer.ABSENT: f"The Hub has no model {name!r}{at} that you can read.",
        hub.Answer.UNREACHABLE: f"{name!r}{at} is not here, and the Hub cannot be reached "
        f"({first_line(error)}).",
    }[answer]
    raise ModelError(f"{problem} {offline}") from error


def _load(where: str, label: str, dtype: torch.dtype, options: dict) -> tuple[Any, set, Any]:
    """``(module, names of weights that no file had, tokenizer)``."""
    return *_load_module(where, label, dtype, options), _load_tokenizer(where, label, options)


def _load_module(where: str, label: str, dtype: torch.dtype, options: dict) -> tuple[Any, set]:
    from transformers import AutoModel

    import embvar_kit.models.twin_model  # noqa: F401  makes AutoModel know the kit's own architecture

    safe = {} if "gguf_file" in options else {"use_safetensors": True}
    try:
        module, report = AutoModel.from_pretrained(
            where, dtype=dtype, output_loading_info=True, **safe, **options
        )
    except (
        Exception
    ) as error:  # transformers raises OSError, ValueError, KeyError, RuntimeError ...
        hint = ""
        if "safetensors" in str(error):
            hint = (
                " The kit loads safetensors and GGUF only, since other weight files can carry "
                "code; load it once with transformers and save_pretrained() it."
            )
        if "trust_remote_code" in str(error):
            hint = (
                " The kit has run none of it. If you have read the code and trust it: "
                "load_model(..., trust_remote_code=True)."
            )
        raise ModelError(
            f"Could not load the model {label!r}: {first_line(error)}{hint}"
        ) from error
    return module, set(report["missing_keys"])


def _load_tokenizer(where: str, label: str, options: dict) -> Any:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(where, **options)
    except Exception as error:
        raise ModelError(
            f"Could not load the tokenizer of {label!r}: {first_line(error)}"
        ) from error
    # Where the vocabulary's file is missing, transformers makes a tokenizer that knows no word.
    special = {*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()}
    if len(tokenizer.get_vocab().keys() - special) < 2:
        raise ModelError(
            f"The tokenizer of {label!r} has no vocabulary: its files (tokenizer.json, or else "
            "vocab.txt and the like) are missing. Save the tokenizer to the model's folder."
        )
    return tokenizer


def _device(device: str | torch.device) -> torch.device:
    if device == "auto":
        if torch.cuda.is_available():
            device = "cuda"
        else:
            device = "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        place = torch.device(device)
        torch.zeros(1, device=place).item()
    except (RuntimeError, AssertionError, TypeError) as error:
        raise ModelError(f"Device {device!r} cannot be used here: {first_line(error)}") from error
    return place


def _dtype(dtype: str | torch.dtype) -> torch.dtype:
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise ModelError(f"Unknown dtype {dtype!r}: try float32, bfloat16 or float16.")
    return found


def _hashes(name: str, folder: Path, gguf: str | None) -> str:
    """What stands for a revision where there is none: the start of the weights' sha256."""
    if name in BUNDLED:  # hashed and compared when it was located
        return f"sha256:{BUNDLED[name].weights_sha256[:12]}"
    weights = [folder / gguf] if gguf else sorted(folder.glob("*.safetensors"))
    return "sha256:" + "+".join(sha256_of(path)[:12] for path in weights)


def _first(*ids: int | None) -> int | None:
    return next((i for i in ids if i is not None), None)


# What one short sentence tells of a model


_PROBE = "A short sentence."


class Found(NamedTuple):
    """What one sentence shows.

    Attributes:
        n_states: number of hidden states.
        width: of each.
        norms: the normalizations around each hidden state, one entry a state.
    """

    n_states: int
    width: int
    norms: tuple[StateNorm, ...]


def probe(
    module: Any, tokenizer: Any, begin: int | None, end: int | None, device: Any, label: str
) -> Found:
    """Run one sentence; look at the hidden states and at the normalizations around them."""

    ids = tokenizer(_PROBE, add_special_tokens=False)["input_ids"]
    ids = [i for i in (begin, *ids, end) if i is not None]
    try:
        with torch.inference_mode(), recording(module) as calls:
            states = module(
                input_ids=torch.tensor([ids], device=device), output_hidden_states=True
            ).hidden_states
    except (RuntimeError, ValueError, TypeError, IndexError, AttributeError) as error:
        raise ModelError(f"{label!r} cannot run on plain text: {first_line(error)}") from error
    if not states:
        raise ModelError(f"{label!r} returns no hidden states; the kit needs all of them.")
    shapes = {tuple(state.shape) for state in states}
    if len(shapes) != 1 or len(states[0].shape) != 3 or states[0].shape[1] != len(ids):
        raise ModelError(
            f"The hidden states of {label!r} differ in shape ({sorted(shapes)}); the kit needs one "
            "vector of one width per token and layer."
        )
    return Found(len(states), states[0].shape[2], around(states, calls))


def placement(norms: Sequence[StateNorm]) -> str:
    """Where a model's blocks normalize: ``"post"``, ``"pre"`` or ``"none"``.

    The first state is the embedding layer's and the last may have been through a final norm: only
    those between blocks tell. A model of one block has none, and its first state must do.
    """
    between = norms[1:-1]
    if between and all(state.produced_by for state in between):
        return "post"
    if all(state.consumed_by for state in between or norms[:1]):
        return "pre"
    return "post" if not between and norms[-1].produced_by else "none"


def max_tokens(module: Any) -> int | None:
    """Positions that the model can tell apart: from its configuration and position tables."""
    config = module.config
    limits = [getattr(config, "max_position_embeddings", None)]
    for name, part in module.named_modules():
        if isinstance(part, nn.Embedding) and "position" in name.rsplit(".", 1)[-1]:
            # RoBERTa's table starts counting behind its padding index.
            taken = 0 if part.padding_idx is None else part.padding_idx + 1
            limits.append(part.num_embeddings - taken)
    limits = [limit for limit in limits if isinstance(limit, int) and limit > 0]
    return min(limits) if limits else None


# Silence


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers from drawing bars and repeating what the kit reports itself."""
    from transformers.utils import logging as their_logging

    bars, level = their_logging.is_progress_bar_enabled(), their_logging.get_verbosity()
    their_logging.disable_progress_bar()
    their_logging.set_verbosity(logging.ERROR)
    try:
        with _unseen():  # GGUF's own bar asks nobody
            yield
    finally:
        their_logging.set_verbosity(level)
        if bars:
            their_logging.enable_progress_bar()


def _unseen() -> Any:
    """Swallow a progress bar: text on a terminal, a widget in a notebook."""
    if "IPython" in sys.modules:
        from IPython.utils.capture import capture_output

        return capture_output(stdout=False)
    return redirect_stderr(io.StringIO())


# Untrained


def untrained(model: EmbeddingModel, seed: int = 0) -> EmbeddingModel:
    """A model's architecture and tokenizer with fresh random weights; its norms have γ = 1, β = 0.

    Args:
        model: the one to take after; it is left as it is.
        seed: of the weights, which are drawn as transformers initializes the architecture.
    """
    from transformers import AutoModel

    with torch.random.fork_rng(), quiet():
        torch.manual_seed(seed)
        fresh = AutoModel.from_config(model.module.config, dtype=model.module.dtype)
    module = bare(fresh).to(model.device)
    name = f"{model.name}, untrained"
    found = probe(module, model.tokenizer, model.begin, model.end, model.device, name)
    return replace(model, name=name, revision=f"seed:{seed}", module=module, norms=found.norms)
