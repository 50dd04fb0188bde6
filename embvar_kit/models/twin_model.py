"""A small causal Transformer whose normalization is one setting, so that all else can be equal.

With ``x`` the residual stream of a token, a block adds attention and then a feed-forward network
to it. Where it normalizes is ``normalization`` of its configuration:

===============  ===================================================================
``post-ln``      ``x = LN(x + attention(x))``, and so on; the embeddings are normalized, too
``pre-ln``       ``x = x + attention(LN(x))``, and so on; the last state is normalized, too
``pre-rmsnorm``  the same with RMSNorm, which neither centers nor shifts
``no-norm``      ``x = x + attention(x)``, and so on
===============  ===================================================================

All but the last have ``2L + 1`` normalizations in ``L`` blocks. Everything else is GPT-2's: learned
positions, biases, GELU, tied embeddings, its initialization; there is no dropout.

Importing this module makes transformers' ``AutoModel`` know the model: what it saved is loaded from
its folder as any other model is.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutput, CausalLMOutput

NORMALIZATIONS = ("post-ln", "pre-ln", "pre-rmsnorm", "no-norm")
"""What ``normalization`` can be."""


class TwinConfig(PreTrainedConfig):
    """Sizes of a twin, and its normalization: one of :data:`NORMALIZATIONS`."""

    model_type = "embvar-twin"

    def __init__(
        self,
        normalization: str = "pre-ln",
        vocab_size: int = 4096,
        hidden_size: int = 192,
        num_hidden_layers: int = 6,
        num_attention_heads: int = 6,
        intermediate_size: int = 768,
        max_position_embeddings: int = 128,
        norm_eps: float = 1e-5,
        initializer_range: float = 0.02,
        bos_token_id: int = 0,
        eos_token_id: int = 0,
        pad_token_id: int | None = None,
        tie_word_embeddings: bool = True,
        **others: Any,
    ):
        if normalization not in NORMALIZATIONS:
            raise ValueError(
                f"normalization={normalization!r} is unknown; there is {', '.join(NORMALIZATIONS)}."
            )
        if hidden_size % num_attention_heads:
            raise ValueError(
                f"hidden_size={hidden_size} does not divide into {num_attention_heads} heads."
            )
        self.normalization = normalization
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.intermediate_size = intermediate_size
        self.max_position_embeddings = max_position_embeddings
        self.norm_eps = norm_eps
        self.initializer_range = initializer_range
        super().__init__(
            bos_token_id=bos_token_id,
            eos_token_id=eos_token_id,
            pad_token_id=pad_token_id,
            tie_word_embeddings=tie_word_embeddings,
            **others,
        )

    def norm(self) -> nn.Module:
        """A new normalization of a vector of ``hidden_size``, or what leaves it as it is."""
        if self.normalization == "no-norm":
            return nn.Identity()
        kind = nn.RMSNorm if self.normalization == "pre-rmsnorm" else nn.LayerNorm
        return kind(self.hidden_size, eps=self.norm_eps)


class Joining(nn.Linear):
    """The last map of a branch: what it gives is added to the stream."""


class Attention(nn.Module):
    """Every token takes a mean of what it and the tokens before it offer, once per head."""

    def __init__(self, config: TwinConfig):
        super().__init__()
        self.heads = config.num_attention_heads
        self.query_key_value = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.out = Joining(config.hidden_size, config.hidden_size)

    def forward(self, x: torch.Tensor, allowed: torch.Tensor | None) -> torch.Tensor:
        """``(batch, length, d)`` to the same; ``allowed`` as :func:`allowed_pairs` gives it."""
        # From (batch, length, 3 d) to three of (batch, heads, length, d / heads).
        parts = self.query_key_value(x).unflatten(-1, (3, self.heads, -1))
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(
            query, key, value, attn_mask=allowed, is_causal=allowed is None
        )
        return self.out(mixed.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """Each token for itself: up to ``intermediate_size``, GELU, down again."""

    def __init__(self, config: TwinConfig):
        super().__init__()
        self.up = nn.Linear(config.hidden_size, config.intermediate_size)
        self.out = Joining(config.intermediate_size, config.hidden_size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(batch, length, d)`` to the same."""
        return self.out(F.gelu(self.up(x)))


