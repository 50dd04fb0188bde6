"""What a pass ran with: versions of libraries, the attention kernel, the class of the tokenizer.

The same model on the same text gives other last digits with another attention kernel, and other
tokens with another version of the tokenizer's code. Neither changes what is measured, so parts of
a corpus that were measured with different ones can be merged; the result then names them all.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tokenizers
import torch
import transformers

from embvar_kit._version import __version__
from embvar_kit.extraction.onednn import packs
from embvar_kit.models.loading import EmbeddingModel
from embvar_kit.models.parts import text_config


def versions() -> dict[str, str]:
    """Versions that the bits of a result depend on, without a build's mark such as ``+cpu``."""
    loaded = (torch, transformers, tokenizers, np)
    found = {library.__name__: library.__version__.partition("+")[0] for library in loaded}
    return {"embvar-kit": __version__, **found}


def environment(model: EmbeddingModel) -> dict[str, Any]:
    """What a pass with a model would run with now, in a form that survives JSON unchanged.

    Returns:
        ``attention``: the kernel by transformers' name, such as ``sdpa`` or ``eager``, which is
        also what models say whose code has an attention of its own, or none; a model without the
        setting has ``None``. ``packed_products``: whether linear layers use oneDNN's packed
        products (:func:`embvar_kit.extraction.onednn.packed`). ``tokenizer_class``; ``versions``.
    """
    return {
        "attention": getattr(text_config(model.module), "_attn_implementation", None),
        "packed_products": packs(model.module),
        "tokenizer_class": type(model.tokenizer).__name__,
        "versions": versions(),
    }
