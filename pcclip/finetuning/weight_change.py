"""How far finetuning moved the weights: at lr 1e-8 most fp32 weights cannot move, since a step is below half an ulp."""

import numpy as np
import pandas as pd
from torch import nn

from pcclip.encoders.dual_encoder import Encoder

_PARTS = {
    "attn": "attention",
    "attention": "attention",
    "mlp": "MLP",
    "intermediate": "MLP",
    "output": "MLP",
    "ln": "LayerNorm",
    "layernorm": "LayerNorm",
    "norm": "LayerNorm",
    "embedding": "embedding",
    "embeddings": "embedding",
}


def movement(base: nn.Module, tuned: nn.Module) -> pd.DataFrame:
    """One row for each tensor of the tower.

    Columns: name, layer (number of the block, -1 outside), part, values, share_moved (values that differ at all),
    largest (absolute step of any value), relative (norm of the step over norm of the weights).
    """
    before, rows = dict(base.named_parameters()), []
    for name, now in tuned.named_parameters():
        old = before[name].detach().cpu().double()
        step = now.detach().cpu().double() - old
        rows.append(
            {
                "name": name,
                "layer": next((int(word) for word in name.split(".") if word.isdigit()), -1),
                "part": _part(name),
                "values": step.numel(),
                "share_moved": float((step != 0).double().mean()),
                "largest": float(step.abs().max()),
                "relative": float(step.norm() / max(float(old.norm()), 1e-12)),
            }
        )
    return pd.DataFrame(rows)


def of_towers(base: Encoder, tuned: Encoder) -> pd.DataFrame:
    """`movement` of the text tower, then of the image tower if it was tuned too, with a column `tower`."""
    parts = [movement(base.text_tower, tuned.text_tower).assign(tower="text")]
    if base.image_fingerprint() != tuned.image_fingerprint():
        parts.append(movement(base.image_tower, tuned.image_tower).assign(tower="image"))
    return pd.concat(parts, ignore_index=True)


def by_part(table: pd.DataFrame) -> pd.DataFrame:
    """Movement by part of each tower: values, share_moved, largest, relative (median over tensors)."""
    groups = table.groupby([*(["tower"] if "tower" in table else []), "part"], sort=False)
    return pd.DataFrame(
        {
            "values": groups["values"].sum(),
            "share_moved": groups.apply(lambda g: float(np.average(g.share_moved, weights=g["values"]))),
            "largest": groups.largest.max(),
            "relative": groups.relative.median(),
        }
    ).reset_index()


def _part(name: str) -> str:
    """The kind of layer a tensor belongs to, by its name."""
    words = name.lower().replace("_", ".").replace("ln1", "ln").replace("ln2", "ln").split(".")
    if "layernorm" in words or "ln" in words or "norm" in words:
        return "LayerNorm"
    return next((_PARTS[word] for word in words if word in _PARTS), "other")
