"""All figures of one card in a few minutes, from random weights and drawn inputs: finetuning, embedding, ranking, writing.

    python speed/gpu.py [--model ViT-L-14:random] [--batch 512] [--large 32768] [--photos 512] [--vectors 1e8]
                        [--layers 28] [--questions 256] [--out FOLDER] [--json]

Each part compares with a plainly written loop on the same inputs in the same run. FOLDER/gpu.json has every number,
FOLDER/gpu.md a table. Small sizes run unchanged on a CPU. Nothing is fetched.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import embed
import finetune
import numpy as np
import torch
from generate import questions_of
from measure import in_turn, seconds_of, show

from pcclip import load_model
from pcclip.comparisons.llm.transformers_model import TransformersModel
from pcclip.comparisons.prompts import load_prompt
from pcclip.config import Generate
from pcclip.finetuning.precision import has_bf16

WIDTH, TOP, SHORTLIST = 768, 100, 1000
BLOCK = 2**20  # vectors drawn at once
WORDS = "The first image shows a large brown dog on grass while second small red fire truck".split()


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="ViT-L-14:random")
    parser.add_argument("--batch", type=int, default=512, help="texts of a step")
    parser.add_argument("--large", type=int, default=32_768, help="texts of a step by GradCache")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--photos", type=int, default=512)
    parser.add_argument("--vectors", type=float, default=1e8, help="ranked in int8, drawn block by block")
    parser.add_argument("--layers", type=int, default=28, help="of the language model, 1536 wide")
    parser.add_argument("--questions", type=int, default=256)
    parser.add_argument("--tokens", type=int, default=48, help="written for each question")
    parser.add_argument("--out", type=Path, default=Path("."))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    result = {
        "benchmark": "gpu",
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }
    model = load_model(options.model)
    parts = {
        "finetune": lambda: text_steps(model, options),
        "embed": lambda: photos_to_vectors(model, options),
        "rank": lambda: int8_ranking(int(options.vectors), device),
        "generate": lambda: written(options),
    }
    for name, part in parts.items():
        started = time.perf_counter()
        result[name] = part()
        result[name]["seconds_of_this_part"] = time.perf_counter() - started
    result["ratio"] = result["finetune"]["ratio"]
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "gpu.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf8")
    (options.out / "gpu.md").write_text(table(result), encoding="utf8")
    show(result, options.json)


def text_steps(model, options: argparse.Namespace) -> dict:
    """The step at --batch against the plain loop, and at --large with --batch texts in memory at once (GradCache)."""
    precision = "bf16" if has_bf16(model.device) else "fp32"
    ours = finetune.Ours(model, precision)
    texts = finetune.synthetic(model, options.batch * (options.steps + 1))
    result = {"precision": precision} | finetune.compared(model, ours, texts, options.batch, options.steps)
    result["texts_per_second"] = options.batch / result["seconds"]
    compiled = torch.compile(ours.training.model.text_features, dynamic=False) if options.batch >= 64 else None
    if compiled is not None:  # the padded tower as the compiler makes it, forward and backward
        result["seconds_compiled_padded"] = compiled_seconds(model, compiled, texts[: options.batch], precision)
    many = finetune.synthetic(model, options.large)
    ours.take(many, options.batch)
    result["seconds_large"] = seconds_of(lambda: ours.step(np.arange(options.large)))
    return result | {"large": options.large, "texts_per_second_large": options.large / result["seconds_large"]}


def compiled_seconds(model, tower, texts: list[str], precision: str) -> float:
    """Seconds of a forward and a backward pass of the padded tower, after the compiler has run."""
    padded = finetune.Plain(model, texts).padded(range(len(texts)))

    def both_passes() -> None:
        with finetune.autocast(precision, model.device):
            tower(padded).float().sum().backward()

    both_passes()
    return min(seconds_of(both_passes) for _ in range(3))


def photos_to_vectors(model, options: argparse.Namespace) -> dict:
    settings = argparse.Namespace(batch=min(256, options.photos), workers=16, rounds=2)
    with tempfile.TemporaryDirectory() as folder:
        return embed.of_small(model, embed.jpegs(Path(folder), options.photos, (640, 480)), settings)


def int8_ranking(count: int, device: torch.device) -> dict:
    """Best TOP of `count` unit vectors: an int8 pass keeps SHORTLIST of each block, exact scores order them.

    Only a block is in memory; its int8 scores are timed against one sum over the same bytes. `recall` is the share of
    the TOP by exact scores of all vectors that the shortlists hold.
    """
    axis = torch.nn.functional.normalize(torch.randn(WIDTH, device=device), dim=0)
    eight = torch.zeros(WIDTH, 16, dtype=torch.int8, device=device)  # torch._int_mm needs 16 columns
    eight[:, 0] = (axis * 127 / axis.abs().max()).round()
    seconds = {"int8": 0.0, "bare": 0.0}
    best, shortlisted = torch.empty(0, device=device), torch.empty(0, device=device)
    for start in range(0, count, BLOCK):
        random = torch.Generator(device).manual_seed(start)
        block = torch.randn(min(BLOCK, count - start), WIDTH, generator=random, device=device)
        block /= block.norm(dim=1, keepdim=True)
        exact, scales = block @ axis, block.abs().amax(dim=1, keepdim=True)
        small = (block * 127 / scales).round().to(torch.int8)
        scores: list[torch.Tensor] = []
        seconds["int8"] += seconds_of(lambda s=small, out=scores: out.append(torch._int_mm(s, eight)[:, 0]))
        seconds["bare"] += seconds_of(lambda s=small: s.view(torch.int64).sum())
        rows = (scores[0] * scales[:, 0]).topk(min(SHORTLIST, len(block))).indices
        best = torch.cat([best, exact]).topk(min(TOP, len(best) + len(exact))).values
        shortlisted = torch.cat([shortlisted, exact[rows]]).topk(min(TOP, len(shortlisted) + len(rows))).values
    return {
        "vectors": count,
        "recall": float(torch.isin(best, shortlisted).float().mean()),
        "seconds_int8": seconds["int8"],
        "passes": seconds["int8"] / seconds["bare"],
        "gigabytes_per_second": count * WIDTH / 1e9 / seconds["int8"],
    }


def written(options: argparse.Namespace) -> dict:
    """Tokens a second of the package's batches against one question at a time, by a model of random weights."""
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    with tempfile.TemporaryDirectory() as folder:
        tokenizer = plain_words()
        PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, chat_template="{% for m in messages %}{{ m.content }} {% endfor %}"
        ).save_pretrained(folder)
        wide = options.layers > 2
        shape = (
            {"hidden_size": 1536, "intermediate_size": 8960} if wide else {"hidden_size": 64, "intermediate_size": 128}
        )
        config = LlamaConfig(
            **shape,
            vocab_size=len(WORDS) + 1,
            num_hidden_layers=options.layers,
            num_attention_heads=12 if wide else 4,
            eos_token_id=None,
            bos_token_id=None,
        )
        LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
        settings = Generate(backend="transformers", llm=folder, max_tokens=options.tokens, in_flight=options.questions)
        writer = TransformersModel(settings, load_prompt("differences"))
        single = TransformersModel(settings.model_copy(update={"in_flight": 1}), load_prompt("differences"))
        questions = questions_of(options.questions)
        list(writer.answers(questions[:1]))  # warm up
        few = questions[: max(1, options.questions // 32)]
        seconds = in_turn(1, batch=lambda: list(writer.answers(questions)), single=lambda: list(single.answers(few)))
    rates = {name: options.tokens / seconds[name][0] for name in seconds}
    return {
        "tokens_per_second": rates["batch"] * len(questions),
        "ratio": rates["batch"] * len(questions) / (rates["single"] * len(few)),
    }


def plain_words():
    """A tokenizer whose tokens are words."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({word: k for k, word in enumerate([*WORDS, "[unk]"])}, unk_token="[unk]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


def table(result: dict) -> str:
    """The figures that README and LOG quote, as a markdown table."""
    text, photos, ranking, writing = (result[name] for name in ("finetune", "embed", "rank", "generate"))
    rows = [
        ("text step, times the plain loop", text["ratio"]),
        ("text step, share of the matrix peak", text["peak_fraction"]),
        ("texts a second", text["texts_per_second"]),
        (f"texts a second, {text['large']} in a step (GradCache)", text["texts_per_second_large"]),
        ("photos to vectors, times the plain loop", photos["ratio"]),
        ("photos a second", photos["photos_per_second"]),
        ("photos a second, share of the encoder alone", photos["peak_fraction"]),
        (f"{ranking['vectors']:,} int8 vectors ranked, seconds", ranking["seconds_int8"]),
        ("of one bare pass over them", ranking["passes"]),
        ("the same best 100", ranking["recall"]),
        ("tokens a second by transformers", writing["tokens_per_second"]),
        ("the same, times one question at a time", writing["ratio"]),
    ]
    lines = [f"| {name} | {value:.4g} |" for name, value in rows]
    return (
        "\n".join([f"| {result['device']}, torch {result['torch']}, {result['date']} | |", "|---|---|", *lines]) + "\n"
    )


if __name__ == "__main__":
    main()
