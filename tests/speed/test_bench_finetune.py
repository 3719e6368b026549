"""The finetuning benchmark on the tiny model: what it prints, and that it fails where the two loops disagree."""

import importlib
import json

import numpy as np
import pytest
import torch
from helpers.runs import ROOT

from pcclip.encoders.openclip import OpenClip

WANTED = {
    "benchmark",
    "model",
    "device",
    "batch",
    "tokens",
    "ratio",
    "peak_fraction",
    "seconds_plain",
    "seconds",
    "flops_per_second",
    "flops_per_second_peak",
    "memory",
    "growth",
}


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "speed"))
    module = importlib.import_module("finetune")
    monkeypatch.setattr(module, "matrix_peak", lambda *given: 1e11)
    monkeypatch.setattr(module, "memory_peak", lambda device: 1e10)
    return module


@pytest.fixture
def main(bench, tiny_model):
    return lambda *options: bench.main(["--model", tiny_model, "--batch", "8", "--steps", "1", *options])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_one_json_object_comes_last(main, capsys, precision):
    main("--json", "--precision", precision)
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result.keys() >= WANTED
    assert (result["batch"], result["precision"]) == (8, precision)
    assert result["largest_gap"] < 1e-5
    assert result["ratio"] > 0
    assert result["rows"] < result["tokens_of_batch"]
    assert [point["batch"] for point in result["growth"]] == [8, 8, 8, 2, 32, 32]


def test_a_small_batch_grows_from_two_texts(bench, tiny_encoder):
    ours = bench.Ours(tiny_encoder, "fp32")
    assert [point["batch"] for point in bench.growth(tiny_encoder, ours, 3)] == [3, 3, 3, 2, 12, 12]


@pytest.mark.parametrize("name", ["features", "text_features"])
def test_loops_that_disagree_fail(main, monkeypatch, name):
    kind = OpenClip
    right = getattr(kind, name)
    monkeypatch.setattr(kind, name, lambda self, texts: 1.001 * right(self, texts))
    with pytest.raises(SystemExit, match="features differ"):
        main()


def test_losses_that_disagree_fail(main, bench, monkeypatch):
    monkeypatch.setattr(bench.Plain, "step", lambda self, rows: 0.0)
    with pytest.raises(SystemExit, match="losses of the two loops differ"):
        main()


def test_texts_of_the_stated_lengths(bench, tiny_encoder):
    lengths = np.array([len(ids) for ids in tiny_encoder.tokens(bench.synthetic(tiny_encoder, 400))])
    assert lengths.max() == 66
    assert lengths.mean() == pytest.approx(29, abs=0.7)
    assert np.quantile(lengths, 0.95) == pytest.approx(38, abs=1)
    assert bench.synthetic(tiny_encoder, 5) == bench.synthetic(tiny_encoder, 5)


def test_peak_memory_is_that_of_the_call(bench):
    if bench.peak_memory(torch.device("cpu"), int) is None:
        pytest.skip("no VmHWM here")
    found = bench.peak_memory(torch.device("cpu"), lambda: torch.ones(2**25).sum())
    assert 0.9 * 2**27 < found < 1.5 * 2**27
