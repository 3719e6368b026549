"""One finetuning step of the text tower: a plain loop, as released, against the step of stage 03.

    python speed/finetune.py [--model ViT-L-14:random] [--batch 32] [--steps 3] [--precision auto] [--json]

The plain loop tokenises the texts of every batch, takes image differences one by one, pads to the full context and
computes in fp32. Both train a copy of the same tower on the same batches, in turn. Features in fp32 and the loss of
every step must agree, or the benchmark fails. Texts have the lengths of SmolLM2-135M's comparisons (29 tokens on
average, 95% under 38, the longest 66), or are those of a finished run (--run outputs/demo).
"""

import argparse
import ctypes
import time
from copy import deepcopy
from pathlib import Path
from statistics import median

import numpy as np
import pandas as pd
import torch
from measure import in_status, matrix_peak, memory_peak, show
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pcclip import config as params, load_model
from pcclip.comparisons import stage as generate
from pcclip.encoders.packed_text import prefixes
from pcclip.finetuning import text_tower
from pcclip.finetuning.batches import Examples
from pcclip.finetuning.precision import autocast, has_bf16

ADJECTIVES = "large small red blue green white black brown old young tall round bright dark wet quiet".split()
SUBJECTS = "dog horse bus apple guitar truck rose penguin hammer zebra teapot violin owl tiger boat chair".split()
REST = (
    "with long legs and a red hat beside an old wooden house in front of a lake under a grey sky near some tall "
    "trees on a busy street at night"
).split()
SAME_FEATURES = 1e-4  # fp32, of values up to a few units
SAME_DIRECTION = {"fp32": 1e-6, "bf16": 1e-3}  # 1 - cosine of a text's vectors by the two loops
SAME_LOSS = {"fp32": 1e-4, "bf16": 1e-2}  # losses are of the size of log(batch)
IMAGES = 1000
KINDS = {"fp32": torch.float32, "bf16": torch.bfloat16}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="ViT-L-14:random")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--precision", choices=["auto", "fp32", "bf16"], default="auto")
    parser.add_argument("--run", type=Path, help="take the kept comparisons of this run")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)

    model = load_model(options.model)
    precision = options.precision
    if precision == "auto":
        precision = "bf16" if has_bf16(model.device) else "fp32"
    texts = comparisons(options.run) if options.run else synthetic(model, options.batch * (options.steps + 1))
    tokens = model.tokenised(texts)
    ours = Ours(model, precision)
    result = {
        "benchmark": "finetune",
        "model": options.model,
        "device": str(model.device),
        "precision": precision,
        "threads": torch.get_num_threads(),
        "batch": options.batch,
        "texts": len(texts),
        "tokens": {
            "mean": round(float(tokens.lengths.mean()), 1),
            "longest": int(tokens.lengths.max()),
            "p95": float(np.quantile(tokens.lengths, 0.95)),
            "context": model.context_length,
        },
        **compared(model, ours, texts, options.batch, options.steps),
    }
    result["growth"] = growth(model, ours, options.batch)
    show(result, options.json)


