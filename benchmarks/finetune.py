"""One finetuning step of the text tower: padded to the full context (as released) against cut to the longest text.

    python benchmarks/finetune.py [--model ViT-B-32:random] [--batch 32] [--steps 5] [--json]

Both run in turn on the same texts and weights; their pooled features must agree, or the benchmark fails.
"""

import argparse
import json
import time
from statistics import median

import torch
from torch import nn

from pcclip import load_model
from pcclip.comparisons.sentences import from_captions
from pcclip.finetune.losses import infonce

SUBJECTS = "dog horse bus apple guitar fire truck rose penguin hammer zebra teapot violin pumpkin owl tiger".split()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="ViT-B-32:random")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()

    torch.manual_seed(0)
    model = load_model(options.model)
    texts = [from_captions(f"A {a}.", f"A large {b} seen from close by.") for a in SUBJECTS for b in SUBJECTS]
    tokens = model.tokens(texts[: options.batch])
    cut = model.batch(tokens)
    padded = nn.functional.pad(cut, (0, model.context_length - cut.shape[1]), value=model.pad_id)
    difference = nn.functional.normalize(torch.randn(len(tokens), model.width, device=model.device), dim=-1)

    with torch.inference_mode():
        gap = float((model.text_features(cut) - model.text_features(padded)).abs().max())
    if gap > 1e-4:
        raise SystemExit(f"cut and padded features differ by {gap:.2e}")

    def step(ids: torch.Tensor) -> float:
        started = time.perf_counter()
        w = nn.functional.normalize(model.text_features(ids), dim=-1)
        infonce(w, difference, 1.0)[0].backward()
        model.zero_grad(set_to_none=True)
        if model.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started

    step(padded), step(cut)  # warm up
    seconds = [(step(padded), step(cut)) for _ in range(options.steps)]
    ratio = median(a / b for a, b in seconds)
    result = {
        "benchmark": "finetune", "model": options.model, "batch": options.batch, "device": str(model.device),
        "tokens_padded": padded.shape[1], "tokens_cut": cut.shape[1], "largest_gap": gap, "ratio": round(ratio, 2),
        "seconds_padded": round(median(a for a, _ in seconds), 4),
        "seconds_cut": round(median(b for _, b in seconds), 4),
    }
    print(json.dumps(result) if options.json else "\n".join(f"{key}: {value}" for key, value in result.items()))


if __name__ == "__main__":
    main()
