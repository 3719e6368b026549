"""The packed text tower against open_clip's own on texts padded to the full context: features and every gradient."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from pcclip import load_model
from pcclip.encoders import packed_text as packed
from pcclip.encoders.dual_encoder import Encoder
from pcclip.encoders.tokens import Tokens

TEXTS = [
    "a dog",
    "The first image shows a red disc, while the second image shows a blue bar.",
    "The first image shows a red disc, while the second image shows a blue ring.",
    "",
    "Ünï & 3 cats!",
    "a dog",
    "The first image shows",
    "a dog <end_of_text> and what follows it",
    "!!! ! !!!!",
    "a very long and winding story " * 9,
]


@pytest.fixture
def build(tiny_model, tmp_path):
    """build(layers=..., pool_type=...) is the tiny model with another text tower."""

    def call(**changes):
        import open_clip

        folder = Path(tiny_model.removeprefix("local-dir:"))
        config = json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]
        config["text_cfg"] |= changes
        path = tmp_path / "another-tiny-of-the-tests.json"
        path.write_text(json.dumps(config))
        open_clip.add_model_config(path)
        return load_model(f"{path.stem}:random")

    return call


def full(model, tokens: Tokens) -> torch.Tensor:
    return model.text_features(tokens.padded(0, model.context_length))


def with_gradients(model, call) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Features and the gradient of every weight of the text tower, for a sum over the features with random weights."""
    weights = list(model.tunable("all").values())
    for weight in weights:
        weight.requires_grad_(True)
    features = call()
    target = torch.randn(features.shape, generator=torch.Generator().manual_seed(1))
    return features.detach(), list(torch.autograd.grad((features * target).sum(), weights))


def assert_same(model, one, other, close=1e-5):
    (a, a_gradients), (b, b_gradients) = (with_gradients(model, call) for call in (one, other))
    torch.testing.assert_close(a, b, rtol=close, atol=close)
    for left, right in zip(a_gradients, b_gradients, strict=True):
        assert right.abs().max() > 0
        torch.testing.assert_close(left, right, rtol=close, atol=close * max(1.0, float(right.abs().max())))


@pytest.mark.parametrize("overhead", [0, 48, 1e6], ids=["many groups", "few groups", "one group"])
def test_features_and_gradients_are_those_of_the_full_context(fresh_encoder, monkeypatch, overhead):
    monkeypatch.setitem(packed._OVERHEAD, "cpu", overhead)
    tokens = fresh_encoder.tokenised(TEXTS)
    assert fresh_encoder._can_pack
    assert len(packed.prefixes(tokens)[1]) < 0.8 * tokens.lengths.sum(), "much is shared"
    assert_same(fresh_encoder, lambda: fresh_encoder.features(tokens), lambda: full(fresh_encoder, tokens))


@pytest.mark.parametrize(
    "changes",
    [
        {"layers": 1},
        {"heads": 4, "width": 64},
        {"ls_init_value": 0.3},
        {"proj_type": "none", "width": 32},
        {"proj_bias": True},
        {"pool_type": "eos", "eos_id": 49407},
    ],
    ids=str,
)
def test_other_towers(build, changes):
    model = build(**changes)
    tokens = model.tokenised(TEXTS)
    assert model._can_pack
    assert_same(model, lambda: model.features(tokens), lambda: full(model, tokens))


@pytest.mark.parametrize(
    "changes", [{"no_causal_mask": True}, {"embed_cls": True}, {"pool_type": "last"}, {"block_type": "custom"}], ids=str
)
def test_towers_that_are_left_to_open_clip(build, changes):
    model = build(**changes)
    tokens = model.tokenised(TEXTS)
    assert not model._can_pack
    assert model._is_causal == (changes == {"block_type": "custom"})
    torch.testing.assert_close(model.features(tokens), full(model, tokens), rtol=1e-5, atol=1e-5)


def test_a_tower_of_vit_b_32s_shape():
    """512 wide, 8 heads, 77 tokens, as many layers as a test may take."""
    from open_clip.transformer import TextTransformer

    torch.manual_seed(0)
    tower = TextTransformer(context_length=77, vocab_size=600, width=512, heads=8, layers=3, output_dim=512).eval()
    draw = np.random.default_rng(0)
    start = [597, *draw.integers(1, 597, 6)]
    tokens = Tokens.of([[*start, *draw.integers(1, 597, n), 599] for n in (3, 20, 21, 22, 58, 20)], 77)
    weights = list(tower.parameters())
    found = []
    for call in (lambda: packed.features(tower, tokens), lambda: tower(tokens.padded(0, 77))):
        features = call()
        found.append((features.detach(), torch.autograd.grad(features.square().sum(), weights)))
    (a, a_gradients), (b, b_gradients) = found
    torch.testing.assert_close(a, b, rtol=0, atol=1e-5)
    for one, other in zip(a_gradients, b_gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5 * float(other.abs().max()))


