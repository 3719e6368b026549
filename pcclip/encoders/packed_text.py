"""open_clip's causal text tower with no padding outside attention, and every shared beginning computed once.

The same weights and sums as `TextTransformer.forward`, less what cannot reach the result or is there already: what
follows the pooled token; in the last block all queries but the pooled ones; and, as a causal tower's state at a token
depends on nothing but the text so far, all copies of a beginning that several texts share ("The first image shows a").
The distinct beginnings are the rows that linear layers see. Gradients are those of the padded form too.
"""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from pcclip.encoders.tokens import Tokens, groups, places

_OVERHEAD = {"cpu": 48}  # of one more group in attention, in padded tokens; elsewhere launching kernels costs more
_OVERHEAD_ELSEWHERE = 4096


def packs(tower: nn.Module) -> bool:
    """Whether the tower is of the kind that is computed here: plain blocks, causal, pooled at one token."""
    from open_clip.transformer import ResidualAttentionBlock, TextTransformer

    return (
        type(tower) is TextTransformer
        and causal(tower)
        and not tower.transformer.grad_checkpointing
        and all(
            type(block) is ResidualAttentionBlock and _is_plain(block.attn) for block in tower.transformer.resblocks
        )
    )


def causal(tower: nn.Module) -> bool:
    """Whether the pooled token never looks at what follows it, and nothing else of the text is pooled."""
    return (
        getattr(tower, "attn_mask", None) is not None
        and tower.cls_emb is None
        and (tower.pool_type in ("argmax", "eos") and not tower.use_pad_mask)
    )


def features(tower: nn.Module, tokens: Tokens) -> Float[Tensor, "n d"]:
    """Pooled and projected vectors before normalisation, in the order of the texts."""
    at = _Layout(_to_pooled(tower, tokens), tower.positional_embedding.device)
    x = tower.token_embedding(at.ids) + tower.positional_embedding[at.positions]
    *blocks, last = tower.transformer.resblocks
    for block in blocks:
        x = x + block.ls_1(_attention(block.attn, block.ln_1(x), at))
        x = x + block.ls_2(block.mlp(block.ln_2(x)))
    x = x[at.pooled] + last.ls_1(_last_attention(last.attn, last.ln_1(x), at))
    x = tower.ln_final(x + last.ls_2(last.mlp(last.ln_2(x))))
    if isinstance(tower.text_projection, nn.Linear):
        x = tower.text_projection(x)
    elif tower.text_projection is not None:
        x = x @ tower.text_projection
    return x[at.back]


def beginnings(tokens: Tokens) -> tuple[Int[np.ndarray, "texts longest"], Int[np.ndarray, " distinct"]]:
    """The number of each text's beginning up to each token, the same wherever texts begin alike; -1 after its end.

    Also where each distinct one is met first, in the flattened table.
    """
    ids = tokens.padded(-1).numpy()
    longest = ids.shape[1]
    order = (ids + 1).astype(">u4").view(f"S{4 * longest}").ravel().argsort(kind="stable")  # alike begin side by side
    ids = ids[order]
    alike = np.zeros(ids.shape, dtype=bool)
    alike[1:] = np.logical_and.accumulate(ids[1:] == ids[:-1], axis=1)
    new = ~alike & (ids >= 0)
    number = np.full(ids.shape, -1)
    number[new] = np.arange(new.sum())
    number = np.where(ids >= 0, np.maximum.accumulate(number, axis=0), -1)
    row, column = np.nonzero(new)
    out = np.empty_like(number)
    out[order] = number
    return out, order[row] * longest + column


