"""What a diffusion teacher costs, counted from its configuration with nothing in memory.

Built by diffusers on torch's meta device and run as the teacher is used: frozen, with a gradient to the latents alone.
"""

import json
from dataclasses import dataclass
from math import prod
from pathlib import Path

from pcclip.config import resolve
from pcclip.encoders import toy_diffusion as shapes
from pcclip.encoders.diffusion import missing_teacher
from pcclip.errors import PcclipError
from pcclip.torchvision_shim import declare_missing
from pcclip.workbook.activations import traced

_V1 = {  # Stable Diffusion 1: what its files say where it differs from diffusers' defaults
    "unet": {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8},
    "vae": {
        "block_out_channels": [128, 256, 512, 512],
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        "layers_per_block": 2,
        "latent_channels": 4,
        "sample_size": 512,
    },
    "text_encoder": {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "vocab_size": 49408,
        "max_position_embeddings": 77,
    },
}
_V1_NAMES = (
    "compvis/stable-diffusion-v1-",
    "runwayml/stable-diffusion-v1-",
    "stable-diffusion-v1-5/stable-diffusion-v1-5",
)
FILES = ("unet/config.json", "vae/config.json", "text_encoder/config.json")


@dataclass(frozen=True)
class TeacherSize:
    """A teacher. FLOPs are of one picture, latent or text, forward; bytes are of one latent in fp32."""

    unet: int  # parameters
    vae: int
    text_encoder: int
    latent: tuple[int, int, int]
    condition: tuple[int, int]
    unet_flops: int
    vae_flops: int  # of encoding
    text_flops: int
    kept: int  # bytes of activations that the gradient needs
    kept_checkpointing: int  # the same with gradient checkpointing, at its highest

    @property
    def cached(self) -> tuple[int, int]:
        """Bytes of the latents of one picture, and of the condition of one text, in fp32."""
        return 4 * prod(self.latent), 4 * prod(self.condition)


def of_teacher(spec: str) -> TeacherSize | None:
    """By its configuration in a folder or in the hub's cache, or known by name; None when the hub alone could tell.

    Raises PcclipError when it cannot be built, or diffusers is not installed.
    """
    values = _values(spec)
    if values is None:
        return None
    try:
        declare_missing()
        import diffusers  # noqa: F401
    except ImportError:
        raise PcclipError(f"teacher {spec}: needs diffusers: pip install 'pcclip[pictures]'") from None
    try:
        return _counted(values)
    except (TypeError, ValueError, KeyError, RuntimeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise PcclipError(
            f"teacher {spec}: diffusers cannot build it ({type(error).__name__}: {reason}); mend its config.json files"
        ) from None


def _values(spec: str) -> dict | None:
    if shapes.SPEC.fullmatch(spec):
        return {"unet": shapes.UNET, "text_encoder": {"vocab_size": 0, **shapes.TEXT_ENCODER}}  # its words are few
    folder = resolve(spec)
    if folder.is_dir():
        if lines := missing_teacher(spec):
            raise PcclipError(lines[0])
        paths = {file.split("/")[0]: folder / file for file in FILES}
    else:
        from huggingface_hub import try_to_load_from_cache
        from huggingface_hub.errors import HFValidationError

        try:
            found = {file.split("/")[0]: try_to_load_from_cache(spec, file) for file in FILES}
        except HFValidationError:
            return None
        paths = {part: Path(path) for part, path in found.items() if isinstance(path, str)}
        if not {"unet", "text_encoder"} <= paths.keys():
            return _V1 if spec.lower().startswith(_V1_NAMES) else None
    try:
        return {
            part: json.loads(path.read_text(encoding="utf8"))
            for part, path in paths.items()
            if part != "vae" or path.is_file()
        }
    except (OSError, ValueError) as error:
        raise PcclipError(f"teacher {spec}: {' '.join(str(error).split())}; fetch it again") from None


def _counted(values: dict) -> TeacherSize:
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(values["unet"]).requires_grad_(False).eval()
        vae = AutoencoderKL.from_config(values["vae"]).requires_grad_(False).eval() if "vae" in values else None
    text = values["text_encoder"]
    wide, length = text["hidden_size"], text["max_position_embeddings"]
    blocks = text["num_hidden_layers"] * (4 * wide**2 + 2 * wide * text["intermediate_size"])
    size = unet.config.sample_size
    height, width = size if isinstance(size, list | tuple) else (size, size)
    latent = (unet.config.in_channels, height, width)
    scale = 2 ** (len(vae.config.block_out_channels) - 1) if vae else 1

    def seen():
        z = torch.zeros(1, *latent, requires_grad=True)
        return unet(z, torch.zeros(1, dtype=torch.long), torch.zeros(1, length, unet.config.cross_attention_dim))

    whole = traced(unet, seen)
    return TeacherSize(
        unet=_count(unet),
        vae=_count(vae) if vae else 0,
        text_encoder=blocks + (text["vocab_size"] + length) * wide,
        latent=latent,
        condition=(length, wide),
        unet_flops=whole.flops,
        text_flops=2 * blocks * length,
        kept=whole.bytes,
        vae_flops=traced(vae, lambda: vae.encode(torch.zeros(1, 3, scale * height, scale * width))).flops if vae else 0,
        kept_checkpointing=traced(unet, seen, unet.enable_gradient_checkpointing).bytes,
    )


def _count(module) -> int:
    return sum(p.numel() for p in module.parameters())
