"""A model and its tokenizer as transformers loads them, and what to say where it cannot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from embvar_kit.errors import ModelError, first_line
from embvar_kit.models.config_files import attention_asked_for, refuse_quantised
from embvar_kit.models.weight_files import check_tokenizer_files


@dataclass(frozen=True)
class Loaded:
    """What the files hold.

    Attributes:
        module, tokenizer: as transformers loads them.
        missing: names of weights that no file holds.
        unexpected: names in the files that the model has no weight for.
        mismatched: shapes in the file and by the configuration, of weights where the two differ.
        notes: what was done otherwise than the files say.
    """

    module: Any
    tokenizer: Any
    missing: set[str]
    unexpected: set[str]
    mismatched: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]
    notes: tuple[str, ...]


def load(
    where: str,
    label: str,
    dtype: torch.dtype,
    options: dict,
    device_map: str | Mapping[str, Any] | None,
) -> Loaded:
    """Load a model without a head, and its tokenizer.

    Args:
        where: a folder, or a name on the Hub.
        label: the name that messages use.
        dtype: data type of the weights.
        options: further options of both, such as ``trust_remote_code`` and ``gguf_file``.
        device_map: as in :func:`embvar_kit.load_model`.

    Raises:
        ModelError: if one of the two cannot be loaded; the message says what to do.
    """
    module, report, notes = _load_module(where, label, dtype, options, device_map)
    mismatched = {
        name: (tuple(held), tuple(wanted)) for name, held, wanted in report["mismatched_keys"]
    }
    tokenizer = read_tokenizer(where, label, options)
    missing, unexpected = set(report["missing_keys"]), set(report["unexpected_keys"])
    return Loaded(module, tokenizer, missing, unexpected, mismatched, notes)


def _load_module(
    where: str,
    label: str,
    dtype: torch.dtype,
    options: dict,
    device_map: str | Mapping[str, Any] | None,
) -> tuple[Any, dict, tuple[str, ...]]:
    from transformers import AutoModel, PreTrainedConfig

    import embvar_kit.models.twin_model  # noqa: F401  teaches AutoModel the kit's own architecture

    safe = {} if "gguf_file" in options else {"use_safetensors": True}
    # With this, shapes that differ are reported, and refused by name.
    how = {"dtype": dtype, "output_loading_info": True, "ignore_mismatched_sizes": True}
    how |= {**safe, **options}
    notes: tuple[str, ...] = ()
    try:
        told = (
            {} if "gguf_file" in options else PreTrainedConfig.get_config_dict(where, **options)[0]
        )
        refuse_quantised(told, label)
        # What a repository's own code is like is known once it has run, below.
        if isinstance(device_map, Mapping) and not options["trust_remote_code"]:
            outline = _without_weights(where, options)
            if outline is not None:
                _check_device_map(device_map, outline, label)
        if device_map is not None:
            how["device_map"] = device_map if isinstance(device_map, str) else dict(device_map)
        attention = attention_asked_for(told)
        if attention is None:
            module, report = AutoModel.from_pretrained(where, **how)
        else:
            module, report = _with_own_attention(where, options, how)
            taken = module.config._attn_implementation
            notes = (f"attention: {taken}, not {attention} as its configuration asks for",)
        if isinstance(device_map, Mapping):
            _check_device_map(device_map, module, label)
    except ModelError:
        raise
    except Exception as error:  # OSError, ValueError, KeyError, RuntimeError and more
        if device_map is not None and not isinstance(error, OSError):
            raise ModelError(
                f"Could not load the model {label!r} with device_map={device_map!r}: "
                f"{type(error).__name__}: {first_line(error)} Give 'auto', or the device of each "
                "of its modules, as transformers' from_pretrained takes it."
            ) from error
        raise _not_loaded(error, where, label, options) from error
    return module, report, notes


def _without_weights(where: str, options: dict) -> Any:
    """The model that the files describe, on the device ``meta``: modules and names, no numbers.

    ``None`` if it cannot be made in this way: what is loaded is checked in any case.
    """
    from transformers import AutoConfig, AutoModel

    eager = {"attn_implementation": "eager"}  # the one attention that almost every model has
    try:
        config = AutoConfig.from_pretrained(where, **options, **eager)
        with torch.device("meta"):
            return AutoModel.from_config(config, **eager)
    except Exception:
        return None


def _check_device_map(device_map: Mapping[str, Any], module: Any, label: str) -> None:
    """Refuse a map that does not fit the model.

    transformers passes over names that the model does not have, and puts what no name covers on
    the CPU, or only warns.

    Args:
        device_map: the device of each module.
        module: the model, with or without weights.
        label: the model's name for messages.

    Raises:
        ModelError: naming the module.
    """
    parts = ", ".join(name for name, _ in module.named_children())
    remedy = f"Its parts are {parts}; '' is the whole model, and 'auto' spreads it by itself."
    weights = list(module.state_dict())
    known = {"", *weights, *(name for name, _ in module.named_modules())}
    if unknown := [name for name in device_map if name not in known]:
        raise ModelError(
            f"device_map names {', '.join(map(repr, unknown))}, which {label!r} "
            f"({type(module).__name__}) does not have. {remedy}"
        )
    bare = [
        weight
        for weight in weights
        if not any(not name or f"{weight}.".startswith(f"{name}.") for name in device_map)
    ]
    if bare:
        raise ModelError(
            f"device_map={dict(device_map)!r} gives no device for {len(bare)} of the "
            f"{len(weights)} weights of {label!r}, among them {bare[0]!r}. {remedy}"
        )


def _not_loaded(error: Exception, where: str, label: str, options: dict) -> ModelError:
    """What to say, and to do, about an error of transformers."""
    import transformers

    said = str(error)
    if "Unrecognized configuration class" in said:
        return ModelError(
            f"transformers has no bare model for the configuration of {label!r}: it describes "
            "a part of a larger model, or a model with a task of its own. Load the whole "
            "model that it is a part of; where that runs on text alone, or its part for text "
            "does, the kit measures it."
        )
    hint = ""
    if "trust_remote_code" in said:
        hint = (
            " The kit has run none of it. If you have read the code and trust it: "
            "load_model(..., trust_remote_code=True)."
        )
    elif "safetensors" in said and "No such file" not in said:
        hint = (
            " The kit loads only safetensors and GGUF, since other weight files can carry "
            "code; load it once with transformers and save_pretrained() it."
        )
    elif "gguf_file" in options:
        hint = f" Is {options['gguf_file']} whole? Copy or download it again."
    elif Path(where).is_dir() and not isinstance(error, OSError):
        hint = (
            " transformers cannot build what config.json says: correct it, copy or download it "
            f"again, or load it with another release than {transformers.__version__}."
        )
    told = first_line(error) if " " in said else f"{type(error).__name__}: {first_line(error)}"
    told = f"{told.rstrip('.')}.{hint}" if hint else told
    return ModelError(f"Could not load the model {label!r}: {told}")


def _with_own_attention(where: str, options: dict, how: dict) -> tuple[Any, dict]:
    from transformers import AutoConfig, AutoModel

    # Replaced before the configuration is made, whose class may refuse what is asked for.
    config = AutoConfig.from_pretrained(where, **options, attn_implementation="sdpa")
    config._attn_implementation = "sdpa"  # sets it in the configuration's parts, too
    try:
        return AutoModel.from_pretrained(where, config=config, **how)
    except ValueError:  # the architecture has no such kernels
        config._attn_implementation = "eager"
        return AutoModel.from_pretrained(where, config=config, **how)


def read_tokenizer(where: str, label: str, options: dict) -> Any:
    """The tokenizer of a folder or of a name on the Hub; the arguments are those of :func:`load`.

    Raises:
        ModelError: if it cannot be loaded or has no vocabulary.
    """
    from transformers import AutoTokenizer

    if Path(where).is_dir() and "gguf_file" not in options:
        check_tokenizer_files(Path(where), label)
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