def compared(model, ours: "Ours", texts: list[str], batch: int, steps: int) -> dict:
    """Both loops in turn on the same batches."""
    plain, precision = Plain(model, texts), ours.precision
    ours.take(texts)
    rows = np.random.default_rng(0).permutation(len(texts))
    first = ours.examples.tokens[rows[:batch]]
    with torch.inference_mode():
        padded, packed = model.text_features(plain.padded(rows[:batch])), model.features(first)
        with autocast(precision, model.device):
            cosine = nn.functional.cosine_similarity(model.features(first).float(), padded)
    gap, turn = float((padded - packed).abs().max()), float((1 - cosine).max())
    if gap > SAME_FEATURES or turn > SAME_DIRECTION[precision]:
        raise SystemExit(f"padded and packed features differ by {gap:.2e} in fp32 and 1 - {turn:.2e} in direction")
    losses = plain.step(rows[:batch]), ours.step(rows[:batch])  # warm up
    timed, apart, peaks = [], [abs(losses[0] - losses[1])], []
    for k in range(steps):
        peaks.append({kind: matrix_peak(model.device, dtype) for kind, dtype in KINDS.items()})
        some = rows[np.arange(k * batch, (k + 1) * batch) % len(rows)]
        (a, loss_a), (b, loss_b) = seconds(model.device, plain.step, some), seconds(model.device, ours.step, some)
        timed.append((a, b, ours.optimizing))
        apart.append(abs(loss_a - loss_b))
    if max(apart) > SAME_LOSS[precision]:
        raise SystemExit(f"the losses of the two loops differ by {max(apart):.2e}")
    with FlopCounterMode(display=False) as counter:
        ours.step(rows[:batch])
    peak = {kind: max(found[kind] for found in peaks) for kind in KINDS}
    taken, optimizing = median(b for _, b, _ in timed), median(c for *_, c in timed)
    reached = counter.get_total_flops() / (taken - optimizing)
    optimizer_bytes = 4 * 7 * sum(p.numel() for p in ours.state.parameters.values())  # reads p, g, m, v; writes p, m, v
    return {
        "rows": len(prefixes(first)[1]),
        "tokens_of_batch": int(first.lengths.sum()),
        "largest_gap": gap,
        "largest_turn": turn,
        "largest_loss_gap": max(apart),
        "seconds_plain": round(median(a for a, *_ in timed), 4),
        "seconds": round(taken, 4),
        "seconds_optimizer": round(optimizing, 4),
        "ratio": round(median(a / b for a, b, _ in timed), 2),
        "flops_per_second": reached,
        "flops_per_second_peak": peak,
        "peak_fraction": round(reached / peak[precision], 3),
        "optimizer_bytes_per_second": optimizer_bytes / max(optimizing, 1e-9),
        "bytes_per_second_peak": memory_peak(model.device),
        "memory_plain": in_gigabytes(peak_memory(model.device, plain.step, rows[:batch])),
        "memory": in_gigabytes(peak_memory(model.device, ours.step, rows[:batch])),
    }


