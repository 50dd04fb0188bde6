"""Loading a tokenizer and a Transformer so that every hidden state can be read.

Nothing here depends on the name of an architecture. What a model is like (number of hidden states,
width, longest input, where it normalizes) is read from its configuration or observed while it runs
one short sentence (see :mod:`embvar_kit.models.probe`).

Begin and end tokens follow the paper: every sentence gets both, if the tokenizer has them. The
begin token is the tokenizer's ``cls`` token or else its ``bos`` token; the end token is its ``sep``
token or else its ``eos`` token. The tokenizer's own template plays no part in it:

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

import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from embvar_kit import hub
from embvar_kit.errors import ModelError, first_line
from embvar_kit.files import sha256_of
from embvar_kit.models.bundled import BUNDLED, verify
from embvar_kit.models.normalization import StateNorm, placement
from embvar_kit.models.probe import max_tokens, probe, states_of


@dataclass(frozen=True)
class EmbeddingModel:
    """A Transformer, its tokenizer, and what the kit found out about the two.

    Attributes:
        name: alias, folder name or Hub name.
        revision: Hub commit, or the start of the weights' SHA-256 for local files.
        module: the transformers model without head and pooler, in evaluation mode.
        tokenizer: the model's tokenizer.
        device: the device that holds the module.
        n_states: number of hidden states: one for the embedding layer and one per layer.
        width: ``d``, the length of an embedding.
        max_tokens: longest sequence the model accepts, begin and end tokens included, or ``None``
            if it sets no limit.
        begin, end: vocabulary ids put around each sentence, or ``None``.
        norms: the normalizations around each hidden state, one entry per state.
        ignores_padding: whether a sentence has the same states in a padded batch as alone; if not,
            only sentences of equal length are run together.
        source: arguments of :func:`load_model` with which another process loads the same model;
            ``None`` for a model that was made or changed in memory.
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
    ignores_padding: bool = True
    source: Mapping[str, Any] | None = None

    def __repr__(self) -> str:
        return (
            f"EmbeddingModel({self.name!r}: {type(self.module).__name__}, {self.n_states} hidden "
            f"states of width {self.width}, {self.module.dtype}, on {self.device})"
        )

    @property
    def dtype(self) -> str:
        """Data type of the weights, for example ``"float32"``."""
        return str(self.module.dtype).removeprefix("torch.")

    @property
    def final_norm(self) -> str | None:
        """Class of the normalization whose output is the last hidden state, if there is one."""
        last = self.norms[-1].produced_by
        return last.name if last else None

    @property
    def normalization(self) -> str:
        """Where the blocks normalize, judged by the hidden states between them.

        ``"post"``: each is the output of a normalization. ``"pre"``: each is the input of one (the
        residual stream). ``"none"``: neither.
        """
        return placement(self.norms)

    def hidden_states(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, ...]:
        """The ``n_states`` hidden states ``(batch, length, d)`` of a batch of token ids.

        Args:
            input_ids: ``(batch, length)``, on the model's device.
            attention_mask: ``(batch, length)``, 1 for a token and 0 for padding; may be left out
                if nothing is padded.
        """
        return states_of(self.module, input_ids, attention_mask)


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
            in the Hub's cache is loaded from there without asking the network.
        device: ``"auto"`` picks CUDA, else Apple's MPS, else the CPU.
        dtype: data type of the weights. Statistics are kept in higher precision regardless.
        revision: branch, tag or commit on the Hub.
        trust_remote_code: run code that a folder or Hub repository brings (``auto_map`` in its
            ``config.json``). Otherwise transformers' own class is used if it has one, and the
            model is refused if it has none.

    Returns:
        The model, after a trial run on one sentence.

    Raises:
        ModelError: if the model is unknown, missing, damaged, incomplete or unsafe to load, gives
            no hidden states, or cannot use the device or data type.
    """
    name = str(name)
    torch_device, torch_dtype = _device(device), _dtype(dtype)
    folder, gguf, label = _locate(name)
    # Pass False explicitly; otherwise transformers prompts on the terminal.
    options: dict[str, Any] = {"trust_remote_code": bool(trust_remote_code)}
    if gguf:
        options["gguf_file"] = gguf
    with quiet():
        if folder is None:
            loaded = _load_from_hub(name, revision, torch_dtype, options)
        else:
            loaded = _load(str(folder), label, torch_dtype, {**options, "local_files_only": True})
    module, missing, tokenizer = loaded
    names = {id(weight): key for key, weight in module.named_parameters()}
    module = bare(module)
    if absent := missing & {names.get(id(weight)) for weight in module.parameters()}:
        raise ModelError(
            f"The files of {label!r} lack weights that the model needs ({len(absent)}, among them "
            f"{min(absent)!r}); transformers would fill them with random numbers."
        )
    module = module.to(torch_device)
    begin = _first(tokenizer.cls_token_id, tokenizer.bos_token_id)
    end = _first(tokenizer.sep_token_id, tokenizer.eos_token_id)
    found = probe(module, tokenizer, begin, end, torch_device, label)
    return EmbeddingModel(
        name=label,
        revision=_weights_hash(name, folder, gguf) if folder else _hub_commit(name, revision),
        module=module,
        tokenizer=tokenizer,
        device=torch_device,
        n_states=found.n_states,
        width=found.width,
        max_tokens=max_tokens(module),
        begin=begin,
        end=end,
        norms=found.norms,
        ignores_padding=found.ignores_padding,
        source={
            # A worker may have another working folder.
            # A worker may have another working folder.
            "name": name
            if not folder or name in BUNDLED
            else str(Path(name).expanduser().resolve()),
            "dtype": str(torch_dtype).removeprefix("torch."),
            "revision": revision,
            "trust_remote_code": bool(trust_remote_code),
        },
    )


def untrained(model: EmbeddingModel, seed: int = 0) -> EmbeddingModel:
    """A model's architecture and tokenizer with fresh random weights; its norms have γ = 1, β = 0.

    Args:
        model: the model to imitate; it is not changed.
        seed: seed of the weights, which are drawn as transformers initializes the architecture.

    Raises:
        ModelError: if the fresh model cannot run.
    """
    from transformers import AutoModel

    with torch.random.fork_rng(), quiet():
        torch.manual_seed(seed)
        fresh = AutoModel.from_config(model.module.config, dtype=model.module.dtype)
    module = bare(fresh).to(model.device)
    name = f"{model.name}, untrained"
    found = probe(module, model.tokenizer, model.begin, model.end, model.device, name)
    return replace(
        model,
        name=name,
        revision=f"seed:{seed}",
        source=None,
        module=module,
        norms=found.norms,
        ignores_padding=found.ignores_padding,
    )


def bare(module: Any) -> Any:
    """The part of a transformers model that gives the hidden states, ready for evaluation."""
    if all(hasattr(module, part) for part in ("encoder", "decoder")):
        module = module.get_encoder()
    # The pooler reads only the last state; it is not needed, and often it is not trained.
    if getattr(module, "pooler", None) is not None:
        module.pooler = None
    if hasattr(module.config, "use_cache"):
        module.config.use_cache = False
    return module.eval().requires_grad_(False)


def _device(device: str | torch.device) -> torch.device:
    if device == "auto":
        if torch.cuda.is_available():
            device = "cuda"
        else:
            device = "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        found = torch.device(device)
        torch.zeros(1, device=found).item()
    except (RuntimeError, AssertionError, TypeError) as error:
        raise ModelError(f"Device {device!r} cannot be used here: {first_line(error)}") from error
    return found


def _dtype(dtype: str | torch.dtype) -> torch.dtype:
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise ModelError(f"Unknown dtype {dtype!r}: try float32, bfloat16 or float16.")
    return found


def _first(*ids: int | None) -> int | None:
    return next((i for i in ids if i is not None), None)


# Aliases, folders and files


def _locate(name: str) -> tuple[Path | None, str | None, str]:
    """``(folder, GGUF file in it, label)``; without a folder, the name is one on the Hub."""
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
    _refuse_adapter(folder, label)
    if (folder / "config.json").is_file():
        return folder, None, label
    ggufs = sorted(folder.glob("*.gguf"))
    if len(ggufs) == 1:
        return folder, ggufs[0].name, label
    raise ModelError(
        f"Folder {label!r} holds no config.json and {len(ggufs)} .gguf files: a model needs "
        "config.json, or exactly one .gguf file."
    )


def _refuse_adapter(folder: Path, label: str) -> None:
    """Raise if a folder holds an adapter: transformers applies it only where peft is installed."""
    if (folder / "adapter_config.json").is_file():
        raise ModelError(
            f"{label!r} holds an adapter (adapter_config.json), which transformers applies or not "
            "depending on what is installed. Merge it into its model with peft "
            "(merge_and_unload, then save_pretrained to a folder of its own) and load that."
        )


def _weights_hash(name: str, folder: Path, gguf: str | None) -> str:
    """The revision of local files: the start of the weights' SHA-256."""
    if name in BUNDLED:  # verify() has already hashed the file and compared it
        return f"sha256:{BUNDLED[name].weights_sha256[:12]}"
    weights = [folder / gguf] if gguf else sorted(folder.glob("*.safetensors"))
    return "sha256:" + "+".join(sha256_of(path)[:12] for path in weights)


