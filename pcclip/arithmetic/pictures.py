"""Pictures from arithmetic: vectors decoded by Stable unCLIP, or the nearest real photos instead.

diffusers' StableUnCLIPImg2ImgPipeline decodes an image embedding of one CLIP model. The published small pipeline
(stabilityai/stable-diffusion-2-1-unclip-small) fits the model `ViT-L-14:openai` alone; other models need a pipeline
trained for them. Vectors here have length one and are scaled to the length of the pipeline's own embeddings.

Pictures are judged by another model than the decoded one: CLIPScore, 2.5 * max(0, cos) (Hessel et al., 2021), and the
directional score, cos(change of the image, change of the text) (Gal et al., 2022).
"""

import re
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
from pcclip.comparisons.sentences import sides
from pcclip.config import Config, resolve
from pcclip.encoders import identify, load_model
from pcclip.encoders.dual_encoder import Encoder
from pcclip.errors import PcclipError, one_line
from pcclip.runs.files import atomic, disk_errors
from pcclip.stats.vectors import cosines, unit
from pcclip.torchvision_shim import declare_missing

FOLDER = "pictures"  # in the stage's folder
DECODED, STAND_IN = "decoded", "nearest photo"
COLUMNS = ["row", "what", "model", "kind", "picture", "start", "wanted", "before", "clip_score", "directional"]
CLIP_SCORE = 2.5  # Hessel et al.'s w
PIPELINE = "StableUnCLIPImg2ImgPipeline"
STEPS = 25  # denoising steps
_VERB = re.compile(r"^(shows?|is of|is|has|contains|depicts)\s+", re.IGNORECASE)


def inputs(config: Config) -> dict:
    """The judge's identity, for the stage's key.

    Raises PcclipError when the judge is unknown or is the model whose vectors are decoded.
    """
    judge = config.arithmetic.judge
    if judge is None:
        return {}
    if identify(judge) == identify(config.model):
        raise PcclipError(
            f"arithmetic.judge = {judge}: the model whose vectors are decoded; a picture is judged by another one"
        )
    return {"judge": identify(judge)}


def check(config: Config) -> None:
    """Raise PcclipError as `inputs`, or when a decoder is named and diffusers is not installed."""
    inputs(config)
    if config.arithmetic.decoder and find_spec("diffusers") is None:
        raise PcclipError("arithmetic.decoder needs diffusers: `pip install 'pcclip[pictures]'`")


def picture_table(
    config: Config, held_out: HeldOut, models: Mapping[str, TextMemory], folder: Path
) -> tuple[pd.DataFrame, list[str]]:
    """Make a picture of every arithmetic in the parameters and judge it.

    Returns:
        A row per picture, columns COLUMNS, and the names of the files that were written below `folder`.
    """
    settings = config.arithmetic
    requests, vectors = wanted_pictures(config, held_out, models)
    files: list[str] = []
    if settings.decoder is None:
        requests = requests.assign(kind=STAND_IN, picture=nearest_photos(requests, vectors, held_out))
    else:
        check(config)
        pipeline = load_pipeline(settings.decoder)
        files = [f"{FOLDER}/{number:03d}.png" for number in range(len(requests))]
        with disk_errors(folder):
            (folder / FOLDER).mkdir(exist_ok=True)
        noise_seeds = config.seed + pd.factorize(requests.what)[0]  # all models start from the same noise
        for name, vector, seed in zip(files, vectors, noise_seeds, strict=True):
            with atomic(folder / name) as temporary:
                decode(pipeline, vector, int(seed)).save(temporary, "PNG")
        requests = requests.assign(kind=DECODED, picture=[str(folder / name) for name in files])
    judge = load_model(settings.judge) if settings.judge else None
    return judged(requests, judge), files


def wanted_pictures(
    config: Config, held_out: HeldOut, models: Mapping[str, TextMemory]
) -> tuple[pd.DataFrame, list[Float[np.ndarray, " d"]]]:
    """u + strength * f(d) for each of arithmetic.changes, f(a) - f(b) + f(c) for each of arithmetic.compositions.

    Returns:
        Columns what (the arithmetic in words), model, start (path of the changed photo), wanted and before (texts of
        the picture's content after and before), row (number of the arithmetic); and their unit vectors.
    """
    table, rows, vectors = held_out.table, [], []
    for change in config.arithmetic.changes:
        wanted, before = (_VERB.sub("", side) for side in sides(change.text) or ("", ""))
        arithmetic = f"{change.start} + f({wanted or change.text}, not {before or change.start})"
        for start in table.index[table.concept == change.start][:1]:
            for name, model in models.items():
                own = held_out.vectors.seen_by(name)
                [u] = own.matrix[own.rows([table["id"][start]])]
                vectors.append(unit(u + config.arithmetic.strength * model.encode_texts([change.text])[0]))
                rows.append([arithmetic, name, table.path[start], _photo_text(wanted), _photo_text(before)])
    for a, b, c, *wanted_text in config.arithmetic.compositions:
        for name, model in models.items():
            f = model.encode_texts([a, b, c])
            vectors.append(unit(f[0] - f[1] + f[2]))
            rows.append([f"f({a}) - f({b}) + f({c})", name, "", (wanted_text or [""])[0], ""])
    requests = pd.DataFrame(rows, columns=["what", "model", "start", "wanted", "before"], dtype=str)
    return requests.assign(row=pd.factorize(requests.what + ": " + requests.wanted)[0]), vectors


def nearest_photos(requests: pd.DataFrame, vectors: list[Float[np.ndarray, " d"]], held_out: HeldOut) -> list[str]:
    """Paths of the held-out photos nearest to the vectors, other than the start, in the place of decoded pictures."""
    paths, nearest = held_out.table.path.to_numpy(), []
    for request, vector in zip(requests.itertuples(), vectors, strict=True):
        cosine = held_out.vectors.seen_by(request.model).matrix[held_out.rows] @ vector
        cosine[paths == request.start] = -np.inf
        nearest.append(str(paths[cosine.argmax()]))
    return nearest


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
        reason = one_line(error)
        raise PcclipError(
            f"arithmetic.decoder = {spec}: cannot be loaded ({reason}); give a hub name or the folder "
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


def judged(requests: pd.DataFrame, judge: Encoder | None) -> pd.DataFrame:
    """The requests with their scores, columns COLUMNS; NaN without a judge or without a text to judge by."""
    rows = requests.assign(clip_score=np.nan, directional=np.nan)[COLUMNS]
    with_text = rows.wanted != ""
    if judge is None or not with_text.any():
        return rows
    after, wanted = judge.encode_images(list(rows.picture[with_text])), judge.encode_texts(list(rows.wanted[with_text]))
    rows.loc[with_text, "clip_score"] = CLIP_SCORE * np.maximum(0, cosines(after, wanted))
    with_start = with_text & (rows.start != "") & (rows.before != "")
    if with_start.any():
        start = judge.encode_images(list(rows.start[with_start]))
        before = judge.encode_texts(list(rows.before[with_start]))
        changed = with_start[with_text].to_numpy()
        rows.loc[with_start, "directional"] = cosines(unit(after[changed] - start), unit(wanted[changed] - before))
    return rows


def _photo_text(content: str) -> str:
    return f"a photo of {content}" if content else ""
