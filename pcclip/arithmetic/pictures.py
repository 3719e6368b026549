"""Pictures from arithmetic: vectors decoded by an unCLIP pipeline of diffusers, or the nearest real photos instead.

Two pipelines are read, by hub name or folder, as safetensors alone. StableUnCLIPImg2ImgPipeline (Stable unCLIP) takes
the vector as an image embedding. UnCLIPPipeline (Karlo) takes a text vector through its prior, as the paper does, and
an image vector past it, as diffusers' UnCLIPImageVariationPipeline does with the same parts. Vectors here are of length
one; each is given the length that the pipeline's own embeddings have. The model must be the pipeline's: ViT-H-14 of
LAION-2B for Stable unCLIP's large one, OpenAI's ViT-L-14 for its small one and for Karlo.

Pictures are judged by another model than the one whose vectors were decoded: CLIPScore (Hessel et al., 2021),
2.5 * max(0, cos), and the directional score cos(change of the image, change of the text) (Gal et al., 2022).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from PIL import Image

from pcclip.arithmetic.texts import Remembered
from pcclip.comparisons.sentences import sides
from pcclip.config import Config, resolve
from pcclip.data.image_set import ImageSet
from pcclip.embedding.vectors import Vectors
from pcclip.encoders.dual_encoder import Encoder
from pcclip.errors import PcclipError
from pcclip.stats.vectors import cosines, unit
from pcclip.torchvision_shim import declare_missing

DECODED, STAND_IN = "decoded", "nearest photo"
COLUMNS = ["row", "what", "model", "kind", "picture", "start", "wanted", "before", "clip_score", "directional"]
CLIP_SCORE = 2.5  # Hessel et al.'s w
_VERB = re.compile(r"^(shows?|is of|is|has|contains|depicts)\s+", re.IGNORECASE)
_PIPELINES = ("StableUnCLIPImg2ImgPipeline", "UnCLIPPipeline")


@dataclass(frozen=True)
class Asked:
    """One picture to make: a vector of an arithmetic, and what is known about it.

    Attributes:
        what: the arithmetic in words; model: whose vectors; text: whether it is a vector of texts alone.
        vector: (d,), unit.
        start: path of the photo that was changed, or ''; wanted, before: texts of what should and did show, or ''.
    """

    what: str
    model: str
    text: bool
    vector: Float[np.ndarray, " d"]
    start: str
    wanted: str
    before: str


class Decoder:
    """An unCLIP pipeline, and how to hand it a unit vector.

    Args:
        spec: hub name or local folder.
        steps: denoising steps; of Karlo's super-resolution 7, as its authors take.

    Raises:
        PcclipError: diffusers is not installed, nothing to load there, or another kind of pipeline.
    """

    def __init__(self, spec: str, steps: int = 25):
        check_installed()
        declare_missing()  # diffusers imports torchvision
        from diffusers import DiffusionPipeline

        place = resolve(spec)
        half = torch.cuda.is_available()
        try:
            pipeline = DiffusionPipeline.from_pretrained(
                str(place) if place.is_dir() else spec,
                use_safetensors=True,
                dtype=torch.float16 if half else torch.float32,
            )
        except (OSError, ValueError, ImportError) as error:
            told = " ".join(str(error).split())[:300]
            raise PcclipError(
                f"arithmetic.decoder = {spec}: cannot be loaded ({told}); give a hub name or the folder "
                "of a pipeline with safetensors"
            ) from None
        self.of_pipeline(pipeline.to("cuda" if half else "cpu"), spec, steps)

    @classmethod
    def wrap(cls, pipeline: Any, spec: str = "a pipeline", steps: int = 25) -> "Decoder":
        """One that is loaded already."""
        made = cls.__new__(cls)
        made.of_pipeline(pipeline, spec, steps)
        return made

    def of_pipeline(self, pipeline: Any, spec: str, steps: int) -> None:
        self.kind = type(pipeline).__name__
        if self.kind not in _PIPELINES:
            raise PcclipError(f"arithmetic.decoder = {spec}: a {self.kind}; it must be one of {', '.join(_PIPELINES)}")
        self.spec, self.steps, self._pipeline, self._of_image = spec, steps, pipeline, None
        pipeline.set_progress_bar_config(disable=True)
        mean, std = (
            (pipeline.image_normalizer.mean, pipeline.image_normalizer.std)
            if self.kind == _PIPELINES[0]
            else (pipeline.prior.clip_mean, pipeline.prior.clip_std)
        )
        self.width = mean.shape[-1]
        self.length = float((mean.float() ** 2 + std.float() ** 2).sum().sqrt().detach())  # of its image embeddings

    def picture(self, vector: Float[np.ndarray, " d"], seed: int, text: bool = False) -> Image.Image:
        """The picture of a unit vector; the same seed gives the same noise, whatever the vector.

        Raises PcclipError when the vector is not as wide as the pipeline's embeddings.
        """
        if len(vector) != self.width:
            raise PcclipError(
                f"arithmetic.decoder = {self.spec}: reads vectors of {self.width} numbers, and this "
                f"model's have {len(vector)}; decode with the pipeline that belongs to the model"
            )
        pipeline, noise = self._pipeline, torch.Generator().manual_seed(seed)
        given = torch.from_numpy(np.asarray(vector, dtype=np.float32))[None].to(pipeline.device, self._dtype)
        if self.kind == "StableUnCLIPImg2ImgPipeline":
            return pipeline(
                image_embeds=self.length * given, prompt="", generator=noise, num_inference_steps=self.steps
            ).images[0]
        if text:
            states, mask, length = self._empty_prompt()
            return pipeline(
                text_model_output=(length * given, states),
                text_attention_mask=mask,
                generator=noise,
                prior_num_inference_steps=self.steps,
                decoder_num_inference_steps=self.steps,
            ).images[0]
        return self._variation()(
            image_embeddings=self.length * given, generator=noise, decoder_num_inference_steps=self.steps
        ).images[0]

    @property
    def _dtype(self) -> torch.dtype:
        return next(self._pipeline.text_encoder.parameters()).dtype

    def _empty_prompt(self) -> tuple[torch.Tensor, torch.Tensor, float]:
        """Token states and mask of '', so that only the vector speaks, and the length of the encoder's own vectors."""
        pipeline = self._pipeline
        read = pipeline.tokenizer(
            [""],
            padding="max_length",
            max_length=pipeline.tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        with torch.inference_mode():
            found = pipeline.text_encoder(read.input_ids.to(pipeline.device))
        return (
            found.last_hidden_state,
            read.attention_mask.bool().to(pipeline.device),
            float(found.text_embeds.float().norm()),
        )

    def _variation(self) -> Any:
        if self._of_image is None:
            from diffusers import UnCLIPImageVariationPipeline

            parts = {
                name: part
                for name, part in self._pipeline.components.items()
                if name not in ("prior", "prior_scheduler")
            }
            self._of_image = UnCLIPImageVariationPipeline(
                **parts, feature_extractor=None, image_encoder=self._pipeline.prior
            )  # asked for its dtype alone
            self._of_image.set_progress_bar_config(disable=True)
        return self._of_image


def check_installed() -> None:
    """Raise PcclipError without diffusers."""
    if find_spec("diffusers") is None:
        raise PcclipError("arithmetic.decoder needs diffusers: `pip install 'pcclip[pictures]'`")


def asked(config: Config, images: ImageSet, vectors: Vectors, models: dict[str, Remembered]) -> list[Asked]:
    """u + strength * f(d) for each of arithmetic.changes, f(a) - f(b) + f(c) for each of arithmetic.compositions."""
    table, found = vectors.of(images.held_out), []
    for change in config.arithmetic.changes:
        rows = np.flatnonzero(table.concept == change.start)
        wanted, before = _shown(change.text)
        for which, model in models.items() if len(rows) else []:
            u = vectors.seen_by(which).matrix[vectors.rows([table["id"][rows[0]]])[0]]
            step = config.arithmetic.strength * model.encode_texts([change.text])[0]
            found.append(
                Asked(
                    f"{change.start} + f({wanted or change.text}, not {before or change.start})",
                    which,
                    False,
                    unit(u + step),
                    table.path[rows[0]],
                    _photo(wanted),
                    _photo(before),
                )
            )
    for a, b, c, *wanted in config.arithmetic.compositions:
        for which, model in models.items():
            f = model.encode_texts([a, b, c])
            found.append(
                Asked(
                    f"f({a}) - f({b}) + f({c})",
                    which,
                    True,
                    unit(f[0] - f[1] + f[2]),
                    "",
                    wanted[0] if wanted else "",
                    "",
                )
            )
    return found


def made(wanted: Sequence[Asked], decoder: Decoder, seed: int) -> list[Image.Image]:
    """One picture each; those of one arithmetic start from the same noise, whichever model's vector it is."""
    numbers = {what: k for k, what in enumerate(dict.fromkeys(one.what for one in wanted))}
    return [decoder.picture(one.vector, seed + numbers[one.what], one.text) for one in wanted]


def stand_ins(wanted: Sequence[Asked], images: ImageSet, vectors: Vectors) -> list[str]:
    """Paths of the held-out photos nearest to the vectors, the start left out: what there is without a decoder."""
    table = vectors.of(images.held_out)
    rows, paths = vectors.rows(table["id"]), table.path.to_numpy()
    found = []
    for one in wanted:
        cosine = vectors.seen_by(one.model).matrix[rows] @ one.vector
        cosine[paths == one.start] = -np.inf
        found.append(str(paths[cosine.argmax()]))
    return found


def table(wanted: Sequence[Asked], pictures: Sequence[str], kind: str, judge: Encoder | None) -> pd.DataFrame:
    """A row per picture, columns COLUMNS; scores are NaN where there is no judge or no text to judge by."""
    rows = pd.DataFrame(
        {
            "row": pd.factorize(np.array([f"{one.what}: {one.wanted}" for one in wanted], dtype=object))[0],
            "what": [one.what for one in wanted],
            "model": [one.model for one in wanted],
            "kind": kind,
            "picture": list(pictures),
            "start": [one.start for one in wanted],
            "wanted": [one.wanted for one in wanted],
            "before": [one.before for one in wanted],
        },
        columns=COLUMNS[:-2],
    )
    rows["clip_score"] = rows["directional"] = np.nan
    asked_for = rows.wanted != ""
    if judge is not None and asked_for.any():
        shown = judge.encode_images(list(rows.picture[asked_for]))
        text = judge.encode_texts(list(rows.wanted[asked_for]))
        rows.loc[asked_for, "clip_score"] = clip_score(shown, text)
        whole = asked_for & (rows.start != "") & (rows.before != "")
        if whole.any():
            began = judge.encode_images(list(rows.start[whole]))
            was = judge.encode_texts(list(rows.before[whole]))
            at = whole[asked_for].to_numpy()
            rows.loc[whole, "directional"] = directional(shown[at], began, text[at], was)
    return rows


def clip_score(images: Float[np.ndarray, "n d"], texts: Float[np.ndarray, "n d"]) -> Float[np.ndarray, " n"]:
    """2.5 * max(0, cos) of unit vectors, row by row."""
    return CLIP_SCORE * np.maximum(0, cosines(images, texts))


def directional(
    after: Float[np.ndarray, "n d"],
    before: Float[np.ndarray, "n d"],
    wanted: Float[np.ndarray, "n d"],
    was: Float[np.ndarray, "n d"],
) -> Float[np.ndarray, " n"]:
    """Cosine of the change of the image with the change of the text; 0 where nothing changed."""
    return cosines(unit(after - before), unit(wanted - was))


def _photo(side: str) -> str:
    return f"a photo of {side}" if side else ""


def _shown(text: str) -> tuple[str, str]:
    """What a comparison says that the first image shows, and the second: ('a bird', 'a horse'), or empty ones."""
    return tuple(_VERB.sub("", side) for side in sides(text) or ("", ""))
