"""open_clip's causal text tower without padding outside attention, and with every shared prefix computed once.

It has the weights and sums of `TextTransformer.forward`, and leaves out computations that cannot change the result:
tokens after the pooled one; in the last block, every query except the pooled tokens'; and repeated prefixes. In a causal
tower the state at a token depends on the text up to it alone, so texts that begin alike ("The first image shows a")
share those states. Linear layers therefore see one row for each distinct prefix. Gradients equal the padded tower's.
"""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from pcclip.encoders.tokens import Tokens, groups, places

_OVERHEAD = {"cpu": 48, "cuda": 4096}  # cost of one more group in attention, in tokens: launching kernels costs more


def packs(tower: Any) -> bool:
    """Whether this module can compute the tower: plain blocks, causal, pooled at one token."""
    from open_clip.transformer import ResidualAttentionBlock, TextTransformer

    return (
        type(tower) is TextTransformer
        and causal(tower)
        and not tower.transformer.grad_checkpointing
        and all(
            type(block) is ResidualAttentionBlock and _is_plain(block.attn) for block in tower.transformer.resblocks
        )
    )


def causal(tower: Any) -> bool:
    """Whether the text vector is the state of one token that never attends to later tokens."""
    return (
        getattr(tower, "attn_mask", None) is not None
        and tower.cls_emb is None
        and (tower.pool_type in ("argmax", "eos") and not tower.use_pad_mask)
    )


def features(tower: Any, tokens: Tokens) -> Float[Tensor, "n d"]:
    """Pooled and projected vectors before normalisation, in the order of the texts."""
    layout = _Layout(_to_pooled(tower, tokens), tower.positional_embedding.device)
    x = tower.token_embedding(layout.ids) + tower.positional_embedding[layout.positions]
    *blocks, last = tower.transformer.resblocks
    for block in blocks:
        x = x + block.ls_1(_attention(block.attn, block.ln_1(x), layout))
        x = x + block.ls_2(block.mlp(block.ln_2(x)))
    x = x[layout.pooled] + last.ls_1(_last_attention(last.attn, last.ln_1(x), layout))
    x = tower.ln_final(x + last.ls_2(last.mlp(last.ln_2(x))))
    if isinstance(tower.text_projection, nn.Linear):
        x = tower.text_projection(x)
    elif tower.text_projection is not None:
        x = x @ tower.text_projection
    return x[layout.back]


def prefixes(tokens: Tokens) -> tuple[Int[np.ndarray, "texts longest"], Int[np.ndarray, " distinct"]]:
    """Number every distinct prefix of the texts.

    Returns:
        For each text and token position the number of the prefix that ends there, -1 after the text's end; and for
        each prefix the place in the flattened table where it occurs first.
    """
    ids = tokens.padded(-1).numpy()
    longest = ids.shape[1]
    order = (
        (ids + 1).astype(">u4").view(f"S{4 * longest}").ravel().argsort(kind="stable")
    )  # sorted: equal prefixes are neighbours
    ids = ids[order]
    repeated = np.zeros(ids.shape, dtype=bool)
    repeated[1:] = np.logical_and.accumulate(ids[1:] == ids[:-1], axis=1)
    new = ~repeated & (ids >= 0)
    number = np.full(ids.shape, -1)
    number[new] = np.arange(new.sum())
    number = np.where(ids >= 0, np.maximum.accumulate(number, axis=0), -1)
    row, column = np.nonzero(new)
    return number[np.argsort(order)], order[row] * longest + column