def growth(model, ours: "Ours", batch: int) -> list[dict]:
    """Seconds and memory of one step by length of the texts, batch, and texts in memory at once."""
    out = []
    for length, size, at_once in [
        (16, batch, None),
        (32, batch, None),
        (64, batch, None),
        (29, max(2, batch // 4), None),
        (29, 4 * batch, None),
        (29, 4 * batch, batch),
    ]:
        ours.take(synthetic(model, size, length), at_once)
        rows = np.arange(size)
        ours.step(rows)
        taken, _ = seconds(model.device, ours.step, rows)
        out.append(
            {
                "tokens": round(float(ours.examples.tokens.lengths.mean())),
                "batch": size,
                "micro_batch": at_once,
                "seconds": round(taken, 3),
                "texts_per_second": round(size / taken, 1),
                "memory": in_gigabytes(peak_memory(model.device, ours.step, rows)),
            }
        )
    return out


class Plain:
    """The released way, in so many words."""

    def __init__(self, model, texts: list[str]):
        self.model, self.texts = with_own_tower(model), texts
        self.vectors, self.first, self.second = images(len(texts), model.width, model.device)
        self.model.text_tower.requires_grad_(False)
        tuned = list(self.model.tunable("transformer").values())
        for parameter in tuned:
            parameter.requires_grad_(True)
        self.optimizer = torch.optim.Adam(tuned, lr=1e-8)

    def padded(self, rows) -> torch.Tensor:
        ids = torch.full((len(rows), self.model.context_length), self.model.pad_id)
        for k, tokens in enumerate(self.model.tokens([self.texts[i] for i in rows])):
            if len(tokens) > ids.shape[1]:
                tokens = [*tokens[: ids.shape[1] - 1], tokens[-1]]
            ids[k, : len(tokens)] = torch.tensor(tokens)
        return ids.to(self.model.device)

    def step(self, rows) -> float:
        v = []
        for i in rows:
            difference = self.vectors[self.first[i]] - self.vectors[self.second[i]]
            v.append(difference / difference.norm())
        w = nn.functional.normalize(self.model.text_features(self.padded(rows)), dim=-1)
        logits, target = w @ torch.stack(v).T, torch.arange(len(rows), device=w.device)
        cross_entropy = nn.functional.cross_entropy
        loss = (cross_entropy(logits, target) + cross_entropy(logits.T, target)) / 2
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return float(loss.detach())


class Ours:
    """Stage 03's own step; `optimizing` is how long its optimiser took."""

    def __init__(self, model, precision: str):
        self.precision, self.optimizing = precision, 0.0
        config, data = self._inputs(model, ["a", "b"], None)
        self.training = text_tower.TextTower(config, data, with_own_tower(model))
        self.state = self.training.state
        self.state.optimizer.register_step_pre_hook(lambda *_: self._started())
        self.state.optimizer.register_step_post_hook(lambda *_: self._ended())

    @property
    def examples(self) -> Examples:
        return self.training.data.train

    def take(self, texts: list[str], at_once: int | None = None) -> None:
        """The texts of the next steps, and how many of them may be in the tower at once."""
        config, self.training.data = self._inputs(self.training.model, texts, at_once)
        self.training.settings = config.finetune

    def _inputs(self, model, texts: list[str], at_once: int | None) -> tuple[params.Config, text_tower.TextTowerData]:
        vectors, first, second = images(len(texts), model.width, model.device)
        examples = Examples(texts, model.tokenised(texts), first, second)
        data = text_tower.TextTowerData(
            images=None,
            vectors=None,
            held_out_pairs=examples,
            train=examples,
            held_out=examples,
            verdicts=None,
            unrelated=None,
            replayed=None,
            matrix=vectors,
        )
        return params.check({"finetune": {"precision": self.precision, "micro_batch": at_once}}), data

    def _started(self) -> None:
        self.began = now(self.training.model.device)

    def _ended(self) -> None:
        self.optimizing = now(self.training.model.device) - self.began

    def step(self, rows) -> float:
        return self.training.step(rows)["loss"]


def with_own_tower(model):
    """The model with a copy of its text tower, everything else shared."""
    out = deepcopy(model, {id(module): module for module in (model.image_tower, model.text_tower)})
    out.text_tower = deepcopy(model.text_tower)
    return out


def images(pairs: int, width: int, device: torch.device) -> tuple[torch.Tensor, np.ndarray, np.ndarray]:
    """Unit vectors of images and which two each pair is of."""
    draw = np.random.default_rng(1)
    vectors = torch.from_numpy(draw.normal(size=(IMAGES, width)).astype(np.float32)).to(device)
    first = draw.integers(IMAGES, size=pairs)
    return nn.functional.normalize(vectors, dim=-1), first, (first + draw.integers(1, IMAGES, size=pairs)) % IMAGES


def synthetic(model, count: int, length: int | None = None) -> list[str]:
    """Comparisons of the lengths of SmolLM2-135M's, or all of `length` tokens; one of the first 32 is the longest."""
    draw = np.random.default_rng(2)
    wanted = np.full(count, length) if length else draw.normal(28.9, 5.2, count).round().clip(14, 50).astype(int)
    if not length:
        wanted[min(7, count - 1)] = 66
    out = []
    for target in wanted:
        sides = [f"a {draw.choice(ADJECTIVES)} {draw.choice(SUBJECTS)}" for _ in range(2)]
        [bare] = map(len, model.tokens([f"The first image shows {sides[0]}, while the second image shows {sides[1]}."]))
        more = max(0, int(target) - bare)
        for side, words in enumerate((more // 2, more - more // 2)):
            start = draw.integers(len(REST))
            sides[side] = " ".join([sides[side], *np.roll(REST, -start)[:words]])
        out.append(f"The first image shows {sides[0]}, while the second image shows {sides[1]}.")
    return out


def comparisons(run: Path) -> list[str]:
    return list(generate.kept(pd.read_parquet(run / generate.FOLDER / "comparisons.parquet"), "train").difference)


def now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def seconds(device: torch.device, call, *arguments):
    """How long it took, and what it gave."""
    started = now(device)
    found = call(*arguments)
    return now(device) - started, found


def peak_memory(device: torch.device, call, *arguments) -> float | None:
    """Bytes at most in use while it runs, above what was in use before. None where that cannot be measured."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call(*arguments)
        return torch.cuda.max_memory_allocated() - before
    try:
        ctypes.CDLL(None).malloc_trim(0)  # glibc: give back what is kept for later
        Path("/proc/self/clear_refs").write_text("5")  # Linux: forget the highest so far
    except (OSError, AttributeError):
        return None
    before = in_status("VmRSS")
    call(*arguments)
    return in_status("VmHWM") - before


def in_gigabytes(count: float | None) -> float | None:
    return None if count is None else round(count / 1e9, 2)


if __name__ == "__main__":
    main()