class Block(nn.Module):
    """One layer. Its two ways through are all that Post-LN and Pre-LN differ in."""

    def __init__(self, config: TwinConfig):
        super().__init__()
        self.post = config.normalization == "post-ln"
        self.attention, self.attention_norm = Attention(config), config.norm()
        self.feed_forward, self.feed_forward_norm = FeedForward(config), config.norm()

    def forward(self, x: torch.Tensor, allowed: torch.Tensor | None) -> torch.Tensor:
        """``(batch, length, d)`` to the same."""
        if self.post:
            x = self.attention_norm(x + self.attention(x, allowed))
            return self.feed_forward_norm(x + self.feed_forward(x))
        x = x + self.attention(self.attention_norm(x), allowed)
        return x + self.feed_forward(self.feed_forward_norm(x))


class Twin(PreTrainedModel):
    """What the model has in common with and without its head: configuration and initialization."""

    config_class = TwinConfig
    base_model_prefix = "model"
    _supports_sdpa = True

    def _init_weights(self, module: nn.Module) -> None:
        """GPT-2's: N(0, 0.02²), and less where a branch joins the stream, as 2L of them do."""
        super()._init_weights(module)
        if isinstance(module, Joining):
            joining = 2 * self.config.num_hidden_layers
            init.normal_(module.weight, std=self.config.initializer_range / joining**0.5)


class TwinModel(Twin):
    """The Transformer without its head."""

    def __init__(self, config: TwinConfig):
        super().__init__(config)
        self.token_embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position_embedding = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_hidden_layers))
        # One norm beside those of the blocks: Post-LN begins with it, Pre-LN ends with it.
        self.norm = config.norm()
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        """The table of the tokens' embeddings, which the head uses, too."""
        return self.token_embedding

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        output_hidden_states: bool = False,
    ) -> BaseModelOutput:
        """Hidden states ``(batch, length, d)`` of token ids ``(batch, length)``.

        With ``output_hidden_states`` all ``L + 1`` of them: what enters the first block, what
        leaves each, and of the last what the final norm makes of it, where there is one.
        """
        length, most = input_ids.shape[1], self.config.max_position_embeddings
        if length > most:
            raise ValueError(f"A sequence of {length} tokens; this model has {most} positions.")
        positions = torch.arange(length, device=input_ids.device)
        allowed = None if attention_mask is None else allowed_pairs(attention_mask)
        post = self.config.normalization == "post-ln"

        x = self.token_embedding(input_ids) + self.position_embedding(positions)
        if post:
            x = self.norm(x)
        states = [x]
        for block in self.blocks:
            x = block(x, allowed)
            states.append(x)
        if not post:
            x = states[-1] = self.norm(x)
        return BaseModelOutput(x, tuple(states) if output_hidden_states else None)


def allowed_pairs(attention_mask: torch.Tensor) -> torch.Tensor:
    """``(batch, 1, length, length)``: whether a token (row) may look at another (column).

    >>> allowed_pairs(torch.tensor([[1, 1, 0]])).int()[0, 0].tolist()
    [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    """
    length = attention_mask.shape[1]
    pairs = torch.ones(length, length, dtype=torch.bool, device=attention_mask.device)
    # A token sees itself even if it is padding: over an empty row, a softmax is NaN.
    itself = torch.eye(length, dtype=torch.bool, device=attention_mask.device)
    return pairs.tril() & attention_mask.bool()[:, None, None, :] | itself


class TwinForCausalLM(Twin):
    """The Transformer with a head that tells the next token, by the table of embeddings."""

    _tied_weights_keys = {"head.weight": "model.token_embedding.weight"}  # noqa: RUF012

    def __init__(self, config: TwinConfig):
        super().__init__(config)
        self.model = TwinModel(config)
        self.head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def get_output_embeddings(self) -> nn.Linear:
        """The head."""
        return self.head

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        output_hidden_states: bool = False,
    ) -> CausalLMOutput:
        """Logits ``(batch, length, vocabulary)``, and with ``labels`` the loss in nats a token.

        Labels are token ids ``(batch, length)`` as the input is; position ``i`` is to tell that of
        ``i + 1``, and a label of -100 is not asked for.
        """
        found = self.model(input_ids, attention_mask, output_hidden_states)
        logits = self.head(found.last_hidden_state)
        loss = None
        if labels is not None:
            loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        return CausalLMOutput(loss=loss, logits=logits, hidden_states=found.hidden_states)


AutoConfig.register(TwinConfig.model_type, TwinConfig, exist_ok=True)
AutoModel.register(TwinConfig, TwinModel, exist_ok=True)
AutoModelForCausalLM.register(TwinConfig, TwinForCausalLM, exist_ok=True)