class _Layout:
    """Which row of the linear layers each token of each text is, and how texts stand side by side in attention.

    Attributes:
        ids, positions: of the rows.
        rows: for every place of every group in attention, its row; places beyond a text's end have any.
        shapes: of the groups, texts by the longest of them.
        places: for every row, one of its places.
        real: by group, (texts, 1, 1, longest), False beyond a text's end; None where there is no such place.
        pooled: for every text, in the order of the groups, the row of its last token.
        back: for every text as given, where it is in the groups.
    """

    def __init__(self, tokens: Tokens, device: torch.device):
        def there(values) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(values)).to(device)

        number, first = beginnings(tokens)
        text, column = np.divmod(first, number.shape[1])
        found = groups(tokens.lengths, _OVERHEAD.get(device.type, _OVERHEAD_ELSEWHERE))
        longest = [int(tokens.lengths[group[-1]]) for group in found]
        parts = [number[group, :cut] for group, cut in zip(found, longest, strict=True)]
        order, rows = np.concatenate(found), np.concatenate([part.ravel() for part in parts])
        place = np.empty(len(first), dtype=np.int64)
        place[rows[rows >= 0]] = np.flatnonzero(rows >= 0)
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        self.ids, self.positions = there(tokens.ids[tokens.starts[text] + column].astype(np.int64)), there(column)
        self.rows, self.places = there(np.maximum(rows, 0)), there(place)
        self.shapes = [part.shape for part in parts]
        self.real = [None if (part >= 0).all() else there((part >= 0)[:, None, None]) for part in parts]
        self.pooled = there(number[order, tokens.lengths[order] - 1])
        self.back = there(back)

    def apart(self, x: Float[Tensor, "rows kw"], heads: int, k: int) -> list[Float[Tensor, "k texts heads longest h"]]:
        """What attention is over, group by group: the k of queries, keys and values that stand side by side in x."""
        if x.device.type == "cpu":
            x = x.float()  # torch 2.13: the gradient of attention takes twice as long in bf16
        parts = _Taken.apply(x, self.rows).split([texts * longest for texts, longest in self.shapes])
        return [
            part.view(*shape, k, heads, -1).permute(2, 0, 3, 1, 4)
            for part, shape in zip(parts, self.shapes, strict=True)
        ]

    def together(self, parts: list[Float[Tensor, "texts heads longest h"]]) -> Float[Tensor, "rows w"]:
        """What attention gave, row by row again."""
        return _Picked.apply(torch.cat([part.transpose(1, 2).flatten(2).flatten(0, 1) for part in parts]), self.places)


class _Taken(torch.autograd.Function):
    """x[rows]; gradients of a row that is taken often are summed in fp32."""

    @staticmethod
    def forward(ctx, x, rows):
        ctx.save_for_backward(rows)
        ctx.size, ctx.dtype = len(x), x.dtype
        return x.index_select(0, rows)

    @staticmethod
    def backward(ctx, gradient):
        total = gradient.new_zeros(ctx.size, gradient.shape[1], dtype=torch.float32)
        return total.index_add_(0, *ctx.saved_tensors, gradient.float()).to(ctx.dtype), None


class _Picked(torch.autograd.Function):
    """x[rows] of rows that differ: the gradient is put in its places, and nothing has to be summed."""

    @staticmethod
    def forward(ctx, x, rows):
        ctx.save_for_backward(rows)
        ctx.size = len(x)
        return x.index_select(0, rows)

    @staticmethod
    def backward(ctx, gradient):
        return gradient.new_zeros(ctx.size, gradient.shape[1]).index_copy_(0, *ctx.saved_tensors, gradient), None


def _attention(attention: nn.MultiheadAttention, x: Float[Tensor, "rows w"], at: _Layout) -> Float[Tensor, "rows w"]:
    qkv = at.apart(F.linear(x, attention.in_proj_weight, attention.in_proj_bias), attention.num_heads, 3)
    return attention.out_proj(at.together([_attend(*part, is_causal=True) for part in qkv]))


def _last_attention(attention: nn.MultiheadAttention, x: Float[Tensor, "rows w"], at: _Layout) -> Float[Tensor, "n w"]:
    """Only what the last token of each text sees, which is all of its text."""
    heads, width = attention.num_heads, x.shape[1]
    (query, other), (q_bias, bias) = (
        p.split([width, 2 * width]) for p in (attention.in_proj_weight, attention.in_proj_bias)
    )
    kv = at.apart(F.linear(x, other, bias), heads, 2)
    q = F.linear(x[at.pooled], query, q_bias).view(-1, heads, 1, width // heads).to(kv[0].dtype)
    seen = [
        _attend(q, *part, attn_mask=real)
        for q, part, real in zip(q.split([texts for texts, _ in at.shapes]), kv, at.real, strict=True)
    ]
    return attention.out_proj(torch.cat(seen).flatten(1))


def _attend(q: Tensor, k: Tensor, v: Tensor, **mask) -> Tensor:
    with torch.autocast(q.device.type, enabled=False):  # they have the precision they are to have
        return F.scaled_dot_product_attention(q, k, v, **mask)


def _is_plain(attention: nn.MultiheadAttention) -> bool:
    return (
        attention.in_proj_weight is not None
        and attention.in_proj_bias is not None
        and (attention.bias_k is None and not attention.add_zero_attn and not attention.dropout)
    )


def _to_pooled(tower: nn.Module, tokens: Tokens) -> Tokens:
    """Every text up to the token that open_clip pools (`text_global_pool`); nothing after it has a say."""
    ids = tokens.padded(0).numpy()
    found = ids if tower.pool_type == "argmax" else ids == tower.eos_id
    kept = np.minimum(found.argmax(axis=1) + 1, tokens.lengths)
    return Tokens.with_lengths(tokens.ids[places(tokens.lengths) < np.repeat(kept, tokens.lengths)], kept)
