"""A small causal Transformer whose normalization is one setting, so that all else can be equal.

With ``x`` the residual stream of a token, a block adds attention and then a feed-forward network
to it. The setting ``normalization`` of its configuration says where it normalizes:

==================  ===================================================================
``post-ln``         ``x = LN(x + attention(x))``, and so on; the embeddings are normalized, too
``post-ln-frozen``  the same; the gain γ of every LN stays at 1, where it starts
``post-tanh``       the same with a bounded function of each feature in place of LN
``pre-ln``          ``x = x + attention(LN(x))``, and so on; the last state is normalized, too
``pre-rmsnorm``     the same with RMSNorm, which neither centers nor shifts
``no-norm``         ``x = x + attention(x)``, and so on
==================  ===================================================================

All but the last have ``2L + 1`` normalizations in ``L`` blocks. Everything else follows GPT-2:
learned positions, biases, GELU, tied embeddings and the initialization; there is no dropout.

Importing this module registers the model with transformers' ``AutoModel``, so that a saved twin is
loaded from its folder like any other model.
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

NORMALIZATIONS = ("post-ln", "post-ln-frozen", "post-tanh", "pre-ln", "pre-rmsnorm", "no-norm")
"""The values of ``normalization``."""


class TwinConfig(PreTrainedConfig):
    """The sizes of a twin and its normalization, one of :data:`NORMALIZATIONS`.

    Raises:
        ValueError: if the normalization is unknown or the width is no multiple of the heads.
    """

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
                f"normalization={normalization!r} is unknown; there are "
                f"{', '.join(NORMALIZATIONS)}."
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

    @property
    def post(self) -> bool:
        """Whether it normalizes after every sum."""
        return self.normalization.startswith("post-")

    def norm(self, spread: float = 1.0) -> nn.Module:
        """A new normalization of ``hidden_size`` features, or what the twin has in its place.

        Args:
            spread: standard deviation that a feature of its input has at first; a normalization
                does without, but a bound needs it to be within reach.
        """
        if self.normalization == "no-norm":
            return nn.Identity()
        if self.normalization == "post-tanh":
            return DynamicTanh(self.hidden_size, alpha=1 / spread)
        kind = nn.RMSNorm if self.normalization == "pre-rmsnorm" else nn.LayerNorm
        norm = kind(self.hidden_size, eps=self.norm_eps)
        norm.weight.requires_grad_(self.normalization != "post-ln-frozen")
        return norm


class DynamicTanh(nn.Module):
    """``γ tanh(α x) + β``: it bounds each feature by itself, and the norm of a vector is free.

    Source: Zhu, Chen, He, LeCun and Liu (2025), *Transformers without Normalization*, who put it in
    the place of a normalization; α is a number, and starts at 0.5 there.

    Args:
        width: number of features.
        alpha: α to start with.
    """

    def __init__(self, width: int, alpha: float):
        super().__init__()
        self.alpha = nn.Parameter(torch.full((1,), alpha))
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(..., d)`` to the same shape."""
        return self.weight * torch.tanh(self.alpha * x) + self.bias


class ResidualProjection(nn.Linear):
    """The last linear map of attention or feed-forward: its output is added to the residual
    stream."""


