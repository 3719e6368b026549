"""Measure this machine's constants for `pcclip plan`, and write them as JSON, each with its unit and source.

    python speed/constants.py [--out speed/constants.json] [--model M] [--photos 48] [--images 20000] [--pairs 5000]

Measured are core seconds to decode a photo, and bytes of memory for an image and for a comparison; on a GPU also the
share of its peak that encoding photos reaches. Constants that are not measured keep their defaults.
"""

import argparse
import json
import tarfile
import tempfile
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import torch
from embed import jpegs, opened
from measure import matrix_peak, seconds_of, show

from pcclip import config as params
from pcclip import load_model
from pcclip.comparisons import stage as comparisons
from pcclip.config import root
from pcclip.data.image_set import load_images
from pcclip.encoders.dual_encoder import Encoder
from pcclip.images import batches
from pcclip.workbook.cost import DEFAULTS
from pcclip.workbook.sizes import encoder_size

THINGS = ["dog", "cat", "horse", "bird", "bus", "boat", "lamp", "chair", "apple", "tree"]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=root() / "speed" / "constants.json")
    parser.add_argument("--model", default="ViT-B-32:random")
    parser.add_argument("--photos", type=int, default=48)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--pairs", type=int, default=5_000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)

    model = load_model(options.model)
    with tempfile.TemporaryDirectory() as folder:
        photos = jpegs(Path(folder), options.photos, (640, 480))
        values = {"decoding": decoding_seconds(model, photos)}
        if model.device.type == "cuda":
            values["encoding"] = encoding_utilisation(model, options.model, photos)
        values |= memory(model, Path(folder), options.images, options.pairs)
    machine = torch.cuda.get_device_name() if model.device.type == "cuda" else "one core of this machine"
    source = f"speed/constants.py on {machine}, {time.strftime('%Y-%m-%d')}"
    constants = {name: [value, f"{DEFAULTS[name][1].split(':')[0]}: {source}"] for name, value in values.items()}
    options.out.write_text(json.dumps(constants, indent=1) + "\n", encoding="utf8")
    show({"benchmark": "constants", "out": str(options.out), **values}, options.json)


def decoding_seconds(model: Encoder, photos: list[str]) -> float:
    """Core seconds to decode and prepare one photo."""
    started = time.process_time()
    for path in photos:
        model.preprocess(opened(path))
    return (time.process_time() - started) / len(photos)


def encoding_utilisation(model: Encoder, spec: str, photos: list[str]) -> float:
    """FLOP/s of the image tower over those of a large matrix product in fp32."""
    pixels = torch.stack([model.preprocess(opened(path)) for path in photos])
    model.encode_pixels(pixels)  # warm up
    flop = encoder_size(spec).image.flop * len(photos)
    return flop / seconds_of(lambda: model.encode_pixels(pixels)) / matrix_peak(model.device)


def memory(model: Encoder, folder: Path, images: int, pairs: int) -> dict[str, float]:
    """Most bytes held at once: for an image of a set in tar files, and for a comparison on top of that."""
    write_tars(folder / "tars", images)

    def config_of(count: int) -> params.Config:
        generate = {"backend": "template", "pairs": count, "held_out_pairs": 1, "sampling": "random"}
        data = {"source": "webdataset", "path": str(folder / "tars")}
        return params.check(
            {
                "run": f"pairs_{count}",
                "outputs": str(folder / "outputs"),
                "data": data,
                "generate": {**generate, "filters": "none", "min_yield": 0.0},
            }
        )

    sets = []
    by_image = most_bytes(lambda: sets.append(load_images(config_of(1)))) / images
    comparisons.generate(config_of(1), sets[0], model)  # imports, and whatever is loaded once
    by_pair = most_bytes(lambda: comparisons.generate(config_of(pairs), sets[0], model)) / pairs
    return {"image": by_image, "comparison": by_pair}


def most_bytes(run: Callable[[], object]) -> float:
    """By how much the memory of this process grew at its largest (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    run()
    return max(0, _status("VmHWM") - before)


def _status(name: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{name}:"))
    return 1024 * int(line.split()[1])


def write_tars(folder: Path, images: int) -> None:
    """Shards of 1000 samples, each a caption and one byte in place of a photo."""
    folder.mkdir(parents=True)
    for rows in batches(images, 1000):
        with tarfile.open(folder / f"{rows.start // 1000:05d}.tar", "w", format=tarfile.USTAR_FORMAT) as archive:
            for row in rows:
                caption = f"A {row} {THINGS[row % len(THINGS)]} on the grass near a tall old house with a red roof."
                for kind, content in (("jpg", b"\0"), ("txt", caption.encode())):
                    member = tarfile.TarInfo(f"{row:09d}.{kind}")
                    member.size = len(content)
                    archive.addfile(member, BytesIO(content))


if __name__ == "__main__":
    main()
