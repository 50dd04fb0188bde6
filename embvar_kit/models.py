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
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embvar_kit.bundled import BUNDLED, sha256_of, verify
from embvar_kit.errors import ModelError
from embvar_kit.probing import first_line, max_tokens, probe

if TYPE_CHECKING:
    import torch


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
        final_norm: class of the normalization that gave the last hidden state, if one did.
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
    final_norm: str | None

    def __repr__(self) -> str:
        return (
            f"EmbeddingModel({self.name!r}: {type(self.module).__name__}, {self.n_states} hidden "
            f"states of width {self.width}, {self.module.dtype}, on {self.device})"
        )

    @property
    def dtype(self) -> str:
        """The weights' data type, ``"float32"`` for one."""
        return str(self.module.dtype).removeprefix("torch.")

    def hidden_states(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, ...]:
        """The ``n_states`` hidden states ``(batch, length, d)`` of a batch of token ids.

        Args:
            input_ids: ``(batch, length)``, on the model's device.
            attention_mask: ``(batch, length)``, 1 where there is a token; not needed where
                nothing is padded.
        """
        import torch

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
            file; a ``.gguf`` file; or a name on the Hub such as ``"bert-base-uncased"``.
        device: ``"auto"`` takes CUDA, else Apple's MPS, else the CPU.
        dtype: of the weights. Statistics are kept in higher precision whatever it is.
        revision: branch, tag or commit on the Hub.
        trust_remote_code: run code that a Hub repository brings. Off unless you ask for it.

    Returns:
        The model, tried on one sentence.

    Raises:
        ModelError: if it is unknown, not there, damaged, incomplete, unsafe to load, or gives no
            hidden states.
    """
    import torch

    name = str(name)
    source, gguf, label = _locate(name)
    if source is None:
        _check_hub(name, revision)
    local = source is not None
    options = {
        "revision": revision if not local else None,
        "local_files_only": local,
        "trust_remote_code": trust_remote_code,
        "gguf_file": gguf,
    }
    options = {key: value for key, value in options.items() if value}
    where = str(source) if local else name
    place = _device(device)
    try:
        number_type = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    except AttributeError as error:
        raise ModelError(f"Unknown dtype {dtype!r}: try float32, bfloat16 or float16.") from error
    with _quiet():
        module, missing = _load_module(where, label, number_type, options)
        tokenizer = _load_tokenizer(where, label, options)
    names = {id(weight): key for key, weight in module.named_parameters()}
    if module.config.is_encoder_decoder:
        module = module.get_encoder()
    # The pooler reads the last state only; it is not needed, and often it is not trained.
    if getattr(module, "pooler", None) is not None:
        module.pooler = None
    if absent := missing & {names.get(id(weight)) for weight in module.parameters()}:
        raise ModelError(
            f"The files of {label!r} lack weights that the model needs ({len(absent)}, among them "
            f"{min(absent)!r}); transformers would fill them with random numbers."
        )
    if hasattr(module.config, "use_cache"):
        module.config.use_cache = False
    module = module.eval().requires_grad_(False).to(place)
    begin = _first(tokenizer.cls_token_id, tokenizer.bos_token_id)
    end = _first(tokenizer.sep_token_id, tokenizer.eos_token_id)
    n_states, width, final_norm = probe(module, tokenizer, begin, end, place, label)
    return EmbeddingModel(
        name=label,
        revision=_revision(source, gguf, module),
        module=module,
        tokenizer=tokenizer,
        device=place,
        n_states=n_states,
        width=width,
        max_tokens=max_tokens(module),
        begin=begin,
        end=end,
        final_norm=final_norm,
    )


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


def _check_hub(name: str, revision: str | None) -> None:
    """Fail at once, with advice, where a name is neither cached nor on a Hub within reach."""
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    offline = f"Available offline: {', '.join(BUNDLED)}, or a folder with a saved model."
    try:
        if isinstance(try_to_load_from_cache(name, "config.json", revision=revision), str):
            return
        HfApi().model_info(name, revision=revision, timeout=5)
    except HFValidationError as error:
        raise ModelError(
            f"{name!r} is no alias, no folder and no possible name on the Hub. {offline}"
        ) from error
    except HfHubHTTPError as error:
        raise ModelError(
            f"The Hub has no model {name!r} that you can read"
            f"{f' at revision {revision!r}' if revision else ''}. {offline}"
        ) from error
    except Exception as error:  # every HTTP library has its own; all mean: not reachable
        raise ModelError(
            f"{name!r} is not here, and the Hub cannot be reached ({error}). {offline}"
        ) from error


def _load_module(where: str, label: str, dtype: torch.dtype, options: dict) -> tuple[Any, set]:
    from transformers import AutoModel

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
        raise ModelError(
            f"Could not load the model {label!r}: {first_line(error)}{hint}"
        ) from error
    return module, set(report["missing_keys"])


def _load_tokenizer(where: str, label: str, options: dict) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(where, **options)
    except Exception as error:
        raise ModelError(
            f"Could not load the tokenizer of {label!r}: {first_line(error)}"
        ) from error


def _device(device: str | torch.device) -> torch.device:
    import torch

    if device == "auto":
        if torch.cuda.is_available():
            device = "cuda"
        else:
            device = "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        place = torch.device(device)
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError) as error:
        raise ModelError(f"Device {device!r} cannot be used here: {first_line(error)}") from error
    return place


def _revision(source: Path | None, gguf: str | None, module: Any) -> str | None:
    if source is None:
        return getattr(module.config, "_commit_hash", None)
    weights = [source / gguf] if gguf else sorted(source.glob("*.safetensors"))
    return "sha256:" + "+".join(sha256_of(path)[:12] for path in weights)


def _first(*ids: int | None) -> int | None:
    return next((i for i in ids if i is not None), None)


@contextmanager
def _quiet():
    """Keep transformers from drawing bars and repeating what this module reports itself."""
    from transformers.utils import logging as their_logging

    bars, level = their_logging.is_progress_bar_enabled(), their_logging.get_verbosity()
    their_logging.disable_progress_bar()
    their_logging.set_verbosity(logging.ERROR)
    try:
        with redirect_stderr(io.StringIO()):  # GGUF's own bar asks nobody
            yield
    finally:
        their_logging.set_verbosity(level)
        if bars:
            their_logging.enable_progress_bar()
