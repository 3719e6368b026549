"""Any open_clip model: NAME:TAG, NAME:/path/to/checkpoint, hf-hub:ORG/NAME or local-dir:FOLDER.

`force_custom_text` separates the text tower from the image tower in every model, so that it is saved and trained alone.
"""

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor, nn

from pcclip.config import resolve
from pcclip.encoders import packed_text as packed
from pcclip.encoders.dual_encoder import Encoder, Tower
from pcclip.encoders.tokens import Tokens
from pcclip.encoders.weight_files import loading, read_weights
from pcclip.errors import PcclipError
from pcclip.torchvision_shim import declare_missing

_SCHEMES = ("hf-hub:", "local-dir:")
_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.*", "*.safetensors", "*.bin", "*.pth", "*.pt")
_LOGIT_PARAMETERS = ("logit_scale", "logit_bias")
_SPARE = (
    *_LOGIT_PARAMETERS,
    "position_ids",
    "attn_mask",
    "input_resolution",
    "context_length",
    "vocab_size",
)  # change no vector
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "*.model")


def split(spec: str) -> tuple[str, str | None]:
    """'NAME:TAG' or 'NAME:/a/checkpoint' -> (NAME, TAG); 'hf-hub:...' and 'local-dir:...' -> (spec, None).

    Relative paths are below the workbook's root.
    """
    if spec.startswith("local-dir:"):
        return f"local-dir:{resolve(spec.removeprefix('local-dir:'))}", None
    if spec.startswith(_SCHEMES):
        return spec, None
    name, _, tag = spec.partition(":")
    return name, str(resolve(tag)) if tag and resolve(tag).is_file() else tag or None


def check(spec: str) -> None:
    """Raise PcclipError when open_clip knows no such name or tag, or a local config or checkpoint is not there.

    `local_weights` looks for the weights of local-dir:. Of hf-hub: nothing is checked before it is loaded.
    """
    declare_missing()
    import open_clip

    name, tag = split(spec)
    folder = Path(name.removeprefix("local-dir:"))
    if name.startswith("local-dir:") and not (folder / "open_clip_config.json").is_file():
        raise PcclipError(f"model {spec!r}: {folder} has no open_clip_config.json")
    if name.startswith(_SCHEMES):
        return
    if name not in open_clip.list_models():
        raise PcclipError(
            f"unknown model {spec!r}; use minilm-efficientnet, an open_clip NAME:TAG such as "
            "ViT-L-14:datacomp_xl_s13b_b90k, NAME:/path/to/checkpoint, local-dir:DIR, or a run's folder"
        )
    tags = open_clip.list_pretrained_tags_by_model(name)
    if tag != "random" and tag not in tags and not (tag and Path(tag).is_file()):
        raise PcclipError(f"model {spec!r}: no such checkpoint file or tag; tags of {name}: {', '.join(tags)}")


def local_weights(spec: str) -> Path | None:
    """The checkpoint file of a spec, or None when open_clip fetches the weights.

    Raises PcclipError when a local folder has no weights.
    """
    name, tag = split(spec)
    if tag and Path(tag).is_file():
        return Path(tag)
    if not name.startswith("local-dir:"):
        return None
    folder = Path(name.removeprefix("local-dir:"))
    if not (files := [file for pattern in _WEIGHTS for file in sorted(folder.glob(pattern))]):
        raise PcclipError(f"model {spec!r}: no weights in {folder}; put {_WEIGHTS[0]} there")
    return files[0]


def tokenizer_source(spec: str) -> str | None:
    """The folder or hub name that the tokenizer is read from, or None for open_clip's own tokenizer.

    Tokenizer files beside local weights come before the hub.

    Raises PcclipError when a local folder has none.
    """
    import open_clip

    name, _ = split(spec)
    if name.startswith("hf-hub:"):
        return None  # its config, which names the tokenizer, is on the hub too
    hub_tokenizer = (open_clip.get_model_config(name) or {}).get("text_cfg", {}).get("hf_tokenizer_name")
    file = local_weights(spec) if hub_tokenizer else None
    if file and any(any(file.parent.glob(pattern)) for pattern in _TOKENIZER):
        return str(file.parent)
    if hub_tokenizer and name.startswith("local-dir:"):
        raise PcclipError(
            f"model {spec!r}: its folder has no tokenizer; put the tokenizer files of {hub_tokenizer} there (tokenizer.json)"
        )
    return hub_tokenizer or None


def load(spec: str, device: str = "cpu") -> tuple[Any, Any, Any]:
    """open_clip's model, its preprocessing and its tokenizer.

    Device 'meta' tries local files without the weights' memory, and fetches no tokenizer.

    Raises PcclipError when the spec is unknown, or a file is damaged or of another model.
    """
    check(spec)
    import open_clip

    name, tag = split(spec)
    file = local_weights(spec)
    skip_pretrained = file is not None or tag == "random"
    with loading(spec):
        with torch.random.fork_rng(devices=[]), torch.device(device), ExitStack() as quiet:
            quiet.callback(logging.disable, logging.root.manager.disable)
            logging.disable(logging.WARNING)  # open_clip warns that weights are random: they are loaded afterwards
            torch.manual_seed(0)  # NAME:random is the same model every time
            model, _, preprocess = open_clip.create_model_and_transforms(
                name,
                None if skip_pretrained else tag,
                device=device,
                force_custom_text=True,
                load_weights=not skip_pretrained,
                require_pretrained=not skip_pretrained,
                pretrained_text=not skip_pretrained,
                weights_only=True,
            )
        if file and file.suffix in (".npz", ".npy"):  # of big_vision
            open_clip.load_checkpoint(model, str(file))
        elif file:
            _load(model, file, device)
        source = tokenizer_source(spec)
        is_here = not source or Path(source).is_dir()
        return model, preprocess, _tokenizer(name, source) if is_here or device != "meta" else None