class _Layout:
    """How the rows of linear layers, one for each distinct prefix, map to the padded groups of attention, and back.

    Attributes:
        ids, positions: last token and length - 1 of the prefix of each row.
        rows: the row of every place in the groups; a place after a text's end has an arbitrary row.
        shapes: of each group, (texts, longest).
        places: one place in the groups for every row.
        real: for each group a mask (texts, 1, 1, longest), False after a text's end; None if no place is padding.
        pooled: for every text, in the order of the groups, the row of its last token.
        back: for every text, in the caller's order, its place in the order of the groups.
    """

    def __init__(self, tokens: Tokens, device: torch.device):
        def on_device(values: np.ndarray) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(values)).to(device)

        number, first = prefixes(tokens)
        text, column = np.divmod(first, number.shape[1])
        text_groups = groups(tokens.lengths, _OVERHEAD.get(device.type, _OVERHEAD["cuda"]))
        parts = [number[group, : tokens.lengths[group[-1]]] for group in text_groups]  # the last text is the longest
        order, rows = np.concatenate(text_groups), np.concatenate([part.ravel() for part in parts])
        place = np.empty(len(first), dtype=np.int64)
        place[rows[rows >= 0]] = np.flatnonzero(rows >= 0)
        self.ids, self.positions = (
            on_device(tokens.ids[tokens.starts[text] + column].astype(np.int64)),
            on_device(column),
        )
        self.rows, self.places = on_device(np.maximum(rows, 0)), on_device(place)
        self.shapes = [part.shape for part in parts]
        self.real = [None if (part >= 0).all() else on_device((part >= 0)[:, None, None]) for part in parts]
        self.pooled = on_device(number[order, tokens.lengths[order] - 1])
        self.back = on_device(np.argsort(order))

    def to_groups(self, x: Float[Tensor, "rows kw"], heads: int, k: int) -> list[Float[Tensor, "k _ heads _ h"]]:
        """The inputs of attention, group by group: x holds k = 3 for queries, keys and values, or 2 for keys and values."""
        if x.device.type == "cpu":
            x = x.float()  # torch 2.13: the gradient of attention takes twice as long in bf16
        parts = _Taken.apply(x, self.rows).split([texts * longest for texts, longest in self.shapes])
        return [
            part.view(*shape, k, heads, -1).permute(2, 0, 3, 1, 4)
            for part, shape in zip(parts, self.shapes, strict=True)
        ]

    def to_rows(self, parts: list[Float[Tensor, "_ heads _ h"]]) -> Float[Tensor, "rows w"]:
        """The outputs of attention, as rows of the linear layers again."""
        return _Taken.apply(torch.cat([part.transpose(1, 2).flatten(2).flatten(0, 1) for part in parts]), self.places)


class _Taken(torch.autograd.Function):
    """x[rows]; the gradients of a repeated row are summed in fp32."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: Tensor) -> Tensor:
        ctx.save_for_backward(rows)
        ctx.size, ctx.dtype = len(x), x.dtype
        return x.index_select(0, rows)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        total = gradient.new_zeros(ctx.size, gradient.shape[1], dtype=torch.float32)
        (rows,) = ctx.saved_tensors
        return total.index_add_(0, rows, gradient.float()).to(ctx.dtype), None


def _attention(
    attention: nn.MultiheadAttention, x: Float[Tensor, "rows w"], layout: _Layout
) -> Float[Tensor, "rows w"]:
    qkv = layout.to_groups(F.linear(x, attention.in_proj_weight, attention.in_proj_bias), attention.num_heads, 3)
    return attention.out_proj(layout.to_rows([_attend(*part, is_causal=True) for part in qkv]))


def _last_attention(
    attention: nn.MultiheadAttention, x: Float[Tensor, "rows w"], layout: _Layout
) -> Float[Tensor, "n w"]:
    """Attention of each text's last token, which attends to its whole text."""
    heads, width = attention.num_heads, x.shape[1]
    (query, other), (q_bias, bias) = (
        p.split([width, 2 * width]) for p in (attention.in_proj_weight, attention.in_proj_bias)
    )
    kv = layout.to_groups(F.linear(x, other, bias), heads, 2)
    q = F.linear(x[layout.pooled], query, q_bias).view(-1, heads, 1, width // heads).to(kv[0].dtype)
    outputs = [
        _attend(q, *part, attn_mask=real)
        for q, part, real in zip(q.split([texts for texts, _ in layout.shapes]), kv, layout.real, strict=True)
    ]
    return attention.out_proj(torch.cat(outputs).flatten(1))


def _attend(q: Tensor, k: Tensor, v: Tensor, **mask: Any) -> Tensor:
    with torch.autocast(q.device.type, enabled=False):  # the inputs have the right precision already
        return F.scaled_dot_product_attention(q, k, v, **mask)


def _is_plain(attention: nn.MultiheadAttention) -> bool:
    return (
        attention.in_proj_weight is not None
        and attention.in_proj_bias is not None
        and (attention.bias_k is None and not attention.add_zero_attn and not attention.dropout)
    )


def _to_pooled(tower: Any, tokens: Tokens) -> Tokens:
    """Every text up to the token that open_clip pools (`text_global_pool`); later tokens cannot change the result."""
    ids = tokens.padded(0).numpy()
    scores = ids if tower.pool_type == "argmax" else ids == tower.eos_id
    kept = np.minimum(scores.argmax(axis=1) + 1, tokens.lengths)
    return Tokens.with_lengths(tokens.ids[places(tokens.lengths) < np.repeat(kept, tokens.lengths)], kept)