# The Hub


def check_available(*names: str) -> str:
    """Which of a model's names on the Hub to load it by, found out without loading anything.

    Args:
        names: the model's present name on the Hub, then older names that the Hub's cache may hold
            it under.

    Raises:
        ModelError: if the cache holds it under none of the names and the Hub does not have it or
            cannot be reached.
    """
    for name in names:
        if hub.cached_snapshot(name, None):
            return name
    _check_hub(names[0], None)
    return names[0]


def _check_hub(name: str, revision: str | None) -> None:
    """Raise at once, with advice, unless the Hub can be reached and has the model."""
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


def _load_from_hub(name: str, revision: str | None, dtype: torch.dtype, options: dict) -> tuple:
    """Load a model from the Hub's cache if it is there, else from the network."""
    incomplete = None
    if folder := hub.cached_snapshot(name, revision):
        _refuse_adapter(folder, name)
        # Pass the folder, not the name: given a name, transformers asks the Hub about every file
        # and, without a network, retries each for half a minute.
        try:
            return _load(str(folder), name, dtype, {**options, "local_files_only": True})
        except ModelError as error:
            incomplete = error
    try:
        _check_hub(name, revision)
    except ModelError as unreachable:
        raise (incomplete or unreachable) from unreachable.__cause__
    return _load(name, name, dtype, {**options, "revision": revision} if revision else options)