class OpenClip(Encoder):
    text_tower: Any

    def __init__(self, spec: str):
        super().__init__()
        model, self._preprocess, self._tokenizer = load(spec)
        self.spec, self.name = spec, split(spec)[0]
        self.logits = {scale: value for scale, value in model.named_parameters() if scale in _LOGIT_PARAMETERS}
        self.image_tower, self.text_tower = model.visual, model.text
        self.image_tower.requires_grad_(False)
        self.context_length = self.text_tower.context_length
        with torch.inference_mode():
            self.width = self.text_tower(torch.zeros(1, self.context_length, dtype=torch.long)).shape[-1]
        self._is_causal, self._can_pack = packed.causal(self.text_tower), packed.packs(self.text_tower)
        self._causal_mask: Any = getattr(self.text_tower, "attn_mask", None)
        activations = {type(m).__name__ for m in self.text_tower.modules() if "gelu" in type(m).__name__.lower()}
        self.architecture = {
            "family": "open_clip",
            "name": self.name,
            "width": self.width,
            "context_length": self.context_length,
            "activation": "/".join(sorted(activations)),
            "preprocess": str(self._preprocess),
        }
        self.eval()

    def preprocess(self, image: Image.Image) -> Float[Tensor, "3 h w"]:
        return self._preprocess(image)

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        if not hasattr(self._tokenizer, "encoder"):  # this tokenizer returns padded rows only
            return self._tokenizer(list(texts)).tolist() if len(texts) else []
        start, end = self._tokenizer.sot_token_id, self._tokenizer.eot_token_id
        return [[start, *self._tokenizer.encode(text), end] for text in texts]

    def batch(self, tokens: Tokens) -> Int[Tensor, "n t"]:
        """Pad to the full context where the tower attends to padding."""
        ids = super().batch(tokens)
        if self._is_causal or ids.shape[1] == self.context_length:
            return ids
        return nn.functional.pad(ids, (0, self.context_length - ids.shape[1]), value=self.pad_id)

    def features(self, tokens: Tokens) -> Float[Tensor, "n d"]:
        if self._can_pack:
            return packed.features(self.text_tower, tokens)
        return super().features(tokens) if self._is_causal else self.text_features(self.batch(tokens))

    def image_features(self, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
        return self.image_tower(pixels)

    def text_features(self, ids: Int[Tensor, "n t"]) -> Float[Tensor, "n d"]:
        if self._is_causal:  # open_clip adds the full mask whatever the length: give it the part it needs
            self.text_tower.attn_mask = self._causal_mask[: ids.shape[1], : ids.shape[1]].to(ids.device)
        return self.text_tower(ids)

    def transformer(self, tower: Tower = "text") -> nn.Module:
        if tower == "text":
            return self.text_tower.transformer
        images = getattr(self.image_tower, "trunk", self.image_tower)  # timm's towers are wrapped
        parts = dict(images.named_children())
        blocks = [parts[name] for name in ("transformer", "blocks", "stages") if name in parts]
        stages = [part for name, part in parts.items() if name.startswith("layer")]  # of a ResNet
        return nn.ModuleList(blocks[:1] or stages or [images])


def _load(model: nn.Module, file: Path, device: str) -> None:
    """Load both towers from a checkpoint: nested or plain, with prefixes of training scripts, with either naming of weights.

    The model keeps its own logit scale and bias when the checkpoint has none.

    Raises PcclipError when the file is no checkpoint, or lacks tensors, as a text tower alone does.
    """
    from open_clip.convert import convert_state_dict
    from open_clip.model import convert_to_custom_text_state_dict, resize_pos_embed, resize_text_pos_embed

    own = model.state_dict()
    state = convert_to_custom_text_state_dict(convert_state_dict(model, read_weights(file, device)))
    scales = {name: value for name, value in own.items() if name in _LOGIT_PARAMETERS}
    unused = {name for name in state if name.endswith(_SPARE)} - own.keys()
    state = {name: value for name, value in state.items() if name not in unused}
    state = scales | {n: v.reshape(scales[n].shape) if n in scales else v for n, v in state.items()}
    if missing := sorted(own.keys() - state.keys()):
        raise PcclipError(
            f"the checkpoint lacks {len(missing)} of {len(own)} tensors "
            f"({', '.join(missing[:3])} ...); it must hold both towers: "
            "save its weights together with those of their base model"
        )
    resize_pos_embed(state, model)
    resize_text_pos_embed(state, model)
    model.load_state_dict(state, assign=device == "meta")


@cache
def _tokenizer(name: str, source: str | None) -> Any:
    """open_clip's tokenizer of a model; cached, since reading the vocabulary is slow."""
    import open_clip
    from open_clip.tokenizer import HFTokenizer

    if source is None:
        return open_clip.get_tokenizer(name)
    text = open_clip.get_model_config(name)["text_cfg"]
    options = {**text.get("tokenizer_kwargs", {}), "tokenizer_mode": text.get("tokenizer_mode")}
    return HFTokenizer(source, text.get("context_length", 77), **options)