def test_length_groups_of_any_tower(fresh_encoder, monkeypatch):
    """What the other families do: a few padded groups, each as long as its longest, put back in order."""
    monkeypatch.setitem(packed._OVERHEAD, "cpu", 0)
    tokens = fresh_encoder.tokenised(TEXTS)
    seen, batch = [], fresh_encoder.batch
    monkeypatch.setattr(fresh_encoder, "batch", lambda part: seen.append(part.lengths.max()) or batch(part))
    assert_same(fresh_encoder, lambda: Encoder.features(fresh_encoder, tokens), lambda: full(fresh_encoder, tokens))
    assert len(seen) > 1
    assert max(seen) == fresh_encoder.context_length
    assert min(seen) < 10


def test_length_groups_of_a_bidirectional_tower_with_a_mask(minilm_structure):
    model = minilm_structure
    tokens = Tokens.of([[5, 17, 3, 60], [5, 9, 60], [5, 2, 8, 31, 44, 60, *range(20, 50), 60], [5, 60]], 60)
    assert_same(model, lambda: model.features(tokens), lambda: model.text_features(tokens.padded(model.pad_id, 60)))


@pytest.fixture
def minilm_structure():
    """The MiniLM tower's structure with random weights, and nothing else of the model."""
    from transformers import BertConfig, BertModel

    from pcclip.encoders.minilm_efficientnet import MiniLMEfficientNet

    model = MiniLMEfficientNet.__new__(MiniLMEfficientNet)
    torch.nn.Module.__init__(model)
    torch.manual_seed(0)
    model.text_tower = BertModel(
        BertConfig(
            vocab_size=64,
            hidden_size=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=40,
            max_position_embeddings=60,
        ),
        add_pooling_layer=False,
    ).eval()
    model.pad_id, model.context_length, model.width = 0, 60, 24
    return model


def test_frozen_embeddings_get_no_gradient(fresh_encoder):
    fresh_encoder.text_tower.requires_grad_(False)
    for weight in fresh_encoder.tunable("transformer").values():
        weight.requires_grad_(True)
    fresh_encoder.features(fresh_encoder.tokenised(TEXTS)).sum().backward()
    tuned = set(fresh_encoder.tunable("transformer"))
    assert {n for n, p in fresh_encoder.text_tower.named_parameters() if p.grad is not None} == tuned


def test_bf16_is_as_near_as_the_padded_form_is(fresh_encoder):
    tokens = fresh_encoder.tokenised(TEXTS)
    exact = full(fresh_encoder, tokens)
    with torch.autocast("cpu", torch.bfloat16):
        off = [
            float((call() - exact).detach().abs().max())
            for call in (lambda: fresh_encoder.features(tokens), lambda: full(fresh_encoder, tokens))
        ]
    assert 0 < off[0] < 2 * off[1]


# which rows there are


def test_beginnings():
    tokens = Tokens.of([[1, 2, 3], [1, 2, 4], [7], [1, 2, 3], [1, 2], [0, 0]], 10)
    number, first = packed.prefixes(tokens)
    assert (number >= 0).sum() == 14
    assert len(first) == 7  # 1, 12, 123, 124, 7, 0, 00
    assert number.ravel()[first].tolist() == list(range(7))
    assert number[0].tolist() == number[3].tolist()
    assert number[0][:2].tolist() == number[1][:2].tolist() == number[4][:2].tolist()
    assert len({number[0][2], number[1][2]}) == 2
    assert number[2].tolist()[1:] == [-1, -1]


def test_beginnings_by_brute_force(rng):
    lists = [rng.integers(0, 3, n).tolist() for n in rng.integers(1, 8, 60)]
    lists += [[255, 256, 65536], [255, 256], [256], [65535, 0], [65535]]
    number, first = packed.prefixes(Tokens.of(lists, 10))
    found = {}
    for row, ids in zip(number, lists, strict=True):
        for k in range(len(ids)):
            assert found.setdefault(tuple(ids[: k + 1]), row[k]) == row[k]
        assert (row[len(ids) :] == -1).all()
    assert len(found) == len(set(found.values())) == len(first)
