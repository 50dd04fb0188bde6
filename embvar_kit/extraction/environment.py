"""What a pass ran with: versions of libraries, the attention kernel, the class of the tokenizer.

The same model on the same text gives other last digits with another attention kernel, and other
tokens with another version of the tokenizer's code. Neither changes what is measured, so parts of
a corpus that were measured with different ones can be merged; the result then names them all.
"""

from __future__ import annotations

from importlib import metadata
from typing import Any

from embvar_kit._version import __version__
from embvar_kit.models.loading import EmbeddingModel
from embvar_kit.models.parts import text_config

_LIBRARIES = ("torch", "transformers", "tokenizers", "numpy")


def versions() -> dict[str, str]:
    """Versions that the bits of a result depend on, without a build's mark such as ``+cpu``."""
    found = {name: metadata.version(name).partition("+")[0] for name in _LIBRARIES}
    return {"embvar-kit": __version__, **found}


def environment(model: EmbeddingModel) -> dict[str, Any]:
    """What a pass with a model runs with, in a form that survives JSON unchanged.

    Returns:
        ``attention``: the kernel by transformers' name, such as ``sdpa`` or ``eager``, or ``None``
        if the model's code has a kernel of its own; ``tokenizer_class``; ``versions``.
    """
    return {
        "attention": getattr(text_config(model.module), "_attn_implementation", None),
        "tokenizer_class": type(model.tokenizer).__name__,
        "versions": versions(),
    }