class Attention(nn.Module):
    """Causal multi-head self-attention."""

    def __init__(self, config: TwinConfig):
        super().__init__()
        self.heads = config.num_attention_heads
        self.query_key_value = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.out = ResidualProjection(config.hidden_size, config.hidden_size)

    def forward(self, x: torch.Tensor, allowed: torch.Tensor | None) -> torch.Tensor:
        """``(batch, length, d)`` to the same shape; ``allowed`` as in :func:`allowed_pairs`."""
        # From (batch, length, 3 d) to three of (batch, heads, length, d / heads).
        parts = self.query_key_value(x).unflatten(-1, (3, self.heads, -1))
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(
            query, key, value, attn_mask=allowed, is_causal=allowed is None
        )
        return self.out(mixed.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """A network on each token alone: up to ``intermediate_size``, GELU, down again."""

    def __init__(self, config: TwinConfig):
        super().__init__()
        self.up = nn.Linear(config.hidden_size, config.intermediate_size)
        self.out = ResidualProjection(config.intermediate_size, config.hidden_size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(batch, length, d)`` to the same shape."""
        return self.out(F.gelu(self.up(x)))


class Block(nn.Module):
    """One layer: attention, then the feed-forward network, each with its normalization.

    Post-LN and Pre-LN differ only in the two branches of :meth:`forward`.
    """

    def __init__(self, config: TwinConfig):
        super().__init__()
        self.post = config.post
        self.attention, self.attention_norm = Attention(config), config.norm()
        self.feed_forward, self.feed_forward_norm = FeedForward(config), config.norm()

    def forward(self, x: torch.Tensor, allowed: torch.Tensor | None) -> torch.Tensor:
        """``(batch, length, d)`` to the same shape."""
        if self.post:
            x = self.attention_norm(x + self.attention(x, allowed))
            return self.feed_forward_norm(x + self.feed_forward(x))
        x = x + self.attention(self.attention_norm(x), allowed)
        return x + self.feed_forward(self.feed_forward_norm(x))


class Twin(PreTrainedModel):
    """What the models with and without a head share: configuration and initialization."""

    config_class = TwinConfig
    base_model_prefix = "model"
    _supports_sdpa = True

    def _init_weights(self, module: nn.Module) -> None:
        """GPT-2's initialization: N(0, 0.02²); the 2L residual projections are scaled by 1/√2L."""
        super()._init_weights(module)
        if isinstance(module, ResidualProjection):
            projections = 2 * self.config.num_hidden_layers
            init.normal_(module.weight, std=self.config.initializer_range / projections**0.5)


class TwinModel(Twin):
    """The Transformer without its head."""

    def __init__(self, config: TwinConfig):
        super().__init__(config)
        self.token_embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position_embedding = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_hidden_layers))
        # One norm outside the blocks: Post-LN starts with it, Pre-LN ends with it.
        self.norm = config.norm(spread=2**0.5 * config.initializer_range)  # of two embeddings' sum
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        """The token embeddings, which are also the head's weights."""
        return self.token_embedding

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        output_hidden_states: bool = False,
    ) -> BaseModelOutput:
        """The hidden states ``(batch, length, d)`` of token ids ``(batch, length)``.

        With ``output_hidden_states``, all ``L + 1`` of them are returned: the input of the first
        block and the output of each block, the last one after the final norm, if there is one.

        Raises:
            ValueError: if the sequence is longer than the model has positions.
        """
        length, most = input_ids.shape[1], self.config.max_position_embeddings
        if length > most:
            raise ValueError(f"A sequence of {length} tokens; this model has {most} positions.")
        positions = torch.arange(length, device=input_ids.device)
        allowed = None if attention_mask is None else allowed_pairs(attention_mask)

        x = self.token_embedding(input_ids) + self.position_embedding(positions)
        if self.config.post:
            x = self.norm(x)
        states = [x]
        for block in self.blocks:
            x = block(x, allowed)
            states.append(x)
        if not self.config.post:
            x = states[-1] = self.norm(x)
        return BaseModelOutput(x, tuple(states) if output_hidden_states else None)


def allowed_pairs(attention_mask: torch.Tensor) -> torch.Tensor:
    """``(batch, 1, length, length)``: whether a token (row) may attend to another (column).

    Args:
        attention_mask: ``(batch, length)``, 1 for a token and 0 for padding.

    >>> allowed_pairs(torch.tensor([[1, 1, 0]])).int()[0, 0].tolist()
    [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    """
    length = attention_mask.shape[1]
    pairs = torch.ones(length, length, dtype=torch.bool, device=attention_mask.device)
    # Even padding attends to itself: the softmax of an empty row is NaN.
    itself = torch.eye(length, dtype=torch.bool, device=attention_mask.device)
    return pairs.tril() & attention_mask.bool()[:, None, None, :] | itself


class TwinForCausalLM(Twin):
    """The Transformer with a head that predicts the next token and shares the embeddings."""

    _tied_weights_keys = {"head.weight": "model.token_embedding.weight"}  # noqa: RUF012

    def __init__(self, config: TwinConfig):
        super().__init__(config)
        self.model = TwinModel(config)
        self.head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def get_output_embeddings(self) -> nn.Linear:
        """The head, without a bias."""
        return self.head

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        output_hidden_states: bool = False,
    ) -> CausalLMOutput:
        """Logits ``(batch, length, vocabulary)`` and, with ``labels``, the loss in nats per token.

        Labels are token ids ``(batch, length)``, aligned with the input: position ``i`` predicts
        the label of ``i + 1``. A label of -100 is ignored.
        """
        output = self.model(input_ids, attention_mask, output_hidden_states)
        logits = self.head(output.last_hidden_state)
        loss = None
        if labels is not None:
            loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        return CausalLMOutput(loss=loss, logits=logits, hidden_states=output.hidden_states)


AutoConfig.register(TwinConfig.model_type, TwinConfig, exist_ok=True)
AutoModel.register(TwinConfig, TwinModel, exist_ok=True)
AutoModelForCausalLM.register(TwinConfig, TwinForCausalLM, exist_ok=True)