def _hub_commit(name: str, revision: str | None) -> str | None:
    folder = hub.cached_snapshot(name, revision)  # holds a fresh download, too
    return folder.name if folder else None


# Weights and tokenizer


def _load(where: str, label: str, dtype: torch.dtype, options: dict) -> tuple[Any, set, Any]:
    """``(module, names of the weights that no file holds, tokenizer)``."""
    return *_load_module(where, label, dtype, options), _load_tokenizer(where, label, options)


def _load_module(where: str, label: str, dtype: torch.dtype, options: dict) -> tuple[Any, set]:
    from transformers import AutoModel

    import embvar_kit.models.twin_model  # noqa: F401  teaches AutoModel the kit's own architecture

    safe = {} if "gguf_file" in options else {"use_safetensors": True}
    try:
        module, report = AutoModel.from_pretrained(
            where, dtype=dtype, output_loading_info=True, **safe, **options
        )
    except Exception as error:  # OSError, ValueError, KeyError, RuntimeError and more
        hint = ""
        if "safetensors" in str(error):
            hint = (
                " The kit loads only safetensors and GGUF, since other weight files can carry "
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
    # If the vocabulary's file is missing, transformers makes a tokenizer that knows no word.
    special = {*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()}
    if len(tokenizer.get_vocab().keys() - special) < 2:
        raise ModelError(
            f"The tokenizer of {label!r} has no vocabulary: its files (tokenizer.json, or else "
            "vocab.txt and the like) are missing. Save the tokenizer to the model's folder."
        )
    return tokenizer


# Silence


_switches = threading.Lock()
_inside = 0
_restore = ExitStack()


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers and huggingface_hub from drawing bars and logging warnings.

    Only their own switches are used. Those are process-wide, so the first thread to enter flips
    them and the last one to leave restores them. Standard streams and IPython's display publisher
    are never replaced: doing so from one thread loses the messages of all the others.
    """
    global _inside, _restore
    with _switches:
        if not _inside:
            _restore = _switch_off()
        _inside += 1
    try:
        yield
    finally:
        with _switches:
            _inside -= 1
            if not _inside:
                _restore.close()


def _switch_off() -> ExitStack:
    """Switch off bars and warnings; closing the result restores what the user had set."""
    from huggingface_hub import constants
    from huggingface_hub import utils as hub_utils
    from transformers import modeling_gguf_pytorch_utils
    from transformers.utils import logging as transformers_logging

    restore = ExitStack()
    for library in (transformers_logging, hub_utils.logging):
        restore.callback(library.set_verbosity, library.get_verbosity())
        library.set_verbosity(logging.ERROR)
    # GGUF conversion imports tqdm itself and obeys no switch. Give it transformers' bar for good.
    modeling_gguf_pytorch_utils.tqdm = transformers_logging.tqdm
    # The environment variable has priority, and switching against it makes the Hub warn.
    if constants.HF_HUB_DISABLE_PROGRESS_BARS is None:
        # transformers' switch flips the Hub's, too, so the Hub's is restored after it.
        hub_hidden = hub_utils.are_progress_bars_disabled()
        switch = hub_utils.disable_progress_bars if hub_hidden else hub_utils.enable_progress_bars
        restore.callback(switch)
        if transformers_logging.is_progress_bar_enabled():
            restore.callback(transformers_logging.enable_progress_bar)
        transformers_logging.disable_progress_bar()
    return restore
