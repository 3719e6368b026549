"""Pictures from arithmetic: vectors decoded by Stable unCLIP, or the nearest real photos instead.

diffusers' StableUnCLIPImg2ImgPipeline decodes an image embedding of one CLIP model. The published small pipeline
(stabilityai/stable-diffusion-2-1-unclip-small) fits the model `ViT-L-14:openai` alone; other models need a pipeline
trained for them. Vectors here have length one and are scaled to the length of the pipeline's own embeddings.
"""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from PIL import Image

from pcclip.arithmetic.differences import HeldOut
from pcclip.arithmetic.texts import TextMemory
from pcclip.config import Config, resolve
from pcclip.encoders.diffusion import on_hub
from pcclip.errors import PcclipError, one_line
from pcclip.runs.files import atomic, disk_errors
from pcclip.stats.vectors import unit
from pcclip.torchvision_shim import declare_missing

FOLDER = "pictures"  # in the stage's folder
DECODED, STAND_IN = "decoded", "nearest photo"
COLUMNS = ["row", "what", "model", "kind", "picture", "start"]
PIPELINE = "StableUnCLIPImg2ImgPipeline"
STEPS = 25  # denoising steps


def check(config: Config) -> None:
    """Raise PcclipError when a decoder is named, and diffusers is not installed or there is no such folder."""
    decoder = config.arithmetic.decoder
    if decoder and find_spec("diffusers") is None:
        raise PcclipError("arithmetic.decoder needs diffusers: `pip install 'pcclip[pictures]'`")
    if decoder and not (resolve(decoder).is_dir() or on_hub(decoder)):
        raise PcclipError(f"arithmetic.decoder = {decoder}: no such folder, and not a name on the hub")


def picture_table(
    config: Config, held_out: HeldOut, models: Mapping[str, TextMemory], folder: Path
) -> tuple[pd.DataFrame, list[str]]:
    """A picture of every arithmetic in the parameters by every model.

    Returns:
        A row per picture, columns COLUMNS, and the names of the files that were written below `folder`.
    """
    requests = wanted_pictures(config, held_out, models)
    if config.arithmetic.decoder is None:
        nearest = [nearest_photo(held_out, request) for request in requests.itertuples()]
        return requests.assign(kind=STAND_IN, picture=nearest)[COLUMNS], []
    pipeline = load_pipeline(config.arithmetic.decoder)
    files = [f"{FOLDER}/{number:03d}.png" for number in range(len(requests))]
    with disk_errors(folder):
        (folder / FOLDER).mkdir(exist_ok=True)
    for name, request in zip(files, requests.itertuples(), strict=True):  # all models start from the same noise
        with atomic(folder / name) as temporary:
            decode(pipeline, request.vector, config.seed + request.row).save(temporary, "PNG")
    return requests.assign(kind=DECODED, picture=[str(folder / name) for name in files])[COLUMNS], files


def wanted_pictures(config: Config, held_out: HeldOut, models: Mapping[str, TextMemory]) -> pd.DataFrame:
    """u + strength * f(d) for each of arithmetic.changes, f(a) - f(b) + f(c) for each of arithmetic.compositions.

    Columns what (the arithmetic in words), model, start (path of the changed photo, or ''), vector (of length one) and
    row (number of the arithmetic).
    """
    table, rows = held_out.table, []
    for change in config.arithmetic.changes:
        for start in table.index[table.concept == change.start][:1]:
            for name, model in models.items():
                own = held_out.vectors.seen_by(name)
                [u] = own.matrix[own.rows([table["id"][start]])]
                vector = unit(u + config.arithmetic.strength * model.encode_texts([change.text])[0])
                rows.append((f"{change.start} + f({change.text})", name, table.path[start], vector))
    for a, b, c, *wanted_text in config.arithmetic.compositions:
        for name, model in models.items():
            f = model.encode_texts([a, b, c])
            arithmetic = f"f({a}) - f({b}) + f({c})" + "".join(f" = f({text})?" for text in wanted_text)
            rows.append((arithmetic, name, "", unit(f[0] - f[1] + f[2])))
    requests = pd.DataFrame(rows, columns=["what", "model", "start", "vector"])
    return requests.astype(dict.fromkeys(["what", "model", "start"], str)).assign(row=pd.factorize(requests.what)[0])


def nearest_photo(held_out: HeldOut, request: Any) -> str:
    """Path of the held-out photo nearest to the request's vector, other than its start."""
    paths = held_out.table.path.to_numpy()
    cosine = held_out.vectors.seen_by(request.model).matrix[held_out.rows] @ request.vector
    cosine[paths == request.start] = -np.inf
    return str(paths[cosine.argmax()])


def load_pipeline(spec: str) -> Any:
    """diffusers' pipeline from a hub name or a folder, safetensors alone.

    Raises PcclipError when it cannot be loaded or is another kind of pipeline.
    """
    declare_missing()  # diffusers imports torchvision
    from diffusers import DiffusionPipeline

    place = resolve(spec)
    dtype = torch.float16 if torch.cuda.is_available() else torch.float32
    try:
        pipeline = DiffusionPipeline.from_pretrained(
            str(place) if place.is_dir() else spec, use_safetensors=True, dtype=dtype
        )
    except (OSError, ValueError, ImportError) as error:
        raise PcclipError(
            f"arithmetic.decoder = {spec}: cannot be loaded ({one_line(error)}); give a hub name or the folder "
            "of a pipeline with safetensors"
        ) from None
    if type(pipeline).__name__ != PIPELINE:
        raise PcclipError(f"arithmetic.decoder = {spec}: a {type(pipeline).__name__}; it must be a {PIPELINE}")
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to("cuda" if torch.cuda.is_available() else "cpu")


def decode(pipeline: Any, vector: Float[np.ndarray, " d"], seed: int) -> Image.Image:
    """The picture of a unit vector; the same seed gives the same noise for every vector.

    Raises PcclipError when the vector is not as wide as the pipeline's embeddings.
    """
    mean, std = pipeline.image_normalizer.mean, pipeline.image_normalizer.std
    if len(vector) != mean.shape[-1]:
        raise PcclipError(
            f"arithmetic.decoder: reads vectors of {mean.shape[-1]} numbers, and this model's have {len(vector)}; "
            "decode with the pipeline that belongs to the model (the published ones fit ViT-L-14:openai)"
        )
    length = float((mean.float() ** 2 + std.float() ** 2).sum().sqrt().detach())  # of the pipeline's own embeddings
    embedding = torch.from_numpy(np.asarray(vector, dtype=np.float32))[None].to(pipeline.device, pipeline.unet.dtype)
    noise = torch.Generator().manual_seed(seed)
    return pipeline(image_embeds=length * embedding, prompt="", generator=noise, num_inference_steps=STEPS).images[0]
