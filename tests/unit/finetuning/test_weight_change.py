"""How far finetuning moved the weights: counted tensor by tensor, put together by part, and drawn."""

from copy import deepcopy

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from pcclip import plots
from pcclip.finetuning.weight_change import by_part, movement


@pytest.fixture
def towers(tiny_encoder):
    return tiny_encoder.text_tower, deepcopy(tiny_encoder.text_tower)


def row(table, name):
    [found] = table[table["name"] == name].itertuples()
    return found


def test_nothing_moved(towers):
    table = movement(*towers)
    assert list(table["name"]) == [name for name, _ in towers[0].named_parameters()]
    assert not table[["share_moved", "largest", "relative"]].to_numpy().any()
    assert list(table["values"]) == [p.numel() for p in towers[0].parameters()]


def test_one_tensor_by_hand(towers):
    base, tuned = towers
    name = "transformer.resblocks.1.mlp.c_fc.weight"
    with torch.no_grad():
        weight = tuned.get_parameter(name)
        weight[0, :3] += torch.tensor([0.5, -2.0, 0.25])
    old = base.get_parameter(name).detach().double()
    found = row(movement(base, tuned), name)
    assert (found.layer, found.part, found.values) == (1, "MLP", 128 * 32)
    assert found.share_moved == 3 / (128 * 32)
    assert found.largest == pytest.approx(2.0, rel=1e-6)
    assert found.relative == pytest.approx(np.sqrt(0.25 + 4 + 0.0625) / np.linalg.norm(old.numpy()), rel=1e-6)
    others = movement(base, tuned)
    assert not others.share_moved[others["name"] != name].any()


def test_half_an_ulp_moves_nothing(towers):
    """What lr 1e-8 does to fp32 weights: those above 0.25 stay."""
    base, tuned = towers
    name = "transformer.resblocks.0.ln_1.weight"  # ones
    with torch.no_grad():
        tuned.get_parameter(name).sub_(1e-8)
    assert row(movement(base, tuned), name).share_moved == 0
    with torch.no_grad():
        tuned.get_parameter(name).sub_(1e-7)
    assert row(movement(base, tuned), name).share_moved == 1


@pytest.mark.parametrize(
    ("name", "layer", "part"),
    [
        ("token_embedding.weight", -1, "embedding"),
        ("positional_embedding", -1, "embedding"),
        ("embeddings.word_embeddings.weight", -1, "embedding"),
        ("embeddings.LayerNorm.weight", -1, "LayerNorm"),
        ("transformer.resblocks.0.attn.in_proj_weight", 0, "attention"),
        ("transformer.resblocks.11.attn.out_proj.bias", 11, "attention"),
        ("transformer.resblocks.3.ln_1.bias", 3, "LayerNorm"),
        ("transformer.resblocks.3.ln_2.weight", 3, "LayerNorm"),
        ("transformer.resblocks.3.mlp.c_proj.weight", 3, "MLP"),
        ("ln_final.weight", -1, "LayerNorm"),
        ("text_projection", -1, "other"),
        ("encoder.layer.5.attention.self.query.weight", 5, "attention"),
        ("encoder.layer.5.attention.output.dense.weight", 5, "attention"),
        ("encoder.layer.5.attention.output.LayerNorm.weight", 5, "LayerNorm"),
        ("encoder.layer.5.intermediate.dense.weight", 5, "MLP"),
        ("encoder.layer.5.output.dense.bias", 5, "MLP"),
        ("encoder.layer.5.output.LayerNorm.bias", 5, "LayerNorm"),
        ("pooler.dense.weight", -1, "other"),
    ],
)
def test_where_a_tensor_belongs(name, layer, part):
    tower = nn.Module()
    *way, last = name.split(".")
    home = tower
    for word in way:
        home.add_module(word, nn.Module())
        home = home.get_submodule(word)
    home.register_parameter(last, nn.Parameter(torch.ones(2)))
    [found] = movement(tower, deepcopy(tower)).itertuples()
    assert (found.name, found.layer, found.part) == (name, layer, part)


TABLE = pd.DataFrame(
    {
        "name": ["a", "b", "c", "d"],
        "layer": [0, 0, 1, -1],
        "part": ["MLP", "attention", "MLP", "embedding"],
        "values": [10, 5, 30, 7],
        "share_moved": [1.0, 0.4, 0.2, 0.0],
        "largest": [0.1, 0.3, 0.2, 0.0],
        "relative": [0.5, 0.01, 0.1, 0.0],
    }
)


def test_by_part_by_hand():
    found = by_part(TABLE).set_index("part")
    assert list(found.index) == ["MLP", "attention", "embedding"]
    assert found.loc["MLP"].to_dict() == pytest.approx(
        {"values": 40, "share_moved": (10 * 1.0 + 30 * 0.2) / 40, "largest": 0.2, "relative": 0.3}
    )
    assert found.loc["attention"].to_dict() == pytest.approx(
        {"values": 5, "share_moved": 0.4, "largest": 0.3, "relative": 0.01}
    )


def dots(ax) -> list[float]:
    """Heights of the points of a strip plot, the empty ones of its legend aside."""
    return sorted(y for points in ax.collections for _, y in np.ma.getdata(points.get_offsets()))


def test_the_figure_draws_the_table():
    relative, share = plots.movement(TABLE).axes
    assert dots(relative) == sorted(TABLE.relative[:3])
    assert dots(share) == sorted(TABLE.share_moved[:3])
    assert relative.get_yscale() == "log"
    assert {text.get_text() for text in share.get_legend().get_texts()} == {"MLP", "attention"}


def test_the_figure_of_weights_that_did_not_move(towers):
    assert plots.movement(movement(*towers)).axes[0].get_yscale() == "linear"
