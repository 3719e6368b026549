"""LoRA: only the low-rank updates learn, W is never touched, and merged weights say what the updates said.

A run of stage 03 with it: test_text_tower.py.
"""

import sys
import warnings

import pytest
import torch

from pcclip.encoders.minilm_efficientnet import MiniLMEfficientNet
from pcclip.encoders.tokens import Tokens
from pcclip.errors import PcclipError
from pcclip.finetuning import lora

TOKENS = Tokens.of([[5, 17, 3, 60], [5, 9, 60], [5, 2, 8, 31, 44, 60]], limit=16)


def bert() -> MiniLMEfficientNet:
    """The MiniLM tower's structure with random weights, and nothing else of the model."""
    from transformers import BertConfig, BertModel

    model = MiniLMEfficientNet.__new__(MiniLMEfficientNet)
    torch.nn.Module.__init__(model)
    torch.manual_seed(0)
    model.text_tower = BertModel(
        BertConfig(vocab_size=64, hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=40)
    ).eval()
    model.pad_id, model.context_length, model.width = 0, 16, 24
    return model


@pytest.fixture(params=["open_clip", "bert"])
def model(request):
    """With the text tower frozen, as stage 03 hands it over."""
    found = bert() if request.param == "bert" else request.getfixturevalue("fresh_encoder")
    found.text_tower.requires_grad_(False)
    return found


def features(model) -> torch.Tensor:
    return model.text_features(model.batch(TOKENS))


def disturb(parameters) -> None:
    """Updates that are not zero any more, as after training."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in parameters.values():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))


def matrices(tower) -> dict[str, torch.Tensor]:
    """Weights of the transformer's linear layers; open_clip's attention is one piece and left alone."""
    inside = ("transformer.resblocks", "encoder.layer")
    return {
        name: p
        for name, p in tower.named_parameters()
        if name.startswith(inside) and p.ndim == 2 and ".attn." not in name
    }


def test_every_linear_layer_outside_fused_attention_gets_an_update_that_is_nothing_at_first(model):
    wanted, before = {name: tuple(p.shape) for name, p in matrices(model.text_tower).items()}, features(model).detach()
    parameters = lora.add(model, 3, seed=0)
    torch.testing.assert_close(features(model), before, rtol=0, atol=1e-6)  # without gradients attention rounds apart
    assert len(wanted) == (12 if "encoder.layer.0.output.dense.weight" in wanted else 4)
    assert {name: tuple(p.shape) for name, p in parameters.items()} == {
        f"{name.removesuffix('.weight')}.lora_{side}.default.weight": (3, columns) if side == "A" else (rows, 3)
        for name, (rows, columns) in wanted.items()
        for side in "AB"
    }


def test_the_start_follows_the_seed(model):
    def start(seed):
        found = {name: p.detach().clone() for name, p in lora.add(model, 2, seed).items()}
        lora.merge(model)
        return found

    state = torch.random.get_rng_state()
    first, second, other = start(0), start(0), start(1)
    assert all(torch.equal(second[name], value) for name, value in first.items())
    assert not any(torch.equal(other[name], value) for name, value in first.items() if "lora_A" in name)
    assert torch.equal(torch.random.get_rng_state(), state), "nobody else's draws are moved"


def test_every_update_learns_and_the_frozen_weights_never_move(model):
    before = {name: p.detach().clone() for name, p in model.text_tower.named_parameters()}
    parameters = lora.add(model, 2, seed=0)
    disturb(parameters)
    for _ in range(20):
        features(model).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in parameters.values())
    assert {n for n, p in model.text_tower.named_parameters() if p.grad is not None} == set(parameters)
    frozen = {n.replace(".base_layer", ""): p for n, p in model.text_tower.named_parameters() if "lora_" not in n}
    assert frozen.keys() == before.keys()
    assert all(torch.equal(frozen[name], value) for name, value in before.items())


def test_merging_puts_w_plus_b_a_into_plain_layers_and_updates_can_be_added_again(model):
    names, kinds = list(model.text_tower.state_dict()), [type(module) for module in model.text_tower.modules()]
    plain = {name: p.detach().clone() for name, p in matrices(model.text_tower).items()}
    parameters = lora.add(model, 2, seed=0)
    first = features(model).detach()
    disturb(parameters)
    adapted = features(model).detach()
    assert (adapted - first).abs().max() > 1e-3
    a, b = ({n: parameters[n.replace("weight", f"lora_{side}.default.weight")] for n in plain} for side in "AB")
    lora.merge(model)
    assert sorted(model.text_tower.state_dict()) == sorted(names)
    assert [type(module) for module in model.text_tower.modules()] == kinds
    torch.testing.assert_close(features(model), adapted, rtol=0, atol=1e-5)
    for name, weight in plain.items():
        torch.testing.assert_close(model.text_tower.get_parameter(name), weight + b[name] @ a[name])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert lora.add(model, 3, seed=0)


def test_merged_for_a_while(model):
    names = sorted(model.text_tower.state_dict())
    parameters = lora.add(model, 2, seed=0)
    disturb(parameters)
    adapted = features(model).detach()
    held = {name: value.clone() for name, value in model.text_tower.state_dict().items()}
    with lora.merged(model):
        assert sorted(model.text_tower.state_dict()) == names
        torch.testing.assert_close(features(model), adapted, rtol=0, atol=1e-5)
    after = model.text_tower.state_dict()
    assert after.keys() == held.keys()
    assert all(torch.equal(after[name], value) for name, value in held.items())
    assert torch.equal(features(model), adapted)
    now = dict(model.text_tower.named_parameters())
    assert all(now[name] is parameter for name, parameter in parameters.items()), "the optimiser's own"


def test_without_updates_merging_does_nothing(fresh_encoder):
    before = {name: value.clone() for name, value in fresh_encoder.state_dict().items()}
    with lora.merged(fresh_encoder):
        pass
    lora.merge(fresh_encoder)
    after = fresh_encoder.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_without_peft_the_error_says_what_to_install(fresh_encoder, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(PcclipError, match=r"^finetune.tune = lora needs peft: pip install 'pcclip\[paper\]'$"):
        lora.add(fresh_encoder, 2, seed=0)
