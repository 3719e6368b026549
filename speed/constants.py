"""Measure this machine's constants for `pcclip plan`, and write them as JSON, each with its unit and source.

    python speed/constants.py [--out speed/constants.json] [--model M] [--photos 48]

Measured are core seconds to decode a photo; on a GPU also the share of its peak that encoding photos reaches. Constants that
are not measured keep their defaults.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import torch
from embed import jpegs, opened
from measure import matrix_peak, seconds_of, show

from pcclip import load_model
from pcclip.config import root
from pcclip.encoders.dual_encoder import Encoder
from pcclip.workbook.cost import DEFAULTS
from pcclip.workbook.sizes import encoder_size


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=root() / "speed" / "constants.json")
    parser.add_argument("--model", default="ViT-B-32:random")
    parser.add_argument("--photos", type=int, default=48)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)

    model = load_model(options.model)
    with tempfile.TemporaryDirectory() as folder:
        photos = jpegs(Path(folder), options.photos, (640, 480))
        values = {"decoding": decoding_seconds(model, photos)}
        if model.device.type == "cuda":
            values["encoding"] = encoding_utilisation(model, options.model, photos)
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


if __name__ == "__main__":
    main()
