"""A frozen text-to-image diffusion model as a teacher: which noise does it predict in a picture, given a text?

It is read from diffusers' pipeline layout (unet/, scheduler/, text_encoder/, tokenizer/ and vae/), safetensors alone.
A folder without vae/ has the pixels themselves as latents. Models built like Stable Diffusion 1 and 2 can be read: one text
encoder, one UNet that sees latents and the text, a scheduler with alphas_cumprod, and a UNet that predicts noise or
velocity.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image, ImageOps
from torch import Tensor

from pcclip.config import resolve
from pcclip.encoders.dual_encoder import weights_digest
from pcclip.encoders.toy_diffusion import SHAPES_DIFFUSION
from pcclip.encoders.weight_files import check_folder, from_folder
from pcclip.errors import PcclipError, one_line
from pcclip.runs.files import digest, file_digest
from pcclip.torchvision_shim import declare_missing

PARTS = ("unet", "scheduler", "text_encoder", "tokenizer")
Precision = Literal["fp32", "bf16", "fp16"]
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_PREDICTIONS = ("epsilon", "v_prediction")


def load_teacher(spec: str, precision: Precision = "fp32", checkpointing: bool = False) -> "Teacher":
    """Load a teacher from the hub or a folder, on the GPU when there is one.

    Args:
        spec: a hub name such as CompVis/stable-diffusion-v1-4, or a folder; relative ones below the workbook's root.
            shapes-diffusion or shapes-diffusion:SEED is trained on drawn pictures the first time.
        precision: of the UNet's weights; the VAE and the text encoder, whose results are kept, stay in fp32.
        checkpointing: the UNet keeps fewer activations for the gradient, and computes them twice.

    Raises:
        PcclipError: diffusers is not installed, a part is missing or cannot be read, or it is no model of this kind.
    """
    try:
        import diffusers
    except ImportError:
        raise PcclipError(f"teacher {spec!r} needs diffusers: pip install 'pcclip[pictures]'") from None
    declare_missing()  # transformers imports torchvision
    import transformers

    seed = SHAPES_DIFFUSION.seed(spec)
    place = _place(spec) if seed is None else str(SHAPES_DIFFUSION.trained(seed))
    classes = {
        "unet": diffusers.UNet2DConditionModel,
        "vae": diffusers.AutoencoderKL,
        "scheduler": diffusers.DDPMScheduler,
        "text_encoder": transformers.CLIPTextModel,
        "tokenizer": transformers.CLIPTokenizer,
    }
    parts: dict[str, Any] = {"vae": None}
    if lines := missing_teacher(place):
        raise PcclipError(f"{lines[0]}; give a hub name or a folder in diffusers' pipeline layout")
    if any((Path(place) / part).is_dir() for part in ("text_encoder_2", "transformer")):
        raise PcclipError(
            f"teacher {spec!r}: has more than one text encoder or no UNet; give a model built like "
            "Stable Diffusion 1 or 2"
        )
    has_vae = (Path(place) / "vae").is_dir() or not Path(place).is_dir()
    for name in (*PARTS, *(["vae"] if has_vae else [])):
        dtype = _DTYPES[precision] if name == "unet" else torch.float32
        try:
            if name in ("scheduler", "tokenizer"):
                parts[name] = classes[name].from_pretrained(place, subfolder=name)
            else:
                parts[name] = from_folder(classes[name], place, subfolder=name, use_safetensors=True, dtype=dtype)
        except Exception as error:  # diffusers, transformers, safetensors and the hub each raise their own
            reason = f"{type(error).__name__}: {one_line(error)}"
            raise PcclipError(f"teacher {spec!r}: its {name} cannot be loaded ({reason})") from None
    teacher = Teacher(parts, spec)
    if checkpointing:
        teacher.unet.enable_gradient_checkpointing()
    return teacher.to("cuda" if torch.cuda.is_available() else "cpu")


def identify_teacher(spec: str) -> str:
    """A digest of the weights that a spec names, without loading them, for a stage's key.

    Raises PcclipError when a part is missing.
    """
    if (seed := SHAPES_DIFFUSION.seed(spec)) is not None:
        return SHAPES_DIFFUSION.stage(seed).key[:16]
    if lines := missing_teacher(spec):
        raise PcclipError(lines[0])
    place = Path(_place(spec))
    files = [file for part in (*PARTS, "vae") for file in sorted((place / part).glob("*.*"))] if place.is_dir() else []
    return digest([spec if not files else "", {f"{f.parent.name}/{f.name}": file_digest(f) for f in files}])[:16]


def on_hub(spec: str) -> bool:
    """Whether a spec may be the name of a repository on the hub."""
    return bool(re.fullmatch(r"[\w.-]+/[\w.-]+", spec))


def missing_teacher(spec: str) -> list[str]:
    """One line for each part that a folder lacks; the hub is not asked, so a hub name lacks nothing.

    Raises PcclipError when a file of weights is damaged.
    """
    if SHAPES_DIFFUSION.seed(spec) is not None:
        return []
    place = Path(_place(spec))
    if not place.is_dir():
        return [] if on_hub(spec) else [f"teacher {spec!r}: no such folder, and not a name on the hub"]
    lines = [f"teacher {spec!r}: {place} has no {part}/" for part in PARTS if not (place / part).is_dir()]
    check_folder(place)
    return lines + [
        f"teacher {spec!r}: {place / part} has no safetensors"
        for part in ("unet", "text_encoder", "vae")
        if (place / part).is_dir() and not any((place / part).glob("*.safetensors"))
    ]


class Teacher:
    """A frozen diffusion model: evaluation mode, no gradients to its own weights.

    Args:
        parts: the loaded unet, scheduler, text_encoder, tokenizer and vae, by these names; without a vae the pixels are
            the latents.
        spec: its name in messages.

    Attributes:
        latent_shape: (c, h, w) of the latents: (4, 64, 64) for Stable Diffusion 1.
        pixels: height and width of the pictures it reads, 512 for Stable Diffusion 1.
        steps: noise levels t = 0 ... steps - 1; prediction: 'epsilon' or 'v_prediction'.

    Raises:
        PcclipError: the parts are of another kind of model.
    """

    def __init__(self, parts: Mapping[str, Any], spec: str = ""):
        self.unet, self.scheduler, self.vae = parts["unet"], parts["scheduler"], parts.get("vae")
        self.text_encoder, self.tokenizer, self.spec = parts["text_encoder"], parts["tokenizer"], spec
        self.steps: int = self.scheduler.config.num_train_timesteps
        self.prediction: str = self.scheduler.config.prediction_type
        size, channels = self.unet.config.sample_size, self.unet.config.in_channels
        height, width = size if isinstance(size, list | tuple) else (size, size)
        self.latent_shape = (channels, height, width)
        self.scale = 1 if self.vae is None else 2 ** (len(self.vae.config.block_out_channels) - 1)
        self.pixels = (self.scale * height, self.scale * width)
        self._check()
        self.alphas = self.scheduler.alphas_cumprod.double()
        for part in self._modules():
            part.eval().requires_grad_(False)

    def _check(self) -> None:
        config, width = self.unet.config, self.text_encoder.config.hidden_size
        channels = 3 if self.vae is None else self.vae.config.latent_channels
        problems = {
            f"predicts {self.prediction}, not {' or '.join(_PREDICTIONS)}": self.prediction not in _PREDICTIONS,
            "its UNet sees more than the latents": config.out_channels != config.in_channels,
            f"its UNet sees {config.in_channels} channels, and a picture has {channels}": config.in_channels
            != channels,
            "its UNet wants more than the latents and the text": config.addition_embed_type is not None
            or config.class_embed_type is not None,
            f"its UNet wants texts {config.cross_attention_dim} wide, and its text encoder gives {width}": width
            != config.cross_attention_dim,
        }
        for reason, is_so in problems.items():
            if is_so:
                raise PcclipError(f"teacher {self.spec!r}: {reason}; give a model built like Stable Diffusion 1 or 2")

    def _modules(self) -> list[torch.nn.Module]:
        return [part for part in (self.unet, self.text_encoder, self.vae) if part is not None]

    def to(self, device: str | torch.device, dtype: torch.dtype | None = None) -> "Teacher":
        """Move the parts, and the UNet alone to `dtype`. Returns the teacher itself."""
        for part in self._modules():
            part.to(device)
        if dtype not in (None, self.unet.dtype):
            self.unet.to(dtype)
        self.unet.to(memory_format=torch.channels_last)
        self.alphas = self.alphas.to(device)
        return self

    @property
    def device(self) -> torch.device:
        return self.unet.device

    def preprocess(self, image: Image.Image) -> Float[Tensor, "3 h w"]:
        """RGB in [-1, 1]: scaled to its shorter side and cut at the centre, as Diffusion Classifier (2303.16203) and
        CLIP do."""
        height, width = self.pixels
        fitted = ImageOps.fit(image.convert("RGB"), (width, height), Image.Resampling.BICUBIC)
        return torch.from_numpy(np.asarray(fitted, dtype=np.float32) / 127.5 - 1.0).permute(2, 0, 1)

    @torch.no_grad()
    def latents(self, pixels: Float[Tensor, "n 3 H W"]) -> Float[Tensor, "n c h w"]:
        """z0 on the teacher's device: the mean of the VAE's posterior, scaled as the UNet was trained on; no draw, so
        the same batch gives the same bits."""
        pixels = pixels.to(self.device, torch.float32)
        if self.vae is None:
            return pixels
        shift = getattr(self.vae.config, "shift_factor", None) or 0.0
        return (self.vae.encode(pixels).latent_dist.mode() - shift) * self.vae.config.scaling_factor

    @torch.no_grad()
    def conditions(self, texts: Sequence[str]) -> Float[Tensor, "n t d"]:
        """Last hidden states of its text encoder, the texts padded (or cut) to its tokenizer's length as Stable
        Diffusion does; '' gives the unconditional one."""
        tokens = self.tokenizer(
            list(texts),
            padding="max_length",
            truncation=True,
            return_tensors="pt",
            max_length=self.tokenizer.model_max_length,
        )
        seen = (
            tokens.attention_mask.to(self.device)
            if getattr(self.text_encoder.config, "use_attention_mask", False)
            else None
        )
        return self.text_encoder(tokens.input_ids.to(self.device), attention_mask=seen).last_hidden_state.float()

    def noised(
        self, z0: Float[Tensor, "n c h w"], t: Int[Tensor, " n"], noise: Float[Tensor, "n c h w"]
    ) -> Float[Tensor, "n c h w"]:
        """z_t = sqrt(abar_t) z0 + sqrt(1 - abar_t) noise, with the scheduler's alphas_cumprod."""
        signal, rest = self._levels(t, z0)
        return signal * z0 + rest * noise

    def noise(
        self, z_t: Float[Tensor, "n c h w"], t: Int[Tensor, " n"], condition: Float[Tensor, "n t d"]
    ) -> Float[Tensor, "n c h w"]:
        """The noise predicted in z_t, with a gradient to z_t. A velocity v gives sqrt(abar) v + sqrt(1 - abar) z_t."""
        dtype = self.unet.dtype
        predicted = self.unet(z_t.to(dtype), t.to(self.device), condition.to(dtype)).sample.to(z_t.dtype)
        if self.prediction == "epsilon":
            return predicted
        signal, rest = self._levels(t, z_t)
        return signal * predicted + rest * z_t

    def denoising(
        self,
        z0: Float[Tensor, "n c h w"],
        t: Int[Tensor, " n"],
        noise: Float[Tensor, "n c h w"],
        condition: Float[Tensor, "n t d"],
    ) -> Float[Tensor, " n"]:
        """Mean squared error of the noise predicted in z_t: the integrand of L_SDS, and of d(x, c)."""
        return (self.noise(self.noised(z0, t, noise), t, condition) - noise).square().flatten(1).mean(dim=1)

    def fingerprint(self) -> str:
        """A digest of all that its predictions depend on: weights, noise levels, tokenizer."""
        words = [self.tokenizer.get_vocab(), self.tokenizer.model_max_length]
        weights = [weights_digest(part) for part in self._modules()]
        return digest([weights, str(self.unet.dtype), self.prediction, self.alphas.tolist(), words])[:16]

    def _levels(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """sqrt(abar_t), sqrt(1 - abar_t), each (n, 1, 1, 1)."""
        alphas = self.alphas[t.to(self.alphas.device)].to(like.device).view(-1, 1, 1, 1)
        return alphas.sqrt().to(like.dtype), (1 - alphas).sqrt().to(like.dtype)


def _place(spec: str) -> str:
    folder = resolve(spec)
    return str(folder) if folder.is_dir() else spec
